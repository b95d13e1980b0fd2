//! Refusals as server-sent events (WHATWG HTML §9.2), for the API and for the dashboard.
//!
//! A stream begins where `Last-Event-ID` says, lasts until the listener leaves, may not listen any
//! more, or the node stops, and says so every few seconds when there is nothing else to say. A
//! listener that is slow is told how many refusals it missed. Who may listen to what is
//! [`operations::events`](super::operations::events)' to say.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use http_body::Frame;
use serde::Serialize;
use tokio::time::{Sleep, sleep};
use utoipa::ToSchema;

use super::operations::events::Subscription;
use crate::clock::Timestamp;
use crate::decision::denial::Code;
use crate::decision::principal::Mechanism;
use crate::events::{Item, Refusal};

/// Where a listener that comes back goes on.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells nginx not to keep events until it has a buffer full of them.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How long a browser waits before it connects again, milliseconds.
const RETRY_MS: u32 = 2000;

/// A request that did not go through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusalView {
    /// Its name in the stream, for `Last-Event-ID`.
    pub id: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The request's name, as the client and the log know it.
    pub request_id: String,
    /// The trace it is of, if requests are of traces, as the log and the upstream know it.
    pub trace_id: Option<String>,
    /// The method; empty if no request could be read.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The route, if one takes it.
    pub route: Option<String>,
    /// The status of the answer.
    pub status: u16,
    /// Why, for programs.
    pub code: &'static str,
    /// Why, for people.
    pub why: String,
    /// The client address.
    pub client: String,
    /// The shop of the caller, if it is known who that is.
    pub shop: Option<String>,
    /// The public name of the credential: a key id or a widget token id.
    pub key_id: Option<String>,
    /// As what a credential was presented, if one was looked at.
    pub mechanism: Option<&'static str>,
    /// The `Origin` that the browser sent.
    pub origin: Option<String>,
    /// How many refusals before it are not described, because there were too many at once.
    pub skipped: u64,
}

impl RefusalView {
    /// `refusal`, under its name among those of the process that began at `begun`.
    #[must_use]
    pub fn new(refusal: &Refusal, begun: Timestamp) -> Self {
        Self {
            id: event_id(refusal.sequence, begun),
            at: refusal.at,
            request_id: refusal.request_id.to_string(),
            trace_id: refusal.trace_id.as_deref().map(str::to_owned),
            method: refusal.method.to_string(),
            path: refusal.path.to_string(),
            route: refusal.route.as_ref().map(ToString::to_string),
            status: refusal.status,
            code: refusal.code.as_str(),
            why: refusal.why.to_string(),
            client: refusal.client.to_string(),
            shop: refusal.shop.map(|shop| shop.to_string()),
            key_id: refusal.key_id.as_deref().map(str::to_owned),
            mechanism: refusal.mechanism.map(Mechanism::as_str),
            origin: refusal.origin.as_deref().map(str::to_owned),
            skipped: refusal.skipped,
        }
    }
}

/// The code of this name.
#[must_use]
pub fn code(text: &str) -> Option<Code> {
    Code::ALL.into_iter().find(|code| code.as_str() == text)
}

/// After which refusal a stream begins: what `Last-Event-ID` names, or else `after`, which a page
/// may give; `None`: with those to come. A name of another process is none: everything is new.
#[must_use]
pub fn resumed(headers: &HeaderMap, after: Option<&str>, begun: Timestamp) -> Option<u64> {
    let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let id = last.or(after)?;
    let known = id.split_once('-').filter(|(process, _)| *process == process_name(begun));
    Some(known.and_then(|(_, sequence)| sequence.parse().ok()).unwrap_or(0))
}

/// The name of a refusal in the stream, among those of the process that began at `begun`.
#[must_use]
pub fn event_id(sequence: u64, begun: Timestamp) -> String {
    format!("{}-{sequence}", process_name(begun))
}

fn process_name(begun: Timestamp) -> String {
    format!("{:x}", begun.unix_ms())
}

