//! The admin API: `/api/v1` in JSON, described by `/api/v1/openapi.json`; health and metrics
//! beside it.

pub(super) mod auth;
pub mod dto;
pub mod explain_dto;
pub mod problem;

use std::sync::Arc;

use axum::Router;

use super::node::Node;

/// The routes of the admin plane over `node`.
pub fn router(node: Arc<Node>) -> Router {
    Router::new().layer(axum::middleware::from_fn_with_state(node, auth::authenticate))
}
