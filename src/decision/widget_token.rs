//! Widget tokens (spec §2): opaque to clients, signed by latchkey's own keys.
//!
//! `lkw1_` and the base64url (RFC 4648 §5, no padding) of
//!
//! ```text
//! key id u32 | issued u64 | expires u64 | token id u128
//!     | n u8, shop [n] | m u8, scopes [m] | MAC [32]
//! ```
//!
//! big-endian, times in Unix milliseconds; the MAC is HMAC-SHA-256 over `lkw1_` and everything
//! before it. Decoding takes no heap. Which signing keys verify, and which tokens are revoked, is
//! the caller's knowledge.

use arrayvec::{ArrayString, ArrayVec};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::clock::Timestamp;
use crate::id::{NAME_BYTES_MAX, ShopId, TokenId};
use crate::secret::{SecretBytes, SecretText};

/// Says what the text is, and which version of the layout follows.
const PREFIX: &str = "lkw1_";
const MAC_BYTES: usize = 32;
const FIXED_BYTES: usize = 4 + 8 + 8 + 16;
/// Longest scope list of a token, in bytes.
pub const SCOPES_BYTES_MAX: usize = 127;
const BODY_BYTES_MAX: usize = FIXED_BYTES + 1 + NAME_BYTES_MAX + 1 + SCOPES_BYTES_MAX + MAC_BYTES;
/// Longest text of a token.
pub const TEXT_BYTES_MAX: usize = PREFIX.len() + BODY_BYTES_MAX.div_ceil(3) * 4;

/// A key that signs and verifies widget tokens.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// Its number, carried by every token it signs.
    pub id: u32,
    key: hmac::Key,
}

impl SigningKey {
    /// From its number and its 32 secret bytes.
    #[must_use]
    pub fn new(id: u32, secret: &SecretBytes<32>) -> Self {
        Self { id, key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose()) }
    }
}

/// What a widget token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WidgetToken {
    /// Its id, for revocation.
    pub id: TokenId,
    /// Its shop.
    pub shop: ShopId,
    /// Scopes, space-separated; `*` is every scope.
    pub scopes: ArrayString<SCOPES_BYTES_MAX>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// From this time on it is expired.
    pub expires_at: Timestamp,
}

/// Why a token does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenFailure {
    Malformed,
    UnknownKey,
    BadSignature,
    Expired,
}

/// Signs `token` with `key`.
#[must_use]
pub fn sign(token: &WidgetToken, key: &SigningKey) -> SecretText {
    let mut body = Vec::with_capacity(BODY_BYTES_MAX);
    body.extend(key.id.to_be_bytes());
    body.extend(token.issued_at.unix_ms().to_be_bytes());
    body.extend(token.expires_at.unix_ms().to_be_bytes());
    body.extend(token.id.0.to_be_bytes());
    for text in [token.shop.as_str(), token.scopes.as_str()] {
        // Both types bound their length below 128.
        body.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        body.extend(text.bytes());
    }
    let mac = mac(key, &body);
    body.extend(mac.as_ref());
    SecretText::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&body)))
}

/// Verifies `text`: form, signature, then expiry (spec §2.3).
pub(super) fn verify<'k>(
    text: &str,
    find: impl FnOnce(u32) -> Option<&'k SigningKey>,
    now: Timestamp,
) -> Result<WidgetToken, TokenFailure> {
    let mut buffer = [0; BODY_BYTES_MAX + 2];
    let body = decode(text, &mut buffer).ok_or(TokenFailure::Malformed)?;
    let (signed, tag) = body
        .len()
        .checked_sub(MAC_BYTES)
        .and_then(|at| body.split_at_checked(at))
        .ok_or(TokenFailure::Malformed)?;
    let (key_id, token) = parse(signed).ok_or(TokenFailure::Malformed)?;
    let key = find(key_id).ok_or(TokenFailure::UnknownKey)?;
    hmac::verify(&key.key, &message(signed), tag).map_err(|_| TokenFailure::BadSignature)?;
    if now >= token.expires_at {
        return Err(TokenFailure::Expired);
    }
    Ok(token)
}

fn mac(key: &SigningKey, signed: &[u8]) -> hmac::Tag {
    hmac::sign(&key.key, &message(signed))
}

