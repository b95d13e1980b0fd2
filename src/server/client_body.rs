//! A request's body as the client sends it. The wire of HTTP/1.1 keeps the time of its bodies; the
//! bodies of HTTP/2 share a connection, so each keeps its own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::shared::Shared;
use super::upstream::request_body::BodyFault;
use crate::metrics::Bound;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct ClientBody {
    incoming: Incoming,
    time: Option<Time>,
}

#[derive(Debug)]
struct Time {
    shared: Arc<Shared>,
    /// Without progress for this long it is given up.
    progress: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    /// When it is to be whole.
    whole: Pin<Box<Sleep>>,
}

impl ClientBody {
    /// A body whose time the wire keeps.
    pub(super) fn new(incoming: Incoming) -> Self {
        Self { incoming, time: None }
    }

    /// A body that is to make progress, and to be whole, within the times of the settings in
    /// force.
    pub(super) fn timed(incoming: Incoming, shared: &Arc<Shared>) -> Self {
        let time = (!incoming.is_end_stream()).then(|| {
            let server = &shared.settings.load().server;
            Time {
                shared: Arc::clone(shared),
                progress: server.body_timeout,
                waiting: None,
                whole: Box::pin(tokio::time::sleep(server.request_timeout)),
            }
        });
        Self { incoming, time }
    }
}

impl Time {
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.whole.as_mut().poll(cx).is_ready() {
            self.shared.metrics.bound_hit(Bound::RequestTimeout);
            return Poll::Ready(());
        }
        let progress = self.progress;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(progress)));
        ready!(waiting.as_mut().poll(cx));
        self.shared.metrics.bound_hit(Bound::BodyTimeout);
        Poll::Ready(())
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.incoming).poll_frame(cx);
        match polled {
            Poll::Ready(frame) => {
                if let Some(time) = &mut this.time {
                    time.waiting = None;
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyFault::of(&error))))
            }
            Poll::Pending => match &mut this.time {
                Some(time) => time.poll_over(cx).map(|()| Some(Err(BodyFault::TimedOut))),
                None => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
