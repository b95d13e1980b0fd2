//! The dashboard's cookies: the session's, what a form is bound to before there is one, and a
//! message for the next page.

use axum::http::header::HeaderValue;

/// The session.
pub(super) const SESSION: &str = "latchkey";
/// Binds the forms of whoever has no session yet.
pub(super) const FORM: &str = "latchkey-form";
/// A message for the next page.
pub(super) const FLASH: &str = "latchkey-flash";

/// The name of a cookie. Where the dashboard is reached by https, it carries the prefix that
/// keeps other hosts of the domain from setting it (RFC 6265bis §4.1.3.2).
pub(super) fn name(base: &str, secure: bool) -> String {
    if secure { format!("__Host-{base}") } else { base.to_owned() }
}

/// `Set-Cookie` for a cookie that no script reads and no other site sends. It goes after `age_s`
/// seconds, at once if that is zero, with the browser if there is none. `value` consists of
/// letters, digits, `-` and `_`.
pub(super) fn set(
    name: &str,
    value: &str,
    secure: bool,
    age_s: Option<u32>,
) -> Option<HeaderValue> {
    made(name, value, "Strict", secure, age_s)
}

/// The same for a cookie that has to be there when another site sends the browser back here.
pub(super) fn set_for_return(
    name: &str,
    value: &str,
    secure: bool,
    age_s: u32,
) -> Option<HeaderValue> {
    made(name, value, "Lax", secure, Some(age_s))
}

fn made(
    name: &str,
    value: &str,
    same_site: &str,
    secure: bool,
    age_s: Option<u32>,
) -> Option<HeaderValue> {
    let age = age_s.map_or_else(String::new, |age_s| format!("; Max-Age={age_s}"));
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/{age}; HttpOnly; SameSite={same_site}{secure}");
    HeaderValue::try_from(text).ok().map(|mut cookie| {
        cookie.set_sensitive(true);
        cookie
    })
}
