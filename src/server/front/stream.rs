//! The bytes of a connection, plain, through TLS or in memory, written to a peer that has to take
//! them.
//!
//! Reads when told to; what is read, and how long that may take, is the wire's to say.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::held::{Timer, Wait};
use crate::metrics::Bound;
use crate::server::conn::Conn;

/// A connection's bytes.
pub(in crate::server) enum Stream {
    Plain(TcpStream),
    /// Boxed: most connections wait most of the time, and should be small.
    Tls(Box<TlsStream<TcpStream>>),
    /// Of the same process; see [`crate::server::memory`].
    Memory(DuplexStream),
}

impl Stream {
    /// Has the connection end with a reset, not in good order.
    pub(super) fn cut(&self) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            // Knows one way to end.
            Self::Memory(_) => return,
        };
        // A connection that is gone needs no cutting.
        let _ = tcp.set_zero_linger();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
            Self::Memory(memory) => Pin::new(memory).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
            Self::Memory(memory) => Pin::new(memory).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
            Self::Memory(memory) => Pin::new(memory).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Memory(memory) => Pin::new(memory).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Memory(memory) => Pin::new(memory).poll_shutdown(cx),
        }
    }
}

/// A stream that gives the connection up when the peer takes nothing of what is written for too
/// long.
pub(super) struct Paced {
    stream: Stream,
    conn: Rc<Conn>,
    bound: Duration,
    timer: Timer,
}

impl Paced {
    pub(super) fn new(stream: Stream, conn: &Rc<Conn>, bound: Duration) -> Self {
        Self { stream, conn: Rc::clone(conn), bound, timer: Timer::default() }
    }

    /// The stream itself, to read from and to close.
    pub(super) fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn poll_paced<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match write(Pin::new(&mut self.stream), cx) {
            Poll::Ready(result) => {
                self.timer.disarm();
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.timer.poll(cx, Wait::Write, self.bound));
                self.conn.local.shared.metrics.bound_hit(Bound::BodyTimeout);
                // A client of HTTP/1.0 knows a response's end by the connection's alone.
                self.conn.abort();
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_paced(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_paced(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_paced(cx, Stream::poll_flush)
    }

    /// Ends the writing side: with TLS, says so first.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_paced(cx, Stream::poll_shutdown)
    }
}
