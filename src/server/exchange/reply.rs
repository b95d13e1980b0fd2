//! The body of a response, whatever its source; its end is the end of the request.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::server::conn::InFlight;
use crate::server::log;
use crate::server::request_id::RequestId;
use crate::server::upstream::response_body::UpstreamBody;

/// A response cannot be completed; the connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream broke off the response")]
pub(in crate::server) struct BrokenReply;

/// The body of a response.
pub(in crate::server) struct ReplyBody {
    source: Source,
    in_flight: InFlight,
}

/// Where a response's body comes from.
pub(in crate::server) enum Source {
    /// From here.
    Whole(Bytes),
    /// From the upstream; with the request's name, for the log.
    Upstream(Box<UpstreamBody>, RequestId),
}

impl ReplyBody {
    pub(in crate::server) fn new(source: Source, mut in_flight: InFlight) -> Self {
        in_flight.offered(true);
        Self { source, in_flight }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenReply>>> {
        let (upstream, id) = match &mut self.source {
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                return Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)));
            }
            Source::Upstream(upstream, id) => (upstream, id),
        };
        upstream.poll_data(cx).map(|polled| {
            polled.map(|data| {
                data.map_err(|why| {
                    log::reply_broken(self.in_flight.conn().client, id, &why);
                    self.in_flight.abort();
                    BrokenReply
                })
            })
        })
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.in_flight.complete();
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BrokenReply;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        let polled = self.poll_source(cx);
        // Polled again, the client has taken what it was offered before.
        self.in_flight.offered(false);
        match &polled {
            Poll::Ready(Some(Ok(_))) => self.in_flight.offered(true),
            Poll::Ready(None) => self.in_flight.complete(),
            Poll::Ready(Some(Err(BrokenReply))) | Poll::Pending => {}
        }
        polled.map(|data| data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Upstream(upstream, _) => upstream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream(upstream, _) => upstream.size_hint(),
        }
    }
}
