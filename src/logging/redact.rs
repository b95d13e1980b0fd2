//! Secrets that got into a line of the log, masked by what they look like.
//!
//! No event is given a secret on purpose; but a caller may put one where it does not belong, in a
//! path, and a library may quote a header in an error. So the last thing before a line is written
//! is this: API keys, admin tokens, widget tokens, JWTs and the values of `Bearer` and `Basic`
//! are cut short, whatever field they are in, in either format. Of a key and an admin token the
//! first four characters stay, as the CLI shows them; of the others only what kind they are.
//!
//! It knows forms, not secrets: what is percent-encoded, or split over two fields, passes.

use std::borrow::Cow;

use memchr::{memchr3, memmem};

/// Stands for what was cut out.
const MASK: &[u8] = "…".as_bytes();

/// Characters of a key or an admin token that stay; `key list` shows as many.
const SHOWN: usize = 4;
/// Shorter than this after its prefix, nothing is a secret of ours: `sk_3f9a…` stays as it is.
const SECRET_CHARS_MIN: usize = 8;
/// The shortest header of a JWT is longer.
const JWT_HEADER_CHARS_MIN: usize = 12;
/// How the header of a JWT begins: `{"` in base64url, or `{` and a space or a new line.
const JWT_STARTS: [&[u8]; 5] = [b"eyJ", b"eyA", b"ewo", b"ew0", b"ewk"];
/// Credentials of schemes shorter than this are words.
const CREDENTIALS_CHARS_MIN: usize = 4;
/// Parameters of a challenge, which follow `Bearer` too.
const CHALLENGE_PARAMETERS: [&[u8]; 3] = [b"realm=", b"error=", b"scope="];

/// What of a line is cut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    from: usize,
    to: usize,
}

/// `line` without the secrets in it; the line itself if there is none.
pub(super) fn redact(line: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Vec<u8> = Vec::new();
    // What was copied or cut, and from where on to look.
    let (mut done, mut at) = (0, 0);
    // Every secret has one of these at a place that can be looked around from: `sk_`, `a.b.c`,
    // `Bearer x`.
    while let Some(found) = memchr3(b'_', b'.', b' ', line.get(at..).unwrap_or_default()) {
        let anchor = at + found;
        at = anchor + 1;
        if let Some(cut) = cut(line, done, anchor) {
            out.extend_from_slice(line.get(done..cut.from).unwrap_or_default());
            out.extend_from_slice(MASK);
            (done, at) = (cut.to, cut.to);
        }
    }
    if done == 0 {
        return Cow::Borrowed(line);
    }
    out.extend_from_slice(line.get(done..).unwrap_or_default());
    Cow::Owned(out)
}

/// What to cut out because of the byte at `anchor`; looks back no further than `floor`.
fn cut(line: &[u8], floor: usize, anchor: usize) -> Option<Cut> {
    let before = line.get(floor..anchor)?;
    let after = line.get(anchor + 1..)?;
    let kept = match line.get(anchor)? {
        b'_' => token(before, after)?,
        b'.' => return jwt(before, after, anchor),
        _ => return credentials(before, after, anchor),
    };
    let end = run(after, is_token);
    (end >= SECRET_CHARS_MIN).then_some(Cut { from: anchor + 1 + kept, to: anchor + 1 + end })
}

/// How many characters stay of a token whose prefix ends `before`.
fn token(before: &[u8], after: &[u8]) -> Option<usize> {
    if before.ends_with(b"sk") {
        // Hexadecimal: `task_completed` is none.
        return (run(after, |b| b.is_ascii_hexdigit()) >= SECRET_CHARS_MIN).then_some(SHOWN);
    }
    if before.ends_with(b"lka") {
        return Some(SHOWN);
    }
    before.ends_with(b"lkw1").then_some(0)
}

/// Three parts with dots between, the first of which begins as the JSON of a header does.
fn jwt(before: &[u8], after: &[u8], anchor: usize) -> Option<Cut> {
    let header = before.iter().rev().take_while(|b| is_token(**b)).count();
    let header_at = before.len() - header;
    let header = before.get(header_at..)?;
    let starts = JWT_STARTS.iter().filter_map(|start| Some((memmem::find(header, start)?, start)));
    let (start, found) = starts.min_by_key(|(at, _)| *at)?;
    if header.len() - start < JWT_HEADER_CHARS_MIN {
        return None;
    }
    let claims = run(after, is_token);
    if claims == 0 || after.get(claims) != Some(&b'.') {
        return None;
    }
    let end = run(after, |b| is_token(b) || b == b'.');
    let start = anchor - header.len() + start;
    Some(Cut { from: start + found.len(), to: anchor + 1 + end })
}

/// What follows the name of a scheme.
fn credentials(before: &[u8], after: &[u8], anchor: usize) -> Option<Cut> {
    let word = before.iter().rev().take_while(|b| b.is_ascii_alphanumeric()).count();
    if !is_scheme(before.get(before.len() - word..)?) {
        return None;
    }
    let spaces = run(after, |b| b == b' ');
    let value = after.get(spaces..)?;
    let end = run(value, |b| is_token(b) || matches!(b, b'.' | b'~' | b'+' | b'/' | b'='));
    let word = value.get(..end)?;
    let is_word = CHALLENGE_PARAMETERS.contains(&word) || is_scheme(word);
    if end < CREDENTIALS_CHARS_MIN || is_word {
        return None;
    }
    Some(Cut { from: anchor + 1 + spaces, to: anchor + 1 + spaces + end })
}

