//! What is counted of connections before anybody reads a request: handshakes, certificates,
//! streams that end early.

use prometheus::{Error, IntCounter, IntGaugeVec};

use super::Metrics;
use super::set::{RESULTS, Set};
use crate::clock::Timestamp;

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// With a connection.
    Completed,
    /// Not at all.
    TimedOut,
    /// The peer went away.
    Closed,
    /// What arrived is not TLS: plain HTTP, a scanner.
    NotTls,
    /// The client showed no certificate, or one that does not count.
    ClientCertificate,
    /// The client did not like this certificate.
    Refused,
    /// No version, cipher suite or protocol in common, or a broken message.
    Incompatible,
}

impl Handshake {
    /// All of them, in the order of declaration.
    pub const ALL: [Self; 7] = [
        Self::Completed,
        Self::TimedOut,
        Self::Closed,
        Self::NotTls,
        Self::ClientCertificate,
        Self::Refused,
        Self::Incompatible,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::TimedOut => "timed_out",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::ClientCertificate => "client_certificate",
            Self::Refused => "refused_by_client",
            Self::Incompatible => "incompatible",
        }
    }
}

/// Why a stream of HTTP/2 ended before its response was out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamReset {
    /// The client gave it up, or its connection broke.
    Client,
    /// The upstream broke off the response.
    Upstream,
}

impl StreamReset {
    const ALL: [Self; 2] = [Self::Client, Self::Upstream];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
        }
    }
}

/// Why latchkey ended a connection of HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoAway {
    /// No request for the idle time.
    Idle,
    /// The process stops.
    Drain,
    /// The client does not take its responses.
    Stalled,
    /// Streams opened to be reset, or other excess.
    Flood,
    /// A broken frame or message.
    Protocol,
}

impl GoAway {
    const ALL: [Self; 5] = [Self::Idle, Self::Drain, Self::Stalled, Self::Flood, Self::Protocol];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Drain => "drain",
            Self::Stalled => "stalled",
            Self::Flood => "flood",
            Self::Protocol => "protocol",
        }
    }
}

/// Counters and gauges of connections.
#[derive(Debug)]
pub(super) struct Transport {
    handshakes: [IntCounter; Handshake::ALL.len()],
    expiry: IntGaugeVec,
    admin_expiry: IntGaugeVec,
    certificate_reloads: [IntCounter; RESULTS.len()],
    resets: [IntCounter; StreamReset::ALL.len()],
    goaways: [IntCounter; GoAway::ALL.len()],
}

impl Transport {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        let handshakes = set.counters(
            "tls_handshakes_total",
            "TLS handshakes by how they ended.",
            &["outcome"],
        )?;
        let expiry = set.gauges(
            "tls_certificate_expiry_timestamp_seconds",
            "When a certificate in force expires; certificates in the order of the configuration.",
            &["certificate"],
        )?;
        let admin_expiry = set.gauges(
            "admin_tls_certificate_expiry_timestamp_seconds",
            "When a certificate of the admin listener expires; certificates in the order of the \
             configuration.",
            &["certificate"],
        )?;
        let reloads =
            set.counters("tls_reloads_total", "Attempts to load certificates anew.", &["result"])?;
        let resets = set.counters(
            "h2_resets_total",
            "HTTP/2 streams that ended before their response was out.",
            &["cause"],
        )?;
        let goaways = set.counters(
            "h2_goaways_total",
            "HTTP/2 connections that latchkey ended.",
            &["cause"],
        )?;
        Ok(Self {
            handshakes: Handshake::ALL.map(|h| handshakes.with_label_values(&[h.as_str()])),
            expiry,
            admin_expiry,
            certificate_reloads: RESULTS.map(|r| reloads.with_label_values(&[r])),
            resets: StreamReset::ALL.map(|r| resets.with_label_values(&[r.as_str()])),
            goaways: GoAway::ALL.map(|g| goaways.with_label_values(&[g.as_str()])),
        })
    }
}

impl Metrics {
    /// Counts a TLS handshake.
    pub fn handshake(&self, outcome: Handshake) {
        count(&self.transport.handshakes, outcome as usize);
    }

    /// Counts a stream of HTTP/2 that ended before its response was out.
    pub fn h2_reset(&self, cause: StreamReset) {
        count(&self.transport.resets, cause as usize);
    }

    /// Counts a connection of HTTP/2 that latchkey ended.
    pub fn h2_goaway(&self, cause: GoAway) {
        count(&self.transport.goaways, cause as usize);
    }

    /// Sets when the certificates of the data plane expire, and forgets others.
    pub fn certificates(&self, expiries: &[Timestamp]) {
        set_expiries(&self.transport.expiry, expiries);
    }

    /// The same for those of the admin listener.
    pub fn admin_certificates(&self, expiries: &[Timestamp]) {
        set_expiries(&self.transport.admin_expiry, expiries);
    }
    /// Counts an attempt to load certificates of either listener anew.
    pub fn certificates_loaded(&self, success: bool) {
        count(&self.transport.certificate_reloads, usize::from(success));
    }
}

fn set_expiries(gauges: &IntGaugeVec, expiries: &[Timestamp]) {
    gauges.reset();
    for (index, expiry) in expiries.iter().enumerate() {
        let seconds = i64::try_from(expiry.unix_s()).unwrap_or(i64::MAX);
        gauges.with_label_values(&[&index.to_string()]).set(seconds);
    }
}

/// There is a counter for every variant: a test counts each once.
fn count(counters: &[IntCounter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_series() {
        let metrics = Metrics::new("0").unwrap();
        let mut lines = Vec::new();
        for outcome in Handshake::ALL {
            metrics.handshake(outcome);
            let label = outcome.as_str();
            lines.push(format!("latchkey_tls_handshakes_total{{outcome=\"{label}\"}} 1"));
        }
        for cause in StreamReset::ALL {
            metrics.h2_reset(cause);
            lines.push(format!("latchkey_h2_resets_total{{cause=\"{}\"}} 1", cause.as_str()));
        }
        for cause in GoAway::ALL {
            metrics.h2_goaway(cause);
            lines.push(format!("latchkey_h2_goaways_total{{cause=\"{}\"}} 1", cause.as_str()));
        }
        metrics.certificates(&[Timestamp::from_unix_s(7), Timestamp::MAX]);
        metrics.admin_certificates(&[Timestamp::from_unix_s(8)]);
        metrics.certificates(&[Timestamp::from_unix_s(9)]);
        for success in [true, true, false] {
            metrics.certificates_loaded(success);
        }
        lines.push("latchkey_tls_reloads_total{result=\"success\"} 2".to_owned());
        lines.push("latchkey_tls_reloads_total{result=\"failure\"} 1".to_owned());
        let expiry = "latchkey_tls_certificate_expiry_timestamp_seconds";
        lines.push(format!("{expiry}{{certificate=\"0\"}} 9"));
        let expiry = "latchkey_admin_tls_certificate_expiry_timestamp_seconds";
        lines.push(format!("{expiry}{{certificate=\"0\"}} 8"));
        let text = metrics.render();
        for line in lines {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert!(!text.contains("certificate=\"1\""));
    }
}
