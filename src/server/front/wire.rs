//! The socket as hyper sees it: only whole, judged requests, one at a time, each in time.
//!
//! Reading, it holds a head back until [`framing`](super::framing) has judged all of it, and hands
//! the next one over only when the answer to the one before is out. So every fault of a head is
//! met when nothing else is under way, and answered here with a problem of our own; hyper sees a
//! clean end of the connection. What hyper refuses on its own account is recognized (it answers
//! without having called the service) and replaced alike.
//!
//! Its timeouts: nothing arrives at first, or between two requests → closed silently; a head not
//! complete in time → 408; no progress of a body, or a request not complete in time → an error
//! that ends it; no progress of the peer taking what is written → the connection is given up.
//! Before it closes a connection on which the peer may still be sending, it reads on for a moment:
//! otherwise the kernel would answer with a reset, which may overtake the response.

use std::borrow::Cow;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead as _, ReadBuf};

use super::framing::{BodyFraming, ChunkScanner, HeadBounds, HeadFault, HeadScanner};
use super::held::{Buffer, Timer, Wait};
use super::stream::{Paced, Stream};
use crate::clock::Monotonic;
use crate::config::ServerConfig;
use crate::decision::denial::Code;
use crate::metrics::Bound;
use crate::server::conn::Conn;
use crate::server::message::problem;

/// Empty lines tolerated before a request line (RFC 9112 §2.2 asks for one).
const EMPTY_LINES_MAX: u8 = 2;
/// How long, and for how many bytes, is read on after the response to a request cut short.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 512 * 1024;

/// Bounds and timeouts of a connection.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    head: HeadBounds,
    first_byte_timeout: Duration,
    head_timeout: Duration,
    idle_timeout: Duration,
    body_timeout: Duration,
    request_timeout: Duration,
}

/// What is being read.
enum Phase {
    /// A head.
    Head(HeadScanner),
    /// A judged head is handed over, so many bytes of it are left.
    HandOver { left: usize, body: BodyFraming },
    /// A body, so many bytes of it are left.
    Length(u64),
    /// A chunked body.
    Chunked(ChunkScanner),
    /// A body that broke off or broke its framing.
    Broken,
    /// No more requests; the reason is answered once nothing else is under way.
    Refused(Code, Cow<'static, str>),
    /// No more requests.
    Ended,
}

/// How far closing has got.
enum Closing {
    Open,
    Answer(Vec<u8>, usize),
    Shut,
    Linger(usize),
    Closed,
}

/// See the module documentation.
pub(in crate::server) struct Wire {
    pub(super) stream: Paced,
    conn: Rc<Conn>,
    bounds: Bounds,
    pub(super) buffer: Buffer,
    phase: Phase,
    empty_lines: u8,
    /// The peer has stopped sending while a response was due.
    peer_done: bool,
    closing: Closing,
    /// Nothing has arrived yet.
    fresh: bool,
    /// When the request under way began, if its head did not come at once.
    began: Option<Monotonic>,
    read_timer: Timer,
    request_timer: Timer,
}

impl Wire {
    /// A wire over `stream`, from which `begun` was read already.
    pub(in crate::server) fn new(
        stream: Stream,
        begun: &[u8],
        conn: Rc<Conn>,
        config: &ServerConfig,
    ) -> Self {
        let mut buffer = Buffer::default();
        buffer.extend(begun);
        let head = HeadBounds { bytes: config.header_bytes_max, fields: config.header_count_max };
        let bounds = Bounds {
            head,
            first_byte_timeout: config.first_byte_timeout,
            head_timeout: config.head_timeout,
            idle_timeout: config.idle_timeout,
            body_timeout: config.body_timeout,
            request_timeout: config.request_timeout,
        };
        Self {
            stream: Paced::new(stream, &conn, config.body_timeout),
            conn,
            bounds,
            buffer,
            phase: Phase::Head(HeadScanner::default()),
            empty_lines: 0,
            peer_done: false,
            closing: Closing::Open,
            fresh: true,
            began: None,
            read_timer: Timer::default(),
            request_timer: Timer::default(),
        }
    }

    /// Reads what the socket has into the buffer; zero at its end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = self.conn.local.scratch.borrow_mut();
        let mut read = ReadBuf::new(&mut scratch);
        ready!(Pin::new(self.stream.stream()).poll_read(cx, &mut read))?;
        self.buffer.extend(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Between the end of a request and that of its response: only whether the peer is gone. The
    /// end of what it sends is told one turn late, so that a response that needs no waiting still
    /// goes out to a peer that only stopped sending; one that does is given up.
    fn poll_peer_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.peer_done {
            return Poll::Ready(Ok(()));
        }
        if self.buffer.is_empty() && ready!(self.poll_fill(cx))? == 0 {
            self.peer_done = true;
            cx.waker().wake_by_ref();
        }
        // The next request waits; `poll_flush` wakes us for it.
        Poll::Pending
    }

    /// Ready when there is something for hyper to do: a head is whole, or none will be.
    pub(in crate::server) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while matches!(self.phase, Phase::Head(_)) {
            ready!(self.poll_head(cx))?;
        }
        self.conn.hold();
        Poll::Ready(Ok(()))
    }

