//! A small identity provider on loopback: discovery, a key set that tests can change, and tokens.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::Algorithm;
use latchkey::jose::TokenSigner;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::tls::Authority;

/// A signing key and its public JWK.
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    signer: TokenSigner,
}

impl Key {
    fn generate(kid: &str, algorithm: Algorithm) -> Self {
        Self { algorithm, signer: TokenSigner::generate(kid, algorithm).expect("a key") }
    }

    pub(crate) fn ed25519(kid: &str) -> Self {
        Self::generate(kid, Algorithm::EdDSA)
    }

    pub(crate) fn es256(kid: &str) -> Self {
        Self::generate(kid, Algorithm::ES256)
    }

    pub(crate) fn es384(kid: &str) -> Self {
        Self::generate(kid, Algorithm::ES384)
    }

    /// The RSA test key under `tests/fixtures`, for any of the six RSA algorithms.
    pub(crate) fn rsa(kid: &str, algorithm: Algorithm) -> Self {
        let pem = include_bytes!("../fixtures/rsa-2048-test-key.pem");
        let signer = TokenSigner::from_rsa_pem(kid, algorithm, pem).expect("an RSA key");
        Self { algorithm, signer }
    }

    pub(crate) fn jwk(&self) -> Value {
        self.signer.jwk().clone()
    }

    /// Signs `claims` under this key, with its `kid` in the header.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.signer.sign(claims).expect("a signature")
    }

    /// Signs under any header.
    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        self.signer.sign_parts(&header.to_string(), &claims.to_string()).expect("a signature")
    }
}

pub(crate) fn unix_now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "tokens need the real time")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// What the provider answers for its key set.
#[derive(Debug, Clone)]
pub(crate) enum KeySetAnswer {
    Keys(Vec<Value>),
    /// 500 to everything.
    Broken,
}

/// A running provider; its thread ends with the process.
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    issuer: String,
    answer: Arc<Mutex<KeySetAnswer>>,
    fetches: Arc<Mutex<usize>>,
}

impl Provider {
    pub(crate) fn start(keys: &[&Key]) -> Self {
        Self::serving(keys, None)
    }

    /// One that is asked by https, with a certificate of `authority`.
    pub(crate) fn start_tls(keys: &[&Key], authority: &Authority) -> Self {
        Self::serving(keys, Some(authority.issue(&["127.0.0.1"]).server()))
    }

    fn serving(keys: &[&Key], tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let jwks = keys.iter().map(|k| k.jwk()).collect();
        let answer = Arc::new(Mutex::new(KeySetAnswer::Keys(jwks)));
        let fetches = Arc::new(Mutex::new(0));
        let (shared, counter) = (Arc::clone(&answer), Arc::clone(&fetches));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let issuer = format!("{scheme}://{address}");
        let own = issuer.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                match &tls {
                    Some(config) => {
                        let connection = ServerConnection::new(Arc::clone(config)).expect("TLS");
                        serve(StreamOwned::new(connection, stream), &own, &shared, &counter);
                    }
                    None => serve(stream, &own, &shared, &counter),
                }
            }
        });
        Self { address, issuer, answer, fetches }
    }

    /// The `iss` of its tokens.
    pub(crate) fn issuer(&self) -> String {
        self.issuer.clone()
    }

    /// Claims of a token that is good for an hour.
    pub(crate) fn claims(&self) -> Value {
        let now = unix_now();
        json!({
            "iss": self.issuer(), "aud": "latchkey", "sub": "ada", "scope": "catalog:read",
            "iat": now, "exp": now + 3600,
        })
    }

    pub(crate) fn set(&self, answer: KeySetAnswer) {
        *self.answer.lock().expect("no panic under the lock") = answer;
    }

    pub(crate) fn set_keys(&self, keys: &[&Key]) {
        self.set(KeySetAnswer::Keys(keys.iter().map(|k| k.jwk()).collect()));
    }

    /// How often the key set was fetched.
    pub(crate) fn fetches(&self) -> usize {
        *self.fetches.lock().expect("no panic under the lock")
    }
}

fn serve(
    mut stream: impl Read + Write,
    issuer: &str,
    answer: &Mutex<KeySetAnswer>,
    fetches: &Mutex<usize>,
) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            Ok(_) | Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&bytes);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let current = answer.lock().expect("no panic under the lock").clone();
    let (status, body) = match (path, current) {
        (_, KeySetAnswer::Broken) => ("500 Internal Server Error", json!({})),
        ("/.well-known/openid-configuration", KeySetAnswer::Keys(_)) => (
            "200 OK",
            json!({
                "issuer": issuer, "jwks_uri": format!("{issuer}/jwks"),
            }),
        ),
        ("/jwks", KeySetAnswer::Keys(keys)) => {
            *fetches.lock().expect("no panic under the lock") += 1;
            ("200 OK", json!({ "keys": keys }))
        }
        (_, KeySetAnswer::Keys(_)) => ("404 Not Found", json!({})),
    };
    let body = body.to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.flush();
}
