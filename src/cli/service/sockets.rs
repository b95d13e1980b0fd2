//! Listening sockets that the service manager opened and hands over, so that connections wait for
//! a restart instead of being refused.
//!
//! The configuration stays the truth: a socket is taken for the configured address that it is
//! bound to, and an address without one is bound by latchkey itself. A socket that is bound to
//! anything else is a mistake in one of the two, and nothing starts: callers would wait on it for
//! an answer for ever. No socket is shut down or removed here: they are the manager's.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::SockRef;

use crate::cli::exit::{Exit, Failure};
use crate::config::Config;

/// What the manager says of its sockets (`sd_listen_fds(3)`).
const COUNT: &str = "LISTEN_FDS";
const MEANT_FOR: &str = "LISTEN_PID";
const NAMES: &str = "LISTEN_FDNAMES";

/// Every user may do something.
const OPEN_TO_OTHERS: u32 = 0o007;

/// The sockets for the configured addresses, as far as they were handed over.
#[derive(Debug, Default)]
pub(in crate::cli) struct Sockets {
    /// For `server.listen`.
    pub(in crate::cli) data: Option<TcpListener>,
    /// For `admin.listen`.
    pub(in crate::cli) admin: Option<TcpListener>,
    /// For `admin.socket`.
    pub(in crate::cli) admin_socket: Option<UnixListener>,
}

/// What was handed over.
#[derive(Debug, Default)]
pub(in crate::cli) struct Inherited(Vec<Socket>);

