//! JOSE signatures on ring: the cryptography behind `jsonwebtoken`.
//!
//! `jsonwebtoken` ships without one here, so that the tree holds a single crypto library. This
//! module knows keys, algorithms and bytes; it knows neither tokens nor claims, and decides
//! nothing. Verification (RFC 7518 §3, RFC 8037 §3.1) is pure; signing draws randomness from the
//! system, which is why it does not live in `decision`.
//!
//! RSA keys have 2048 to 8192 bits, both ways; signatures by shorter keys never verify.

use std::fmt;
use std::sync::Once;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::{EllipticCurve, ThumbprintHash};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{
    self as ring_signature, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
    RsaEncoding, RsaKeyPair, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use ring::{digest, hmac};
use serde::Serialize;
use serde_json::{Value, json};

/// Makes ring the cryptography of every `jsonwebtoken` call of this process. Whoever signs or
/// verifies calls it first; further calls cost one atomic load. A `jsonwebtoken` function that
/// runs before it leaves the process without any cryptography for tokens, for good.
pub fn install_provider() {
    static INSTALL: Once = Once::new();
    // `install_default` fails only if a provider is in place already; nothing else in this crate
    // installs one, and a host application that did has chosen its own.
    INSTALL.call_once(|| {
        let installed = PROVIDER.install_default();
        debug_assert!(installed.is_ok(), "another provider is in place");
    });
}

/// A key that signs tokens as an identity provider does: for the demo's built-in provider, for
/// tests and benches. latchkey itself never signs a JWT it would accept.
pub struct TokenSigner {
    algorithm: Algorithm,
    key: EncodingKey,
    kid: String,
    jwk: Value,
}

impl TokenSigner {
    /// A fresh key for `ES256`, `ES384` or `EdDSA`, named `kid`.
    ///
    /// # Errors
    ///
    /// `UnsupportedAlgorithm` for any other (ring makes no RSA keys); `Signing` if the system
    /// gives no randomness.
    pub fn generate(kid: &str, algorithm: Algorithm) -> Result<Self, Error> {
        let random = SystemRandom::new();
        let pkcs8 = if algorithm == Algorithm::EdDSA {
            Ed25519KeyPair::generate_pkcs8(&random)
        } else if let Some((signing, _)) = ecdsa_signing(algorithm) {
            EcdsaKeyPair::generate_pkcs8(signing, &random)
        } else {
            return Err(ErrorKind::UnsupportedAlgorithm.into());
        }
        .map_err(|_| ErrorKind::Signing("no randomness from the system".into()))?;
        let (key, mut jwk) = if algorithm == Algorithm::EdDSA {
            let x = URL_SAFE_NO_PAD.encode(ed_components(pkcs8.as_ref(), &EllipticCurve::Ed25519)?);
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
            (EncodingKey::from_ed_der(pkcs8.as_ref()), jwk)
        } else {
            let (curve, x, y) = ec_components(pkcs8.as_ref(), algorithm)?;
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            let jwk = json!({"kty": "EC", "crv": curve, "x": x, "y": y});
            (EncodingKey::from_ec_der(pkcs8.as_ref()), jwk)
        };
        name_jwk(&mut jwk, kid, algorithm);
        Ok(Self { algorithm, key, kid: kid.to_owned(), jwk })
    }

    /// A signer with an RSA key in PEM (PKCS#8 or PKCS#1).
    ///
    /// # Errors
    ///
    /// `InvalidAlgorithm` if `algorithm` is not an RSA one, `InvalidRsaKey` or `InvalidKeyFormat`
    /// if `pem` holds no usable RSA key.
    pub fn from_rsa_pem(kid: &str, algorithm: Algorithm, pem: &[u8]) -> Result<Self, Error> {
        if algorithm.family() != AlgorithmFamily::Rsa {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        let key = EncodingKey::from_rsa_pem(pem)?;
        let (n, e) = rsa_components(key.as_bytes())?;
        let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
        let mut jwk = json!({"kty": "RSA", "n": n, "e": e});
        name_jwk(&mut jwk, kid, algorithm);
        Ok(Self { algorithm, key, kid: kid.to_owned(), jwk })
    }

    /// The public key as a JWK with `kid`, `alg` and `use` (RFC 7517 §4).
    #[must_use]
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// Signs `claims` under a header of `typ` `JWT`, the key's `alg` and `kid`.
    ///
    /// # Errors
    ///
    /// `Json` if `claims` cannot be written as JSON, `Signing` if the system gives no randomness.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        let claims = serde_json::to_string(claims)?;
        let header = json!({"alg": self.algorithm, "kid": self.kid, "typ": "JWT"});
        self.sign_parts(&header.to_string(), &claims)
    }

    /// Signs a header and claims as they are, whatever they say: attacks are written with it.
    ///
    /// # Errors
    ///
    /// `Signing` if the system gives no randomness.
    pub fn sign_parts(&self, header: &str, claims: &str) -> Result<String, Error> {
        install_provider();
        let (header, claims) = (URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let message = format!("{header}.{claims}");
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm)?;
        Ok(format!("{message}.{signature}"))
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSigner")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

fn name_jwk(jwk: &mut Value, kid: &str, algorithm: Algorithm) {
    if let Some(members) = jwk.as_object_mut() {
        members.insert("kid".into(), json!(kid));
        members.insert("alg".into(), json!(algorithm));
        members.insert("use".into(), json!("sig"));
    }
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| new_signer(*algorithm, key),
    verifier_factory: |algorithm, key| new_verifier(*algorithm, key),
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: rsa_components,
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::InvalidKeyFormat.into()),
        ec_pub_components_from_private_key: ec_components,
        ed_pub_components_from_private_key: ed_components,
        compute_digest: |data, hash| compute_digest(data, &hash),
    },
};

fn new_verifier(algorithm: Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(Box::new(RingVerifier { algorithm, key: key.clone() }))
}

fn new_signer(algorithm: Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(Box::new(RingSigner { algorithm, key: SigningKey::new(algorithm, key.as_bytes())? }))
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        match (hmac_algorithm(self.algorithm), self.key.kind()) {
            (Some(hmac_algorithm), DecodingKeyKind::SecretOrDer(secret)) => {
                let key = hmac::Key::new(hmac_algorithm, secret);
                hmac::verify(&key, message, signature)
            }
            (None, DecodingKeyKind::SecretOrDer(bytes)) => public_algorithm(self.algorithm)
                .ok_or(ring::error::Unspecified)
                .and_then(|a| UnparsedPublicKey::new(a, bytes).verify(message, signature)),
            (_, DecodingKeyKind::RsaModulusExponent { n, e }) => rsa_parameters(self.algorithm)
                .ok_or(ring::error::Unspecified)
                .and_then(|p| RsaPublicKeyComponents { n, e }.verify(p, message, signature)),
        }
        .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// A private key, parsed.
enum SigningKey {
    Hmac(hmac::Key),
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    fn new(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, Error> {
        if let Some(hmac_algorithm) = hmac_algorithm(algorithm) {
            return Ok(Self::Hmac(hmac::Key::new(hmac_algorithm, bytes)));
        }
        if let Some(encoding) = rsa_encoding(algorithm) {
            return Ok(Self::Rsa(Box::new(rsa_key_pair(bytes)?), encoding));
        }
        if let Some((signing, _)) = ecdsa_signing(algorithm) {
            return ecdsa_key_pair(signing, bytes).map(Self::Ecdsa);
        }
        if algorithm == Algorithm::EdDSA {
            return ed25519_key_pair(bytes).map(Self::Ed25519);
        }
        Err(ErrorKind::UnsupportedAlgorithm.into())
    }
}

struct RingSigner {
    algorithm: Algorithm,
    key: SigningKey,
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let random = SystemRandom::new();
        match &self.key {
            SigningKey::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            SigningKey::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*encoding, &random, message, &mut signature)
                    .map_err(|_| signature::Error::new())?;
                Ok(signature)
            }
            SigningKey::Ecdsa(key) => key
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| signature::Error::new()),
            SigningKey::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn hmac_algorithm(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    if algorithm.family() != AlgorithmFamily::Hmac {
        return None;
    }
    Some(if algorithm == Algorithm::HS256 {
        hmac::HMAC_SHA256
    } else if algorithm == Algorithm::HS384 {
        hmac::HMAC_SHA384
    } else {
        hmac::HMAC_SHA512
    })
}

/// How a signature by a public key in ring's own encoding verifies: RSA as a PKCS#1
/// `RSAPublicKey`, ECDSA as an uncompressed point, Ed25519 as its 32 bytes.
fn public_algorithm(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    match algorithm.family() {
        AlgorithmFamily::Hmac => None,
        AlgorithmFamily::Rsa => rsa_parameters(algorithm).map(|p| p as _),
        AlgorithmFamily::Ec if algorithm == Algorithm::ES256 => {
            Some(&ring_signature::ECDSA_P256_SHA256_FIXED)
        }
        AlgorithmFamily::Ec => Some(&ring_signature::ECDSA_P384_SHA384_FIXED),
        AlgorithmFamily::Ed => Some(&ring_signature::ED25519),
    }
}

/// The RSA algorithms, each way of using them: name, how to verify, how to sign.
type RsaRow = (Algorithm, &'static RsaParameters, &'static dyn RsaEncoding);

static RSA: [RsaRow; 6] = [
    (
        Algorithm::RS256,
        &ring_signature::RSA_PKCS1_2048_8192_SHA256,
        &ring_signature::RSA_PKCS1_SHA256,
    ),
    (
        Algorithm::RS384,
        &ring_signature::RSA_PKCS1_2048_8192_SHA384,
        &ring_signature::RSA_PKCS1_SHA384,
    ),
    (
        Algorithm::RS512,
        &ring_signature::RSA_PKCS1_2048_8192_SHA512,
        &ring_signature::RSA_PKCS1_SHA512,
    ),
    (Algorithm::PS256, &ring_signature::RSA_PSS_2048_8192_SHA256, &ring_signature::RSA_PSS_SHA256),
    (Algorithm::PS384, &ring_signature::RSA_PSS_2048_8192_SHA384, &ring_signature::RSA_PSS_SHA384),
    (Algorithm::PS512, &ring_signature::RSA_PSS_2048_8192_SHA512, &ring_signature::RSA_PSS_SHA512),
];

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    RSA.iter().find(|r| r.0 == algorithm).map(|r| r.1)
}

fn rsa_encoding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    RSA.iter().find(|r| r.0 == algorithm).map(|r| r.2)
}

