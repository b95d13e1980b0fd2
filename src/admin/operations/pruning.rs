//! Whether entries of the audit log may go for their age now.
//!
//! A clock that is set far ahead makes all of the log old at once, and what is removed does not
//! come back when the clock is set right. So a clock that leapt, while the process ran or before it
//! started, is not believed for a day, in which nothing goes for its age and a warning says so.
//! That the log may hold only so many entries holds all the same.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Monotonic, Now, Timestamp};
use crate::store::{ReadTx, StoreError};

/// By how much the wall clock may run ahead of the time that passed, from one look to the next.
const LEAP_MIN: Duration = Duration::from_secs(3600);

/// For how long a clock that leapt is not believed.
const DOUBT: Duration = Duration::from_secs(24 * 3600);

/// What is remembered of the clock; lost with the process.
#[derive(Debug)]
pub struct Pruning(Mutex<State>);

#[derive(Debug)]
struct State {
    seen: Now,
    /// When doubt began.
    doubted: Option<Monotonic>,
}

impl Pruning {
    /// At the start: the clock is doubted if by it even the last entry is older than `retention`.
    /// A log that nobody wrote to for so long may wait for a day more.
    pub fn begin(tx: &ReadTx, retention: Duration, now: Now) -> Result<Self, StoreError> {
        let mut newest = None;
        tx.visit_audit_back(None, |link| {
            newest = link.record().map(|record| record.at);
            ControlFlow::Break(())
        })?;
        let leapt = newest.is_some_and(|at: Timestamp| now.unix.since(at) > retention);
        let state = State { seen: now, doubted: leapt.then_some(now.mono) };
        if leapt {
            warn(now.unix);
        }
        Ok(Self(Mutex::new(state)))
    }

    /// Whether entries may go for their age at `now`; to be asked every few seconds.
    pub fn may_go_by_age(&self, now: Now) -> bool {
        // Of two members that are right each for itself.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (passed, moved) = (now.mono.since(state.seen.mono), now.unix.since(state.seen.unix));
        state.seen = now;
        if moved > passed.saturating_add(LEAP_MIN) {
            state.doubted = Some(now.mono);
            warn(now.unix);
        }
        let doubts = state.doubted.is_some_and(|since| now.mono.since(since) < DOUBT);
        if !doubts {
            state.doubted = None;
        }
        !doubts
    }
}

fn warn(now: Timestamp) {
    tracing::warn!(
        %now,
        "the clock is far ahead of the audit log, or leapt ahead; nothing of the log goes for its \
         age for 24 hours: set the clock right until then if it is wrong"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::jobs::{Progress, tick};
    use crate::admin::testing::Bench;
    use crate::clock::Clock as _;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn seqs(bench: &Bench) -> Vec<u64> {
        let links = bench.node.store.read(|tx| tx.audit_links(0, usize::MAX)).unwrap();
        links.iter().map(|link| link.seq).collect()
    }

    /// Whether all of the first entries, up to number `last`, or none of them, are there a little
    /// later.
    fn kept(bench: &Bench, last: u64) -> bool {
        bench.clock.advance(Duration::from_secs(10));
        tick(&bench.node, &Progress::default());
        let left = seqs(bench).into_iter().filter(|seq| *seq <= last).count() as u64;
        assert!(left == 0 || left == last, "{left} of {last}");
        left > 0
    }

    async fn bench() -> (Bench, u64) {
        let bench = Bench::with("[audit]\nretention = \"30d\"\n");
        for shop in ["a", "b", "c"] {
            bench.shop(shop).await;
        }
        let last = *seqs(&bench).last().unwrap();
        assert!(kept(&bench, last));
        (bench, last)
    }

    #[tokio::test]
    async fn a_clock_that_leaps_does_not_empty_the_log() {
        let (bench, last) = bench().await;
        let right = bench.clock.now().unix;
        bench.clock.step_to(right + 3650 * DAY);
        assert!(kept(&bench, last));
        // An entry by the wrong time makes the others no older.
        bench.shop("d").await;
        assert!(kept(&bench, last));
        bench.clock.step_to(right);
        assert!(kept(&bench, last));
        bench.clock.advance(DAY);
        assert!(kept(&bench, last), "it is believed again, and what is young stays");
        // The same time without a leap.
        bench.clock.advance(31 * DAY);
        bench.shop("e").await;
        assert!(!kept(&bench, last), "what is old goes");
    }

    #[tokio::test]
    async fn a_clock_that_stays_ahead_is_believed_after_a_day() {
        let (bench, last) = bench().await;
        bench.clock.step_to(bench.clock.now().unix + 365 * DAY);
        bench.shop("d").await;
        assert!(kept(&bench, last));
        bench.clock.advance(DAY.checked_sub(Duration::from_secs(60)).unwrap());
        assert!(kept(&bench, last));
        bench.clock.advance(Duration::from_secs(60));
        assert!(!kept(&bench, last));
    }

    #[tokio::test]
    async fn a_clock_that_leapt_before_the_start_is_not_believed_either() {
        let (bench, last) = bench().await;
        bench.clock.step_to(bench.clock.now().unix + 365 * DAY);
        let bench = bench.restart();
        bench.shop("d").await;
        assert!(kept(&bench, last));
        bench.clock.advance(DAY);
        assert!(!kept(&bench, last));
    }
}
