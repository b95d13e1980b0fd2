//! From the workers to whoever keeps what they count.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::sync::Notify;

use super::table::Table;
use super::{Counts, Outcome, Part};
use crate::clock::{Now, Timestamp};
use crate::id::ShopId;

/// From one exchange of tables to the next, at most, microseconds.
const HAND_OVER_US: u64 = 1_000_000;

/// One worker's full table on its way to the recorder, or an empty one on its way back.
type Mailbox = Arc<Mutex<Table>>;

/// Collects what all workers count.
pub struct Recorder {
    mailboxes: Mutex<Vec<Mailbox>>,
    handed_over: Notify,
    lost: AtomicU64,
    enabled: AtomicBool,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("lost", &self.lost()).finish_non_exhaustive()
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Recorder {
    /// One that counts, or not until [`Recorder::enable`] says so.
    #[must_use]
    pub fn new(enabled: bool) -> Self {
        Self {
            mailboxes: Mutex::default(),
            handed_over: Notify::new(),
            lost: AtomicU64::new(0),
            enabled: AtomicBool::new(enabled),
        }
    }

    /// Whether anything is counted from now on.
    pub fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Calls `visit` with what was handed over since the last call: the minute since the epoch in
    /// which it was counted, whose it is, and how much.
    pub fn drain(&self, mut visit: impl FnMut(u64, &ShopId, Part, Counts)) {
        let mut mailboxes = lock(&self.mailboxes);
        // Of a worker that ended nothing more will come: this is the last look.
        mailboxes.retain(|mailbox| {
            let ended = Arc::strong_count(mailbox) == 1;
            let mut table = lock(mailbox);
            let minute = table.minute;
            table.drain(|shop, part, counts| visit(minute, shop, part, counts));
            !ended
        });
    }

    /// Returns when a worker handed over a table that was filling up.
    pub async fn filled(&self) {
        self.handed_over.notified().await;
    }

    /// Requests that were not counted, for want of a place.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Notes that `count` requests are lost.
    pub fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }
}

/// What one worker counts. Hands over what is left when dropped.
#[derive(Debug)]
pub struct Tally {
    recorder: Arc<Recorder>,
    mailbox: Mailbox,
    table: Table,
    /// When tables were last exchanged, monotonic microseconds.
    handed_over_us: u64,
}

impl Tally {
    /// The tally of a new worker.
    #[must_use]
    pub fn new(recorder: &Arc<Recorder>) -> Self {
        let mailbox = Arc::new(Mutex::new(Table::new()));
        lock(&recorder.mailboxes).push(Arc::clone(&mailbox));
        Self { recorder: Arc::clone(recorder), mailbox, table: Table::new(), handed_over_us: 0 }
    }

    /// Counts a request that was decided at `now`.
    pub fn count(&mut self, shop: &ShopId, part: Part, outcome: Outcome, now: Now) {
        if !self.recorder.enabled.load(Ordering::Relaxed) {
            return;
        }
        let minute = minute_of(now.unix);
        let is_old = minute != self.table.minute && !self.table.is_empty();
        if is_old || self.table.is_half_full() || self.is_due(now) {
            self.hand_over(now);
        }
        if self.table.is_empty() {
            self.table.minute = minute;
        }
        if !self.table.count(shop, part, outcome) {
            self.recorder.lose(1);
        }
    }

    /// Hands over what a worker without requests has left; to be called every second or so.
    pub fn keep_up(&mut self, now: Now) {
        if self.is_due(now) {
            self.hand_over(now);
        }
    }

    fn is_due(&self, now: Now) -> bool {
        now.mono.us().saturating_sub(self.handed_over_us) >= HAND_OVER_US
    }

