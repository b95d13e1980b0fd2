//! An identity provider with a key of each kind, and one that shares a secret with latchkey.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use latchkey::decision::jwt::KeySet;
use latchkey::decision::policy::{Issuer, JwtAlgorithm};
use latchkey::id::Name;
use latchkey::secret::SecretText;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::json;

use super::NOW;

const ISSUER: &str = "https://id.example";
/// Of the provider that shares a secret.
const SHARING_ISSUER: &str = "https://shared.example";
const SECRET: &str = "a secret of more than thirty-two bytes";

/// Both providers, as latchkey is told of them.
pub(crate) fn issuers() -> [Issuer; 2] {
    use JwtAlgorithm::{ES256, ES384, EdDSA, HS256, PS256, RS256};
    let issuer = |text, iss: &str, algorithms: &[JwtAlgorithm]| Issuer {
        name: Name::parse(text).unwrap(),
        iss: iss.into(),
        audiences: vec!["search".into()],
        algorithms: algorithms.to_vec(),
        secret: None,
        leeway: Duration::from_secs(60),
        required_claims: Vec::new(),
        typ: Vec::new(),
        scope_claim: vec!["scope".into()],
        shop_claim: None,
        stale_max: Duration::from_secs(3600),
    };
    let own = issuer("id", ISSUER, &[RS256, PS256, ES256, ES384, EdDSA]);
    let sharing = issuer("shared", SHARING_ISSUER, &[HS256]);
    [own, Issuer { secret: Some(SecretText::new(SECRET.into())), ..sharing }]
}

/// The keys to sign with.
pub(crate) struct Provider {
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
    rsa: RsaKeyPair,
}

impl Provider {
    pub(crate) fn new() -> Self {
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self {
            p256: ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
            // ring does not make RSA keys; this one protects nothing.
            rsa: RsaKeyPair::from_pkcs8(include_bytes!("rsa_2048.pk8")).unwrap(),
        }
    }

    /// The public keys, each under the name of the algorithm it signs with.
    pub(crate) fn key_set(&self) -> KeySet {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let ec = |kid, curve, key: &EcdsaKeyPair| {
            let point = &key.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            json!({"kty": "EC", "crv": curve, "kid": kid, "x": text(x), "y": text(y)})
        };
        let parts = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let (n, e) = (text(&parts.n), text(&parts.e));
        let set = json!({"keys": [
            ec("ES256", "P-256", &self.p256),
            ec("ES384", "P-384", &self.p384),
            {"kty": "RSA", "kid": "RS256", "n": n, "e": e},
            {"kty": "RSA", "kid": "PS256", "n": n, "e": e},
            {"kty": "OKP", "crv": "Ed25519", "kid": "EdDSA",
             "x": text(self.ed25519.public_key().as_ref())},
        ]});
        KeySet::parse(&set.to_string(), NOW).unwrap()
    }

    /// A token that `subject` may search with for an hour.
    pub(crate) fn token(&self, algorithm: JwtAlgorithm, subject: &str) -> String {
        let name = format!("{algorithm:?}");
        let iss = if algorithm == JwtAlgorithm::HS256 { SHARING_ISSUER } else { ISSUER };
        let header = json!({"alg": name, "kid": name, "typ": "JWT"});
        let claims = json!({
            "iss": iss,
            "aud": "search",
            "sub": subject,
            "scope": "openid search",
            "iat": NOW.unix_s(),
            "exp": NOW.unix_s() + 3600,
        });
        let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn sign(&self, algorithm: JwtAlgorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(encoding, &random, message, &mut signature).unwrap();
            signature
        };
        let ecdsa = |key: &EcdsaKeyPair| key.sign(&random, message).unwrap().as_ref().to_vec();
        match algorithm {
            JwtAlgorithm::RS256 => rsa(&RSA_PKCS1_SHA256),
            JwtAlgorithm::PS256 => rsa(&RSA_PSS_SHA256),
            JwtAlgorithm::ES256 => ecdsa(&self.p256),
            JwtAlgorithm::ES384 => ecdsa(&self.p384),
            JwtAlgorithm::EdDSA => self.ed25519.sign(message).as_ref().to_vec(),
            JwtAlgorithm::HS256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
                hmac::sign(&key, message).as_ref().to_vec()
            }
            JwtAlgorithm::RS384
            | JwtAlgorithm::RS512
            | JwtAlgorithm::PS384
            | JwtAlgorithm::PS512
            | JwtAlgorithm::HS384
            | JwtAlgorithm::HS512 => {
                panic!("the provider does not use {name}", name = algorithm.as_str())
            }
        }
    }
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()
}
