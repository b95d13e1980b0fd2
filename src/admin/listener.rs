//! Serves the admin API on TCP and on a unix socket.
//!
//! The two differ in trust: whoever the mode of the socket's file lets in is the owner; on TCP a
//! caller needs an admin token. Both are bounded in connections and time, and both drain.

use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

use super::api::auth::Peer;
use super::caller::Caller;

/// Most open connections of each listener.
pub const CONNECTIONS_MAX: usize = 256;

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

/// Longest path of a unix socket, in bytes: `sun_path` less its final NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why the admin plane cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The TCP address is not to be had.
    #[error("the admin address {address} cannot be listened on ({why}): is another process on it?")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        why: io::Error,
    },
    /// The socket's path does not fit.
    #[error(
        "the admin socket {} has too long a path: {} bytes is the most; set `admin.socket`",
        path.display(), SOCKET_PATH_BYTES_MAX
    )]
    PathTooLong {
        /// The socket.
        path: PathBuf,
    },
    /// Another process answers on the socket.
    #[error("another latchkey answers on the admin socket {}: stop it first", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket is in the way.
    #[error("{} is there and is no socket: remove it, or set `admin.socket`", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("the admin socket {} cannot be made ({why})", path.display())]
    Unix {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

/// Binds the TCP listener. Must be called within a runtime, as must [`bind_unix`].
pub async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|why| ListenError::Tcp { address, why })
}

/// The unix socket, removed when dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Nobody is left to tell; a stale socket is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Binds the unix socket, mode 0660. A socket that nobody answers on is replaced.
///
/// It is bound in a directory that nobody else may enter, given its mode there, and only then
/// moved to `path`: whatever the umask, it is never open to more than its mode says.
pub fn bind_unix(path: &Path) -> Result<AdminSocket, ListenError> {
    let failed = |why| ListenError::Unix { path: path.to_path_buf(), why };
    if path.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
        return Err(ListenError::PathTooLong { path: path.to_path_buf() });
    }
    require_vacant(path)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(failed)?;
    let private = tempfile::Builder::new().prefix(".lk").tempdir_in(parent).map_err(failed)?;
    let made = private.path().join("s");
    if made.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
        return Err(ListenError::PathTooLong { path: path.to_path_buf() });
    }
    let listener = UnixListener::bind(&made).map_err(failed)?;
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    std::fs::rename(&made, path).map_err(failed)?;
    Ok(AdminSocket { listener, path: path.to_path_buf() })
}

/// Nothing is at `path`, or a socket that nobody answers on.
fn require_vacant(path: &Path) -> Result<(), ListenError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(ListenError::Unix { path: path.to_path_buf(), why }),
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path.to_path_buf() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse { path: path.to_path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // Its queue is full: somebody is there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(ListenError::InUse { path: path.to_path_buf() })
        }
        Err(why) => Err(ListenError::Unix { path: path.to_path_buf(), why }),
    }
}

/// Serves `router` to callers that have to show an admin token, until `shutdown` becomes true.
pub async fn serve_tcp(listener: TcpListener, router: Router, shutdown: watch::Receiver<bool>) {
    let admit = |peer: SocketAddr, request: &mut http::Extensions| {
        request.insert(Peer(peer));
    };
    serve(listener, admit, router, shutdown).await;
}

/// Serves `router` to whoever may open the socket, as the owner, until `shutdown` becomes true.
pub async fn serve_unix(socket: AdminSocket, router: Router, shutdown: watch::Receiver<bool>) {
    let admit = |(), request: &mut http::Extensions| {
        request.insert(Caller::socket());
    };
    serve(socket, admit, router, shutdown).await;
}

/// What connections come from.
trait Accept: Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    type Address: Clone + Send + Sync + 'static;

    /// The next connection. (A trait rather than an `AsyncFn`, whose futures cannot be said to be
    /// `Send`.)
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Address)>> + Send;
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;
    type Address = SocketAddr;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send {
        Self::accept(self)
    }
}

impl Accept for AdminSocket {
    type Stream = tokio::net::UnixStream;
    type Address = ();

    async fn accept(&self) -> io::Result<(Self::Stream, ())> {
        self.listener.accept().await.map(|(stream, _)| (stream, ()))
    }
}

async fn serve<L: Accept>(
    listener: L,
    admit: fn(L::Address, &mut http::Extensions),
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) {
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
            Ok((permit, (stream, address))) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                let admit = move |extensions: &mut http::Extensions| {
                    admit(address.clone(), extensions);
                };
                connections.spawn(serve_one(stream, admit, router, shutdown, permit));
            }
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
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // Holding what it returns would hold a lock.
    drop(shutdown.wait_for(|stop| *stop).await);
}

async fn serve_one<C: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: C,
    admit: impl Fn(&mut http::Extensions) + Send,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        admit(request.extensions_mut());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut stream = TimeoutStream::new(stream);
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
    use tokio::net::{TcpStream, UnixStream};

    use super::*;
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
        let tcp = tokio::spawn(serve_tcp(tcp, routes, stopped));
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
        let admit = |extensions: &mut http::Extensions| {
            extensions.insert(Caller::socket());
        };
        let routes = router(Arc::clone(&bench.node));
        let served = tokio::spawn(serve_one(server, admit, routes, stopped, permit));
        let (_reads_nothing, mut writer) = tokio::io::split(client);
        let head = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
        writer.write_all(head).await.unwrap();
        let hour = Duration::from_secs(3600);
        tokio::time::timeout(hour, served).await.expect("it is let go").unwrap();
        assert_eq!(room.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("deep").join("admin.sock");
        let live = bind_unix(&path).unwrap();
        assert!(matches!(bind_unix(&path), Err(ListenError::InUse { .. })));
        drop(live);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "stale");
        drop(bind_unix(&path).unwrap());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind_unix(&path), Err(ListenError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(bind_unix(&long), Err(ListenError::PathTooLong { .. })));
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no private directory is left behind: {left:?}");
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_it() {
        let first = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind_tcp(address).await.unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
