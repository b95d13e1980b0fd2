//! Requests of the data listener, as a whole: from the end of the head to that of the response.
//!
//! What never became a request (a malformed head, a connection over the bound) is not among them;
//! it is counted with the decisions, by its code.

use std::time::Duration;

use prometheus::{Error, proto};

use super::Metrics;
use super::exemplars::{Example, Exemplar, Exemplars};
use super::reading::Distribution;
use super::set::Set;
use super::tally::{Held, Level, Tally, Times};
use crate::decision::denial::Code;

/// From 500 µs to a minute; most of it is the upstream's time, and the client's to read.
const BOUNDS_NS: &[u64] = &[
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// The family that has exemplars.
const DURATION: &str = "request_duration_seconds";

/// Buckets of one outcome: the last has no bound.
const BUCKETS: usize = BOUNDS_NS.len() + 1;

const OUTCOMES: [&str; 4] = ["allowed", "refused", "error", "abandoned"];
/// The number of the last of them.
const ABANDONED: usize = 3;
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The version of HTTP a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Http10, Self::Http11, Self::Http2];

    /// As logs and metrics say it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// Who ended a response before it was whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutBy {
    /// The client left, or did not take it.
    Downstream,
    /// The upstream broke off, or stopped sending.
    Upstream,
}

impl CutBy {
    const ALL: [Self; 2] = [Self::Downstream, Self::Upstream];

    /// As logs and metrics say it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The version of HTTP.
    pub protocol: Protocol,
    /// The status of the response; `None` if the client left before there was one.
    pub status: Option<u16>,
    /// The code of the problem that was the response.
    pub code: Option<Code>,
    /// From the end of the head to that of the response.
    pub took: Duration,
    /// How much of the response's body was sent.
    pub bytes: u64,
    /// Who ended it early.
    pub cut: Option<CutBy>,
}

#[derive(Debug)]
pub(super) struct Requests {
    in_flight: Level,
    duration: Times,
    exemplars: Exemplars,
    responses: Tally,
    bytes: Tally,
    cut: Tally,
}

impl Requests {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        let responses = Protocol::ALL
            .iter()
            .flat_map(|protocol| CLASSES.map(move |class| [protocol.as_str(), class]));
        Ok(Self {
            in_flight: set.level("requests_in_flight", "Requests being answered.")?,
            duration: set.times(
                DURATION,
                "Time from the end of a request's head to the end of its response; abandoned: the \
                 client left before there was one.",
                ["outcome"],
                OUTCOMES.map(|outcome| [outcome]),
                BOUNDS_NS,
            )?,
            exemplars: Exemplars::new(OUTCOMES.len() * BUCKETS),
            responses: set.tally(
                "responses_total",
                "Responses by the version of HTTP and the class of their status.",
                ["protocol", "class"],
                responses,
            )?,
            bytes: set.tally(
                "response_body_bytes_total",
                "Bytes of responses' bodies handed to connections.",
                [],
                [[]],
            )?,
            cut: set.tally(
                "responses_cut_total",
                "Requests that ended before their response was whole, by who ended them.",
                ["by"],
                CutBy::ALL.map(|by| [by.as_str()]),
            )?,
        })
    }

    /// The exemplar of a bucket of `family`, if that is the one that has any.
    pub(super) fn exemplar(
        &self,
        family: &str,
        metric: &proto::Metric,
        bucket: usize,
    ) -> Option<Exemplar> {
        family.strip_prefix("latchkey_").filter(|name| *name == DURATION)?;
        let outcome = metric.get_label().iter().find(|label| label.name() == "outcome")?;
        let row = OUTCOMES.iter().position(|name| *name == outcome.value())?;
        self.exemplars.of(row * BUCKETS + bucket)
    }
}

impl Metrics {
    /// Counts a request as in flight until the result is dropped.
    #[must_use]
    pub fn request(&self) -> Held {
        self.requests.in_flight.hold(0)
    }

    /// How many requests ended how, and how long those took that got a response.
    pub(super) fn requests_read(&self) -> ([u64; 4], Distribution) {
        let mut answered = Distribution::default();
        let outcomes = std::array::from_fn(|row| {
            let times = self.requests.duration.read(row);
            if row != ABANDONED {
                answered.add(&times);
            }
            times.count()
        });
        (outcomes, answered)
    }

