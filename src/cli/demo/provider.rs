//! The demo's identity provider: `OpenID` Connect discovery, a key set, and signed tokens.
//!
//! Just enough of one to be checked against; nobody can sign in to it.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::loopback::{self, Loopback};
use crate::clock::Timestamp;
use crate::jose;

/// The audience its tokens name.
pub(super) const AUDIENCE: &str = "https://api.shop.example";

/// The name of its key.
const KID: &str = "demo-1";

/// Why a key or a token could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProviderError {
    /// ring refused.
    #[error("no signing key could be made")]
    Key,
    /// The token could not be signed.
    #[error("a token could not be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    /// The listener could not be opened.
    #[error("the identity provider could not listen on loopback: {0}")]
    Listen(#[from] io::Error),
}

/// An ES256 key pair.
pub(super) struct SigningKey {
    private: EncodingKey,
    public: [Vec<u8>; 2],
}

impl SigningKey {
    /// A new one.
    pub(super) fn generate() -> Result<Self, ProviderError> {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random);
        let pkcs8 = pkcs8.map_err(|_| ProviderError::Key)?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random);
        let pair = pair.map_err(|_| ProviderError::Key)?;
        // An uncompressed point: 4, x, y (SEC 1 §2.3.3).
        let point = pair.public_key().as_ref();
        let half = |from: usize| point.get(from..from + 32).map(<[u8]>::to_vec);
        let (x, y) = half(1).zip(half(33)).ok_or(ProviderError::Key)?;
        Ok(Self { private: EncodingKey::from_ec_der(pkcs8.as_ref()), public: [x, y] })
    }

    /// The public half as a JWK set (RFC 7517 §5).
    fn jwks(&self) -> Value {
        let [x, y] = self.public.each_ref().map(|half| URL_SAFE_NO_PAD.encode(half));
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KID, "x": x, "y": y,
        }]})
    }

    /// A token of `issuer` for `subject`, good until `expires_at`.
    pub(super) fn sign(
        &self,
        issuer: &str,
        subject: &str,
        expires_at: Timestamp,
    ) -> Result<String, ProviderError> {
        jose::install_provider();
        let header = Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::ES256) };
        let issued_at = expires_at.unix_s().saturating_sub(LIFETIME_S);
        let claims = json!({
            "iss": issuer,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": issued_at,
            "exp": expires_at.unix_s(),
            "scope": "search",
        });
        Ok(jsonwebtoken::encode(&header, &claims, &self.private)?)
    }
}

/// Between `iat` and `exp`, in seconds.
pub(super) const LIFETIME_S: u64 = 24 * 3600;

/// The running provider.
pub(super) struct Provider {
    key: Arc<SigningKey>,
    issuer: String,
    _server: Loopback,
}

impl Provider {
    /// Starts it on a free port of loopback.
    pub(super) async fn start() -> Result<Self, ProviderError> {
        let key = Arc::new(SigningKey::generate()?);
        // Its address is known only once it listens, and is part of what it answers.
        let issuer = Arc::new(OnceLock::<String>::new());
        let (served_key, served_issuer) = (Arc::clone(&key), Arc::clone(&issuer));
        let server = Loopback::serve(move |request| {
            let issuer = served_issuer.get().cloned().unwrap_or_default();
            std::future::ready(Ok(answer(&request, &issuer, &served_key)))
        })
        .await?;
        let url = issuer.get_or_init(|| format!("http://{}", server.address)).clone();
        Ok(Self { key, issuer: url, _server: server })
    }

    /// Its `iss`.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token for `subject`, good until `expires_at`.
    pub(super) fn sign(
        &self,
        subject: &str,
        expires_at: Timestamp,
    ) -> Result<String, ProviderError> {
        self.key.sign(&self.issuer, subject, expires_at)
    }
}

fn answer(request: &Request<Incoming>, issuer: &str, key: &SigningKey) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/.well-known/openid-configuration" => loopback::json(&json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/jwks.json"),
            "id_token_signing_alg_values_supported": ["ES256"],
        })),
        "/jwks.json" => loopback::json(&key.jwks()),
        _ => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::cli::http::exchange;

    async fn get(provider: &Provider, path: &str) -> (u16, Value) {
        let address = provider.issuer().strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let request = Request::get(path).header("host", address).body(Full::default()).unwrap();
        let response = exchange(stream, request).await.unwrap();
        let body = serde_json::from_slice(response.body()).unwrap_or_default();
        (response.status().as_u16(), body)
    }

    #[tokio::test]
    async fn discovery_leads_to_the_key_that_signs() {
        let provider = Provider::start().await.unwrap();
        let (status, document) = get(&provider, "/.well-known/openid-configuration").await;
        assert_eq!((status, document["issuer"].as_str()), (200, Some(provider.issuer())));
        let (status, jwks) = get(&provider, "/jwks.json").await;
        assert_eq!(status, 200);
        assert_eq!(get(&provider, "/").await.0, 404);

        let text = provider.sign("ada", Timestamp::from_unix_s(4_000_000_000)).unwrap();
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(jwks).unwrap();
        let key = jsonwebtoken::DecodingKey::from_jwk(&set.keys[0]).unwrap();
        let mut rules = jsonwebtoken::Validation::new(Algorithm::ES256);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[provider.issuer()]);
        let claims = jsonwebtoken::decode::<Value>(&text, &key, &rules).unwrap().claims;
        assert_eq!(claims["sub"], "ada");
    }
}
