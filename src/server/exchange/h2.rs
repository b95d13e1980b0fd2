//! A request of HTTP/2 put into the form of HTTP/1.1: what an upstream of HTTP/1.1 could not be
//! told, or could read in two ways, is refused (RFC 9113 §8.1.1, §8.2, §8.3, §10.3).
//!
//! h2 has seen to frames, to the case of names and to pseudo fields that are repeated or missing.
//! What else RFC 9113 calls malformed is checked here too, whether or not h2 does.

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, request};

use crate::decision::denial::Code;

/// Why a request is refused: the code, and what follows "because".
pub(super) type Objection = (Code, &'static str);

/// Puts a request into the form of HTTP/1.1: the target a path, the host in `Host`, one `Cookie`.
pub(super) fn settle(
    parts: &mut request::Parts,
    is_tls: bool,
    fields_max: usize,
) -> Result<(), Objection> {
    if parts.headers.len() > fields_max {
        return Err((Code::HeadersTooLarge, "it has too many header fields"));
    }
    // CONNECT has no path, and is refused as such.
    if parts.method == Method::CONNECT {
        return Ok(());
    }
    fields(&parts.headers).map_err(|why| (Code::BadRequest, why))?;
    let host = target(parts, is_tls).map_err(|why| (Code::BadRequest, why))?;
    if let Some(host) = host {
        parts.headers.insert(HOST, host);
    }
    join_cookies(&mut parts.headers);
    Ok(())
}

/// Fields that HTTP/2 forbids, or that HTTP/1.1 cannot carry as they are.
fn fields(headers: &HeaderMap) -> Result<(), &'static str> {
    let of_the_connection = |name: &str| {
        name == CONNECTION
            || name == TRANSFER_ENCODING
            || name == UPGRADE
            || name == "keep-alive"
            || name == "proxy-connection"
    };
    for (name, value) in headers {
        if of_the_connection(name.as_str()) {
            return Err("it has a header field that concerns a connection of HTTP/1.1");
        }
        if *name == TE && value != "trailers" {
            return Err("its TE header is not exactly `trailers`");
        }
        if value.as_bytes().trim_ascii().len() != value.len() {
            return Err("a header value begins or ends with white space");
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_number = |value: &HeaderValue| {
        value.len() <= 18 && !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit)
    };
    match (lengths.next(), lengths.next()) {
        (_, Some(_)) => Err("Content-Length is present more than once"),
        (Some(length), None) if !is_number(length) => Err("Content-Length is no number"),
        (_, None) => Ok(()),
    }
}

/// Makes the target a path; returns the `Host` that it names, where there is none yet.
fn target(parts: &mut request::Parts, is_tls: bool) -> Result<Option<HeaderValue>, &'static str> {
    let wanted = |scheme: &Scheme| *scheme == Scheme::HTTPS || (!is_tls && *scheme == Scheme::HTTP);
    if !parts.uri.scheme().is_some_and(wanted) {
        return Err("its scheme is not that of the connection");
    }
    let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    if !path.starts_with('/') {
        return Err("its target is not a path");
    }
    if !path.bytes().all(|b| matches!(b, 0x21..=0x7e) && b != b'#') {
        return Err("the request target holds a character that must be percent-encoded");
    }
    let mut host = None;
    if let Some(authority) = parts.uri.authority() {
        let same = |host: &HeaderValue| {
            host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        };
        if !parts.headers.get_all(HOST).iter().all(same) {
            return Err("its :authority and its Host header name different hosts");
        }
        if !parts.headers.contains_key(HOST) {
            host = HeaderValue::from_str(authority.as_str()).ok();
        }
    }
    let path = parts.uri.path_and_query().cloned();
    parts.uri = path.map(Uri::from).unwrap_or_default();
    Ok(host)
}

/// HTTP/2 may send a cookie in pieces; HTTP/1.1 knows one field (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(COOKIE).iter();
    let (Some(first), Some(_)) = (pieces.next(), pieces.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for piece in headers.get_all(COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(piece.as_bytes());
    }
    // Valid values remain one when joined so.
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Request, Version};

    use super::*;

    fn settled(
        uri: &str,
        is_tls: bool,
        fields: &[(&str, &str)],
    ) -> Result<request::Parts, &'static str> {
        let request = Request::builder().uri(uri).version(Version::HTTP_2).body(()).unwrap();
        let mut parts = request.into_parts().0;
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            parts.headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        settle(&mut parts, is_tls, 8).map(|()| parts).map_err(|(_, why)| why)
    }

    #[test]
    fn a_target_becomes_a_path_and_a_host() {
        for (uri, is_tls, path, host) in [
            ("http://a.example/x?y", false, "/x?y", "a.example"),
            ("https://a.example:1/", false, "/", "a.example:1"),
            ("https://A.example", true, "/", "A.example"),
        ] {
            let parts = settled(uri, is_tls, &[]).unwrap();
            assert_eq!(
                (parts.uri.to_string().as_str(), &parts.headers[HOST]),
                (path, &host.parse().unwrap())
            );
        }
        let both = settled("http://a/", false, &[("host", "A")]).unwrap();
        assert_eq!(both.headers[HOST], "A");
        for (uri, is_tls, fields) in [
            ("http://a/", true, &[][..]),
            ("ftp://a/", false, &[]),
            ("/", false, &[("host", "a")]),
            ("http://a/\u{e9}", false, &[]),
            ("http://a/", false, &[("host", "b")]),
            ("http://a/", false, &[("host", "a"), ("host", "b")]),
            ("http://a:80/", false, &[("host", "a")]),
        ] {
            assert!(settled(uri, is_tls, fields).is_err(), "{uri} {fields:?}");
        }
    }

    #[test]
    fn fields_that_http1_cannot_carry() {
        for bad in [
            &[("connection", "x")][..],
            &[("keep-alive", "x")],
            &[("proxy-connection", "x")],
            &[("transfer-encoding", "chunked")],
            &[("upgrade", "h2c")],
            &[("te", "gzip")],
            &[("te", "trailers, gzip")],
            &[("x", " a")],
            &[("x", "a\t")],
            &[("content-length", "1"), ("content-length", "1")],
            &[("content-length", "+1")],
            &[("content-length", "")],
            &[("content-length", "1234567890123456789")],
        ] {
            assert!(settled("http://a/", false, bad).is_err(), "{bad:?}");
        }
        for good in [&[("te", "trailers")][..], &[("x", "")], &[("content-length", "007")]] {
            assert!(settled("http://a/", false, good).is_ok(), "{good:?}");
        }
        let many = [("x", "a"); 9];
        let mut parts = Request::builder().uri("http://a/").body(()).unwrap().into_parts().0;
        for (name, value) in many {
            parts.headers.append(name, value.parse().unwrap());
        }
        assert_eq!(settle(&mut parts, false, 8).unwrap_err().0, Code::HeadersTooLarge);
        assert!(settle(&mut parts, false, 9).is_ok());
    }

    #[test]
    fn cookies_are_joined() {
        let cookies = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")];
        let parts = settled("http://a/", false, &cookies).unwrap();
        let joined: Vec<_> = parts.headers.get_all(COOKIE).iter().collect();
        assert_eq!(joined, ["a=1; b=2; c=3"]);
    }
}
