//! Spans of requests: what came of them.

use prometheus::Error;

use super::Metrics;
use super::set::Set;
use super::tally::Tally;

/// What came of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanOutcome {
    /// The collector took it.
    Exported,
    /// There was no room in the queue, or no collector any more.
    Dropped,
    /// The collector did not take it.
    Failed,
}

impl SpanOutcome {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Exported, Self::Dropped, Self::Failed];

    /// The `outcome` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug)]
pub(super) struct Tracing {
    spans: Tally,
}

impl Tracing {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        Ok(Self {
            spans: set.tally(
                "trace_spans_total",
                "Spans of sampled requests, by whether the collector took them.",
                ["outcome"],
                SpanOutcome::ALL.map(|outcome| [outcome.as_str()]),
            )?,
        })
    }
}

impl Metrics {
    /// Counts `spans` of which this came.
    pub fn trace_spans(&self, outcome: SpanOutcome, spans: u64) {
        self.tracing.spans.add(outcome as usize, spans);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, metrics};
    use super::*;

    #[test]
    fn every_outcome_has_its_own_series() {
        let metrics = metrics();
        for (outcome, spans) in SpanOutcome::ALL.into_iter().zip([3, 2, 1]) {
            metrics.trace_spans(outcome, spans);
        }
        check(
            &metrics,
            &[
                r#"latchkey_trace_spans_total{outcome="exported"} 3"#,
                r#"latchkey_trace_spans_total{outcome="dropped"} 2"#,
                r#"latchkey_trace_spans_total{outcome="failed"} 1"#,
            ],
        );
    }
}
