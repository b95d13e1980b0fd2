//! HTTP/2 to an endpoint: a few connections per worker, each with many requests at a time, driven
//! by a task of their own.
//!
//! Every bound is set by hand, as for callers: the other side is trusted with requests, not with
//! memory.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;

use super::h1::Unanswered;
use super::request_body::RequestBody;
use super::stream::Stream;
use crate::clock::Monotonic;

/// Requests on one connection, until another is opened.
const STREAMS_MAX: usize = 100;
/// Connections of a worker to an endpoint; beyond, requests wait for a stream.
const CONNECTIONS_MAX: usize = 4;
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const FRAME_BYTES_MAX: u32 = 16 * 1024;
const HEAD_BYTES_MAX: u32 = 64 * 1024;
const SEND_BUFFER_BYTES: usize = 256 * 1024;
const RESETS_MAX: usize = 100;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Spawns on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct OnThisThread;

impl<F: Future<Output = ()> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// A connection, shared by the requests on it.
#[derive(Clone)]
pub(super) struct H2 {
    send: SendRequest<RequestBody>,
    streams: Rc<Cell<usize>>,
    /// Since when nothing is under way, as the sweep has seen it.
    idle_since: Rc<Cell<Option<Monotonic>>>,
}

impl H2 {
    /// Over a new connection.
    pub(super) async fn new(stream: Stream) -> Result<Self, hyper::Error> {
        let mut builder = http2::Builder::new(OnThisThread);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_max_send_streams(STREAMS_MAX)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_concurrent_reset_streams(RESETS_MAX)
            .max_local_error_reset_streams(RESETS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let (send, conn) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            // Those who wait for a response on it are told.
            let _ = conn.await;
        });
        Ok(Self { send, streams: Rc::default(), idle_since: Rc::default() })
    }

    /// Sends a request.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Unanswered> {
        self.send.try_send_request(request).await.map_err(Unanswered::from)
    }

    /// A request's place on it.
    pub(super) fn occupy(&self) -> Occupied {
        self.streams.set(self.streams.get() + 1);
        self.idle_since.set(None);
        Occupied(Rc::clone(&self.streams))
    }
}

/// A request's place on a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Occupied(Rc<Cell<usize>>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// The connections of a worker to an endpoint.
#[derive(Default)]
pub(super) struct H2Pool {
    open: RefCell<Vec<H2>>,
    /// One is being opened.
    opening: Cell<bool>,
    opened: Notify,
    /// Attempts that failed, and the last one's reason.
    failures: Cell<u64>,
    failure: RefCell<Option<Arc<str>>>,
}

/// What to do for a connection.
pub(super) enum Turn<'a> {
    /// Take this one.
    Use(H2),
    /// Open one, and say what came of it.
    Open(Opening<'a>),
    /// Somebody else's attempt has failed.
    Failed(Arc<str>),
}

/// The task to open a connection, which others wait for; whoever drops it leaves it to the next.
pub(super) struct Opening<'a>(&'a H2Pool);

impl Opening<'_> {
    /// What came of it.
    pub(super) fn opened(self, result: Result<H2, Arc<str>>) {
        match result {
            Ok(h2) => self.0.open.borrow_mut().push(h2),
            Err(reason) => {
                self.0.failures.set(self.0.failures.get() + 1);
                self.0.failure.replace(Some(reason));
            }
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.set(false);
        self.0.opened.notify_waiters();
    }
}

impl H2Pool {
    /// A connection with room, or the task to open one; waits while somebody else has that task.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let before = self.failures.get();
        loop {
            let waited = self.opened.notified();
            let best = self.best();
            let crowded = best.as_ref().is_none_or(|h2| h2.streams.get() >= STREAMS_MAX);
            let may_open = self.open.borrow().len() < CONNECTIONS_MAX && !self.opening.get();
            match best {
                Some(h2) if !crowded || !may_open => return Turn::Use(h2),
                _ if may_open => {
                    self.opening.set(true);
                    return Turn::Open(Opening(self));
                }
                _ => {}
            }
            waited.await;
            if self.failures.get() != before {
                let reason = self.failure.borrow().clone();
                return Turn::Failed(reason.unwrap_or_else(|| Arc::from("it failed")));
            }
        }
    }

    /// The least busy of those that are alive.
    fn best(&self) -> Option<H2> {
        let mut open = self.open.borrow_mut();
        open.retain(|h2| h2.send.is_ready());
        open.iter().min_by_key(|h2| h2.streams.get()).cloned()
    }

    /// Lets go of connections that are dead, or on which nothing was under way for `idle_timeout`.
    pub(super) fn sweep(&self, idle_timeout: Duration, now: Monotonic) {
        self.open.borrow_mut().retain(|h2| {
            if h2.streams.get() > 0 {
                return h2.send.is_ready();
            }
            let since = h2.idle_since.get().unwrap_or(now);
            h2.idle_since.set(Some(since));
            h2.send.is_ready() && now.since(since) < idle_timeout
        });
    }
}
