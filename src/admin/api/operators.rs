//! `/operators` and `/sessions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::body::{Body, IdempotencyKey, PageQuery, Query, Segments};
use super::conditions::{Conditions, Tag, tagged};
use super::dto::{
    Operator, OperatorCreate, OperatorPatch, OperatorSession, Page, PasswordReset, SessionsRevoked,
};
use super::problem::{Problem, ProblemBody};
use super::respond::{blocking, created, page};
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::operators::{self, OperatorChange, OperatorFields};
use crate::admin::operations::{self, second_factor, sessions};
use crate::id::{OperatorId, SessionId, ShopId};
use crate::secret::SecretText;
use crate::store::{OperatorRecord, Role};

/// Lists operators.
#[utoipa::path(get, path = "/operators", tag = "operators", operation_id = "listOperators",
    params(
        ("limit" = Option<u16>, Query, description = "Items of a page: 1 to 1000, or 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of operators", body = Page<Operator>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Operator>>, Problem> {
    let (limit, after) = query.parse(|text| OperatorId::parse(text).ok())?;
    let found = blocking(&node, move |node| operators::list(node, &caller, after, limit)).await?;
    Ok(page(found, |operator| operator.id, Operator::from))
}

/// Creates an operator.
#[utoipa::path(post, path = "/operators", tag = "operators", operation_id = "createOperator",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a retry safe"),
    ),
    request_body = OperatorCreate,
    responses(
        (status = 201, description = "The operator", body = Operator),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn create(
    caller: Caller,
    State(node): State<Arc<Node>>,
    idempotency: IdempotencyKey,
    Body { value, raw }: Body<OperatorCreate>,
) -> Result<Response, Problem> {
    let fields =
        OperatorFields { name: value.name, role: role(&value.role)?, shops: shops(&value.shops)? };
    let password = value.password.map(SecretText::new);
    let bound = idempotency.bind(&node, &caller, &raw);
    let work = move |node: &Node| {
        operators::create(node, &caller, &fields, password.as_ref(), bound.as_ref())
    };
    let made = blocking(&node, work).await?;
    let operator = Operator::from(made.record);
    let path = format!("/api/v1/operators/{}", operator.id);
    Ok(created(&path, made.replayed, &operator))
}

/// Reads an operator.
#[utoipa::path(get, path = "/operators/{id}", tag = "operators", operation_id = "getOperator",
    params(
        ("id" = String, Path, description = "Operator id"),
        ("If-None-Match" = Option<String>, Header,
            description = "An `ETag`; 304 if the operator is as it was then"),
    ),
    responses(
        (status = 200, description = "The operator", body = Operator,
            headers(("ETag" = String, description = "The operator's version"))),
        (status = 304, description = "It is as it was"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn get(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<OperatorId>,
    conditions: Conditions,
) -> Result<Response, Problem> {
    let found = blocking(&node, move |node| operators::get(node, &caller, id)).await?;
    Ok(conditions.answer(&Tag::of(&found), Operator::from(found)))
}

/// Changes some fields of an operator. Its sessions end if what it may do changes.
#[utoipa::path(patch, path = "/operators/{id}", tag = "operators", operation_id = "patchOperator",
    params(
        ("id" = String, Path, description = "Operator id"),
        ("If-Match" = Option<String>, Header,
            description = "Its `ETag` as last seen; 412 if somebody has changed it since"),
    ),
    request_body = OperatorPatch,
    responses(
        (status = 200, description = "The operator", body = Operator,
            headers(("ETag" = String, description = "The operator's version"))),
        (status = 412, description = "Somebody has changed it since", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn patch(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<OperatorId>,
    conditions: Conditions,
    Body { value, .. }: Body<OperatorPatch>,
) -> Result<Response, Problem> {
    let change = OperatorChange {
        name: value.name,
        role: value.role.as_deref().map(role).transpose()?,
        shops: value.shops.as_deref().map(shops).transpose()?,
        disabled: value.disabled,
    };
    let condition = conditions.of_write();
    let work = move |node: &Node| operators::change(node, &caller, id, &change, &condition);
    Ok(shown(blocking(&node, work).await?))
}

/// Deletes an operator and ends its sessions. The last owner who can sign in stays.
#[utoipa::path(delete, path = "/operators/{id}", tag = "operators", operation_id = "deleteOperator",
    params(
        ("id" = String, Path, description = "Operator id"),
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
    Segments(id): Segments<OperatorId>,
    conditions: Conditions,
) -> Result<StatusCode, Problem> {
    let condition = conditions.of_write();
    blocking(&node, move |node| operators::delete(node, &caller, id, &condition)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets an operator's password and ends its sessions.
#[utoipa::path(put, path = "/operators/{id}/password", tag = "operators",
    operation_id = "resetOperatorPassword",
    params(
        ("id" = String, Path, description = "Operator id"),
        ("If-Match" = Option<String>, Header,
            description = "Its `ETag` as last seen; 412 if somebody has changed it since"),
    ),
    request_body = PasswordReset,
    responses(
        (status = 200, description = "The operator", body = Operator,
            headers(("ETag" = String, description = "The operator's version"))),
        (status = 412, description = "Somebody has changed it since", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn reset_password(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<OperatorId>,
    conditions: Conditions,
    Body { value, .. }: Body<PasswordReset>,
) -> Result<Response, Problem> {
    let password = SecretText::new(value.password);
    let condition = conditions.of_write();
    let work =
        move |node: &Node| operators::reset_password(node, &caller, id, &password, &condition);
    Ok(shown(blocking(&node, work).await?))
}

/// Takes an operator's second factor away.
#[utoipa::path(delete, path = "/operators/{id}/second-factor", tag = "operators",
    operation_id = "resetOperatorSecondFactor",
    params(
        ("id" = String, Path, description = "Operator id"),
    ),
    responses(
        (status = 204, description = "It has none"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn reset_second_factor(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<OperatorId>,
) -> Result<StatusCode, Problem> {
    blocking(&node, move |node| second_factor::reset(node, &caller, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the sessions of an operator.
#[utoipa::path(get, path = "/operators/{id}/sessions", tag = "operators",
    operation_id = "listOperatorSessions",
    params(
        ("id" = String, Path, description = "Operator id"),
        ("limit" = Option<u16>, Query, description = "Items of a page: 1 to 1000, or 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of sessions", body = Page<OperatorSession>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn list_sessions(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<OperatorId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<OperatorSession>>, Problem> {
    let (limit, after) = query.parse(|text| SessionId::parse(text).ok())?;
    let work = move |node: &Node| sessions::page(node, &caller, Some(id), after, limit);
    Ok(sessions_page(blocking(&node, work).await?))
}

/// Ends every session of an operator.
#[utoipa::path(delete, path = "/operators/{id}/sessions", tag = "operators",
    operation_id = "revokeOperatorSessions",
    params(
        ("id" = String, Path, description = "Operator id"),
    ),
    responses(
        (status = 200, description = "How many there were", body = SessionsRevoked),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn revoke_sessions(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<OperatorId>,
) -> Result<Json<SessionsRevoked>, Problem> {
    let work = move |node: &Node| sessions::revoke_all(node, &caller, id, None);
    Ok(Json(SessionsRevoked { ended: blocking(&node, work).await? }))
}

/// Lists the sessions of all operators.
#[utoipa::path(get, path = "/sessions", tag = "operators", operation_id = "listSessions",
    params(
        ("limit" = Option<u16>, Query, description = "Items of a page: 1 to 1000, or 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of sessions", body = Page<OperatorSession>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn list_all_sessions(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<OperatorSession>>, Problem> {
    let (limit, after) = query.parse(|text| SessionId::parse(text).ok())?;
    let work = move |node: &Node| sessions::page(node, &caller, None, after, limit);
    Ok(sessions_page(blocking(&node, work).await?))
}

/// Ends a session.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "operators", operation_id = "revokeSession",
    params(
        ("id" = String, Path, description = "Session id"),
    ),
    responses(
        (status = 204, description = "It is over"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn revoke_session(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(id): Segments<SessionId>,
) -> Result<StatusCode, Problem> {
    blocking(&node, move |node| sessions::revoke(node, &caller, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An operator, with its tag.
fn shown(record: OperatorRecord) -> Response {
    tagged(&Tag::of(&record), Json(Operator::from(record)).into_response())
}

fn sessions_page(
    found: operations::Page<crate::store::SessionRecord>,
) -> Json<Page<OperatorSession>> {
    page(found, |session| session.id, OperatorSession::from)
}

fn role(text: &str) -> Result<Role, Problem> {
    Role::parse(text).map_err(|error| Problem::invalid("role", error.to_string()))
}

fn shops(texts: &[String]) -> Result<Vec<ShopId>, Problem> {
    let parse = |(place, text): (usize, &String)| {
        let problem = |error: crate::id::IdError| {
            Problem::invalid(format!("shops[{place}]"), error.to_string())
        };
        ShopId::parse(text).map_err(problem)
    };
    texts.iter().enumerate().map(parse).collect()
}
