//! How series are made: under one prefix, and for decisions all of them beforehand.

use prometheus::core::Collector;
use prometheus::{
    Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::decision::principal::Mechanism;

/// The codes a decision can end with: `ok`, or that of a refusal or an error.
pub const CODES: &[&str] = &[
    "ok",
    "bad_request",
    "not_found",
    "missing_credential",
    "invalid_credential",
    "expired_credential",
    "origin_mismatch",
    "cross_tenant",
    "insufficient_scope",
    "shop_disabled",
    "network_not_allowed",
    "rate_limited",
    "keys_unavailable",
    "upstream_unreachable",
    "upstream_error",
    "upstream_timeout",
    "overloaded",
    "method_not_allowed",
    "request_timeout",
    "payload_too_large",
    "headers_too_large",
    "internal",
];

/// The `outcome` of a code: errors are the 5xx answers.
pub(super) fn outcome(code: &str) -> &'static str {
    match code {
        "ok" => "allowed",
        "keys_unavailable"
        | "upstream_unreachable"
        | "upstream_error"
        | "upstream_timeout"
        | "overloaded"
        | "internal" => "error",
        _ => "refused",
    }
}

/// A counter for every mechanism and code, so that a decision looks up no label.
pub(super) fn decision_counters(vec: &IntCounterVec) -> Vec<IntCounter> {
    let mechanisms = Mechanism::ALL.map(Mechanism::as_str);
    let rows = mechanisms.into_iter().chain(["none"]);
    rows.flat_map(|mechanism| CODES.iter().map(move |code| (mechanism, *code)))
        .map(|(mechanism, code)| vec.with_label_values(&[mechanism, outcome(code), code]))
        .collect()
}

/// Registers metrics under the common prefix.
pub(super) struct Set<'a>(pub(super) &'a Registry);

impl Set<'_> {
    pub(super) fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::new(format!("latchkey_{name}"), help)?)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, Error> {
        let opts = Opts::new(format!("latchkey_{name}"), help);
        self.add(IntCounterVec::new(opts, labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::new(format!("latchkey_{name}"), help)?)
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, Error> {
        let opts = HistogramOpts::new(format!("latchkey_{name}"), help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(opts)?)
    }
}