fn is_scheme(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"bearer") || word.eq_ignore_ascii_case(b"basic")
}

/// How many bytes of `bytes`, from its start, are all `of` a kind.
fn run(bytes: &[u8], of: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|b| of(**b)).count()
}

/// What base64url, hexadecimal and our own ids are written in.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "sk_0123456789abcdef0123456789abcdef";
    const JWT: &str = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLWE_b-Rva2Vu";
    const WIDGET: &str = "lkw1_AAAAAQAAAY8xK3hAAAABjzF1-AAAAAAAAAAAAAAAAAAAAA_BZGVtbw";
    const ADMIN: &str = "lka_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn redacted(line: &str) -> String {
        String::from_utf8(redact(line.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn what_looks_like_a_secret_is_cut() {
        for (line, expected) in [
            (KEY.to_owned(), "sk_0123…"),
            (format!("path=/v1/{KEY}/x"), "path=/v1/sk_0123…/x"),
            (format!(r#"{{"path":"/{KEY}","a":1}}"#), r#"{"path":"/sk_0123…","a":1}"#),
            // Whatever hangs on to it.
            (format!("{KEY}00-_x,"), "sk_0123…,"),
            ("x=sk_0123456789ABCDEF".into(), "x=sk_0123…"),
            (format!("{KEY} {KEY}"), "sk_0123… sk_0123…"),
            (format!("token={WIDGET} x"), "token=lkw1_… x"),
            (format!("token={ADMIN} x"), "token=lka_0011… x"),
            (format!("token={JWT} x"), "token=eyJ… x"),
            (format!("{JWT}.more.parts!"), "eyJ…!"),
            ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.".into(), "eyJ…"),
            ("ewogImFsZyI6ICJIUzI1NiJ9.e30.AAAA".into(), "ewo…"),
            (format!("Authorization: Bearer {JWT}"), "Authorization: Bearer …"),
            (format!("Authorization: bearer   {KEY};"), "Authorization: bearer   …;"),
            ("Bearer Bearer 0123456789".into(), "Bearer Bearer …"),
            ("Basic dXNlcjpwYXNzd29yZA==\"".into(), "Basic …\""),
            ("\"Basic dTpwYQ==\" Bearer mF_9.B5f-4.1JqM".into(), "\"Basic …\" Bearer …"),
        ] {
            assert_eq!(redacted(&line), expected);
        }
    }

    #[test]
    fn everything_else_stays() {
        for line in [
            "",
            "_",
            "sk_",
            "sk_3f9a…",
            "sk_completed_in_time",
            "task_id=4 disk_space=9 risk_assessment",
            "key_id=0011aabb request_id=0123456789abcdef0123456789abcdef",
            "lkw1_…",
            "www.example.com 127.0.0.1:8080 1.2.3",
            "eyJ.a.b",
            "eyJhbGciOiJub25lIn0.only-two",
            "eyewitnesses.example.com",
            r#"www-authenticate: Bearer realm="latchkey", error="invalid_token""#,
            "a Basic or a Bearer",
            "forbearer something",
            "2026-01-01T00:00:00Z  INFO latchkey::refusal: request refused code=\"not_found\"",
        ] {
            assert_eq!(redacted(line), line);
            assert!(matches!(redact(line.as_bytes()), Cow::Borrowed(_)), "{line}");
        }
    }

    /// Text that a line may hold around a secret.
    fn around() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,30}[ \"=/:,{}]",
            Just(String::new()),
            Just("Bearer ".to_owned()),
            Just(format!("{JWT} ")),
            Just("a.b_c.eyJ.".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn no_secret_survives_whatever_is_around_it(
            before in around(),
            secret in prop_oneof![
                "sk_[0-9a-f]{32}", "lkw1_[A-Za-z0-9_-]{90,200}", "lka_[0-9a-f]{64}",
                "eyJ[A-Za-z0-9_-]{20,60}\\.eyJ[A-Za-z0-9_-]{20,60}\\.[A-Za-z0-9_-]{43}",
                "Bearer [A-Za-z0-9._~+/-]{20,60}", "Basic [A-Za-z0-9+/]{20,40}={0,2}",
            ],
            after in prop_oneof![Just(String::new()), "[\" ,;}/?&][ -~]{0,30}"],
        ) {
            let line = format!("{before}{secret}{after}");
            let out = redacted(&line);
            // No twelve characters of it in a row, besides those of its kind.
            let tail = &secret.as_bytes()[9..];
            for window in tail.windows(12) {
                prop_assert!(memmem::find(out.as_bytes(), window).is_none(), "{line} -> {out}");
            }
            prop_assert!(after.len() < 2 || out.len() > 2);
            prop_assert_eq!(redacted(&out), out);
        }

        #[test]
        fn any_bytes_do(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let out = redact(&line).into_owned();
            prop_assert!(out.len() <= line.len() + MASK.len() * line.len());
        }

        #[test]
        fn words_stay(words in prop::collection::vec("[a-z]{1,12}", 0..12)) {
            let line = words.join("_");
            prop_assume!(!line.contains("sk_") && !line.contains("lka_"));
            prop_assert_eq!(redacted(&line), line);
        }
    }
}
