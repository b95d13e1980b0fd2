//! The records the database holds: plain values and their encoding, one version byte and JSON.
//!
//! Records are not the types other modules work with: they say what was stored, and only fields
//! may be added to them (with a default), unless the version byte moves. They judge nothing;
//! whether a key still verifies is decided elsewhere. JSON, because a database that misbehaves is
//! read by people, and 100,000 keys decode in a fraction of a second.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{AdminTokenId, KeyId, Name, ShopId, TokenId};
use crate::secret::{Digest, SecretBytes};

/// The record encoding this build writes, and the only one there has been.
const RECORD_VERSION: u8 = 1;

/// Why stored bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing was stored under the key, not even the version byte.
    #[error("it is empty")]
    Empty,
    /// The version byte is one this build does not know.
    #[error("its encoding has version {0}, this build knows {RECORD_VERSION}")]
    Version(u8),
    /// The version is known and the rest does not parse. Holds no stored text: it may be secret.
    #[error("it does not parse (line {line}, column {column})")]
    Malformed {
        /// Line in the JSON text.
        line: usize,
        /// Column in the JSON text.
        column: usize,
    },
}

/// A value with one stored form.
pub trait Record: Serialize + DeserializeOwned {
    /// The bytes to store.
    ///
    /// # Errors
    ///
    /// JSON cannot hold it; none of the records here has such a value.
    fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = Vec::with_capacity(256);
        bytes.push(RECORD_VERSION);
        serde_json::to_writer(&mut bytes, self)?;
        Ok(bytes)
    }

    /// The value of stored bytes.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
        if *version != RECORD_VERSION {
            return Err(DecodeError::Version(*version));
        }
        serde_json::from_slice(body)
            .map_err(|error| DecodeError::Malformed { line: error.line(), column: error.column() })
    }
}

/// A limit that overrides a configured policy for one shop or one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitRecord {
    /// The policy it overrides.
    pub policy: Name,
    /// Requests per window; at least 1.
    pub limit: u32,
    /// The window, in seconds; at least 1.
    pub window_s: u64,
    /// Requests that may come at once; `None` for the policy's own.
    pub burst: Option<u32>,
}

/// A shop: the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShopRecord {
    /// Its id, as it stands in paths.
    pub id: ShopId,
    /// What people call it.
    pub name: String,
    /// Its site; origins are compared with this (spec §3.4).
    pub url: String,
    /// Further origins its widget may run on (spec §2.5).
    pub widget_origins: Vec<String>,
    /// Whether its credentials are accepted at all.
    pub enabled: bool,
    /// Widget tokens issued before this are refused.
    #[serde(with = "unix_ms")]
    pub tokens_valid_from: Timestamp,
    /// Limits of its own.
    pub limits: Vec<LimitRecord>,
    /// When it was made.
    #[serde(with = "unix_ms")]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[serde(with = "unix_ms")]
    pub updated_at: Timestamp,
    /// Counts its changes, for `ETag` and `If-Match`.
    pub revision: u64,
}

/// A shop API key. A revoked key is deleted, so there is no field for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its public id.
    pub id: KeyId,
    /// The shop it belongs to.
    pub shop: ShopId,
    /// What people call it.
    pub name: String,
    /// What is kept of the secret.
    #[serde(with = "digest_text")]
    pub digest: Digest,
    /// The secret's first characters, for people to recognize it by, such as `sk_3f9a`.
    pub start: String,
    /// When it was made.
    #[serde(with = "unix_ms")]
    pub created_at: Timestamp,
    /// When it stops verifying; `None` for never.
    #[serde(with = "unix_ms_option")]
    pub expires_at: Option<Timestamp>,
    /// After a rotation: until when this, the old key, still verifies.
    #[serde(with = "unix_ms_option")]
    pub grace_until: Option<Timestamp>,
    /// After a rotation: the key that took its place.
    pub replaced_by: Option<KeyId>,
    /// Source networks it may be used from; empty for any.
    pub networks: Vec<ipnet::IpNet>,
    /// Limits of its own.
    pub limits: Vec<LimitRecord>,
    /// When it last verified, to the precision of the batches that write it.
    #[serde(with = "unix_ms_option")]
    pub last_used_at: Option<Timestamp>,
    /// Counts its changes, for `ETag` and `If-Match`; being used is none.
    pub revision: u64,
}

