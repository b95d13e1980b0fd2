//! HTTP/1.1 to an endpoint: one connection, one request at a time.
//!
//! A connection has no task of its own: whoever waits for its response, and then for the
//! response's body, drives it. That saves a wake-up and a hand-over per request. Only a request
//! whose body is still on its way when the response begins is driven by a task, because then both
//! have to go on however slowly the response is taken.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::request_body::RequestBody;
use super::stream::Stream;
use crate::clock::Monotonic;

/// The most bytes of a response's head, and of a body read ahead.
const BUFFER_BYTES: usize = 64 * 1024;
/// The most bytes until a response's head is complete: of interim responses (1xx) hyper takes as
/// many as come.
const HEARD_BYTES_MAX: usize = 4 * BUFFER_BYTES;

/// A connection.
pub(super) struct H1 {
    send: SendRequest<RequestBody>,
    conn: Connection<TokioIo<Stream>, RequestBody>,
    heard: Rc<Cell<usize>>,
    /// It has carried a request before.
    reused: bool,
    ended: bool,
    /// It takes no further request.
    spent: bool,
    /// Since when it is idle.
    idle_since: Monotonic,
    /// For how long it may be, as the other side has said.
    idle_max: Option<Duration>,
}

/// Why a request got no response.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: hyper::Error,
    /// The request, if nothing of it was sent.
    pub(super) request: Option<Box<Request<RequestBody>>>,
}

/// The same, as hyper says it.
pub(super) type Refused = TrySendError<Request<RequestBody>>;

impl From<Refused> for Unanswered {
    fn from(mut error: Refused) -> Self {
        let request = error.take_message().map(Box::new);
        Self { error: error.into_error(), request }
    }
}

impl H1 {
    /// Over a new connection.
    pub(super) async fn new(stream: Stream) -> Result<Self, hyper::Error> {
        let heard = stream.heard();
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES).max_header_size(BUFFER_BYTES);
        let (send, conn) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            send,
            conn,
            heard,
            reused: false,
            ended: false,
            spent: false,
            idle_since: Monotonic::default(),
            idle_max: None,
        })
    }

    /// Puts a request on its way; the result is to be awaited with [`H1::poll`].
    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, Refused>> + use<> {
        self.heard.set(0);
        self.send.try_send_request(request)
    }

    /// Gets on with whatever is to be read and written.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        // What went wrong is told to who waits for the response or its body.
        if !self.ended && Pin::new(&mut self.conn).poll(cx).is_ready() {
            self.ended = true;
        }
    }

    /// Gets on with it, without being woken for it.
    fn poll_once(&mut self) {
        self.poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Whether it has carried a request before, and nothing was heard of the present one.
    pub(super) fn was_dropped_idle(&self) -> bool {
        self.reused && self.heard.get() == 0
    }

    /// Whether more was said than an answer's head can be.
    pub(super) fn has_heard_too_much(&self) -> bool {
        self.heard.get() > HEARD_BYTES_MAX
    }

    /// Whether it has carried a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// No more comes of it.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The response has arrived and the request is out, both whole: it can take the next one.
    pub(super) fn is_idle(&self) -> bool {
        !self.spent && self.is_done()
    }

    fn is_done(&self) -> bool {
        !self.ended && self.send.is_ready()
    }

    /// Notes what the other side says of how long it keeps idle connections (`Keep-Alive:
    /// timeout=5`), with a second to spare, so that it is not asked when it is about to close. One
    /// that speaks HTTP/1.0 is not asked again at all: hyper would send it the next request in
    /// HTTP/1.0 too, which has no chunks, and leave out a body of unknown length without a word.
    pub(super) fn note_keep_alive(&mut self, response: &Response<Incoming>) {
        self.spent = response.version() != Version::HTTP_11;
        let Some(value) = response.headers().get("keep-alive") else {
            return;
        };
        let text = value.to_str().unwrap_or_default();
        let mut options = text.split(',').filter_map(|option| option.trim().split_once('='));
        let timeout = options.find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
        if let Some(seconds) = timeout.and_then(|(_, value)| value.trim().parse::<u32>().ok()) {
            let ms = u64::from(seconds) * 1000;
            self.idle_max = Some(Duration::from_millis(ms.saturating_sub(1000).max(ms / 2)));
        }
    }

    /// It goes to its place among the idle ones.
    pub(super) fn rest(&mut self, now: Monotonic) {
        self.reused = true;
        self.idle_since = now;
    }

    /// Whether it may take another request after `idle_timeout` or what the other side has said,
    /// and is still alive, as far as can be told.
    pub(super) fn is_fresh(&mut self, idle_timeout: Duration, now: Monotonic) -> bool {
        let bound = self.idle_max.map_or(idle_timeout, |max| max.min(idle_timeout));
        if now.since(self.idle_since) >= bound {
            return false;
        }
        self.poll_once();
        self.is_idle()
    }

    /// Gives up HTTP on it, after a response that has changed the protocol: what is left is a
    /// stream of bytes, the first of which may have arrived.
    pub(super) fn into_parts(self) -> (Stream, Bytes) {
        let parts = self.conn.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }

    /// Drives it until the exchange is over or it has ended.
    pub(super) async fn drive(&mut self) {
        std::future::poll_fn(|cx| {
            self.poll(cx);
            if self.ended || self.is_done() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether it is idle after all that has arrived was looked at.
    pub(super) fn has_finished(&mut self) -> bool {
        self.poll_once();
        self.is_idle()
    }
}

/// Whether the head of a response means one thing only (RFC 9112 §6.3). hyper has refused what
/// cannot be read at all; what is left is what readers differ in.
pub(super) fn check_head(response: &Response<Incoming>) -> Result<(), &'static str> {
    let headers = response.headers();
    if response.status().as_u16() >= 600 {
        return Err("its status is not one of HTTP's");
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let encoding = encodings.next();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if encoding.is_some() && length.is_some() {
        return Err("it has both Transfer-Encoding and Content-Length");
    }
    if encodings.next().is_some()
        || encoding.is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err("its Transfer-Encoding is not exactly `chunked`");
    }
    let digits = |value: &header::HeaderValue| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= 18 && bytes.iter().all(u8::is_ascii_digit)
    };
    if lengths.next().is_some() || length.is_some_and(|length| !digits(length)) {
        return Err("its Content-Length is not one number");
    }
    Ok(())
}
