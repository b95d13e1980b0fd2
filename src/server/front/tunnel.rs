//! After a change of protocol: bytes between the client and the upstream, both ways, until both
//! have ended or neither has sent anything for too long.
//!
//! No byte is looked at. What one side sends is read only when the other has taken what was read
//! before, so that a slow side slows the other and not this process. Where one side ends what it
//! sends, that end is passed on, and the other direction goes on.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::held::Buffer;

/// The most bytes held of each direction.
const PIECE_BYTES: usize = 16 * 1024;

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum End {
    /// Both sides ended it.
    Whole,
    /// A side broke off.
    Broken,
    /// Neither side has sent anything for too long.
    Idle,
    /// The server stops.
    Stopped,
}

/// Runs a tunnel; `early` is what the upstream has sent already, `is_stopped` is asked whenever
/// the task is woken.
pub(in crate::server) async fn run(
    client: impl AsyncRead + AsyncWrite + Unpin,
    upstream: impl AsyncRead + AsyncWrite + Unpin,
    early: &[u8],
    idle_timeout: Duration,
    is_stopped: impl Fn() -> bool,
) -> End {
    let (mut client, mut upstream) = (client, upstream);
    let (mut up, mut down) = (Pipe::default(), Pipe::default());
    down.held.extend(early);
    let mut timer = pin!(tokio::time::sleep(idle_timeout));
    poll_fn(|cx| {
        if is_stopped() {
            return Poll::Ready(End::Stopped);
        }
        let there = up.poll(cx, &mut client, &mut upstream);
        let back = down.poll(cx, &mut upstream, &mut client);
        match (there, back) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(End::Broken),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Whole),
            _ => {}
        }
        if std::mem::take(&mut up.moved) | std::mem::take(&mut down.moved) {
            // Not polled yet, so never registered: only to learn the time.
            let next = tokio::time::sleep(idle_timeout).deadline();
            timer.as_mut().reset(next);
        }
        timer.as_mut().poll(cx).map(|()| End::Idle)
    })
    .await
}

/// One direction.
#[derive(Default)]
struct Pipe {
    held: Buffer,
    /// The sending side has ended.
    ended: bool,
    /// And the receiving side knows.
    shut: bool,
    /// Something has moved since it was last asked.
    moved: bool,
}

impl Pipe {
    /// Ready when the direction has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.held.is_empty() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, self.held.unread()))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.held.consume(n);
                self.moved = true;
            }
            if self.ended {
                if !self.shut {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            let mut piece = [0; PIECE_BYTES];
            let mut read = ReadBuf::new(&mut piece);
            match Pin::new(&mut *from).poll_read(cx, &mut read)? {
                Poll::Ready(()) if read.filled().is_empty() => self.ended = true,
                Poll::Ready(()) => self.held.extend(read.filled()),
                Poll::Pending => {
                    // TLS keeps what was written until it is told that no more comes.
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    return Poll::Pending;
                }
            }
            self.moved = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn ends() -> (DuplexStream, DuplexStream, DuplexStream, DuplexStream) {
        let (client, near) = duplex(64);
        let (far, upstream) = duplex(64);
        (client, near, far, upstream)
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_and_ends_pass_both_ways() {
        let (mut client, near, far, mut upstream) = ends();
        let tunnel = tokio::spawn(run(near, far, b"early ", LONG, || false));
        let sent: Vec<u8> = (0..100_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let expected = sent.clone();
        let echo = tokio::spawn(async move {
            let mut received = Vec::new();
            upstream.read_to_end(&mut received).await.unwrap();
            upstream.write_all(b"late").await.unwrap();
            received
        });
        client.write_all(&sent).await.unwrap();
        // Half-closed: the other direction goes on.
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(echo.await.unwrap(), expected);
        assert_eq!(answer, b"early late");
        assert_eq!(tunnel.await.unwrap(), End::Whole);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_tunnel_ends() {
        let (mut client, near, far, mut upstream) = ends();
        let tunnel = tokio::spawn(run(near, far, b"", LONG, || false));
        for _ in 0..3 {
            tokio::time::sleep(LONG.mul_f32(0.9)).await;
            client.write_all(b"x").await.unwrap();
            assert_eq!(upstream.read_u8().await.unwrap(), b'x');
        }
        assert_eq!(tunnel.await.unwrap(), End::Idle);
        assert_eq!(upstream.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_side_slows_the_other() {
        let (mut client, near, far, mut upstream) = ends();
        let tunnel = tokio::spawn(run(near, far, b"", LONG, || false));
        let held = 64 + PIECE_BYTES + 64;
        let mut taken = 0;
        while let Ok(n) = tokio::time::timeout(Duration::from_secs(1), client.write(&[0; 64])).await
        {
            taken += n.unwrap();
            assert!(taken <= held, "{taken}");
        }
        let mut received = vec![0; taken];
        upstream.read_exact(&mut received).await.unwrap();
        drop((client, upstream));
        assert!(matches!(tunnel.await.unwrap(), End::Whole | End::Broken));
    }

    #[tokio::test]
    async fn a_stopping_server_ends_it() {
        let (_client, near, far, _upstream) = ends();
        assert_eq!(run(near, far, b"", LONG, || true).await, End::Stopped);
    }
}
