//! Refusals as they happen: a table that grows at its top.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::RawQuery;
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use serde::Serialize;
use tokio_stream::wrappers::ReceiverStream;

use super::frame::{Frame, query_value};
use super::visit::SignedIn;
use super::{Answer, page};
use crate::admin::operations::events::{self, Filter, Subscription};
use crate::admin::operations::sessions;
use crate::decision::denial::Code;
use crate::events::{Item, Refusal};

/// Most refusals that the page begins with.
const ROWS_MAX: usize = 100;
/// Events that wait for a slow browser; the subscription holds the others.
const WAITING_MAX: usize = 16;
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
    /// The number of the latest refusal of all, for the stream to go on from.
    latest: u64,
}

/// A refusal, as the page and its script show it.
#[derive(Debug, Serialize)]
struct Row {
    sequence: u64,
    at: crate::clock::Timestamp,
    request: String,
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
            request: format!("{} {}", refusal.method, refusal.path),
            route: text(refusal.route.as_ref().map(ToString::to_string)),
            status: refusal.status,
            code: refusal.code.as_str(),
            why: super::failure::sentence(refusal.why.as_ref()),
            client: refusal.client.to_string(),
            shop: text(refusal.shop.as_ref().map(ToString::to_string)),
            credential: text(refusal.key_id.as_ref().map(ToString::to_string)),
            origin: text(refusal.origin.as_ref().map(ToString::to_string)),
        }
    }
}

fn filter_of(query: Option<&str>) -> Filter {
    let code = query_value(query, "code");
    Filter { code: Code::ALL.into_iter().find(|known| known.as_str() == code), shop: None }
}

/// The last refusals; those to come are added by script.
pub(super) async fn show(visit: SignedIn, RawQuery(query): RawQuery) -> Answer {
    let filter = filter_of(query.as_deref());
    let code = filter.code.map_or("", Code::as_str).to_owned();
    let recent = events::recent(visit.node(), visit.caller(), filter)?;
    let latest = visit.node().events.recent().last().map_or(0, |last| last.sequence);
    let mut codes = vec![("", "Every code")];
    codes.extend(Code::ALL.map(|code| (code.as_str(), code.as_str())));
    page(&Page {
        frame: visit.frame("Live refusals", "/refusals"),
        code,
        codes,
        rows: recent.iter().take(ROWS_MAX).map(|refusal| Row::of(refusal)).collect(),
        latest,
    })
}

/// The refusals after the one that the browser has, as server-sent events.
pub(super) async fn live(visit: SignedIn, headers: HeaderMap, RawQuery(query): RawQuery) -> Answer {
    let query = query.as_deref();
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let after = resumed.or_else(|| query_value(query, "after").parse().ok());
    let filter = filter_of(query);
    let subscription = events::subscribe(visit.node(), visit.caller(), filter, after)?;
    let (sender, receiver) = tokio::sync::mpsc::channel(WAITING_MAX);
    // It does not keep the node alive.
    let (node, session) = (Arc::downgrade(visit.node()), visit.session.id);
    let ended = async move {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if !node.upgrade().is_some_and(|node| sessions::goes_on(&node, session)) {
                return;
            }
        }
    };
    tokio::spawn(async move {
        // That it is over, by its time or because nobody reads, is no failure.
        tokio::select! {
            () = pass_on(subscription, sender) => {}
            () = ended => {}
            () = tokio::time::sleep(STREAM_LIFETIME) => {}
        }
    });
    let alive = KeepAlive::new().interval(Duration::from_secs(5));
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(alive).into_response())
}

async fn pass_on(
    mut subscription: Subscription,
    sender: tokio::sync::mpsc::Sender<Result<Event, Infallible>>,
) {
    // The time the browser waits before it comes back.
    let mut next = Some(Event::default().retry(Duration::from_secs(1)).comment("live"));
    while let Some(event) = next {
        if sender.send(Ok(event)).await.is_err() {
            return;
        }
        next = tokio::select! {
            item = subscription.next() => item.map(|item| event_of(&item)),
            () = sender.closed() => None,
        };
    }
}

fn event_of(item: &Item) -> Event {
    match item {
        Item::Missed(count) => Event::default().event("missed").data(count.to_string()),
        Item::Refusal(refusal) => {
            let event = Event::default().event("refusal").id(refusal.sequence.to_string());
            let row = serde_json::to_string(&Row::of(refusal)).unwrap_or_default();
            event.data(row)
        }
    }
}
