//! JSON Web Tokens of configured issuers (spec §4, RFC 7519, RFC 8725).
//!
//! [`authenticate`] holds the order: shape, header, issuer, key, signature, claims, time. The
//! algorithm comes from the configuration and the key, the key from the issuer's key set; the
//! token only names them. A token that was verified before is found in a cache by the digest of
//! its text, and is checked again for all that can change while the text does not: the time, the
//! policies, the key set.
//!
//! This module fetches no keys: what it lacks it returns, as [`JwtFailure::NeedsKey`] and
//! [`JwtFailure::KeysUnavailable`]. It does not fill the cache either: [`Authentic::fresh`] says
//! that the caller may.

mod claims;
mod json;
mod key_set;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::digest;
use serde_json::{Map, Value};

pub use self::key_set::{
    KeyFingerprint, KeyKind, KeySet, KeySetError, SkipReason, SkippedKey, VerifyingKey,
};

use self::claims::{Claims, is_ahead, is_past};
use self::json::{ObjectError, parse_object};
use super::policy::{Issuer, JwtAlgorithm};
use crate::clock::Timestamp;
use crate::id::{Name, ShopId};
use crate::jose::install_provider;

/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How many keys are tried for a token that does not say which one signed it.
pub const CANDIDATES_MAX: usize = 8;

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
    /// set holds that key. All zero for a token of an issuer with a shared secret: that secret is
    /// part of the policies, so that another one is another `generation`.
    pub key_fingerprint: KeyFingerprint,
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

/// The key sets of all issuers, as last fetched.
pub trait KeySets {
    /// The key set of the issuer of this name; `None` if none was ever fetched.
    fn key_set(&self, issuer: &Name) -> Option<&KeySet>;
}

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

/// A token that is authentic, meant for us, and valid now.
#[derive(Debug, Clone)]
pub struct Authentic {
    /// What it says.
    pub token: Arc<VerifiedJwt>,
    /// Its issuer's place in the slice given to [`authenticate`].
    pub issuer_index: usize,
    /// It was verified just now, not found in the cache: the caller may put it there.
    pub fresh: bool,
}

/// Proof that the issuer's key of this fingerprint signed the token.
#[derive(Debug)]
struct Signed {
    key_fingerprint: KeyFingerprint,
}

/// Authenticates a bearer token, as it stands after `Bearer `.
///
/// `generation` is the number of the policies that `issuers` come from. A token found in `cache`
/// costs one SHA-256 and no heap allocation; any other costs a signature verification.
///
/// # Errors
///
/// Every [`JwtFailure`]; a failed token is never looked at as anything else.
pub fn authenticate(
    token: &str,
    issuers: &[Issuer],
    key_sets: &dyn KeySets,
    cache: &dyn VerifiedTokens,
    generation: u64,
    now: Timestamp,
) -> Result<Authentic, JwtFailure> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtFailure::Invalid("the token is longer than 8 KiB"));
    }
    let digest = sha256(token.as_bytes());
    let known = cache.find(&digest).filter(|t| t.generation == generation);
    if let Some(verdict) = known.and_then(|t| recheck(t, issuers, key_sets, now)) {
        return verdict;
    }
    let parts = Parts::split(token)?;
    let header = Header::parse(&decode(parts.header)?)?;
    let claims = Claims::parse(&decode(parts.payload)?)?;
    let iss = claims.unverified_iss()?;
    let (issuer_index, issuer) = issuers
        .iter()
        .enumerate()
        .find(|(_, issuer)| *issuer.iss == *iss)
        .ok_or(JwtFailure::Invalid("the claim `iss` names no configured issuer"))?;
    header.check_policy(issuer)?;
    let signed = verify_signature(&parts, &header, issuer, key_sets, now)?;
    let token = claims.accept(signed, issuer, digest, generation, now)?;
    Ok(Authentic { token: Arc::new(token), issuer_index, fresh: true })
}

/// Authenticates a token of one issuer and returns all it says: for an ID token, which the admin
/// plane reads groups from. The same rules as [`authenticate`]; the caller bounds its length.
///
/// # Errors
///
/// Every [`JwtFailure`].
pub fn claims(
    token: &str,
    issuer: &Issuer,
    keys: &KeySet,
    now: Timestamp,
) -> Result<(VerifiedJwt, Map<String, Value>), JwtFailure> {
    let parts = Parts::split(token)?;
    let header = Header::parse(&decode(parts.header)?)?;
    let claims = Claims::parse(&decode(parts.payload)?)?;
    if *claims.unverified_iss()? != *issuer.iss {
        return Err(JwtFailure::Invalid("the claim `iss` is not the issuer"));
    }
    header.check_policy(issuer)?;
    let signed = verify_signature(&parts, &header, issuer, &OneSet(keys), now)?;
    let verified = claims.accept(signed, issuer, sha256(token.as_bytes()), 0, now)?;
    Ok((verified, claims.into_members()))
}