/// Streams what `subscription` brings. `is_alive` is asked at this `interval` whether the listener
/// may still listen: its token may be revoked, its session ended.
pub fn stream(
    subscription: Subscription,
    begun: Timestamp,
    interval: Duration,
    is_alive: impl Fn() -> bool + Send + 'static,
) -> Response<Body> {
    let source = Source {
        subscription,
        begun,
        is_alive: Box::new(is_alive),
        interval,
        beat: Box::pin(sleep(interval)),
        greeted: false,
    };
    let mut response = Response::new(Body::new(Events(Some(Box::pin(source.next())))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// The next bytes of a stream, and what comes after them.
type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Source)>> + Send>>;

/// The body: asks for more only when there is room for it, so that what a slow listener does not
/// take waits in its bounded channel and not here.
struct Events(Option<Next>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let found = ready!(next.as_mut().poll(cx));
        let (bytes, rest) = found.unzip();
        self.0 = rest.map(|source| Box::pin(source.next()) as Next);
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

struct Source {
    subscription: Subscription,
    begun: Timestamp,
    is_alive: Box<dyn Fn() -> bool + Send>,
    /// From one look after the listener to the next.
    interval: Duration,
    /// When that is.
    beat: Pin<Box<Sleep>>,
    greeted: bool,
}

impl Source {
    /// The next bytes; `None` at the end.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if !self.greeted {
            self.greeted = true;
            return Some((format!("retry: {RETRY_MS}\n\n").into(), self));
        }
        // The beat comes first: who keeps getting events is looked after too.
        let item = tokio::select! {
            biased;
            () = self.beat.as_mut() => None,
            item = self.subscription.next() => Some(item),
        };
        let bytes = match item {
            Some(item) => text(&item?, self.begun).into(),
            None if (self.is_alive)() => {
                self.beat = Box::pin(sleep(self.interval));
                Bytes::from_static(b":\n\n")
            }
            None => return None,
        };
        Some((bytes, self))
    }
}

fn text(item: &Item, begun: Timestamp) -> String {
    match item {
        Item::Refusal(refusal) => {
            let view = RefusalView::new(refusal, begun);
            // Strings and numbers always serialize, and JSON has no line breaks of its own.
            let json = serde_json::to_string(&view).unwrap_or_default();
            format!("event: refusal\nid: {}\ndata: {json}\n\n", view.id)
        }
        Item::Missed(count) => format!("event: missed\ndata: {{\"count\":{count}}}\n\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::admin::caller::Caller;
    use crate::admin::operations::events::{Filter, HEARTBEAT, subscribe};
    use crate::admin::testing::{Bench, START};
    use crate::events::bounded;

    fn refusal(path: &str) -> Refusal {
        Refusal {
            sequence: 0,
            skipped: 0,
            at: START,
            request_id: "1".into(),
            trace_id: None,
            method: "GET".into(),
            path: bounded(path),
            route: None,
            status: 404,
            code: Code::NotFound,
            why: "a\nb".into(),
            client: [127, 0, 0, 1].into(),
            shop: None,
            key_id: None,
            mechanism: None,
            origin: None,
        }
    }

    /// What the stream says next.
    async fn said(body: &mut Body) -> Option<String> {
        let bytes = body.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn listen(bench: &Bench, after: Option<u64>, alive: &Arc<AtomicBool>) -> Body {
        let filter = Filter::default();
        let subscription = subscribe(&bench.node, &Caller::socket(), filter, after).unwrap();
        let alive = Arc::clone(alive);
        stream(subscription, START, HEARTBEAT, move || alive.load(Ordering::SeqCst)).into_body()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_greets_beats_and_ends() {
        let bench = Bench::new();
        let alive = Arc::new(AtomicBool::new(true));
        let mut body = listen(&bench, None, &alive);
        assert_eq!(said(&mut body).await.unwrap(), "retry: 2000\n\n");
        bench.node.events.publish(refusal("/x"));
        let event = said(&mut body).await.unwrap();
        let id = event_id(1, START);
        assert!(event.starts_with(&format!("event: refusal\nid: {id}\ndata: {{")), "{event}");
        assert!(event.ends_with("}\n\n") && event.matches('\n').count() == 4, "{event}");
        for _ in 0..100 {
            assert_eq!(said(&mut body).await.unwrap(), ":\n\n");
        }
        alive.store(false, Ordering::SeqCst);
        assert_eq!(said(&mut body).await, None);
        assert_eq!(said(&mut body).await, None);
        alive.store(true, Ordering::SeqCst);
        let mut body = listen(&bench, Some(0), &alive);
        said(&mut body).await.unwrap();
        assert!(said(&mut body).await.unwrap().contains("\"path\":\"/x\""));
        bench.node.set_draining();
        assert_eq!(said(&mut body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_getting_events_is_looked_after_too() {
        let bench = Bench::new();
        let alive = Arc::new(AtomicBool::new(false));
        let mut body = listen(&bench, None, &alive);
        let mut events = 0;
        while said(&mut body).await.is_some() {
            bench.node.events.publish(refusal("/x"));
            tokio::time::advance(std::time::Duration::from_millis(100)).await;
            events += 1;
        }
        assert!((10..60).contains(&events), "{events}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_listener_is_told_what_it_missed() {
        let bench = Bench::new();
        let alive = Arc::new(AtomicBool::new(true));
        let mut slow = listen(&bench, None, &alive);
        said(&mut slow).await.unwrap();
        (0..1000).for_each(|n| bench.node.events.publish(refusal(&format!("/{n}"))));
        let missed = said(&mut slow).await.unwrap();
        assert_eq!(missed, "event: missed\ndata: {\"count\":744}\n\n");
        assert!(said(&mut slow).await.unwrap().contains("\"path\":\"/744\""));
    }

    #[test]
    fn streams_go_on_where_they_were() {
        let id = event_id(7, START);
        let other = event_id(7, Timestamp::from_unix_s(5));
        let mut headers = HeaderMap::new();
        let at = |headers: &HeaderMap, after| resumed(headers, after, START);
        assert_eq!(at(&headers, None), None);
        assert_eq!(at(&headers, Some("0")), Some(0));
        assert_eq!(at(&headers, Some(&id)), Some(7));
        assert_eq!(at(&headers, Some(&other)), Some(0));
        headers.insert(LAST_EVENT_ID, HeaderValue::from_str(&event_id(9, START)).unwrap());
        assert_eq!(at(&headers, Some(&id)), Some(9));
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static("x-y-z"));
        assert_eq!(at(&headers, None), Some(0));
    }
}
