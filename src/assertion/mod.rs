//! Assertions: short-lived signed statements that a request came through latchkey (spec §8).
//!
//! An assertion is a JWT (RFC 7519) signed with Ed25519 (RFC 8037). It says who called, for which
//! upstream, and which request it speaks of, so that whoever gets hold of one can use it for that
//! request, at that upstream, for some seconds, and for nothing else:
//!
//! | claim | value |
//! |---|---|
//! | `iss` | `assertion.issuer` |
//! | `aud` | the upstream's name in the configuration; [`FORWARD_AUTH`] for a proxy's question |
//! | `sub` | the JWT's subject, else the key's or token's id, else `anonymous` |
//! | `iat`, `exp` | Unix seconds, `assertion.lifetime` apart |
//! | `jti` | the request's id, as in `X-Request-Id` |
//! | `mechanism`, `shop_id`, `key_id` | as in the `X-Auth-…` fields |
//! | `subject_issuer` | the `iss` of the JWT that the subject is from |
//! | `scope` | granted scopes, space-separated (RFC 8693 §4.2) |
//! | `method`, `path` | as the upstream receives them, the path still encoded |
//! | `query_sha256` | SHA-256 of what follows the `?`, base64url |
//! | `client_address` | the client address |
//!
//! What does not apply is left out. The query is a digest because queries hold what should not be
//! in the logs of whoever prints claims. Bodies are not covered: they are forwarded as they come.
//!
//! `typ` is a type of its own (RFC 8725 §3.11): nobody who follows that rule takes an assertion for
//! an access token, or an identity provider's token for an assertion. `kid` is the key's thumbprint
//! (RFC 7638), so that no two keys of any two databases share a name. Signing draws no randomness
//! and takes some tens of microseconds; nothing is cached, since no two requests share a `jti`.
//!
//! Nothing here makes keys, keeps them or decides when they take turns: `admin` does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ring::digest;
use ring::error::KeyRejected;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Serialize;
use serde_json::json;

use crate::clock::Timestamp;
use crate::decision::principal::Principal;
use crate::id::{KeyId, ShopId, TokenId};
use crate::secret::SecretBytes;

/// `typ` of an assertion's header.
pub const TYP: &str = "latchkey-assertion+jwt";

/// `aud` of the assertion that answers a proxy's question.
pub const FORWARD_AUTH: &str = "forward-auth";

/// The longest [`Settings::lifetime`].
pub const LIFETIME_MAX: Duration = Duration::from_secs(300);

/// For how long whoever fetched the key set may use it without asking again: by then a new key
/// must have been published before it signs.
pub const KEY_SET_MAX_AGE: Duration = Duration::from_secs(300);

/// Bytes of claims besides those that callers choose.
const CLAIMS_BYTES: usize = 512;

/// What an operator sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `iss`.
    pub issuer: Box<str>,
    /// From `iat` to `exp`; at most [`LIFETIME_MAX`].
    pub lifetime: Duration,
}

/// A key that signs assertions when its turn has come.
#[derive(Debug)]
pub struct AssertionKey {
    kid: Box<str>,
    signs_from: Timestamp,
    /// The header, encoded, and the dot after it.
    header: Box<str>,
    jwk: serde_json::Value,
    pair: Ed25519KeyPair,
}

impl AssertionKey {
    /// From its seed (RFC 8032 §5.1.5) and its turn.
    ///
    /// # Errors
    ///
    /// None for a seed of this length.
    pub fn new(seed: &SecretBytes<32>, signs_from: Timestamp) -> Result<Self, KeyRejected> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose())?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let kid = thumbprint(&x);
        let header = json!({"alg": "EdDSA", "kid": kid, "typ": TYP}).to_string();
        let jwk = json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x,
        });
        Ok(Self {
            kid: kid.into(),
            signs_from,
            header: format!("{}.", URL_SAFE_NO_PAD.encode(header)).into(),
            jwk,
            pair,
        })
    }

    /// Its name in the key set and in assertions.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

/// The name of the public key `x` (RFC 7638 §3, RFC 8037 §2).
fn thumbprint(x: &str) -> String {
    let canonical = format!("{{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"{x}\"}}");
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()))
}

/// The keys there are, and whether assertions are asked for.
#[derive(Debug, Clone)]
pub struct Assertions {
    settings: Option<Settings>,
    /// In the order of their turns.
    keys: Arc<[Arc<AssertionKey>]>,
    key_set: Bytes,
}

impl Default for Assertions {
    fn default() -> Self {
        Self { settings: None, keys: Arc::new([]), key_set: key_set(&[]) }
    }
}

impl Assertions {
    /// Replaces what the operator set; `None`: no assertions.
    pub fn set_settings(&mut self, settings: Option<Settings>) {
        self.settings = settings;
    }

