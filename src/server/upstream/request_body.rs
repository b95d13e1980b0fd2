//! The body of a request on its way to the upstream: never buffered, bounded and watched.
//!
//! What is in a body is nobody's business here, and its framing was judged by the wire.

use std::cell::Cell;
use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::decision::denial::Code;
use crate::server::client_body::ClientBody;
use crate::server::message::trailers;

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
}

/// What has become of a request's body, for who waits for the response.
#[derive(Debug, Default)]
pub(in crate::server) struct BodyWatch {
    fault: Cell<Option<BodyFault>>,
    frames: Cell<u32>,
    /// It is up to the client.
    awaited: Cell<bool>,
    done: Cell<bool>,
}

impl BodyWatch {
    /// What broke it, if anything.
    pub(in crate::server) fn fault(&self) -> Option<BodyFault> {
        self.fault.get()
    }

    /// Frames passed on so far; wraps.
    pub(in crate::server) fn frames(&self) -> u32 {
        self.frames.get()
    }

    /// The upstream would take more of it, and the client has not sent that yet.
    pub(in crate::server) fn is_awaited(&self) -> bool {
        self.awaited.get() && !self.done.get()
    }

    /// Nothing more of it is passed on.
    pub(in crate::server) fn is_done(&self) -> bool {
        self.done.get()
    }
}

/// The body of a request on its way to the upstream.
#[derive(Debug)]
pub(in crate::server) struct RequestBody {
    incoming: Option<ClientBody>,
    left: u64,
    /// Trailer fields are passed on; else they end with it.
    trailers: bool,
    watch: Option<Rc<BodyWatch>>,
}

impl RequestBody {
    /// At most `bytes_max` bytes of `incoming`.
    pub(in crate::server) fn new(incoming: Option<ClientBody>, bytes_max: u64) -> Self {
        let incoming = incoming.filter(|incoming| !incoming.is_end_stream());
        let watch = incoming.is_some().then(Rc::default);
        Self { incoming, left: bytes_max, trailers: false, watch }
    }

    /// No body.
    pub(in crate::server) fn empty() -> Self {
        Self { incoming: None, left: 0, trailers: false, watch: None }
    }

    /// Lets trailer fields pass: the client has announced them.
    pub(in crate::server) fn pass_trailers(&mut self) {
        self.trailers = true;
    }

    /// To watch it after it was sent; `None` without a body.
    pub(in crate::server) fn watch(&self) -> Option<Rc<BodyWatch>> {
        self.watch.clone()
    }

    fn fail(&mut self, fault: BodyFault) -> BodyFault {
        self.incoming = None;
        if let Some(watch) = &self.watch {
            watch.fault.set(Some(fault));
        }
        fault
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.done.set(true);
        }
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
        let polled = Pin::new(incoming).poll_frame(cx);
        if let Some(watch) = &self.watch {
            watch.awaited.set(polled.is_pending());
        }
        let frame = match ready!(polled) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => frame,
            Some(Err(fault)) => {
                return Poll::Ready(Some(Err(self.fail(fault))));
            }
        };
        let frame = match frame.into_trailers() {
            Ok(mut fields) => {
                trailers::keep(&mut fields);
                let passed = self.trailers && !fields.is_empty();
                return Poll::Ready(passed.then(|| Ok(Frame::trailers(fields))));
            }
            Err(frame) => frame,
        };
        let length = frame.data_ref().map_or(0, Bytes::len);
        match self.left.checked_sub(length as u64) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(self.fail(BodyFault::TooLarge)))),
        }
        if let Some(watch) = &self.watch {
            watch.frames.set(watch.frames.get().wrapping_add(1));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
