//! Accepting connections of the admin plane and serving them until they end or have to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::AdminSocket;
use super::places::{Place, Places};
use crate::admin::api::auth::Peer;
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::origin::Reached;
use crate::client_address::is_trusted;
use crate::tls::Tls;

/// Most open connections of each listener.
pub const CONNECTIONS_MAX: usize = 256;

/// Most of them that one client address has, an IPv6 address by its /64; a trusted proxy, which
/// has many clients behind it, may have all.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;

/// From the first byte of a request's head to its last, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a caller may take none of its answer. Without it, whoever reads nothing would keep its
/// place among [`CONNECTIONS_MAX`] for ever.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// From shutdown until connections that are still busy are cut.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// After a failed `accept` (no file descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The certificates in force for a listener; `None`: it is a plain one. New connections take what
/// is there when they arrive.
pub type Secured = Option<Arc<ArcSwap<Tls>>>;

/// Serves `router` to callers that have to show who they are, until `shutdown` becomes true.
pub async fn serve_tcp(
    listener: TcpListener,
    tls: Secured,
    node: Arc<Node>,
    router: Router,
    shutdown: watch::Receiver<bool>,
) {
    let places = Arc::default();
    serve(Tcp { listener, tls, node, places }, router, shutdown).await;
}

/// Serves `router` to whoever may open the socket, as the owner, until `shutdown` becomes true.
pub async fn serve_unix(socket: AdminSocket, router: Router, shutdown: watch::Receiver<bool>) {
    serve(socket, router, shutdown).await;
}

/// What requests of a connection are given to say who sent them.
type Introduce = Box<dyn Fn(&mut Request<Incoming>) + Send>;

/// What a connection is read from and written to.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// What connections come from. (Futures rather than `async fn`, whose futures cannot be said to be
/// `Send`.)
trait Accept: Sync {
    /// A connection that may not be ready yet.
    type Arrived: Arrival;

    /// The next connection; `None` for one that is closed again at once.
    fn accept(&self) -> impl Future<Output = io::Result<Option<Self::Arrived>>> + Send;
}

/// A connection before its first request.
trait Arrival: Send + 'static {
    /// Makes it ready to be served; `None` if it cannot be.
    fn ready(self) -> impl Future<Output = Option<(Box<dyn Wire>, Introduce)>> + Send;
}

/// The TCP listener.
struct Tcp {
    listener: TcpListener,
    tls: Secured,
    node: Arc<Node>,
    places: Arc<Places>,
}

impl Accept for Tcp {
    type Arrived = TcpArrival;

    async fn accept(&self) -> io::Result<Option<TcpArrival>> {
        let (stream, peer) = self.listener.accept().await?;
        let max = if is_trusted(peer.ip(), &self.node.config.load().admin.trusted_proxies) {
            CONNECTIONS_MAX
        } else {
            CONNECTIONS_PER_ADDRESS_MAX
        };
        let Some(place) = self.places.take(peer.ip(), max) else {
            tracing::debug!(%peer, "an address has all the admin connections that one may have");
            return Ok(None);
        };
        let tls = self.tls.as_ref().map(|tls| tls.load_full());
        Ok(Some(TcpArrival { stream, peer, tls, node: Arc::clone(&self.node), place }))
    }
}

struct TcpArrival {
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    node: Arc<Node>,
    place: Place,
}

impl Arrival for TcpArrival {
    async fn ready(self) -> Option<(Box<dyn Wire>, Introduce)> {
        let Self { stream, peer, tls, node, place } = self;
        let is_tls = tls.is_some();
        let wire: Box<dyn Wire> = match tls {
            None => Box::new(stream),
            Some(tls) => Box::new(handshake(stream, peer.ip(), &tls).await?),
        };
        let introduce = move |request: &mut Request<Incoming>| {
            let _taken = &place;
            let config = node.config.load();
            let reached = Reached::of(&config.admin, peer.ip(), is_tls, request.headers());
            request.extensions_mut().insert(Peer(SocketAddr::new(reached.client, peer.port())));
            request.extensions_mut().insert(reached);
        };
        Some((wire, Box::new(introduce)))
    }
}

