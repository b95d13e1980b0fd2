//! The log: what standard error did not take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus::Error;

use super::Metrics;
use super::set::{Set, Total};

#[derive(Debug)]
pub(super) struct Log {
    dropped: Total,
    source: OnceLock<Arc<AtomicU64>>,
}

impl Log {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        let dropped = set.total(
            "log_lines_dropped_total",
            "Lines of the log that were dropped because standard error was not read in time.",
        )?;
        Ok(Self { dropped, source: OnceLock::new() })
    }

    /// Asks the log how many lines it has dropped.
    pub(super) fn look(&self) {
        if let Some(dropped) = self.source.get() {
            self.dropped.set(dropped.load(Ordering::Relaxed));
        }
    }
}

impl Metrics {
    /// Says where the log counts the lines it drops.
    pub fn log_lines_dropped(&self, count: Arc<AtomicU64>) {
        // A process has one log; the first stays.
        let _ = self.log.source.set(count);
    }
}