fn ecdsa_signing(algorithm: Algorithm) -> Option<(&'static EcdsaSigningAlgorithm, EllipticCurve)> {
    if algorithm == Algorithm::ES256 {
        Some((&ring_signature::ECDSA_P256_SHA256_FIXED_SIGNING, EllipticCurve::P256))
    } else if algorithm == Algorithm::ES384 {
        Some((&ring_signature::ECDSA_P384_SHA384_FIXED_SIGNING, EllipticCurve::P384))
    } else {
        None
    }
}

/// From PKCS#1 (what `EncodingKey::from_rsa_pem` keeps of either form) or PKCS#8.
fn rsa_key_pair(der: &[u8]) -> Result<RsaKeyPair, Error> {
    RsaKeyPair::from_der(der)
        .or_else(|_| RsaKeyPair::from_pkcs8(der))
        .map_err(|why| ErrorKind::InvalidRsaKey(why.to_string()).into())
}

fn ecdsa_key_pair(
    signing: &'static EcdsaSigningAlgorithm,
    pkcs8: &[u8],
) -> Result<EcdsaKeyPair, Error> {
    EcdsaKeyPair::from_pkcs8(signing, pkcs8, &SystemRandom::new())
        .map_err(|_| ErrorKind::InvalidEcdsaKey.into())
}

