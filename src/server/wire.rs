//! The socket as hyper sees it: only whole, judged requests, one at a time, each in time.
//!
//! Reading, it holds a head back until [`framing`](super::framing) has judged all of it, and hands
//! the next one over only when the answer to the one before is out. So every fault of a head is
//! met when nothing else is under way, and answered here with a problem of our own; hyper sees a
//! clean end of the connection. What hyper refuses on its own account is recognized (it answers
//! without having called the service) and replaced alike.
//!
//! Its timeouts: nothing arrives between two requests → closed silently; a head not complete in
//! time → 408; no progress of a body → an error that ends it; no progress of the peer taking what
//! is written → the connection is given up. Before it closes a connection on which the peer may
//! still be sending, it reads on for a moment: otherwise the kernel would answer with a reset,
//! which may overtake the response.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::framing::{BodyFraming, ChunkScanner, HeadBounds, HeadFault, HeadScanner};
use super::worker::Worker;
use super::{headers, log, respond};
use crate::config::ServerConfig;
use crate::decision::denial::Code;
use crate::metrics::Held;

/// Empty lines tolerated before a request line (RFC 9112 §2.2 asks for one).
const EMPTY_LINES_MAX: u8 = 2;
/// How long, and for how many bytes, is read on after the response to a request cut short.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 512 * 1024;
/// A connection's buffer larger than this is given back when it is empty.
const BUFFER_KEPT: usize = 4096;

/// A connection, as its wire, its requests and their replies share it.
pub(super) struct Conn {
    pub(super) worker: Rc<Worker>,
    /// The peer's address, never in its IPv4-mapped form.
    pub(super) client: IpAddr,
    /// [`Conn::client`] as `X-Forwarded-For`.
    pub(super) forwarded_for: HeaderValue,
    in_flight: Cell<bool>,
    unflushed: Cell<bool>,
    called: Cell<bool>,
    aborted: Cell<bool>,
}

impl Conn {
    pub(super) fn new(worker: Rc<Worker>, peer: IpAddr) -> Self {
        let client = peer.to_canonical();
        Self {
            worker,
            client,
            forwarded_for: headers::forwarded_for(client),
            in_flight: Cell::new(false),
            unflushed: Cell::new(false),
            called: Cell::new(false),
            aborted: Cell::new(false),
        }
    }

    /// The service was called with the request handed over last.
    pub(super) fn call(self: &Rc<Self>) -> InFlight {
        self.called.set(true);
        let counted = self.worker.shared.metrics.request();
        InFlight { conn: Rc::clone(self), _counted: counted }
    }

    /// The response cannot be completed: the connection must not end as if it were.
    pub(super) fn abort(&self) {
        self.aborted.set(true);
    }

    fn hand_over(&self) {
        self.in_flight.set(true);
        self.unflushed.set(true);
        self.called.set(false);
    }

    fn is_busy(&self) -> bool {
        self.in_flight.get() || self.unflushed.get()
    }

    /// Hyper answers what it never showed the service: a refusal of its own.
    fn is_hypers_answer(&self) -> bool {
        self.in_flight.get() && !self.called.get()
    }
}

/// A request is being answered; held by the reply's body until its end.
pub(super) struct InFlight {
    conn: Rc<Conn>,
    _counted: Held,
}

impl InFlight {
    pub(super) fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.conn.in_flight.set(false);
    }
}

/// Bounds and timeouts of a connection.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    head: HeadBounds,
    head_timeout: Duration,
    idle_timeout: Duration,
    body_timeout: Duration,
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

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Request,
    Head,
    Body,
    Linger,
    Write,
}

