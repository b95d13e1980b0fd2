//! How many refusals are described in a second.
//!
//! It counts; what a refusal is, and who listens, is not known here.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Monotonic;

/// In a second, while nobody listens.
pub(super) const ALONE: u64 = 10;

/// In a second, while somebody does.
pub(super) const HEARD: u64 = 500;

/// Bits of the count; the rest is the second it is of.
const COUNT_BITS: u32 = 24;

/// A budget by the second, shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The second, and how many there were in it.
    state: AtomicU64,
    skipped: AtomicU64,
}

impl Pace {
    /// Whether one more may be described now; notes it if not.
    pub(super) fn admits(&self, is_heard: bool, now: Monotonic) -> bool {
        let second = now.us() / 1_000_000;
        let max = if is_heard { HEARD } else { ALONE };
        let next = |state: u64| {
            let count = if state >> COUNT_BITS == second { state & count_mask() } else { 0 };
            (count < max).then_some(second << COUNT_BITS | (count + 1))
        };
        let admitted = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok();
        if !admitted {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// Notes that one that was admitted is left out after all.
    pub(super) fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were not described since the last call.
    pub(super) fn take_skipped(&self) -> u64 {
        if self.skipped.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.skipped.swap(0, Ordering::Relaxed)
    }
}

const fn count_mask() -> u64 {
    (1 << COUNT_BITS) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_second_and_the_rest_is_counted() {
        let pace = Pace::default();
        let at = Monotonic::from_us;
        for (is_heard, second, max) in [(false, 5, ALONE), (true, 6, HEARD), (false, 7, ALONE)] {
            let admitted = (0..2000).filter(|n| pace.admits(is_heard, at(second * 1_000_000 + n)));
            assert_eq!(admitted.count() as u64, max);
            assert_eq!(pace.take_skipped(), 2000 - max);
            assert_eq!(pace.take_skipped(), 0);
        }
        // Somebody begins to listen within a second.
        assert!(!pace.admits(false, at(7_500_000)) && pace.admits(true, at(7_500_000)));
    }
}
