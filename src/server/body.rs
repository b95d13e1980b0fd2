//! Bodies on their way, never buffered: the request's, bounded and watched, and the reply's.
//!
//! What is in a body is nobody's business here, and its framing was judged by the wire.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::conn::InFlight;
use super::log;
use super::worker::RequestId;
use crate::decision::denial::Code;

/// Why the body of a request does not arrive whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyFault {
    /// Over the bound.
    #[error("the body is longer than is allowed")]
    TooLarge,
    /// Stopped arriving.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// Its framing is broken.
    #[error("the body's chunked framing is malformed")]
    Malformed,
    /// The client went away.
    #[error("the client closed the connection before the body was complete")]
    BrokenOff,
}

impl BodyFault {
    /// What the fault was, as far as the wire's error tells.
    pub(super) fn of(error: &hyper::Error) -> Self {
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                if error.kind() == io::ErrorKind::TimedOut {
                    return Self::TimedOut;
                }
                if error.kind() == io::ErrorKind::InvalidData {
                    return Self::Malformed;
                }
            }
            cause = error.source();
        }
        Self::BrokenOff
    }

    /// What the client is told, if it is still there.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::TooLarge => "The body of the request is longer than is allowed.",
            Self::TimedOut => "The body of the request did not arrive in time.",
            Self::Malformed => "The chunked framing of the request's body is malformed.",
            Self::BrokenOff => "The body of the request is incomplete.",
        }
    }

    /// The code of that.
    pub(super) fn code(self) -> Code {
        match self {
            Self::TooLarge => Code::PayloadTooLarge,
            Self::TimedOut => Code::RequestTimeout,
            Self::Malformed | Self::BrokenOff => Code::BadRequest,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::TooLarge, Self::TimedOut, Self::Malformed, Self::BrokenOff]
            .into_iter()
            .find(|fault| *fault as u8 + 1 == number)
    }
}

/// What has become of a request's body, for who waits for the response.
#[derive(Debug, Default)]
pub(super) struct BodyWatch {
    /// A fault's number plus one.
    fault: AtomicU8,
    frames: AtomicU32,
}

impl BodyWatch {
    /// What broke it, if anything.
    pub(super) fn fault(&self) -> Option<BodyFault> {
        BodyFault::from_number(self.fault.load(Ordering::Relaxed))
    }

    /// Frames passed on so far; wraps.
    pub(super) fn frames(&self) -> u32 {
        self.frames.load(Ordering::Relaxed)
    }
}

/// The body of a request on its way to the upstream. Trailer fields end with it: they are not
/// passed on.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Option<Incoming>,
    left: u64,
    watch: Option<Arc<BodyWatch>>,
}

impl RequestBody {
    /// At most `bytes_max` bytes of `incoming`.
    pub(super) fn new(incoming: Option<Incoming>, bytes_max: u64) -> Self {
        let incoming = incoming.filter(|incoming| !incoming.is_end_stream());
        let watch = incoming.is_some().then(Arc::default);
        Self { incoming, left: bytes_max, watch }
    }

    /// To watch it after it was sent; `None` without a body.
    pub(super) fn watch(&self) -> Option<Arc<BodyWatch>> {
        self.watch.clone()
    }

    fn fail(&mut self, fault: BodyFault) -> BodyFault {
        self.incoming = None;
        if let Some(watch) = &self.watch {
            watch.fault.store(fault as u8 + 1, Ordering::Relaxed);
        }
        fault
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let frame = match ready!(Pin::new(incoming).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                let fault = BodyFault::of(&error);
                return Poll::Ready(Some(Err(self.fail(fault))));
            }
        };
        let Ok(data) = frame.into_data() else {
            return Poll::Ready(None);
        };
        match self.left.checked_sub(data.len() as u64) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(self.fail(BodyFault::TooLarge)))),
        }
        if let Some(watch) = &self.watch {
            watch.frames.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// A response cannot be completed; the connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream broke off the response")]
pub(super) struct BrokenReply;

/// The body of a response.
pub(super) struct ReplyBody {
    source: Source,
    in_flight: InFlight,
}

/// Where a response's body comes from.
pub(super) enum Source {
    /// From here.
    Whole(Bytes),
    /// From the upstream.
    Upstream(Box<UpstreamBody>),
}

/// A response's body as the upstream sends it.
pub(super) struct UpstreamBody {
    pub(super) incoming: Incoming,
    /// Without progress for this long it is given up.
    pub(super) timeout: Duration,
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    /// For the log.
    pub(super) id: RequestId,
}

impl ReplyBody {
    pub(super) fn new(source: Source, in_flight: InFlight) -> Self {
        Self { source, in_flight }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BrokenReply;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        let this = &mut *self;
        let upstream = match &mut this.source {
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Source::Upstream(upstream) => upstream,
        };
        match upstream.poll_data(cx) {
            Poll::Ready(Some(Err(why))) => {
                let conn = this.in_flight.conn();
                log::reply_broken(conn, &upstream.id, &why);
                conn.abort();
                Poll::Ready(Some(Err(BrokenReply)))
            }
            Poll::Ready(Some(Ok(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Upstream(upstream) => upstream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream(upstream) => upstream.incoming.size_hint(),
        }
    }
}

impl UpstreamBody {
    /// The next data; trailer fields end the body and are not passed on.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.timer = None;
                Poll::Ready(match frame {
                    None => None,
                    Some(Err(error)) => Some(Err(super::log::chain(&error))),
                    Some(Ok(frame)) => frame.into_data().ok().map(Ok),
                })
            }
            Poll::Pending => {
                let timeout = self.timeout;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(Some(Err(format!("no progress for {} ms", timeout.as_millis()))))
            }
        }
    }
}
