//! Refusals as they happen: a table that grows at its top.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::RawQuery;
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;

use super::failure::sentence;
use super::frame::{Frame, query_value};
use super::visit::SignedIn;
use super::{Answer, page};
use crate::admin::live;
use crate::admin::operations::events::{self, Filter};
use crate::admin::operations::sessions;
use crate::clock::Timestamp;
use crate::decision::denial::Code;
use crate::events::Refusal;

/// Most refusals that the page begins with.
const ROWS_MAX: usize = 100;
/// How long a stream lasts. The browser comes back by itself, with its session looked at anew.
const STREAM_LIFETIME: Duration = Duration::from_secs(30);
/// From one look at whether the session goes on to the next: who signs out, or may see less now,
/// is told nothing more.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Template)]
#[template(path = "refusals.html")]
struct Page {
    frame: Frame,
    code: String,
    codes: Vec<(&'static str, &'static str)>,
    rows: Vec<Row>,
    /// The name of the latest refusal of all, for the stream to go on from.
    latest: String,
}

/// A refusal, as the page shows it; those that come later are shown by its script.
#[derive(Debug)]
struct Row {
    sequence: u64,
    at: Timestamp,
    method: String,
    path: String,
    route: String,
    status: u16,
    code: &'static str,
    why: String,
    client: String,
    shop: String,
    credential: String,
    origin: String,
}

impl Row {
    fn of(refusal: &Refusal) -> Self {
        let text = |text: Option<String>| text.unwrap_or_default();
        Self {
            sequence: refusal.sequence,
            at: refusal.at,
            method: refusal.method.to_string(),
            path: refusal.path.to_string(),
            route: text(refusal.route.as_ref().map(ToString::to_string)),
            status: refusal.status,
            code: refusal.code.as_str(),
            why: sentence(refusal.why.as_ref()),
            client: refusal.client.to_string(),
            shop: text(refusal.shop.as_ref().map(ToString::to_string)),
            credential: text(refusal.key_id.as_ref().map(ToString::to_string)),
            origin: text(refusal.origin.as_ref().map(ToString::to_string)),
        }
    }
}

fn filter_of(query: Option<&str>) -> Filter {
    Filter { code: live::code(&query_value(query, "code")), shop: None }
}

/// The last refusals; those to come are added by script.
pub(super) async fn show(visit: SignedIn, RawQuery(query): RawQuery) -> Answer {
    let filter = filter_of(query.as_deref());
    let code = filter.code.map_or("", Code::as_str).to_owned();
    let recent = events::recent(visit.node(), visit.caller(), filter)?;
    let node = visit.node();
    let latest = node.events.recent().last().map_or(0, |last| last.sequence);
    let mut codes = vec![("", "Every code")];
    codes.extend(Code::ALL.map(|code| (code.as_str(), code.as_str())));
    page(&Page {
        frame: visit.frame("Live refusals", "/refusals"),
        code,
        codes,
        rows: recent.iter().take(ROWS_MAX).map(|refusal| Row::of(refusal)).collect(),
        latest: live::event_id(latest, node.begun),
    })
}

/// The refusals after the one that the browser has, as server-sent events.
pub(super) async fn stream(
    visit: SignedIn,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer {
    let (query, node) = (query.as_deref(), visit.node());
    let after = query_value(query, "after");
    let after = Some(after.as_str()).filter(|after| !after.is_empty());
    let after = live::resumed(&headers, after, node.begun);
    let subscription = events::subscribe(node, visit.caller(), filter_of(query), after)?;
    let (began, session) = (node.now().mono, visit.session.id);
    // It does not keep the node alive.
    let weak = Arc::downgrade(node);
    let goes_on = move || {
        let node = weak.upgrade();
        let node = node.filter(|node| node.now().mono.since(began) < STREAM_LIFETIME);
        node.is_some_and(|node| sessions::goes_on(&node, session))
    };
    Ok(live::stream(subscription, node.begun, LOOK_INTERVAL, goes_on).into_response())
}
