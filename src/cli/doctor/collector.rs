//! The collector of traces: does it take what would be sent there. It is told of no span.

use std::time::Duration;

use super::finding::{Check, Report};
use crate::clock::Clock;
use crate::config::{Config, OtlpConfig};
use crate::trace::Collector;

/// Longest wait for it, however long the configuration would wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks it once, if there is one.
pub(super) async fn check(config: &Config, clock: &dyn Clock, report: &mut Report) {
    let Some(otlp) = &config.tracing.otlp else {
        return;
    };
    let otlp = OtlpConfig { timeout: otlp.timeout.min(PATIENCE), ..otlp.clone() };
    let url = otlp.endpoint.as_str();
    let made = match Collector::new(&otlp) {
        Ok(collector) => collector,
        Err(fault) => {
            let advice = "correct the file; a server does not start with it";
            return report.error(Check::Collector, url, fault.to_string(), advice);
        }
    };
    match made.probe(clock).await {
        Ok(()) => report.ok(Check::Collector, url, "takes spans"),
        Err(why) => {
            let advice = "start it, or correct tracing.otlp; spans are lost until then, requests \
                          are not affected";
            report.warning(Check::Collector, url, why, advice);
        }
    }
}
