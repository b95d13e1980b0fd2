//! The dashboard's small cookies: what a form is bound to before there is a session, and a
//! message for the next page. The session's own cookie is not made here.

use axum::http::HeaderMap;
use axum::http::header::{COOKIE, HeaderValue};

/// Binds the forms of whoever has no session yet.
pub(super) const FORM: &str = "latchkey-form";
/// A message for the next page.
pub(super) const FLASH: &str = "latchkey-flash";

/// Most bytes of `Cookie` that are looked at.
const COOKIE_BYTES_MAX: usize = 8192;

/// The name of a cookie. Where the dashboard is reached by https, it carries the prefix that
/// keeps other hosts of the domain from setting it (RFC 6265bis §4.1.3.2).
pub(super) fn name(base: &str, secure: bool) -> String {
    if secure { format!("__Host-{base}") } else { base.to_owned() }
}

/// The value of the cookie `name`; `None` if there is none or more than one.
pub(super) fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let pairs = fields.filter(|field| field.len() <= COOKIE_BYTES_MAX).flat_map(|f| f.split(';'));
    let mut found = pairs
        .filter_map(|pair| pair.trim_matches([' ', '\t']).split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// `Set-Cookie` for a cookie that no script reads and no other site sends; `age_s` zero removes.
/// `value` consists of letters, digits, `-` and `_`.
pub(super) fn set(name: &str, value: &str, secure: bool, age_s: u32) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let text =
        format!("{name}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::try_from(text).ok()
}
