//! `/shops/{shop}/limits` and `/shops/{shop}/keys/{key}/limits`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::body::{Body, Query, Segments};
use super::conditions::{Conditions, Tag, tagged};
use super::dto::{self, Limits};
use super::dto_standing::{Standing, Standings};
use super::problem::{Problem, ProblemBody};
use super::respond::blocking;
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::limits::{self, LimitFields, Which};
use crate::admin::operations::standing;
use crate::id::{KeyId, ShopId};

/// Which override to delete.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichQuery {
    policy: Option<String>,
}

impl From<WhichQuery> for Which {
    fn from(query: WhichQuery) -> Self {
        query.policy.map_or(Self::All, Self::Of)
    }
}

/// Replaces all of a shop's own limits; each names the configured limit it replaces.
#[utoipa::path(put, path = "/shops/{shop}/limits", tag = "limits", operation_id = "putShopLimits",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("If-Match" = Option<String>, Header,
            description = "The shop's `ETag` as last seen; 412 if somebody has changed it since"),
    ),
    request_body = Limits,
    responses(
        (status = 200, description = "The shop's own limits", body = Limits,
            headers(("ETag" = String, description = "The shop's version"))),
        (status = 412, description = "Somebody has changed it since", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn put_of_shop(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(shop): Segments<ShopId>,
    conditions: Conditions,
    Body { value, .. }: Body<Limits>,
) -> Result<Response, Problem> {
    let fields = fields(value);
    let condition = conditions.of_write();
    let shop =
        blocking(&node, move |node| limits::put_of_shop(node, &caller, &shop, &fields, &condition))
            .await?;
    Ok(tagged(&Tag::of(&shop), Json(dto::limits(&shop.limits)).into_response()))
}

/// Takes all of a shop's own limits away, or that of one policy.
#[utoipa::path(delete, path = "/shops/{shop}/limits", tag = "limits",
    operation_id = "deleteShopLimits",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("policy" = Option<String>, Query, description = "Only the override of this limit"),
        ("If-Match" = Option<String>, Header,
            description = "The shop's `ETag` as last seen; 412 if somebody has changed it since"),
    ),
    responses(
        (status = 200, description = "The shop's own limits that are left", body = Limits,
            headers(("ETag" = String, description = "The shop's version"))),
        (status = 412, description = "Somebody has changed it since", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn delete_of_shop(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(shop): Segments<ShopId>,
    conditions: Conditions,
    Query(query): Query<WhichQuery>,
) -> Result<Response, Problem> {
    let which = Which::from(query);
    let condition = conditions.of_write();
    let shop = blocking(&node, move |node| {
        limits::delete_of_shop(node, &caller, &shop, &which, &condition)
    })
    .await?;
    Ok(tagged(&Tag::of(&shop), Json(dto::limits(&shop.limits)).into_response()))
}

/// Replaces all of a key's own limits; they win over the shop's.
#[utoipa::path(put, path = "/shops/{shop}/keys/{key}/limits", tag = "limits",
    operation_id = "putKeyLimits",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("key" = String, Path, description = "Key id"),
        ("If-Match" = Option<String>, Header,
            description = "The key's `ETag` as last seen; 412 if somebody has changed it since"),
    ),
    request_body = Limits,
    responses(
        (status = 200, description = "The key's own limits", body = Limits,
            headers(("ETag" = String, description = "The key's version"))),
        (status = 412, description = "Somebody has changed it since", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn put_of_key(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments((shop, id)): Segments<(ShopId, KeyId)>,
    conditions: Conditions,
    Body { value, .. }: Body<Limits>,
) -> Result<Response, Problem> {
    let fields = fields(value);
    let condition = conditions.of_write();
    let key = blocking(&node, move |node| {
        limits::put_of_key(node, &caller, &shop, id, &fields, &condition)
    })
    .await?;
    Ok(tagged(&Tag::of(&key), Json(dto::limits(&key.limits)).into_response()))
}

/// Takes all of a key's own limits away, or that of one policy.
#[utoipa::path(delete, path = "/shops/{shop}/keys/{key}/limits", tag = "limits",
    operation_id = "deleteKeyLimits",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("key" = String, Path, description = "Key id"),
        ("policy" = Option<String>, Query, description = "Only the override of this limit"),
        ("If-Match" = Option<String>, Header,
            description = "The key's `ETag` as last seen; 412 if somebody has changed it since"),
    ),
    responses(
        (status = 200, description = "The key's own limits that are left", body = Limits,
            headers(("ETag" = String, description = "The key's version"))),
        (status = 412, description = "Somebody has changed it since", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn delete_of_key(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments((shop, id)): Segments<(ShopId, KeyId)>,
    conditions: Conditions,
    Query(query): Query<WhichQuery>,
) -> Result<Response, Problem> {
    let which = Which::from(query);
    let condition = conditions.of_write();
    let key = blocking(&node, move |node| {
        limits::delete_of_key(node, &caller, &shop, id, &which, &condition)
    })
    .await?;
    Ok(tagged(&Tag::of(&key), Json(dto::limits(&key.limits)).into_response()))
}

/// Tells how much of each limit a shop has left, and charges nothing.
///
/// Limits that count by credential, subject or address are not listed: a shop has no single
/// standing under those. What is told is of this moment, and of this node.
#[utoipa::path(get, path = "/shops/{shop}/standing", tag = "limits",
    operation_id = "getShopStanding",
    params(("shop" = String, Path, description = "Shop id")),
    responses(
        (status = 200, description = "Every limit that counts the shop's requests together, in \
            the order of the configuration", body = Standings),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn standing_of_shop(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(shop): Segments<ShopId>,
) -> Result<Json<Standings>, Problem> {
    // It reads the snapshot and the limiter, not the store: nothing here blocks.
    let items = standing::of_shop(&node, &caller, &shop)?;
    Ok(Json(Standings { items: items.iter().map(Standing::from).collect() }))
}

fn fields(limits: Limits) -> Vec<LimitFields> {
    let field = |(policy, limit): (String, dto::Limit)| LimitFields {
        policy,
        limit: limit.limit,
        window: Duration::from_secs(limit.window_seconds),
        burst: limit.burst,
    };
    limits.into_iter().map(field).collect()
}
