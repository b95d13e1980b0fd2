//! Trailer fields: which are passed on, and how they are announced (RFC 9110 §6.5).
//!
//! Only ordinary fields come as trailers. What frames, routes, authenticates or controls a
//! message was decided on with its head, and what latchkey says of a caller nobody says after it.

use http::header::{HeaderMap, HeaderName, HeaderValue, TE, TRAILER};

use super::fields::{is_hop_by_hop, is_ours, owned};

/// Fields that mean something only in a head.
const HEAD_ONLY: [&str; 29] = [
    "authorization",
    "age",
    "allow",
    "cache-control",
    "clear-site-data",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "link",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "ratelimit",
    "ratelimit-policy",
    "referer",
    "refresh",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "vary",
    "www-authenticate",
];
/// Beginnings of the names of such fields.
const HEAD_ONLY_GROUPS: [&str; 5] =
    ["access-control-", "content-security-policy", "cross-origin-", "if-", "x-ratelimit-"];

fn may_pass(name: &HeaderName) -> bool {
    let name = name.as_str();
    let head_only = HEAD_ONLY.contains(&name)
        || HEAD_ONLY_GROUPS.iter().any(|beginning| name.starts_with(beginning));
    !is_hop_by_hop(name) && !is_ours(name) && !head_only
}

/// The announcement of the trailer fields that may be passed on; `None` if there is none.
pub(in crate::server) fn announced(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut names = String::new();
    for value in headers.get_all(TRAILER) {
        for name in value.as_bytes().split(|b| *b == b',') {
            let Ok(name) = HeaderName::from_bytes(name.trim_ascii()) else {
                continue;
            };
            if may_pass(&name) {
                names.push_str(if names.is_empty() { "" } else { ", " });
                names.push_str(name.as_str());
            }
        }
    }
    (!names.is_empty()).then(|| owned(names))
}

/// Whether the sender of a request takes trailer fields with the response.
pub(in crate::server) fn are_taken(headers: &HeaderMap) -> bool {
    let mut items = headers.get_all(TE).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    items.any(|item| item.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Removes what may not be passed on.
pub(in crate::server) fn keep(trailers: &mut HeaderMap) {
    let names: Vec<HeaderName> = trailers.keys().filter(|n| !may_pass(n)).cloned().collect();
    for name in names {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn only_ordinary_fields_pass() {
        let mut trailers = map(&[
            ("x-checksum", "1"),
            ("grpc-status", "0"),
            ("x-auth-shop-id", "spoofed"),
            ("x_auth_shop_id", "spoofed"),
            ("x-forwarded-for", "spoofed"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer x"),
            ("host", "x"),
        ]);
        keep(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "x-checksum"]);
    }

    #[test]
    fn announcements() {
        for (announcement, passed) in [
            ("X-Checksum", Some("x-checksum")),
            ("X-Auth-Shop-Id, X-A ,, x b, Host,X-B", Some("x-a, x-b")),
            ("Content-Length", None),
            ("", None),
        ] {
            let headers = map(&[("trailer", announcement)]);
            let value = announced(&headers);
            assert_eq!(value.as_ref().and_then(|v| v.to_str().ok()), passed, "{announcement}");
        }
        assert!(are_taken(&map(&[("te", "gzip, Trailers")])));
        assert!(!are_taken(&map(&[("te", "gzip")])));
    }
}
