//! How many refused sign-ins are written down one by one.
//!
//! Whoever has many addresses can fail faster than anybody wants to read, and each entry of the
//! audit log is a commit. So a number at once is recorded, then one a minute; the next entry that
//! is says how many were not. The audit log is not known here.

use crate::clock::Monotonic;

/// Entries at once.
const BURST: u32 = 30;
/// From one entry to the next, after that.
const EVERY_US: u64 = 60_000_000;

/// What of it is left.
#[derive(Debug)]
pub(in crate::admin) struct Refusals {
    left: u32,
    /// Until when entries that have been earned since are counted in `left`.
    counted: Monotonic,
    unrecorded: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { left: BURST, counted: Monotonic::default(), unrecorded: 0 }
    }
}

impl Refusals {
    /// Whether one that happens now is to be recorded; then how many before it were not.
    pub(in crate::admin) fn record(&mut self, now: Monotonic) -> Option<u64> {
        let earned = now.us().saturating_sub(self.counted.us()) / EVERY_US;
        let left = u64::from(self.left).saturating_add(earned).min(u64::from(BURST));
        self.left = u32::try_from(left).unwrap_or(BURST);
        let whole = earned.saturating_mul(EVERY_US);
        self.counted = Monotonic::from_us(self.counted.us().saturating_add(whole));
        if self.left == 0 {
            self.unrecorded = self.unrecorded.saturating_add(1);
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.unrecorded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_recorded() {
        let mut refusals = Refusals::default();
        let at = |s: u64| Monotonic::from_us(s * 1_000_000);
        let recorded = (0..1000).filter(|_| refusals.record(at(0)).is_some()).count();
        assert_eq!(recorded, 30);
        assert_eq!(refusals.record(at(59)), None);
        assert_eq!(refusals.record(at(60)), Some(971), "all that were not");
        assert_eq!(refusals.record(at(60)), None);
        assert_eq!(refusals.record(at(120)), Some(1));
        // A day of one attempt a second is one entry a minute.
        let day = (121..86_521).filter(|s| refusals.record(at(*s)).is_some()).count();
        assert_eq!(day, 1440);
        // A quiet time earns no more than the burst.
        let later = (0..100).filter(|_| refusals.record(at(1_000_000)).is_some()).count();
        assert_eq!(later, 30);
    }
}
