//! The metrics as numbers, for what is drawn of them: two readings, and the difference.

use prometheus::core::Metric as _;

use super::Metrics;
use crate::decision::denial::Code;

/// What the counters stand at.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Requests that ended: allowed, refused, error, abandoned.
    pub outcomes: [u64; 4],
    /// Decisions by code, in the order of [`Code::ALL`].
    pub codes: [u64; Code::ALL.len()],
    /// How long requests took that got a response.
    pub requests: Distribution,
    /// How long decisions took.
    pub decisions: Distribution,
    /// How long commits took.
    pub commits: Distribution,
    /// Reads and writes of the store that failed.
    pub store_errors: u64,
}

/// Durations, by buckets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    /// The buckets' upper bounds, in seconds, ascending.
    pub(super) bounds: Vec<f64>,
    /// How many fell into each, and into the one without a bound.
    pub(super) counts: Vec<u64>,
}

impl Distribution {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(before).map(|(now, then)| now.saturating_sub(then));
        Self { bounds: self.bounds.clone(), counts: counts.collect() }
    }

    /// The value that the share `quantile` of them stay below, in seconds: exact to its bucket,
    /// within it as if they were spread evenly. Beyond the last bound, that bound.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = quantile.clamp(0.0, 1.0) * float(count);
        let (mut below, mut lower) = (0.0, 0.0);
        for (bound, in_bucket) in self.bounds.iter().zip(&self.counts) {
            let in_bucket = float(*in_bucket);
            if below + in_bucket >= rank && in_bucket > 0.0 {
                return Some(lower + (bound - lower) * ((rank - below) / in_bucket).max(0.0));
            }
            (below, lower) = (below + in_bucket, *bound);
        }
        Some(lower)
    }

    /// Both together; of the same buckets.
    pub(super) fn add(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.clone_from(other);
            return;
        }
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }

    pub(super) fn of(histogram: &prometheus::Histogram) -> Self {
        let metric = histogram.metric();
        let read = metric.get_histogram();
        let mut below = 0;
        let mut this = Self::default();
        for bucket in read.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
            this.bounds.push(bucket.upper_bound());
            this.counts.push(bucket.cumulative_count().saturating_sub(below));
            below = bucket.cumulative_count();
        }
        this.counts.push(read.get_sample_count().saturating_sub(below));
        this
    }
}

impl Metrics {
    /// What the counters stand at. Each is read by itself: a reading may catch a request between
    /// two of them.
    #[must_use]
    pub fn read(&self) -> Reading {
        let (outcomes, requests) = self.requests_read();
        let (codes, decisions) = self.decisions_read();
        let (commits, store_errors) = self.store_read();
        Reading { outcomes, codes, requests, decisions, commits, store_errors }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share of it is wanted")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::metrics;
    use super::*;
    use crate::clock::Timestamp;
    use crate::decision::principal::Mechanism;
    use crate::metrics::{Ended, Example, Protocol};

    #[test]
    fn what_was_counted_between_two_readings() {
        let metrics = metrics();
        let end = |ms, status, code| {
            let took = Duration::from_millis(ms);
            let protocol = Protocol::Http11;
            let ended = Ended { protocol, status, code, took, bytes: 0, cut: None };
            let at = Timestamp::from_unix_s(1);
            metrics.request_ended(&ended, Example { request_id: "a", at });
        };
        end(1, Some(200), None);
        let before = metrics.read();
        (0..98).for_each(|_| end(3, Some(200), None));
        end(3, Some(404), Some(Code::NotFound));
        end(900, Some(502), Some(Code::UpstreamError));
        end(9_000_000, None, None);
        metrics.decision(Some(Mechanism::Jwt), Some(Code::CrossTenant));
        metrics.decision(None, Some(Code::CrossTenant));
        metrics.decision_duration(Duration::from_nanos(700));
        metrics.store_commit_duration(Duration::from_millis(4));
        metrics.store_error();
        let after = metrics.read();
        let difference: Vec<u64> =
            after.outcomes.iter().zip(before.outcomes).map(|(a, b)| a - b).collect();
        assert_eq!(difference, [98, 1, 1, 1]);
        assert_eq!(after.codes[Code::CrossTenant as usize], 2);
        assert_eq!(after.codes.iter().sum::<u64>(), 2);
        let requests = after.requests.since(&before.requests);
        assert_eq!(requests.count(), 100);
        let ms = |quantile| (requests.quantile(quantile).unwrap() * 1e3 * 100.0).round() / 100.0;
        // 99 of them between 2.5 and 5 ms, one between 500 ms and 1 s.
        assert!((2.5..=5.0).contains(&ms(0.5)) && (2.5..=5.0).contains(&ms(0.99)), "{}", ms(0.5));
        assert!((500.0..=1000.0).contains(&ms(1.0)), "{}", ms(1.0));
        assert!(after.decisions.quantile(0.5).unwrap() <= 1e-6);
        assert!((2.5e-3..=5e-3).contains(&after.commits.quantile(0.5).unwrap()));
        assert_eq!((after.commits.count(), after.store_errors), (1, 1));
        assert_eq!(before.commits.quantile(0.5), None);
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let of = |counts: &[u64]| Distribution { bounds: vec![1.0, 2.0], counts: counts.to_vec() };
        assert_eq!(of(&[0, 0, 0]).quantile(0.5), None);
        assert_eq!(of(&[0, 0, 3]).quantile(0.5), Some(2.0));
        assert_eq!(of(&[4, 0, 0]).quantile(0.5), Some(0.5));
        assert_eq!(of(&[0, 4, 0]).quantile(0.5), Some(1.5));
        assert_eq!(of(&[1, 1, 0]).quantile(1.0), Some(2.0));
        assert_eq!(of(&[0, 4, 0]).quantile(0.0), Some(1.0));
    }
}
