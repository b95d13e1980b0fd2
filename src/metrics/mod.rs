//! What Prometheus is told: counters, gauges and histograms, and their text form.
//!
//! Every label value is one of a closed set: an enum ([`Code`] among them), or a name from the
//! configuration (policies and issuers, announced by [`Metrics::configure`]). No shop, key, path
//! or address is ever one, so the number of series does not depend on what callers send. Decides
//! nothing, reads no clock, and knows no listener.

mod series;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use self::series::{Decisions, Set};
use self::transport::Transport;
use crate::clock::Timestamp;
use crate::decision::denial::Code;
use crate::decision::principal::Mechanism;
use crate::id::Name;

pub use self::transport::{GoAway, Handshake, StreamReset};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// From 500 ns to 10 ms; a decision takes a few microseconds.
const DECISION_BUCKETS_S: &[f64] =
    &[5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2];

/// From 100 µs to 10 s; a commit waits for the disk.
const COMMIT_BUCKETS_S: &[f64] =
    &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

const RESULTS: [&str; 2] = ["failure", "success"];

/// The counters of one configured policy.
#[derive(Debug, Clone)]
struct PolicyCounters {
    name: Name,
    limited: IntCounter,
    shadow_exceeded: IntCounter,
}

/// The metrics of one configured issuer.
#[derive(Debug, Clone)]
struct IssuerMetrics {
    name: Name,
    age: Gauge,
    keys: IntGauge,
    failures: IntCounter,
    successes: IntCounter,
}

/// What is configured at present. At most 64 policies and a few issuers: searched in order.
#[derive(Debug, Default)]
struct Configured {
    policies: Vec<PolicyCounters>,
    issuers: Vec<IssuerMetrics>,
}

/// What became of the configuration.
#[derive(Debug)]
struct Reloads {
    failures: IntCounter,
    successes: IntCounter,
    last_success: IntGauge,
}

impl Reloads {
    fn new(set: &Set<'_>) -> Result<Self, Error> {
        let attempts = set.counters(
            "config_reloads_total",
            "Attempts to reload the configuration.",
            &["result"],
        )?;
        let [failures, successes] = RESULTS.map(|r| attempts.with_label_values(&[r]));
        let last_success = set.gauge(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration in force was loaded.",
        )?;
        Ok(Self { failures, successes, last_success })
    }
}

