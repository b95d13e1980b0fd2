//! Answering: work that blocks, pages, and what was just created.

use std::sync::Arc;

use axum::Json;
use axum::http::header::{HeaderName, HeaderValue, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::runtime::Handle;

use super::body::{cursor_after, location};
use super::dto;
use super::problem::{Code, Problem};
use crate::admin::node::Node;
use crate::admin::operations::{self, OperationError};

/// Says that nothing was made: an earlier request with the same idempotency key had made it.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Does `work` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    node: &Arc<Node>,
    work: impl FnOnce(&Node) -> Result<T, OperationError> + Send + 'static,
) -> Result<T, Problem> {
    blocking_on(&Handle::current(), node, work).await
}

/// The same, for what takes long.
pub(super) async fn at_leisure<T: Send + 'static>(
    node: &Arc<Node>,
    work: impl FnOnce(&Node) -> Result<T, OperationError> + Send + 'static,
) -> Result<T, Problem> {
    blocking_on(&node.bulk(), node, work).await
}

async fn blocking_on<T: Send + 'static>(
    threads: &Handle,
    node: &Arc<Node>,
    work: impl FnOnce(&Node) -> Result<T, OperationError> + Send + 'static,
) -> Result<T, Problem> {
    let node = Arc::clone(node);
    let done = threads.spawn_blocking(move || work(&node)).await;
    let result = done.map_err(|_| {
        tracing::error!("an operation of the admin API ended early");
        Problem::new(Code::Internal, "The operation failed; the log says more.")
    })?;
    result.map_err(Problem::from)
}

/// 201, with where to find what was made.
pub(super) fn created<T: Serialize>(path: &str, replayed: bool, body: &T) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, location(path));
    if replayed {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    (StatusCode::CREATED, headers, Json(body)).into_response()
}

/// A page, its items translated; `id` is what its cursor is made of.
pub(super) fn page<R, T, I: ToString>(
    page: operations::Page<R>,
    id: impl FnOnce(&R) -> I,
    translate: impl FnMut(R) -> T,
) -> Json<dto::Page<T>> {
    let last = page.items.last().filter(|_| page.more);
    let next_cursor = last.map(|last| cursor_after(&id(last)));
    Json(dto::Page { items: page.items.into_iter().map(translate).collect(), next_cursor })
}
