//! Refusals and failures as `application/problem+json` (RFC 9457).
//!
//! Codes of the admin plane only; those of the data plane are `decision::denial::Code`.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::operations::{FieldProblem, OperationError};

/// The stable codes of the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is its `as_str` and `title`")]
pub enum Code {
    MalformedJson,
    BadRequest,
    MissingCredential,
    InvalidCredential,
    ExpiredCredential,
    InsufficientRole,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    PreconditionFailed,
    PayloadTooLarge,
    UnsupportedMediaType,
    Invalid,
    IdempotencyConflict,
    RateLimited,
    Internal,
    UpstreamError,
    StoreUnavailable,
    Unavailable,
}

impl Code {
    /// The `code` member.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::BadRequest => "bad_request",
            Self::MissingCredential => "missing_credential",
            Self::InvalidCredential => "invalid_credential",
            Self::ExpiredCredential => "expired_credential",
            Self::InsufficientRole => "insufficient_role",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition_failed",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Invalid => "invalid",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
            Self::UpstreamError => "upstream_error",
            Self::StoreUnavailable => "store_unavailable",
            Self::Unavailable => "unavailable",
        }
    }

    /// The status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::MalformedJson | Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::MissingCredential | Self::InvalidCredential | Self::ExpiredCredential => {
                StatusCode::UNAUTHORIZED
            }
            Self::InsufficientRole => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid | Self::IdempotencyConflict => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UpstreamError => StatusCode::BAD_GATEWAY,
            Self::StoreUnavailable | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The `title` member: the same for every occurrence (RFC 9457 §3.1.4).
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::MalformedJson => "Body is not JSON",
            Self::BadRequest => "Malformed request",
            Self::MissingCredential => "Credential missing",
            Self::InvalidCredential => "Credential not valid",
            Self::ExpiredCredential => "Credential expired",
            Self::InsufficientRole => "Role not sufficient",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::RequestTimeout => "Request took too long",
            Self::Conflict => "Conflict with what exists",
            Self::PreconditionFailed => "Changed since",
            Self::PayloadTooLarge => "Request body too large",
            Self::UnsupportedMediaType => "Content type not supported",
            Self::Invalid => "Input not acceptable",
            Self::IdempotencyConflict => "Idempotency key used before",
            Self::RateLimited => "Too many failed attempts",
            Self::Internal => "Internal error",
            Self::UpstreamError => "Identity provider failed",
            Self::StoreUnavailable => "Store unavailable",
            Self::Unavailable => "Not available now",
        }
    }
}

/// A fault of one member of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Where: a member of the body or a parameter, as a path such as `networks[2]`.
    pub field: String,
    /// What is wrong.
    pub detail: String,
}

impl From<FieldProblem> for FieldError {
    fn from(problem: FieldProblem) -> Self {
        Self { field: problem.field, detail: problem.problem }
    }
}

/// What the client is told, as JSON (RFC 9457 §3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// `about:blank`: `code` says what the problem is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every occurrence of `code`.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What was wrong this time, and what to do.
    pub detail: String,
    /// What clients branch on.
    pub code: String,
    /// Every fault of the input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// A refusal or failure on its way out.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    challenge: Option<&'static str>,
    retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem without further members.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            challenge: None,
            retry_after_s: None,
        }
    }

    /// One fault of the input.
    #[must_use]
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::from(OperationError::invalid(field, detail))
    }

    /// A fault of a parameter of the query or of a header field.
    #[must_use]
    pub(super) fn bad_parameter(name: &str, detail: impl Into<String>) -> Self {
        let error = FieldError { field: name.to_owned(), detail: detail.into() };
        let detail = format!("{}: {}", error.field, error.detail);
        Self { errors: vec![error], ..Self::new(Code::BadRequest, detail) }
    }

    /// What it is, for who branches on it.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// For who speaks of it otherwise than in JSON: what it is, what was wrong and what to do, the
    /// faults of the input, and seconds to wait.
    pub(in crate::admin) fn into_parts(self) -> (Code, String, Vec<FieldError>, Option<u64>) {
        (self.code, self.detail, self.errors, self.retry_after_s)
    }

    /// With the challenge of a 401 (RFC 9110 §11.6.1).
    #[must_use]
    pub(super) fn with_challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// With what is wrong, one by one.
    #[must_use]
    pub(super) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// What the client is told.
    #[must_use]
    pub(super) fn into_body(self) -> ProblemBody {
        ProblemBody {
            kind: "about:blank".to_owned(),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.detail,
            code: self.code.as_str().to_owned(),
            errors: self.errors,
        }
    }

    /// With `Retry-After`.
    #[must_use]
    pub(super) fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds.max(1));
        self
    }
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        let detail = error.to_string();
        match error {
            OperationError::NotFound(_) => {
                Self::new(Code::NotFound, format!("{}.", capitalized(&detail)))
            }
            OperationError::Forbidden { .. } => {
                Self::new(Code::InsufficientRole, format!("{}.", capitalized(&detail)))
            }
            OperationError::Conflict(_) => {
                Self::new(Code::Conflict, format!("{}.", capitalized(&detail)))
            }
            OperationError::PreconditionFailed => {
                Self::new(Code::PreconditionFailed, format!("{}.", capitalized(&detail)))
            }
            OperationError::IdempotencyConflict => {
                Self::new(Code::IdempotencyConflict, format!("{}.", capitalized(&detail)))
            }
            OperationError::Invalid(problems) => Self {
                errors: problems.into_iter().map(FieldError::from).collect(),
                ..Self::new(Code::Invalid, detail)
            },
            // The path and what the system said are the operator's to know, and so is this API.
            OperationError::Store(_) => {
                tracing::error!(error = %detail, "the store refused an operation");
                Self::new(Code::StoreUnavailable, detail).with_retry_after(5)
            }
            OperationError::Files(_) => {
                tracing::error!(error = %detail, "a file could not be used");
                let detail = format!("{}.", capitalized(&detail));
                Self::new(Code::Unavailable, detail).with_retry_after(60)
            }
            OperationError::TooMany { wait } => {
                Self::new(Code::RateLimited, format!("{}.", capitalized(&detail)))
                    .with_retry_after(wait.as_secs().saturating_add(1))
            }
            OperationError::Busy => {
                Self::new(Code::Unavailable, format!("{}.", capitalized(&detail)))
                    .with_retry_after(2)
            }
            OperationError::PasswordUnusable | OperationError::Interrupted => {
                tracing::error!(error = %detail, "an operation of the admin API failed");
                Self::new(Code::Internal, format!("{}.", capitalized(&detail)))
            }
            OperationError::TooManyListeners(_) => {
                Self::new(Code::Unavailable, format!("{}.", capitalized(&detail)))
                    .with_retry_after(30)
            }
            OperationError::Entropy(_) => Self::new(Code::Unavailable, detail).with_retry_after(5),
        }
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, challenge, retry_after_s) =
            (self.code.status(), self.challenge, self.retry_after_s);
        let mut response = (status, Json(self.into_body())).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
