//! What is kept only because it is useful, and dropped when its place is needed.

use prometheus::{Error, IntGauge};

use super::Metrics;
use super::set::{Set, Total, gauge_value};

#[derive(Debug)]
pub(super) struct Caches {
    verified_tokens: IntGauge,
    verified_token_evictions: Total,
}

impl Caches {
    pub(super) fn new(set: &Set<'_>) -> Result<Self, Error> {
        Ok(Self {
            verified_tokens: set.gauge(
                "jwt_cache_entries",
                "Verified JWTs that are kept; at most jwt_cache.entries.",
            )?,
            verified_token_evictions: set.total(
                "jwt_cache_evictions_total",
                "Verified JWTs that were dropped to make room for others.",
            )?,
        })
    }
}

impl Metrics {
    /// Sets what is known of the cache of verified JWTs: its entries, and how many were dropped to
    /// make room since the start.
    pub fn verified_tokens(&self, entries: usize, evicted: u64) {
        self.caches.verified_tokens.set(gauge_value(entries));
        self.caches.verified_token_evictions.set(evicted);
    }
}
