//! `/shops/{shop}/widget-tokens`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::body::{IdempotencyKey, OptionalBody, PageQuery, Query, Segments};
use super::dto::{Page, WidgetToken, WidgetTokenCreate, WidgetTokenCreated, WidgetTokensRevoked};
use super::problem::{Problem, ProblemBody};
use super::respond::{blocking, created, page};
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::widget_tokens::{self, IssueRequest};
use crate::id::{ShopId, TokenId};

/// Lists a shop's widget tokens.
#[utoipa::path(get, path = "/shops/{shop}/widget-tokens", tag = "widget tokens",
    operation_id = "listWidgetTokens",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("limit" = Option<u16>, Query, description = "Items of a page: 1 to 1000, or 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of tokens", body = Page<WidgetToken>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(shop): Segments<ShopId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<WidgetToken>>, Problem> {
    let (limit, after) = query.parse(|text| TokenId::parse(text).ok())?;
    let found =
        blocking(&node, move |node| widget_tokens::list(node, &caller, &shop, after, limit))
            .await?;
    Ok(page(found, |token| token.id, WidgetToken::from))
}

/// Issues a widget token. The token is in this response and nowhere else.
#[utoipa::path(post, path = "/shops/{shop}/widget-tokens", tag = "widget tokens",
    operation_id = "createWidgetToken",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a retry safe"),
    ),
    request_body(content = Option<WidgetTokenCreate>),
    responses(
        (status = 201, description = "The token", body = WidgetTokenCreated),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn create(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(shop): Segments<ShopId>,
    idempotency: IdempotencyKey,
    OptionalBody { value, raw }: OptionalBody<WidgetTokenCreate>,
) -> Result<Response, Problem> {
    let request = IssueRequest {
        shop,
        scopes: value.scopes,
        lifetime: value.lifetime_seconds.map(Duration::from_secs),
        issued_by: caller.label(),
        authority: None,
        idempotency: idempotency.bind(&node, &caller, &raw),
    };
    let made = blocking(&node, move |node| widget_tokens::issue(node, &caller, request)).await?;
    let widget_token = WidgetToken::from(made.record);
    let path = format!("/api/v1/shops/{shop}/widget-tokens/{}", widget_token.id);
    let token = made.secret.map(|token| token.expose().to_owned());
    Ok(created(&path, made.replayed, &WidgetTokenCreated { widget_token, token }))
}

/// Revokes a widget token.
#[utoipa::path(delete, path = "/shops/{shop}/widget-tokens/{id}", tag = "widget tokens",
    operation_id = "revokeWidgetToken",
    params(
        ("shop" = String, Path, description = "Shop id"),
        ("id" = String, Path, description = "Token id"),
    ),
    responses(
        (status = 204, description = "It is refused from now on"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn delete(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments((shop, id)): Segments<(ShopId, TokenId)>,
) -> Result<StatusCode, Problem> {
    blocking(&node, move |node| widget_tokens::revoke(node, &caller, &shop, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes every widget token of a shop that was issued until now.
#[utoipa::path(post, path = "/shops/{shop}/widget-tokens/revoke-all", tag = "widget tokens",
    operation_id = "revokeAllWidgetTokens",
    params(("shop" = String, Path, description = "Shop id")),
    responses(
        (status = 200, description = "From when on tokens are valid", body = WidgetTokensRevoked),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn revoke_all(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(shop): Segments<ShopId>,
) -> Result<Json<WidgetTokensRevoked>, Problem> {
    let tokens_valid_from =
        blocking(&node, move |node| widget_tokens::revoke_all(node, &caller, &shop)).await?;
    Ok(Json(WidgetTokensRevoked { tokens_valid_from }))
}
