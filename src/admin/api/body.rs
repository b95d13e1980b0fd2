//! Reading requests: bodies, paths, queries, and idempotency keys, with every fault a problem.

use axum::body::{Body as HttpBody, Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::Idempotency;
use crate::clock::Timestamp;

/// Most bytes of a body.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// The items of a page where no limit is asked for, and the most that can be.
const PAGE_LIMIT: usize = 100;
const PAGE_LIMIT_MAX: usize = 1000;

/// Longest `Idempotency-Key`.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The field name of an idempotency key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A JSON body, and its bytes.
#[derive(Debug)]
pub(super) struct Body<T> {
    pub(super) value: T,
    pub(super) raw: Bytes,
}

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        require_json(&parts.headers)?;
        let raw = read(body).await?;
        Ok(Self { value: parse(&raw)?, raw })
    }
}

/// A JSON body, or none: then `T`'s default.
#[derive(Debug)]
pub(super) struct OptionalBody<T> {
    pub(super) value: T,
    pub(super) raw: Bytes,
}

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let raw = read(body).await?;
        if raw.is_empty() {
            return Ok(Self { value: T::default(), raw });
        }
        require_json(&parts.headers)?;
        if raw.trim_ascii() == b"null" {
            return Ok(Self { value: T::default(), raw });
        }
        Ok(Self { value: parse(&raw)?, raw })
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.and_then(|text| text.split(';').next()).map(str::trim);
    if essence.is_some_and(|e| e.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let detail = "Send the body as JSON, with `Content-Type: application/json`.";
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

async fn read(body: HttpBody) -> Result<Bytes, Problem> {
    to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
        let too_long = std::error::Error::source(&error)
            .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>);
        if too_long {
            let detail = format!("A body may hold at most {BODY_BYTES_MAX} bytes.");
            return Problem::new(Code::PayloadTooLarge, detail);
        }
        Problem::new(Code::BadRequest, "The body ended early.")
    })
}

fn parse<T: DeserializeOwned>(raw: &[u8]) -> Result<T, Problem> {
    // Serde takes the members of a list for those of an object, in their order.
    if raw.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::invalid("", "is a list; send an object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(raw);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            let field = if path == "." { String::new() } else { path };
            return Problem::invalid(field, without_place(&inner));
        }
        malformed(&inner)
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let detail = format!("The body is not JSON: line {line}, column {column}.");
    Problem::new(Code::MalformedJson, detail)
}

/// What serde says, less " at line 1 column 7": the field says where.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

/// Ids in the path; what is no id names nothing.
#[derive(Debug)]
pub(super) struct Segments<T>(pub(super) T);

impl<S: Sync + Send, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        let none = |_| Problem::new(Code::NotFound, "Nothing has an id of this form.");
        path.map(|Path(ids)| Self(ids)).map_err(none)
    }
}

/// Parameters of the query; an unknown one is refused.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Sync + Send, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        query.map(|axum::extract::Query(value)| Self(value)).map_err(|error| {
            let error = error.body_text();
            let reason = error.split_once(": ").map_or(error.as_str(), |(_, reason)| reason);
            Problem::bad_parameter("query", reason)
        })
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    pub(super) limit: Option<String>,
    pub(super) cursor: Option<String>,
}

impl PageQuery {
    /// Of a query that has further parameters.
    pub(super) fn new(limit: Option<String>, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }

    /// How many items, and after which id. Cursors are ids, spelt so that nobody builds one.
    pub(super) fn parse<I>(
        &self,
        id: impl FnOnce(&str) -> Option<I>,
    ) -> Result<(usize, Option<I>), Problem> {
        let limit = match &self.limit {
            None => PAGE_LIMIT,
            Some(text) => {
                text.parse().ok().filter(|limit| (1..=PAGE_LIMIT_MAX).contains(limit)).ok_or_else(
                    || {
                        let detail = format!("is not a number from 1 to {PAGE_LIMIT_MAX}");
                        Problem::bad_parameter("limit", detail)
                    },
                )?
            }
        };
        let Some(cursor) = &self.cursor else { return Ok((limit, None)) };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let after = text.as_deref().and_then(id).ok_or_else(|| {
            Problem::bad_parameter("cursor", "is not a `next_cursor` of this list; leave it out")
        })?;
        Ok((limit, Some(after)))
    }
}

/// The cursor of the page after the item of this id.
pub(super) fn cursor_after(id: &impl ToString) -> String {
    URL_SAFE_NO_PAD.encode(id.to_string())
}

/// `Idempotency-Key`, and what it is for.
#[derive(Debug)]
pub(super) struct IdempotencyKey {
    key: Option<String>,
    target: String,
}

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let target = format!("{} {}", parts.method, parts.uri.path());
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self { key: None, target }) };
        let text = value.to_str().unwrap_or_default();
        if values.next().is_some() || text.is_empty() || text.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let detail = "send one Idempotency-Key of 1 to 255 visible ASCII characters";
            return Err(Problem::bad_parameter("Idempotency-Key", detail));
        }
        Ok(Self { key: Some(text.to_owned()), target })
    }
}

impl IdempotencyKey {
    /// Bound to the caller and the request's bytes. Digested, so that what a client chose as its
    /// key stands nowhere in the database.
    pub(super) fn bind(&self, node: &Node, caller: &Caller, raw: &[u8]) -> Option<Idempotency> {
        let key = self.key.as_ref()?;
        let label = caller.label();
        let mut request = self.target.clone().into_bytes();
        request.push(0);
        request.extend_from_slice(raw);
        Some(Idempotency {
            key: *node
                .pepper()
                .digest(format!("idempotency\0{label}\0{key}").as_bytes())
                .as_bytes(),
            fingerprint: *node.pepper().digest(&request).as_bytes(),
        })
    }
}

/// A date-time of the input.
pub(super) fn date_time(field: &str, text: &str) -> Result<Timestamp, Problem> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| {
        Problem::invalid(field, "is not an RFC 3339 date-time such as 2030-01-31T12:00:00Z")
    })
}

/// An id as the value of a `Location`; ids are ASCII.
pub(super) fn location(path: &str) -> HeaderValue {
    HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/api/v1"))
}
