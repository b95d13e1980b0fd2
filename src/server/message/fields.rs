//! The header fields of a request on its way to the upstream, and of the response on its way back
//! (spec §8).
//!
//! The upstream sees these, whatever the client sent, in every spelling, under their names:
//!
//! | field | value |
//! |---|---|
//! | `X-Auth-Mechanism` | `widget_token`, `shop_api_key`, `jwt` or `anonymous` |
//! | `X-Auth-Shop-Id` | the principal's shop |
//! | `X-Auth-Key-Id` | the API key's id, the widget token's id |
//! | `X-Auth-Subject` | the JWT's `sub`; `anonymous` for an anonymous caller |
//! | `X-Auth-Scopes` | granted scopes, space-separated; `*` is every scope |
//! | `X-Auth-Assertion` | a signed statement of all that, where assertions are on |
//! | `X-Request-Id` | the request's name in responses and logs |
//! | `X-Forwarded-For` | the client address, then the trusted proxies it came through |
//! | `X-Forwarded-Host`, `-Proto` | by a trusted proxy's word; else by `Host` and connection |
//! | `Forwarded` | all of that |
//! | `traceparent` | the request's trace and latchkey's span in it, where traces are on |
//! | `tracestate` | the caller's, if its `traceparent` was taken; else none |
//!
//! But for the assertion and the last two none is ever missing or empty: what does not apply is
//! `-`, which is no shop id and no key id. Bytes of a subject or scope outside of visible ASCII,
//! and `%`, are percent-encoded, so that every subject is legible in one way. `Host` names the
//! upstream.

use std::fmt::Write as _;
use std::net::IpAddr;

use arrayvec::ArrayString;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName,
    HeaderValue, TRANSFER_ENCODING,
};

use crate::client_address::{Caller, Scheme};
use crate::decision::principal::Principal;
use crate::server::request_id::RequestId;
use crate::trace::Trace;
use crate::trace::context::{self, SpanId};

/// The request's name.
pub(in crate::server) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_AUTH_MECHANISM: HeaderName = HeaderName::from_static("x-auth-mechanism");
const X_AUTH_SHOP_ID: HeaderName = HeaderName::from_static("x-auth-shop-id");
const X_AUTH_KEY_ID: HeaderName = HeaderName::from_static("x-auth-key-id");
const X_AUTH_SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");
const X_AUTH_SCOPES: HeaderName = HeaderName::from_static("x-auth-scopes");
/// What proves the others.
pub(in crate::server) const X_AUTH_ASSERTION: HeaderName =
    HeaderName::from_static("x-auth-assertion");
pub(in crate::server) const X_FORWARDED_FOR: HeaderName =
    HeaderName::from_static("x-forwarded-for");
pub(in crate::server) const X_FORWARDED_HOST: HeaderName =
    HeaderName::from_static("x-forwarded-host");
pub(in crate::server) const X_FORWARDED_PROTO: HeaderName =
    HeaderName::from_static("x-forwarded-proto");

/// The trace, and the caller's span in it (W3C Trace Context).
pub(in crate::server) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const ABSENT: HeaderValue = HeaderValue::from_static("-");
const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// Fields that concern one connection only (RFC 9110 §7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the upstream is told of a request besides what the client said.
pub(in crate::server) struct Outgoing<'a> {
    /// Who it comes from.
    pub(in crate::server) principal: &'a Principal<'a>,
    /// Its name.
    pub(in crate::server) id: &'a RequestId,
    /// Who is calling, through whom.
    pub(in crate::server) caller: &'a Caller,
    /// The peer, as [`forwarded_for`] made it.
    pub(in crate::server) peer: &'a HeaderValue,
    /// The scheme of the connection.
    pub(in crate::server) scheme: Scheme,
    /// The upstream's authority.
    pub(in crate::server) host: &'a HeaderValue,
    /// What proves all this; `None` when assertions are off.
    pub(in crate::server) assertion: Option<HeaderValue>,
    /// Its trace, and the span the upstream is called from; `None`: what the client said passes.
    pub(in crate::server) trace: Option<(&'a Trace, SpanId)>,
    /// The route takes JWTs, so `Authorization` is latchkey's.
    pub(in crate::server) strips_authorization: bool,
    /// The body comes in chunks.
    pub(in crate::server) chunked: bool,
}