async fn handshake(
    stream: TcpStream,
    client: IpAddr,
    tls: &Tls,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let accepting = TlsAcceptor::from(Arc::clone(&tls.rustls)).accept(stream);
    match tokio::time::timeout(tls.handshake_timeout, accepting).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%client, %error, "a TLS handshake with the admin plane failed");
            None
        }
        Err(_) => {
            tracing::debug!(%client, "a TLS handshake with the admin plane took too long");
            None
        }
    }
}

impl Accept for AdminSocket {
    type Arrived = UnixStream;

    async fn accept(&self) -> io::Result<Option<UnixStream>> {
        self.listener.accept().await.map(|(stream, _)| Some(stream))
    }
}

impl Arrival for UnixStream {
    async fn ready(self) -> Option<(Box<dyn Wire>, Introduce)> {
        let introduce = |request: &mut Request<Incoming>| {
            request.extensions_mut().insert(Caller::socket());
        };
        Some((Box::new(self), Box::new(introduce)))
    }
}

async fn serve(listener: impl Accept, router: Router, mut shutdown: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((permit, listener.accept().await?))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = stopped(&mut shutdown) => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((permit, Some(arrival))) => {
                let (router, mut shutdown) = (router.clone(), shutdown.clone());
                connections.spawn(async move {
                    let ready = tokio::select! {
                        ready = arrival.ready() => ready,
                        () = stopped(&mut shutdown) => None,
                    };
                    if let Some((wire, introduce)) = ready {
                        serve_one(wire, introduce, router, shutdown, permit).await;
                    }
                });
            }
            Ok((_, None)) => {}
            Err(error) => {
                tracing::warn!(%error, "the admin listener accepts no connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!("admin connections that were still busy are cut");
    }
}

/// Until `shutdown` becomes true, or nobody is left who could say so.
pub(in crate::admin) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // Holding what it returns would hold a lock.
    drop(shutdown.wait_for(|stop| *stop).await);
}

async fn serve_one(
    wire: Box<dyn Wire>,
    introduce: Introduce,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        introduce(&mut request);
        router.clone().oneshot(request.map(Body::new))
    });
    let mut stream = TimeoutStream::new(wire);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::admin::listener::{bind_tcp, bind_unix};
    use crate::admin::router;
    use crate::admin::testing::Bench;

    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_socket_is_trusted_and_tcp_is_not() {
        let bench = Bench::new();
        let path = bench.dir.path().join("admin.sock");
        let socket = bind_unix(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        let tcp = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let routes = router(Arc::clone(&bench.node));
        let unix = tokio::spawn(serve_unix(socket, routes.clone(), stopped.clone()));
        let tcp = tokio::spawn(serve_tcp(tcp, None, Arc::clone(&bench.node), routes, stopped));
        let answer = ask(UnixStream::connect(&path).await.unwrap(), "/api/v1/info").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"role\":\"owner\""));
        let answer = ask(TcpStream::connect(address).await.unwrap(), "/api/v1/info").await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        let answer = ask(TcpStream::connect(address).await.unwrap(), "/livez").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // An idle connection does not hold up the end.
        let _idle = TcpStream::connect(address).await.unwrap();
        stop.send(true).unwrap();
        unix.await.unwrap();
        tcp.await.unwrap();
        assert!(!path.exists(), "the socket is removed");
    }

    /// Asks for more than any buffer holds, reads nothing, and is there still.
    #[tokio::test(start_paused = true)]
    async fn who_takes_no_answer_is_let_go() {
        let bench = Bench::new();
        let (client, server) = tokio::io::duplex(1024);
        let room = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&room).acquire_owned().await.unwrap();
        let (_stop, stopped) = watch::channel(false);
        let admit = |request: &mut Request<Incoming>| {
            request.extensions_mut().insert(Caller::socket());
        };
        let routes = router(Arc::clone(&bench.node));
        let served =
            tokio::spawn(serve_one(Box::new(server), Box::new(admit), routes, stopped, permit));
        let (_reads_nothing, mut writer) = tokio::io::split(client);
        let head = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
        writer.write_all(head).await.unwrap();
        let hour = Duration::from_secs(3600);
        tokio::time::timeout(hour, served).await.expect("it is let go").unwrap();
        assert_eq!(room.available_permits(), 1);
    }
}