/// See the module documentation.
pub(super) struct Wire {
    tcp: TcpStream,
    conn: Rc<Conn>,
    bounds: Bounds,
    buffer: Buffer,
    phase: Phase,
    empty_lines: u8,
    closing: Closing,
    read_timer: Timer,
    write_timer: Timer,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream, conn: Rc<Conn>, config: &ServerConfig) -> Self {
        let head = HeadBounds { bytes: config.header_bytes_max, fields: config.header_count_max };
        let bounds = Bounds {
            head,
            head_timeout: config.head_timeout,
            idle_timeout: config.idle_timeout,
            body_timeout: config.body_timeout,
        };
        Self {
            tcp,
            conn,
            bounds,
            buffer: Buffer::default(),
            phase: Phase::Head(HeadScanner::default()),
            empty_lines: 0,
            closing: Closing::Open,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
        }
    }

    /// Reads what the socket has into the buffer; zero at its end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = self.conn.worker.scratch.borrow_mut();
        let mut read = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
        self.buffer.extend(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Between the end of a request and that of its response: only whether the peer is gone.
    fn poll_peer_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() && ready!(self.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        // The next request waits; `poll_flush` wakes us for it.
        Poll::Pending
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
        match self.poll_fill(cx)? {
            Poll::Ready(0) => self.phase = Phase::Ended,
            Poll::Ready(_) => {}
            Poll::Pending if self.buffer.is_empty() => {
                ready!(self.read_timer.poll(cx, Wait::Request, self.bounds.idle_timeout));
                self.phase = Phase::Ended;
            }
            Poll::Pending => {
                ready!(self.read_timer.poll(cx, Wait::Head, self.bounds.head_timeout));
                let detail = "The head of the request did not arrive in time.";
                self.phase = Phase::Refused(Code::RequestTimeout, detail.into());
            }
        }
        Poll::Ready(Ok(()))
    }

    fn refuse(&mut self, fault: HeadFault) {
        let (code, detail) = match fault {
            HeadFault::Malformed(why) => {
                (Code::BadRequest, format!("The request is malformed: {why}.").into())
            }
            HeadFault::TargetTooLong => {
                (Code::UriTooLong, "The request line is longer than is allowed.".into())
            }
            HeadFault::TooLarge => {
                (Code::HeadersTooLarge, "The header fields are too many or too long.".into())
            }
        };
        self.phase = Phase::Refused(code, detail);
    }

    /// Makes sure that the buffer holds something of the body; an error when the peer dawdles.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
                ready!(self.read_timer.poll(cx, Wait::Body, self.bounds.body_timeout));
                self.phase = Phase::Broken;
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    fn next_head(&mut self) {
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

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match write(Pin::new(&mut self.tcp), cx) {
            Poll::Ready(result) => {
                self.write_timer.disarm();
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.write_timer.poll(cx, Wait::Write, self.bounds.body_timeout));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Hyper's own refusal: ours goes out in its place when the connection closes.
    fn replace(&mut self, answer: &[u8]) {
        let (code, detail) = match answer.get(9..12) {
            Some(b"414") => (Code::UriTooLong, "The request target is longer than is allowed."),
            Some(b"431") => (Code::HeadersTooLarge, "The header fields are too many or too long."),
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
        this.poll_write_with(cx, |tcp, cx| tcp.poll_write(cx, bytes))
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
        this.poll_write_with(cx, |tcp, cx| tcp.poll_write_vectored(cx, slices))
    }

    /// Called when hyper has written everything it has.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.conn.in_flight.get() && this.conn.unflushed.take() {
            // Hyper reads again only when woken: for what has been held back, or for the end of
            // the idle time.
            let idle = matches!(this.phase, Phase::Head(_)) && this.buffer.is_empty();
            let timer = &mut this.read_timer;
            if !idle || timer.poll(cx, Wait::Request, this.bounds.idle_timeout).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.closing {
                Closing::Open => {
                    this.closing = match &mut this.phase {
                        Phase::Refused(code, detail) => {
                            let detail = std::mem::take(detail);
                            let id = this.conn.worker.next_id();
                            log::unread(&this.conn, &id, *code, &detail);
                            Closing::Answer(respond::raw_problem(*code, detail, &id), 0)
                        }
                        _ => Closing::Shut,
                    };
                }
                Closing::Answer(bytes, at) => {
                    let bytes = std::mem::take(bytes);
                    let mut at = *at;
                    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
                        let poll = this.poll_write_with(cx, |tcp, cx| tcp.poll_write(cx, rest));
                        match poll? {
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
                    ready!(Pin::new(&mut this.tcp).poll_shutdown(cx))?;
                    let more = this.has_unread() && !this.conn.aborted.get();
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
        if self.conn.aborted.get() {
            // A reset, because an orderly end would make a truncated response without a length
            // look whole.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

/// What was read and not handed over yet.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    at: usize,
}

impl Buffer {
    fn unread(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
        if self.is_empty() {
            self.at = 0;
            if self.bytes.capacity() > BUFFER_KEPT {
                self.bytes = Vec::new();
            } else {
                self.bytes.clear();
            }
        }
    }

    /// Hands over at most `bound` bytes; returns how many.
    fn give(&mut self, cursor: &mut ReadBufCursor<'_>, bound: usize) -> usize {
        let unread = self.unread();
        let n = unread.len().min(bound).min(cursor.remaining());
        cursor.put_slice(unread.get(..n).unwrap_or_default());
        self.consume(n);
        n
    }
}

/// A timer that is set when there is something to wait for.
#[derive(Debug, Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<Wait>,
}

impl Timer {
    /// Ready when `wait` has lasted `bound`; starts with the first call.
    fn poll(&mut self, cx: &mut Context<'_>, wait: Wait, bound: Duration) -> Poll<()> {
        let armed = self.armed.replace(wait) == Some(wait);
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if !armed {
                    sleep.set(tokio::time::sleep(bound));
                }
                sleep
            }
            empty => empty.insert(Box::pin(tokio::time::sleep(bound))),
        };
        sleep.as_mut().poll(cx)
    }

    fn disarm(&mut self) {
        self.armed = None;
    }
}
