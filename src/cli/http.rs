//! One HTTP/1.1 exchange over one connection: all the client that commands need.
//!
//! It follows no redirect, keeps nothing alive, and sends a path as it is written, dots and all,
//! which the demo's refused paths depend on.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A whole exchange may take this long; a refresh of an issuer waits for the network.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no answer, as a text for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The connection broke, or what came over it is not HTTP.
    #[error("the connection broke: {0}")]
    Connection(#[from] hyper::Error),
    /// The answer did not end, or is too long.
    #[error("the answer could not be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came in time.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
}

/// Sends `request` over `stream` and reads the whole answer.
pub(super) async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let whole = exchange_with(stream, request, async |response| {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        Ok(Response::from_parts(head, body.map_err(ExchangeError::Body)?.to_bytes()))
    });
    tokio::time::timeout(TIMEOUT, whole).await.unwrap_or(Err(ExchangeError::TimedOut))?
}

/// Sends `request` over `stream` and lets `read` read the answer, in whatever time it takes.
pub(super) async fn exchange_with<S, T>(
    stream: S,
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(Response<Incoming>) -> T,
) -> Result<T, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let asked = tokio::time::timeout(TIMEOUT, sender.send_request(request)).await;
        Ok(read(asked.map_err(|_| ExchangeError::TimedOut)??).await)
    };
    // The connection ends when `sender` is dropped; what went wrong with it, the answer says.
    let (answer, _ended) = tokio::join!(answer, connection);
    answer
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn answered(answer: &'static [u8]) -> (Result<Response<Bytes>, ExchangeError>, String) {
        let (near, mut far) = tokio::io::duplex(4096);
        let request = Request::get("/a/../b").header("host", "x").body(Full::default()).unwrap();
        let served = async move {
            let mut head = vec![0; 4096];
            let n = far.read(&mut head).await.unwrap();
            far.write_all(answer).await.unwrap();
            drop(far);
            String::from_utf8_lossy(&head[..n]).into_owned()
        };
        tokio::join!(exchange(near, request), served)
    }

    #[tokio::test]
    async fn paths_are_sent_as_written() {
        let (response, head) = answered(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(response.unwrap().status(), 204);
        assert!(head.starts_with("GET /a/../b HTTP/1.1\r\n"), "{head}");
    }

    #[tokio::test]
    async fn broken_answers_are_errors() {
        for answer in
            [&b""[..], b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"]
        {
            assert!(answered(answer).await.0.is_err(), "{answer:?}");
        }
    }
}
