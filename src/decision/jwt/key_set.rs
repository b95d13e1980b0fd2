//! An issuer's public keys: a JWK Set (RFC 7517 §5), parsed key by key.
//!
//! Providers publish keys that latchkey has no use for beside those it needs. Such a key is
//! skipped and counted, it never spoils the set. This module fetches nothing.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::super::policy::JwtAlgorithm;
use crate::clock::Timestamp;

/// SHA-256 over a key's public material (RFC 7638 §3): its name in the cache of verified tokens.
pub type KeyFingerprint = [u8; 32];

/// An RSA modulus this short, in bits, no longer protects anything (RFC 7518 §3.3).
const RSA_BITS_MIN: usize = 2048;

/// The longest RSA modulus, in bits, that the cryptography accepts: verifying costs its square.
const RSA_BITS_MAX: usize = 8192;

/// The largest RSA public exponent that the cryptography accepts: 33 bits.
const RSA_EXPONENT_MAX: u64 = (1 << 33) - 1;

/// What kind of key, which decides the algorithms it can verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `RSA`.
    Rsa,
    /// `EC` on `P-256`.
    P256,
    /// `EC` on `P-384`.
    P384,
    /// `OKP` on `Ed25519`.
    Ed25519,
}

impl KeyKind {
    /// `kty`.
    #[must_use]
    pub const fn kty(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::P256 | Self::P384 => "EC",
            Self::Ed25519 => "OKP",
        }
    }

    /// `crv`, where the kind has one.
    #[must_use]
    pub const fn crv(self) -> Option<&'static str> {
        match self {
            Self::Rsa => None,
            Self::P256 => Some("P-256"),
            Self::P384 => Some("P-384"),
            Self::Ed25519 => Some("Ed25519"),
        }
    }

    /// Whether a key of this kind can verify `algorithm`.
    #[must_use]
    pub const fn fits(self, algorithm: JwtAlgorithm) -> bool {
        match algorithm {
            JwtAlgorithm::RS256
            | JwtAlgorithm::RS384
            | JwtAlgorithm::RS512
            | JwtAlgorithm::PS256
            | JwtAlgorithm::PS384
            | JwtAlgorithm::PS512 => matches!(self, Self::Rsa),
            JwtAlgorithm::ES256 => matches!(self, Self::P256),
            JwtAlgorithm::ES384 => matches!(self, Self::P384),
            JwtAlgorithm::EdDSA => matches!(self, Self::Ed25519),
            JwtAlgorithm::HS256 | JwtAlgorithm::HS384 | JwtAlgorithm::HS512 => false,
        }
    }
}

/// A public key, ready to verify.
#[derive(Clone)]
pub struct VerifyingKey {
    kid: Option<Box<str>>,
    kind: KeyKind,
    algorithm: Option<JwtAlgorithm>,
    fingerprint: KeyFingerprint,
    decoding_key: DecodingKey,
}

impl VerifyingKey {
    /// `kid`.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What kind of key.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// `alg`: the only algorithm the key may be used with (RFC 7517 §4.4).
    #[must_use]
    pub fn algorithm(&self) -> Option<JwtAlgorithm> {
        self.algorithm
    }

    /// SHA-256 over the public material.
    #[must_use]
    pub fn fingerprint(&self) -> &KeyFingerprint {
        &self.fingerprint
    }

    /// Whether the key may verify `algorithm`: its kind can, and it declares no other.
    #[must_use]
    pub fn fits(&self, algorithm: JwtAlgorithm) -> bool {
        self.kind.fits(algorithm) && self.algorithm.is_none_or(|a| a == algorithm)
    }

