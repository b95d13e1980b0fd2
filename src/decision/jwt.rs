//! JSON Web Tokens of configured issuers (spec §4, RFC 7519, RFC 8725).

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::id::{Name, ShopId};

/// SHA-256 of a token's text: its name in the cache of verified tokens.
pub type TokenDigest = [u8; 32];

/// What a verified token says, kept so that it need not be verified again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedJwt {
    /// The issuer's name in the configuration.
    pub issuer: Name,
    /// `sub`.
    pub subject: Box<str>,
    /// Scopes, space-separated.
    pub scopes: Box<str>,
    /// The shop it is bound to.
    pub shop: Option<ShopId>,
    /// `exp`, rounded down to a millisecond.
    pub expires_at: Timestamp,
    /// `nbf`, if present.
    pub not_before: Option<Timestamp>,
    /// SHA-256 of the key that verified it; the token is good only as long as its issuer's key
    /// set holds that key.
    pub key_fingerprint: [u8; 32],
    /// [`super::policy::Policies`] it was verified under; another generation verifies anew.
    pub generation: u64,
    /// Its name in the cache.
    pub digest: TokenDigest,
}

/// The bounded cache of verified tokens.
pub trait VerifiedTokens {
    /// Finds a token by its digest.
    fn find(&self, digest: &TokenDigest) -> Option<Arc<VerifiedJwt>>;
}

/// An issuer's keys as last fetched.
#[derive(Debug, Clone)]
pub struct KeySet {}

/// Why a bearer token does not authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtFailure {
    /// Malformed, not signed by the issuer's keys, or a claim is not acceptable; why, for the
    /// operator.
    Invalid(&'static str),
    /// Authentic, but past its expiry.
    Expired,
    /// Its key is not in the set: ask the issuer once, then evaluate again.
    NeedsKey {
        /// Which issuer.
        issuer: Name,
        /// Which key; empty if the token names none.
        kid: Box<str>,
    },
    /// The issuer's key set is missing or past its stale bound.
    KeysUnavailable {
        /// Which issuer.
        issuer: Name,
    },
}
