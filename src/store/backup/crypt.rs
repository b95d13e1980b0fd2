//! Sealing chunks to a passphrase: argon2id makes the key, ChaCha20-Poly1305 seals each chunk
//! under its number, as STREAM does, so that none can be left out, moved or cut off.
//!
//! Every backup has a salt, and so a key, of its own: numbers serve as nonces.

use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::BackupError;
use crate::secret::{Entropy, SecretText, random_bytes};

/// Bytes by which a sealed chunk is longer.
pub(super) const TAG_BYTES: usize = 16;

/// More than this is not spent on a file that somebody brought along.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const ITERATIONS_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

/// What deriving the key from a passphrase costs (RFC 9106 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub iterations: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for KdfCost {
    /// The second recommended choice of RFC 9106 §4.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, iterations: 3, lanes: 4 }
    }
}

/// How a backup is sealed, as its header says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealing {
    kdf: Kdf,
    memory_kib: u32,
    iterations: u32,
    lanes: u32,
    salt: [u8; 16],
    cipher: Cipher,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kdf {
    Argon2id,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Cipher {
    Chacha20Poly1305,
}

impl Sealing {
    pub(super) fn new(cost: KdfCost, entropy: &dyn Entropy) -> Result<Self, BackupError> {
        Ok(Self {
            kdf: Kdf::Argon2id,
            memory_kib: cost.memory_kib,
            iterations: cost.iterations,
            lanes: cost.lanes,
            salt: random_bytes(entropy)?,
            cipher: Cipher::Chacha20Poly1305,
        })
    }

    /// The stream of chunks under a header whose digest is `header`.
    pub(super) fn stream(
        &self,
        passphrase: &SecretText,
        header: [u8; 32],
    ) -> Result<Stream, BackupError> {
        let Sealing { memory_kib, iterations, lanes, .. } = *self;
        if memory_kib > MEMORY_KIB_MAX || iterations > ITERATIONS_MAX || lanes > LANES_MAX {
            return Err(BackupError::KdfTooCostly);
        }
        let params = Params::new(memory_kib, iterations, lanes, Some(32));
        let params = params.map_err(|_| BackupError::KdfTooCostly)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose().as_bytes(), &self.salt, key.as_mut())
            .map_err(|_| BackupError::KdfTooCostly)?;
        // Fails only for a key of another length.
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref());
        let key = key.map_err(|_| BackupError::KdfTooCostly)?;
        Ok(Stream { key: LessSafeKey::new(key), header })
    }
}

/// Seals and opens the chunks of one backup.
pub(super) struct Stream {
    key: LessSafeKey,
    header: [u8; 32],
}

impl Stream {
    /// Seals `chunk`, the `number`th, in place.
    pub(super) fn seal(
        &self,
        number: u64,
        last: bool,
        chunk: &mut Vec<u8>,
    ) -> Result<(), BackupError> {
        let sealed =
            self.key.seal_in_place_append_tag(nonce(number, last), Aad::from(self.header), chunk);
        sealed.map_err(|_| BackupError::RowTooLarge { table: "backup" })
    }

    /// Opens `chunk`, the `number`th, in place.
    pub(super) fn open(
        &self,
        number: u64,
        last: bool,
        chunk: &mut Vec<u8>,
    ) -> Result<(), BackupError> {
        let opened = self.key.open_in_place(nonce(number, last), Aad::from(self.header), chunk);
        let len = opened.map_err(|_| BackupError::WrongPassphrase)?.len();
        chunk.truncate(len);
        Ok(())
    }
}

/// Seven bytes of the number suffice; the eighth byte of a `u64` is never reached.
fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    let parts = number.to_be_bytes().into_iter().chain([0, 0, 0, u8::from(last)]);
    bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    Nonce::assume_unique_for_key(bytes)
}
