//! `/shops`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::body::{Body, IdempotencyKey, PageQuery, Query, Segments};
use super::dto::{Page, Shop, ShopCreate, ShopPatch, ShopPut};
use super::problem::{Problem, ProblemBody};
use super::respond::{blocking, created, page};
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::shops::{self, ShopChanges, ShopFields};
use crate::id::ShopId;

/// Lists shops.
#[utoipa::path(get, path = "/shops", tag = "shops", operation_id = "listShops",
    params(
        ("limit" = Option<u16>, Query, description = "Items of a page: 1 to 1000, or 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of shops", body = Page<Shop>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Shop>>, Problem> {
    let (limit, after) = query.parse(|text| ShopId::parse(text).ok())?;
    let found =
        blocking(&node, move |node| shops::list(node, &caller, after.as_ref(), limit)).await?;
    Ok(page(found, |shop| shop.id, Shop::from))
}

/// Creates a shop.
#[utoipa::path(post, path = "/shops", tag = "shops", operation_id = "createShop",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a retry safe")),
    request_body = ShopCreate,
    responses(
        (status = 201, description = "The shop", body = Shop),
        (status = 409, description = "There is one of this id", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn create(
    caller: Caller,
    State(node): State<Arc<Node>>,
    idempotency: IdempotencyKey,
    Body { value, raw }: Body<ShopCreate>,
) -> Result<Response, Problem> {
    let id = shop_id(&value.id)?;
    let ShopCreate { name, url, widget_origins, enabled, .. } = value;
    let fields = ShopFields { name, url, widget_origins, enabled };
    let bound = idempotency.bind(&node, &caller, &raw);
    let made =
        blocking(&node, move |node| shops::create(node, &caller, id, fields, bound.as_ref()))
            .await?;
    let shop = Shop::from(made.record);
    Ok(created(&format!("/api/v1/shops/{}", shop.id), made.replayed, &shop))
}

/// Reads a shop.
#[utoipa::path(get, path = "/shops/{shop}", tag = "shops", operation_id = "getShop",
    params(("shop" = String, Path, description = "Shop id")),
    responses(
        (status = 200, description = "The shop", body = Shop),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn get(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<ShopId>,
) -> Result<Json<Shop>, Problem> {
    let shop = blocking(&node, move |node| shops::get(node, &caller, &id)).await?;
    Ok(Json(shop.into()))
}

/// Creates a shop or replaces it; its limits, keys and tokens stay.
#[utoipa::path(put, path = "/shops/{shop}", tag = "shops", operation_id = "putShop",
    params(("shop" = String, Path, description = "Shop id")),
    request_body = ShopPut,
    responses(
        (status = 200, description = "The shop, replaced or unchanged", body = Shop),
        (status = 201, description = "The shop, created", body = Shop),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn put(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<String>,
    Body { value, .. }: Body<ShopPut>,
) -> Result<Response, Problem> {
    let id = shop_id(&id)?;
    let ShopPut { name, url, widget_origins, enabled } = value;
    let fields = ShopFields { name, url, widget_origins, enabled };
    let (shop, new) = blocking(&node, move |node| shops::put(node, &caller, id, fields)).await?;
    let shop = Shop::from(shop);
    if new {
        return Ok(created(&format!("/api/v1/shops/{}", shop.id), false, &shop));
    }
    Ok(Json(shop).into_response())
}

/// Changes some fields of a shop.
#[utoipa::path(patch, path = "/shops/{shop}", tag = "shops", operation_id = "patchShop",
    params(("shop" = String, Path, description = "Shop id")),
    request_body = ShopPatch,
    responses(
        (status = 200, description = "The shop", body = Shop),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn patch(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<ShopId>,
    Body { value, .. }: Body<ShopPatch>,
) -> Result<Json<Shop>, Problem> {
    let ShopPatch { name, url, widget_origins, enabled } = value;
    let changes = ShopChanges { name, url, widget_origins, enabled };
    let shop = blocking(&node, move |node| shops::patch(node, &caller, id, changes)).await?;
    Ok(Json(shop.into()))
}

/// Deletes a shop with its keys and tokens.
#[utoipa::path(delete, path = "/shops/{shop}", tag = "shops", operation_id = "deleteShop",
    params(("shop" = String, Path, description = "Shop id")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn delete(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<ShopId>,
) -> Result<StatusCode, Problem> {
    blocking(&node, move |node| shops::delete(node, &caller, &id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shop_id(text: &str) -> Result<ShopId, Problem> {
    ShopId::parse(text).map_err(|error| Problem::invalid("id", error.to_string()))
}
