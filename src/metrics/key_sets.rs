//! Key sets: how old they are, how many keys they have, and how often they were fetched.

use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{Error, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Metrics;
use super::set::{RESULTS, Set, gauge_value};
use crate::id::Name;

/// The metrics of one configured issuer.
#[derive(Debug, Clone)]
struct Issuer {
    name: Name,
    age: Gauge,
    keys: IntGauge,
    failures: IntCounter,
    successes: IntCounter,
}

#[derive(Debug)]
pub(super) struct KeySets {
    age: GaugeVec,
    keys: IntGaugeVec,
    stale_max: GaugeVec,
    refresh: IntCounterVec,
    /// What is configured at present: a few, searched in order.
    issuers: ArcSwap<Vec<Issuer>>,
}

impl KeySets {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        Ok(Self {
            age: set.float_gauges(
                "jwks_age_seconds",
                "Time since the key set was last fetched; +Inf if it never was.",
                &["issuer"],
            )?,
            keys: set.gauges("jwks_keys", "Usable keys in the key set.", &["issuer"])?,
            stale_max: set.float_gauges(
                "jwks_stale_max_seconds",
                "How old the key set may become before JWTs of the issuer are refused.",
                &["issuer"],
            )?,
            refresh: set.counters(
                "jwks_refresh_total",
                "Attempts to fetch a key set.",
                &["issuer", "result"],
            )?,
            issuers: ArcSwap::default(),
        })
    }

    pub(super) fn configure(&self, announced: &[(Name, Duration)]) {
        let before = self.issuers.load();
        let of = |(name, stale_max): &(Name, Duration)| {
            let stale_max = stale_max.as_secs_f64();
            self.stale_max.with_label_values(&[name.as_str()]).set(stale_max);
            let [failures, successes] =
                RESULTS.map(|r| self.refresh.with_label_values(&[name.as_str(), r]));
            let age = self.age.with_label_values(&[name.as_str()]);
            if before.iter().all(|known| known.name != *name) {
                age.set(f64::INFINITY);
            }
            let keys = self.keys.with_label_values(&[name.as_str()]);
            Issuer { name: name.clone(), age, keys, failures, successes }
        };
        self.issuers.store(announced.iter().map(of).collect::<Vec<_>>().into());
        // A series that is already gone needs no dropping: the results say nothing.
        let stays = |issuer: &&Issuer| announced.iter().any(|(name, _)| *name == issuer.name);
        for gone in before.iter().filter(|issuer| !stays(issuer)) {
            let name = gone.name.as_str();
            let _ = self.stale_max.remove_label_values(&[name]);
            let _ = self.age.remove_label_values(&[name]);
            let _ = self.keys.remove_label_values(&[name]);
            for result in RESULTS {
                let _ = self.refresh.remove_label_values(&[name, result]);
            }
        }
    }

    fn issuer(&self, name: &str, then: impl FnOnce(&Issuer)) {
        if let Some(issuer) = self.issuers.load().iter().find(|i| i.name.as_str() == name) {
            then(issuer);
        }
    }
}

impl Metrics {
    /// Sets what is known of an issuer's key set: its age, `None` if it was never fetched, and
    /// how many usable keys it has. An issuer that is not configured is nowhere.
    pub fn jwks(&self, issuer: &str, age: Option<Duration>, keys: usize) {
        self.key_sets.issuer(issuer, |metrics| {
            metrics.age.set(age.map_or(f64::INFINITY, |age| age.as_secs_f64()));
            metrics.keys.set(gauge_value(keys));
        });
    }

    /// Counts an attempt to fetch an issuer's key set.
    pub fn jwks_refresh(&self, issuer: &str, success: bool) {
        self.key_sets.issuer(issuer, |metrics| {
            if success {
                metrics.successes.inc();
            } else {
                metrics.failures.inc();
            }
        });
    }
}