    /// Replaces the keys.
    pub fn set_keys(&mut self, keys: impl IntoIterator<Item = AssertionKey>) {
        let mut keys: Vec<_> = keys.into_iter().map(Arc::new).collect();
        keys.sort_by_key(|key| key.signs_from);
        self.key_set = key_set(&keys);
        self.keys = keys.into();
    }

    /// The public keys as a JWK set (RFC 7517 §5): also those whose turn is over or yet to come,
    /// also when no assertions are asked for.
    #[must_use]
    pub fn key_set(&self) -> Bytes {
        self.key_set.clone()
    }

    /// Who signs at `now`; `None` when no assertions are asked for.
    #[must_use]
    pub fn signer(&self, now: Timestamp) -> Option<Signer<'_>> {
        let settings = self.settings.as_ref()?;
        let turn_has_come = |key: &&Arc<AssertionKey>| key.signs_from <= now;
        // A clock that was set back may lie before every turn.
        let key = self.keys.iter().rfind(turn_has_come).or_else(|| self.keys.first())?;
        Some(Signer { settings, key, now })
    }
}

fn key_set(keys: &[Arc<AssertionKey>]) -> Bytes {
    let keys: Vec<_> = keys.iter().map(|key| &key.jwk).collect();
    json!({"keys": keys}).to_string().into()
}

/// What an assertion speaks of.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    /// Who called.
    pub principal: &'a Principal<'a>,
    /// Who the assertion is for: an upstream's name, or [`FORWARD_AUTH`].
    pub audience: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// The method.
    pub method: &'a str,
    /// The path as the upstream receives it.
    pub path: &'a str,
    /// What follows the `?`, if there is one.
    pub query: Option<&'a str>,
    /// The client address.
    pub client: IpAddr,
}

/// The key that signs now.
#[derive(Debug)]
pub struct Signer<'a> {
    settings: &'a Settings,
    key: &'a AssertionKey,
    now: Timestamp,
}

impl Signer<'_> {
    /// The assertion: visible ASCII, fit for a header field.
    ///
    /// # Errors
    ///
    /// None as long as claims can be written as JSON, which these can.
    pub fn sign(&self, statement: &Statement<'_>) -> Result<String, serde_json::Error> {
        let claims = Claims::new(self, statement);
        let mut json = Vec::with_capacity(CLAIMS_BYTES + statement.path.len());
        serde_json::to_writer(&mut json, &claims)?;
        let encoded = |bytes: usize| bytes.div_ceil(3) * 4;
        let bytes = self.key.header.len() + encoded(json.len()) + 1 + encoded(64);
        let mut token = String::with_capacity(bytes);
        token.push_str(&self.key.header);
        URL_SAFE_NO_PAD.encode_string(&json, &mut token);
        let signature = self.key.pair.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// The claims as they are written.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: Subject<'a>,
    iat: u64,
    exp: u64,
    jti: &'a str,
    mechanism: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shop_id: Option<&'a ShopId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<CredentialId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    scope: &'a str,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "base64url")]
    query_sha256: Option<digest::Digest>,
    client_address: IpAddr,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Subject<'a> {
    Text(&'a str),
    Credential(CredentialId),
}

#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
enum CredentialId {
    Key(KeyId),
    Token(TokenId),
}

impl<'a> Claims<'a> {
    fn new(signer: &Signer<'a>, statement: &Statement<'a>) -> Self {
        let principal = statement.principal;
        let (sub, key_id, subject_issuer) = match principal {
            Principal::WidgetToken { token, .. } => {
                let id = CredentialId::Token(token.id);
                (Subject::Credential(id), Some(id), None)
            }
            Principal::ShopApiKey { key, .. } => {
                let id = CredentialId::Key(key.id);
                (Subject::Credential(id), Some(id), None)
            }
            Principal::Jwt { token, issuer, .. } => {
                (Subject::Text(&token.subject), None, Some(&*issuer.iss))
            }
            Principal::Anonymous => (Subject::Text("anonymous"), None, None),
        };
        let iat = signer.now.unix_s();
        Self {
            iss: &signer.settings.issuer,
            aud: statement.audience,
            sub,
            iat,
            exp: iat.saturating_add(signer.settings.lifetime.as_secs()),
            jti: statement.request_id,
            mechanism: principal.mechanism().as_str(),
            shop_id: principal.shop(),
            key_id,
            subject_issuer,
            scope: principal.scopes(),
            method: statement.method,
            path: statement.path,
            query_sha256: statement.query.map(|q| digest::digest(&digest::SHA256, q.as_bytes())),
            client_address: statement.client,
        }
    }
}

#[expect(clippy::ref_option, reason = "serde's `serialize_with` passes a reference to the field")]
fn base64url<S: serde::Serializer>(
    bytes: &Option<digest::Digest>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_str(&URL_SAFE_NO_PAD.encode(bytes.as_ref().map_or(&[][..], AsRef::as_ref)))
}

#[cfg(test)]
mod tests;