/// A widget token that was issued. The token itself is not kept: it carries its own proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its public id.
    pub id: TokenId,
    /// The shop it belongs to.
    pub shop: ShopId,
    /// Its scopes, separated by spaces.
    pub scopes: String,
    /// When it was issued.
    #[serde(with = "unix_ms")]
    pub issued_at: Timestamp,
    /// When it stops verifying.
    #[serde(with = "unix_ms")]
    pub expires_at: Timestamp,
    /// When it was revoked, if it was.
    #[serde(with = "unix_ms_option")]
    pub revoked_at: Option<Timestamp>,
    /// Who had it issued: a key id, an admin token id, …
    pub issued_by: String,
}

/// A key that signs widget tokens. Sealed in the database.
#[derive(Debug, Clone)]
pub struct SigningKeyRecord {
    /// Its number, as tokens carry it.
    pub id: u32,
    /// The key.
    pub key: SecretBytes<32>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it only verifies; `None` for the one that signs.
    pub retired_at: Option<Timestamp>,
    /// The latest expiry of any token it signed: after this a retired key can go.
    pub last_expiry: Timestamp,
}

/// A key that signs assertions. Sealed in the database.
#[derive(Debug, Clone)]
pub struct AssertionKeyRecord {
    /// Its number; what upstreams know it by is derived from the key.
    pub id: u32,
    /// The seed of the key pair (RFC 8032 §5.1.5).
    pub seed: SecretBytes<32>,
    /// When it was made, and so published.
    pub created_at: Timestamp,
    /// From when on it signs, until another's turn comes.
    pub signs_from: Timestamp,
}

/// A token for the admin plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminTokenRecord {
    /// Its public id.
    pub id: AdminTokenId,
    /// What people call it.
    pub name: String,
    /// What is kept of the secret.
    #[serde(with = "digest_text")]
    pub digest: Digest,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    #[serde(with = "unix_ms")]
    pub created_at: Timestamp,
    /// When it stops verifying; `None` for never.
    #[serde(with = "unix_ms_option")]
    pub expires_at: Option<Timestamp>,
    /// When it last verified, to the precision of the batches that write it.
    #[serde(with = "unix_ms_option")]
    pub last_used_at: Option<Timestamp>,
    /// The names of the permissions that it has of its role; `None`: all of them.
    #[serde(default)]
    pub scopes: Option<BTreeSet<String>>,
    /// The shops that it sees; `None`: all of them.
    #[serde(default)]
    pub shops: Option<BTreeSet<ShopId>>,
}

/// What an operator may do. Ordered by trust: each but the viewer, who changes nothing, may do all
/// that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees and manages some shops.
    Member,
    /// Looks.
    Viewer,
    /// Changes shops, keys and tokens.
    Operator,
    /// Changes operators too.
    Owner,
}

/// Not a [`Role`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a role: `member`, `viewer`, `operator` or `owner`")]
pub struct RoleError;

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Member, Self::Viewer, Self::Operator, Self::Owner];

    /// The role as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Owner => "owner",
        }
    }

    /// Parses `text`; [`RoleError`] if it is not a role.
    pub fn parse(text: &str) -> Result<Self, RoleError> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or(RoleError)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::parse(text)
    }
}