    /// Whether a part of a head is there.
    pub(in crate::server) fn has_begun(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Gets on with reading a head.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.empty_lines < EMPTY_LINES_MAX && self.buffer.unread().starts_with(b"\r\n") {
            self.empty_lines += 1;
            self.buffer.consume(2);
            self.phase = Phase::Head(HeadScanner::default());
        }
        let Phase::Head(scanner) = &mut self.phase else {
            return Poll::Ready(Ok(()));
        };
        match scanner.scan(self.buffer.unread(), self.bounds.head) {
            Ok(None) => {}
            Ok(Some(head)) => {
                self.read_timer.disarm();
                self.conn.hand_over();
                self.phase = Phase::HandOver { left: head.len, body: head.body };
                return Poll::Ready(Ok(()));
            }
            Err(fault) => {
                self.refuse(fault);
                return Poll::Ready(Ok(()));
            }
        }
        let filled = self.poll_fill(cx)?;
        if filled.is_pending() {
            // Of a head that is not whole, hyper has nothing.
            self.conn.rest();
        }
        match filled {
            Poll::Ready(0) => self.phase = Phase::Ended,
            Poll::Ready(_) => self.fresh = false,
            Poll::Pending if self.buffer.is_empty() => {
                let (bound, time) = if self.fresh {
                    (Bound::FirstByteTimeout, self.bounds.first_byte_timeout)
                } else {
                    (Bound::IdleTimeout, self.bounds.idle_timeout)
                };
                ready!(self.read_timer.poll(cx, Wait::Request, time));
                self.hit(bound);
                self.phase = Phase::Ended;
            }
            Poll::Pending => {
                let clock = &self.conn.local.shared.clock;
                self.began.get_or_insert_with(|| clock.now().mono);
                let (head, request) = (self.bounds.head_timeout, self.bounds.request_timeout);
                ready!(self.read_timer.poll(cx, Wait::Head, head.min(request)));
                self.hit(if head <= request { Bound::HeadTimeout } else { Bound::RequestTimeout });
                let detail = "The head of the request did not arrive in time.";
                self.phase = Phase::Refused(Code::RequestTimeout, detail.into());
            }
        }
        Poll::Ready(Ok(()))
    }

    fn refuse(&mut self, fault: HeadFault) {
        match fault {
            HeadFault::Malformed(_) => {}
            HeadFault::TargetTooLong | HeadFault::TooLarge => self.hit(Bound::HeaderBytes),
            HeadFault::TooManyFields => self.hit(Bound::HeaderCount),
        }
        let (code, detail) = match fault {
            HeadFault::Malformed(why) => {
                (Code::BadRequest, format!("The request is malformed: {why}.").into())
            }
            HeadFault::TargetTooLong => {
                (Code::UriTooLong, "The request line is longer than is allowed.".into())
            }
            HeadFault::TooLarge | HeadFault::TooManyFields => {
                (Code::HeadersTooLarge, "The header fields are too many or too long.".into())
            }
        };
        self.phase = Phase::Refused(code, detail);
    }

    /// The peer ran into a bound.
    fn hit(&self, bound: Bound) {
        self.conn.local.shared.metrics.bound_hit(bound);
    }

