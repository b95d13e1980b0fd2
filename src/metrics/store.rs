//! The store: how long commits take, what failed, what it holds and how much room it has.

use std::time::Duration;

use prometheus::{Error, Histogram, IntCounter, IntGauge};

use super::Metrics;
use super::reading::Distribution;
use super::set::{Set, gauge_value};

/// From 100 µs to 10 s; a commit waits for the disk.
const COMMIT_BUCKETS_S: &[f64] =
    &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Debug)]
pub(super) struct Store {
    commit_duration: Histogram,
    errors: IntCounter,
    writable: IntGauge,
    database: IntGauge,
    disk_free: IntGauge,
    disk_size: IntGauge,
    shops: IntGauge,
    api_keys: IntGauge,
}

/// The room a store has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What the database file takes.
    pub database: u64,
    /// What is free on its disk, for this process.
    pub free: u64,
    /// What its disk holds in all.
    pub size: u64,
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
            writable: set.gauge(
                "store_writable",
                "Whether the store took the last write: 1, or 0 while changes fail.",
            )?,
            database: set.gauge("store_database_bytes", "How long the database file is.")?,
            disk_free: set.gauge(
                "store_disk_free_bytes",
                "What is free on the disk of the database, for this process.",
            )?,
            disk_size: set
                .gauge("store_disk_size_bytes", "What the disk of the database holds in all.")?,
            shops: set.gauge("shops", "Shops that decisions know.")?,
            api_keys: set.gauge("api_keys", "Shop API keys that decisions know.")?,
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

    /// Sets whether the store took the last write, and how many shops and keys it holds.
    pub fn store_holds(&self, writable: bool, shops: usize, api_keys: usize) {
        self.store.writable.set(i64::from(writable));
        self.store.shops.set(gauge_value(shops));
        self.store.api_keys.set(gauge_value(api_keys));
    }

    /// Sets what room the store has.
    pub fn store_room(&self, room: Room) {
        let Room { database, free, size } = room;
        let gauges = [&self.store.database, &self.store.disk_free, &self.store.disk_size];
        for (gauge, bytes) in gauges.into_iter().zip([database, free, size]) {
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// Counts a read or write of the store that failed.
    pub fn store_error(&self) {
        self.store.errors.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, metrics};
    use super::*;

    #[test]
    fn what_it_holds_and_its_room() {
        let metrics = metrics();
        metrics.store_holds(true, 3, 5);
        metrics.store_room(Room { database: 1, free: 7, size: 9 });
        check(
            &metrics,
            &[
                "latchkey_store_writable 1",
                "latchkey_shops 3",
                "latchkey_api_keys 5",
                "latchkey_store_database_bytes 1",
                "latchkey_store_disk_free_bytes 7",
                "latchkey_store_disk_size_bytes 9",
            ],
        );
        metrics.store_holds(false, 0, 0);
        check(&metrics, &["latchkey_store_writable 0"]);
    }
}
