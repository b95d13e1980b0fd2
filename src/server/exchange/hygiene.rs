//! What a request must satisfy before anybody decides about it: exactly one valid `Host`, and a
//! target in origin form, or in absolute form that says the same as `Host` (RFC 9112 §3.2).
//!
//! Looks at no credential and at no configuration.

use http::header::{CONTENT_LENGTH, HOST};
use http::uri::Scheme;
use http::{HeaderMap, Method, Uri, Version, request};

use crate::client_address::is_authority;

/// Why a request is refused with 400, to follow "because".
pub(super) fn check(parts: &request::Parts, is_tls: bool) -> Result<(), &'static str> {
    if parts.method == Method::CONNECT {
        return Err("CONNECT is not supported: this is no forward proxy");
    }
    if parts.method == Method::TRACE {
        // It would be sent back what the upstream alone is told (RFC 9110 §9.3.8).
        return Err("TRACE is not supported: its answer would repeat what only upstreams see");
    }
    let host = host(&parts.headers, parts.version)?;
    target(&parts.uri, host, is_tls)
}

/// The length the request announces, if any; its syntax was checked with the framing or the
/// form.
pub(super) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// The one value of `Host`; only HTTP/1.0 may do without.
fn host(headers: &HeaderMap, version: Version) -> Result<Option<&str>, &'static str> {
    let mut values = headers.get_all(HOST).iter();
    let Some(value) = values.next() else {
        let needed = version != Version::HTTP_10;
        return if needed { Err("it has no Host header") } else { Ok(None) };
    };
    if values.next().is_some() {
        return Err("it has more than one Host header");
    }
    match value.to_str() {
        Ok(text) if is_authority(text) => Ok(Some(text)),
        Ok(_) | Err(_) => Err("its Host header is not a host name with an optional port"),
    }
}

fn target(uri: &Uri, host: Option<&str>, is_tls: bool) -> Result<(), &'static str> {
    match (uri.scheme(), uri.authority()) {
        (None, None) if uri.path().starts_with('/') => Ok(()),
        (Some(scheme), Some(authority)) => {
            if *scheme != if is_tls { Scheme::HTTPS } else { Scheme::HTTP } {
                return Err("the scheme of its target is not that of the connection");
            }
            if host.is_some_and(|host| authority.as_str().eq_ignore_ascii_case(host)) {
                Ok(())
            } else {
                Err("its target and its Host header name different hosts")
            }
        }
        _ => Err("its target is not a path"),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn verdict(target: &str, version: Version, hosts: &[&str]) -> Result<(), &'static str> {
        let mut request = Request::builder().uri(target).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        check(&request.body(()).unwrap().into_parts().0, false)
    }

    #[test]
    fn hosts() {
        for good in ["a", "a.example:80", "A_b-c", "127.0.0.1:8080", "[::1]", "[2001:db8::1]:1"] {
            assert_eq!(verdict("/", Version::HTTP_11, &[good]), Ok(()), "{good}");
        }
        for bad in [
            "", ":80", "a:", "a:x", "a:65536", "a:+1", "a b", "a/b", "u@a", "[::1", "[::1]80",
            "[a]", "::1", "a,b", "a?b", "a\\b", "a%41", "a:80:80", "http://a",
        ] {
            assert!(verdict("/", Version::HTTP_11, &[bad]).is_err(), "{bad:?}");
        }
        assert!(verdict("/", Version::HTTP_11, &[]).is_err());
        assert!(verdict("/", Version::HTTP_11, &["a", "a"]).is_err());
        assert_eq!(verdict("/", Version::HTTP_10, &[]), Ok(()));
        assert!(verdict("/", Version::HTTP_10, &["a", "b"]).is_err());
    }

    #[test]
    fn targets() {
        let host = &["a.example:81"][..];
        for good in
            ["/", "/x?y", "http://a.example:81/x", "HTTP://A.example:81", "http://a.example:81?q"]
        {
            assert_eq!(verdict(good, Version::HTTP_11, host), Ok(()), "{good}");
        }
        for bad in [
            "http://a.example/x",
            "http://b/x",
            "https://a.example:81/",
            "a.example:81",
            "*",
            "http://u@a.example:81/",
            "ftp://a.example:81/",
        ] {
            assert!(verdict(bad, Version::HTTP_11, host).is_err(), "{bad}");
        }
        assert!(verdict("http://a/", Version::HTTP_10, &[]).is_err());
        let connect = Request::connect("a:1").header(HOST, "a:1").body(()).unwrap();
        assert!(check(&connect.into_parts().0, false).is_err());
        for (target, is_tls) in [("https://a/", true), ("http://a/", false)] {
            let request = Request::get(target).header(HOST, "a").body(()).unwrap();
            let parts = request.into_parts().0;
            assert_eq!(check(&parts, is_tls), Ok(()), "{target}");
            assert!(check(&parts, !is_tls).is_err(), "{target}");
        }
    }
}
