//! From those who publish to those who listen.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, mpsc, watch};

use super::pace::Pace;
use super::{Refusal, SharedRefusal};
use crate::clock::Monotonic;

/// Refusals that are kept for who comes later.
pub const RECENT_MAX: usize = 200;

/// Most listeners at a time.
pub const LISTENERS_MAX: usize = 64;

/// Refusals that a listener may be behind.
const BEHIND_MAX: usize = 256;

/// Refusals on their way from workers.
const ON_THE_WAY_MAX: usize = 1024;

/// All places are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{LISTENERS_MAX} listeners are connected, which is the most; close one and try again")]
pub struct TooManyListeners;

/// See the module documentation.
pub struct Events {
    /// From workers, without a lock: see [`Events::submit`].
    submit: mpsc::Sender<Refusal>,
    submitted: Notify,
    sender: broadcast::Sender<SharedRefusal>,
    kept: Mutex<Kept>,
    pace: Pace,
    listeners: AtomicUsize,
    closed: watch::Sender<bool>,
}

struct Kept {
    /// The other end of [`Events::submit`].
    on_the_way: mpsc::Receiver<Refusal>,
    last: u64,
    recent: VecDeque<SharedRefusal>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl Default for Events {
    fn default() -> Self {
        let (submit, on_the_way) = mpsc::channel(ON_THE_WAY_MAX);
        Self {
            submit,
            submitted: Notify::new(),
            sender: broadcast::Sender::new(BEHIND_MAX),
            kept: Mutex::new(Kept { on_the_way, last: 0, recent: VecDeque::new() }),
            pace: Pace::default(),
            listeners: AtomicUsize::new(0),
            closed: watch::Sender::new(false),
        }
    }
}

impl Events {
    /// Whether a refusal at `now` is to be described; the answer counts, so it must be if so.
    pub fn wants(&self, now: Monotonic) -> bool {
        self.pace.admits(self.listeners.load(Ordering::Relaxed) > 0, now)
    }

    /// Hands a refusal over, for workers: takes no lock that a listener or a page may hold, as
    /// their threads may be kept from running for a while. One that finds no room is left out, and
    /// said to be.
    pub fn submit(&self, refusal: Refusal) {
        if self.submit.try_send(refusal).is_err() {
            self.pace.skip();
        }
        self.submitted.notify_one();
    }

    /// Passes on what workers hand over, until the end. To be run where nothing keeps it from
    /// running; until it does, whoever asks for what is kept passes it on.
    pub async fn run(&self) {
        let mut closed = self.closed.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => return,
                () = self.submitted.notified() => drop(self.kept()),
            }
        }
    }

    /// Tells everyone who listens, and keeps it for who comes later.
    #[cfg(test)]
    pub fn publish(&self, refusal: Refusal) {
        self.submit(refusal);
        drop(self.kept());
    }

    /// The refusals that are kept, the oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<SharedRefusal> {
        self.kept().recent.iter().cloned().collect()
    }

    /// Listens to what comes after the refusal `after` (zero: to all that are kept), or, without
    /// it, to what comes from now on.
    pub fn listen(self: &Arc<Self>, after: Option<u64>) -> Result<Listener, TooManyListeners> {
        let place = Place::take(self)?;
        let kept = self.kept();
        let mut behind = VecDeque::new();
        let mut missed = 0;
        // A number that was never given: of another process, before a restart.
        let after = after.map(|after| if after > kept.last { 0 } else { after });
        if let Some(after) = after {
            behind = kept.recent.iter().filter(|r| r.sequence > after).cloned().collect();
            let oldest = kept.recent.front().map_or(kept.last, |r| r.sequence.saturating_sub(1));
            missed = if after == 0 { 0 } else { oldest.saturating_sub(after) };
        }
        let receiver = self.sender.subscribe();
        drop(kept);
        Ok(Listener { behind, missed, receiver, closed: self.closed.subscribe(), _place: place })
    }

    /// Ends all listening, that which begins later too.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// What is kept, after everything that was on the way was told and kept too.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic under the lock leaves at worst one refusal that is not kept.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // No more than were there at first, so that a flood ends.
        for _ in 0..ON_THE_WAY_MAX {
            let Ok(mut refusal) = kept.on_the_way.try_recv() else { break };
            kept.last += 1;
            refusal.sequence = kept.last;
            refusal.skipped = self.pace.take_skipped();
            let refusal = Arc::new(refusal);
            if kept.recent.len() >= RECENT_MAX {
                kept.recent.pop_front();
            }
            kept.recent.push_back(Arc::clone(&refusal));
            // Under the lock, so that a listener gets everything once. That nobody listens is no
            // failure.
            let _ = self.sender.send(refusal);
        }
        kept
    }
}

/// One of [`LISTENERS_MAX`].
struct Place(Arc<Events>);

