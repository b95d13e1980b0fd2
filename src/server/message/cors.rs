//! The header fields of CORS (Fetch standard §3.2), as they are written.
//!
//! Who may read what is the decision core's to say. `Access-Control-Allow-Credentials` is never
//! sent: credentials travel in fields of their own, never in cookies, so that no page can spend
//! those of the browser it runs in; and the origin is named, never `*`.

use std::fmt::Display;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderMap, HeaderName, HeaderValue,
    VARY,
};
use http::{Response, StatusCode};

use super::fields::{X_REQUEST_ID, owned};
use super::problem;
use crate::config::CorsConfig;
use crate::decision::cors::{Offer, Sharing};
use crate::server::request_id::RequestId;

/// What scripts may read of every response besides what a browser always shows them.
const EXPOSED: [&str; 8] = [
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-Id",
    "WWW-Authenticate",
];

const VARY_BY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const VARY_BY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);

/// The fields that the configuration settles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct CorsFields {
    max_age: HeaderValue,
    expose: HeaderValue,
    request_headers: Vec<HeaderName>,
}

impl CorsFields {
    /// What `config` asks for.
    pub(in crate::server) fn new(config: &CorsConfig) -> Self {
        let configured = config.expose_headers.iter().map(HeaderName::as_str);
        let known = |name: &&str| EXPOSED.iter().any(|known| known.eq_ignore_ascii_case(name));
        let configured = configured.filter(|name| !known(name));
        Self {
            max_age: HeaderValue::from(config.max_age.as_secs()),
            expose: list(EXPOSED.into_iter().chain(configured)),
            request_headers: config.request_headers.clone(),
        }
    }

    /// The answer to an allowed preflight of a page on `origin`.
    pub(in crate::server) fn preflight(
        &self,
        offer: &Offer<'_>,
        origin: HeaderValue,
        id: &RequestId,
    ) -> Response<Bytes> {
        let credentials: Vec<HeaderName> = offer.credential_fields().collect();
        let others = self.request_headers.iter().filter(|name| !credentials.contains(name));
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, list(offer.methods()));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, list(credentials.iter().chain(others)));
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        headers.insert(VARY, VARY_BY_PREFLIGHT);
        headers.insert(X_REQUEST_ID, problem::request_id(id));
        response
    }

    /// Tells browsers and caches whether the page on `origin` may read a response.
    pub(in crate::server) fn share(
        &self,
        headers: &mut HeaderMap,
        sharing: Sharing,
        origin: Option<HeaderValue>,
    ) {
        if sharing == Sharing::Unshared {
            return;
        }
        if !varies_by_origin(headers) {
            headers.append(VARY, VARY_BY_ORIGIN);
        }
        if let (Sharing::Shared, Some(origin)) = (sharing, origin) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone());
        }
    }
}

/// Has a refused preflight say what its answer depends on.
pub(in crate::server) fn vary_by_preflight(headers: &mut HeaderMap) {
    headers.insert(VARY, VARY_BY_PREFLIGHT);
}

/// Whether the response says so already, or that it depends on everything.
fn varies_by_origin(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(VARY).iter().map(HeaderValue::as_bytes);
    let mut names = lists.flat_map(|list| list.split(|b| *b == b','));
    names.any(|name| {
        matches!(name.trim_ascii(), b"*") || name.trim_ascii().eq_ignore_ascii_case(b"origin")
    })
}

fn list<T: Display>(items: impl Iterator<Item = T>) -> HeaderValue {
    let mut text = String::with_capacity(128);
    for item in items {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&item.to_string());
    }
    owned(text)
}
