//! `/events` and `/overview`: what happens now, and lately.

use std::sync::{Arc, Weak};

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::body::Query;
use super::problem::{Problem, ProblemBody};
use super::respond::blocking;
use crate::admin::caller::{Caller, Via};
use crate::admin::live::{self, RefusalView};
use crate::admin::node::Node;
use crate::admin::operations::events::{self, Filter, HEARTBEAT};
use crate::admin::operations::overview;
use crate::admin::overview::{Overview, Span};
use crate::id::ShopId;

/// Which refusals are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    code: Option<String>,
    shop: Option<String>,
    after: Option<String>,
}

/// Streams refusals as they happen.
///
/// Server-sent events. `refusal`: a request that did not go through. `missed`: `{"count": n}`, so
/// many are lost to this listener, who was slow or away. At most 500 refusals in a second are
/// described; `skipped` says how many before one were not. The last 200 are kept: with
/// `Last-Event-ID`, or `after`, the stream begins after that one.
#[utoipa::path(get, path = "/events", tag = "events", operation_id = "streamEvents",
    params(
        ("code" = Option<String>, Query, description = "Only refusals of this code"),
        ("shop" = Option<String>, Query, description = "Only refusals of this shop's credentials"),
        ("after" = Option<String>, Query, description = "Begin after the refusal of this `id`; \
            `0`: with all that are kept. Left out: with those to come"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, and above it"),
    ),
    responses(
        (status = 200, description = "Refusals, until the listener leaves or the node stops",
            body = RefusalView, content_type = "text/event-stream"),
        (status = 503, description = "Too many listeners", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn stream(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let code = match &query.code {
        None => None,
        Some(text) => Some(live::code(text).ok_or_else(|| {
            Problem::bad_parameter("code", "is none of the codes that requests are refused with")
        })?),
    };
    let shop = match &query.shop {
        None => None,
        Some(text) => Some(
            ShopId::parse(text)
                .map_err(|error| Problem::bad_parameter("shop", error.to_string()))?,
        ),
    };
    let after = live::resumed(&headers, query.after.as_deref(), node.begun);
    let subscription = events::subscribe(&node, &caller, Filter { code, shop }, after)?;
    // It does not keep the node alive.
    let weak = Arc::downgrade(&node);
    Ok(live::stream(subscription, node.begun, HEARTBEAT, move || still_may(&weak, &caller)))
}

/// Whether the token that a listener came with is as good as it was.
fn still_may(node: &Weak<Node>, caller: &Caller) -> bool {
    let Some(node) = node.upgrade() else {
        return false;
    };
    let Via::Token(id) = caller.via else {
        return true;
    };
    let now = node.now().unix;
    let tokens = node.admin_tokens.load();
    let token = tokens.values().find(|token| token.record.id == id);
    token.is_some_and(|token| token.record.expires_at.is_none_or(|at| now < at))
}

/// What of the past is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OverviewQuery {
    span: Option<String>,
}

/// Reads how the node fared lately.
///
/// From memory: begins anew with the process.
#[utoipa::path(get, path = "/overview", tag = "node", operation_id = "getOverview",
    params(
        ("span" = Option<String>, Query, description = "`15m` by 5 seconds (the default), or \
            `24h` by minutes"),
    ),
    responses(
        (status = 200, description = "What is drawn", body = Overview),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn overview(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Query(query): Query<OverviewQuery>,
) -> Result<Json<Overview>, Problem> {
    let span = match &query.span {
        None => Span::QuarterHour,
        Some(text) => Span::parse(text)
            .ok_or_else(|| Problem::bad_parameter("span", "is neither `15m` nor `24h`"))?,
    };
    Ok(Json(blocking(&node, move |node| overview::read(node, &caller, span)).await?))
}