/// All metrics of the process, with a registry of their own.
pub struct Metrics {
    registry: Registry,
    decisions: Decisions,
    decision_duration: Histogram,
    limited: IntCounterVec,
    shadow_exceeded: IntCounterVec,
    limiter_cells: IntGauge,
    limiter_cells_live: IntGauge,
    limiter_overflow: IntCounter,
    limiter_overflow_seen: AtomicU64,
    jwks_age: GaugeVec,
    jwks_keys: IntGaugeVec,
    jwks_refresh: IntCounterVec,
    store_commit_duration: Histogram,
    store_errors: IntCounter,
    connections: IntGauge,
    requests_in_flight: IntGauge,
    transport: Transport,
    reloads: Reloads,
    configured: ArcSwap<Configured>,
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
        let build = Opts::new("latchkey_build_info", "The version of this build; always 1.");
        let build = set.add(IntGaugeVec::new(build, &["version"])?)?;
        build.with_label_values(&[version]).set(1);
        Ok(Self {
            decisions: Decisions::new(&set)?,
            decision_duration: set.histogram(
                "decision_duration_seconds",
                "Time to decide a request, without reading or forwarding it.",
                DECISION_BUCKETS_S,
            )?,
            limited: set.counters(
                "limited_total",
                "Requests refused by a limit policy.",
                &["policy"],
            )?,
            shadow_exceeded: set.counters(
                "shadow_exceeded_total",
                "Requests a limit policy in shadow mode would have refused.",
                &["policy"],
            )?,
            limiter_cells: set.gauge("limiter_cells", "Cells of the limiter.")?,
            limiter_cells_live: set
                .gauge("limiter_cells_live", "Cells whose quota is not whole.")?,
            limiter_overflow: set.counter(
                "limiter_overflow_total",
                "Charges that found no free cell and went to a shared one.",
            )?,
            limiter_overflow_seen: AtomicU64::new(0),
            jwks_age: set.add(GaugeVec::new(
                Opts::new(
                    "latchkey_jwks_age_seconds",
                    "Time since the key set was last fetched; +Inf if it never was.",
                ),
                &["issuer"],
            )?)?,
            jwks_keys: set.add(IntGaugeVec::new(
                Opts::new("latchkey_jwks_keys", "Usable keys in the key set."),
                &["issuer"],
            )?)?,
            jwks_refresh: set.counters(
                "jwks_refresh_total",
                "Attempts to fetch a key set.",
                &["issuer", "result"],
            )?,
            store_commit_duration: set.histogram(
                "store_commit_duration_seconds",
                "Time until a write was durable.",
                COMMIT_BUCKETS_S,
            )?,
            store_errors: set.counter("store_errors_total", "Reads and writes that failed.")?,
            connections: set.gauge("connections", "Open connections on the data listener.")?,
            requests_in_flight: set.gauge("requests_in_flight", "Requests being answered.")?,
            transport: Transport::new(&set)?,
            reloads: Reloads::new(&set)?,
            configured: ArcSwap::default(),
            registry,
        })
    }

    /// Announces the names of the configured policies and issuers. Series of names that are no
    /// longer configured are dropped, those that stay keep counting.
    pub fn configure(&self, policies: &[Name], issuers: &[Name]) {
        let of_policy = |name: &Name| PolicyCounters {
            name: name.clone(),
            limited: self.limited.with_label_values(&[name.as_str()]),
            shadow_exceeded: self.shadow_exceeded.with_label_values(&[name.as_str()]),
        };
        let before = self.configured.load();
        let of_issuer = |name: &Name| {
            let [failures, successes] =
                RESULTS.map(|r| self.jwks_refresh.with_label_values(&[name.as_str(), r]));
            let age = self.jwks_age.with_label_values(&[name.as_str()]);
            if before.issuers.iter().all(|known| known.name != *name) {
                age.set(f64::INFINITY);
            }
            IssuerMetrics {
                name: name.clone(),
                age,
                keys: self.jwks_keys.with_label_values(&[name.as_str()]),
                failures,
                successes,
            }
        };
        let now = Configured {
            policies: policies.iter().map(of_policy).collect(),
            issuers: issuers.iter().map(of_issuer).collect(),
        };
        self.configured.store(Arc::new(now));
        // A series that is already gone needs no dropping: the results say nothing.
        for gone in before.policies.iter().filter(|p| !policies.contains(&p.name)) {
            let _ = self.limited.remove_label_values(&[gone.name.as_str()]);
            let _ = self.shadow_exceeded.remove_label_values(&[gone.name.as_str()]);
        }
        for gone in before.issuers.iter().filter(|i| !issuers.contains(&i.name)) {
            let name = gone.name.as_str();
            let _ = self.jwks_age.remove_label_values(&[name]);
            let _ = self.jwks_keys.remove_label_values(&[name]);
            for result in RESULTS {
                let _ = self.jwks_refresh.remove_label_values(&[name, result]);
            }
        }
    }

    /// Counts a decision; `mechanism` is `None` when there was no principal, `code` when the
    /// request went through.
    pub fn decision(&self, mechanism: Option<Mechanism>, code: Option<Code>) {
        self.decisions.count(mechanism, code);
    }

    /// Records how long a decision took.
    pub fn decision_duration(&self, took: Duration) {
        self.decision_duration.observe(took.as_secs_f64());
    }

    /// Counts a refusal by a policy; one that is not configured counts nowhere.
    pub fn limited(&self, policy: &str) {
        self.policy(policy, |counters| counters.limited.inc());
    }

    /// Counts a request that a policy in shadow mode would have refused; one that is not
    /// configured counts nowhere.
    pub fn shadow_exceeded(&self, policy: &str) {
        self.policy(policy, |counters| counters.shadow_exceeded.inc());
    }

    fn policy(&self, name: &str, then: impl FnOnce(&PolicyCounters)) {
        let configured = self.configured.load();
        let mut policies = configured.policies.iter();
        if let Some(counters) = policies.find(|p| p.name.as_str() == name) {
            then(counters);
        }
    }

    /// Sets what is known of the limiter: cells, live cells, and charges that overflowed since
    /// the start.
    pub fn limiter(&self, cells: usize, live: usize, overflowed: u64) {
        self.limiter_cells.set(gauge_value(cells));
        self.limiter_cells_live.set(gauge_value(live));
        let seen = &self.limiter_overflow_seen;
        let before = seen.fetch_max(overflowed, Ordering::Relaxed);
        self.limiter_overflow.inc_by(overflowed.saturating_sub(before));
    }

    /// Sets what is known of an issuer's key set: its age, `None` if it was never fetched, and
    /// how many usable keys it has. An issuer that is not configured is nowhere.
    pub fn jwks(&self, issuer: &str, age: Option<Duration>, keys: usize) {
        self.issuer(issuer, |metrics| {
            metrics.age.set(age.map_or(f64::INFINITY, |age| age.as_secs_f64()));
            metrics.keys.set(gauge_value(keys));
        });
    }

    /// Counts an attempt to fetch an issuer's key set.
    pub fn jwks_refresh(&self, issuer: &str, success: bool) {
        self.issuer(issuer, |metrics| {
            if success {
                metrics.successes.inc();
            } else {
                metrics.failures.inc();
            }
        });
    }

    fn issuer(&self, name: &str, then: impl FnOnce(&IssuerMetrics)) {
        let configured = self.configured.load();
        let mut issuers = configured.issuers.iter();
        if let Some(metrics) = issuers.find(|i| i.name.as_str() == name) {
            then(metrics);
        }
    }

    /// Records how long a commit of the store took.
    pub fn store_commit_duration(&self, took: Duration) {
        self.store_commit_duration.observe(took.as_secs_f64());
    }

    /// Counts a read or write of the store that failed.
    pub fn store_error(&self) {
        self.store_errors.inc();
    }

    /// Counts a connection as open until the result is dropped.
    #[must_use]
    pub fn connection(&self) -> Held {
        Held::new(&self.connections)
    }

    /// Counts a request as in flight until the result is dropped.
    #[must_use]
    pub fn request(&self) -> Held {
        Held::new(&self.requests_in_flight)
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, outcome: Handshake) {
        self.transport.handshake(outcome);
    }

    /// Counts a stream of HTTP/2 that ended before its response was out.
    pub fn h2_reset(&self, cause: StreamReset) {
        self.transport.reset(cause);
    }

    /// Counts a connection of HTTP/2 that latchkey ended.
    pub fn h2_goaway(&self, cause: GoAway) {
        self.transport.goaway(cause);
    }

    /// Notes when the certificates at the start expire.
    pub fn certificates(&self, expiries: &[Timestamp]) {
        self.transport.expiries(expiries);
    }

    /// Counts an attempt to load certificates anew; with their expiries if it succeeded.
    pub fn certificates_loaded(&self, expiries: Option<&[Timestamp]>) {
        self.transport.reload(expiries.is_some());
        if let Some(expiries) = expiries {
            self.certificates(expiries);
        }
    }

    /// Notes when the configuration in force was loaded: at start.
    pub fn config_loaded(&self, now: Timestamp) {
        self.reloads.last_success.set(i64::try_from(now.unix_s()).unwrap_or(i64::MAX));
    }

    /// Counts an attempt to reload the configuration.
    pub fn config_reload(&self, success: bool, now: Timestamp) {
        if success {
            self.reloads.successes.inc();
            self.config_loaded(now);
        } else {
            self.reloads.failures.inc();
        }
    }

    /// All metrics in the text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            // The encoder writes infinity as Rust does, the format has it as Go does.
            Ok(text) => text.replace(" inf\n", " +Inf\n"),
            Err(error) => format!("# latchkey cannot encode its metrics: {error}\n"),
        }
    }
}

