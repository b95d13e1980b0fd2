//! What Prometheus is told: counters, gauges and histograms, and their text form.
//!
//! Every label value is one of a closed set: an enum, or a name from the configuration (policies
//! and issuers, announced by [`Metrics::configure`]; upstreams). No shop, key, path or address is
//! ever one, so the number of series does not depend on what callers send. Decides nothing, reads
//! no clock, and knows no listener.
//!
//! Each area has a file: its families, and the methods of [`Metrics`] that count them. What a
//! request counts is a `tally`: no lock, no allocation, and no cache line that two workers write.

mod backups;
mod bounds;
mod build;
mod caches;
mod connections;
mod decision;
mod exemplars;
mod exposition;
mod key_sets;
mod limits;
mod log;
mod openmetrics;
#[cfg(target_os = "linux")]
mod process;
mod reading;
mod requests;
mod set;
mod store;
mod tally;
mod tracing;
mod transport;
mod upstream;
mod usage;

use std::fmt;
use std::time::Duration;

use prometheus::{Error, Registry, TextEncoder};

pub use self::backups::BackupKind;
pub use self::bounds::Bound;
pub use self::exemplars::Example;
pub use self::exposition::Exposition;
pub use self::reading::{Distribution, Reading};
pub use self::requests::{CutBy, Ended, Protocol};
use self::set::Set;
pub use self::store::Room;
pub use self::tally::Held;
pub use self::tracing::SpanOutcome;
pub use self::transport::{GoAway, Handshake, StreamReset};
pub use self::upstream::{EndpointCounts, UpstreamCause, UpstreamMetrics};
use crate::id::Name;