    /// The key as `jsonwebtoken` takes it.
    pub(super) fn decoding_key(&self) -> &DecodingKey {
        &self.decoding_key
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("kid", &self.kid)
            .field("kind", &self.kind)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Why a member of a key set is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SkipReason {
    /// Not a JSON object, or `kid`, `use`, `alg` or `kty` is not text.
    #[error("not a JWK: a JSON object whose `kty`, `kid`, `use` and `alg` are text")]
    Malformed,
    /// `kty` is none of `RSA`, `EC`, `OKP`.
    #[error("its `kty` is none of RSA, EC, OKP")]
    KeyType,
    /// `oct`, or a private member: whoever published it has published a secret.
    #[error("it holds secret material; a key set must hold public keys only")]
    Private,
    /// `crv` is none of `P-256`, `P-384`, `Ed25519`.
    #[error("its `crv` is none of P-256, P-384, Ed25519")]
    Curve,
    /// `use` or `key_ops` say that it does not verify signatures.
    #[error("it is not for verifying signatures (`use`, `key_ops`)")]
    Usage,
    /// `alg` is not supported, or not one that the key can do.
    #[error("its `alg` is not supported or does not fit the key")]
    Algorithm,
    /// `n`, `e`, `x` or `y` is missing, not base64url, or of the wrong length.
    #[error("its key material is missing, not base64url, or of the wrong length")]
    Material,
    /// An RSA modulus shorter than 2048 or longer than 8192 bits, or an exponent that is even,
    /// below 3 or above 33 bits.
    #[error("its RSA modulus is not of 2048 to 8192 bits, or its exponent is unusable")]
    RsaSize,
}

/// A member of a key set that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in the set, from 0.
    pub index: usize,
    /// Its `kid`, as far as it has a readable one.
    pub kid: Option<Box<str>>,
    /// Why.
    pub reason: SkipReason,
}

/// A text is not a key set at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Longer than [`KeySet::BYTES_MAX`].
    #[error("the key set is longer than {} KiB", KeySet::BYTES_MAX / 1024)]
    TooLong,
    /// More than [`KeySet::KEYS_MAX`] members.
    #[error("the key set has more than {} keys", KeySet::KEYS_MAX)]
    TooManyKeys,
    /// Not JSON; where, without repeating any of it.
    #[error("the key set is not JSON: line {line}, column {column}")]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// JSON, but not an object with an array `keys` (RFC 7517 §5.1).
    #[error("not a key set: a JSON object with an array `keys` was expected")]
    NotAKeySet,
}

/// An issuer's keys as last fetched.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<VerifyingKey>,
    skipped: Vec<SkippedKey>,
    fetched_at: Timestamp,
}

impl KeySet {
    /// The longest text of a set, in bytes.
    pub const BYTES_MAX: usize = 256 * 1024;

    /// The most members of a set.
    pub const KEYS_MAX: usize = 100;

    /// Parses the JSON text of a JWK Set that was fetched at `fetched_at`.
    ///
    /// Keys that cannot be used are in [`KeySet::skipped`]; a set none of whose keys can be used
    /// is no error here, see [`KeySet::is_empty`].
    ///
    /// # Errors
    ///
    /// [`KeySetError`] if the text is no key set at all, or over a bound.
    pub fn parse(json: &str, fetched_at: Timestamp) -> Result<Self, KeySetError> {
        if json.len() > Self::BYTES_MAX {
            return Err(KeySetError::TooLong);
        }
        let value: Value = serde_json::from_str(json)
            .map_err(|e| KeySetError::NotJson { line: e.line(), column: e.column() })?;
        let members = value.get("keys").and_then(Value::as_array).ok_or(KeySetError::NotAKeySet)?;
        if members.len() > Self::KEYS_MAX {
            return Err(KeySetError::TooManyKeys);
        }
        let mut set =
            Self { keys: Vec::with_capacity(members.len()), skipped: Vec::new(), fetched_at };
        for (index, member) in members.iter().enumerate() {
            match parse_key(member) {
                Ok(key) => set.keys.push(key),
                Err(reason) => set.skipped.push(SkippedKey {
                    index,
                    kid: member.get("kid").and_then(Value::as_str).map(Into::into),
                    reason,
                }),
            }
        }
        Ok(set)
    }

    /// When it was fetched; with `stale_max` this says how long it is trusted.
    #[must_use]
    pub fn fetched_at(&self) -> Timestamp {
        self.fetched_at
    }

    /// The usable keys, in the order of the set.
    #[must_use]
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// The members that are not used, and why.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// How many usable keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key is usable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the set has a key of this name, whatever it can do.
    #[must_use]
    pub fn has_kid(&self, kid: &str) -> bool {
        self.keys.iter().any(|k| k.kid() == Some(kid))
    }