/// An issuer's last good key set, so that a restart does not need the issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySetRecord {
    /// The issuer's name in the configuration.
    pub issuer: Name,
    /// The key set as it was fetched, JSON (RFC 7517 §5).
    pub jwks: String,
    /// Where it was fetched from: keys of one provider say nothing about tokens of another that
    /// took over its name in the configuration.
    #[serde(default)]
    pub source: String,
    /// When it was fetched.
    #[serde(with = "unix_ms")]
    pub fetched_at: Timestamp,
}

/// What a creation under an `Idempotency-Key` made, so that its repetition makes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// A digest of the request: the same idempotency key with another request is a conflict.
    pub fingerprint: [u8; 32],
    /// The path of what was made.
    pub resource: String,
    /// When it was made.
    #[serde(with = "unix_ms")]
    pub created_at: Timestamp,
}

/// A [`SigningKeyRecord`] as stored: its key sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SealedSigningKey {
    pub(super) id: u32,
    #[serde(with = "bytes_text")]
    pub(super) sealed: Vec<u8>,
    #[serde(with = "unix_ms")]
    pub(super) created_at: Timestamp,
    #[serde(with = "unix_ms_option")]
    pub(super) retired_at: Option<Timestamp>,
    #[serde(with = "unix_ms")]
    pub(super) last_expiry: Timestamp,
}

/// An [`AssertionKeyRecord`] as stored: its seed sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SealedAssertionKey {
    pub(super) id: u32,
    #[serde(with = "bytes_text")]
    pub(super) sealed: Vec<u8>,
    #[serde(with = "unix_ms")]
    pub(super) created_at: Timestamp,
    #[serde(with = "unix_ms")]
    pub(super) signs_from: Timestamp,
}

impl Record for ShopRecord {}
impl Record for KeyRecord {}
impl Record for TokenRecord {}
impl Record for SealedSigningKey {}
impl Record for SealedAssertionKey {}
impl Record for AdminTokenRecord {}
impl Record for KeySetRecord {}
impl Record for IdempotencyRecord {}

