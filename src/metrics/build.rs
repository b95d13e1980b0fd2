//! What runs, and under which configuration.

use prometheus::{Error, IntCounter, IntGauge};

use super::Metrics;
use super::set::{RESULTS, Set};
use crate::clock::Timestamp;

#[derive(Debug)]
pub(super) struct Build {
    reload_failures: IntCounter,
    reload_successes: IntCounter,
    last_success: IntGauge,
    last_successful: IntGauge,
}

impl Build {
    pub(super) fn new(set: &Set<'_>, version: &str) -> Result<Self, Error> {
        let info =
            set.gauges("build_info", "The version of this build; always 1.", &["version"])?;
        info.with_label_values(&[version]).set(1);
        let attempts = set.counters(
            "config_reloads_total",
            "Attempts to reload the configuration.",
            &["result"],
        )?;
        let [reload_failures, reload_successes] = RESULTS.map(|r| attempts.with_label_values(&[r]));
        let last_success = set.gauge(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration in force was loaded.",
        )?;
        let last_successful = set.gauge(
            "config_last_reload_successful",
            "Whether the configuration was put in force when it was last read.",
        )?;
        Ok(Self { reload_failures, reload_successes, last_success, last_successful })
    }
}

impl Metrics {
    /// Notes when the configuration in force was loaded: at start.
    pub fn config_loaded(&self, now: Timestamp) {
        self.build.last_success.set(i64::try_from(now.unix_s()).unwrap_or(i64::MAX));
        self.build.last_successful.set(1);
    }

    /// Counts an attempt to reload the configuration.
    pub fn config_reload(&self, success: bool, now: Timestamp) {
        if success {
            self.build.reload_successes.inc();
            self.config_loaded(now);
        } else {
            self.build.reload_failures.inc();
            self.build.last_successful.set(0);
        }
    }
}