    /// Counts a request that has ended; it may become an exemplar.
    pub fn request_ended(&self, ended: &Ended, example: Example<'_>) {
        let requests = &self.requests;
        let row = outcome(ended);
        let bucket = requests.duration.observe(row, ended.took);
        requests.exemplars.offer(row * BUCKETS + bucket, example, ended.took);
        if let Some(status) = ended.status {
            let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
            requests.responses.inc(ended.protocol as usize * CLASSES.len() + class);
        }
        requests.bytes.add(0, ended.bytes);
        if let Some(by) = ended.cut {
            requests.cut.inc(by as usize);
        }
    }
}

/// The number of the request's outcome among [`OUTCOMES`].
fn outcome(ended: &Ended) -> usize {
    match (ended.status, ended.code) {
        (None, _) => ABANDONED,
        (Some(_), None) => 0,
        (Some(_), Some(code)) if code.status() < 500 => 1,
        (Some(_), Some(_)) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, metrics};
    use super::*;
    use crate::clock::Timestamp;
    use crate::metrics::Exposition;

    #[test]
    fn requests_are_counted_by_how_they_ended() {
        let metrics = metrics();
        let end = |protocol, status, code, cut| {
            let took = Duration::from_millis(40);
            let ended = Ended { protocol, status, code, took, bytes: 10, cut };
            let example = Example { request_id: "00ab", at: Timestamp::from_unix_s(1_700_000_000) };
            metrics.request_ended(&ended, example);
        };
        end(Protocol::Http11, Some(200), None, None);
        end(Protocol::Http2, Some(503), None, None);
        end(Protocol::Http2, Some(404), Some(Code::NotFound), None);
        end(Protocol::Http10, Some(502), Some(Code::UpstreamError), Some(CutBy::Upstream));
        end(Protocol::Http10, Some(999), None, None);
        end(Protocol::Http11, None, None, Some(CutBy::Downstream));
        check(
            &metrics,
            &[
                r#"latchkey_responses_total{class="2xx",protocol="HTTP/1.1"} 1"#,
                r#"latchkey_responses_total{class="5xx",protocol="HTTP/2"} 1"#,
                r#"latchkey_responses_total{class="4xx",protocol="HTTP/2"} 1"#,
                r#"latchkey_responses_total{class="5xx",protocol="HTTP/1.0"} 2"#,
                r#"latchkey_responses_total{class="1xx",protocol="HTTP/1.0"} 0"#,
                r#"latchkey_request_duration_seconds_count{outcome="allowed"} 3"#,
                r#"latchkey_request_duration_seconds_count{outcome="refused"} 1"#,
                r#"latchkey_request_duration_seconds_count{outcome="error"} 1"#,
                r#"latchkey_request_duration_seconds_count{outcome="abandoned"} 1"#,
                r#"latchkey_request_duration_seconds_bucket{outcome="refused",le="0.025"} 0"#,
                r#"latchkey_request_duration_seconds_bucket{outcome="refused",le="0.05"} 1"#,
                r#"latchkey_request_duration_seconds_sum{outcome="refused"} 0.04"#,
                r#"latchkey_responses_cut_total{by="upstream"} 1"#,
                r#"latchkey_responses_cut_total{by="downstream"} 1"#,
                "latchkey_response_body_bytes_total 60",
            ],
        );
    }
    #[test]
    fn the_bucket_that_counted_a_request_names_it() {
        let metrics = metrics();
        let end = |took, code, request_id, at| {
            let (protocol, status) = (Protocol::Http11, Some(200));
            let ended = Ended { protocol, status, code, took, bytes: 0, cut: None };
            metrics.request_ended(&ended, Example { request_id, at: Timestamp::from_unix_s(at) });
        };
        end(Duration::from_micros(500), None, "first", 10);
        end(Duration::from_secs(61), None, "slow", 11);
        end(Duration::from_millis(1), Some(Code::NotFound), "refused", 12);
        let text = metrics.expose(Exposition::OpenMetrics);
        for line in [
            r#"{outcome="allowed",le="0.0005"} 1 # {request_id="first"} 0.0005 10.000"#,
            r#"{outcome="allowed",le="0.001"} 1"#,
            r#"{outcome="allowed",le="+Inf"} 2 # {request_id="slow"} 61 11.000"#,
            r#"{outcome="refused",le="0.0005"} 0"#,
            r#"{outcome="refused",le="0.001"} 1 # {request_id="refused"} 0.001 12.000"#,
        ] {
            let line = format!("latchkey_request_duration_seconds_bucket{line}");
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert_eq!(text.matches("request_id").count(), 3);
        assert!(!metrics.render().contains("request_id"));
    }
}
