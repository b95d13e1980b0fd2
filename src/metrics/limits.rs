//! Limits: what each policy refused, and how full the limiter is.

use arc_swap::ArcSwap;
use prometheus::{Error, IntCounter, IntCounterVec, IntGauge};

use super::Metrics;
use super::set::{Set, Total, gauge_value};
use super::tally::Tally;
use crate::id::Name;

/// The counters of one configured policy.
#[derive(Debug, Clone)]
struct Policy {
    name: Name,
    limited: IntCounter,
    shadow_exceeded: IntCounter,
}

#[derive(Debug)]
pub(super) struct Limits {
    limited: IntCounterVec,
    shadow_exceeded: IntCounterVec,
    throttled: Tally,
    cells: IntGauge,
    cells_live: IntGauge,
    overflow: Total,
    /// What is configured at present: at most 64, searched in order.
    policies: ArcSwap<Vec<Policy>>,
}

impl Limits {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        Ok(Self {
            limited: set.counters(
                "limited_total",
                "Requests refused by a limit policy.",
                &["policy"],
            )?,
            shadow_exceeded: set.counters(
                "shadow_exceeded_total",
                "Requests a limit policy in shadow mode would have refused.",
                &["policy"],
            )?,
            throttled: set.tally(
                "failed_attempts_throttled_total",
                "Requests refused because their address had failed too often.",
                [],
                [[]],
            )?,
            cells: set.gauge("limiter_cells", "Cells of the limiter.")?,
            cells_live: set.gauge("limiter_cells_live", "Cells whose quota is not whole.")?,
            overflow: set.total(
                "limiter_overflow_total",
                "Charges that found no free cell and went to a shared one.",
            )?,
            policies: ArcSwap::default(),
        })
    }

    pub(super) fn configure(&self, names: &[Name]) {
        let of = |name: &Name| Policy {
            name: name.clone(),
            limited: self.limited.with_label_values(&[name.as_str()]),
            shadow_exceeded: self.shadow_exceeded.with_label_values(&[name.as_str()]),
        };
        let before = self.policies.swap(names.iter().map(of).collect::<Vec<_>>().into());
        // A series that is already gone needs no dropping: the results say nothing.
        for gone in before.iter().filter(|p| !names.contains(&p.name)) {
            let _ = self.limited.remove_label_values(&[gone.name.as_str()]);
            let _ = self.shadow_exceeded.remove_label_values(&[gone.name.as_str()]);
        }
    }

    fn policy(&self, name: &str, then: impl FnOnce(&Policy)) {
        if let Some(policy) = self.policies.load().iter().find(|p| p.name.as_str() == name) {
            then(policy);
        }
    }
}

impl Metrics {
    /// How often a policy has refused since the start, and would have in shadow mode.
    #[must_use]
    pub fn limited_totals(&self, policy: &str) -> (u64, u64) {
        let mut totals = (0, 0);
        self.limits.policy(policy, |counters| {
            totals = (counters.limited.get(), counters.shadow_exceeded.get());
        });
        totals
    }

    /// Counts a refusal by a policy; one that is not configured counts nowhere.
    pub fn limited(&self, policy: &str) {
        self.limits.policy(policy, |counters| counters.limited.inc());
    }

    /// Counts a request that a policy in shadow mode would have refused; one that is not
    /// configured counts nowhere.
    pub fn shadow_exceeded(&self, policy: &str) {
        self.limits.policy(policy, |counters| counters.shadow_exceeded.inc());
    }

    /// Counts a request whose address had failed too often.
    pub fn throttled(&self) {
        self.limits.throttled.inc(0);
    }

    /// Sets what is known of the limiter: cells, live cells, and charges that overflowed since
    /// the start.
    pub fn limiter(&self, cells: usize, live: usize, overflowed: u64) {
        self.limits.cells.set(gauge_value(cells));
        self.limits.cells_live.set(gauge_value(live));
        self.limits.overflow.set(overflowed);
    }
}
