//! What is counted of upstreams, by their configured names.

use std::time::Duration;

use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts,
};

use super::Metrics;
use super::set::{Set, gauge_value};
use crate::id::Name;

/// From 500 µs to a minute; the first bounds are those of a service in the same rack.
const DURATION_BUCKETS_S: &[f64] = &[
    5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Why an upstream's answer did not come, or not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamCause {
    /// No connection: its name or its address.
    Connect,
    /// No connection in time.
    ConnectTimeout,
    /// No TLS: its certificate, its name, its protocol.
    Tls,
    /// No head of a response in time.
    Timeout,
    /// It closed the connection before the head of a response.
    BrokenOff,
    /// The head of its response is malformed or means two things.
    Malformed,
    /// The body of its response broke off or is malformed.
    Body,
    /// The body of its response stopped, or took too long in all.
    BodyTimeout,
}

impl UpstreamCause {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::ConnectTimeout,
        Self::Tls,
        Self::Timeout,
        Self::BrokenOff,
        Self::Malformed,
        Self::Body,
        Self::BodyTimeout,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::BrokenOff => "broken_off",
            Self::Malformed => "malformed",
            Self::Body => "body",
            Self::BodyTimeout => "body_timeout",
        }
    }
}

/// How an upstream's endpoints are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Taking requests.
    pub healthy: usize,
    /// Left out for failures.
    pub ejected: usize,
    /// Left out because its probes fail.
    pub unhealthy: usize,
}

/// The metrics of one upstream, looked up once.
#[derive(Debug)]
pub struct UpstreamMetrics {
    duration: Histogram,
    errors: [IntCounter; UpstreamCause::ALL.len()],
    ejections: IntCounter,
    retries: IntCounter,
    healthy: IntGauge,
    ejected: IntGauge,
    unhealthy: IntGauge,
}

impl UpstreamMetrics {
    /// Records the time from sending a request to the head of its response.
    pub fn answered(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts an error.
    pub fn error(&self, cause: UpstreamCause) {
        if let Some(counter) = self.errors.get(cause as usize) {
            counter.inc();
        }
    }

    /// Counts an endpoint left out for its failures.
    pub fn ejection(&self) {
        self.ejections.inc();
    }

    /// Counts a request sent, or a connection tried, a further time.
    pub fn retry(&self) {
        self.retries.inc();
    }

    /// Sets how its endpoints are.
    pub fn endpoints(&self, counts: EndpointCounts) {
        self.healthy.set(gauge_value(counts.healthy));
        self.ejected.set(gauge_value(counts.ejected));
        self.unhealthy.set(gauge_value(counts.unhealthy));
    }
}

/// The families of those metrics.
#[derive(Debug)]
pub(super) struct Upstreams {
    duration: HistogramVec,
    errors: IntCounterVec,
    ejections: IntCounterVec,
    retries: IntCounterVec,
    endpoints: IntGaugeVec,
}

const STATES: [&str; 3] = ["healthy", "ejected", "unhealthy"];

impl Upstreams {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        let duration = HistogramOpts::new(
            "latchkey_upstream_request_duration_seconds",
            "Time from sending a request to an upstream to the head of its response.",
        );
        let duration = duration.buckets(DURATION_BUCKETS_S.to_vec());
        Ok(Self {
            duration: set.add(HistogramVec::new(duration, &["upstream"])?)?,
            errors: set.counters(
                "upstream_errors_total",
                "Requests that an upstream did not answer, or not whole.",
                &["upstream", "cause"],
            )?,
            ejections: set.counters(
                "upstream_ejections_total",
                "Endpoints left out for their failures.",
                &["upstream"],
            )?,
            retries: set.counters(
                "upstream_retries_total",
                "Further attempts after a failed connect, or what the upstream had not looked at.",
                &["upstream"],
            )?,
            endpoints: set.add(IntGaugeVec::new(
                Opts::new("latchkey_upstream_endpoints", "Endpoints by how they are."),
                &["upstream", "state"],
            )?)?,
        })
    }

    pub(super) fn of(&self, name: &str) -> UpstreamMetrics {
        let [healthy, ejected, unhealthy] =
            STATES.map(|state| self.endpoints.with_label_values(&[name, state]));
        UpstreamMetrics {
            duration: self.duration.with_label_values(&[name]),
            errors: UpstreamCause::ALL
                .map(|cause| self.errors.with_label_values(&[name, cause.as_str()])),
            ejections: self.ejections.with_label_values(&[name]),
            retries: self.retries.with_label_values(&[name]),
            healthy,
            ejected,
            unhealthy,
        }
    }

    pub(super) fn forget(&self, name: &str) {
        // A series that is already gone needs no dropping: the results say nothing.
        let _ = self.duration.remove_label_values(&[name]);
        let _ = self.ejections.remove_label_values(&[name]);
        let _ = self.retries.remove_label_values(&[name]);
        for cause in UpstreamCause::ALL {
            let _ = self.errors.remove_label_values(&[name, cause.as_str()]);
        }
        for state in STATES {
            let _ = self.endpoints.remove_label_values(&[name, state]);
        }
    }
}

impl Metrics {
    /// The metrics of the configured upstream `name`.
    #[must_use]
    pub fn upstream(&self, name: &Name) -> UpstreamMetrics {
        self.upstreams.of(name.as_str())
    }

    /// Drops the series of an upstream that is no longer configured.
    pub fn forget_upstream(&self, name: &Name) {
        self.upstreams.forget(name.as_str());
    }
}