/// A key set, whoever asks.
struct OneSet<'k>(&'k KeySet);

impl KeySets for OneSet<'_> {
    fn key_set(&self, _: &Name) -> Option<&KeySet> {
        Some(self.0)
    }
}

/// Judges a token that was verified before, by all that may have changed since. `None`: it must
/// be verified anew, which also finds out what to say.
fn recheck(
    token: Arc<VerifiedJwt>,
    issuers: &[Issuer],
    key_sets: &dyn KeySets,
    now: Timestamp,
) -> Option<Result<Authentic, JwtFailure>> {
    let issuer_index = issuers.iter().position(|i| i.name == token.issuer)?;
    let issuer = issuers.get(issuer_index)?;
    let key_trusted = if issuer.secret.is_some() {
        token.key_fingerprint == SHARED_SECRET
    } else {
        trusted_keys(issuer, key_sets, now)?.contains(&token.key_fingerprint)
    };
    let too_early = |nbf| is_ahead(nbf, issuer.leeway, now);
    if !key_trusted || token.not_before.is_some_and(too_early) {
        return None;
    }
    if is_past(token.expires_at, issuer.leeway, now) {
        return Some(Err(JwtFailure::Expired));
    }
    Some(Ok(Authentic { token, issuer_index, fresh: false }))
}

/// Stands for the key of an issuer with a shared secret; see [`VerifiedJwt::key_fingerprint`].
const SHARED_SECRET: KeyFingerprint = [0; 32];

/// The issuer's key set, unless it is missing or past its stale bound.
fn trusted_keys<'a>(
    issuer: &Issuer,
    key_sets: &'a dyn KeySets,
    now: Timestamp,
) -> Option<&'a KeySet> {
    key_sets.key_set(&issuer.name).filter(|set| now <= set.fetched_at() + issuer.stale_max)
}

/// The three parts of a JWS in compact serialization (RFC 7515 §7.1), still encoded.
struct Parts<'a> {
    /// Header and payload, which the signature covers.
    signed: &'a str,
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    /// Three non-empty parts, each of the base64url alphabet without padding.
    fn split(token: &'a str) -> Result<Self, JwtFailure> {
        let shape = JwtFailure::Invalid("the token is not three base64url parts");
        let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(base64url);
        let split = token.rsplit_once('.').and_then(|(signed, signature)| {
            let (header, payload) = signed.split_once('.')?;
            Some(Self { signed, header, payload, signature })
        });
        split
            .filter(|p| is_part(p.header) && is_part(p.payload) && is_part(p.signature))
            .ok_or(shape)
    }

    /// Whether `key` made the signature.
    fn verify(&self, key: &DecodingKey, algorithm: JwtAlgorithm) -> bool {
        let algorithm = library_algorithm(algorithm);
        jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), key, algorithm)
            .unwrap_or(false)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, JwtFailure> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| JwtFailure::Invalid("the header or payload is not base64url"))
}

/// A token's header (RFC 7515 §4.1), as far as it matters. `jku`, `jwk`, `x5u` and `x5c` do not:
/// a token does not choose its own key (RFC 8725 §3.5).
struct Header {
    algorithm: JwtAlgorithm,
    typ: Option<String>,
    kid: Option<String>,
}

impl Header {
    fn parse(decoded: &[u8]) -> Result<Self, JwtFailure> {
        let mut members = parse_object(decoded).map_err(|e| {
            JwtFailure::Invalid(match e {
                ObjectError::NotJson => "the header is not JSON",
                ObjectError::NotAnObject => "the header is not a JSON object",
                ObjectError::RepeatedMember => "a header member occurs twice",
            })
        })?;
        if members.contains_key("crit") {
            let reason = "the header has `crit`: extensions that latchkey does not understand";
            return Err(JwtFailure::Invalid(reason));
        }
        let algorithm = take_text(&mut members, "alg", "the header's `alg` is not a string")?
            .ok_or(JwtFailure::Invalid("the header has no `alg`"))?;
        let cty = take_text(&mut members, "cty", "the header's `cty` is not a string")?;
        if cty.is_some_and(|cty| media_type(&cty).eq_ignore_ascii_case("jwt")) {
            return Err(JwtFailure::Invalid("a nested token is not accepted"));
        }
        Ok(Self {
            algorithm: JwtAlgorithm::parse(&algorithm)
                .ok_or(JwtFailure::Invalid("the header's `alg` is not supported"))?,
            typ: take_text(&mut members, "typ", "the header's `typ` is not a string")?,
            kid: take_text(&mut members, "kid", "the header's `kid` is not a string")?,
        })
    }

