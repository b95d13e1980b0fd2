//! `/admin-tokens`, for owners.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::body::{Body, IdempotencyKey, PageQuery, Query, Segments, date_time};
use super::dto::{AdminToken, AdminTokenCreate, AdminTokenCreated, Page};
use super::problem::{Problem, ProblemBody};
use super::respond::{blocking, created, page};
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::admin_tokens::{self, AdminTokenFields};
use crate::id::AdminTokenId;
use crate::store::Role;

/// Lists admin tokens.
#[utoipa::path(get, path = "/admin-tokens", tag = "admin tokens", operation_id = "listAdminTokens",
    params(
        ("limit" = Option<u16>, Query, description = "Items of a page: 1 to 1000, or 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of admin tokens", body = Page<AdminToken>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<AdminToken>>, Problem> {
    let (limit, after) = query.parse(|text| AdminTokenId::parse(text).ok())?;
    let found =
        blocking(&node, move |node| admin_tokens::list(node, &caller, after, limit)).await?;
    Ok(page(found, |token| token.id, AdminToken::from))
}

/// Creates an admin token. Its text is in this response and nowhere else.
#[utoipa::path(post, path = "/admin-tokens", tag = "admin tokens",
    operation_id = "createAdminToken",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a retry safe")),
    request_body = AdminTokenCreate,
    responses(
        (status = 201, description = "The token", body = AdminTokenCreated),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn create(
    caller: Caller,
    State(node): State<Arc<Node>>,
    idempotency: IdempotencyKey,
    Body { value, raw }: Body<AdminTokenCreate>,
) -> Result<Response, Problem> {
    let role = Role::parse(&value.role);
    let role = role.map_err(|error| Problem::invalid("role", error.to_string()))?;
    let expires_at = value.expires_at.as_deref();
    let expires_at = expires_at.map(|text| date_time("expires_at", text)).transpose()?;
    let AdminTokenCreate { name, scopes, shops, .. } = value;
    let fields = AdminTokenFields { name, role, expires_at, scopes, shops };
    let bound = idempotency.bind(&node, &caller, &raw);
    let work = move |node: &Node| admin_tokens::create(node, &caller, fields, bound.as_ref());
    let made = blocking(&node, work).await?;
    let admin_token = AdminToken::from(made.record);
    let path = format!("/api/v1/admin-tokens/{}", admin_token.id);
    let secret = made.secret.map(|secret| secret.expose().to_owned());
    Ok(created(&path, made.replayed, &AdminTokenCreated { admin_token, secret }))
}

/// Revokes an admin token.
#[utoipa::path(delete, path = "/admin-tokens/{id}", tag = "admin tokens",
    operation_id = "revokeAdminToken",
    params(("id" = String, Path, description = "Admin token id")),
    responses(
        (status = 204, description = "It is refused from now on"),
        (status = 409, description = "It is the last owner's", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn delete(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<AdminTokenId>,
) -> Result<StatusCode, Problem> {
    blocking(&node, move |node| admin_tokens::revoke(node, &caller, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