    /// The keys that may have signed a token with this `kid` and `alg`: without a `kid` all that
    /// fit `algorithm`; with one those of that name which fit. Names need not be unique.
    pub fn find<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: JwtAlgorithm,
    ) -> impl Iterator<Item = &'a VerifyingKey> {
        self.keys.iter().filter(move |k| k.fits(algorithm) && (kid.is_none() || k.kid() == kid))
    }

    /// Whether the key of this fingerprint is (still) in the set.
    #[must_use]
    pub fn contains(&self, fingerprint: &KeyFingerprint) -> bool {
        self.keys.iter().any(|k| k.fingerprint == *fingerprint)
    }
}

fn parse_key(member: &Value) -> Result<VerifyingKey, SkipReason> {
    let jwk = member.as_object().ok_or(SkipReason::Malformed)?;
    let kid = text(jwk, "kid")?;
    let kty = text(jwk, "kty")?.ok_or(SkipReason::Malformed)?;
    // Every private member of RFC 7518 §6 and RFC 8037 §2.
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
    if kty == "oct" || private.iter().any(|m| jwk.contains_key(*m)) {
        return Err(SkipReason::Private);
    }
    if text(jwk, "use")?.is_some_and(|u| u != "sig") || !may_verify(jwk) {
        return Err(SkipReason::Usage);
    }
    let material = match kty {
        "RSA" => rsa(jwk)?,
        "EC" => match text(jwk, "crv")?.ok_or(SkipReason::Curve)? {
            "P-256" => ec(jwk, KeyKind::P256, 32)?,
            "P-384" => ec(jwk, KeyKind::P384, 48)?,
            _ => return Err(SkipReason::Curve),
        },
        "OKP" => match text(jwk, "crv")?.ok_or(SkipReason::Curve)? {
            "Ed25519" => ed25519(jwk)?,
            _ => return Err(SkipReason::Curve),
        },
        _ => return Err(SkipReason::KeyType),
    };
    let algorithm = match text(jwk, "alg")? {
        None => None,
        // RFC 9864 §2.2 renames EdDSA on this curve; it is the same algorithm.
        Some("Ed25519") => Some(JwtAlgorithm::EdDSA),
        Some(name) => Some(JwtAlgorithm::parse(name).ok_or(SkipReason::Algorithm)?),
    };
    if algorithm.is_some_and(|a| !material.kind.fits(a)) {
        return Err(SkipReason::Algorithm);
    }
    Ok(VerifyingKey {
        kid: kid.map(Into::into),
        kind: material.kind,
        algorithm,
        fingerprint: fingerprint(material.kind, &material.parts),
        decoding_key: material.decoding_key,
    })
}

/// A text member; `None` if absent, an error if it is anything but text.
fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, SkipReason> {
    match jwk.get(name) {
        None => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or(SkipReason::Malformed),
    }
}

/// Whether `key_ops` (RFC 7517 §4.3), if present, names `verify`.
fn may_verify(jwk: &Map<String, Value>) -> bool {
    jwk.get("key_ops").is_none_or(|ops| {
        ops.as_array().is_some_and(|ops| ops.iter().any(|op| op.as_str() == Some("verify")))
    })
}

/// What makes a key: its kind, its public members, its prepared form.
struct Material {
    kind: KeyKind,
    parts: [Vec<u8>; 2],
    decoding_key: DecodingKey,
}

fn rsa(jwk: &Map<String, Value>) -> Result<Material, SkipReason> {
    // Some libraries write the sign byte of their big integers; the number is the same.
    let n = without_leading_zeros(base64url(jwk, "n")?);
    let e = without_leading_zeros(base64url(jwk, "e")?);
    let bits = n
        .first()
        .map_or(0, |first| n.len() * 8 - usize::try_from(first.leading_zeros()).unwrap_or(0));
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) || !exponent_usable(&e) {
        return Err(SkipReason::RsaSize);
    }
    Ok(Material {
        kind: KeyKind::Rsa,
        decoding_key: DecodingKey::from_rsa_raw_components(&n, &e),
        parts: [n, e],
    })
}