    /// What the configuration demands of the header (RFC 8725 §3.1, §3.11).
    fn check_policy(&self, issuer: &Issuer) -> Result<(), JwtFailure> {
        if !issuer.algorithms.contains(&self.algorithm) {
            let reason = "the header's `alg` is not one of the issuer's `algorithms`";
            return Err(JwtFailure::Invalid(reason));
        }
        let typ = self.typ.as_deref().map(media_type);
        let accepted =
            |wanted: &str| typ.is_some_and(|typ| media_type(wanted).eq_ignore_ascii_case(typ));
        if issuer.typ.is_empty() || issuer.typ.iter().any(|wanted| accepted(wanted)) {
            Ok(())
        } else {
            let reason = "the header's `typ` is not one of the issuer's `typ`";
            Err(JwtFailure::Invalid(reason))
        }
    }
}

/// Takes a text member out; `None` if absent, `reason` if it is anything but text.
fn take_text(
    members: &mut Map<String, Value>,
    name: &str,
    reason: &'static str,
) -> Result<Option<String>, JwtFailure> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JwtFailure::Invalid(reason)),
    }
}

/// A media type without the `application/` that may be left out (RFC 7515 §4.1.9).
fn media_type(text: &str) -> &str {
    const PREFIX: &str = "application/";
    match text.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        Some(_) | None => text,
    }
}

/// Finds the key that the header names and verifies the signature with it.
fn verify_signature(
    parts: &Parts<'_>,
    header: &Header,
    issuer: &Issuer,
    key_sets: &dyn KeySets,
    now: Timestamp,
) -> Result<Signed, JwtFailure> {
    install_provider();
    let forged = JwtFailure::Invalid("the signature is not by a key of the issuer");
    if header.algorithm.is_symmetric() {
        let secret = issuer.secret.as_ref().ok_or(JwtFailure::Invalid(
            "the header's `alg` needs a shared secret and the issuer has none",
        ))?;
        let key = DecodingKey::from_secret(secret.expose().as_bytes());
        return if parts.verify(&key, header.algorithm) {
            Ok(Signed { key_fingerprint: SHARED_SECRET })
        } else {
            Err(forged)
        };
    }
    let set = trusted_keys(issuer, key_sets, now)
        .ok_or_else(|| JwtFailure::KeysUnavailable { issuer: issuer.name.clone() })?;
    let kid = header.kid.as_deref();
    let mut candidates = set.find(kid, header.algorithm).take(CANDIDATES_MAX).peekable();
    if candidates.peek().is_none() {
        return Err(match kid {
            Some(kid) if set.has_kid(kid) => {
                JwtFailure::Invalid("the key that the header names is not for its `alg`")
            }
            Some(_) | None => JwtFailure::NeedsKey {
                issuer: issuer.name.clone(),
                kid: kid.unwrap_or_default().into(),
            },
        });
    }
    candidates
        .find(|key| parts.verify(key.decoding_key(), header.algorithm))
        .map(|key| Signed { key_fingerprint: *key.fingerprint() })
        .ok_or(forged)
}

/// The same algorithm in the terms of `jsonwebtoken`.
fn library_algorithm(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::RS384 => Algorithm::RS384,
        JwtAlgorithm::RS512 => Algorithm::RS512,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::PS384 => Algorithm::PS384,
        JwtAlgorithm::PS512 => Algorithm::PS512,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::ES384 => Algorithm::ES384,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
        JwtAlgorithm::HS256 => Algorithm::HS256,
        JwtAlgorithm::HS384 => Algorithm::HS384,
        JwtAlgorithm::HS512 => Algorithm::HS512,
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let computed = digest::digest(&digest::SHA256, bytes);
    let mut sha256 = [0; 32];
    sha256.iter_mut().zip(computed.as_ref()).for_each(|(to, from)| *to = *from);
    sha256
}

#[cfg(test)]
mod tests;
