//! Codes of a second factor by time (RFC 6238): SHA-1, 30 seconds, six digits, as every
//! authenticator app knows them; and how an app is told the secret.
//!
//! Pure: which codes were used before is the caller's to keep.

use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use ring::hmac;
use subtle::ConstantTimeEq as _;

use crate::admin::percent::encoded;
use crate::clock::Timestamp;
use crate::secret::{SecretBytes, SecretText};
use crate::store::operators::TOTP_BYTES;

/// Seconds of a time step (RFC 6238 §5.2).
const STEP_S: u64 = 30;
/// Digits of a code.
const DIGITS: usize = 6;
/// Codes of so many steps before and after the present one are good: clocks differ, people type.
const STEPS_AROUND: u64 = 1;
/// The side of a QR code, in pixels of its own; it scales.
const QR_SIDE: u32 = 220;

/// The step that `code` is of, if it is one of those that are good `now` and lies after `last`,
/// the latest that was used.
pub(in crate::admin) fn accept(
    secret: &SecretBytes<TOTP_BYTES>,
    code: &str,
    now: Timestamp,
    last: Option<u64>,
) -> Option<u64> {
    let step = now.unix_s() / STEP_S;
    let steps = step.saturating_sub(STEPS_AROUND)..=step.saturating_add(STEPS_AROUND);
    // Every step is computed and compared, whichever it is.
    let mut found = None;
    for step in steps {
        let right: bool = code_at(secret, step).as_bytes().ct_eq(code.as_bytes()).into();
        if right && last.is_none_or(|last| step > last) {
            found = Some(step);
        }
    }
    found
}

/// Whether `text` has the form of a code.
pub(in crate::admin) fn is_code(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_digit())
}

/// The code of a step (RFC 4226 §5.3).
pub(in crate::admin) fn code_at(secret: &SecretBytes<TOTP_BYTES>, step: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose());
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let offset = tag.last().map_or(0, |last| usize::from(last & 0xf));
    let word = tag.get(offset..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
    let number = u32::from_be_bytes(word) & 0x7fff_ffff;
    format!("{:0DIGITS$}", number % 1_000_000)
}

/// The secret as an app takes it by hand: base32 (RFC 4648 §6) without padding.
pub(in crate::admin) fn base32(secret: &SecretBytes<TOTP_BYTES>) -> SecretText {
    SecretText::new(base32_of(secret.expose(), b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
}

/// `bytes` in base32, five bits a character; a multiple of five bytes.
pub(in crate::admin) fn base32_of(bytes: &[u8], alphabet: &[u8; 32]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for chunk in bytes.chunks(5) {
        let word = chunk.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        for place in (0..8).rev() {
            let index = usize::try_from(word >> (5 * place) & 31).unwrap_or_default();
            text.push(alphabet.get(index).map_or('?', |b| char::from(*b)));
        }
    }
    text
}

/// The secret as an app takes it by link: `otpauth://totp/…`.
pub(in crate::admin) fn uri(
    secret: &SecretBytes<TOTP_BYTES>,
    issuer: &str,
    account: &str,
) -> SecretText {
    let mut text = String::from("otpauth://totp/");
    text.push_str(&encoded(issuer));
    text.push_str("%3A");
    text.push_str(&encoded(account));
    text.push_str("?secret=");
    text.push_str(base32(secret).expose());
    text.push_str("&issuer=");
    text.push_str(&encoded(issuer));
    text.push_str("&algorithm=SHA1&digits=6&period=30");
    SecretText::new(text)
}

/// The link as a picture to point a phone at: an `svg` element, black on white. `None` if it does
/// not fit, which takes some two thousand characters.
pub(in crate::admin) fn qr(uri: &SecretText) -> Option<SecretText> {
    let code = QrCode::with_error_correction_level(uri.expose(), EcLevel::M).ok()?;
    let picture = code.render::<svg::Color<'_>>().min_dimensions(QR_SIDE, QR_SIDE).build();
    // Without the XML declaration: it stands inside a page.
    let element = picture.split_once("?>").map_or(picture.as_str(), |(_, element)| element);
    Some(SecretText::new(element.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238 appendix B, the last six digits of its eight.
    #[test]
    fn the_vectors_of_the_rfc() {
        let secret = SecretBytes::new(*b"12345678901234567890");
        for (at, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code_at(&secret, at / STEP_S), code, "{at}");
            let now = Timestamp::from_unix_s(at);
            assert_eq!(accept(&secret, code, now, None), Some(at / STEP_S));
        }
    }

    /// RFC 4226 appendix D.
    #[test]
    fn the_vectors_of_counters() {
        let secret = SecretBytes::new(*b"12345678901234567890");
        let codes = ["755224", "287082", "359152", "969429", "338314", "254676", "287922"];
        for (step, code) in (0..).zip(codes) {
            assert_eq!(code_at(&secret, step), code);
        }
    }

    #[test]
    fn a_code_is_good_for_one_step_around_and_once() {
        let secret = SecretBytes::new([7; 20]);
        let now = Timestamp::from_unix_s(3_000_015);
        let step = 100_000;
        for (of, good) in [(-2_i64, false), (-1, true), (0, true), (1, true), (2, false)] {
            let of = step + u64::try_from(of + 2).unwrap() - 2;
            let code = code_at(&secret, of);
            assert_eq!(accept(&secret, &code, now, None), good.then_some(of), "{of}");
            assert_eq!(accept(&secret, &code, now, Some(of)), None, "used before");
        }
        for bad in ["", "00000", "0000000", "abcdef", "12345\u{e9}"] {
            assert_eq!(accept(&secret, bad, now, None), None, "{bad:?}");
        }
    }

    #[test]
    fn apps_are_told_the_secret() {
        let secret = SecretBytes::new(*b"12345678901234567890");
        assert_eq!(base32(&secret).expose(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        let uri = uri(&secret, "latchkey", "a b@ex");
        assert_eq!(
            uri.expose(),
            "otpauth://totp/latchkey%3Aa%20b%40ex?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=latchkey&algorithm=SHA1&digits=6&period=30"
        );
        let qr = qr(&uri).unwrap();
        assert!(qr.expose().starts_with("<svg ") && qr.expose().ends_with("</svg>"));
        assert!(!qr.expose().contains("style="), "the page's policy has no inline style");
    }
}
