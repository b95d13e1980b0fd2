//! Binding the listeners.
//!
//! `SO_REUSEPORT` lets the workers share a port, but it would also let a second latchkey of the
//! same user take half of a running one's connections without a word. So the first socket is
//! bound without it, which fails when anybody listens there (and, for port 0, makes the system
//! pick a port that nobody shares), and only then opened to the others.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections the kernel queues per listener until they are accepted; the kernel caps it at
/// `net.core.somaxconn` (4096 by default).
const BACKLOG: i32 = 4096;

/// Why the data plane cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error(
        "server.listen: {address} is in use by another process; stop it, or choose another port"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// Not allowed to.
    #[error(
        "server.listen: not allowed to listen on {address}; ports below 1024 need root or \
         CAP_NET_BIND_SERVICE: choose a higher port, or grant the capability"
    )]
    Denied {
        /// The address.
        address: SocketAddr,
    },
    /// No interface has it.
    #[error(
        "server.listen: no network interface of this machine has the address of {address}; use \
         one it has, or 0.0.0.0 or [::] for all"
    )]
    NotAvailable {
        /// The address.
        address: SocketAddr,
    },
    /// Something else.
    #[error("server.listen: cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No randomness for request ids.
    #[error("the operating system's random number generator failed")]
    Entropy,
    /// No thread for a worker.
    #[error("cannot start a worker thread: {source}; lower server.workers or raise the limit")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse {
            Self::InUse { address }
        } else if source.kind() == io::ErrorKind::PermissionDenied {
            Self::Denied { address }
        } else if source.kind() == io::ErrorKind::AddrNotAvailable {
            Self::NotAvailable { address }
        } else {
            Self::Other { address, source }
        }
    }
}

/// Binds `count` listeners to `address`; returns them and the address with the port picked.
pub(in crate::server) fn bind(
    address: SocketAddr,
    count: NonZeroUsize,
) -> Result<(Vec<TcpListener>, SocketAddr), BindError> {
    let fault = |source| BindError::new(address, source);
    let first = socket(address, false).map_err(fault)?;
    first.set_reuse_port(true).map_err(fault)?;
    let picked = first.local_addr().map_err(fault)?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..count.get() {
        sockets.push(socket(picked, true).map_err(fault)?);
    }
    let listen = |socket: Socket| {
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    let listeners = sockets.into_iter().map(listen).collect::<io::Result<_>>().map_err(fault)?;
    Ok((listeners, picked))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    #[test]
    fn workers_share_the_port_the_system_picked_and_nobody_else_does() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (listeners, address) = bind(any, TWO).unwrap();
        assert_ne!(address.port(), 0);
        for listener in &listeners {
            assert_eq!(listener.local_addr().unwrap(), address);
        }
        let error = bind(address, TWO).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()));
        drop(listeners);
        bind(address, TWO).unwrap();
    }

    #[test]
    fn an_address_of_no_interface() {
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = bind(elsewhere, TWO).unwrap_err();
        assert!(matches!(error, BindError::NotAvailable { .. }), "{error}");
    }
}
