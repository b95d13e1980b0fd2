//! The few requests that are made of a provider: small, bounded in time and bytes, over TLS that
//! trusts the configured roots, and never redirected.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value};

use crate::admin::percent::encoded;
use crate::https::{self, AGENT, Connector, Trust, connector, with_causes};

/// A whole exchange.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer: an ID token that names some thousand groups.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Why there is no answer to work with, for the operator's log. Repeats nothing a provider sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Not an absolute http(s) URL without user information.
    #[error("the {what} is not an absolute http:// or https:// URL without user name and password")]
    Url {
        /// Whose URL.
        what: &'static str,
    },
    /// The provider speaks https and names an address that does not.
    #[error("the {what} is http although the issuer is https")]
    Downgrade {
        /// Whose URL.
        what: &'static str,
    },
    /// The roots to trust cannot be had.
    #[error("{0}")]
    Roots(String),
    /// No connection, or it broke.
    #[error("{url}: {why}")]
    Network {
        /// What was asked.
        url: String,
        /// What the network said.
        why: String,
    },
    /// It took too long.
    #[error("{url}: no answer within {} s", TIMEOUT.as_secs())]
    Timeout {
        /// What was asked.
        url: String,
    },
    /// An answer that is too long.
    #[error("{url}: its answer is longer than {} KiB", ANSWER_BYTES_MAX / 1024)]
    TooLong {
        /// What was asked.
        url: String,
    },
    /// Something other than 200.
    #[error("{url}: answered {status}; 200 was expected (redirects are not followed)")]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// Not what was to be answered.
    #[error("{url}: {why}")]
    Content {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// An answer: its status and its bytes.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    url: String,
}

impl Answer {
    /// The body as a JSON object, of an answer of success.
    pub(super) fn object(&self) -> Result<Map<String, Value>, Fault> {
        if self.status != StatusCode::OK {
            return Err(self.status());
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(members)) => Ok(members),
            Ok(_) | Err(_) => Err(self.content("the answer is not a JSON object")),
        }
    }

    /// The body as text, of an answer of success.
    pub(super) fn text(&self) -> Result<&str, Fault> {
        if self.status != StatusCode::OK {
            return Err(self.status());
        }
        str::from_utf8(&self.body).map_err(|_| self.content("the answer is not UTF-8"))
    }

    /// The answer is not one of success.
    pub(super) fn status(&self) -> Fault {
        Fault::Status { url: self.url.clone(), status: self.status.as_u16() }
    }

    /// The answer is not what it should be.
    pub(super) fn content(&self, why: &'static str) -> Fault {
        Fault::Content { url: self.url.clone(), why }
    }
}

/// A client with the roots it trusts. Holds no connection between requests: sign-ins are rare.
#[derive(Debug, Clone)]
pub(super) struct Client(HyperClient<Connector, Full<Bytes>>);

impl Client {
    /// A client that trusts the authorities in `ca_file`, or else the system's. Blocks on files.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, Fault> {
        let trust = ca_file.map_or(Trust::System, Trust::File);
        let connector = match connector(trust) {
            // What is https fails then, and says so.
            Err(error @ https::Fault::NoRoots) => {
                tracing::warn!(%error, "no operator is vouched for by https");
                connector(Trust::Nobody)
            }
            made => made,
        };
        let connector = connector.map_err(|error| {
            Fault::Roots(match ca_file {
                Some(_) => format!("admin.oidc.ca_file {error}"),
                None => error.to_string(),
            })
        })?;
        let mut builder = HyperClient::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(0);
        Ok(Self(builder.build(connector)))
    }

    /// `GET`, with a bearer token if there is one.
    pub(super) async fn get(&self, url: &str, bearer: Option<&str>) -> Result<Answer, Fault> {
        let request = Request::get(url);
        let request = match bearer.and_then(|token| secret(&format!("Bearer {token}"))) {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        self.send(url, request, Bytes::new()).await
    }

    /// `POST` of a form, under an `Authorization` if there is one.
    pub(super) async fn post(
        &self,
        url: &str,
        authorization: Option<&str>,
        form: String,
    ) -> Result<Answer, Fault> {
        let request = Request::post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let request = match authorization.and_then(secret) {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        self.send(url, request, form.into()).await
    }

    async fn send(
        &self,
        url: &str,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Answer, Fault> {
        let failed = |why: &dyn std::error::Error| Fault::Network {
            url: url.to_owned(),
            why: with_causes(why),
        };
        let request = request
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, AGENT)
            .body(Full::new(body))
            .map_err(|error| failed(&error))?;
        let exchange = async {
            let response = self.0.request(request).await.map_err(|error| failed(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            match body {
                Ok(body) => Ok(Answer { status, body: body.to_bytes(), url: url.to_owned() }),
                Err(error) if error.is::<LengthLimitError>() => {
                    Err(Fault::TooLong { url: url.to_owned() })
                }
                Err(error) => Err(failed(error.as_ref())),
            }
        };
        let timed_out = |_| Err(Fault::Timeout { url: url.to_owned() });
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(timed_out)
    }
}

/// A header value that is not logged.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether `url` may be asked on behalf of a provider whose issuer is `issuer`; it comes from the
/// provider.
pub(super) fn check_url(what: &'static str, url: &str, issuer: &str) -> Result<(), Fault> {
    let uri: Uri = url.parse().map_err(|_| Fault::Url { what })?;
    let https = uri.scheme() == Some(&Scheme::HTTPS);
    let known = https || uri.scheme() == Some(&Scheme::HTTP);
    let plain = uri.authority().is_some_and(|a| !a.as_str().contains('@'));
    if !known || !plain || url.contains('#') {
        return Err(Fault::Url { what });
    }
    if issuer.starts_with("https://") && !https {
        return Err(Fault::Downgrade { what });
    }
    Ok(())
}

/// `name=value&…` (RFC 6749, appendix B).
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(form(&[("a", "b c&d=é"), ("e", "")]), "a=b%20c%26d%3D%C3%A9&e=");
    }

    #[test]
    fn urls_that_a_provider_may_name() {
        let (https, http) = ("https://idp.example", "http://127.0.0.1:9");
        for (url, issuer, good) in [
            ("https://idp.example/token", https, true),
            ("https://other.example/token?x=1", https, true),
            ("http://idp.example/token", https, false),
            ("http://127.0.0.1:9/token", http, true),
            ("https://idp.example/token", http, true),
            ("https://a:b@idp.example/token", https, false),
            ("https://idp.example/token#x", https, false),
            ("/token", https, false),
            ("ftp://idp.example/", https, false),
            ("javascript:alert(1)", https, false),
            ("", https, false),
        ] {
            assert_eq!(check_url("x", url, issuer).is_ok(), good, "{url} of {issuer}");
        }
    }

    #[test]
    fn roots_that_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        assert!(Client::new(Some(&file)).is_err());
        std::fs::write(&file, "-----BEGIN NOTHING-----\n-----END NOTHING-----\n").unwrap();
        let error = Client::new(Some(&file)).unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }
}
