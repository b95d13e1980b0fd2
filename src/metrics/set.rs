//! How series are made and registered: under one prefix.
//!
//! What is counted, and when, is the areas' business and their callers'.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::Collector;
use prometheus::{
    Error, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

use super::tally::{Family, Level, Tally, Times};

/// The label values of what can fail.
pub(super) const RESULTS: [&str; 2] = ["failure", "success"];

/// Registers metrics under the common prefix. Names come without it.
///
/// What requests count is a [`Tally`], [`Level`] or [`Times`]: their series are known beforehand
/// and their workers never meet. The rest is the library's.
pub(super) struct Set<'a>(pub(super) &'a Registry);

impl Set<'_> {
    pub(super) fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// Counters for the way of a request: one for each of `rows`, counted by its number.
    pub(super) fn tally<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = [&'static str; N]>,
    ) -> Result<Tally, Error> {
        self.add(Tally::new(Family::new(format!("latchkey_{name}"), help, labels, rows)?))
    }

    /// A gauge for the way of a request, held up by what lasts.
    pub(super) fn level(&self, name: &str, help: &str) -> Result<Level, Error> {
        self.add(Level::new(Family::new(format!("latchkey_{name}"), help, [], [[]])?))
    }

    /// Histograms of durations for the way of a request; the bounds of the buckets are
    /// nanoseconds.
    pub(super) fn times<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = [&'static str; N]>,
        bounds_ns: &[u64],
    ) -> Result<Times, Error> {
        let family = Family::new(format!("latchkey_{name}"), help, labels, rows)?;
        self.add(Times::new(family, bounds_ns))
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

    /// A counter of what somebody else counts.
    pub(super) fn total(&self, name: &str, help: &str) -> Result<Total, Error> {
        Ok(Total { counter: self.counter(name, help)?, seen: AtomicU64::new(0) })
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::new(format!("latchkey_{name}"), help)?)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, Error> {
        let opts = Opts::new(format!("latchkey_{name}"), help);
        self.add(IntGaugeVec::new(opts, labels)?)
    }

    pub(super) fn float_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, Error> {
        let opts = Opts::new(format!("latchkey_{name}"), help);
        self.add(GaugeVec::new(opts, labels)?)
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

/// A counter that is told where it stands.
#[derive(Debug)]
pub(super) struct Total {
    counter: IntCounter,
    seen: AtomicU64,
}

impl Total {
    /// Takes over `total`; a lower one than before is old news.
    pub(super) fn set(&self, total: u64) {
        let before = self.seen.fetch_max(total, Ordering::Relaxed);
        self.counter.inc_by(total.saturating_sub(before));
    }
}

/// A count as a gauge has it.
pub(super) fn gauge_value(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