    /// Trades tables, unless the recorder is at the mailbox or was not there since the last time:
    /// then the next count tries again.
    fn hand_over(&mut self, now: Now) {
        let mut there = match self.mailbox.try_lock() {
            Ok(there) => there,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if !there.is_empty() {
            return;
        }
        let is_filling = self.table.is_half_full();
        std::mem::swap(&mut *there, &mut self.table);
        drop(there);
        self.handed_over_us = now.mono.us();
        if is_filling {
            self.recorder.handed_over.notify_one();
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let mut there = lock(&self.mailbox);
        if there.is_empty() {
            std::mem::swap(&mut *there, &mut self.table);
            return;
        }
        // The minute before is not collected yet: the last requests are counted with it.
        let Self { table, recorder, .. } = self;
        table.drain(|shop, part, counts| {
            if !there.add(shop, part, counts) {
                recorder.lose(counts.total());
            }
        });
    }
}

/// The minute since the epoch.
fn minute_of(at: Timestamp) -> u64 {
    at.unix_s() / 60
}

/// A panic under one of these locks leaves at worst a table that is partly emptied.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::clock::Monotonic;
    use crate::id::KeyId;
    use crate::usage::table::FILLED_MAX;

    fn shop(n: u64) -> ShopId {
        ShopId::parse(&format!("shop-{n}")).unwrap()
    }

    fn at(unix_s: u64, mono_us: u64) -> Now {
        Now { unix: Timestamp::from_unix_s(unix_s), mono: Monotonic::from_us(mono_us) }
    }

    fn drained(recorder: &Recorder) -> Vec<(u64, String, Counts)> {
        let mut found = Vec::new();
        recorder.drain(|minute, shop, part, counts| {
            found.push((minute, format!("{shop} {part}"), counts));
        });
        found
    }

    /// Threads count while another collects; nothing is counted twice, and what is not counted is
    /// known to be lost.
    #[test]
    fn what_many_threads_count_adds_up() {
        const THREADS: u32 = 6;
        const EACH: u64 = 40_000;
        let recorder = Arc::new(Recorder::default());
        let running = AtomicU32::new(THREADS);
        let mut sums: HashMap<(ShopId, Part), Counts> = HashMap::new();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (recorder, running) = (&recorder, &running);
                scope.spawn(move || {
                    let mut tally = Tally::new(recorder);
                    for n in 0..EACH {
                        let part = Part::Key(KeyId(n % 50));
                        let outcome = [Outcome::Allowed, Outcome::Refused, Outcome::Limited]
                            [(n % 3) as usize];
                        // Time runs: a minute ends every 1000 requests.
                        let now = at(n / 1000 * 60, n * 2000);
                        tally.count(&shop(n % 60 + u64::from(thread % 2)), part, outcome, now);
                    }
                    drop(tally);
                    running.fetch_sub(1, Ordering::SeqCst);
                });
            }
            loop {
                let ended = running.load(Ordering::SeqCst) == 0;
                recorder.drain(|_, shop, part, counts| {
                    *sums.entry((*shop, part)).or_default() += counts;
                });
                if ended {
                    break;
                }
            }
        });
        let mut total = Counts::default();
        for counts in sums.values() {
            total += *counts;
        }
        assert_eq!(total.total() + recorder.lost(), u64::from(THREADS) * EACH);
        // So few series always find a place.
        assert_eq!(recorder.lost(), 0);
        assert_eq!(total.allowed, u64::from(THREADS) * EACH.div_ceil(3));
        assert!(lock(&recorder.mailboxes).is_empty(), "ended workers are forgotten");
    }

    #[test]
    fn tables_are_exchanged_when_time_passes_and_never_waited_for() {
        let recorder = Arc::new(Recorder::default());
        let mut tally = Tally::new(&recorder);
        let mut count = |now| tally.count(&shop(1), Part::Jwt, Outcome::Allowed, now);
        count(at(60, 10_000_000));
        count(at(61, 10_500_000));
        assert_eq!(drained(&recorder), []);
        // Another minute: what was counted in the one before goes out.
        count(at(120, 10_600_000));
        let name = "shop-1 jwt".to_owned();
        let two = Counts { allowed: 2, ..Counts::default() };
        assert_eq!(drained(&recorder), [(1, name.clone(), two)]);
        // And another second.
        count(at(121, 11_700_000));
        // Nobody came: it goes on counting where it is, and the minute is the first one's.
        count(at(180, 12_800_000));
        count(at(240, 13_900_000));
        let one = Counts { allowed: 1, ..Counts::default() };
        assert_eq!(drained(&recorder), [(2, name.clone(), one)]);
        // Idle workers hand over too.
        tally.keep_up(at(300, 15_000_000));
        let three = Counts { allowed: 3, ..Counts::default() };
        assert_eq!(drained(&recorder), [(2, name, three)]);
    }

    #[test]
    fn a_clock_set_back_is_another_minute() {
        let recorder = Arc::new(Recorder::default());
        let mut tally = Tally::new(&recorder);
        tally.count(&shop(1), Part::Jwt, Outcome::Refused, at(6000, 1));
        tally.count(&shop(1), Part::Jwt, Outcome::Limited, at(60, 2));
        drop(tally);
        let minutes: Vec<u64> = drained(&recorder).into_iter().map(|(at, ..)| at).collect();
        // The recorder had not come: they share a table.
        assert_eq!(minutes, [100]);
    }

    #[test]
    fn who_finds_no_place_is_lost_and_known_to_be() {
        let recorder = Arc::new(Recorder::default());
        let mut tally = Tally::new(&recorder);
        let places = 2 * FILLED_MAX as u64;
        for n in 0..places + 500 {
            tally.count(&shop(n), Part::Jwt, Outcome::Allowed, at(60, 1));
        }
        let lost = recorder.lost();
        assert!(lost > 0 && lost < places, "{lost}");
        drop(tally);
        let mut counted: u64 = drained(&recorder).iter().map(|(.., counts)| counts.total()).sum();
        counted += recorder.lost();
        assert_eq!(counted, places + 500);
    }

    #[test]
    fn what_is_switched_off_counts_nothing() {
        let recorder = Arc::new(Recorder::new(false));
        let mut tally = Tally::new(&recorder);
        tally.count(&shop(1), Part::Jwt, Outcome::Allowed, at(60, 1));
        recorder.enable(true);
        tally.count(&shop(2), Part::Jwt, Outcome::Allowed, at(60, 1));
        drop(tally);
        let names: Vec<String> = drained(&recorder).into_iter().map(|(_, name, _)| name).collect();
        assert_eq!(names, ["shop-2 jwt"]);
    }
}
