//! The small grammars of single values: durations, sizes, scopes, URLs; and values as TOML.
//!
//! Every function that refuses says what to write instead. Nothing here reads a file.

use std::time::Duration;

use figment::value::Value;
use http::Uri;
use http::uri::Authority;

use super::upstream::Endpoint;
use crate::decision::origin::Scheme;

/// The most characters of a value that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

const SECOND: Duration = Duration::from_secs(1);

/// How a message repeats what was written.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => quote(text),
        Value::Char(_, c) => quote(&c.to_string()),
        Value::Bool(..) | Value::Num(..) => render(value),
        Value::Empty(..) => "nothing".into(),
        Value::Dict(..) => "a table".into(),
        Value::Array(..) => "a list".into(),
    }
}

/// `text` in quotes, shortened, control characters escaped.
pub(super) fn quote(text: &str) -> String {
    let head: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let more = if head.len() < text.len() { "…" } else { "" };
    format!("\"{}{more}\"", escape(&head))
}

/// `value` as TOML, on one line.
pub(super) fn render(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("\"{}\"", escape(text)),
        Value::Char(_, c) => format!("\"{}\"", escape(&c.to_string())),
        Value::Bool(_, yes) => yes.to_string(),
        Value::Num(_, number) => match integer(value) {
            Some(integer) => integer.to_string(),
            None => format!("{:?}", number.to_f64().unwrap_or_default()),
        },
        Value::Empty(..) => "\"\"".into(),
        Value::Array(_, items) => {
            let items: Vec<String> = items.iter().map(render).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Dict(_, entries) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{} = {}", render_key(key), render(value))
            };
            let pairs: Vec<String> = entries.iter().map(pair).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// `key` as a TOML key: bare where it can be.
pub(super) fn render_key(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !key.is_empty() && key.bytes().all(bare) {
        key.to_owned()
    } else {
        format!("\"{}\"", escape(key))
    }
}

/// `value` as an integer, if it is one.
pub(super) fn integer(value: &Value) -> Option<i128> {
    let unsigned = || value.to_u128().and_then(|n| i128::try_from(n).ok());
    value.to_i128().or_else(unsigned)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            '\r' => escaped.push_str("\\r"),
            c if c.is_control() => escaped.extend(unicode_escape(c)),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `\u` and four digits; no control character has more.
fn unicode_escape(c: char) -> impl Iterator<Item = char> {
    let digit = move |shift: u32| char::from_digit(u32::from(c) >> shift & 0xf, 16);
    let digits = [12, 8, 4, 0].into_iter().filter_map(digit);
    ['\\', 'u'].into_iter().chain(digits)
}

/// A whole number of `ms`, `s`, `m`, `h` or `d`, as in `250ms`; `None` if it is anything else, or
/// too long to count in milliseconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// `duration` in the largest unit that is exact.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    match units.iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".into(),
        None => format!("{ms}ms"),
    }
}

/// A whole number of bytes, `KiB`, `MiB` or `GiB`, as in `"16KiB"`.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// `bytes` in the largest unit that is exact.
pub(super) fn show_bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit))
}

/// A scope that a route can ask for (RFC 6749 §3.3).
pub(super) fn parse_scope(text: &str) -> Result<Box<str>, String> {
    let allowed = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if text == "*" {
        return Err("`*` is what a credential holds to have every scope; name one scope".into());
    }
    if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
        return Err(format!(
            "{} is not a scope: 1 to 64 visible ASCII characters without \" and \\",
            quote(text)
        ));
    }
    Ok(text.into())
}