/// Timestamps in milliseconds: their text form keeps only seconds.
pub(super) mod unix_ms {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::clock::Timestamp;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` passes a reference")]
    pub(in crate::store) fn serialize<S: Serializer>(
        at: &Timestamp,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_u64(at.unix_ms())
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Timestamp, D::Error> {
        u64::deserialize(from).map(Timestamp::from_unix_ms)
    }
}

/// The same, for what may be missing.
mod unix_ms_option {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::clock::Timestamp;

    #[expect(clippy::ref_option, reason = "serde's `with` passes a reference to the field")]
    pub(in crate::store) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(Timestamp::unix_ms).serialize(to)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Timestamp::from_unix_ms))
    }
}

/// Bytes as base64url.
pub(super) mod bytes_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::store) fn serialize<S: Serializer>(
        bytes: &[u8],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let bytes = URL_SAFE_NO_PAD.decode(text.as_bytes());
        bytes.map_err(|_| serde::de::Error::custom("not base64url"))
    }
}

/// Digests as base64url.
pub(super) mod digest_text {
    use serde::{Deserializer, Serializer};

    use crate::secret::Digest;

    pub(in crate::store) fn serialize<S: Serializer>(
        digest: &Digest,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        super::bytes_text::serialize(digest.as_bytes(), to)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Digest, D::Error> {
        let bytes = super::bytes_text::deserialize(from)?;
        let bytes = <[u8; 32]>::try_from(bytes);
        let bytes = bytes.map_err(|_| serde::de::Error::custom("not a digest"))?;
        Ok(Digest::from_bytes(bytes))
    }
}

/// Digests, one after the other, as one base64url text.
pub(super) mod digest_texts {
    use serde::{Deserializer, Serializer};

    use crate::secret::Digest;

    pub(in crate::store) fn serialize<S: Serializer>(
        digests: &[Digest],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = digests.iter().flat_map(|digest| *digest.as_bytes()).collect();
        super::bytes_text::serialize(&bytes, to)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Digest>, D::Error> {
        let bytes = super::bytes_text::deserialize(from)?;
        let (whole, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("not digests"));
        }
        Ok(whole.iter().map(|bytes| Digest::from_bytes(*bytes)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::super::testing;
    use super::*;

    fn round_trip<R: Record + Debug>(record: &R) {
        let bytes = record.encode().unwrap();
        let again = R::decode(&bytes).unwrap();
        assert_eq!(format!("{again:?}"), format!("{record:?}"));
        assert_eq!(again.encode().unwrap(), bytes);
    }

    #[test]
    fn records_round_trip_to_the_millisecond() {
        round_trip(&testing::shop("one"));
        round_trip(&testing::key(u64::MAX, "one"));
        round_trip(&testing::token(u128::MAX, "one", 5));
        round_trip(&testing::admin_token(7));
        round_trip(&testing::key_set("main"));
        round_trip(&testing::made(u64::MAX));
        let key = testing::key(200, "one");
        assert_eq!(KeyRecord::decode(&key.encode().unwrap()).unwrap(), key);
    }

    /// What an earlier build stored, byte by byte: this text may never change.
    #[test]
    fn records_of_encoding_1_are_read() {
        let shop = concat!(
            "\u{1}",
            r#"{"id":"one","name":"One","url":"https://one.example","widget_origins":[],"#,
            r#""enabled":true,"tokens_valid_from":1,"limits":[{"policy":"p","limit":2,"#,
            r#""window_s":60,"burst":null}],"created_at":3,"updated_at":4,"revision":5}"#
        );
        let shop = ShopRecord::decode(shop.as_bytes()).unwrap();
        assert_eq!((shop.limits[0].limit, shop.revision), (2, 5));
        let key = concat!(
            "\u{1}",
            r#"{"id":"key_00000000000000ab","shop":"one","name":"n","#,
            r#""digest":"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM","start":"sk_3f9a","#,
            r#""created_at":5,"expires_at":6,"grace_until":null,"replaced_by":null,"#,
            r#""networks":["10.0.0.0/8"],"limits":[],"last_used_at":null,"revision":1}"#
        );
        let key = KeyRecord::decode(key.as_bytes()).unwrap();
        assert_eq!(key.digest, Digest::from_bytes([3; 32]));
        assert_eq!(key.expires_at, Some(Timestamp::from_unix_ms(6)));
        let key = "\u{1}{\"id\":7,\"sealed\":\"AwMD\",\"created_at\":5,\"signs_from\":6}";
        let key = SealedAssertionKey::decode(key.as_bytes()).unwrap();
        assert_eq!((key.id, key.sealed.as_slice()), (7, &[3; 3][..]));
        assert_eq!(key.signs_from, Timestamp::from_unix_ms(6));
    }

    #[test]
    fn other_bytes_are_refused_and_not_repeated() {
        let mut future = testing::shop("one").encode().unwrap();
        future[0] = 2;
        assert_eq!(ShopRecord::decode(&future), Err(DecodeError::Version(2)));
        assert_eq!(ShopRecord::decode(b""), Err(DecodeError::Empty));
        let digest = testing::key(1, "one").encode().unwrap();
        for len in 1..digest.len() {
            let error = KeyRecord::decode(&digest[..len]).unwrap_err();
            assert!(matches!(error, DecodeError::Malformed { .. }), "{error}");
        }
        let text = String::from_utf8(digest).unwrap();
        let whole = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
        assert!(text.contains(whole));
        let bytes = text.replace(whole, "c2VjcmV0").into_bytes();
        let error = KeyRecord::decode(&bytes).unwrap_err().to_string();
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }

    #[test]
    fn roles_are_ordered_and_spelt_one_way() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Owner);
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        for bad in ["", "Owner", "admin", "owner "] {
            assert_eq!(bad.parse::<Role>(), Err(RoleError), "{bad:?}");
        }
    }
}