    /// The time for the whole request; starts with the first wait for its body, less what its head
    /// took.
    fn poll_request_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = || self.conn.local.shared.clock.now().mono;
        let spent = self.began.take().map_or(Duration::ZERO, |began| now().since(began));
        let left = self.bounds.request_timeout.saturating_sub(spent);
        self.request_timer.poll(cx, Wait::Body, left)
    }

    /// Makes sure that the buffer holds something of the body; an error when the peer dawdles.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.request_timer.is_armed() && self.poll_request_time(cx).is_ready() {
            return self.give_up_body(Bound::RequestTimeout);
        }
        if !self.buffer.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match self.poll_fill(cx)? {
            Poll::Ready(n) => {
                self.read_timer.disarm();
                if n == 0 {
                    self.phase = Phase::Broken;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                if self.poll_request_time(cx).is_ready() {
                    return self.give_up_body(Bound::RequestTimeout);
                }
                ready!(self.read_timer.poll(cx, Wait::Body, self.bounds.body_timeout));
                self.give_up_body(Bound::BodyTimeout)
            }
        }
    }

    fn give_up_body(&mut self, bound: Bound) -> Poll<io::Result<()>> {
        self.hit(bound);
        self.phase = Phase::Broken;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn next_head(&mut self) {
        self.began = None;
        self.request_timer.disarm();
        self.empty_lines = 0;
        self.phase = Phase::Head(HeadScanner::default());
    }

    /// Whether the peer may be sending what nobody will read.
    fn has_unread(&self) -> bool {
        match self.phase {
            Phase::Head(_) | Phase::Ended => !self.buffer.is_empty(),
            Phase::HandOver { .. }
            | Phase::Length(_)
            | Phase::Chunked(_)
            | Phase::Broken
            | Phase::Refused(..) => true,
        }
    }

    /// Hyper's own refusal: ours goes out in its place when the connection closes.
    fn replace(&mut self, answer: &[u8]) {
        let (code, detail) = match answer.get(9..12) {
            Some(b"414") => {
                self.hit(Bound::HeaderBytes);
                (Code::UriTooLong, "The request target is longer than is allowed.")
            }
            Some(b"431") => {
                self.hit(Bound::HeaderCount);
                (Code::HeadersTooLarge, "The header fields are too many or too long.")
            }
            _ => (Code::BadRequest, "The request is malformed."),
        };
        if !matches!(self.phase, Phase::Refused(..)) {
            self.phase = Phase::Refused(code, detail.into());
        }
    }
}

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.phase {
                // What the client sends after it asked for another protocol is that protocol's.
                Phase::Head(_) if this.conn.is_upgraded() => return Poll::Pending,
                Phase::Head(_) if this.conn.is_busy() => return this.poll_peer_gone(cx),
                Phase::Head(_) => ready!(this.poll_head(cx))?,
                Phase::HandOver { left, body } => {
                    *left -= this.buffer.give(&mut cursor, *left);
                    if *left == 0 {
                        this.phase = match *body {
                            BodyFraming::Length(length) => Phase::Length(length),
                            BodyFraming::Chunked => Phase::Chunked(ChunkScanner::new()),
                        };
                    }
                    return Poll::Ready(Ok(()));
                }
                Phase::Length(0) | Phase::Chunked(ChunkScanner::Done) => this.next_head(),
                Phase::Length(_) => {
                    ready!(this.poll_body(cx))?;
                    if let Phase::Length(left) = &mut this.phase {
                        let bound = usize::try_from(*left).unwrap_or(usize::MAX);
                        *left -= this.buffer.give(&mut cursor, bound) as u64;
                    }
                    return Poll::Ready(Ok(()));
                }
                Phase::Chunked(_) => {
                    ready!(this.poll_body(cx))?;
                    if let Phase::Chunked(scanner) = &mut this.phase {
                        let here = this.buffer.unread();
                        let here = here.get(..cursor.remaining()).unwrap_or(here);
                        match scanner.advance(here) {
                            Ok(n) => this.buffer.give(&mut cursor, n),
                            Err(fault) => {
                                this.phase = Phase::Broken;
                                let error = io::Error::new(io::ErrorKind::InvalidData, fault);
                                return Poll::Ready(Err(error));
                            }
                        };
                    }
                    return Poll::Ready(Ok(()));
                }
                Phase::Refused(..) | Phase::Ended if this.conn.is_busy() => return Poll::Pending,
                Phase::Refused(..) | Phase::Ended | Phase::Broken => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.conn.is_hypers_answer() {
            this.replace(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        this.stream.poll_write(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.conn.is_hypers_answer() {
            this.replace(slices.first().map(|s| &**s).unwrap_or_default());
            return Poll::Ready(Ok(slices.iter().map(|s| s.len()).sum()));
        }
        this.stream.poll_write_vectored(cx, slices)
    }

    /// Called when hyper has written everything it has.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.stream.poll_flush(cx))?;
        if this.conn.flushed() {
            // Hyper reads again only when woken: for what has been held back, or to find that it
            // may rest.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.conn.hold();
        loop {
            match &mut this.closing {
                Closing::Open => {
                    this.closing = Closing::Shut;
                    if let Phase::Refused(code, detail) = &mut this.phase {
                        let detail = std::mem::take(detail);
                        let id = this.conn.local.ids.next();
                        this.conn.unread(&id, *code, &detail);
                        this.closing = Closing::Answer(problem::raw_problem(*code, detail, &id), 0);
                    }
                }
                Closing::Answer(bytes, at) => {
                    let bytes = std::mem::take(bytes);
                    let mut at = *at;
                    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
                        match this.stream.poll_write(cx, rest)? {
                            Poll::Ready(n) => at += n.max(1),
                            Poll::Pending => {
                                this.closing = Closing::Answer(bytes, at);
                                return Poll::Pending;
                            }
                        }
                    }
                    this.closing = Closing::Shut;
                }
                Closing::Shut => {
                    ready!(this.stream.poll_shutdown(cx))?;
                    let more = this.has_unread() && !this.conn.is_aborted();
                    this.closing = if more { Closing::Linger(0) } else { Closing::Closed };
                }
                Closing::Linger(read) => {
                    let so_far = *read;
                    this.buffer = Buffer::default();
                    match this.poll_fill(cx) {
                        Poll::Ready(Ok(n @ 1..)) if so_far + n <= LINGER_BYTES => {
                            this.closing = Closing::Linger(so_far + n);
                        }
                        Poll::Ready(_) => this.closing = Closing::Closed,
                        Poll::Pending => {
                            ready!(this.read_timer.poll(cx, Wait::Linger, LINGER));
                            this.closing = Closing::Closed;
                        }
                    }
                }
                Closing::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.conn.is_aborted() {
            // A reset, because an orderly end would make a truncated response without a length
            // look whole.
            self.stream.stream().cut();
        }
    }
}
