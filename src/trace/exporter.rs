//! Takes spans from the queue and brings them to the collector, a batch at a time.
//!
//! A batch is sent when it is full or when its first span has waited long enough. While it is
//! under way the queue fills, and what has no room there is dropped: a collector that is slow or
//! gone costs a bounded amount of memory and no request any time. A batch is tried again as OTLP
//! says, with pauses that grow and are never the same, and given up after [`GIVE_UP`].

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::collector::{Collector, Reply};
use super::span::{Finished, Received};
use crate::clock::{Clock, Monotonic};
use crate::metrics::{Metrics, SpanOutcome};

/// How long one batch is tried again, its pauses together.
const GIVE_UP: Duration = Duration::from_secs(60);

/// The first pause before another try, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// How long the end of the process waits for what is still to be sent.
const FLUSH: Duration = Duration::from_secs(3);

/// Between two lines of the log about the same trouble.
const SILENCE: Duration = Duration::from_secs(60);

/// How many requests are taken from the queue at once while there is no collector.
const UNWANTED: usize = 1024;

/// What an exporter needs.
#[derive(Debug)]
pub struct Exporter {
    /// Where spans come from.
    pub spans: Received,
    /// Where they go, for now; `None`: nowhere, they are dropped.
    pub collector: watch::Receiver<Option<Arc<Collector>>>,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Exports until `stop` says so, and then what is left, for `FLUSH` at most.
pub async fn run(exporter: Exporter, stop: watch::Receiver<bool>) {
    let Exporter { spans, collector, metrics, clock } = exporter;
    Work::new(spans, collector, metrics, clock, stop).run_to_end().await;
}

/// Where batches go. A collector; in tests, a script.
trait Target: Send + Sync {
    /// The longest a span waits for others, and how many requests are told of at once.
    fn pace(&self) -> (Duration, usize);

    fn encode(&self, batch: &[Finished]) -> Bytes;

    fn send(&self, body: Bytes, clock: &dyn Clock) -> impl Future<Output = Reply> + Send;
}

impl Target for Collector {
    fn pace(&self) -> (Duration, usize) {
        (self.interval, self.batch_max)
    }

    fn encode(&self, batch: &[Finished]) -> Bytes {
        Self::encode(self, batch)
    }

    async fn send(&self, body: Bytes, clock: &dyn Clock) -> Reply {
        Self::send(self, body, clock).await
    }
}

struct Work<T> {
    spans: Received,
    target: watch::Receiver<Option<Arc<T>>>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    stop: watch::Receiver<bool>,
    /// Spans that were sent, and it is not known what came of it.
    under_way: u64,
    /// When the log was last told of a collector that does not take spans, unless it does again.
    told: Option<Monotonic>,
}

impl<T: Target> Work<T> {
    fn new(
        spans: Received,
        target: watch::Receiver<Option<Arc<T>>>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { spans, target, metrics, clock, stop, under_way: 0, told: None }
    }

    async fn run_to_end(mut self) {
        let mut stop = self.stop.clone();
        let end = async {
            stopped(&mut stop).await;
            tokio::time::sleep(FLUSH).await;
        };
        tokio::select! {
            biased;
            () = self.work() => {}
            () = end => tracing::warn!("the collector did not take the last spans in time"),
        }
        self.count(SpanOutcome::Failed, self.under_way);
        let mut left = 0;
        while let Ok(finished) = self.spans.try_recv() {
            left += finished.spans();
        }
        self.count(SpanOutcome::Dropped, left);
    }

    /// A batch after the other, and at the end the rest.
    async fn work(&mut self) {
        loop {
            let batch = self.gather().await;
            // A reload may have come while it was gathered.
            let target = self.current();
            let is_last = *self.stop.borrow();
            match target {
                _ if batch.is_empty() && is_last => return,
                Some(target) => self.export(&*target, batch).await,
                None => self.count(SpanOutcome::Dropped, spans_of(&batch)),
            }
        }
    }

    fn current(&self) -> Option<Arc<T>> {
        self.target.borrow().as_ref().map(Arc::clone)
    }

