//! Small HTTP servers on loopback, for the demo's cast.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A server that stops when this is dropped.
#[derive(Debug)]
pub(super) struct Loopback {
    /// Where it listens.
    pub(super) address: SocketAddr,
    _task: JoinSet<()>,
}

impl Loopback {
    /// Serves `answer` on a free port.
    pub(super) async fn serve<F, A>(answer: F) -> io::Result<Self>
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut task = JoinSet::new();
        task.spawn(accept(listener, answer));
        Ok(Self { address, _task: task })
    }
}

async fn accept<F, A>(listener: TcpListener, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let service = service_fn(answer.clone());
                connections.spawn(async move {
                    let stream = TokioIo::new(stream);
                    // A caller that breaks off is no news.
                    drop(http1::Builder::new().serve_connection(stream, service).await);
                });
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// `value` as a response.
pub(super) fn json(value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{value:#}\n")));
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
