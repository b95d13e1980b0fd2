//! Sending a request to an upstream, until the head of its response.
//!
//! A request is sent once. It is sent again only if nothing of it can have had an effect: when no
//! connection was made; and, for methods that may be repeated and without a body, when a
//! connection that was kept from an earlier request turns out to be closed before a single byte
//! of an answer; and, whatever the method, without a body, when an HTTP/2 upstream says that it has
//! not looked at it. Informational responses (1xx) end here: hyper's server cannot pass them on.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use hyper::body::Incoming;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

use super::endpoint::{Connection, Endpoint, InFlight};
use super::h1::{H1, Unanswered, check_head};
use super::h2::{H2, Occupied};
use super::request_body::{BodyFault, BodyWatch, RequestBody};
use super::response_body::{self, Source, UpstreamBody};
use super::state::State;
use super::stream::Stream;
use super::{Upstream, upgrade};
use crate::clock::Clock;
use crate::https::with_causes;
use crate::metrics::UpstreamCause;

/// What an upstream answers.
pub(in crate::server) enum Answer {
    /// A response.
    Response(Box<Response<UpstreamBody>>),
    /// It changes the protocol as asked; what follows are bytes.
    Upgraded(Box<Response<()>>, Upgraded),
}

/// An upstream's side of a connection that is no HTTP any more.
pub(in crate::server) struct Upgraded {
    /// The connection.
    pub(in crate::server) stream: Stream,
    /// What has arrived on it.
    pub(in crate::server) early: Bytes,
    /// It counts as in flight for as long as it lasts.
    pub(in crate::server) in_flight: InFlight,
}

/// How it goes with a request, for who asks afterwards.
#[derive(Debug, Default)]
pub(in crate::server) struct Tries {
    /// The endpoint that was tried last.
    pub(super) endpoint: Cell<Option<usize>>,
    /// Tries after the first.
    pub(super) again: Cell<u32>,
}

impl Tries {
    fn once_more(&self) {
        self.again.set(self.again.get().saturating_add(1));
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(in crate::server) enum SendError {
    /// The upstream's doing.
    Upstream(UpstreamCause, String),
    /// The client's: its body did not arrive whole.
    Body(BodyFault),
}

impl SendError {
    /// The same, and whose doing it is.
    fn at(self, state: &State, index: usize) -> Self {
        match self {
            Self::Upstream(cause, reason) => Self::Upstream(cause, state.told(index, &reason)),
            Self::Body(fault) => Self::Body(fault),
        }
    }
}

/// Sends `request`; `upgrade` is the protocol that it asks for, if any.
pub(in crate::server) async fn send(
    upstream: &Upstream,
    mut request: Request<RequestBody>,
    upgrade: Option<&str>,
    clock: &Arc<dyn Clock>,
    tries: &Tries,
) -> Result<Answer, SendError> {
    let config = &upstream.state.config;
    let watch = request.body().watch();
    let bodiless = watch.is_none();
    let repeatable = bodiless && is_repeatable(request.method());
    let bound = config.response_timeout.min(config.total_timeout);
    let timer = pin!(tokio::time::sleep(bound));
    let total = timer.deadline() - bound + config.total_timeout;
    let mut attempt = Attempt {
        upstream,
        clock,
        tries,
        total,
        patience: Patience { timer, total, bound: config.response_timeout, watch, frames: 0 },
        tried: Vec::new(),
        connects_left: config.connect_retries_max,
        fresh: false,
    };
    loop {
        let (in_flight, connection) = attempt.connect().await?;
        let (started, index) = (clock.now().mono, in_flight.endpoint().index());
        let http2 = matches!(connection, Connection::H2(_));
        in_flight.endpoint().address(&mut request, http2);
        let spare = match &connection {
            Connection::H1(h1) => repeatable && h1.is_reused(),
            Connection::H2(_) => bodiless,
        };
        let spare = (spare && !attempt.fresh).then(|| copy(&request));
        let sent = match connection {
            Connection::H1(h1) => attempt.exchange_h1(h1, in_flight, request, upgrade).await,
            Connection::H2(h2) => attempt.exchange_h2(h2, in_flight, request).await,
        };
        request = match sent {
            Ok(answer) => {
                upstream.state.metrics.answered(clock.now().mono.since(started));
                return Ok(answer);
            }
            Err(Failed::Unsent(unsent)) if !attempt.fresh => *unsent,
            Err(failed) => match (failed, spare) {
                (Failed::DroppedIdle(_) | Failed::Refused(_), Some(spare)) if !attempt.fresh => {
                    upstream.state.metrics.retry();
                    tries.once_more();
                    spare
                }
                (failed, _) => return Err(attempt.given_up(failed).at(&upstream.state, index)),
            },
        };
        // One idle connection was closed, so the others may be: no second surprise.
        attempt.fresh = true;
    }
}

/// Methods that have no effect, or the same effect however often (RFC 9110 §9.2.2).
fn is_repeatable(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::DELETE | Method::PUT
    )
}

/// A copy of a request without a body.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Why a connection brought no answer.
enum Failed {
    /// It was closed, and nothing was sent on it.
    Unsent(Box<Request<RequestBody>>),
    /// It was closed before a byte of an answer, having been idle.
    DroppedIdle(SendError),
    /// It says that it has not looked at the request.
    Refused(SendError),
    /// Anything else.
    For(SendError),
}

/// How long is waited for the head of a response: at most a bound from the start (the wait for a
/// connection included), or from the last progress of the request's body; while that is up to the
/// client, its own bounds count. In no case longer than the whole exchange may take.
struct Patience<'a> {
    timer: Pin<&'a mut Sleep>,
    bound: Duration,
    total: Instant,
    watch: Option<Rc<BodyWatch>>,
    frames: u32,
}

