//! A wire after a change of protocol: bytes as they are, those first that were held back.
//!
//! The wire's timeouts are over; whoever has it sets others.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::Wire;

/// See the module documentation.
pub(in crate::server) struct RawWire(Wire);

impl RawWire {
    /// What is left of `wire` when HTTP has ended on it.
    pub(in crate::server) fn new(wire: Wire) -> Self {
        Self(wire)
    }
}

impl AsyncRead for RawWire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        read: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut self.get_mut().0;
        if wire.buffer.is_empty() {
            return Pin::new(wire.stream.stream()).poll_read(cx, read);
        }
        let unread = wire.buffer.unread();
        let n = unread.len().min(read.remaining());
        read.put_slice(unread.get(..n).unwrap_or_default());
        wire.buffer.consume(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RawWire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().0.stream.stream()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().0.stream.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().0.stream.stream()).poll_shutdown(cx)
    }
}