/// Odd, at least 3, at most 33 bits.
fn exponent_usable(e: &[u8]) -> bool {
    if e.len() > 5 {
        return false;
    }
    let value = e.iter().fold(0_u64, |sum, b| sum << 8 | u64::from(*b));
    value % 2 == 1 && (3..=RSA_EXPONENT_MAX).contains(&value)
}

/// `coordinate_bytes` is the exact length of each coordinate (RFC 7518 §6.2.1.2).
fn ec(
    jwk: &Map<String, Value>,
    kind: KeyKind,
    coordinate_bytes: usize,
) -> Result<Material, SkipReason> {
    let (x, y) = (base64url(jwk, "x")?, base64url(jwk, "y")?);
    if x.len() != coordinate_bytes || y.len() != coordinate_bytes {
        return Err(SkipReason::Material);
    }
    // The uncompressed point (SEC 1 §2.3.3).
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    Ok(Material { kind, decoding_key: DecodingKey::from_ec_der(&point), parts: [x, y] })
}

fn ed25519(jwk: &Map<String, Value>) -> Result<Material, SkipReason> {
    let x = base64url(jwk, "x")?;
    if x.len() != 32 {
        return Err(SkipReason::Material);
    }
    Ok(Material {
        kind: KeyKind::Ed25519,
        decoding_key: DecodingKey::from_ed_der(&x),
        parts: [x, Vec::new()],
    })
}

