//! Shop API keys (spec §3): `sk_` and 32 lowercase hex digits.
//!
//! A key is looked up by its keyed digest and compared in constant time. Where keys are kept is
//! the snapshot's business.

use std::fmt::Write as _;

use super::principal::ApiKey;
use crate::clock::Timestamp;
use crate::secret::{Digest, Entropy, EntropyError, Pepper, SecretText, random_bytes};

/// Length of a key's text.
pub const API_KEY_BYTES: usize = 35;

/// How much of a key's text may be shown to tell keys apart: `sk_` and four digits.
pub const API_KEY_START_BYTES: usize = 7;

/// Why a key does not authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiKeyFailure {
    Malformed,
    Unknown,
    RotatedAway,
    Expired,
}

/// Mints a key of 128 random bits.
pub fn mint(entropy: &dyn Entropy) -> Result<SecretText, EntropyError> {
    let bytes: [u8; 16] = random_bytes(entropy)?;
    let mut text = String::with_capacity(API_KEY_BYTES);
    text.push_str("sk_");
    for byte in bytes {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(SecretText::new(text))
}

/// Whether `text` has the form of a key.
#[must_use]
pub fn is_well_formed(text: &str) -> bool {
    let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    text.len() == API_KEY_BYTES
        && text.strip_prefix("sk_").is_some_and(|digits| digits.bytes().all(lower_hex))
}

/// The key that `text` is, if it is one and still verifies at `now`. Unknown, revoked and those
/// of a deleted shop are the same case: `find` does not find them.
pub(super) fn authenticate<'a>(
    text: &str,
    pepper: &Pepper,
    find: impl FnOnce(&Digest) -> Option<&'a ApiKey>,
    now: Timestamp,
) -> Result<&'a ApiKey, ApiKeyFailure> {
    if !is_well_formed(text) {
        return Err(ApiKeyFailure::Malformed);
    }
    let digest = pepper.digest(text.as_bytes());
    // `Digest` compares in constant time; `find` only narrowed the candidates.
    let key = find(&digest).filter(|key| key.digest == digest).ok_or(ApiKeyFailure::Unknown)?;
    if key.grace_until.is_some_and(|until| now >= until) {
        return Err(ApiKeyFailure::RotatedAway);
    }
    if key.expires_at.is_some_and(|at| now >= at) {
        return Err(ApiKeyFailure::Expired);
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SystemEntropy;

    #[test]
    fn minted_keys_are_well_formed_and_distinct() {
        let entropy = SystemEntropy::new();
        let (a, b) = (mint(&entropy).unwrap(), mint(&entropy).unwrap());
        assert!(is_well_formed(a.expose()), "{}", a.expose());
        assert_ne!(a.expose(), b.expose());
    }

    #[test]
    fn forms() {
        let good = format!("sk_{}", "0a".repeat(16));
        assert!(is_well_formed(&good));
        for bad in [
            String::new(),
            good.to_uppercase(),
            format!("sk-{}", "0a".repeat(16)),
            format!("sk_{}", "0A".repeat(16)),
            format!("{good}0"),
            format!("sk_{}g", "0".repeat(31)),
            good.replace("sk", " s"),
        ] {
            assert!(!is_well_formed(&bad), "{bad}");
        }
    }
}
