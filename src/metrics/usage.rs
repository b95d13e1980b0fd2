//! Usage: what of it waits for the store, what is lost, and how much is kept.

use prometheus::{Error, IntGauge};

use super::Metrics;
use super::set::{Set, Total, gauge_value};
use super::tally::Tally;
use crate::usage::Resolution;

#[derive(Debug)]
pub(super) struct Usage {
    waiting: IntGauge,
    lost: Total,
    rows: IntGauge,
    dropped: Tally,
}

impl Usage {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        Ok(Self {
            waiting: set.gauge(
                "usage_waiting",
                "Counts of usage that wait to be stored, by series and minute.",
            )?,
            lost: set.total("usage_lost_total", "Requests that usage does not count.")?,
            rows: set.gauge("usage_rows", "Rows of usage in the store.")?,
            dropped: set.tally(
                "usage_rows_dropped_total",
                "Rows of usage that went before their time, because of usage.rows_max.",
                ["resolution"],
                Resolution::ALL.map(|resolution| [resolution.as_str()]),
            )?,
        })
    }
}

impl Metrics {
    /// Sets how many counts wait for the store, and how many requests are lost since the start.
    pub fn usage(&self, waiting: usize, lost: u64) {
        self.usage.waiting.set(gauge_value(waiting));
        self.usage.lost.set(lost);
    }

    /// Sets how many rows are stored.
    pub fn usage_rows(&self, rows: u64) {
        self.usage.rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// Counts rows that were removed because there were too many.
    pub fn usage_dropped(&self, resolution: Resolution, rows: u64) {
        self.usage.dropped.add(resolution as usize, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, metrics};
    use super::*;

    #[test]
    fn resolutions_are_counted_apart() {
        let metrics = metrics();
        metrics.usage(7, 3);
        metrics.usage(5, 3);
        metrics.usage_rows(12);
        for (resolution, rows) in Resolution::ALL.into_iter().zip(1..) {
            metrics.usage_dropped(resolution, rows);
        }
        check(
            &metrics,
            &[
                "latchkey_usage_waiting 5",
                "latchkey_usage_lost_total 3",
                "latchkey_usage_rows 12",
                r#"latchkey_usage_rows_dropped_total{resolution="minute"} 1"#,
                r#"latchkey_usage_rows_dropped_total{resolution="day"} 3"#,
            ],
        );
    }
}