impl Patience<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let frames = self.watch.as_ref().map_or(0, |watch| watch.frames());
            let over = frames == self.frames && !self.awaits_client();
            if over || self.timer.deadline() >= self.total {
                return Poll::Ready(());
            }
            self.frames = frames;
            let next = self.timer.deadline() + self.bound;
            self.timer.as_mut().reset(next.min(self.total));
        }
    }

    /// `None` when it was over first.
    async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => self.poll(cx).map(|()| None),
        })
        .await
    }

    /// An upstream that would take more of the body need not answer before it has it.
    fn awaits_client(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_awaited())
    }

    fn timed_out(&self) -> SendError {
        if self.awaits_client() {
            return SendError::Body(BodyFault::TimedOut);
        }
        let reason = if self.timer.deadline() < self.total {
            format!("no response within response_timeout, {} ms", self.bound.as_millis())
        } else {
            "no response within total_timeout".to_owned()
        };
        SendError::Upstream(UpstreamCause::Timeout, reason)
    }

    fn error(&self, cause: UpstreamCause, reason: String) -> SendError {
        match self.watch.as_ref().and_then(|watch| watch.fault()) {
            Some(fault) => SendError::Body(fault),
            None => SendError::Upstream(cause, reason),
        }
    }
}

/// A request on its way, from one try to the next.
struct Attempt<'a> {
    upstream: &'a Upstream,
    clock: &'a Arc<dyn Clock>,
    tries: &'a Tries,
    total: Instant,
    patience: Patience<'a>,
    /// Endpoints that could not be connected to.
    tried: Vec<usize>,
    connects_left: u32,
    /// Idle connections are not trusted any more.
    fresh: bool,
}

