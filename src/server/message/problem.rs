//! Responses of latchkey's own: problems (RFC 9457), and the limit headers on every response
//! (draft-ietf-httpapi-ratelimit-headers-10, RFC 9651).
//!
//! Says what it is told to: codes, words and waits come from the denial or the failure.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use serde::Serialize;

use super::fields::{X_REQUEST_ID, owned};
use crate::clock::Timestamp;
use crate::decision::LimitReport;
use crate::decision::denial::{Code, Denial};
use crate::server::request_id::RequestId;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What a refused caller is told.
#[derive(Debug)]
pub(in crate::server) struct Problem<'a> {
    pub(in crate::server) code: Code,
    pub(in crate::server) detail: Cow<'a, str>,
    /// Until it is worth trying again, microseconds.
    pub(in crate::server) retry_after_us: Option<u64>,
    /// `WWW-Authenticate`.
    pub(in crate::server) challenge: Option<Cow<'static, str>>,
    /// Where the caller stands.
    pub(in crate::server) limit: Option<LimitHeaders>,
}

impl<'a> Problem<'a> {
    /// A problem of the server's, not of the decision's.
    pub(in crate::server) fn new(code: Code, detail: impl Into<Cow<'a, str>>) -> Self {
        // A 503 is never permanent; nothing is known of when it passes but that it may at once.
        let retry_after_us = (code.status() == 503).then_some(1_000_000);
        Self { code, detail: detail.into(), retry_after_us, challenge: None, limit: None }
    }

    /// The problem that a denial is.
    pub(in crate::server) fn of(denial: &Denial<'_>, limit: Option<LimitHeaders>) -> Self {
        Self {
            code: denial.code(),
            detail: denial.detail(),
            retry_after_us: denial.retry_after_us(),
            challenge: denial.challenge(),
            limit,
        }
    }

    /// The response.
    pub(in crate::server) fn into_response(self, id: &RequestId) -> Response<Bytes> {
        let mut response = Response::new(body(self.code, &self.detail, id));
        *response.status_mut() = status(self.code);
        // For the account of the request.
        response.extensions_mut().insert(self.code);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(CACHE_CONTROL, NO_STORE);
        headers.insert(X_REQUEST_ID, request_id(id));
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, owned(challenge.into_owned()));
        }
        if let Some(us) = self.retry_after_us {
            headers.insert(RETRY_AFTER, HeaderValue::from(retry_after_s(us)));
        }
        if let Some(limit) = self.limit {
            limit.apply(headers);
        }
        if matches!(self.code, Code::PayloadTooLarge | Code::RequestTimeout) {
            // The rest of the body is not read.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A problem as bytes, for a connection that hyper does not answer on; it is the last response.
pub(in crate::server) fn raw_problem(code: Code, detail: Cow<'_, str>, id: &RequestId) -> Vec<u8> {
    let mut response = Problem::new(code, detail).into_response(id);
    let status = response.status();
    let length = HeaderValue::from(response.body().len());
    response.headers_mut().insert(http::header::CONTENT_LENGTH, length);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(response.body());
    bytes
}

/// A response of latchkey's own that holds JSON; never cached, it may hold a token.
pub(in crate::server) fn json(status: StatusCode, body: Bytes, id: &RequestId) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(X_REQUEST_ID, request_id(id));
    response
}

/// The request's name as a header value.
pub(in crate::server) fn request_id(id: &RequestId) -> HeaderValue {
    HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("-"))
}

fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// `Retry-After`: rounded up, so that after that wait the request passes.
fn retry_after_s(us: u64) -> u64 {
    us.div_ceil(1_000_000).max(1)
}

/// The members of RFC 9457 §3.1, and ours.
#[derive(Serialize)]
struct Members<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
}

fn body(code: Code, detail: &str, id: &RequestId) -> Bytes {
    let mut r#type = String::with_capacity(48);
    r#type.push_str("urn:latchkey:problem:");
    r#type.push_str(code.as_str());
    let members = Members {
        r#type: &r#type,
        title: code.title(),
        status: code.status(),
        detail,
        code: code.as_str(),
        request_id: id,
    };
    // Serializing strings and a number into memory cannot fail.
    serde_json::to_vec(&members).unwrap_or_default().into()
}

/// `RateLimit-Policy`, `RateLimit`, and unless switched off `X-RateLimit-*`.
#[derive(Debug)]
pub(in crate::server) struct LimitHeaders {
    policy: HeaderValue,
    limit: HeaderValue,
    x: Option<[HeaderValue; 3]>,
}