/// Turns the fields of a client's request into those the upstream gets.
pub(in crate::server) fn prepare_request(headers: &mut HeaderMap, outgoing: &Outgoing<'_>) {
    remove_nominated(headers);
    remove_where(headers, |name| is_hop_by_hop(name) || is_ours(name));
    // Answered here: the body is asked for once the upstream wants it.
    headers.remove(EXPECT);
    if outgoing.strips_authorization {
        headers.remove(AUTHORIZATION);
    }
    if outgoing.chunked {
        headers.insert(TRANSFER_ENCODING, CHUNKED);
    }
    let own_host = headers.insert(HOST, outgoing.host.clone());
    let caller = outgoing.caller;
    let host = caller.host.as_deref().map(text).or(own_host);
    let scheme = caller.scheme.unwrap_or(outgoing.scheme).as_str();
    headers.insert(FORWARDED, forwarded(caller, host.as_ref(), scheme));
    headers.insert(X_FORWARDED_HOST, host.unwrap_or(ABSENT));
    headers.insert(X_FORWARDED_FOR, addresses(caller, outgoing.peer));
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    headers.insert(X_REQUEST_ID, text(outgoing.id));
    if let Some((trace, span)) = outgoing.trace {
        hand_on(headers, trace, span);
    }
    identify(headers, outgoing.principal);
    if let Some(assertion) = &outgoing.assertion {
        headers.insert(X_AUTH_ASSERTION, assertion.clone());
    }
}

/// Says which trace a request is of. A `tracestate` of another trace, or one that is malformed,
/// is not passed on: some read orders from it.
fn hand_on(headers: &mut HeaderMap, trace: &Trace, span: SpanId) {
    let states = headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes);
    if trace.parent.is_none() || !context::is_passable(states) {
        headers.remove(TRACESTATE);
    }
    let value = HeaderValue::from_bytes(&trace.parent_of_next(span).write());
    headers.insert(TRACEPARENT, value.unwrap_or(ABSENT));
}

/// Turns the fields of an upstream's response into those the client gets, limits and request id
/// aside.
///
/// An upstream's own word on CORS ends here: latchkey answers the preflights, and a browser that
/// hears two answers, or one from each, allows what neither meant.
pub(in crate::server) fn prepare_response(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // It says how long the body is; a length beside it would cut it or have more waited for
        // (RFC 9112 §6.3).
        headers.remove(CONTENT_LENGTH);
    }
    remove_nominated(headers);
    remove_where(headers, |name| is_hop_by_hop(name) || name.starts_with("access-control-"));
}

/// Says who `principal` is, in fields of which none is ever missing or empty.
pub(in crate::server) fn identify(headers: &mut HeaderMap, principal: &Principal<'_>) {
    let mechanism = HeaderValue::from_static(principal.mechanism().as_str());
    let shop = principal.shop().map_or(ABSENT, |shop| text(shop.as_str()));
    let mut id = ArrayString::<48>::new();
    let written = match principal {
        Principal::ShopApiKey { key, .. } => write!(id, "{}", key.id),
        Principal::WidgetToken { token, .. } => write!(id, "{}", token.id),
        Principal::Jwt { .. } | Principal::Anonymous => write!(id, "-"),
    };
    debug_assert!(written.is_ok(), "ids are shorter than the buffer");
    let subject = match principal {
        Principal::Jwt { token, .. } => encoded(&token.subject),
        Principal::Anonymous => HeaderValue::from_static("anonymous"),
        Principal::ShopApiKey { .. } | Principal::WidgetToken { .. } => ABSENT,
    };
    headers.insert(X_AUTH_MECHANISM, mechanism);
    headers.insert(X_AUTH_SHOP_ID, shop);
    headers.insert(X_AUTH_KEY_ID, text(&id));
    headers.insert(X_AUTH_SUBJECT, subject);
    headers.insert(X_AUTH_SCOPES, encoded(principal.scopes()));
}