    /// What is to be sent next. Once it is time to stop nothing is waited for.
    async fn gather(&mut self) -> Vec<Finished> {
        let pace = self.current().map(|target| target.pace());
        let (interval, max) = pace.unwrap_or((Duration::ZERO, UNWANTED));
        let mut batch = Vec::new();
        let Self { spans, stop, .. } = self;
        if !*stop.borrow() {
            // `recv_many` loses nothing when it is given up.
            let filled = async {
                if spans.recv_many(&mut batch, max).await == 0 {
                    // All workers have ended; the stop is to come.
                    return std::future::pending().await;
                }
                let more = async {
                    while batch.len() < max {
                        let room = max - batch.len();
                        if spans.recv_many(&mut batch, room).await == 0 {
                            return;
                        }
                    }
                };
                let _ = tokio::time::timeout(interval, more).await;
            };
            tokio::select! {
                biased;
                () = stopped(stop) => {}
                () = filled => {}
            }
        }
        if *stop.borrow() {
            while batch.len() < max
                && let Ok(more) = spans.try_recv()
            {
                batch.push(more);
            }
        }
        batch
    }

    /// Brings `batch` to `target`, or gives it up.
    async fn export(&mut self, target: &T, batch: Vec<Finished>) {
        let (spans, body) = (spans_of(&batch), target.encode(&batch));
        // Of a batch under way only its encoding is kept.
        drop(batch);
        self.under_way = spans;
        let (clock, mut stop) = (Arc::clone(&self.clock), self.stop.clone());
        // Keyed anew for each batch, so that many who were turned away do not return together.
        let chance = RandomState::new();
        let (mut pause, mut waited) = (PAUSE, Duration::ZERO);
        let reply = loop {
            let is_last = *stop.borrow();
            let reply = target.send(body.clone(), &*clock).await;
            let Reply::Again { after, .. } = &reply else {
                break reply;
            };
            let next = vary(pause, chance.hash_one(waited)).max(after.unwrap_or_default());
            waited = waited.saturating_add(next);
            if is_last || waited > GIVE_UP {
                break reply;
            }
            pause = (pause * 2).min(PAUSE_MAX);
            tokio::select! {
                biased;
                // No time for pauses: one more try.
                () = stopped(&mut stop) => {}
                () = tokio::time::sleep(next) => {}
            }
        };
        self.under_way = 0;
        self.account(spans, reply);
    }

    /// Counts what came of `spans`, and tells the operator, not more often than is of use.
    fn account(&mut self, spans: u64, reply: Reply) {
        match reply {
            Reply::Taken { rejected, message } => {
                let rejected = rejected.min(spans);
                self.count(SpanOutcome::Exported, spans - rejected);
                self.count(SpanOutcome::Failed, rejected);
                if rejected > 0 {
                    self.tell(|| {
                        tracing::warn!(rejected, message, "the collector did not take all spans");
                    });
                } else if self.told.take().is_some() {
                    tracing::info!("the collector takes spans again");
                }
            }
            Reply::Again { why, .. } | Reply::Refused { why } => {
                self.count(SpanOutcome::Failed, spans);
                self.tell(|| {
                    tracing::warn!(
                        spans,
                        why,
                        "the collector does not take spans; they are lost, requests are not \
                         affected. Check [tracing.otlp], or ask `latchkey doctor`"
                    );
                });
            }
        }
    }

    fn tell(&mut self, tell: impl FnOnce()) {
        let now = self.clock.now().mono;
        if self.told.is_none_or(|at| now.since(at) >= SILENCE) {
            tell();
            self.told = Some(now);
        }
    }