impl LimitHeaders {
    /// What `report` says at `now`.
    pub(in crate::server) fn new(
        report: &LimitReport<'_>,
        now: Timestamp,
        x_ratelimit: bool,
    ) -> Self {
        let (name, quota, standing) = (report.policy, &report.quota, &report.standing);
        let reset_s = standing.reset_us.div_ceil(1_000_000);
        let mut policy = String::with_capacity(96);
        let mut limit = String::with_capacity(96);
        // Writing into a string cannot fail. Names are safe inside quotes.
        let _ = write!(policy, "\"{name}\";q={};w={}", quota.limit, quota.window_s());
        let _ = write!(limit, "\"{name}\";r={};t={reset_s}", standing.remaining);
        let x = x_ratelimit.then(|| {
            let reset_ms = now.unix_ms().saturating_add(standing.reset_us.div_ceil(1000));
            [
                HeaderValue::from(quota.limit.get()),
                HeaderValue::from(standing.remaining),
                HeaderValue::from(reset_ms.div_ceil(1000)),
            ]
        });
        Self { policy: owned(policy), limit: owned(limit), x }
    }

    /// Sets them.
    pub(in crate::server) fn apply(self, headers: &mut HeaderMap) {
        headers.insert(RATELIMIT_POLICY, self.policy);
        headers.insert(RATELIMIT, self.limit);
        if let Some([limit, remaining, reset]) = self.x {
            headers.insert(X_RATELIMIT_LIMIT, limit);
            headers.insert(X_RATELIMIT_REMAINING, remaining);
            headers.insert(X_RATELIMIT_RESET, reset);
        }
    }
}

/// Removes an upstream's own limit headers: two that disagree would help nobody.
pub(in crate::server) fn remove_limit_headers(headers: &mut HeaderMap) {
    for name in
        [RATELIMIT_POLICY, RATELIMIT, X_RATELIMIT_LIMIT, X_RATELIMIT_REMAINING, X_RATELIMIT_RESET]
    {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decision::rate_limit::{Quota, Standing};
    use crate::id::Name;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn id() -> RequestId {
        RequestId::from(ID).unwrap()
    }

    fn limit(reset_us: u64, remaining: u32, x: bool) -> LimitHeaders {
        let name = Name::parse("search").unwrap();
        let report = LimitReport {
            policy: &name,
            quota: Quota::new(100, Duration::from_millis(60_001)).unwrap(),
            standing: Standing { remaining, reset_us, exceeded: false },
        };
        LimitHeaders::new(&report, Timestamp::from_unix_ms(1_700_000_000_500), x)
    }

    #[test]
    fn limit_headers() {
        let mut headers = HeaderMap::new();
        limit(16_000_001, 42, true).apply(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"search\";q=100;w=61");
        assert_eq!(headers["ratelimit"], "\"search\";r=42;t=17");
        assert_eq!(headers["x-ratelimit-limit"], "100");
        assert_eq!(headers["x-ratelimit-remaining"], "42");
        assert_eq!(headers["x-ratelimit-reset"], "1700000017");
        let mut headers = HeaderMap::new();
        limit(0, 0, false).apply(&mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["ratelimit"], "\"search\";r=0;t=0");
    }

    #[test]
    fn retry_after_is_never_early() {
        for (us, s) in [(0, 1), (1, 1), (1_000_000, 1), (1_000_001, 2), (59_999_999, 60)] {
            assert_eq!(retry_after_s(us), s);
        }
    }

    #[test]
    fn problems() {
        let name = Name::parse("search").unwrap();
        let denial = Denial::RateLimited { policy: &name, retry_after_us: 1_500_000 };
        let problem = Problem::of(&denial, Some(limit(1_500_000, 0, false)));
        let response = problem.into_response(&id());
        assert_eq!(response.status(), 429);
        let headers = response.headers();
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert_eq!(headers[RETRY_AFTER], "2");
        assert_eq!(headers["ratelimit"], "\"search\";r=0;t=2");
        assert_eq!(headers["x-request-id"], ID);
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["type"], "urn:latchkey:problem:rate_limited");
        assert_eq!(body["status"], 429);
        assert_eq!(body["code"], "rate_limited");
        assert_eq!(body["request_id"], ID);
        assert!(body["detail"].as_str().unwrap().contains("search"));
        assert!(body["title"].is_string());
    }

    #[test]
    fn every_code_makes_a_problem_and_503_says_when() {
        for code in Code::ALL {
            let response = Problem::new(code, "x").into_response(&id());
            assert_eq!(response.status().as_u16(), code.status());
            assert_eq!(response.headers().contains_key(RETRY_AFTER), code.status() == 503);
            let raw = String::from_utf8(raw_problem(code, "x".into(), &id())).unwrap();
            let (head, body) = raw.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {} ", code.status())));
            assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
            assert!(head.contains("\r\nconnection: close"));
        }
    }
}
