//! What a handler could not do, on its way to becoming a page.

use std::fmt::Display;

use askama::Template;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use axum::response::{Html, IntoResponse, Response};

use super::frame::Frame;
use crate::admin::api::problem::{FieldError, Problem};
use crate::admin::oidc::Refusal;
use crate::admin::operations::OperationError;

/// Why there is no answer. [`super::shell`] makes it a page, in the frame of who asked.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    status: StatusCode,
    title: &'static str,
    detail: String,
    /// What is wrong with what was sent, one by one.
    problems: Vec<FieldError>,
    retry_after_s: Option<u64>,
    /// Where to go instead.
    go: Option<String>,
}

impl Failure {
    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        let (problems, detail) = (Vec::new(), detail.into());
        Self { status, title, detail, problems, retry_after_s: None, go: None }
    }

    /// There is no such page, or nothing by that name.
    pub(super) fn not_found() -> Self {
        let detail = "There is nothing at this address. It may have been deleted, or the address \
                      may be mistyped.";
        Self::new(StatusCode::NOT_FOUND, "Not found", detail)
    }

    /// The page is there, but not for this.
    pub(super) fn method_not_allowed() -> Self {
        let detail = "This address does not take that kind of request. Go back and use the page's \
                      own buttons.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Not done here", detail)
    }

    /// Only for who has signed in; `back` is where it was going.
    pub(super) fn signed_out(back: &str) -> Self {
        let to = if back == "/" {
            "/sign-in".to_owned()
        } else {
            format!("/sign-in?next={}", crate::admin::percent::encoded(back))
        };
        let mut this = Self::new(StatusCode::SEE_OTHER, "Sign in", "This page needs a sign-in.");
        this.go = Some(to);
        this
    }

    /// Another site's page sent it.
    pub(super) fn cross_site() -> Self {
        let detail = "This form was sent by a page that is not part of this dashboard, so nothing \
                      was done. If you did mean it, open the dashboard at its usual address and \
                      try again there. If it is behind a proxy, `admin.public_url` has to name \
                      the address in your browser.";
        Self::new(StatusCode::FORBIDDEN, "Sent by another site", detail)
    }

    /// The form's token is not the session's.
    pub(super) fn stale_form() -> Self {
        let detail = "The form belongs to another session: you may have signed out or in again \
                      since it was opened. Nothing was done. Go back, reload the page and send \
                      it again.";
        Self::new(StatusCode::FORBIDDEN, "The form is out of date", detail)
    }

    /// It cannot be read as a form.
    pub(super) fn bad_form(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "The form cannot be read", detail)
    }

    /// It is more than is read.
    pub(super) fn too_large(bytes_max: usize) -> Self {
        let detail = format!("A form may have up to {} KiB. Send less at once.", bytes_max / 1024);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Too much at once", detail)
    }

    /// Too often.
    pub(super) fn throttled(detail: impl Into<String>, seconds: u64) -> Self {
        let mut this = Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many attempts", detail);
        this.retry_after_s = Some(seconds.max(1));
        this
    }

    /// Not now.
    pub(super) fn busy(detail: impl Into<String>) -> Self {
        let mut this = Self::new(StatusCode::SERVICE_UNAVAILABLE, "Busy", detail);
        this.retry_after_s = Some(2);
        this
    }

    /// It took too long.
    pub(super) fn timeout(seconds: u64) -> Self {
        let detail = format!("There was no answer within {seconds} s. Try again in a moment.");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "It took too long", detail)
    }

    /// The browser is not where it should be, and was sent there once already.
    pub(super) fn elsewhere(public_url: &str) -> Self {
        let detail = format!(
            "Signing in with the identity provider works at {public_url} (admin.public_url) only, \
             and this request did not come from there. If a proxy is in between, it has to pass \
             Host on as it came, or send X-Forwarded-Host and be in admin.trusted_proxies."
        );
        Self::new(StatusCode::MISDIRECTED_REQUEST, "At another address", detail)
    }

    /// Known, and not let in.
    pub(super) fn not_let_in(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Not let in", sentence(detail))
    }

    /// A fault of latchkey itself.
    pub(super) fn internal(error: &dyn Display) -> Self {
        tracing::error!(%error, "a page of the dashboard failed");
        let detail = "latchkey could not make this page. Its log says why.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong", detail)
    }

    pub(super) fn title(&self) -> &'static str {
        self.title
    }

    /// The page.
    pub(super) fn page(self, frame: Frame) -> Response {
        let Self { status, title, detail, problems, retry_after_s, go } = self;
        let signed_in = frame.who.is_some();
        let shown =
            ErrorPage { frame, status: status.as_u16(), title, detail, problems, signed_in };
        let html = shown.render().unwrap_or_else(|_| title.to_owned());
        let mut response = (status, Html(html)).into_response();
        if let Some(seconds) = retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(location) = go.and_then(|to| HeaderValue::try_from(to).ok()) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    status: u16,
    title: &'static str,
    detail: String,
    problems: Vec<FieldError>,
    signed_in: bool,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let detail = sentence(&refusal.to_string());
        let not_signed_in = |status| Self::new(status, "Not signed in", detail.clone());
        match refusal {
            Refusal::NotConfigured => Self { detail, ..Self::not_found() },
            Refusal::NotBegun => not_signed_in(StatusCode::BAD_REQUEST),
            Refusal::NoRole | Refusal::NoName | Refusal::Denied(_) => Self::not_let_in(&detail),
            Refusal::Answer | Refusal::Code | Refusal::Client | Refusal::Token(_) => {
                not_signed_in(StatusCode::BAD_GATEWAY)
            }
            Refusal::Throttled(seconds) => Self::throttled(detail, seconds),
            Refusal::Busy => Self::busy(detail),
            Refusal::Unreachable | Refusal::Entropy => {
                Self { retry_after_s: Some(5), ..not_signed_in(StatusCode::SERVICE_UNAVAILABLE) }
            }
        }
    }
}

impl From<OperationError> for Failure {
    /// The same status and words as the API's.
    fn from(error: OperationError) -> Self {
        let (code, detail, problems, retry_after_s) = Problem::from(error).into_parts();
        let detail = if problems.is_empty() {
            sentence(&detail)
        } else {
            "Nothing was done, because of what was sent:".to_owned()
        };
        let this = Self::new(code.status(), code.title(), detail);
        Self { problems, retry_after_s, ..this }
    }
}

/// With a capital at its start and a full stop at its end.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    let first = chars.next().map(char::to_uppercase);
    let mut sentence: String = first.into_iter().flatten().chain(chars).collect();
    sentence.push('.');
    sentence
}

/// Carries the failure to [`super::shell`], which knows who asked.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
