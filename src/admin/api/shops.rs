//! `/shops`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::body::{Body, IdempotencyKey, PageQuery, Query, Segments, cursor_after};
use super::conditions::{Conditions, Tag, tagged};
use super::dto::{Page, Shop, ShopCreate, ShopPatch, ShopPut};
use super::problem::{Problem, ProblemBody};
use super::respond::{at_leisure, blocking, created, page};
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::shops::{self, ShopChanges, ShopFields};
use crate::id::ShopId;
use crate::store::Words;

/// Longest search, in characters.
const SEARCH_CHARS_MAX: usize = 200;

/// Which shops are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    q: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// Lists shops, or those that a search means. A page of a search may hold fewer than `limit`, or
/// none, and still have a `next_cursor`: so many were looked at.
#[utoipa::path(get, path = "/shops", tag = "shops", operation_id = "listShops",
    params(
        ("q" = Option<String>, Query,
            description = "Words that are all part of the id, the name or the URL, in any case"),
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
    Query(ListQuery { q, limit, cursor }): Query<ListQuery>,
) -> Result<Json<Page<Shop>>, Problem> {
    let (limit, after) = PageQuery::new(limit, cursor).parse(|text| ShopId::parse(text).ok())?;
    let q = q.unwrap_or_default();
    if q.chars().count() > SEARCH_CHARS_MAX {
        let detail = format!("is longer than {SEARCH_CHARS_MAX} characters");
        return Err(Problem::bad_parameter("q", detail));
    }
    let Some(words) = Words::parse(&q) else {
        let list = move |node: &Node| shops::list(node, &caller, after.as_ref(), limit);
        return Ok(page(blocking(&node, list).await?, |shop| shop.id, Shop::from));
    };
    let search = move |node: &Node| shops::search(node, &caller, &words, after.as_ref(), limit);
    let found = at_leisure(&node, search).await?;
    Ok(Json(Page {
        items: found.shops.into_iter().map(Shop::from).collect(),
        next_cursor: found.next.as_ref().map(cursor_after),
    }))
}

/// Creates a shop.
#[utoipa::path(post, path = "/shops", tag = "shops", operation_id = "createShop",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a retry safe")),
    request_body = ShopCreate,
    responses(
        (status = 201, description = "The shop", body = Shop,
            headers(("ETag" = String, description = "Its version"))),
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
    let tag = Tag::of(&made.record);
    let shop = Shop::from(made.record);
    let path = format!("/api/v1/shops/{}", shop.id);
    Ok(tagged(&tag, created(&path, made.replayed, &shop)))
}

/// Reads a shop.
#[utoipa::path(get, path = "/shops/{shop}", tag = "shops", operation_id = "getShop",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("If-None-Match" = Option<String>, Header,
            description = "Its `ETag` as last seen; 304 if it is still that"),
    ),
    responses(
        (status = 200, description = "The shop", body = Shop,
            headers(("ETag" = String, description = "Its version"))),
        (status = 304, description = "It is as it was",
            headers(("ETag" = String, description = "Its version"))),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn get(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<ShopId>,
    conditions: Conditions,
) -> Result<Response, Problem> {
    let shop = blocking(&node, move |node| shops::get(node, &caller, &id)).await?;
    Ok(conditions.answer(&Tag::of(&shop), Shop::from(shop)))
}

/// Creates a shop or replaces it; its limits, keys and tokens stay.
#[utoipa::path(put, path = "/shops/{shop}", tag = "shops", operation_id = "putShop",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("If-Match" = Option<String>, Header,
            description = "Its `ETag` as last seen; 412 if somebody has changed it since"),
    ),
    request_body = ShopPut,
    responses(
        (status = 200, description = "The shop, replaced or unchanged", body = Shop,
            headers(("ETag" = String, description = "Its version"))),
        (status = 201, description = "The shop, created", body = Shop,
            headers(("ETag" = String, description = "Its version"))),
        (status = 412, description = "Somebody has changed it since", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn put(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<String>,
    conditions: Conditions,
    Body { value, .. }: Body<ShopPut>,
) -> Result<Response, Problem> {
    let id = shop_id(&id)?;
    let ShopPut { name, url, widget_origins, enabled } = value;
    let fields = ShopFields { name, url, widget_origins, enabled };
    let put = move |node: &Node| shops::put(node, &caller, id, fields, &conditions.of_write());
    let (shop, new) = blocking(&node, put).await?;
    let tag = Tag::of(&shop);
    let shop = Shop::from(shop);
    if new {
        let path = format!("/api/v1/shops/{}", shop.id);
        return Ok(tagged(&tag, created(&path, false, &shop)));
    }
    Ok(tagged(&tag, Json(shop).into_response()))
}

/// Changes some fields of a shop.
#[utoipa::path(patch, path = "/shops/{shop}", tag = "shops", operation_id = "patchShop",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("If-Match" = Option<String>, Header,
            description = "Its `ETag` as last seen; 412 if somebody has changed it since"),
    ),
    request_body = ShopPatch,
    responses(
        (status = 200, description = "The shop", body = Shop,
            headers(("ETag" = String, description = "Its version"))),
        (status = 412, description = "Somebody has changed it since", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn patch(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<ShopId>,
    conditions: Conditions,
    Body { value, .. }: Body<ShopPatch>,
) -> Result<Response, Problem> {
    let ShopPatch { name, url, widget_origins, enabled } = value;
    let changes = ShopChanges { name, url, widget_origins, enabled };
    let patch = move |node: &Node| shops::patch(node, &caller, id, changes, &conditions.of_write());
    let shop = blocking(&node, patch).await?;
    Ok(tagged(&Tag::of(&shop), Json(Shop::from(shop)).into_response()))
}

/// Deletes a shop with its keys and tokens.
#[utoipa::path(delete, path = "/shops/{shop}", tag = "shops", operation_id = "deleteShop",
    params(
        ("shop" = String, Path, description = "Shop id"),
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
    Segments(id): Segments<ShopId>,
    conditions: Conditions,
) -> Result<StatusCode, Problem> {
    let delete = move |node: &Node| shops::delete(node, &caller, &id, &conditions.of_write());
    blocking(&node, delete).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shop_id(text: &str) -> Result<ShopId, Problem> {
    ShopId::parse(text).map_err(|error| Problem::invalid("id", error.to_string()))
}
