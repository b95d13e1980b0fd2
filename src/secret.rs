//! Secrets that cannot be printed, and the keyed digests that stand in for them.
//!
//! No type here implements `Display`, `Serialize`, `PartialEq` or a telling `Debug`; every
//! comparison of secret material is constant-time; memory is wiped on drop. Reading a secret's
//! text takes a call to `expose`, so that every place that does can be found by that word.
//!
//! What a secret opens is not known here, and no file is read: `store` keeps the master key's,
//! `config` reads an issuer's.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom as _;
use ring::{aead, digest, hkdf, hmac};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// The operating system refused to give random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random number generator failed")]
pub struct EntropyError;

/// Where randomness comes from: the system in production, a seed in simulations.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError>;
}

/// The operating system's CSPRNG, by way of ring.
#[derive(Debug)]
pub struct SystemEntropy(ring::rand::SystemRandom);

impl SystemEntropy {
    /// The system's generator.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a source of entropy is not a default")]
    pub fn new() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        self.0.fill(bytes).map_err(|_| EntropyError)
    }
}

/// `N` random bytes.
pub fn random_bytes<const N: usize>(entropy: &dyn Entropy) -> Result<[u8; N], EntropyError> {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes)?;
    Ok(bytes)
}

/// Bytes of a secret: wiped on drop, never printed, compared only in constant time.
#[derive(Clone)]
pub struct SecretBytes<const N: usize>(Zeroizing<[u8; N]>);

impl<const N: usize> SecretBytes<N> {
    /// Takes over `bytes`.
    #[must_use]
    pub fn new(bytes: [u8; N]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for SecretBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A secret text (an API key, a widget token, an admin token) on its one way to its owner.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes over `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What is stored of a secret: HMAC-SHA-256(pepper, SHA-256(secret)). Useless without the master
/// key. Equality is constant-time.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// From the stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes: enough to find the candidate in a table. Being keyed, it tells an
    /// attacker who measures the table nothing about the secret.
    #[must_use]
    pub fn prefix(&self) -> u64 {
        let mut first = [0; 8];
        first.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        u64::from_be_bytes(first)
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

/// By the prefix alone: a table compares whole digests, in constant time, by `==`.
impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.prefix().hash(state);
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[digest]")
    }
}

/// The HMAC key under which secrets are digested; derived from the master key.
#[derive(Clone)]
pub struct Pepper(hmac::Key);

impl Pepper {
    /// From derived key bytes.
    #[must_use]
    pub fn new(key: &SecretBytes<32>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// HMAC-SHA-256(pepper, SHA-256(`secret`)). The inner hash lets keys be imported from a
    /// system that kept only their SHA-256.
    #[must_use]
    pub fn digest(&self, secret: &[u8]) -> Digest {
        self.digest_of_sha256(digest::digest(&digest::SHA256, secret).as_ref())
    }

    /// The same, from an already computed SHA-256.
    #[must_use]
    pub fn digest_of_sha256(&self, sha256: &[u8]) -> Digest {
        let tag = hmac::sign(&self.0, sha256);
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Digest(bytes)
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[pepper]")
    }
}

/// The HMAC key that links the entries of the audit log; derived from the master key.
#[derive(Clone)]
pub struct ChainKey(hmac::Key);

impl ChainKey {
    /// HMAC-SHA-256 over `parts`, one after the other. All but the last have a fixed length, so
    /// that no two sequences of parts are the same bytes.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let tag = context.sign();
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        bytes
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[chain key]")
    }
}

/// What a key derived from the master key is for; the HKDF `info` of each is distinct, so that
/// one derived key says nothing about another (RFC 5869 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Digests of API keys and admin tokens.
    Pepper,
    /// Sealing signing keys and key sets in the database.
    Sealing,
    /// Proving that a database and a master key belong together.
    Check,
    /// Dashboard sessions.
    Session,
    /// Hashing operators' passwords.
    Password,
    /// The chain of the audit log.
    Audit,
}

impl Purpose {
    fn info(self) -> &'static [u8] {
        match self {
            Self::Pepper => b"latchkey/v1/pepper",
            Self::Sealing => b"latchkey/v1/sealing",
            Self::Check => b"latchkey/v1/check",
            Self::Session => b"latchkey/v1/session",
            Self::Password => b"latchkey/v1/password",
            Self::Audit => b"latchkey/v1/audit",
        }
    }
}

/// The 32 random bytes everything else is derived from. Lives beside the database, never in it.
#[derive(Debug, Clone)]
pub struct MasterKey(SecretBytes<32>);

impl MasterKey {
    /// Length of the text form: base64url of 32 bytes, unpadded (RFC 4648 §5).
    pub const TEXT_BYTES: usize = 43;

    /// A fresh master key.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        random_bytes(entropy).map(|bytes| Self(SecretBytes::new(bytes)))
    }

    /// Parses the text form; surrounding ASCII white space is allowed. `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        let mut bytes = Zeroizing::new([0; 32]);
        if text.len() != Self::TEXT_BYTES {
            return None;
        }
        let n = URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut()).ok()?;
        (n == 32).then(|| Self(SecretBytes::new(*bytes)))
    }

    /// The text form, for the key's file.
    #[must_use]
    pub fn to_text(&self) -> SecretText {
        SecretText::new(URL_SAFE_NO_PAD.encode(self.0.expose()))
    }

    /// Derives the key for `purpose` by HKDF-SHA-256 (RFC 5869).
    #[must_use]
    pub fn derive(&self, purpose: Purpose) -> SecretBytes<32> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"latchkey");
        let mut key = Zeroizing::new([0; 32]);
        let info = [purpose.info()];
        // Both calls fail only for outputs over 255 blocks; this one is a single block.
        if let Ok(okm) = salt.extract(self.0.expose()).expand(&info, hkdf::HKDF_SHA256) {
            let filled = okm.fill(key.as_mut());
            debug_assert!(filled.is_ok());
        }
        SecretBytes::new(*key)
    }

    /// The pepper derived from this key.
    #[must_use]
    pub fn pepper(&self) -> Pepper {
        Pepper::new(&self.derive(Purpose::Pepper))
    }

    /// The key that chains the audit log, derived from this key.
    #[must_use]
    pub fn chain_key(&self) -> ChainKey {
        ChainKey(hmac::Key::new(hmac::HMAC_SHA256, self.derive(Purpose::Audit).expose()))
    }

    /// The sealing key derived from this key.
    #[must_use]
    pub fn sealer(&self) -> Sealer {
        Sealer(self.derive(Purpose::Sealing))
    }
}