/// What the MAC covers: the version too, so that a body is never read under another layout.
fn message(signed: &[u8]) -> ArrayVec<u8, { PREFIX.len() + BODY_BYTES_MAX }> {
    let mut message = ArrayVec::new();
    message.extend(PREFIX.bytes().chain(signed.iter().copied()).take(message.capacity()));
    message
}

fn decode<'b>(text: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let n = URL_SAFE_NO_PAD.decode_slice(text.strip_prefix(PREFIX)?, buffer).ok()?;
    buffer.get(..n)
}

/// One pass over the signed part; anything left over makes it malformed.
fn parse(signed: &[u8]) -> Option<(u32, WidgetToken)> {
    let mut rest = signed;
    let key_id = u32::from_be_bytes(take(&mut rest)?);
    let issued_at = Timestamp::from_unix_ms(u64::from_be_bytes(take(&mut rest)?));
    let expires_at = Timestamp::from_unix_ms(u64::from_be_bytes(take(&mut rest)?));
    let id = TokenId(u128::from_be_bytes(take(&mut rest)?));
    let shop = ShopId::parse(take_text(&mut rest)?).ok()?;
    let scopes = ArrayString::from(take_text(&mut rest)?).ok()?;
    rest.is_empty().then_some((key_id, WidgetToken { id, shop, scopes, issued_at, expires_at }))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let [n] = take(rest)?;
    let (text, tail) = rest.split_at_checked(usize::from(n))?;
    *rest = tail;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(id: u32) -> SigningKey {
        SigningKey::new(id, &SecretBytes::new([u8::try_from(id).unwrap(); 32]))
    }

    fn token(shop: &str, scopes: &str) -> WidgetToken {
        WidgetToken {
            id: TokenId(0x0102_0304),
            shop: ShopId::parse(shop).unwrap(),
            scopes: ArrayString::from(scopes).unwrap(),
            issued_at: Timestamp::from_unix_s(1000),
            expires_at: Timestamp::from_unix_s(2000),
        }
    }

    fn at(text: &str, known: &SigningKey, now_s: u64) -> Result<WidgetToken, TokenFailure> {
        let find = |id| (id == known.id).then_some(known);
        verify(text, find, Timestamp::from_unix_s(now_s))
    }

    #[test]
    fn signed_tokens_verify_until_they_expire() {
        for (shop, scopes) in
            [("demo", "*"), (&*"s".repeat(63), &*"x".repeat(SCOPES_BYTES_MAX)), ("a", "")]
        {
            let token = token(shop, scopes);
            let text = sign(&token, &key(3));
            assert!(text.expose().len() <= TEXT_BYTES_MAX);
            assert_eq!(at(text.expose(), &key(3), 1999), Ok(token.clone()));
            assert_eq!(at(text.expose(), &key(3), 2000), Err(TokenFailure::Expired));
        }
    }

    #[test]
    fn foreign_signatures_are_refused_before_expiry_is_looked_at() {
        let text = sign(&token("demo", "*"), &key(3));
        assert_eq!(at(text.expose(), &key(4), 9999), Err(TokenFailure::UnknownKey));
        let impostor = SigningKey::new(3, &SecretBytes::new([9; 32]));
        assert_eq!(at(text.expose(), &impostor, 9999), Err(TokenFailure::BadSignature));
    }

    #[test]
    fn malformed_tokens() {
        let good = sign(&token("demo", "*"), &key(3)).expose().to_owned();
        for bad in [
            String::new(),
            "lkw1_".into(),
            good.replace("lkw1_", "lkw2_"),
            good.replace("lkw1_", ""),
            format!("{good}="),
            format!("{good}{}", "A".repeat(TEXT_BYTES_MAX)),
            format!("lkw1_{}", "A".repeat(43)),
        ] {
            assert_eq!(at(&bad, &key(3), 1500), Err(TokenFailure::Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_altered_byte_verifies(position in 5usize..140, flip in 1u8..=255) {
            let good = sign(&token("demo", "search analytics"), &key(3));
            let mut bytes = good.expose().as_bytes().to_vec();
            prop_assume!(position < bytes.len());
            bytes[position] ^= flip;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(at(&text, &key(3), 1500).is_err());
            }
        }

        #[test]
        fn arbitrary_text_never_verifies(text in "\\PC{0,400}") {
            prop_assert!(at(&text, &key(3), 1500).is_err());
            let prefixed = format!("lkw1_{text}");
            prop_assert!(at(&prefixed, &key(3), 1500).is_err());
        }
    }
}
