//! The bounded cache of verified JWTs.
//!
//! Whether a cached token is still good (its expiry, its key, the configuration it was verified
//! under) is judged by the decision core at every use; this is only the memory.
//!
//! It verifies nothing, reads no clock, and forgets everything with the process.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};

use crate::decision::jwt::{TokenDigest, VerifiedJwt, VerifiedTokens};

/// Verified tokens by the digest of their text, the least useful dropped when full.
pub struct VerifiedTokenCache {
    cache: Cache<TokenDigest, Arc<VerifiedJwt>, UnitWeighter, DefaultHashBuilder, Counted>,
    evicted: Arc<AtomicU64>,
}

/// Counts what is dropped to make room.
#[derive(Debug, Clone)]
struct Counted(Arc<AtomicU64>);

impl<K, V> Lifecycle<K, V> for Counted {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _key: K, _value: V) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl VerifiedTokenCache {
    /// A cache of at most about `entries` tokens.
    #[must_use]
    pub fn new(entries: NonZeroUsize) -> Self {
        let evicted = Arc::new(AtomicU64::new(0));
        let (entries, counted) = (entries.get(), Counted(Arc::clone(&evicted)));
        let hash = DefaultHashBuilder::default();
        let cache = Cache::with(entries, entries as u64, UnitWeighter, hash, counted);
        Self { cache, evicted }
    }

    /// Keeps a freshly verified token.
    pub fn insert(&self, token: &Arc<VerifiedJwt>) {
        self.cache.insert(token.digest, Arc::clone(token));
    }

    /// How many tokens are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// How many were dropped to make room since the start.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

impl VerifiedTokens for VerifiedTokenCache {
    fn find(&self, digest: &TokenDigest) -> Option<Arc<VerifiedJwt>> {
        self.cache.get(digest)
    }
}

impl fmt::Debug for VerifiedTokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifiedTokenCache").field(&self.len()).finish()
    }
}
