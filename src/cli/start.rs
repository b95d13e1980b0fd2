//! What every command that starts something has in common: the configuration, the runtime, the
//! node, and how their errors are told.
//!
//! Serves nothing, and prints nothing.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use super::exit::{Exit, Failure};
use crate::admin::{Node, OpenError};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Sources};
use crate::metrics::Metrics;
use crate::secret::SystemEntropy;
use crate::store::StoreError;

/// Threads of a command, or, in a gateway, of what workers wait for.
const THREADS: usize = 2;

/// Reads the configuration; every mistake is told at once.
pub(super) fn load(sources: &Sources) -> Result<Config, Failure> {
    config::load(sources).map_err(|errors| {
        let message = match errors.iter().count() {
            1 => format!("the configuration is wrong:\n{errors}"),
            n => format!("the configuration has {n} mistakes:\n{errors}"),
        };
        let hint = "`latchkey config reference`, or latchkey.toml(5), has every key";
        Failure::new(Exit::Configuration, message).hint(hint)
    })
}

/// The runtime of commands. In a gateway, callers of the admin plane are served by another
/// ([`super::admin_plane`]).
pub(super) fn runtime() -> Result<Runtime, Failure> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("control")
        .enable_all()
        .build();
    runtime.map_err(|e| Failure::new(Exit::Failure, format!("no threads to run on: {e}")))
}

/// Opens the store that `config` names.
pub(super) fn open_node(config: Config) -> Result<Arc<Node>, Failure> {
    open_node_at(config, Arc::new(SystemClock::new()))
}

/// Opens the store that `config` names, at the time of `clock`.
pub(super) fn open_node_at(config: Config, clock: Arc<dyn Clock>) -> Result<Arc<Node>, Failure> {
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION")).map_err(|error| {
        Failure::new(Exit::Failure, format!("the metrics could not be set up: {error}"))
    })?;
    let socket = config.admin.socket.clone();
    let entropy = Arc::new(SystemEntropy::new());
    Node::open(config, clock, entropy, Arc::new(metrics)).map_err(|e| open_failure(&e, &socket))
}

fn open_failure(error: &OpenError, socket: &Path) -> Failure {
    let exit = match error {
        OpenError::MasterKey(_) | OpenError::Store(_) | OpenError::Shop(_) => Exit::Store,
        OpenError::Entropy(_) | OpenError::AssertionKey(_) => Exit::Failure,
    };
    let failure = Failure::new(exit, error.to_string());
    if matches!(error, OpenError::Store(StoreError::Locked { .. })) {
        let socket = socket.display();
        return failure.hint(format!(
            "commands talk to a running latchkey through its socket: {socket} by this \
             configuration, or name it with --socket"
        ));
    }
    failure
}

/// Fails if somebody listens on `address`, which the key `key` names.
///
/// Asked before the store is opened: a server that cannot listen leaves no database behind.
pub(super) fn ensure_free(key: &str, address: SocketAddr) -> Result<(), Failure> {
    let Err(error) = TcpListener::bind(address) else {
        return Ok(());
    };
    let (exit, hint) = if error.kind() == ErrorKind::AddrInUse {
        let hint = "another process listens there: stop it, or choose another port; if it is \
                    systemd, for latchkey.socket, start latchkey through it: systemctl start \
                    latchkey";
        (Exit::AddressInUse, hint)
    } else if error.kind() == ErrorKind::PermissionDenied {
        let hint = "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose a higher one";
        (Exit::Failure, hint)
    } else {
        (Exit::Failure, "is it an address of this machine?")
    };
    let message = format!("{key}: cannot listen on {address}: {error}");
    Err(Failure::new(exit, message).hint(hint))
}

/// Where a listener on all addresses is reached from this machine.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_another_process_holds_points_to_the_socket() {
        let error = OpenError::Store(StoreError::Locked { path: "/x/latchkey.redb".into() });
        let failure = open_failure(&error, Path::new("/x/admin.sock"));
        assert_eq!(failure.exit, Exit::Store);
        let text = failure.to_string();
        assert!(text.contains("/x/latchkey.redb") && text.contains("/x/admin.sock"), "{text}");
    }

    #[test]
    fn listeners_on_all_addresses_are_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:81", "127.0.0.1:81"),
            ("[::]:81", "[::1]:81"),
            ("10.0.0.1:81", "10.0.0.1:81"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn a_taken_port_has_its_own_exit_code() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let failure = ensure_free("server.listen", address).unwrap_err();
        assert_eq!(failure.exit, Exit::AddressInUse);
        assert!(failure.message.contains("server.listen"));
        assert!(failure.message.contains(&address.to_string()));
        drop(listener);
        ensure_free("server.listen", address).unwrap();
    }
}
