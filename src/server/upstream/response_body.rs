//! The body of an upstream's response: never buffered, given up when it stops.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::server::log;

/// A response's body as the upstream sends it.
pub(in crate::server) struct UpstreamBody {
    incoming: Incoming,
    /// Without progress for this long it is given up.
    timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl UpstreamBody {
    /// The rest of a response; given up when it makes no progress for `timeout`.
    pub(in crate::server) fn new(incoming: Incoming, timeout: Duration) -> Self {
        Self { incoming, timeout, timer: None }
    }

    /// Whether all of it is there.
    pub(in crate::server) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// How long it is, as far as is known.
    pub(in crate::server) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// The next data; trailer fields end the body and are not passed on.
    pub(in crate::server) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, String>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.timer = None;
                Poll::Ready(match frame {
                    None => None,
                    Some(Err(error)) => Some(Err(log::chain(&error))),
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
