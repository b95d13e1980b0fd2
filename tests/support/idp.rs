//! A small identity provider on loopback: discovery, a key set that tests can change, and tokens.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use serde_json::{Value, json};

/// A signing key and its public JWK.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
    encoding: EncodingKey,
    pub(crate) jwk: Value,
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Key {
    pub(crate) fn ed25519(kid: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key pair");
        let x = b64(pair.public_key().as_ref());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig"});
        let encoding = EncodingKey::from_ed_der(pkcs8.as_ref());
        Self { kid: kid.to_owned(), algorithm: Algorithm::EdDSA, encoding, jwk }
    }

    pub(crate) fn es256(kid: &str) -> Self {
        Self::ec(kid, Algorithm::ES256, &ECDSA_P256_SHA256_FIXED_SIGNING, "P-256", 32)
    }

    pub(crate) fn es384(kid: &str) -> Self {
        Self::ec(kid, Algorithm::ES384, &ECDSA_P384_SHA384_FIXED_SIGNING, "P-384", 48)
    }

    fn ec(
        kid: &str,
        algorithm: Algorithm,
        signing: &'static EcdsaSigningAlgorithm,
        crv: &str,
        size: usize,
    ) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(signing, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(signing, pkcs8.as_ref(), &random).expect("a pair");
        let public = pair.public_key().as_ref();
        let (x, y) = public[1..].split_at(size);
        let jwk = json!({"kty": "EC", "crv": crv, "x": b64(x), "y": b64(y), "kid": kid});
        let encoding = EncodingKey::from_ec_der(pkcs8.as_ref());
        Self { kid: kid.to_owned(), algorithm, encoding, jwk }
    }

    /// The RSA test key under `tests/fixtures`, for any of the six RSA algorithms.
    pub(crate) fn rsa(kid: &str, algorithm: Algorithm) -> Self {
        let pem = include_str!("../fixtures/rsa-2048-test-key.pem");
        let der = pem::parse(pem).expect("a PEM file");
        let pair = RsaKeyPair::from_pkcs8(der.contents()).expect("an RSA key");
        let (n, e) = (pair.public().modulus(), pair.public().exponent());
        let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
        let jwk = json!({"kty": "RSA", "n": b64(n), "e": b64(e), "kid": kid});
        let encoding = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("an RSA key");
        Self { kid: kid.to_owned(), algorithm, encoding, jwk }
    }

    /// Signs `claims` under this key, with `kid` in the header.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.clone());
        self.sign_with(&header, claims)
    }

    pub(crate) fn sign_with(&self, header: &Header, claims: &Value) -> String {
        latchkey::jose::install_provider();
        jsonwebtoken::encode(header, claims, &self.encoding).expect("a signature")
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
    answer: Arc<Mutex<KeySetAnswer>>,
    fetches: Arc<Mutex<usize>>,
}

impl Provider {
    pub(crate) fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let jwks = keys.iter().map(|k| k.jwk.clone()).collect();
        let answer = Arc::new(Mutex::new(KeySetAnswer::Keys(jwks)));
        let fetches = Arc::new(Mutex::new(0));
        let (shared, counter) = (Arc::clone(&answer), Arc::clone(&fetches));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, address, &shared, &counter);
            }
        });
        Self { address, answer, fetches }
    }

    /// The `iss` of its tokens.
    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.address)
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
        self.set(KeySetAnswer::Keys(keys.iter().map(|k| k.jwk.clone()).collect()));
    }

    /// How often the key set was fetched.
    pub(crate) fn fetches(&self) -> usize {
        *self.fetches.lock().expect("no panic under the lock")
    }
}

fn serve(
    mut stream: TcpStream,
    address: SocketAddr,
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
                "issuer": format!("http://{address}"), "jwks_uri": format!("http://{address}/jwks"),
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
}