    fn count(&self, outcome: SpanOutcome, spans: u64) {
        self.metrics.trace_spans(outcome, spans);
    }
}

/// Returns when it is time to stop; whoever could say so being gone says it too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// From half of `pause` to all of it.
fn vary(pause: Duration, chance: u64) -> Duration {
    let share = u32::try_from(chance % 1000).unwrap_or_default();
    pause / 2 + pause / 2 * share / 1000
}

fn spans_of(batch: &[Finished]) -> u64 {
    batch.iter().map(Finished::spans).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::num::NonZeroUsize;
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::super::span::{Spans, channel};
    use super::super::testing::finished;
    use super::*;
    use crate::clock::SystemClock;

    /// What a collector does with what it is sent.
    #[derive(Clone)]
    enum Act {
        Reply(Reply),
        Hang,
    }

    const TAKEN: Act = Act::Reply(Reply::Taken { rejected: 0, message: String::new() });

    fn again(after: Option<u64>) -> Act {
        let after = after.map(Duration::from_secs);
        Act::Reply(Reply::Again { after, why: "it answers 503".to_owned() })
    }

    fn refused() -> Act {
        Act::Reply(Reply::Refused { why: "it answers 400".to_owned() })
    }

    /// Acts by a script, and then the same for ever; notes what came when.
    struct Script {
        acts: Mutex<VecDeque<Act>>,
        then: Act,
        seen: Mutex<Vec<(Duration, usize)>>,
        began: Instant,
    }

    impl Target for Script {
        fn pace(&self) -> (Duration, usize) {
            (Duration::from_secs(5), 4)
        }

        fn encode(&self, batch: &[Finished]) -> Bytes {
            vec![0; batch.len()].into()
        }

        async fn send(&self, body: Bytes, _: &dyn Clock) -> Reply {
            self.seen.lock().unwrap().push((self.began.elapsed(), body.len()));
            let act = self.acts.lock().unwrap().pop_front();
            match act.unwrap_or_else(|| self.then.clone()) {
                Act::Reply(reply) => reply,
                Act::Hang => std::future::pending().await,
            }
        }
    }

    /// An exporter at work, in time that passes by itself.
    struct Scene {
        spans: Spans,
        script: Arc<Script>,
        metrics: Arc<Metrics>,
        target: watch::Sender<Option<Arc<Script>>>,
        stop: watch::Sender<bool>,
        work: tokio::task::JoinHandle<()>,
    }

    impl Scene {
        #[expect(
            clippy::disallowed_methods,
            reason = "the time of a test, which is not the system's"
        )]
        fn new(acts: &[Act], then: Act) -> Self {
            let metrics = Arc::new(Metrics::new("test").unwrap());
            let (spans, received) = channel(NonZeroUsize::new(8).unwrap(), &metrics);
            let script = Arc::new(Script {
                acts: Mutex::new(acts.to_vec().into()),
                then,
                seen: Mutex::default(),
                began: Instant::now(),
            });
            let (target, targets) = watch::channel(Some(Arc::clone(&script)));
            let (stop, stops) = watch::channel(false);
            let clock = Arc::new(SystemClock::new());
            let work = Work::new(received, targets, Arc::clone(&metrics), clock, stops);
            let work = tokio::spawn(work.run_to_end());
            Self { spans, script, metrics, target, stop, work }
        }

        /// Offers requests of two spans each.
        fn offer(&self, requests: usize) {
            (0..requests).for_each(|_| self.spans.offer(finished()));
        }

        async fn pass(&self, seconds: u64) {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }

        /// When what came, in whole seconds.
        fn seen(&self) -> Vec<(u64, usize)> {
            let seen = self.script.seen.lock().unwrap();
            seen.iter().map(|(at, requests)| (at.as_secs(), *requests)).collect()
        }

        #[track_caller]
        fn counted(&self, exported: u64, dropped: u64, failed: u64) {
            let text = self.metrics.render();
            let counted = SpanOutcome::ALL.map(|outcome| {
                let name =
                    format!("latchkey_trace_spans_total{{outcome=\"{}\"}} ", outcome.as_str());
                let line = text.lines().find_map(|line| line.strip_prefix(&name));
                line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<u64>().unwrap()
            });
            assert_eq!(counted, [exported, dropped, failed]);
        }

