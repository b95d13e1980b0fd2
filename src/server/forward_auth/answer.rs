//! What a proxy is told: 200 for yes, and a no in the form that this proxy passes on.
//!
//! A yes has no body and always every identity field, since to some proxies a field that is
//! missing or empty means "leave what the client sent". A no is the response that the client
//! would have got from latchkey itself, so far as the proxy can carry it:
//!
//! * nginx knows 401 and 403 only and passes no body on. Every other status travels as 403; the
//!   true one is in `X-Auth-Status`, the body in `X-Auth-Problem`, and the snippet puts both back.
//! * Envoy takes a 5xx for a failure of latchkey's, which a careless setting turns into a yes: it
//!   travels as 403 with `X-Auth-Status`, and the snippet puts it back.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::config::Contract;
use crate::decision::Admitted;
use crate::server::message::fields;
use crate::server::message::problem::{self, LimitHeaders};
use crate::server::request_id::RequestId;

/// The status that a client should see.
const X_AUTH_STATUS: HeaderName = HeaderName::from_static("x-auth-status");
/// The body that a client should see, in ASCII.
const X_AUTH_PROBLEM: HeaderName = HeaderName::from_static("x-auth-problem");

/// Yes. Only an [`Admitted`] becomes one.
pub(in crate::server) fn allow(
    admitted: &Admitted<'_>,
    limit: Option<LimitHeaders>,
    assertion: Option<HeaderValue>,
    id: &RequestId,
) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    fields::identify(headers, admitted.principal());
    headers.insert(fields::X_REQUEST_ID, problem::request_id(id));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(assertion) = assertion {
        headers.insert(fields::X_AUTH_ASSERTION, assertion);
    }
    if let Some(limit) = limit {
        limit.apply(headers);
    }
    response
}

/// No: `response` is what the client would get from latchkey itself.
pub(in crate::server) fn deny(
    contract: Contract,
    mut response: Response<Bytes>,
) -> Response<Bytes> {
    let status = response.status();
    let carried = match contract {
        Contract::Nginx => matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
        Contract::Envoy => status.is_client_error(),
        // A 2xx would be a yes.
        Contract::Traefik | Contract::Caddy | Contract::HaProxy => !status.is_success(),
    };
    if contract == Contract::Nginx {
        let problem = ascii(response.body());
        response.headers_mut().insert(X_AUTH_PROBLEM, fields::owned(problem));
    }
    if contract == Contract::Nginx || !carried {
        response.headers_mut().insert(X_AUTH_STATUS, HeaderValue::from(status.as_u16()));
    }
    if !carried {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    response
}

/// `json` without the bytes that a header cannot hold: JSON has escapes for all of them, and
/// compact JSON has none of them outside of strings.
fn ascii(json: &[u8]) -> String {
    let json = String::from_utf8_lossy(json);
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, ' '..='~') {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing into a string cannot fail.
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_TYPE, RETRY_AFTER};

    use super::*;
    use crate::decision::denial::Code;
    use crate::server::message::problem::Problem;

    fn denied(contract: Contract, code: Code) -> Response<Bytes> {
        let id = RequestId::from("0123456789abcdef0123456789abcdef").unwrap();
        let mut problem = Problem::new(code, "a “detail”");
        problem.retry_after_us = Some(7_000_000);
        deny(contract, problem.into_response(&id))
    }

    #[test]
    fn every_no_is_one_that_the_proxy_takes_for_a_no() {
        for contract in Contract::ALL {
            for code in Code::ALL {
                let response = denied(contract, code);
                let status = response.status().as_u16();
                let truth = code.status();
                let told = match contract {
                    Contract::Nginx => matches!(truth, 401 | 403),
                    Contract::Envoy => truth < 500,
                    Contract::Traefik | Contract::Caddy | Contract::HaProxy => true,
                };
                let expected = if told { truth } else { 403 };
                assert_eq!(status, expected, "{contract:?} {code:?}");
                let told = response.headers().get(X_AUTH_STATUS);
                let told = told.map_or(status, |s| s.to_str().unwrap().parse().unwrap());
                assert_eq!(told, truth, "{contract:?} {code:?}");
                assert_eq!(response.headers()[RETRY_AFTER], "7");
                assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
                let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
                assert_eq!(body["code"], code.as_str());
            }
        }
    }

    #[test]
    fn nginx_gets_the_body_in_a_header() {
        let response = denied(Contract::Nginx, Code::RateLimited);
        let problem = response.headers()[X_AUTH_PROBLEM].to_str().unwrap();
        assert!(problem.contains("\\u201c"), "{problem}");
        let (problem, body): (serde_json::Value, serde_json::Value) = (
            serde_json::from_str(problem).unwrap(),
            serde_json::from_slice(response.body()).unwrap(),
        );
        assert_eq!(problem, body);
        assert!(!denied(Contract::Caddy, Code::RateLimited).headers().contains_key(X_AUTH_PROBLEM));
    }

    #[test]
    fn a_success_is_never_a_no() {
        for contract in Contract::ALL {
            let response = Response::builder().status(204).body(Bytes::new()).unwrap();
            assert_eq!(deny(contract, response).status(), 403);
        }
    }
}