/// All metrics of the process, with a registry of their own.
pub struct Metrics {
    registry: Registry,
    backups: backups::Backups,
    bounds: bounds::Bounds,
    build: build::Build,
    caches: caches::Caches,
    connections: connections::Connections,
    decision: decision::Decision,
    key_sets: key_sets::KeySets,
    limits: limits::Limits,
    log: log::Log,
    requests: requests::Requests,
    store: store::Store,
    tracing: tracing::Tracing,
    transport: transport::Transport,
    upstreams: upstream::Upstreams,
    usage: usage::Usage,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All metrics at zero; `version` is that of the build. No policy and no issuer is known
    /// until [`Metrics::configure`].
    ///
    /// # Errors
    ///
    /// Only if two metrics share a name or one breaks the naming rules, which a test excludes.
    pub fn new(version: &str) -> Result<Self, Error> {
        let registry = Registry::new();
        let set = Set(&registry);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(process::Process::new()?))?;
        Ok(Self {
            backups: backups::Backups::new(&set)?,
            bounds: bounds::Bounds::new(&set)?,
            build: build::Build::new(&set, version)?,
            caches: caches::Caches::new(&set)?,
            connections: connections::Connections::new(&set)?,
            decision: decision::Decision::new(&set)?,
            key_sets: key_sets::KeySets::new(&set)?,
            limits: limits::Limits::new(&set)?,
            log: log::Log::new(&set)?,
            requests: requests::Requests::new(&set)?,
            store: store::Store::new(&set)?,
            tracing: tracing::Tracing::new(&set)?,
            transport: transport::Transport::new(&set)?,
            upstreams: upstream::Upstreams::new(&set)?,
            usage: usage::Usage::new(&set)?,
            registry,
        })
    }

    /// Announces the names of the configured policies, and of the issuers that have a key set with
    /// how old it may become. Series of names that are no longer configured are dropped, those that
    /// stay keep counting.
    pub fn configure(&self, policies: &[Name], key_sets: &[(Name, Duration)]) {
        self.limits.configure(policies);
        self.key_sets.configure(key_sets);
    }

    /// All metrics in the form that was asked for.
    #[must_use]
    pub fn expose(&self, form: Exposition) -> String {
        match form {
            Exposition::Text => self.render(),
            Exposition::OpenMetrics => {
                self.log.look();
                openmetrics::encode(&self.registry.gather(), |family, metric, bucket| {
                    self.requests.exemplar(family, metric, bucket)
                })
            }
        }
    }

    /// All metrics in the text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.log.look();
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            // The encoder writes infinity as Rust does, the format has it as Go does.
            Ok(text) => text.replace(" inf\n", " +Inf\n"),
            Err(error) => format!("# latchkey cannot encode its metrics: {error}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::clock::Timestamp;
    use crate::decision::denial::Code;
    use crate::decision::principal::Mechanism;

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| Name::parse(text).unwrap()).collect()
    }

    fn key_sets(texts: &[&str]) -> Vec<(Name, Duration)> {
        names(texts).into_iter().map(|name| (name, Duration::from_secs(86_400))).collect()
    }

    pub(super) fn metrics() -> Metrics {
        let metrics = Metrics::new("0.1.0").unwrap();
        metrics.configure(&names(&["search", "orders"]), &key_sets(&["main"]));
        metrics
    }

    fn series(metrics: &Metrics) -> usize {
        let text = metrics.render();
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    #[track_caller]
    pub(super) fn check(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.render();
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn everything_is_counted_where_it_belongs() {
        let metrics = metrics();
        check(&metrics, &[r#"latchkey_jwks_age_seconds{issuer="main"} +Inf"#]);
        metrics.limited("search");
        metrics.shadow_exceeded("orders");
        metrics.throttled();
        metrics.limiter(1024, 7, 3);
        metrics.limiter(1024, 8, 5);
        metrics.jwks("main", Some(Duration::from_millis(1500)), 2);
        metrics.jwks_refresh("main", true);
        metrics.jwks_refresh("main", false);
        metrics.store_commit_duration(Duration::from_micros(700));
        metrics.store_error();
        metrics.decision_duration(Duration::from_nanos(600));
        metrics.config_reload(true, Timestamp::from_unix_s(1_700_000_000));
        metrics.config_reload(false, Timestamp::from_unix_s(1_800_000_000));
        let held = (metrics.connection(), metrics.connection(), metrics.request());
        drop(held.0);
        check(
            &metrics,
            &[
                r#"latchkey_limited_total{policy="search"} 1"#,
                r#"latchkey_limited_total{policy="orders"} 0"#,
                r#"latchkey_shadow_exceeded_total{policy="orders"} 1"#,
                "latchkey_failed_attempts_throttled_total 1",
                "latchkey_limiter_cells 1024",
                "latchkey_limiter_cells_live 8",
                "latchkey_limiter_overflow_total 5",
                r#"latchkey_jwks_age_seconds{issuer="main"} 1.5"#,
                r#"latchkey_jwks_keys{issuer="main"} 2"#,
                r#"latchkey_jwks_stale_max_seconds{issuer="main"} 86400"#,
                r#"latchkey_jwks_refresh_total{issuer="main",result="success"} 1"#,
                r#"latchkey_jwks_refresh_total{issuer="main",result="failure"} 1"#,
                "latchkey_store_errors_total 1",
                r#"latchkey_store_commit_duration_seconds_bucket{le="0.001"} 1"#,
                r#"latchkey_decision_duration_seconds_bucket{le="0.0000005"} 0"#,
                r#"latchkey_decision_duration_seconds_bucket{le="0.000001"} 1"#,
                "latchkey_connections 1",
                "latchkey_connections_accepted_total 2",
                "latchkey_requests_in_flight 1",
                r#"latchkey_config_reloads_total{result="success"} 1"#,
                r#"latchkey_config_reloads_total{result="failure"} 1"#,
                "latchkey_config_last_reload_success_timestamp_seconds 1700000000",
                "latchkey_config_last_reload_successful 0",
                r#"latchkey_build_info{version="0.1.0"} 1"#,
            ],
        );
    }

    #[test]
    fn a_reload_keeps_what_stays_and_drops_what_goes() {
        let metrics = metrics();
        let before = series(&metrics);
        metrics.limited("search");
        metrics.jwks("main", Some(Duration::from_secs(9)), 1);
        metrics.configure(&names(&["search"]), &key_sets(&["main", "other"]));
        check(
            &metrics,
            &[
                r#"latchkey_limited_total{policy="search"} 1"#,
                r#"latchkey_jwks_age_seconds{issuer="main"} 9"#,
                r#"latchkey_jwks_age_seconds{issuer="other"} +Inf"#,
            ],
        );
        metrics.limited("orders");
        assert!(!metrics.render().contains("\"orders\""));
        metrics.configure(&names(&["search", "orders"]), &key_sets(&["main"]));
        assert!(!metrics.render().contains("\"other\""));
        assert_eq!(series(&metrics), before);
    }

    #[test]
    fn what_callers_send_makes_no_series() {
        let metrics = metrics();
        let before = series(&metrics);
        let mut runner = TestRunner::deterministic();
        let inputs = (any::<String>(), 0usize..=Code::ALL.len(), 0usize..5, any::<u32>());
        for _ in 0..10_000 {
            let (text, code, mechanism, number) = inputs.new_tree(&mut runner).unwrap().current();
            let mechanism = Mechanism::ALL.get(mechanism).copied();
            metrics.decision(mechanism, Code::ALL.get(code).copied());
            metrics.decision_duration(Duration::from_nanos(u64::from(number)));
            metrics.limited(&text);
            metrics.shadow_exceeded(&text);
            metrics.jwks(&text, Some(Duration::from_secs(u64::from(number))), 1);
            metrics.jwks_refresh(&text, number % 2 == 0);
            metrics.limiter(1, 1, u64::from(number));
        }
        assert_eq!(series(&metrics), before);
    }
}
