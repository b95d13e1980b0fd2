//! The body of a response, whatever its source; its end is the end of the request.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::account::Account;
use crate::server::log;
use crate::server::request_id::RequestId;
use crate::server::upstream::response_body::UpstreamBody;

/// A response cannot be completed; its stream is reset, or the connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream broke off the response")]
pub(in crate::server) struct BrokenReply;

/// The body of a response.
pub(in crate::server) struct ReplyBody {
    source: Source,
    account: Account,
    /// It broke off, which is told one turn late.
    broken: bool,
}

/// Where a response's body comes from.
pub(in crate::server) enum Source {
    /// From here.
    Whole(Bytes),
    /// From the upstream; with the request's name, for the log.
    Upstream(Box<UpstreamBody>, RequestId),
}

impl Source {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Upstream(upstream, _) => upstream.is_end_stream(),
        }
    }
}

impl ReplyBody {
    /// The body of a response; `account` ends with it.
    pub(super) fn new(source: Source, mut account: Account) -> Self {
        if source.is_end_stream() {
            account.whole();
        }
        Self { source, account, broken: false }
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
        this.account.asked();
        if this.broken {
            return Poll::Ready(Some(Err(BrokenReply)));
        }
        let (upstream, id) = match &mut this.source {
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.account.sent(bytes.len());
                this.account.whole();
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Source::Upstream(upstream, id) => (upstream, id),
        };
        match upstream.poll_frame(cx) {
            Poll::Ready(Some(Err(why))) => {
                let account = &this.account;
                log::reply_broken(account.client(), id, account.trace(), &why);
                this.account.broken();
                // Hyper drops what it has not written yet when a body fails: it writes first.
                this.broken = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.account.sent(frame.data_ref().map_or(0, Bytes::len));
                // The connection does not ask again after the last of an announced length.
                if upstream.is_end_stream() {
                    this.account.whole();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.account.whole();
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream(upstream, _) => upstream.size_hint(),
        }
    }
}
