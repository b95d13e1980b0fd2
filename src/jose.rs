//! JOSE signatures on ring: the cryptography behind `jsonwebtoken`.
//!
//! `jsonwebtoken` ships without one here, so that the tree holds a single crypto library. This
//! module knows keys, algorithms and bytes; it knows neither tokens nor claims, and decides
//! nothing. Verification (RFC 7518 §3, RFC 8037 §3.1) is pure; signing draws randomness from the
//! system, which is why it does not live in `decision`.
//!
//! RSA keys have 2048 to 8192 bits, both ways; signatures by shorter keys never verify.

use std::sync::Once;

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

/// Makes ring the cryptography of every `jsonwebtoken` call of this process. Whoever signs or
/// verifies calls it first; further calls cost one atomic load.
pub fn install_provider() {
    static INSTALL: Once = Once::new();
    // `install_default` fails only if a provider is in place already; nothing else in this crate
    // installs one, and a host application that did has chosen its own.
    INSTALL.call_once(|| {
        let installed = PROVIDER.install_default();
        debug_assert!(installed.is_ok(), "another provider is in place");
    });
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
