//! A connection of HTTP/2: hyper's server within bounds that are all set by hand, on a wire that
//! keeps the time.
//!
//! What hyper and h2 see to: frames, header blocks, flow control, streams opened to be reset, a
//! peer that answers no PING. What is seen to here: nothing arrives at all → closed silently; no
//! request for the idle time → GOAWAY; no progress of the client taking what is written, or what
//! it asked for → the connection is given up; none of one response while others go on → its
//! stream is reset; more requests given up by the client than completed, by far → GOAWAY. What a
//! request says is judged when it is one.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::h2::Reason;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::held::{Buffer, Timer, Wait};
use super::stream::{Paced, Stream};
use crate::config::ServerConfig;
use crate::metrics::{Bound, GoAway};
use crate::server::conn::Conn;
use crate::server::log;
use crate::server::streams::{Offer, Streams};

/// How long a peer that was told GOAWAY, and has no request under way, may take to close.
const GOODBYE: Duration = Duration::from_secs(2);

/// Runs requests on the worker that has their connection.
#[derive(Clone)]
struct OnWorker {
    conn: Rc<Conn>,
    /// So long may a client take nothing of a response.
    stall: Duration,
}

impl<F: Future + 'static> Executor<F> for OnWorker {
    fn execute(&self, request: F) {
        let Self { conn, stall } = self.clone();
        tokio::task::spawn_local(async move {
            let mut pace = Pace::new(&conn, stall);
            let mut request = pin!(request);
            // Where the time is over, the request is dropped: that resets its stream.
            poll_fn(|cx| pace.poll(cx, request.as_mut())).await;
        });
    }
}

/// The time of one response, in which a connection that is busy otherwise is no excuse: else a
/// client could keep as many requests under way as it likes, by asking for others now and then.
struct Pace<'a> {
    conn: &'a Conn,
    stall: Duration,
    offer: Rc<Offer>,
    timer: Timer,
    /// What the client had taken of the response, and done on the connection, when the timer was
    /// set.
    taken: u32,
    steps: u32,
}

impl<'a> Pace<'a> {
    fn new(conn: &'a Conn, stall: Duration) -> Self {
        let (offer, timer) = (Rc::default(), Timer::default());
        Self { conn, stall, offer, timer, taken: 0, steps: 0 }
    }

    /// Ready when `request` has ended, or is to be given up.
    fn poll<F: Future>(&mut self, cx: &mut Context<'_>, request: Pin<&mut F>) -> Poll<()> {
        let Some(streams) = self.conn.streams() else {
            return request.poll(cx).map(drop);
        };
        if streams.within(&self.offer, || request.poll(cx)).is_ready() {
            return Poll::Ready(());
        }
        if !self.offer.is_untaken() || self.offer.steps() != self.taken {
            self.timer.disarm();
        }
        if !self.offer.is_untaken() {
            return Poll::Pending;
        }
        loop {
            if !self.timer.is_armed() {
                (self.taken, self.steps) = (self.offer.steps(), streams.steps());
            }
            ready!(self.timer.poll(cx, Wait::Write, self.stall));
            if streams.steps() != self.steps {
                self.conn.local.shared.metrics.bound_hit(Bound::BodyTimeout);
                return Poll::Ready(());
            }
            // Nothing goes on at all: that is the connection's to judge.
            self.timer.disarm();
        }
    }
}

/// Serves a connection of HTTP/2 until its end. `is_draining` tells, whenever the task is woken,
/// whether no more requests are to be taken.
pub(in crate::server) async fn serve<F, B>(
    conn: &Rc<Conn>,
    wire: H2Wire,
    config: &ServerConfig,
    is_draining: impl Fn(&Context<'_>) -> bool,
    handle: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Result<Response<B>, std::convert::Infallible>> + 'static,
    B: Body<Data = bytes::Bytes> + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let Some(streams) = conn.streams() else {
        return;
    };
    let mut http = pin!(builder(conn, config).serve_connection(wire, service_fn(handle)));
    let metrics = &conn.local.shared.metrics;
    let mut watch = Watch::new(config);
    let ended = poll_fn(|cx| {
        streams.watch(cx.waker());
        loop {
            if let Poll::Ready(ended) = http.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
            match ready!(watch.poll(cx, streams, is_draining(cx))) {
                Step::GoAway(cause) => {
                    metrics.h2_goaway(cause);
                    if cause == GoAway::Idle {
                        metrics.bound_hit(Bound::IdleTimeout);
                    }
                    http.as_mut().graceful_shutdown();
                }
                Step::Cut(cause) => {
                    if let Some(cause) = cause {
                        metrics.h2_goaway(cause);
                        metrics.bound_hit(Bound::BodyTimeout);
                    }
                    return Poll::Ready(None);
                }
            }
        }
    });
    if let Some(Err(error)) = ended.await {
        if let Some(cause) = cause(&error) {
            metrics.h2_goaway(cause);
        }
        log::connection_ended(&error);
    }
}

fn builder(conn: &Rc<Conn>, config: &ServerConfig) -> http2::Builder<OnWorker> {
    let bounds = &config.h2;
    let worker = OnWorker { conn: Rc::clone(conn), stall: config.body_timeout };
    let mut builder = http2::Builder::new(worker);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams_max)
        .initial_stream_window_size(bounds.stream_window_bytes)
        .initial_connection_window_size(bounds.connection_window_bytes)
        .max_send_buf_size(bounds.send_buffer_bytes)
        .max_pending_accept_reset_streams(bounds.pending_resets_max)
        .max_local_error_reset_streams(bounds.local_resets_max)
        .keep_alive_interval(bounds.keep_alive_interval)
        .keep_alive_timeout(bounds.keep_alive_timeout)
        .max_header_list_size(u32::try_from(config.header_bytes_max).unwrap_or(u32::MAX));
    builder
}

