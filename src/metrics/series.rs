//! How series are made: under one prefix, and for decisions all of them beforehand.
//!
//! What is counted, and when, is the parent's business and its callers'.

use prometheus::core::Collector;
use prometheus::{
    Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::decision::denial::Code;
use crate::decision::principal::Mechanism;

/// How a decision ended: let through, refused, or ended by an error, which is a 5xx answer.
pub(super) const fn outcome(code: Option<Code>) -> &'static str {
    match code {
        None => "allowed",
        Some(code) if code.status() >= 500 => "error",
        Some(_) => "refused",
    }
}

/// The `code` label; a decision that ended well has none of the codes.
pub(super) fn code_label(code: Option<Code>) -> &'static str {
    code.map_or("ok", Code::as_str)
}

/// The counters of decisions: one for every mechanism and code, made beforehand, so that a
/// decision looks up no label.
#[derive(Debug)]
pub(super) struct Decisions(Vec<IntCounter>);

/// The codes, and `ok`.
const COLUMNS: usize = Code::ALL.len() + 1;

impl Decisions {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        let vec = set.counters(
            "decisions_total",
            "Decisions by mechanism, outcome and code.",
            &["mechanism", "outcome", "code"],
        )?;
        let mechanisms = Mechanism::ALL.map(Mechanism::as_str).into_iter().chain(["none"]);
        let counters = mechanisms.flat_map(|mechanism| {
            let codes = Code::ALL.map(Some).into_iter().chain([None]);
            codes.map(move |code| [mechanism, outcome(code), code_label(code)])
        });
        Ok(Self(counters.map(|labels| vec.with_label_values(&labels)).collect()))
    }

    /// Counts one of `mechanism` (the last row: none) and `code` (the last column: ok).
    pub(super) fn count(&self, mechanism: Option<Mechanism>, code: Option<Code>) {
        let row = mechanism.map_or(Mechanism::ALL.len(), |m| m as usize);
        let column = code.map_or(Code::ALL.len(), |c| c as usize);
        // A test counts each once: there is a counter for every row and column.
        if let Some(counter) = self.0.get(row * COLUMNS + column) {
            counter.inc();
        }
    }
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
