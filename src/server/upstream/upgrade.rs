//! Whether a client asks for another protocol, and whether the upstream agrees to it (RFC 9110
//! §7.8).
//!
//! Moves no bytes: once both have agreed, the front does.

use http::header::{CONNECTION, HeaderMap, HeaderName, UPGRADE};
use http::{Response, Version, request};

/// The one protocol that a request asks for, if it is among `allowed`. Asking for several at
/// once, or with a body, or by anything but HTTP/1.1, counts as not asking: the request goes on
/// without it.
pub(in crate::server) fn wanted<'a>(
    parts: &request::Parts,
    has_body: bool,
    allowed: &'a [Box<str>],
) -> Option<&'a str> {
    if allowed.is_empty() || has_body || parts.version != Version::HTTP_11 {
        return None;
    }
    let token = single_token(&parts.headers)?;
    if !names(&parts.headers, "upgrade") {
        return None;
    }
    allowed.iter().map(|allowed| &**allowed).find(|allowed| token.eq_ignore_ascii_case(allowed))
}

/// Whether a 101 changes to the protocol that was asked for.
pub(super) fn check<B>(response: &Response<B>, asked: Option<&str>) -> Result<(), &'static str> {
    let Some(asked) = asked else {
        return Err("it changes the protocol unasked");
    };
    let token = single_token(response.headers());
    if token.is_none_or(|token| !token.eq_ignore_ascii_case(asked)) {
        return Err("it changes to another protocol than was asked for");
    }
    if !names(response.headers(), "upgrade") {
        return Err("it changes the protocol without `Connection: upgrade`");
    }
    Ok(())
}

/// The value of `Upgrade`, if there is one only and it is one token.
fn single_token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(UPGRADE).iter();
    let token = values.next()?.to_str().ok()?.trim();
    let plain = !token.is_empty() && !token.contains([',', ' ']);
    (plain && values.next().is_none()).then_some(token)
}

/// Whether `Connection` holds `option`.
fn names(headers: &HeaderMap, option: &str) -> bool {
    lists(headers, &CONNECTION, option)
}

/// Whether the list that a field is holds `option`.
pub(in crate::server) fn lists(headers: &HeaderMap, name: &HeaderName, option: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(fields: &[(&str, &str)], version: Version) -> request::Parts {
        let mut request = Request::builder().version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_counts_as_asking() {
        let allowed = ["websocket".into(), "other/1".into()];
        let ask: &[_] = &[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        let wants = |fields: &[_], version, body| {
            wanted(&request(fields, version), body, &allowed).map(str::to_owned)
        };
        assert_eq!(wants(ask, Version::HTTP_11, false).as_deref(), Some("websocket"));
        assert_eq!(wants(ask, Version::HTTP_11, true), None);
        assert_eq!(wants(ask, Version::HTTP_10, false), None);
        assert_eq!(wants(ask, Version::HTTP_2, false), None);
        assert_eq!(wanted(&request(ask, Version::HTTP_11), false, &[]), None);
        for fields in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket, other/1")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "")],
            &[("connection", "x-upgrade"), ("upgrade", "websocket")],
        ] {
            assert_eq!(wants(fields, Version::HTTP_11, false), None, "{fields:?}");
        }
    }

    #[test]
    fn what_counts_as_agreeing() {
        let response = |fields: &[(&str, &str)]| {
            let mut response = Response::builder().status(101);
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            response.body(()).unwrap()
        };
        let good = response(&[("Connection", "Upgrade"), ("Upgrade", "websocket")]);
        assert_eq!(check(&good, Some("websocket")), Ok(()));
        assert!(check(&good, None).is_err());
        assert!(check(&good, Some("other/1")).is_err());
        for fields in [
            &[("Connection", "Upgrade")][..],
            &[("Upgrade", "websocket")],
            &[("Connection", "Upgrade"), ("Upgrade", "websocket, h2c")],
        ] {
            assert!(check(&response(fields), Some("websocket")).is_err(), "{fields:?}");
        }
    }
}
