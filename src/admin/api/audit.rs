//! `/audit`: the audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, HeaderValue};
use axum::response::Response;
use serde::Deserialize;

use super::body::{OptionalBody, PageQuery, Query, cursor_after};
use super::dto::{AuditEntry, AuditHead, AuditVerified, AuditVerify, Page};
use super::problem::{Code, Problem, ProblemBody};
use super::progress;
use super::respond::{at_leisure, blocking};
use crate::admin::audit::Action;
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::audit::{self, Export, Filter};
use crate::clock::Timestamp;
use crate::id::ShopId;
use crate::store::audit::{Point, export};

/// Which entries are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    limit: Option<String>,
    cursor: Option<String>,
    action: Option<String>,
    actor: Option<String>,
    subject: Option<String>,
    shop: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

impl AuditQuery {
    fn parse(self) -> Result<(usize, Option<u64>, Filter), Problem> {
        let page = PageQuery::new(self.limit, self.cursor);
        let (limit, before) = page.parse(|text| text.parse().ok())?;
        let action = |text: String| {
            let detail = "is no action; such as `shop.created`";
            Action::parse(&text).ok_or_else(|| Problem::bad_parameter("action", detail))
        };
        let shop = |text: String| {
            let detail = "is no shop's id";
            ShopId::parse(&text).map_err(|_| Problem::bad_parameter("shop", detail))
        };
        let time = |name: &str, text: Option<String>| {
            let detail = "is not an RFC 3339 date-time such as 2030-01-31T12:00:00Z";
            let parsed = |text: String| Timestamp::parse_rfc3339(&text);
            let wrong = || Problem::bad_parameter(name, detail);
            text.map(|text| parsed(text).ok_or_else(wrong)).transpose()
        };
        let filter = Filter {
            action: self.action.map(action).transpose()?,
            actor: self.actor,
            subject: self.subject,
            shop: self.shop.map(shop).transpose()?,
            from: time("from", self.from)?,
            to: time("to", self.to)?,
        };
        Ok((limit, before, filter))
    }
}

/// Lists entries of the audit log, the newest first. A page may hold fewer than `limit` entries,
/// even none, and still have a next one: only so many are looked at for one page.
#[utoipa::path(get, path = "/audit", tag = "audit", operation_id = "listAudit",
    params(
        ("limit" = Option<u16>, Query, description = "Items of a page: 1 to 1000, or 100",
            minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("action" = Option<String>, Query, description = "What was done, such as `shop.created`"),
        ("actor" = Option<String>, Query, description = "Who: a label or a name"),
        ("subject" = Option<String>, Query,
            description = "To what: a kind, an id, or `<kind>:<id>`"),
        ("shop" = Option<String>, Query, description = "The shop that it is or belongs to"),
        ("from" = Option<String>, Query, description = "Not before this", format = DateTime),
        ("to" = Option<String>, Query, description = "Before this", format = DateTime),
    ),
    responses(
        (status = 200, description = "A page of entries", body = Page<AuditEntry>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditEntry>>, Problem> {
    let (limit, before, filter) = query.parse()?;
    let work = move |node: &Node| audit::list(node, &caller, &filter, before, limit);
    let (entries, next) = at_leisure(&node, work).await?;
    let items = entries.into_iter().map(AuditEntry::from).collect();
    Ok(Json(Page { items, next_cursor: next.map(|next| cursor_after(&next)) }))
}

/// Says where the audit log ends. Kept elsewhere, that shows later whether the log was put back to
/// an older state.
#[utoipa::path(get, path = "/audit/head", tag = "audit", operation_id = "getAuditHead",
    responses(
        (status = 200, description = "The last entry's place in the chain", body = AuditHead),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn head(
    caller: Caller,
    State(node): State<Arc<Node>>,
) -> Result<Json<AuditHead>, Problem> {
    let point = blocking(&node, move |node| audit::head(node, &caller)).await?;
    Ok(Json(AuditHead::from(point)))
}

/// Verifies the audit log: whether an entry was altered, removed, moved or inserted since it was
/// written, and where. That the whole database was put back to an older state shows only against
/// a head noted before.
#[utoipa::path(post, path = "/audit/verify", tag = "audit", operation_id = "verifyAudit",
    request_body(content = Option<AuditVerify>),
    responses(
        (status = 200, description = "What was found, intact or not", body = AuditVerified),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn verify(
    caller: Caller,
    State(node): State<Arc<Node>>,
    OptionalBody { value, .. }: OptionalBody<AuditVerify>,
) -> Result<Json<AuditVerified>, Problem> {
    let expected = value.expect.map(|text| {
        text.parse::<Point>().map_err(|error| Problem::invalid("expect", error.to_string()))
    });
    let expected = expected.transpose()?;
    let report = at_leisure(&node, move |node| audit::verify(node, &caller, expected)).await?;
    Ok(Json(AuditVerified::from(report)))
}

/// Exports the whole audit log as JSON lines: a first line that says where it begins and ends, then
/// each entry as it is stored, with its MAC. `latchkey audit verify --file` verifies it.
#[utoipa::path(get, path = "/audit/export", tag = "audit", operation_id = "exportAudit",
    responses(
        (status = 200, description = "The log, one JSON value a line", body = String,
            content_type = "application/x-ndjson"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn export_all(
    caller: Caller,
    State(node): State<Arc<Node>>,
) -> Result<Response, Problem> {
    let export = blocking(&node, move |node| audit::export(node, &caller)).await?;
    Ok(file(&node, export))
}

/// An export as a file: read when whoever takes it has taken what came before. It breaks off when
/// the store fails; the first line tells how much there should have been.
pub(in crate::admin) fn file(node: &Arc<Node>, mut export: Export) -> Response {
    let read = Arc::clone(node);
    let mut response = progress::stream(node, progress::NDJSON, move |to| {
        let gone = |_| Problem::new(Code::Internal, "The export ended early.");
        to.write_all(&export::first_line(export.anchor, export.head)).map_err(gone)?;
        loop {
            let links = export.next(&read).inspect_err(|error| {
                tracing::error!(%error, "an export of the audit log broke off");
            })?;
            if links.is_empty() {
                return Ok(());
            }
            for link in &links {
                to.write_all(&export::line(link)).map_err(gone)?;
            }
        }
    });
    let name = HeaderValue::from_static("attachment; filename=\"latchkey-audit.jsonl\"");
    response.headers_mut().insert(CONTENT_DISPOSITION, name);
    response
}
