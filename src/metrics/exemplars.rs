//! Exemplars: for each bucket of a histogram, one request that fell into it, by its name.
//!
//! A bucket takes one a second, the first that comes; for all others an offer is one load of a
//! cache line that is written once a second. Nothing waits, and there is room for one per bucket.
//! Which formats show them is not decided here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use arrayvec::ArrayString;

use crate::clock::Timestamp;

/// From one exemplar of a bucket to the next: nobody reads them more often.
const INTERVAL_MS: u64 = 1_000;

/// A request that may become an exemplar.
#[derive(Debug, Clone, Copy)]
pub struct Example<'r> {
    /// Its name, as logs have it.
    pub request_id: &'r str,
    /// When it ended.
    pub at: Timestamp,
}

/// A request that did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Exemplar {
    pub(super) request_id: ArrayString<32>,
    pub(super) took: Duration,
    pub(super) at: Timestamp,
}

/// The exemplars of a family's buckets, by the number of the bucket among those of all rows.
#[derive(Debug)]
pub(super) struct Exemplars(Box<[Slot]>);

#[derive(Debug)]
struct Slot {
    taken_ms: AtomicU64,
    kept: Mutex<Option<Exemplar>>,
}

impl Exemplars {
    pub(super) fn new(buckets: usize) -> Self {
        // No time is near the end of all times: the first offer is taken.
        let slot = || Slot { taken_ms: AtomicU64::new(u64::MAX), kept: Mutex::default() };
        Self((0..buckets).map(|_| slot()).collect())
    }

    /// Offers `example`, which `took` so long, to `bucket`.
    pub(super) fn offer(&self, bucket: usize, example: Example<'_>, took: Duration) {
        let Some(slot) = self.0.get(bucket) else {
            return;
        };
        let now_ms = example.at.unix_ms();
        // The difference either way: a clock that was set back must not end it for hours.
        if now_ms.abs_diff(slot.taken_ms.load(Ordering::Relaxed)) < INTERVAL_MS {
            return;
        }
        let mut kept = match slot.kept.try_lock() {
            Ok(kept) => kept,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another worker's is as good.
            Err(TryLockError::WouldBlock) => return,
        };
        slot.taken_ms.store(now_ms, Ordering::Relaxed);
        if let Ok(request_id) = ArrayString::from(example.request_id) {
            *kept = Some(Exemplar { request_id, took, at: example.at });
        }
    }

    /// The exemplar of `bucket`, if it ever had one.
    pub(super) fn of(&self, bucket: usize) -> Option<Exemplar> {
        *self.0.get(bucket)?.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(exemplars: &Exemplars, bucket: usize, request_id: &str, at_ms: u64) {
        let example = Example { request_id, at: Timestamp::from_unix_ms(at_ms) };
        exemplars.offer(bucket, example, Duration::from_millis(7));
    }

    fn name(exemplars: &Exemplars, bucket: usize) -> Option<String> {
        exemplars.of(bucket).map(|exemplar| exemplar.request_id.to_string())
    }

    #[test]
    fn a_bucket_takes_one_a_second() {
        let exemplars = Exemplars::new(2);
        assert_eq!(name(&exemplars, 0), None);
        for (at_ms, id, kept) in [
            (7_200_000, "first", "first"),
            (7_200_000, "same", "first"),
            (7_200_999, "early", "first"),
            (7_201_000, "due", "due"),
            // The clock is set back by an hour: it goes on from there.
            (7_201_000 - 3_600_000, "back", "back"),
            (7_201_001 - 3_600_000, "early again", "back"),
            (7_202_000 - 3_600_000, "due again", "due again"),
        ] {
            offer(&exemplars, 0, id, at_ms);
            assert_eq!(name(&exemplars, 0).as_deref(), Some(kept), "{at_ms} {id}");
        }
        assert_eq!(name(&exemplars, 1), None);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let exemplars = Exemplars::new(1);
        offer(&exemplars, 1, "no such bucket", 0);
        offer(&exemplars, 0, &"x".repeat(33), 0);
        assert_eq!(name(&exemplars, 0), None);
        offer(&exemplars, 0, &"y".repeat(32), 5_000);
        assert_eq!(name(&exemplars, 0), Some("y".repeat(32)));
    }

    #[test]
    fn whoever_reads_makes_nobody_wait() {
        let exemplars = Exemplars::new(1);
        let held = exemplars.0[0].kept.lock().unwrap();
        offer(&exemplars, 0, "while it is read", 9_000);
        drop(held);
        assert_eq!(name(&exemplars, 0), None);
        offer(&exemplars, 0, "after", 9_000);
        assert_eq!(name(&exemplars, 0).as_deref(), Some("after"));
    }
}