/// From PKCS#8 version 1 (as OpenSSL writes it) or 2.
fn ed25519_key_pair(pkcs8: &[u8]) -> Result<Ed25519KeyPair, Error> {
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| ErrorKind::InvalidEddsaKey.into())
}

fn rsa_components(private_key: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let key = rsa_key_pair(private_key)?;
    let components = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
    Ok((components.n, components.e))
}

fn ec_components(
    private_key: &[u8],
    algorithm: Algorithm,
) -> Result<(EllipticCurve, Vec<u8>, Vec<u8>), Error> {
    let (signing, curve) = ecdsa_signing(algorithm).ok_or(ErrorKind::InvalidEcdsaKey)?;
    let key = ecdsa_key_pair(signing, private_key)?;
    // ring gives the uncompressed point: 0x04, then x and y of equal length (SEC 1 §2.3.3).
    let (_, point) = key.public_key().as_ref().split_first().ok_or(ErrorKind::InvalidEcdsaKey)?;
    let (x, y) = point.split_at(point.len() / 2);
    Ok((curve, x.to_vec(), y.to_vec()))
}

fn ed_components(private_key: &[u8], curve: &EllipticCurve) -> Result<Vec<u8>, Error> {
    if *curve != EllipticCurve::Ed25519 {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let key = ed25519_key_pair(private_key)?;
    Ok(key.public_key().as_ref().to_vec())
}

fn compute_digest(data: &[u8], hash: &ThumbprintHash) -> Result<Vec<u8>, Error> {
    let algorithm = if *hash == ThumbprintHash::SHA256 {
        &digest::SHA256
    } else if *hash == ThumbprintHash::SHA384 {
        &digest::SHA384
    } else if *hash == ThumbprintHash::SHA512 {
        &digest::SHA512
    } else {
        return Err(ErrorKind::UnsupportedAlgorithm.into());
    };
    Ok(digest::digest(algorithm, data).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA_PEM: &[u8] = include_bytes!("../tests/fixtures/rsa-2048-test-key.pem");

    const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

    /// An encoding key and every form of decoding key for an algorithm.
    fn keys(algorithm: Algorithm) -> (EncodingKey, Vec<DecodingKey>) {
        if HMAC.contains(&algorithm) {
            let secret = b"a shared secret of thirty-two byte";
            return (EncodingKey::from_secret(secret), vec![DecodingKey::from_secret(secret)]);
        }
        if algorithm.family() == AlgorithmFamily::Rsa {
            let key = EncodingKey::from_rsa_pem(RSA_PEM).unwrap();
            let (n, e) = rsa_components(key.as_bytes()).unwrap();
            let pair = rsa_key_pair(key.as_bytes()).unwrap();
            let der = DecodingKey::from_rsa_der(pair.public_key().as_ref());
            let components = DecodingKey::from_rsa_raw_components(&n, &e);
            return (key, vec![der, components]);
        }
        let signer = TokenSigner::generate("k", algorithm).unwrap();
        let jwk = serde_json::from_value(signer.jwk.clone()).unwrap();
        (signer.key, vec![DecodingKey::from_jwk(&jwk).unwrap()])
    }

    fn all() -> Vec<Algorithm> {
        let rsa = RSA.iter().map(|r| r.0);
        let others = [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
        rsa.chain(others).chain(HMAC).collect()
    }

    #[test]
    fn every_algorithm_signs_and_verifies_only_its_own() {
        install_provider();
        install_provider();
        let keys: Vec<_> = all().into_iter().map(|a| (a, keys(a))).collect();
        for (algorithm, (encoding, decoding)) in &keys {
            let signature = jsonwebtoken::crypto::sign(b"message", encoding, *algorithm).unwrap();
            let verify = |message: &[u8], key: &DecodingKey, algorithm: Algorithm| {
                jsonwebtoken::crypto::verify(&signature, message, key, algorithm).unwrap_or(false)
            };
            for key in decoding {
                assert!(verify(b"message", key, *algorithm), "{algorithm:?}");
                assert!(!verify(b"massage", key, *algorithm), "{algorithm:?}");
            }
            for (other, (_, decoding)) in keys.iter().filter(|k| k.0 != *algorithm) {
                for key in decoding {
                    assert!(!verify(b"message", key, *other), "{algorithm:?} {other:?}");
                    assert!(
                        !verify(b"message", key, *algorithm)
                            || other.family() == algorithm.family()
                    );
                }
            }
        }
    }

    #[test]
    fn unusable_keys_are_errors() {
        for algorithm in all() {
            let families = [
                EncodingKey::from_secret(b"x"),
                EncodingKey::from_rsa_der(b"x"),
                EncodingKey::from_ec_der(b""),
                EncodingKey::from_ed_der(&[0x30; 80]),
            ];
            for key in families.iter().filter(|k| k.family() != AlgorithmFamily::Hmac) {
                assert!(new_signer(algorithm, key).is_err(), "{algorithm:?}");
            }
            let bad = [
                DecodingKey::from_rsa_der(b"x"),
                DecodingKey::from_rsa_raw_components(b"", b""),
                DecodingKey::from_ec_der(&[4; 65]),
                DecodingKey::from_ec_der(&[4; 97]),
                DecodingKey::from_ed_der(&[0xff; 32]),
            ];
            for key in &bad {
                let verifies = new_verifier(algorithm, key)
                    .is_ok_and(|v| v.verify(b"message", &vec![0; 64]).is_ok());
                assert!(!verifies, "{algorithm:?}");
            }
        }
    }

    #[test]
    fn key_utilities_answer_or_refuse_but_never_panic() {
        let utils = &PROVIDER.key_utils;
        for bytes in [&b""[..], &[0x30], &[0x30; 200], RSA_PEM] {
            assert!((utils.rsa_pub_components_from_private_key)(bytes).is_err());
            assert!((utils.rsa_pub_components_from_public_key)(bytes).is_err());
            assert!(
                (utils.ed_pub_components_from_private_key)(bytes, &EllipticCurve::Ed25519).is_err()
            );
            for algorithm in all() {
                assert!((utils.ec_pub_components_from_private_key)(bytes, algorithm).is_err());
            }
        }
        for (hash, len) in [
            (ThumbprintHash::SHA256, 32),
            (ThumbprintHash::SHA384, 48),
            (ThumbprintHash::SHA512, 64),
        ] {
            assert_eq!((utils.compute_digest)(b"x", hash).unwrap().len(), len);
        }
    }

    #[test]
    fn signers_refuse_other_algorithms() {
        assert!(TokenSigner::generate("k", Algorithm::RS256).is_err());
        assert!(TokenSigner::generate("k", Algorithm::HS256).is_err());
        assert!(TokenSigner::from_rsa_pem("k", Algorithm::ES256, RSA_PEM).is_err());
        assert!(TokenSigner::from_rsa_pem("k", Algorithm::RS256, b"no key").is_err());
        let signer = TokenSigner::generate("k", Algorithm::EdDSA).unwrap();
        assert_eq!(format!("{signer:?}"), "TokenSigner { algorithm: EdDSA, kid: \"k\", .. }");
    }
}
