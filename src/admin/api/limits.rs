//! `/shops/{shop}/limits` and `/shops/{shop}/keys/{key}/limits`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::body::{Body, Query, Segments};
use super::dto::{self, Limits};
use super::problem::{Problem, ProblemBody};
use super::respond::blocking;
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::limits::{self, LimitFields, Which};
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
    params(("shop" = String, Path, description = "Shop id")),
    request_body = Limits,
    responses(
        (status = 200, description = "The shop's own limits", body = Limits),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn put_of_shop(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(shop): Segments<ShopId>,
    Body { value, .. }: Body<Limits>,
) -> Result<Json<Limits>, Problem> {
    let fields = fields(value);
    let shop =
        blocking(&node, move |node| limits::put_of_shop(node, &caller, &shop, &fields)).await?;
    Ok(Json(dto::limits(&shop.limits)))
}

/// Takes all of a shop's own limits away, or that of one policy.
#[utoipa::path(delete, path = "/shops/{shop}/limits", tag = "limits",
    operation_id = "deleteShopLimits",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("policy" = Option<String>, Query, description = "Only the override of this limit"),
    ),
    responses(
        (status = 200, description = "The shop's own limits that are left", body = Limits),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn delete_of_shop(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(shop): Segments<ShopId>,
    Query(query): Query<WhichQuery>,
) -> Result<Json<Limits>, Problem> {
    let which = Which::from(query);
    let shop =
        blocking(&node, move |node| limits::delete_of_shop(node, &caller, &shop, &which)).await?;
    Ok(Json(dto::limits(&shop.limits)))
}

/// Replaces all of a key's own limits; they win over the shop's.
#[utoipa::path(put, path = "/shops/{shop}/keys/{key}/limits", tag = "limits",
    operation_id = "putKeyLimits",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("key" = String, Path, description = "Key id"),
    ),
    request_body = Limits,
    responses(
        (status = 200, description = "The key's own limits", body = Limits),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn put_of_key(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments((shop, id)): Segments<(ShopId, KeyId)>,
    Body { value, .. }: Body<Limits>,
) -> Result<Json<Limits>, Problem> {
    let fields = fields(value);
    let key =
        blocking(&node, move |node| limits::put_of_key(node, &caller, &shop, id, &fields)).await?;
    Ok(Json(dto::limits(&key.limits)))
}

/// Takes all of a key's own limits away, or that of one policy.
#[utoipa::path(delete, path = "/shops/{shop}/keys/{key}/limits", tag = "limits",
    operation_id = "deleteKeyLimits",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("key" = String, Path, description = "Key id"),
        ("policy" = Option<String>, Query, description = "Only the override of this limit"),
    ),
    responses(
        (status = 200, description = "The key's own limits that are left", body = Limits),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn delete_of_key(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments((shop, id)): Segments<(ShopId, KeyId)>,
    Query(query): Query<WhichQuery>,
) -> Result<Json<Limits>, Problem> {
    let which = Which::from(query);
    let key = blocking(&node, move |node| limits::delete_of_key(node, &caller, &shop, id, &which))
        .await?;
    Ok(Json(dto::limits(&key.limits)))
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
