//! `/assertion-keys`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::body::OptionalBody;
use super::dto::{AssertionKey, AssertionKeyRotate, AssertionKeyTurn, Page};
use super::problem::{Problem, ProblemBody};
use super::respond::blocking;
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::assertion_keys::{self, AssertionKeyInfo, Rotation, Turn};

/// Lists the keys that sign assertions, without the keys themselves.
#[utoipa::path(get, path = "/assertion-keys", tag = "signing keys",
    operation_id = "listAssertionKeys",
    responses(
        (status = 200, description = "All of them, in the order of their turns",
            body = Page<AssertionKey>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    caller: Caller,
    State(node): State<Arc<Node>>,
) -> Result<Json<Page<AssertionKey>>, Problem> {
    Ok(page(blocking(&node, move |node| assertion_keys::list(node, &caller)).await?))
}

/// Replaces the key that signs assertions before its time. Without `at_once` no upstream refuses
/// an assertion: the next key signs when every upstream can know it.
#[utoipa::path(post, path = "/assertion-keys/rotate", tag = "signing keys",
    operation_id = "rotateAssertionKeys",
    request_body(content = Option<AssertionKeyRotate>),
    responses(
        (status = 200, description = "The keys there are now", body = Page<AssertionKey>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn rotate(
    caller: Caller,
    State(node): State<Arc<Node>>,
    OptionalBody { value, .. }: OptionalBody<AssertionKeyRotate>,
) -> Result<Json<Page<AssertionKey>>, Problem> {
    let rotation = if value.at_once { Rotation::AtOnce } else { Rotation::Announced };
    Ok(page(blocking(&node, move |node| assertion_keys::rotate(node, &caller, rotation)).await?))
}

fn page(keys: Vec<AssertionKeyInfo>) -> Json<Page<AssertionKey>> {
    let items = keys.into_iter().map(assertion_key).collect();
    Json(Page { items, next_cursor: None })
}

fn assertion_key(key: AssertionKeyInfo) -> AssertionKey {
    let AssertionKeyInfo { kid, turn, created_at, signs_from } = key;
    let turn = match turn {
        Turn::Next => AssertionKeyTurn::Next,
        Turn::Current => AssertionKeyTurn::Current,
        Turn::Over => AssertionKeyTurn::Over,
    };
    AssertionKey { kid, turn, created_at, signs_from }
}