impl Attempt<'_> {
    /// A connection to an endpoint; to another one if that fails, as often as configured.
    async fn connect(&mut self) -> Result<(InFlight, Connection), SendError> {
        let mut last = None;
        while let Some(endpoint) = self.upstream.choose(&self.tried, &**self.clock) {
            if last.is_some() {
                if self.connects_left == 0 {
                    break;
                }
                self.connects_left -= 1;
                self.upstream.state.metrics.retry();
                self.tries.once_more();
            }
            self.tries.endpoint.set(Some(endpoint.index()));
            let in_flight = endpoint.occupy();
            let connecting = endpoint.connection(self.fresh, &**self.clock);
            let (cause, reason) = match self.patience.wait(connecting).await {
                Some(Ok(connection)) => return Ok((in_flight, connection)),
                Some(Err(error)) => (error.cause(), error.to_string()),
                None => (UpstreamCause::ConnectTimeout, "no connection in time".to_owned()),
            };
            self.upstream.state.failed(endpoint.index(), cause, &**self.clock);
            self.tried.push(endpoint.index());
            let error = SendError::Upstream(cause, reason);
            last = Some(error.at(&self.upstream.state, endpoint.index()));
        }
        Err(last.unwrap_or_else(|| {
            SendError::Upstream(UpstreamCause::Connect, "no endpoint is left".to_owned())
        }))
    }

    async fn exchange_h1(
        &mut self,
        mut h1: Box<H1>,
        in_flight: InFlight,
        request: Request<RequestBody>,
        upgrade: Option<&str>,
    ) -> Result<Answer, Failed> {
        let mut response = match self.await_h1(&mut h1, request).await {
            None if h1.has_heard_too_much() => {
                return Err(self.malformed(&in_flight, "it is preceded by too much"));
            }
            None => return Err(self.failed(&in_flight, self.patience.timed_out())),
            Some(Ok(response)) => response,
            Some(Err(Unanswered { request: Some(unsent), .. })) if h1.is_reused() => {
                return Err(Failed::Unsent(unsent));
            }
            Some(Err(Unanswered { error, .. })) => {
                let cause = cause_of(&error);
                let error = self.patience.error(cause, with_causes(&error));
                if h1.was_dropped_idle() && cause == UpstreamCause::BrokenOff {
                    return Err(Failed::DroppedIdle(error));
                }
                return Err(self.failed(&in_flight, error));
            }
        };
        if let Err(why) = check_head(&response) {
            return Err(self.malformed(&in_flight, why));
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return match upgrade::check(&response, upgrade) {
                Ok(()) => Ok(upgraded(*h1, in_flight, response)),
                Err(why) => Err(self.malformed(&in_flight, why)),
            };
        }
        let arrived = match h1.is_ended().then(|| response_body::arrived(response.body_mut())) {
            None => VecDeque::new(),
            Some(Ok(arrived)) => arrived,
            Some(Err(error)) => {
                let error = SendError::Upstream(UpstreamCause::Body, with_causes(&error));
                return Err(self.failed(&in_flight, error));
            }
        };
        in_flight.endpoint().succeeded();
        h1.note_keep_alive(&response);
        let driven = self.settle(h1, in_flight.endpoint());
        Ok(self.response(response, arrived, driven, in_flight, None))
    }

    /// Sends a request and waits for the head of its response; `None` when patience was over
    /// first, or too much was said that is no head.
    async fn await_h1(
        &mut self,
        h1: &mut H1,
        request: Request<RequestBody>,
    ) -> Option<Result<Response<Incoming>, Unanswered>> {
        // Without a budget of tokio's, because nobody would wake us when that is used up.
        let mut answer = pin!(unconstrained(h1.send(request)));
        poll_fn(|cx| {
            h1.poll(cx);
            // Woken with the connection: the answer comes from it, and is asked for after it.
            let mut unwoken = Context::from_waker(Waker::noop());
            match answer.as_mut().poll(&mut unwoken) {
                Poll::Ready(answer) => Poll::Ready(Some(answer.map_err(Unanswered::from))),
                Poll::Pending if h1.has_heard_too_much() => Poll::Ready(None),
                Poll::Pending => self.patience.poll(cx).map(|()| None),
            }
        })
        .await
    }

    async fn exchange_h2(
        &mut self,
        mut h2: H2,
        in_flight: InFlight,
        request: Request<RequestBody>,
    ) -> Result<Answer, Failed> {
        let stream = h2.occupy();
        let answered = self.patience.wait(h2.send(request)).await;
        match answered {
            None => Err(self.failed(&in_flight, self.patience.timed_out())),
            Some(Ok(response)) => {
                if response.status().is_informational() {
                    return Err(self.malformed(&in_flight, "its status is not one of HTTP's"));
                }
                if let Err(why) = check_head(&response) {
                    return Err(self.malformed(&in_flight, why));
                }
                in_flight.endpoint().succeeded();
                Ok(self.response(response, VecDeque::new(), None, in_flight, Some(stream)))
            }
            Some(Err(Unanswered { request: Some(unsent), .. })) => Err(Failed::Unsent(unsent)),
            Some(Err(Unanswered { error, .. })) => {
                let refused = is_refused(&error);
                let error = self.patience.error(cause_of(&error), with_causes(&error));
                if refused {
                    Err(Failed::Refused(error))
                } else {
                    Err(self.failed(&in_flight, error))
                }
            }
        }
    }

    /// Finds out who drives a connection on from here: nobody if all of the response has arrived,
    /// which is then idle; a task if the request's body is not out yet; else the response's body.
    fn settle(&self, h1: Box<H1>, endpoint: &Rc<Endpoint>) -> Option<Box<H1>> {
        if h1.is_ended() {
            return None;
        }
        if h1.is_idle() {
            endpoint.rest(h1, self.clock.now().mono);
            return None;
        }
        if self.patience.watch.as_ref().is_some_and(|watch| !watch.is_done()) {
            let (endpoint, clock) = (Rc::clone(endpoint), Arc::clone(self.clock));
            let total = self.total;
            tokio::task::spawn_local(async move {
                let mut h1 = h1;
                let driven = tokio::time::timeout_at(total, h1.drive()).await;
                if driven.is_ok() && h1.is_idle() {
                    endpoint.rest(h1, clock.now().mono);
                }
            });
            return None;
        }
        Some(h1)
    }

    fn response(
        &self,
        response: Response<Incoming>,
        arrived: VecDeque<Frame<Bytes>>,
        driven: Option<Box<H1>>,
        in_flight: InFlight,
        stream: Option<Occupied>,
    ) -> Answer {
        let total = self.total;
        let response = response.map(|incoming| {
            let source = Source { arrived, incoming, driven, in_flight, stream, total };
            UpstreamBody::new(source, &self.upstream.state, self.clock)
        });
        Answer::Response(Box::new(response))
    }

    /// Counts what was not counted yet. That idle connections are closed is no fault of the
    /// endpoint's, so it ejects nobody.
    fn given_up(&self, failed: Failed) -> SendError {
        let error = match failed {
            Failed::For(error) => return error,
            Failed::DroppedIdle(error) | Failed::Refused(error) => error,
            Failed::Unsent(_) => SendError::Upstream(
                UpstreamCause::BrokenOff,
                "the connection was closed as soon as it was made".to_owned(),
            ),
        };
        if let SendError::Upstream(cause, _) = error {
            self.upstream.state.metrics.error(cause);
        }
        error
    }

    fn malformed(&self, in_flight: &InFlight, why: &str) -> Failed {
        let reason = format!("the response is malformed: {why}");
        self.failed(in_flight, SendError::Upstream(UpstreamCause::Malformed, reason))
    }

    fn failed(&self, in_flight: &InFlight, error: SendError) -> Failed {
        if let SendError::Upstream(cause, _) = error {
            self.upstream.state.failed(in_flight.endpoint().index(), cause, &**self.clock);
        }
        Failed::For(error)
    }
}

fn upgraded(h1: H1, in_flight: InFlight, response: Response<Incoming>) -> Answer {
    in_flight.endpoint().succeeded();
    let (stream, early) = h1.into_parts();
    Answer::Upgraded(Box::new(response.map(|_| ())), Upgraded { stream, early, in_flight })
}

/// Whether an HTTP/2 upstream says that it has done nothing about a request (RFC 9113 §8.7): it has
/// refused the stream, or left it out when it said goodbye.
fn is_refused(error: &hyper::Error) -> bool {
    let h2 = std::error::Error::source(error).and_then(|e| e.downcast_ref::<h2::Error>());
    h2.is_some_and(|e| {
        let left_out = e.is_go_away() && e.reason() == Some(h2::Reason::NO_ERROR);
        e.is_remote() && (left_out || e.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

fn cause_of(error: &hyper::Error) -> UpstreamCause {
    if error.is_parse() { UpstreamCause::Malformed } else { UpstreamCause::BrokenOff }
}
