//! The body of a request on its way to the upstream: never buffered, bounded and watched.
//!
//! What is in a body is nobody's business here, and its framing was judged by the wire.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::decision::denial::Code;
use crate::server::client_body::ClientBody;

/// Why the body of a request does not arrive whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum BodyFault {
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
    pub(in crate::server) fn of(error: &hyper::Error) -> Self {
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
    pub(in crate::server) fn detail(self) -> &'static str {
        match self {
            Self::TooLarge => "The body of the request is longer than is allowed.",
            Self::TimedOut => "The body of the request did not arrive in time.",
            Self::Malformed => "The chunked framing of the request's body is malformed.",
            Self::BrokenOff => "The body of the request is incomplete.",
        }
    }

    /// The code of that.
    pub(in crate::server) fn code(self) -> Code {
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
pub(in crate::server) struct BodyWatch {
    /// A fault's number plus one.
    fault: AtomicU8,
    frames: AtomicU32,
}

impl BodyWatch {
    /// What broke it, if anything.
    pub(in crate::server) fn fault(&self) -> Option<BodyFault> {
        BodyFault::from_number(self.fault.load(Ordering::Relaxed))
    }

    /// Frames passed on so far; wraps.
    pub(in crate::server) fn frames(&self) -> u32 {
        self.frames.load(Ordering::Relaxed)
    }
}

/// The body of a request on its way to the upstream. Trailer fields end with it: they are not
/// passed on.
#[derive(Debug)]
pub(in crate::server) struct RequestBody {
    incoming: Option<ClientBody>,
    left: u64,
    watch: Option<Arc<BodyWatch>>,
}

impl RequestBody {
    /// At most `bytes_max` bytes of `incoming`.
    pub(in crate::server) fn new(incoming: Option<ClientBody>, bytes_max: u64) -> Self {
        let incoming = incoming.filter(|incoming| !incoming.is_end_stream());
        let watch = incoming.is_some().then(Arc::default);
        Self { incoming, left: bytes_max, watch }
    }

    /// To watch it after it was sent; `None` without a body.
    pub(in crate::server) fn watch(&self) -> Option<Arc<BodyWatch>> {
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
            Some(Err(fault)) => {
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
