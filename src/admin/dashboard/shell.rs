//! Around every page: who asks, the time it may take, the headers it gets, failures as pages.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Site;
use super::failure::Failure;
use super::visit::Visit;
use crate::admin::api;
use crate::admin::origin::{self, Reached};

/// The longest a page may take. A stream of events has begun by then.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a page may load, run, send and be framed by.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; font-src 'self'; form-action 'self'; \
    frame-ancestors 'none'; base-uri 'none'";

const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// Answers a request in the frame of who asks.
pub(super) async fn shell(State(site): State<Site>, mut request: Request, next: Next) -> Response {
    if is_of_api(request.uri().path()) {
        return next.run(request).await;
    }
    let visit = Arc::new(Visit::new(
        &site,
        request.method(),
        request.uri(),
        request.headers(),
        request.extensions(),
    ));
    request.extensions_mut().insert(Arc::clone(&visit));
    let is_tcp = request.extensions().get::<Reached>().is_some();
    let answered = tokio::time::timeout(PAGE_TIMEOUT, async {
        if is_tcp { origin::require_known(request, next).await } else { next.run(request).await }
    })
    .await;
    let mut response =
        answered.unwrap_or_else(|_| Failure::timeout(PAGE_TIMEOUT.as_secs()).into_response());
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let frame = visit.frame(failure.title(), "");
        response = failure.page(frame);
    }
    visit.finish(response.headers_mut());
    protect(&mut response);
    response
}

fn protect(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "same-origin"),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
        (PERMISSIONS_POLICY, "camera=(), microphone=(), geolocation=(), interest-cohort=()"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn is_of_api(path: &str) -> bool {
    path.strip_prefix("/api/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What no router knows: the API's problem below its path, a page elsewhere.
pub(super) async fn not_found(request: Request) -> Response {
    if is_of_api(request.uri().path()) {
        return api::not_found().await.into_response();
    }
    Failure::not_found().into_response()
}

/// A page that is asked for in a way it does not answer.
pub(super) async fn method_not_allowed() -> Failure {
    Failure::method_not_allowed()
}
