//! Reading one cookie of a request (RFC 6265 §5.4 as servers see it: `name=value; name=value`).
//!
//! The name is compared exactly, and one that comes twice is refused: another site on a parent
//! domain, or a page on another port, may have added the second, and which of the two a browser
//! sends first is not ours to rely on. Values are not decoded.

use http::HeaderMap;
use http::header::COOKIE;

/// Most bytes of all `Cookie` fields that are looked at; browsers keep to 4 KiB a cookie, and
/// whoever sends more is not served by name.
const COOKIES_BYTES_MAX: usize = 16 * 1024;

/// The value of the cookie `name`. `None` if there is none, if there are two, or if the fields are
/// longer than anyone's.
#[must_use]
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut bytes = 0_usize;
    let mut found = None;
    for field in headers.get_all(COOKIE) {
        bytes = bytes.saturating_add(field.len());
        if bytes > COOKIES_BYTES_MAX {
            return None;
        }
        // Bytes beyond ASCII are no cookie of ours, but may be one of somebody else's beside it.
        for pair in field.as_bytes().split(|byte| *byte == b';') {
            let Some(value) = value_of(pair, name) else { continue };
            if found.is_some() {
                return None;
            }
            found = Some(value);
        }
    }
    found.and_then(|value| std::str::from_utf8(value).ok()).filter(|value| value.is_ascii())
}

/// The value of `pair`, if its name is `name`. What has no `=` has no name.
fn value_of<'p>(pair: &'p [u8], name: &str) -> Option<&'p [u8]> {
    let (given, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
    let value = value.strip_prefix(b"=")?;
    (trimmed(given) == name.as_bytes()).then(|| trimmed(value))
}

/// Without spaces and tabs around it: user agents send one space, others none or several.
fn trimmed(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(fields: &[&[u8]], name: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        cookie(&headers, name).map(str::to_owned)
    }

    #[test]
    fn cookies() {
        let long = format!("a=1; x={}", "y".repeat(COOKIES_BYTES_MAX));
        for (fields, expected) in [
            (&["a=1"][..], Some("1")),
            (&["b=2; a=1; c=3"], Some("1")),
            (&["b=2;a=1"], Some("1")),
            (&["b=2;  a = 1 "], Some("1")),
            (&["b=2", "a=1"], Some("1")),
            (&["a=1=2"], Some("1=2")),
            (&["a="], Some("")),
            (&["a=\"1\""], Some("\"1\"")),
            (&["a=1; a=2"], None),
            (&["a=1; a=1"], None),
            (&["a=1", "a=2"], None),
            (&["a=; a=1"], None),
            (&["A=1"], None),
            (&["aa=1; ba=2; a2=3"], None),
            (&["x=a=1"], None),
            (&["a"], None),
            (&["=a=1"], None),
            (&[""], None),
            (&[], None),
            (&["b=\"; a=1; \""], Some("1")),
            (&[&*long], None),
        ] {
            let bytes: Vec<&[u8]> = fields.iter().map(|field| field.as_bytes()).collect();
            assert_eq!(read(&bytes, "a").as_deref(), expected, "{fields:?}");
        }
        assert_eq!(read(&[b"z=\xff; a=1"], "a").as_deref(), Some("1"));
        assert_eq!(read(&[b"a=\xff"], "a"), None);
        assert_eq!(read(&[b"__Host-a=1; a=2"], "__Host-a").as_deref(), Some("1"));
    }

    proptest! {
        /// Whatever stands around it, the cookie is found as it was set, and never when it is
        /// there twice.
        #[test]
        fn a_cookie_is_found_once(
            before in proptest::collection::vec(("[b-z]{1,8}", "[!-:<-~]{0,12}"), 0..6),
            after in proptest::collection::vec(("[b-z]{1,8}", "[!-:<-~]{0,12}"), 0..6),
            value in "[A-Za-z0-9_-]{0,43}",
        ) {
            let own = ("a".to_owned(), value.clone());
            let spelt = |cookies: Vec<(String, String)>| {
                let pairs = cookies.iter().map(|(name, value)| format!("{name}={value}"));
                pairs.collect::<Vec<_>>().join("; ")
            };
            let mut cookies = before.clone();
            cookies.push(own.clone());
            cookies.extend(after);
            prop_assert_eq!(read(&[spelt(cookies.clone()).as_bytes()], "a"), Some(value));
            cookies.push(own);
            prop_assert_eq!(read(&[spelt(cookies).as_bytes()], "a"), None);
        }

        #[test]
        fn nothing_panics(
            field in proptest::collection::vec(any::<u8>(), 0..200),
            name in ".{0,8}",
        ) {
            if HeaderValue::from_bytes(&field).is_ok() {
                let _ = read(&[&field], &name);
            }
        }
    }
}
