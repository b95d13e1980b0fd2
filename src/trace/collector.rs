//! One exchange with a collector: a `POST` of spans, its answer read within bounds, and what that
//! answer means by OTLP/HTTP. How often to try again is the exporter's to say.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::otlp::{self, Resource};
use super::span::Finished;
use crate::clock::{Clock, Timestamp};
use crate::config::{OtlpConfig, read_otlp_headers};
use crate::https::{AGENT, Connector, Trust, connector, with_causes};

/// Bytes of an answer that are read. What is longer says nothing more.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why a collector cannot be spoken to as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its address.
    #[error("tracing.otlp.endpoint: {0}")]
    Endpoint(String),
    /// The file of header fields.
    #[error("tracing.otlp.headers_file: {0}")]
    Headers(String),
    /// The roots to trust.
    #[error("tracing.otlp.ca_file: {0}")]
    Roots(String),
}

/// What came of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// Taken; of so many spans it was said that they were not, and why.
    Taken {
        /// How many were not.
        rejected: u64,
        /// Why; empty when nothing is said.
        message: String,
    },
    /// Not taken, and it may help to try again, not before so long.
    Again {
        /// As the collector asks.
        after: Option<Duration>,
        /// What it said, or what the network did.
        why: String,
    },
    /// Not taken, and it never will be.
    Refused {
        /// What it said.
        why: String,
    },
}

/// A collector, and who we are to it.
pub struct Collector {
    client: Client<Connector, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    resource: Resource,
    /// An exchange.
    pub(super) timeout: Duration,
    /// The longest a span waits for others.
    pub(super) interval: Duration,
    /// Requests that are told of at once.
    pub(super) batch_max: usize,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl Collector {
    /// The collector that `config` names. Reads the files that it names: blocks.
    ///
    /// # Errors
    ///
    /// What is wrong with one of them.
    pub fn new(config: &OtlpConfig) -> Result<Self, Fault> {
        let uri: Uri =
            config.endpoint.parse().map_err(|_| Fault::Endpoint("is not a URL".to_owned()))?;
        let mut headers = HeaderMap::new();
        if let Some(file) = &config.headers_file {
            for (name, value) in read_otlp_headers(file).map_err(Fault::Headers)? {
                headers.append(name, value);
            }
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let is_secure = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        let trust = match &config.ca_file {
            Some(file) => Trust::File(file),
            None if is_secure => Trust::System,
            None => Trust::Nobody,
        };
        let connector = connector(trust).map_err(|error| Fault::Roots(error.to_string()))?;
        let client = Client::builder(TokioExecutor::new())
            // One exchange at a time; a connection is kept from one batch to the next.
            .pool_max_idle_per_host(1)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let instance = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        Ok(Self {
            client,
            uri,
            headers,
            resource: Resource::new(&config.service_name, &instance, &config.resource),
            timeout: config.timeout,
            interval: config.interval,
            batch_max: config.batch_max.get(),
        })
    }

    /// Where it is, for people.
    #[must_use]
    pub fn address(&self) -> String {
        self.uri.to_string()
    }

    /// Tells it of nothing: whether it is there, and takes what we send.
    ///
    /// # Errors
    ///
    /// What the network or the collector says.
    pub async fn probe(&self, clock: &dyn Clock) -> Result<(), String> {
        match self.send(self.encode(&[]), clock).await {
            Reply::Taken { .. } => Ok(()),
            Reply::Again { why, .. } | Reply::Refused { why } => Err(why),
        }
    }

    pub(super) fn encode(&self, batch: &[Finished]) -> Bytes {
        otlp::encode(&self.resource, batch).into()
    }

    /// Sends what was encoded, and waits for the answer, not for longer than the timeout.
    pub(super) async fn send(&self, body: Bytes, clock: &dyn Clock) -> Reply {
        let exchange = self.exchange(body, clock);
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(why)) => Reply::Again { after: None, why },
            Err(_) => {
                let why = format!("no answer within {} ms", self.timeout.as_millis());
                Reply::Again { after: None, why }
            }
        }
    }

    async fn exchange(&self, body: Bytes, clock: &dyn Clock) -> Result<Reply, String> {
        let mut request = Request::post(self.uri.clone());
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
        }
        let request = request.body(Full::new(body)).map_err(|error| with_causes(&error))?;
        let response = self.client.request(request).await.map_err(|error| with_causes(&error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        // The status has said what counts: words that are too many or cut off change nothing.
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let after = retry_after(&parts.headers, clock.now().unix);
        Ok(reply(parts.status, after, &body))
    }
}

/// What an answer means (OTLP/HTTP, "Failures" and "Retryable Response Codes").
fn reply(status: StatusCode, after: Option<Duration>, body: &[u8]) -> Reply {
    if status.is_success() {
        let (rejected, message) = otlp::rejected(body);
        return Reply::Taken { rejected, message };
    }
    let said = otlp::shortened(str::from_utf8(body).unwrap_or_default());
    let why = match said.trim() {
        "" => format!("it answers {}", status.as_u16()),
        said => format!("it answers {}: {said}", status.as_u16()),
    };
    match status.as_u16() {
        429 | 502 | 503 | 504 => Reply::Again { after, why },
        _ => Reply::Refused { why },
    }
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Timestamp::parse_http_date(value).map(|at| at.since(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_means() {
        let reply = |status: u16, body: &str| {
            reply(StatusCode::from_u16(status).unwrap(), None, body.as_bytes())
        };
        for status in [200, 202, 204] {
            let taken = Reply::Taken { rejected: 0, message: String::new() };
            assert_eq!(reply(status, ""), taken);
        }
        let body = r#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}"#;
        assert_eq!(reply(200, body), Reply::Taken { rejected: 2, message: "too old".into() });
        for status in [429, 502, 503, 504] {
            let why = format!("it answers {status}: slow\\u{{1b}}[2J down");
            let why = why.replace("\\u{1b}", " ");
            assert_eq!(reply(status, "slow\u{1b}[2J down"), Reply::Again { after: None, why });
        }
        for status in [301, 307, 400, 401, 403, 404, 413, 500, 501, 505] {
            let why = format!("it answers {status}");
            assert_eq!(reply(status, " \n"), Reply::Refused { why });
        }
    }

    #[test]
    fn when_to_come_back() {
        let now = Timestamp::from_unix_s(784_111_777);
        for (value, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            // In the past: at once.
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(value).unwrap());
            let found = retry_after(&headers, now).map(|after| after.as_secs());
            assert_eq!(found, expected, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