impl Place {
    fn take(events: &Arc<Events>) -> Result<Self, TooManyListeners> {
        let more = |count: usize| (count < LISTENERS_MAX).then_some(count + 1);
        let taken = events.listeners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map_err(|_| TooManyListeners)?;
        Ok(Self(Arc::clone(events)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a listener gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A refusal.
    Refusal(SharedRefusal),
    /// So many are lost to this listener: it was slow, or away for too long.
    Missed(u64),
}

/// Somebody who listens.
pub struct Listener {
    /// From before it began to listen.
    behind: VecDeque<SharedRefusal>,
    missed: u64,
    receiver: broadcast::Receiver<SharedRefusal>,
    closed: watch::Receiver<bool>,
    _place: Place,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("behind", &self.behind.len()).finish_non_exhaustive()
    }
}

impl Listener {
    /// What comes next; `None` at the end. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Item> {
        if *self.closed.borrow() {
            return None;
        }
        let missed = std::mem::take(&mut self.missed);
        if missed > 0 {
            return Some(Item::Missed(missed));
        }
        if let Some(refusal) = self.behind.pop_front() {
            return Some(Item::Refusal(refusal));
        }
        tokio::select! {
            biased;
            _ = self.closed.wait_for(|closed| *closed) => None,
            received = self.receiver.recv() => match received {
                Ok(refusal) => Some(Item::Refusal(refusal)),
                Err(RecvError::Lagged(missed)) => Some(Item::Missed(missed)),
                Err(RecvError::Closed) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::clock::Timestamp;
    use crate::decision::denial::Code;

    fn refusal(path: &str) -> Refusal {
        Refusal {
            sequence: 0,
            skipped: 0,
            at: Timestamp::from_unix_s(1),
            request_id: "1".into(),
            trace_id: None,
            method: "GET".into(),
            path: path.into(),
            route: None,
            status: 404,
            code: Code::NotFound,
            why: "none".into(),
            client: Ipv4Addr::LOCALHOST.into(),
            shop: None,
            key_id: None,
            mechanism: None,
            origin: None,
        }
    }

    fn publish(events: &Events, count: u64) {
        (0..count).for_each(|n| events.publish(refusal(&format!("/{n}"))));
    }

    async fn sequences(listener: &mut Listener, count: usize) -> Vec<u64> {
        let mut found = Vec::new();
        for _ in 0..count {
            match listener.next().await {
                Some(Item::Refusal(refusal)) => found.push(refusal.sequence),
                other => panic!("{other:?} after {found:?}"),
            }
        }
        found
    }

    #[tokio::test]
    async fn everyone_gets_everything_once() {
        let events = Arc::new(Events::default());
        publish(&events, 2);
        let mut from_now = events.listen(None).unwrap();
        let mut from_start = events.listen(Some(0)).unwrap();
        let mut resumed = events.listen(Some(1)).unwrap();
        let mut of_another_life = events.listen(Some(99)).unwrap();
        publish(&events, 2);
        assert_eq!(sequences(&mut from_now, 2).await, [3, 4]);
        assert_eq!(sequences(&mut from_start, 4).await, [1, 2, 3, 4]);
        assert_eq!(sequences(&mut resumed, 3).await, [2, 3, 4]);
        assert_eq!(sequences(&mut of_another_life, 4).await, [1, 2, 3, 4]);
        events.close();
        assert_eq!(from_now.next().await, None);
        assert_eq!(events.listen(None).unwrap().next().await, None);
    }

    #[tokio::test]
    async fn who_is_slow_or_away_is_told_what_it_missed() {
        let events = Arc::new(Events::default());
        publish(&events, 5);
        let mut slow = events.listen(None).unwrap();
        publish(&events, BEHIND_MAX as u64 + 7);
        assert_eq!(slow.next().await, Some(Item::Missed(7)));
        assert_eq!(sequences(&mut slow, 1).await, [13]);
        let last = 5 + BEHIND_MAX as u64 + 7;
        let first_kept = last - RECENT_MAX as u64 + 1;
        let mut away = events.listen(Some(5)).unwrap();
        assert_eq!(away.next().await, Some(Item::Missed(first_kept - 6)));
        let found = sequences(&mut away, RECENT_MAX).await;
        assert_eq!((found[0], *found.last().unwrap()), (first_kept, last));
        assert_eq!(events.recent().len(), RECENT_MAX);
    }

    #[tokio::test]
    async fn what_workers_hand_over_is_passed_on_and_never_waits() {
        let events = Arc::new(Events::default());
        let mut listener = events.listen(None).unwrap();
        let running = Arc::clone(&events);
        let runner = tokio::spawn(async move { running.run().await });
        events.submit(refusal("/1"));
        assert_eq!(sequences(&mut listener, 1).await, [1]);
        // Whoever holds what is kept is slow: nothing is told, and nobody waits.
        let held = events.kept.lock().unwrap();
        (0..ON_THE_WAY_MAX as u64 + 3).for_each(|n| events.submit(refusal(&format!("/{n}"))));
        drop(held);
        let recent = events.recent();
        assert_eq!(recent.len(), RECENT_MAX);
        let last = recent.last().unwrap();
        assert_eq!(last.sequence, ON_THE_WAY_MAX as u64 + 1);
        let first = events.listen(Some(0)).unwrap().next().await;
        assert!(matches!(first, Some(Item::Refusal(_))), "{first:?}");
        events.close();
        runner.await.unwrap();
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let events = Arc::new(Events::default());
        let all: Vec<Listener> = (0..LISTENERS_MAX).map(|_| events.listen(None).unwrap()).collect();
        assert_eq!(events.listen(None).unwrap_err(), TooManyListeners);
        drop(all);
        assert!(events.listen(None).is_ok());
    }

    #[test]
    fn what_was_left_out_is_said_with_the_next() {
        let events = Arc::new(Events::default());
        let now = Monotonic::from_us(1);
        let described = (0..1000).filter(|_| events.wants(now)).count();
        assert!((1..100).contains(&described), "{described}");
        publish(&events, 2);
        let skipped: Vec<u64> = events.recent().iter().map(|r| r.skipped).collect();
        assert_eq!(skipped, [1000 - described as u64, 0]);
        let _listener = events.listen(None).unwrap();
        assert!(events.wants(now));
    }
}