/// A sealed value does not open: another master key, or altered bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed value does not open with this master key")]
pub struct UnsealError;

/// Seals small values for the database with ChaCha20-Poly1305 (RFC 8439) under a random nonce.
#[derive(Debug, Clone)]
pub struct Sealer(SecretBytes<32>);

impl Sealer {
    /// Seals `plain`; `context` (where the value belongs) is authenticated with it, so that one
    /// record's value cannot be moved to another.
    pub fn seal(
        &self,
        entropy: &dyn Entropy,
        context: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, EntropyError> {
        let nonce: [u8; aead::NONCE_LEN] = random_bytes(entropy)?;
        let key = self.key().ok_or(EntropyError)?;
        let mut sealed = plain.to_vec();
        let nonce_value = aead::Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce_value, aead::Aad::from(context), &mut sealed)
            .map_err(|_| EntropyError)?;
        let mut out = nonce.to_vec();
        out.append(&mut sealed);
        Ok(out)
    }

    /// Opens what [`Sealer::seal`] made with the same `context`.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        let (nonce, body) = sealed.split_at_checked(aead::NONCE_LEN).ok_or(UnsealError)?;
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| UnsealError)?;
        let key = self.key().ok_or(UnsealError)?;
        let mut buffer = Zeroizing::new(body.to_vec());
        let plain_len = key
            .open_in_place(nonce, aead::Aad::from(context), &mut buffer)
            .map_err(|_| UnsealError)?
            .len();
        buffer.truncate(plain_len);
        Ok(buffer)
    }

    fn key(&self) -> Option<aead::LessSafeKey> {
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, self.0.expose()).ok()?;
        Some(aead::LessSafeKey::new(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> MasterKey {
        MasterKey(SecretBytes::new([byte; 32]))
    }

    #[test]
    fn nothing_prints() {
        let shown = format!(
            "{:?} {:?} {:?} {:?}",
            master(7),
            SecretText::new("sk_hidden".into()),
            master(7).pepper(),
            master(7).pepper().digest(b"x"),
        );
        assert!(!shown.contains("hidden") && !shown.contains("7, 7"), "{shown}");
    }

    #[test]
    fn master_key_text_round_trips() {
        let key = MasterKey::generate(&SystemEntropy::new()).unwrap();
        let text = key.to_text();
        assert_eq!(text.expose().len(), MasterKey::TEXT_BYTES);
        let again = MasterKey::parse(&format!(" {}\n", text.expose())).unwrap();
        assert_eq!(again.0.expose(), key.0.expose());
        assert!(MasterKey::parse("short").is_none());
        assert!(MasterKey::parse(&"!".repeat(43)).is_none());
    }

    #[test]
    fn purposes_and_masters_derive_apart() {
        use Purpose::{Audit, Check, Pepper, Sealing, Session};
        let purposes = [Pepper, Sealing, Check, Session, Audit];
        let keys: Vec<[u8; 32]> =
            [1, 2].iter().flat_map(|m| purposes.map(|p| *master(*m).derive(p).expose())).collect();
        for (i, a) in keys.iter().enumerate() {
            assert!(keys.iter().skip(i + 1).all(|b| a != b));
            assert_ne!(*a, [0; 32]);
        }
    }

    #[test]
    fn sealed_values_open_only_in_their_place() {
        let entropy = SystemEntropy::new();
        let sealed = master(1).sealer().seal(&entropy, b"signing_keys/1", b"plain").unwrap();
        assert!(!sealed.windows(5).any(|w| w == b"plain"));
        let open = |m: u8, context: &[u8], bytes: &[u8]| {
            master(m).sealer().open(context, bytes).map(|p| p.to_vec())
        };
        assert_eq!(open(1, b"signing_keys/1", &sealed).unwrap(), b"plain");
        assert_eq!(open(1, b"signing_keys/2", &sealed), Err(UnsealError));
        assert_eq!(open(2, b"signing_keys/1", &sealed), Err(UnsealError));
        assert_eq!(open(1, b"signing_keys/1", b"short"), Err(UnsealError));
        let mut altered = sealed;
        altered[13] ^= 1;
        assert_eq!(open(1, b"signing_keys/1", &altered), Err(UnsealError));
    }
}
