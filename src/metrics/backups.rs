//! Backups: how many were made or not, and when the last good one was.

use prometheus::{Error, IntCounterVec, IntGauge};

use super::Metrics;
use super::set::{RESULTS, Set};
use crate::clock::Timestamp;

/// Who wanted a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupKind {
    /// An operator.
    Manual,
    /// The schedule.
    Scheduled,
}

impl BackupKind {
    const ALL: [Self; 2] = [Self::Manual, Self::Scheduled];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Scheduled => "scheduled",
        }
    }
}

#[derive(Debug)]
pub(super) struct Backups {
    made: IntCounterVec,
    last: IntGauge,
    bytes: IntGauge,
}

impl Backups {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        let made = set.counters(
            "backups_total",
            "Backups that were made, or could not be.",
            &["kind", "result"],
        )?;
        for kind in BackupKind::ALL {
            for result in RESULTS {
                made.with_label_values(&[kind.as_str(), result]);
            }
        }
        Ok(Self {
            made,
            last: set.gauge(
                "backup_last_success_timestamp_seconds",
                "When the last good backup was made, since the start; 0 for none.",
            )?,
            bytes: set.gauge("backup_last_bytes", "How long the last good backup is.")?,
        })
    }
}

impl Metrics {
    /// Counts a backup that was made: when, and how long it is.
    pub fn backup_made(&self, kind: BackupKind, at: Timestamp, bytes: u64) {
        self.backups.made.with_label_values(&[kind.as_str(), "success"]).inc();
        self.backups.last.set(i64::try_from(at.unix_s()).unwrap_or(i64::MAX));
        self.backups.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts a backup that could not be made.
    pub fn backup_failed(&self, kind: BackupKind) {
        self.backups.made.with_label_values(&[kind.as_str(), "failure"]).inc();
    }
}