#[derive(Debug)]
struct Socket {
    /// What the manager calls it: the unit's name, unless `FileDescriptorName=` says otherwise.
    name: String,
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Inherited {
    /// What was handed over to this process. To be called once, before there are threads.
    pub(in crate::cli) fn of_process() -> Result<Self, Failure> {
        let own = std::process::id().to_string();
        // A count without a process is nobody's, and that of a wrapper is not ours.
        if std::env::var_os(COUNT).is_none() || std::env::var_os(MEANT_FOR) != Some(own.into()) {
            return Ok(Self::default());
        }
        let names = std::env::var(NAMES).unwrap_or_default();
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..handed.len() {
            let name = names.next().unwrap_or("unnamed").to_owned();
            let listener = take(&mut handed, index).map_err(|why| {
                unusable(&name, &format!("is no stream socket that listens ({why})"))
            })?;
            sockets.push(Socket { name, listener });
        }
        Ok(Self(sockets))
    }

    /// Gives every socket to the configured address that it is bound to.
    pub(in crate::cli) fn sort(self, config: &Config) -> Result<Sockets, Failure> {
        let mut sorted = Sockets::default();
        for Socket { name, listener } in self.0 {
            let (address, before) = match listener {
                Listener::Tcp(tcp, address) => {
                    let place = if address == config.server.listen {
                        &mut sorted.data
                    } else if address == config.admin.listen {
                        &mut sorted.admin
                    } else {
                        return Err(unknown(&name, &address.to_string(), config));
                    };
                    (address.to_string(), place.replace(tcp).is_some())
                }
                Listener::Unix(unix, path) => {
                    let shown = path.display().to_string();
                    if !is_same(&path, &config.admin.socket) {
                        return Err(unknown(&name, &shown, config));
                    }
                    check_mode(&name, &path)?;
                    (shown, sorted.admin_socket.replace(unix).is_some())
                }
            };
            if before {
                let what = format!("is the second one on {address}");
                return Err(unusable(&name, &what));
            }
        }
        Ok(sorted)
    }
}

fn take(handed: &mut ListenFd, index: usize) -> io::Result<Listener> {
    let gone = || io::Error::other("it is not there");
    let listener = if let Ok(taken) = handed.take_tcp_listener(index) {
        let tcp = taken.ok_or_else(gone)?;
        let address = tcp.local_addr()?;
        require_listening(&SockRef::from(&tcp))?;
        tcp.set_nonblocking(true)?;
        Listener::Tcp(tcp, address)
    } else {
        let unix = handed.take_unix_listener(index)?.ok_or_else(gone)?;
        let address = unix.local_addr()?;
        require_listening(&SockRef::from(&unix))?;
        unix.set_nonblocking(true)?;
        let unnamed = || io::Error::other("it has no path");
        Listener::Unix(unix, address.as_pathname().ok_or_else(unnamed)?.to_path_buf())
    };
    Ok(listener)
}

fn require_listening(socket: &SockRef<'_>) -> io::Result<()> {
    if socket.is_listener()? { Ok(()) } else { Err(io::Error::other("it is a connection")) }
}

/// Whether both name one file, through symbolic links (`/var/run`) too.
fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path));
    match (whole(one), whole(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// Whoever may open the admin socket owns everything; systemd lets everybody unless it is told.
fn check_mode(name: &str, path: &Path) -> Result<(), Failure> {
    let mode = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o7777,
        Err(error) => return Err(unusable(name, &format!("cannot be looked at: {error}"))),
    };
    if mode & OPEN_TO_OTHERS == 0 {
        return Ok(());
    }
    let what = format!(
        "is the admin socket {}, open to every user ({mode:04o}); who may open it owns everything",
        path.display()
    );
    let failure = Failure::new(Exit::Configuration, handed(name, &what));
    Err(failure.hint("write SocketMode=0660 in the socket unit, with SocketUser= or SocketGroup="))
}

fn unusable(name: &str, what: &str) -> Failure {
    let failure = Failure::new(Exit::Configuration, handed(name, what));
    failure.hint(
        "in the socket unit, write ListenStream= once for each address, without Accept=yes; the \
         addresses are server.listen, admin.listen and admin.socket of the configuration",
    )
}

fn unknown(name: &str, address: &str, config: &Config) -> Failure {
    let (server, admin) = (config.server.listen, config.admin.listen);
    let what = format!(
        "listens on {address}, where the configuration does not: server.listen is {server}, \
         admin.listen {admin}, admin.socket {}",
        config.admin.socket.display()
    );
    let key = if address.starts_with('/') { "admin.socket" } else { "server.listen" };
    let wanted = if key == "server.listen" {
        server.to_string()
    } else {
        config.admin.socket.display().to_string()
    };
    Failure::new(Exit::Configuration, handed(name, &what)).hint(format!(
        "write {key} = \"{address}\" in the configuration, or ListenStream={wanted} in the socket \
         unit (`systemctl edit latchkey.socket`, after an empty ListenStream=, then `systemctl \
         restart latchkey.socket`)"
    ))
}

fn handed(name: &str, what: &str) -> String {
    format!("the socket {name} that the service manager handed over {what}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{self, ConfigFile, Sources};

    fn tcp(name: &str) -> (Socket, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (Socket { name: name.to_owned(), listener: Listener::Tcp(listener, address) }, address)
    }

    fn unix(name: &str, path: &Path, mode: u32) -> Socket {
        let listener = UnixListener::bind(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        Socket { name: name.to_owned(), listener: Listener::Unix(listener, path.to_path_buf()) }
    }

    fn config(data: SocketAddr, admin: SocketAddr, socket: &Path) -> Config {
        let text = format!(
            "[server]\nlisten = '{data}'\n[admin]\nlisten = '{admin}'\nsocket = '{}'\n",
            socket.display()
        );
        let file = ConfigFile::Inline { name: "test".to_owned(), text };
        config::load(&Sources { file, ..Sources::default() }).unwrap()
    }

    fn told(failure: &Failure, words: &[&str]) {
        assert_eq!(failure.exit, Exit::Configuration);
        let text = failure.to_string();
        for word in words {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
    }

    #[test]
    fn each_goes_where_it_is_configured_and_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let ((a, data), (b, admin)) = (tcp("latchkey.socket"), tcp("admin"));
        let linked = directory.path().join("linked");
        std::os::unix::fs::symlink(directory.path(), &linked).unwrap();
        let config = config(data, admin, &linked.join("admin.sock"));
        let all = vec![unix("admin-unix", &path, 0o660), b, a];
        let sorted = Inherited(all).sort(&config).unwrap();
        let at = |socket: &Option<TcpListener>| socket.as_ref().unwrap().local_addr().unwrap();
        assert_eq!((at(&sorted.data), at(&sorted.admin)), (data, admin));
        assert!(sorted.admin_socket.is_some());
        drop(sorted);
        assert!(path.exists(), "the manager's");

        let none = Inherited::default().sort(&config).unwrap();
        assert!(none.data.is_none() && none.admin.is_none() && none.admin_socket.is_none());
    }

    #[test]
    fn what_nobody_would_answer_on_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let ((a, data), (_, admin)) = (tcp("one"), tcp("two"));
        let config = config(data, admin, &path);
        let (stray, address) = tcp("web.socket");
        let refused = Inherited(vec![a, stray]).sort(&config).unwrap_err();
        let listen = format!("ListenStream={data}");
        told(&refused, &["web.socket", &address.to_string(), &data.to_string(), &listen]);

        let elsewhere = directory.path().join("other.sock");
        let refused = Inherited(vec![unix("x", &elsewhere, 0o660)]).sort(&config).unwrap_err();
        told(&refused, &["other.sock", "admin.socket", &format!("={}", path.display())]);

        let open = unix("x", &path, 0o666);
        let refused = Inherited(vec![open]).sort(&config).unwrap_err();
        told(&refused, &["0666", "SocketMode=0660"]);

        let again = |listener: &TcpListener| Socket {
            name: "again".to_owned(),
            listener: Listener::Tcp(listener.try_clone().unwrap(), data),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let twice = Inherited(vec![again(&listener), again(&listener)]);
        told(&twice.sort(&config).unwrap_err(), &["again", "second", &data.to_string()]);
    }
}