/// An endpoint of an upstream, by its URL.
pub(super) fn parse_upstream(text: &str) -> Result<Endpoint, String> {
    const EXAMPLE: &str = "write e.g. \"http://127.0.0.1:9000\"";
    if text.contains('@') {
        // Not repeated: what stands before an @ may be a password.
        return Err(format!("a URL with user information is not accepted; {EXAMPLE}"));
    }
    let not_url = || format!("{} is not an http or https URL; {EXAMPLE}", quote(text));
    let (scheme, rest) = text.split_once("://").ok_or_else(not_url)?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(not_url()),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err(format!("{} has a path; requests keep their own, so {EXAMPLE}", quote(text)));
    }
    let authority: Authority = rest.parse().map_err(|_| not_url())?;
    if authority.host().is_empty() || !is_port_sound(&authority) {
        return Err(not_url());
    }
    Ok(Endpoint { scheme, authority })
}

/// Checks the URL of an identity provider: https, or http to this machine.
pub(super) fn parse_provider_url(text: &str) -> Result<String, String> {
    const EXAMPLE: &str = "write e.g. \"https://id.example/jwks.json\"";
    if text.contains('@') {
        return Err(format!("a URL with user information is not accepted; {EXAMPLE}"));
    }
    let not_url = || format!("{} is not an https URL; {EXAMPLE}", quote(text));
    let uri: Uri = text.parse().map_err(|_| not_url())?;
    let authority = uri.authority().ok_or_else(not_url)?;
    if authority.host().is_empty() || !is_port_sound(authority) || text.contains('#') {
        return Err(not_url());
    }
    match uri.scheme_str() {
        Some("https") => Ok(text.to_owned()),
        Some("http") if is_loopback(authority.host()) => Ok(text.to_owned()),
        Some("http") => Err(format!(
            "{} is plain http: whoever sits between could hand out keys; use https \
             (http is for this machine only)",
            quote(text)
        )),
        Some(_) | None => Err(not_url()),
    }
}

pub(super) fn is_port_sound(authority: &Authority) -> bool {
    let after_host = authority.as_str().strip_prefix(authority.host());
    match after_host {
        Some("") => true,
        Some(_) => authority.port_u16().is_some_and(|port| port > 0),
        None => false,
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The level of a log: `info`, or `info,latchkey::server=debug`.
pub(super) fn parse_log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let target = |t: &str| {
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b))
    };
    let sound = |directive: &str| match directive.split_once('=') {
        Some((module, level)) => target(module) && LEVELS.contains(&level),
        None => LEVELS.contains(&directive),
    };
    if text.split(',').all(sound) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{} is not a log level; write one of off, error, warn, info, debug, trace, \
             or e.g. \"info,latchkey::server=debug\"",
            quote(text)
        ))
    }
}

/// Bounds of a duration, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration, pub(super) Duration);

impl Span {
    /// Timeouts: a millisecond to an hour.
    pub(super) const TIMEOUT: Self = Self(Duration::from_millis(1), Duration::from_secs(3600));
    /// Intervals and lifetimes: a second to a year.
    pub(super) const LIFETIME: Self = Self(SECOND, Duration::from_secs(365 * 86_400));
    /// Whole requests, responses and tunnels: a millisecond to a week.
    pub(super) const EXCHANGE: Self =
        Self(Duration::from_millis(1), Duration::from_secs(7 * 86_400));
    /// What a browser remembers of a preflight: none does for longer than a day.
    pub(super) const PREFLIGHT: Self = Self(SECOND, Duration::from_secs(86_400));
    /// A proof for one request: long enough for the clocks of two machines, too short to be kept.
    pub(super) const ASSERTION: Self = Self(Duration::from_secs(5), Duration::from_secs(300));
    /// What is kept of what happened: an hour to ten years.
    pub(super) const RETENTION: Self =
        Self(Duration::from_secs(3600), Duration::from_secs(3650 * 86_400));
    /// Between two writes of what was counted: a second to an hour.
    pub(super) const FLUSH: Self = Self(SECOND, Duration::from_secs(3600));
    /// Between two backups: a minute to a year.
    pub(super) const SCHEDULE: Self =
        Self(Duration::from_secs(60), Duration::from_secs(365 * 86_400));
    /// A tolerance: none to ten minutes.
    pub(super) const LEEWAY: Self = Self(Duration::ZERO, Duration::from_secs(600));
}
