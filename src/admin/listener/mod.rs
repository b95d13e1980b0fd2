//! Serves the admin plane on TCP, with or without TLS, and on a unix socket.
//!
//! The two differ in trust: whoever the mode of the socket's file lets in is the owner; on TCP a
//! caller needs an admin token or a session. Both are bounded in connections and time, and both
//! drain. HTTP/1.1 is spoken on both: the admin plane has few callers, and each streams little.
//!
//! What a request's headers say of where it comes from is read in `admin::origin`; certificates
//! are watched and replaced by whoever handed them in.

mod places;
mod serve;

use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

pub use self::serve::{CONNECTIONS_MAX, Secured, serve_tcp, serve_unix};

pub(super) use self::serve::stopped;

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

/// Takes over a TCP listener that others have bound. Must be called within a runtime, as must
/// [`inherit_unix`].
pub fn inherit_tcp(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The unix socket.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    /// What is removed when it is dropped; `None`: it is there for the next process too.
    path: Option<PathBuf>,
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nobody is left to tell; a stale socket is replaced at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes over a unix socket that others have bound, who see to its mode and its end.
pub fn inherit_unix(listener: std::os::unix::net::UnixListener) -> io::Result<AdminSocket> {
    listener.set_nonblocking(true)?;
    Ok(AdminSocket { listener: UnixListener::from_std(listener)?, path: None })
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
    Ok(AdminSocket { listener, path: Some(path.to_path_buf()) })
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

#[cfg(test)]
mod tests {
    use super::*;

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
    async fn what_is_inherited_stays() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("admin.sock");
        let theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(inherit_unix(theirs.try_clone().unwrap()).unwrap());
        let _waits = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let theirs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = theirs.local_addr().unwrap();
        drop(inherit_tcp(theirs.try_clone().unwrap()).unwrap());
        let _waits = std::net::TcpStream::connect(address).unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_it() {
        let first = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind_tcp(address).await.unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
