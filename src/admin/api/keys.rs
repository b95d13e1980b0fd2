//! `/shops/{shop}/keys`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::body::{Body, IdempotencyKey, OptionalBody, PageQuery, Query, Segments, date_time};
use super::conditions::{Conditions, Tag, tagged};
use super::dto::{Key, KeyCreate, KeyCreated, KeyPatch, KeyRotate, Page};
use super::problem::{Problem, ProblemBody};
use super::respond::{blocking, created, page};
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::keys::{self, KeyChanges, KeyFields};
use crate::admin::operations::{Created, Version};
use crate::id::{KeyId, ShopId};
use crate::store::KeyRecord;

/// Lists a shop's API keys.
#[utoipa::path(get, path = "/shops/{shop}/keys", tag = "keys", operation_id = "listKeys",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("limit" = Option<u16>, Query, description = "Items of a page: 1 to 1000, or 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of keys", body = Page<Key>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(shop): Segments<ShopId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Key>>, Problem> {
    let (limit, after) = query.parse(|text| KeyId::parse(text).ok())?;
    let found = blocking(&node, move |node| keys::list(node, &caller, &shop, after, limit)).await?;
    let now = node.now().unix;
    Ok(page(found, |key| key.id, |key| Key::at(key, now)))
}

/// Creates an API key. Its secret is in this response and nowhere else.
#[utoipa::path(post, path = "/shops/{shop}/keys", tag = "keys", operation_id = "createKey",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a retry safe"),
    ),
    request_body(content = Option<KeyCreate>),
    responses(
        (status = 201, description = "The key and its secret", body = KeyCreated),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn create(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(shop): Segments<ShopId>,
    idempotency: IdempotencyKey,
    OptionalBody { value, raw }: OptionalBody<KeyCreate>,
) -> Result<Response, Problem> {
    let expires_at = value.expires_at.as_deref();
    let expires_at = expires_at.map(|text| date_time("expires_at", text)).transpose()?;
    let KeyCreate { name, networks, .. } = value;
    let fields = KeyFields { name, expires_at, networks };
    let bound = idempotency.bind(&node, &caller, &raw);
    let work = move |node: &Node| keys::create(node, &caller, shop, fields, bound.as_ref());
    Ok(key_created(&node, blocking(&node, work).await?))
}

/// Reads an API key, without its secret.
#[utoipa::path(get, path = "/shops/{shop}/keys/{key}", tag = "keys", operation_id = "getKey",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("key" = String, Path, description = "Key id"),
        ("If-None-Match" = Option<String>, Header,
            description = "Its `ETag` as last seen; 304 if it is still that"),
    ),
    responses(
        (status = 200, description = "The key", body = Key,
            headers(("ETag" = String, description = "Its version"))),
        (status = 304, description = "It is as it was",
            headers(("ETag" = String, description = "Its version"))),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn get(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments((shop, id)): Segments<(ShopId, KeyId)>,
    conditions: Conditions,
) -> Result<Response, Problem> {
    let key = blocking(&node, move |node| keys::get(node, &caller, &shop, id)).await?;
    let (tag, key) = shown(&node, key);
    Ok(conditions.answer(&tag, key))
}

/// Changes some fields of an API key.
#[utoipa::path(patch, path = "/shops/{shop}/keys/{key}", tag = "keys", operation_id = "patchKey",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("key" = String, Path, description = "Key id"),
        ("If-Match" = Option<String>, Header,
            description = "Its `ETag` as last seen; 412 if somebody has changed it since"),
    ),
    request_body = KeyPatch,
    responses(
        (status = 200, description = "The key", body = Key,
            headers(("ETag" = String, description = "Its version"))),
        (status = 412, description = "Somebody has changed it since", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn patch(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments((shop, id)): Segments<(ShopId, KeyId)>,
    conditions: Conditions,
    Body { value, .. }: Body<KeyPatch>,
) -> Result<Response, Problem> {
    let expires_at = match value.expires_at {
        Some(Some(text)) => Some(Some(date_time("expires_at", &text)?)),
        Some(None) => Some(None),
        None => None,
    };
    let changes = KeyChanges { name: value.name, expires_at, networks: value.networks };
    let condition = conditions.of_write();
    let patch = move |node: &Node| keys::patch(node, &caller, &shop, id, changes, &condition);
    let (tag, key) = shown(&node, blocking(&node, patch).await?);
    Ok(tagged(&tag, Json(key).into_response()))
}

/// Revokes an API key: from now on it is refused.
#[utoipa::path(delete, path = "/shops/{shop}/keys/{key}", tag = "keys", operation_id = "deleteKey",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("key" = String, Path, description = "Key id"),
        ("If-Match" = Option<String>, Header,
            description = "Its `ETag` as last seen; 412 if somebody has changed it since"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 412, description = "Somebody has changed it since", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn delete(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments((shop, id)): Segments<(ShopId, KeyId)>,
    conditions: Conditions,
) -> Result<StatusCode, Problem> {
    let condition = conditions.of_write();
    blocking(&node, move |node| keys::delete(node, &caller, &shop, id, &condition)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replaces an API key by a new one of the same name, networks, limits and expiry. Its secret is
/// in this response and nowhere else.
#[utoipa::path(post, path = "/shops/{shop}/keys/{key}/rotate", tag = "keys",
    operation_id = "rotateKey",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("key" = String, Path, description = "Key id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a retry safe"),
    ),
    request_body(content = Option<KeyRotate>),
    responses(
        (status = 201, description = "The new key and its secret", body = KeyCreated),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn rotate(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments((shop, id)): Segments<(ShopId, KeyId)>,
    idempotency: IdempotencyKey,
    OptionalBody { value, raw }: OptionalBody<KeyRotate>,
) -> Result<Response, Problem> {
    let grace = Duration::from_secs(value.grace_seconds);
    let bound = idempotency.bind(&node, &caller, &raw);
    let work = move |node: &Node| keys::rotate(node, &caller, &shop, id, grace, bound.as_ref());
    Ok(key_created(&node, blocking(&node, work).await?))
}

/// A key as it is shown now, and the tag of that.
fn shown(node: &Node, key: KeyRecord) -> (Tag, Key) {
    let version = Version::from(&key);
    let key = Key::at(key, node.now().unix);
    let used_ms = key.last_used_at.map_or(0, |at| at.unix_ms().saturating_add(1));
    // Two bits for the state; the use is known to the minute, and 62 bits hold it.
    (Tag::volatile(version, used_ms << 2 | u64::from(key.status as u8)), key)
}

fn key_created(node: &Node, made: Created<KeyRecord>) -> Response {
    let (tag, key) = shown(node, made.record);
    let path = format!("/api/v1/shops/{}/keys/{}", key.shop, key.id);
    let secret = made.secret.map(|secret| secret.expose().to_owned());
    tagged(&tag, created(&path, made.replayed, &KeyCreated { key, secret }))
}
