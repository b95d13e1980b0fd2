//! The admin API: `/api/v1` in JSON, described by `/api/v1/openapi.json`; health and metrics
//! beside it.
//!
//! This module translates: requests into [`operations`](super::operations), their results and
//! errors into JSON. Everything that touches the disk runs where it may block.

mod admin_tokens;
mod assertion_keys;
pub(super) mod audit;
pub(super) mod auth;
pub(super) mod backups;
mod body;
mod conditions;
pub mod dto;
mod dto_audit;
pub mod dto_backups;
mod dto_node;
mod dto_operators;
pub mod dto_standing;
pub mod dto_usage;
mod events;
mod explain;
mod health;
mod info;
pub(super) mod issuers;
mod keys;
mod limits;
mod operators;
pub mod problem;
mod progress;
mod respond;
mod shops;
#[cfg(test)]
mod tests;
pub(super) mod transfer;
mod usage;
mod widget_tokens;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, HeaderValue};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use self::health::degraded;
use self::problem::{Code, Problem};
use super::node::Node;

/// The longest a request may take, from its head to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The routes of the admin plane over `node`.
///
/// Callers of `/api/v1` are either known already (a [`super::Caller`] in the request's extensions)
/// or have to show an admin token. Health, metrics and the API's description are for everyone who
/// reaches the listener.
pub fn router(node: Arc<Node>) -> Router {
    let (endpoints, description) = endpoints().split_for_parts();
    let described = Arc::new(description);
    Router::new()
        .merge(endpoints.route_layer(from_fn_with_state(Arc::clone(&node), auth::authenticate)))
        .route("/api/v1/openapi.json", get(async move || Json(Arc::clone(&described))))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(from_fn(bounded))
        .with_state(node)
}

/// The description of the API, as `/api/v1/openapi.json` serves it.
#[must_use]
pub fn description() -> utoipa::openapi::OpenApi {
    endpoints().into_openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "latchkey admin API",
        description = "Shops, API keys, widget tokens, limits and identity providers of a latchkey."
    ),
    modifiers(&BearerToken),
    security(("admin_token" = []))
)]
struct Description;

/// Adds the scheme that [`Description`] requires.
struct BearerToken;

impl utoipa::Modify for BearerToken {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An admin token, `lka_…`. None is needed on the unix socket."))
            .build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("admin_token", SecurityScheme::Http(bearer));
    }
}

fn endpoints() -> OpenApiRouter<Arc<Node>> {
    let v1 = OpenApiRouter::new()
        .routes(routes!(shops::list, shops::create))
        .routes(routes!(shops::get, shops::put, shops::patch, shops::delete))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::get, keys::patch, keys::delete))
        .routes(routes!(keys::rotate))
        .routes(routes!(widget_tokens::list, widget_tokens::create))
        .routes(routes!(widget_tokens::revoke_all))
        .routes(routes!(widget_tokens::delete))
        .routes(routes!(limits::put_of_shop, limits::delete_of_shop))
        .routes(routes!(limits::standing_of_shop))
        .routes(routes!(limits::put_of_key, limits::delete_of_key))
        .routes(routes!(issuers::list))
        .routes(routes!(issuers::refresh))
        .routes(routes!(usage::of_shop))
        .routes(routes!(usage::of_all))
        .routes(routes!(events::stream))
        .routes(routes!(events::overview))
        .routes(routes!(explain::explain))
        .routes(routes!(admin_tokens::list, admin_tokens::create))
        .routes(routes!(admin_tokens::delete))
        .routes(routes!(info::signing_keys))
        .routes(routes!(info::rotate_signing_keys))
        .routes(routes!(assertion_keys::list))
        .routes(routes!(assertion_keys::rotate))
        .routes(routes!(operators::list, operators::create))
        .routes(routes!(operators::get, operators::patch, operators::delete))
        .routes(routes!(operators::reset_password))
        .routes(routes!(operators::reset_second_factor))
        .routes(routes!(operators::list_sessions, operators::revoke_sessions))
        .routes(routes!(operators::list_all_sessions))
        .routes(routes!(operators::revoke_session))
        .routes(routes!(audit::list))
        .routes(routes!(audit::head))
        .routes(routes!(audit::verify))
        .routes(routes!(audit::export_all))
        .routes(routes!(backups::list, backups::create))
        .routes(routes!(backups::stream))
        .routes(routes!(backups::download, backups::delete))
        .routes(routes!(backups::verify))
        .routes(routes!(transfer::import))
        .routes(routes!(transfer::export))
        .routes(routes!(info::info));
    OpenApiRouter::with_openapi(Description::openapi()).nest("/api/v1", v1)
}

/// Bounds the time of a request, and keeps every answer out of caches.
async fn bounded(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| {
        let seconds = REQUEST_TIMEOUT.as_secs();
        let detail = format!("The request was not answered within {seconds} s.");
        Problem::new(Code::RequestTimeout, detail).into_response()
    });
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What there is nothing of.
pub(super) async fn not_found() -> Problem {
    let detail = "There is nothing here; `/api/v1/openapi.json` describes what there is.";
    Problem::new(Code::NotFound, detail)
}

async fn method_not_allowed(State(_): State<Arc<Node>>, request: Request) -> Problem {
    let detail = format!("`{}` is not done here; Allow says what is.", request.method());
    Problem::new(Code::MethodNotAllowed, detail)
}