/// A value of visible ASCII.
fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(ABSENT)
}

/// A value of our own making, without another copy.
pub(in crate::server) fn owned(value: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(value)).unwrap_or(ABSENT)
}

/// `value` with everything but visible ASCII and inner spaces percent-encoded, and `%` too.
fn encoded(value: &str) -> HeaderValue {
    let plain = |b: u8| matches!(b, b'!'..=b'~') && b != b'%';
    let value = value.trim_matches(' ');
    if value.is_empty() {
        return ABSENT;
    }
    if value.bytes().all(|b| plain(b) || b == b' ') {
        return text(value);
    }
    let mut out = String::with_capacity(value.len() + 16);
    for byte in value.bytes() {
        if plain(byte) || byte == b' ' {
            out.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    owned(out)
}

/// `X-Forwarded-For` for a peer.
pub(in crate::server) fn forwarded_for(peer: IpAddr) -> HeaderValue {
    let mut value = ArrayString::<64>::new();
    let written = write!(value, "{peer}");
    debug_assert!(written.is_ok(), "an address is shorter than the buffer");
    text(&value)
}

/// `X-Forwarded-For`. What a caller claimed of itself is left out, so that whoever reads the
/// first entry reads the client address too.
fn addresses(caller: &Caller, peer: &HeaderValue) -> HeaderValue {
    if caller.proxies.is_empty() {
        return peer.clone();
    }
    let mut value = caller.address.to_string();
    for proxy in &caller.proxies {
        // Writing into a string cannot fail.
        let _ = write!(value, ", {proxy}");
    }
    owned(value)
}

/// `Forwarded` (RFC 7239 §4): IPv6 addresses bracketed and quoted, and the host quoted, since it
/// may hold a colon.
fn forwarded(caller: &Caller, host: Option<&HeaderValue>, scheme: &str) -> HeaderValue {
    let mut value = String::with_capacity(128);
    let node = |value: &mut String, address: IpAddr| {
        // Writing into a string cannot fail.
        let _ = match address {
            IpAddr::V4(v4) => write!(value, "for={v4}"),
            IpAddr::V6(v6) => write!(value, "for=\"[{v6}]\""),
        };
    };
    node(&mut value, caller.address);
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        value.push_str(";host=\"");
        value.push_str(host);
        value.push('"');
    }
    value.push_str(";proto=");
    value.push_str(scheme);
    for proxy in &caller.proxies {
        value.push_str(", ");
        node(&mut value, *proxy);
    }
    owned(value)
}

/// Removes the fields that `Connection` names.
fn remove_nominated(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // `close` and `keep-alive` are options, not fields; Host is replaced, not removed.
        .filter(|name| *name != "close" && *name != HOST)
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

pub(super) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

/// Whether a client's field is latchkey's to set, holds a credential that latchkey takes, or
/// tells some frameworks another path or method than those that were decided about, or CGI programs
/// which proxy to go out through (`Proxy`, which they get as `HTTP_PROXY`). Whatever is
/// no letter or digit counts as `-`: upstreams that get fields as CGI variables read it as `_`,
/// some only `-`, some all of it (names come in lower case).
pub(super) fn is_ours(name: &str) -> bool {
    // Two have no prefix; everything else begins with `x`.
    match name.as_bytes().first() {
        Some(b'f') => return name == "forwarded",
        Some(b'p') => return name == "proxy",
        Some(b'x') => {}
        _ => return false,
    }
    let folded = |b: u8| if b.is_ascii_alphanumeric() { b } else { b'-' };
    let starts = |prefix: &str| {
        name.len() >= prefix.len()
            && name.bytes().map(folded).zip(prefix.bytes()).all(|(a, b)| a == b)
    };
    let is = |other: &str| name.len() == other.len() && starts(other);
    starts("x-auth-")
        || starts("x-forwarded-")
        || is("x-forwarded")
        || is("x-real-ip")
        || is("x-request-id")
        || is("x-widget-token")
        || is("x-shop-api-key")
        || is("x-original-url")
        || is("x-original-uri")
        || is("x-rewrite-url")
        || is("x-http-method-override")
        || is("x-http-method")
        || is("x-method-override")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Timestamp;
    use crate::decision::origin::Origin;
    use crate::decision::principal::{ApiKey, Shop};
    use crate::id::{KeyId, ShopId};
    use crate::secret::Digest;

    fn prepared(principal: &Principal<'_>, fields: &[(&str, &str)], jwt: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let client: IpAddr = "2001:db8::7".parse().unwrap();
        let outgoing = Outgoing {
            principal,
            id: &RequestId::from("0123456789abcdef0123456789abcdef").unwrap(),
            caller: &Caller::direct(client),
            peer: &forwarded_for(client),
            scheme: Scheme::Http,
            assertion: None,
            host: &HeaderValue::from_static("upstream:81"),
            trace: None,
            strips_authorization: jwt,
            chunked: false,
        };
        prepare_request(&mut headers, &outgoing);
        headers
    }

    fn shop() -> Shop {
        Shop {
            id: ShopId::parse("demo").unwrap(),
            enabled: true,
            url: Origin::parse("https://shop.example").unwrap(),
            widget_origins: Vec::new(),
            tokens_valid_from: Timestamp::from_unix_s(0),
            limits: Vec::new(),
        }
    }

    #[test]
    fn an_upstream_sees_our_fields_and_no_spelling_of_the_clients() {
        let spellings = [
            "X-Auth-Mechanism",
            "x_auth_mechanism",
            "X.Auth.Shop.Id",
            "x-auth_subject",
            "X-AUTH-SCOPES",
            "X-Auth-Anything-Else",
            "X_Auth_Key_Id",
            "X-Request-Id",
            "x_request_id",
            "Forwarded",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "X-Forwarded-Proto",
            "X-Forwarded-Port",
            "X-Forwarded",
            "X-Real-IP",
            "X-Shop-API-Key",
            "x_shop_api_key",
            "X-Widget-Token",
            "x.widget.token",
            "X-Original-URL",
            "X-Rewrite-URL",
            "Proxy",
        ];
        let mut fields: Vec<_> = spellings.iter().map(|name| (*name, "spoofed")).collect();
        fields.extend([("Host", "front.example:80"), ("X-Author", "kept"), ("Accept", "*/*")]);
        let headers = prepared(&Principal::Anonymous, &fields, false);
        let mut sent: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        sent.sort_unstable();
        assert_eq!(
            sent,
            [
                "accept: */*",
                "forwarded: for=\"[2001:db8::7]\";host=\"front.example:80\";proto=http",
                "host: upstream:81",
                "x-auth-key-id: -",
                "x-auth-mechanism: anonymous",
                "x-auth-scopes: -",
                "x-auth-shop-id: -",
                "x-auth-subject: anonymous",
                "x-author: kept",
                "x-forwarded-for: 2001:db8::7",
                "x-forwarded-host: front.example:80",
                "x-forwarded-proto: http",
                "x-request-id: 0123456789abcdef0123456789abcdef",
            ]
        );
    }

    #[test]
    fn an_upstream_is_told_what_trusted_proxies_say() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("inner.example"));
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("9.9.9.9, 192.0.2.1"));
        let caller = Caller {
            address: ip("192.0.2.1"),
            proxies: [ip("2001:db8::1"), ip("10.0.0.1")].into_iter().collect(),
            scheme: None,
            host: Some("front.example:8443".into()),
        };
        let outgoing = Outgoing {
            principal: &Principal::Anonymous,
            id: &RequestId::from("0123456789abcdef0123456789abcdef").unwrap(),
            caller: &caller,
            peer: &forwarded_for(ip("10.0.0.1")),
            scheme: Scheme::Https,
            assertion: None,
            host: &HeaderValue::from_static("upstream:81"),
            trace: None,
            strips_authorization: false,
            chunked: false,
        };
        prepare_request(&mut headers, &outgoing);
        for (name, value) in [
            ("x-forwarded-for", "192.0.2.1, 2001:db8::1, 10.0.0.1"),
            ("x-forwarded-host", "front.example:8443"),
            ("x-forwarded-proto", "https"),
            (
                "forwarded",
                "for=192.0.2.1;host=\"front.example:8443\";proto=https, \
                 for=\"[2001:db8::1]\", for=10.0.0.1",
            ),
        ] {
            let values: Vec<_> = headers.get_all(name).iter().collect();
            assert_eq!(values, [value], "{name}");
        }
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let fields = [
            ("Connection", "close, X-Hop , te"),
            ("Connection", "x-auth-subject,,X-Other"),
            ("X-Hop", "a"),
            ("X-Other", "a"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic x"),
            ("TE", "trailers"),
            ("Trailer", "X"),
            ("Upgrade", "websocket"),
            ("Expect", "100-continue"),
            ("X-Kept", "a"),
        ];
        let headers = prepared(&Principal::Anonymous, &fields, false);
        for (name, _) in fields {
            let kept = name == "X-Kept";
            assert_eq!(headers.contains_key(name), kept, "{name}");
        }
        assert_eq!(headers["x-auth-subject"], "anonymous");
        let mut response = HeaderMap::new();
        for (name, value) in fields {
            response
                .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        prepare_response(&mut response);
        let left: Vec<_> = response.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["expect", "x-kept"]);
    }

    #[test]
    fn a_length_beside_chunks_is_not_the_length() {
        let mut response = HeaderMap::new();
        response.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        prepare_response(&mut response);
        assert!(response.contains_key(CONTENT_LENGTH));
        response.insert(TRANSFER_ENCODING, CHUNKED);
        prepare_response(&mut response);
        assert!(response.is_empty());
    }

    #[test]
    fn authorization_goes_on_where_it_is_not_ours() {
        let fields = [("Authorization", "Basic eDp5")];
        assert!(prepared(&Principal::Anonymous, &fields, false).contains_key(AUTHORIZATION));
        assert!(!prepared(&Principal::Anonymous, &fields, true).contains_key(AUTHORIZATION));
    }

    #[test]
    fn an_api_key_is_its_id_and_shop() {
        let shop = shop();
        let key = ApiKey {
            id: KeyId(0xab),
            digest: Digest::from_bytes([0; 32]),
            shop: shop.id,
            expires_at: None,
            grace_until: None,
            networks: Vec::new(),
            limits: Vec::new(),
            last_used_ms: Arc::default(),
        };
        let headers = prepared(&Principal::ShopApiKey { key: &key, shop: &shop }, &[], false);
        assert_eq!(headers["x-auth-mechanism"], "shop_api_key");
        assert_eq!(headers["x-auth-shop-id"], "demo");
        assert_eq!(headers["x-auth-key-id"], "key_00000000000000ab");
        assert_eq!(headers["x-auth-subject"], "-");
        assert_eq!(headers["x-auth-scopes"], "*");
        assert_eq!(headers["x-forwarded-host"], "-");
    }

    #[test]
    fn subjects_are_legible_in_one_way() {
        for (subject, value) in [
            ("auth0|12", "auth0|12"),
            ("a%20b", "a%2520b"),
            ("a\r\nX-Auth-Shop-Id: b", "a%0D%0AX-Auth-Shop-Id: b"),
            ("né", "n%C3%A9"),
            ("", "-"),
            ("  ", "-"),
        ] {
            assert_eq!(encoded(subject), value, "{subject:?}");
        }
    }
}