/// Why h2 ended the connection, if it was its doing.
fn cause(error: &hyper::Error) -> Option<GoAway> {
    let h2 = error.source()?.downcast_ref::<::h2::Error>()?;
    if !h2.is_library() {
        return None;
    }
    match h2.reason()? {
        Reason::ENHANCE_YOUR_CALM => Some(GoAway::Flood),
        Reason::NO_ERROR => None,
        _ => Some(GoAway::Protocol),
    }
}

/// What is to be done with a connection.
enum Step {
    /// Take no more requests, and tell the client.
    GoAway(GoAway),
    /// End it at once.
    Cut(Option<GoAway>),
}

/// The times of a connection.
struct Watch {
    idle: Duration,
    stall: Duration,
    given_up_max: u32,
    timer: Timer,
    /// What the client had done when the timer was set.
    steps: u32,
    told: bool,
}

impl Watch {
    fn new(config: &ServerConfig) -> Self {
        Self {
            idle: config.idle_timeout,
            stall: config.body_timeout,
            given_up_max: u32::try_from(config.h2.local_resets_max).unwrap_or(u32::MAX),
            timer: Timer::default(),
            steps: 0,
            told: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, streams: &Streams, draining: bool) -> Poll<Step> {
        if streams.steps() != self.steps {
            self.steps = streams.steps();
            self.timer.disarm();
        }
        let cause = if draining {
            Some(GoAway::Drain)
        } else {
            (streams.given_up() > self.given_up_max).then_some(GoAway::Flood)
        };
        if let Some(cause) = cause.filter(|_| !self.told) {
            return self.go_away(cause);
        }
        if streams.open() == 0 {
            if self.told {
                ready!(self.timer.poll(cx, Wait::Linger, GOODBYE));
                return Poll::Ready(Step::Cut(None));
            }
            ready!(self.timer.poll(cx, Wait::Request, self.idle));
            return self.go_away(GoAway::Idle);
        }
        if streams.untaken() > 0 {
            ready!(self.timer.poll(cx, Wait::Write, self.stall));
            return Poll::Ready(Step::Cut(Some(GoAway::Stalled)));
        }
        self.timer.disarm();
        Poll::Pending
    }

    fn go_away(&mut self, cause: GoAway) -> Poll<Step> {
        self.told = true;
        self.timer.disarm();
        Poll::Ready(Step::GoAway(cause))
    }
}

/// The socket as hyper's HTTP/2 sees it.
pub(in crate::server) struct H2Wire {
    stream: Paced,
    conn: Rc<Conn>,
    begun: Buffer,
    first_byte_timeout: Duration,
    /// Until something arrives.
    first_byte: Option<Timer>,
}

impl H2Wire {
    /// A wire over `stream`, from which `begun` was read already.
    pub(in crate::server) fn new(
        stream: Stream,
        begun: &[u8],
        conn: Rc<Conn>,
        config: &ServerConfig,
    ) -> Self {
        let mut buffer = Buffer::default();
        buffer.extend(begun);
        Self {
            stream: Paced::new(stream, &conn, config.body_timeout),
            conn,
            begun: buffer,
            first_byte_timeout: config.first_byte_timeout,
            first_byte: begun.is_empty().then(Timer::default),
        }
    }
}

impl Read for H2Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.begun.is_empty() {
            this.begun.give(&mut cursor, usize::MAX);
            return Poll::Ready(Ok(()));
        }
        let mut scratch = this.conn.local.scratch.borrow_mut();
        let room = scratch.len().min(cursor.remaining());
        let mut read = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
        match Pin::new(this.stream.stream()).poll_read(cx, &mut read)? {
            Poll::Ready(()) => {
                cursor.put_slice(read.filled());
                this.first_byte = None;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                let Some(timer) = &mut this.first_byte else {
                    return Poll::Pending;
                };
                ready!(timer.poll(cx, Wait::Request, this.first_byte_timeout));
                this.conn.local.shared.metrics.bound_hit(Bound::FirstByteTimeout);
                // The end of what is read, as if the client had closed.
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Write for H2Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().stream.poll_write(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().stream.poll_write_vectored(cx, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.poll_shutdown(cx)
    }
}