fn base64url(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, SkipReason> {
    let encoded = jwk.get(name).and_then(Value::as_str).ok_or(SkipReason::Material)?;
    URL_SAFE_NO_PAD.decode(encoded).map_err(|_| SkipReason::Material)
}

fn without_leading_zeros(mut bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    bytes.drain(..zeros);
    bytes
}

/// The thumbprint of RFC 7638 §3: SHA-256 over the required members in lexical order.
fn fingerprint(kind: KeyKind, [first, second]: &[Vec<u8>; 2]) -> KeyFingerprint {
    let (a, b) = (URL_SAFE_NO_PAD.encode(first), URL_SAFE_NO_PAD.encode(second));
    let kty = kind.kty();
    let canonical = match (kind, kind.crv().unwrap_or_default()) {
        (KeyKind::Rsa, _) => format!(r#"{{"e":"{b}","kty":"{kty}","n":"{a}"}}"#),
        (KeyKind::P256 | KeyKind::P384, crv) => {
            format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{a}","y":"{b}"}}"#)
        }
        (KeyKind::Ed25519, crv) => format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{a}"}}"#),
    };
    super::sha256(canonical.as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AT: Timestamp = Timestamp::from_unix_s(1);

    /// A coordinate of the right length; nothing here asks whether the point is on the curve.
    fn coordinate(bytes: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![7; bytes])
    }

    fn modulus(bits: usize) -> String {
        let mut bytes = vec![0xab; bits.div_ceil(8)];
        bytes[0] = if bits.is_multiple_of(8) { 0x80 } else { 1 << (bits % 8 - 1) };
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `base` with `changes` applied; null removes.
    fn with(base: &Value, changes: &Value) -> Value {
        let mut jwk = base.clone();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                jwk.as_object_mut().unwrap().remove(name);
            } else {
                jwk[name] = value.clone();
            }
        }
        jwk
    }

    fn parse_one(jwk: &Value) -> Result<VerifyingKey, SkipReason> {
        let set = KeySet::parse(&json!({ "keys": [jwk] }).to_string(), AT).unwrap();
        match (set.keys(), set.skipped()) {
            ([key], []) => Ok(key.clone()),
            ([], [skipped]) => Err(skipped.reason),
            other => panic!("{other:?}"),
        }
    }

    fn rsa_jwk() -> Value {
        json!({"kty": "RSA", "kid": "r", "n": modulus(2048), "e": "AQAB"})
    }

    fn ec_jwk() -> Value {
        json!({"kty": "EC", "crv": "P-256", "kid": "c", "x": coordinate(32), "y": coordinate(32)})
    }

    fn ed_jwk() -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "d", "x": coordinate(32)})
    }

    #[test]
    fn usable_keys() {
        use JwtAlgorithm::{ES256, ES384, EdDSA, HS256, PS512, RS256};
        let p384 = json!({"crv": "P-384", "x": coordinate(48), "y": coordinate(48)});
        let rows: [(Value, &[JwtAlgorithm]); 12] = [
            (rsa_jwk(), &[RS256, PS512]),
            (with(&rsa_jwk(), &json!({"alg": "RS256", "use": "sig"})), &[RS256]),
            (with(&rsa_jwk(), &json!({"alg": "PS512", "kid": null})), &[PS512]),
            (with(&rsa_jwk(), &json!({"n": modulus(8192), "e": "Aw"})), &[RS256, PS512]),
            (with(&rsa_jwk(), &json!({"n": modulus(2049)})), &[RS256, PS512]),
            (with(&rsa_jwk(), &json!({"key_ops": ["verify"], "x5c": ["?"]})), &[RS256, PS512]),
            (ec_jwk(), &[ES256]),
            (with(&ec_jwk(), &json!({"alg": "ES256"})), &[ES256]),
            (with(&ec_jwk(), &p384), &[ES384]),
            (ed_jwk(), &[EdDSA]),
            (with(&ed_jwk(), &json!({"alg": "EdDSA"})), &[EdDSA]),
            (with(&ed_jwk(), &json!({"alg": "Ed25519"})), &[EdDSA]),
        ];
        for (jwk, algorithms) in rows {
            let key = parse_one(&jwk).unwrap_or_else(|e| panic!("{jwk}: {e}"));
            assert_eq!(key.kid(), jwk["kid"].as_str());
            for algorithm in [RS256, PS512, ES256, ES384, EdDSA, HS256] {
                assert_eq!(key.fits(algorithm), algorithms.contains(&algorithm), "{jwk}");
            }
        }
    }

    #[test]
    fn unusable_keys() {
        use SkipReason as S;
        let (rsa, ec, ed) = (rsa_jwk(), ec_jwk(), ed_jwk());
        let rows = [
            (json!(7), S::Malformed),
            (json!({}), S::Malformed),
            (with(&rsa, &json!({"kid": 7})), S::Malformed),
            (with(&rsa, &json!({"use": ["sig"]})), S::Malformed),
            (with(&rsa, &json!({"alg": 1})), S::Malformed),
            (with(&rsa, &json!({"kty": "rsa"})), S::KeyType),
            (with(&rsa, &json!({"kty": "AKP"})), S::KeyType),
            (json!({"kty": "oct", "k": "c2VjcmV0"}), S::Private),
            (with(&rsa, &json!({"d": "AQAB"})), S::Private),
            (with(&ec, &json!({"d": "AQAB"})), S::Private),
            (with(&ed, &json!({"d": "AQAB"})), S::Private),
            (with(&rsa, &json!({"use": "enc"})), S::Usage),
            (with(&rsa, &json!({"use": ""})), S::Usage),
            (with(&rsa, &json!({"key_ops": ["encrypt"]})), S::Usage),
            (with(&rsa, &json!({"key_ops": "verify"})), S::Usage),
            (with(&rsa, &json!({"n": null})), S::Material),
            (with(&rsa, &json!({"n": "a+b/"})), S::Material),
            (with(&rsa, &json!({"e": "AQAB="})), S::Material),
            (with(&rsa, &json!({"e": 65537})), S::Material),
            (with(&rsa, &json!({"n": modulus(2047)})), S::RsaSize),
            (with(&rsa, &json!({"n": modulus(1024)})), S::RsaSize),
            (with(&rsa, &json!({"n": modulus(8200)})), S::RsaSize),
            (with(&rsa, &json!({"n": ""})), S::RsaSize),
            (with(&rsa, &json!({"e": "AQ"})), S::RsaSize),
            (with(&rsa, &json!({"e": "AQAA"})), S::RsaSize),
            (with(&rsa, &json!({"e": ""})), S::RsaSize),
            (with(&rsa, &json!({"e": "AgAAAAE"})), S::RsaSize),
            (with(&rsa, &json!({"e": "AQAAAAAAAAAB"})), S::RsaSize),
            (with(&rsa, &json!({"alg": "RSA-OAEP"})), S::Algorithm),
            (with(&rsa, &json!({"alg": "none"})), S::Algorithm),
            (with(&rsa, &json!({"alg": "ES256"})), S::Algorithm),
            (with(&rsa, &json!({"alg": "HS256"})), S::Algorithm),
            (with(&ec, &json!({"alg": "ES384"})), S::Algorithm),
            (with(&ec, &json!({"crv": "P-521"})), S::Curve),
            (with(&ec, &json!({"crv": "secp256k1"})), S::Curve),
            (with(&ec, &json!({"crv": null})), S::Curve),
            (with(&ec, &json!({"crv": "P-384"})), S::Material),
            (with(&ec, &json!({"y": null})), S::Material),
            (with(&ec, &json!({"x": coordinate(31)})), S::Material),
            (with(&ed, &json!({"crv": "Ed448"})), S::Curve),
            (with(&ed, &json!({"crv": "X25519"})), S::Curve),
            (with(&ed, &json!({"x": coordinate(33)})), S::Material),
        ];
        for (jwk, reason) in rows {
            assert_eq!(parse_one(&jwk).err(), Some(reason), "{jwk}");
        }
    }

    #[test]
    fn an_odd_key_never_spoils_the_set() {
        let second = with(&ed_jwk(), &json!({"kid": "c"}));
        let json = json!({"keys": [null, rsa_jwk(), {"kty": "oct", "kid": "o"}, ec_jwk(), second]});
        let set = KeySet::parse(&json.to_string(), AT).unwrap();
        assert_eq!((set.len(), set.is_empty(), set.fetched_at()), (3, false, AT));
        let skipped: Vec<_> = set.skipped().iter().map(|s| (s.index, s.kid.as_deref())).collect();
        assert_eq!(skipped, [(0, None), (2, Some("o"))]);
        assert!(set.has_kid("c") && !set.has_kid("o"));
        assert_eq!(set.find(Some("c"), JwtAlgorithm::EdDSA).count(), 1);
        assert_eq!(set.find(Some("c"), JwtAlgorithm::RS256).count(), 0);
        assert_eq!(set.find(None, JwtAlgorithm::ES256).count(), 1);
        for key in set.keys() {
            assert!(set.contains(key.fingerprint()));
        }
        assert!(!set.contains(&[0; 32]));
    }

    #[test]
    fn what_is_no_key_set() {
        let many = json!({"keys": vec![json!({}); KeySet::KEYS_MAX + 1]}).to_string();
        let long = format!("{{\"keys\":[]}}{}", " ".repeat(KeySet::BYTES_MAX));
        let not_json = |line, column| KeySetError::NotJson { line, column };
        for (text, error) in [
            ("", not_json(1, 0)),
            ("<html>", not_json(1, 1)),
            ("{\"keys\":[]} x", not_json(1, 13)),
            ("{}", KeySetError::NotAKeySet),
            ("[]", KeySetError::NotAKeySet),
            ("{\"keys\":{}}", KeySetError::NotAKeySet),
            (&many, KeySetError::TooManyKeys),
            (&long, KeySetError::TooLong),
        ] {
            assert_eq!(KeySet::parse(text, AT).err(), Some(error));
        }
        assert!(KeySet::parse("{\"keys\":[]}", AT).unwrap().is_empty());
    }

    /// The example of RFC 7638 §3.1.
    #[test]
    fn fingerprints_are_thumbprints() {
        let n = concat!(
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1",
            "L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4",
            "QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbO",
            "pbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csF",
            "Cur-kEgU8awapJzKnqDKgw",
        );
        let jwk = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
        let thumbprint = URL_SAFE_NO_PAD.encode(parse_one(&jwk).unwrap().fingerprint());
        assert_eq!(thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        // The same number, written with a sign byte.
        let padded = [vec![0], URL_SAFE_NO_PAD.decode(n).unwrap()].concat();
        let padded = with(&jwk, &json!({"n": URL_SAFE_NO_PAD.encode(padded)}));
        let again = URL_SAFE_NO_PAD.encode(parse_one(&padded).unwrap().fingerprint());
        assert_eq!(again, thumbprint);
    }
}
