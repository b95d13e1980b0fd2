//! The bounds that callers run into.

use prometheus::Error;

use super::Metrics;
use super::set::Set;
use super::tally::Tally;

/// A bound of the data listener, as configured under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Open connections.
    Connections,
    /// Open connections of one client address.
    ConnectionsPerAddress,
    /// Requests in flight.
    Requests,
    /// The wait for a connection's first byte.
    FirstByteTimeout,
    /// The wait for the end of a head.
    HeadTimeout,
    /// The wait between two requests.
    IdleTimeout,
    /// The wait for more of a body, or for the client to take more of a response.
    BodyTimeout,
    /// The wait for the end of a request.
    RequestTimeout,
    /// Bytes of a head.
    HeaderBytes,
    /// Fields of a head.
    HeaderCount,
    /// Bytes of a body.
    BodyBytes,
}

impl Bound {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::Requests,
        Self::FirstByteTimeout,
        Self::HeadTimeout,
        Self::IdleTimeout,
        Self::BodyTimeout,
        Self::RequestTimeout,
        Self::HeaderBytes,
        Self::HeaderCount,
        Self::BodyBytes,
    ];

    /// The `bound` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::Requests => "requests",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::HeadTimeout => "head_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::HeaderBytes => "header_bytes",
            Self::HeaderCount => "header_count",
            Self::BodyBytes => "body_bytes",
        }
    }
}

#[derive(Debug)]
pub(super) struct Bounds {
    hit: Tally,
}

impl Bounds {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        Ok(Self {
            hit: set.tally(
                "bounds_hit_total",
                "Connections and requests that ran into a bound of the data listener.",
                ["bound"],
                Bound::ALL.map(|bound| [bound.as_str()]),
            )?,
        })
    }
}

impl Metrics {
    /// Counts a connection or request that ran into `bound`.
    pub fn bound_hit(&self, bound: Bound) {
        self.bounds.hit.inc(bound as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, metrics};
    use super::*;

    #[test]
    fn every_bound_has_its_own_series() {
        let metrics = metrics();
        for (i, bound) in Bound::ALL.into_iter().enumerate() {
            (0..=i).for_each(|_| metrics.bound_hit(bound));
        }
        for (i, bound) in Bound::ALL.into_iter().enumerate() {
            let name = bound.as_str();
            check(&metrics, &[&format!("latchkey_bounds_hit_total{{bound=\"{name}\"}} {}", i + 1)]);
        }
    }
}