        async fn stop(self) -> (Self, Duration) {
            let Self { spans, script, metrics, target, stop, work } = self;
            let before = script.began.elapsed();
            stop.send_replace(true);
            work.await.unwrap();
            let took = script.began.elapsed().checked_sub(before).unwrap();
            let work = tokio::spawn(async {});
            (Self { spans, script, metrics, target, stop, work }, took)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_goes_when_it_is_full_or_has_waited() {
        let scene = Scene::new(&[], TAKEN);
        scene.offer(1);
        scene.pass(2).await;
        scene.offer(1);
        assert_eq!(scene.seen(), []);
        scene.pass(10).await;
        assert_eq!(scene.seen(), [(5, 2)]);
        scene.offer(6);
        scene.pass(1).await;
        assert_eq!(scene.seen(), [(5, 2), (12, 4)]);
        scene.pass(10).await;
        assert_eq!(scene.seen(), [(5, 2), (12, 4), (17, 2)]);
        scene.counted(16, 0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_turns_it_away_for_now_is_asked_again_later_and_later() {
        let scene = Scene::new(&[again(None), again(None), again(Some(9))], TAKEN);
        scene.offer(4);
        scene.pass(30).await;
        let times: Vec<Duration> =
            scene.script.seen.lock().unwrap().iter().map(|(at, _)| *at).collect();
        let pauses: Vec<u128> =
            times.windows(2).map(|w| w[1].checked_sub(w[0]).unwrap().as_millis()).collect();
        assert_eq!(pauses.len(), 3);
        assert!((500..=1000).contains(&pauses[0]), "{pauses:?}");
        assert!((1000..=2000).contains(&pauses[1]), "{pauses:?}");
        // As long as it asks for, and not less.
        assert!((9000..=9002).contains(&pauses[2]), "{pauses:?}");
        scene.counted(8, 0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_given_up_and_the_next_one_is_tried() {
        let scene = Scene::new(&[], again(None));
        scene.offer(4);
        scene.pass(GIVE_UP.as_secs() + 20).await;
        let tries = scene.seen().len();
        assert!((4..=12).contains(&tries), "{tries}");
        scene.counted(0, 0, 8);
        scene.offer(4);
        scene.pass(1).await;
        assert!(scene.seen().len() > tries);
        // Who asks for longer than that is not waited for.
        let scene = Scene::new(&[again(Some(3600))], TAKEN);
        scene.offer(8);
        scene.pass(1).await;
        assert_eq!(scene.seen(), [(0, 4), (0, 4)]);
        scene.counted(8, 0, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_not_sent_again() {
        let partly = Reply::Taken { rejected: 3, message: "too old".to_owned() };
        let too_many = Reply::Taken { rejected: 99, message: String::new() };
        let scene = Scene::new(&[refused(), Act::Reply(partly), Act::Reply(too_many)], TAKEN);
        for _ in 0..4 {
            scene.offer(4);
            scene.pass(1).await;
        }
        assert_eq!(scene.seen().len(), 4);
        scene.counted(5 + 8, 0, 8 + 3 + 8);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_room_is_dropped() {
        let scene = Scene::new(&[Act::Hang], TAKEN);
        scene.offer(4);
        scene.pass(1).await;
        // One batch hangs, eight requests wait, and nobody waits with them.
        scene.offer(20);
        scene.counted(0, 2 * 12, 0);
        let (scene, took) = scene.stop().await;
        // The one that hung is not known to have arrived; for the others there was no time.
        assert_eq!(took, FLUSH);
        scene.counted(0, 2 * 12 + 2 * 8, 8);
        scene.offer(1);
        scene.counted(0, 2 * 12 + 2 * 8 + 2, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_sends_what_is_left() {
        let scene = Scene::new(&[], TAKEN);
        scene.offer(7);
        let (scene, took) = scene.stop().await;
        assert_eq!(took, Duration::ZERO);
        assert_eq!(scene.seen(), [(0, 4), (0, 3)]);
        scene.counted(14, 0, 0);
        // Also what was to be tried again in a while, and each batch only once more.
        let scene = Scene::new(&[], again(Some(30)));
        scene.offer(8);
        scene.pass(1).await;
        let (scene, took) = scene.stop().await;
        assert_eq!(took, Duration::ZERO);
        assert_eq!(scene.seen(), [(0, 4), (1, 4), (1, 4)]);
        scene.counted(0, 0, 16);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_changes_where_they_go() {
        let scene = Scene::new(&[], TAKEN);
        scene.offer(1);
        scene.pass(1).await;
        scene.target.send_replace(None);
        scene.pass(10).await;
        assert_eq!(scene.seen(), []);
        scene.offer(3);
        scene.pass(1).await;
        scene.counted(0, 8, 0);
        scene.target.send_replace(Some(Arc::clone(&scene.script)));
        // The one that was waited for as if there were no collector may still be dropped.
        scene.offer(4);
        scene.pass(10).await;
        scene.offer(4);
        scene.pass(10).await;
        assert_eq!(scene.seen().last().unwrap().1, 4);
    }
}
