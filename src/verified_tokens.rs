//! The bounded cache of verified JWTs.
//!
//! Whether a cached token is still good (its expiry, its key, the configuration it was verified
//! under) is judged by the decision core at every use; this is only the memory.
//!
//! It verifies nothing, reads no clock, and forgets everything with the process.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::decision::jwt::{TokenDigest, VerifiedJwt, VerifiedTokens};

/// Verified tokens by the digest of their text, the least useful dropped when full.
pub struct VerifiedTokenCache(Cache<TokenDigest, Arc<VerifiedJwt>>);

impl VerifiedTokenCache {
    /// A cache of at most about `entries` tokens.
    #[must_use]
    pub fn new(entries: NonZeroUsize) -> Self {
        Self(Cache::new(entries.get()))
    }

    /// Keeps a freshly verified token.
    pub fn insert(&self, token: &Arc<VerifiedJwt>) {
        self.0.insert(token.digest, Arc::clone(token));
    }

    /// How many tokens are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl VerifiedTokens for VerifiedTokenCache {
    fn find(&self, digest: &TokenDigest) -> Option<Arc<VerifiedJwt>> {
        self.0.get(digest)
    }
}

impl fmt::Debug for VerifiedTokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifiedTokenCache").field(&self.0.len()).finish()
    }
}