/// Holds a gauge up by one until it is dropped.
#[derive(Debug)]
pub struct Held(IntGauge);

impl Held {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn gauge_value(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::series::{code_label, outcome};
    use super::*;

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| Name::parse(text).unwrap()).collect()
    }

    fn metrics() -> Metrics {
        let metrics = Metrics::new("0.1.0").unwrap();
        metrics.configure(&names(&["search", "orders"]), &names(&["main"]));
        metrics
    }

    fn series(metrics: &Metrics) -> usize {
        let text = metrics.render();
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    #[track_caller]
    fn check(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.render();
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn every_code_has_its_own_series_for_every_mechanism() {
        let metrics = metrics();
        for mechanism in Mechanism::ALL.map(Some).into_iter().chain([None]) {
            for code in Code::ALL.map(Some).into_iter().chain([None]) {
                metrics.decision(mechanism, code);
                let name = mechanism.map_or("none", Mechanism::as_str);
                let (outcome, code) = (outcome(code), code_label(code));
                check(
                    &metrics,
                    &[&format!(
                        "latchkey_decisions_total{{code=\"{code}\",mechanism=\"{name}\",\
                         outcome=\"{outcome}\"}} 1"
                    )],
                );
            }
        }
    }

    #[test]
    fn outcomes() {
        for (code, expected) in [
            (None, "allowed"),
            (Some(Code::BadRequest), "refused"),
            (Some(Code::RateLimited), "refused"),
            (Some(Code::UriTooLong), "refused"),
            (Some(Code::KeysUnavailable), "error"),
            (Some(Code::UpstreamError), "error"),
            (Some(Code::UpstreamTimeout), "error"),
            (Some(Code::Overloaded), "error"),
            (Some(Code::Internal), "error"),
        ] {
            assert_eq!(outcome(code), expected, "{code:?}");
        }
    }

    #[test]
    fn everything_is_counted_where_it_belongs() {
        let metrics = metrics();
        check(&metrics, &[r#"latchkey_jwks_age_seconds{issuer="main"} +Inf"#]);
        metrics.limited("search");
        metrics.shadow_exceeded("orders");
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
                "latchkey_limiter_cells 1024",
                "latchkey_limiter_cells_live 8",
                "latchkey_limiter_overflow_total 5",
                r#"latchkey_jwks_age_seconds{issuer="main"} 1.5"#,
                r#"latchkey_jwks_keys{issuer="main"} 2"#,
                r#"latchkey_jwks_refresh_total{issuer="main",result="success"} 1"#,
                r#"latchkey_jwks_refresh_total{issuer="main",result="failure"} 1"#,
                "latchkey_store_errors_total 1",
                r#"latchkey_store_commit_duration_seconds_bucket{le="0.001"} 1"#,
                r#"latchkey_decision_duration_seconds_bucket{le="0.0000005"} 0"#,
                r#"latchkey_decision_duration_seconds_bucket{le="0.000001"} 1"#,
                "latchkey_connections 1",
                "latchkey_requests_in_flight 1",
                r#"latchkey_config_reloads_total{result="success"} 1"#,
                r#"latchkey_config_reloads_total{result="failure"} 1"#,
                "latchkey_config_last_reload_success_timestamp_seconds 1700000000",
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
        metrics.configure(&names(&["search"]), &names(&["main", "other"]));
        check(
            &metrics,
            &[
                r#"latchkey_limited_total{policy="search"} 1"#,
                r#"latchkey_jwks_age_seconds{issuer="main"} 9"#,
                r#"latchkey_jwks_age_seconds{issuer="other"} +Inf"#,
            ],
        );
        metrics.limited("orders");
        assert!(!metrics.render().contains("orders"));
        metrics.configure(&names(&["search", "orders"]), &names(&["main"]));
        assert!(!metrics.render().contains("other"));
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
