//! Decisions: how many ended how, and how long they took.

use std::time::Duration;

use prometheus::Error;

use super::Metrics;
use super::reading::Distribution;
use super::set::Set;
use super::tally::{Tally, Times};
use crate::decision::denial::Code;
use crate::decision::principal::Mechanism;

/// From 500 ns to 10 ms; a decision takes a few microseconds.
const BOUNDS_NS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// The codes, and `ok`.
const COLUMNS: usize = Code::ALL.len() + 1;

#[derive(Debug)]
pub(super) struct Decision {
    decisions: Tally,
    duration: Times,
}

impl Decision {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        let mechanisms = Mechanism::ALL.map(Mechanism::as_str).into_iter().chain(["none"]);
        let rows = mechanisms.flat_map(|mechanism| {
            let codes = Code::ALL.map(Some).into_iter().chain([None]);
            codes.map(move |code| [mechanism, outcome(code), code_label(code)])
        });
        Ok(Self {
            decisions: set.tally(
                "decisions_total",
                "Decisions by mechanism, outcome and code.",
                ["mechanism", "outcome", "code"],
                rows,
            )?,
            duration: set.times(
                "decision_duration_seconds",
                "Time to decide a request, without reading or forwarding it.",
                [],
                [[]],
                BOUNDS_NS,
            )?,
        })
    }
}

impl Metrics {
    /// Counts a decision; `mechanism` is `None` when there was no principal, `code` when the
    /// request went through.
    pub fn decision(&self, mechanism: Option<Mechanism>, code: Option<Code>) {
        let row = mechanism.map_or(Mechanism::ALL.len(), |m| m as usize);
        let column = code.map_or(Code::ALL.len(), |c| c as usize);
        // A test counts each once: there is a counter for every row and column.
        self.decision.decisions.inc(row * COLUMNS + column);
    }

    /// How many decisions there were of each code, and how long all took.
    pub(super) fn decisions_read(&self) -> ([u64; Code::ALL.len()], Distribution) {
        let Decision { decisions, duration } = &self.decision;
        let rows = 0..=Mechanism::ALL.len();
        let codes = std::array::from_fn(|column| {
            rows.clone().map(|row| decisions.read(row * COLUMNS + column)).sum()
        });
        (codes, duration.read(0))
    }

    /// Records how long a decision took.
    pub fn decision_duration(&self, took: Duration) {
        self.decision.duration.observe(0, took);
    }
}

/// How a decision ended: let through, refused, or ended by an error, which is a 5xx answer.
const fn outcome(code: Option<Code>) -> &'static str {
    match code {
        None => "allowed",
        Some(code) if code.status() >= 500 => "error",
        Some(_) => "refused",
    }
}

/// The `code` label; a decision that ended well has none of the codes.
fn code_label(code: Option<Code>) -> &'static str {
    code.map_or("ok", Code::as_str)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, metrics};
    use super::*;

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
}
