//! Backups: how many were made or not, when the last good one was, and how often one is wanted.

use std::time::Duration;

use prometheus::{Error, GaugeVec, IntCounterVec, IntGauge};

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
    interval: GaugeVec,
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
                "When the last good backup was made, since the start or by the schedule before; 0 \
                 for none.",
            )?,
            bytes: set.gauge("backup_last_bytes", "How long the last good backup is.")?,
            interval: set.float_gauges(
                "backup_interval_seconds",
                "From one scheduled backup to the next; absent without a schedule.",
                &[],
            )?,
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

    /// Notes how often the schedule makes a backup, and when it made its newest, which may have
    /// been before the start. Without a schedule there is no series.
    pub fn backup_schedule(&self, interval: Option<Duration>, newest: Option<Timestamp>) {
        self.backups.interval.reset();
        if let Some(interval) = interval {
            self.backups.interval.with_label_values::<&str>(&[]).set(interval.as_secs_f64());
        }
        if let Some(newest) = newest {
            let newest = i64::try_from(newest.unix_s()).unwrap_or(i64::MAX);
            self.backups.last.set(self.backups.last.get().max(newest));
        }
    }

    /// Counts a backup that could not be made.
    pub fn backup_failed(&self, kind: BackupKind) {
        self.backups.made.with_label_values(&[kind.as_str(), "failure"]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, metrics};
    use super::*;

    #[test]
    fn a_schedule_is_told_while_there_is_one() {
        let metrics = metrics();
        let last = "latchkey_backup_last_success_timestamp_seconds";
        check(&metrics, &[&format!("{last} 0")]);
        assert!(!metrics.render().contains("latchkey_backup_interval_seconds"));
        let day = Duration::from_secs(86_400);
        metrics.backup_schedule(Some(day), Some(Timestamp::from_unix_s(7_000)));
        check(&metrics, &[&format!("{last} 7000"), "latchkey_backup_interval_seconds 86400"]);
        metrics.backup_made(BackupKind::Manual, Timestamp::from_unix_s(8_000), 5);
        // One of the schedule's that is older than the one an operator made.
        metrics.backup_schedule(Some(day), Some(Timestamp::from_unix_s(7_000)));
        check(&metrics, &[&format!("{last} 8000"), "latchkey_backup_last_bytes 5"]);
        metrics.backup_schedule(None, None);
        assert!(!metrics.render().contains("latchkey_backup_interval_seconds"));
    }
}
