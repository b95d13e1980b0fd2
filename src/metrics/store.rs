//! The store: how long commits take, and what failed.

use std::time::Duration;

use prometheus::{Error, Histogram, IntCounter};

use super::Metrics;
use super::reading::Distribution;
use super::set::Set;

/// From 100 µs to 10 s; a commit waits for the disk.
const COMMIT_BUCKETS_S: &[f64] =
    &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Debug)]
pub(super) struct Store {
    commit_duration: Histogram,
    errors: IntCounter,
}

impl Store {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        Ok(Self {
            commit_duration: set.histogram(
                "store_commit_duration_seconds",
                "Time until a write was durable.",
                COMMIT_BUCKETS_S,
            )?,
            errors: set.counter("store_errors_total", "Reads and writes that failed.")?,
        })
    }
}

impl Metrics {
    /// Records how long a commit of the store took.
    pub fn store_commit_duration(&self, took: Duration) {
        self.store.commit_duration.observe(took.as_secs_f64());
    }

    /// How long commits took, and how many reads and writes failed.
    pub(super) fn store_read(&self) -> (Distribution, u64) {
        (Distribution::of(&self.store.commit_duration), self.store.errors.get())
    }

    /// Counts a read or write of the store that failed.
    pub fn store_error(&self) {
        self.store.errors.inc();
    }
}
