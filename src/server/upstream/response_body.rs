//! The body of an upstream's response: never buffered, given up when it stops or takes too long.
//!
//! As long as it comes over HTTP/1.1 it drives its connection, and gives it back when all of it
//! has arrived; a body that is dropped before takes its connection with it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::endpoint::InFlight;
use super::h1::H1;
use super::h2::Occupied;
use super::state::State;
use crate::clock::Clock;
use crate::https::with_causes;
use crate::metrics::UpstreamCause;
use crate::server::message::trailers;

/// Frames that pass from one look at the time to the next.
const FRAMES_UNTIMED: u32 = 32;

/// A response's body as the upstream sends it.
pub(in crate::server) struct UpstreamBody {
    /// What had arrived of it with the end of its connection.
    arrived: VecDeque<Frame<Bytes>>,
    incoming: Incoming,
    /// Its connection, if nobody else drives that.
    driven: Option<Box<H1>>,
    in_flight: InFlight,
    _stream: Option<Occupied>,
    state: Arc<State>,
    clock: Arc<dyn Clock>,
    /// Trailer fields are passed on.
    trailers: bool,
    /// Without progress for this long it is given up.
    timeout: Duration,
    /// And after this in any case.
    total: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    frames: u32,
}

/// What a body is made from.
pub(super) struct Source {
    pub(super) arrived: VecDeque<Frame<Bytes>>,
    pub(super) incoming: Incoming,
    pub(super) driven: Option<Box<H1>>,
    pub(super) in_flight: InFlight,
    pub(super) stream: Option<Occupied>,
    pub(super) total: Instant,
}

impl UpstreamBody {
    pub(super) fn new(source: Source, state: &Arc<State>, clock: &Arc<dyn Clock>) -> Self {
        Self {
            arrived: source.arrived,
            incoming: source.incoming,
            driven: source.driven,
            in_flight: source.in_flight,
            _stream: source.stream,
            state: Arc::clone(state),
            clock: Arc::clone(clock),
            trailers: false,
            timeout: state.config.body_timeout,
            total: source.total,
            timer: None,
            waiting: false,
            frames: 0,
        }
    }

    /// Lets trailer fields pass: the client has said that it takes them.
    pub(in crate::server) fn pass_trailers(&mut self) {
        self.trailers = true;
    }

    /// Whether all of it is there.
    pub(in crate::server) fn is_end_stream(&self) -> bool {
        self.arrived.is_empty() && self.incoming.is_end_stream()
    }

    /// How long it is, as far as is known.
    pub(in crate::server) fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        let arrived: usize = self.arrived.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(rest.saturating_add(arrived as u64)),
            None => rest,
        }
    }

    /// The next data, or trailer fields.
    pub(in crate::server) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        match self.poll_incoming(cx) {
            Poll::Ready(Some(Ok(_))) if self.is_overdue() => {
                let why = "not whole within total_timeout";
                Poll::Ready(Some(Err(self.broken(UpstreamCause::BodyTimeout, why))))
            }
            Poll::Ready(frame) => {
                self.waiting = false;
                Poll::Ready(match frame {
                    None => {
                        self.give_back();
                        None
                    }
                    Some(Err(error)) => {
                        Some(Err(self.broken(UpstreamCause::Body, &with_causes(&error))))
                    }
                    Some(Ok(frame)) => self.passed(frame).map(Ok),
                })
            }
            Poll::Pending => {
                ready!(self.poll_timer(cx));
                let ms = self.timeout.as_millis();
                let why = format!("no progress for {ms} ms, or not whole within total_timeout");
                Poll::Ready(Some(Err(self.broken(UpstreamCause::BodyTimeout, &why))))
            }
        }
    }

    /// Whether the time in all is over. The timer is asked only while nothing arrives, which an
    /// upstream that is faster than its reader never lets happen.
    fn is_overdue(&mut self) -> bool {
        self.frames = self.frames.wrapping_add(1);
        self.frames.is_multiple_of(FRAMES_UNTIMED)
            && tokio::time::sleep(Duration::ZERO).deadline() >= self.total
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(frame) = self.arrived.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(h1) = &mut self.driven else {
            return Pin::new(&mut self.incoming).poll_frame(cx);
        };
        // Whatever the connection gets on with here it is asked for right after: no waking.
        let mut unwoken = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(&mut unwoken) {
            return Poll::Ready(frame);
        }
        h1.poll(cx);
        Pin::new(&mut self.incoming).poll_frame(&mut unwoken)
    }

    /// Data as it is; of trailer fields what may be passed on, and else the end.
    fn passed(&self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        match frame.into_trailers() {
            Err(frame) => Some(frame),
            Ok(mut fields) => {
                trailers::keep(&mut fields);
                (self.trailers && !fields.is_empty()).then(|| Frame::trailers(fields))
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.waiting {
            self.waiting = true;
            let sleep = tokio::time::sleep(self.timeout);
            let at = sleep.deadline().min(self.total);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(at),
                empty => *empty = Some(Box::pin(tokio::time::sleep_until(at))),
            }
        }
        self.timer.as_mut().map_or(Poll::Ready(()), |timer| timer.as_mut().poll(cx))
    }

    fn broken(&mut self, cause: UpstreamCause, why: &str) -> String {
        self.driven = None;
        let index = self.in_flight.endpoint().index();
        self.state.failed(index, cause, &*self.clock);
        self.state.told(index, why)
    }

    /// All of it has arrived: the connection may take the next request.
    fn give_back(&mut self) {
        if let Some(mut h1) = self.driven.take()
            && h1.has_finished()
        {
            self.in_flight.endpoint().rest(h1, self.clock.now().mono);
        }
    }
}

/// All that has arrived of a body whose connection has ended, which hyper holds little of.
///
/// # Errors
///
/// It ended too early: as nothing was passed on, the client can still be told.
pub(super) fn arrived(incoming: &mut Incoming) -> Result<VecDeque<Frame<Bytes>>, hyper::Error> {
    let mut arrived = VecDeque::new();
    let mut unwoken = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = Pin::new(&mut *incoming).poll_frame(&mut unwoken) {
        arrived.push_back(frame?);
    }
    Ok(arrived)
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        // Of a body of known length the end is not asked for once more.
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }
}
