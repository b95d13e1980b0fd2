//! The data plane: listeners, connections, and what becomes of a request.
//!
//! ```text
//! front: listen → wire, framing → hyper → exchange: hygiene → decision::evaluate
//!        → forward → upstream | issue_route | message::problem
//! ```
//!
//! | room | what it holds |
//! |---|---|
//! | `front` | from the socket to a request: listeners, places, the wire and its framing |
//! | `exchange` | from a request to its response: the only room that asks the decision core |
//! | `forward_auth` | what a proxy asks, and what it is answered |
//! | `upstream` | connections to the protected services |
//! | `message` | header fields and problems, as they are written |
//!
//! `worker` owns a thread and its `local` state, `conn` and `streams` what a connection's parts
//! know of each other, `client_body` is a request's body, `places` what all workers have of them,
//! `memory` a worker without sockets;
//! `shared` is all that comes from outside of the data plane. A
//! room imports only from those below it: worker, front, exchange, `forward_auth`, upstream,
//! message.
//!
//! One thread per worker, each with a current-thread runtime, a listener of its own on the shared
//! port (`SO_REUSEPORT`) and its own pool of upstream connections, so that no request ever waits
//! for a lock that another core holds.
//!
//! The front judges every request head before hyper sees it: what two parsers could read in two
//! ways is answered 400 and goes no further. This module does not decide who may do
//! what, and it opens neither the store nor the admin plane.

mod client_body;
mod conn;
mod exchange;
mod failure;
pub mod forward_auth;
pub mod front;
pub mod issue;
mod live;
mod local;
mod log;
pub mod memory;
pub mod message;
mod places;
mod request_id;
mod shared;
mod streams;
mod upstream;
mod worker;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use self::front::listen;
pub use self::front::listen::BindError;
use self::places::Places;
pub use self::shared::{KeyRefresher, Settings, Shared};
pub use self::upstream::{UpstreamStates, reach};
use crate::config::ServerConfig;
use crate::secret::{SystemEntropy, random_bytes};

/// A bound, not yet serving data plane.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<std::net::TcpListener>,
    local_addr: SocketAddr,
    seed: u64,
    shared: Arc<Shared>,
}

impl Server {
    /// Binds one listener per worker. With port 0 the system picks one port for all of them.
    pub fn bind(config: &ServerConfig, shared: Arc<Shared>) -> Result<Self, BindError> {
        let seed = random_bytes(&SystemEntropy::new()).map_err(|_| BindError::Entropy)?;
        let (listeners, local_addr) = listen::bind(config.listen, config.workers)?;
        Ok(Self { listeners, local_addr, seed: u64::from_be_bytes(seed), shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Starts the workers.
    ///
    /// # Errors
    ///
    /// [`BindError::Thread`] when the system refuses a thread; those started end again.
    pub fn start(self) -> Result<Running, BindError> {
        let (phase, watch) = watch::channel(worker::Phase::Serving);
        let places = Arc::new(Places::default());
        let mut running =
            Running { phase, workers: Vec::new(), local_addr: self.local_addr, places };
        for (index, listener) in self.listeners.into_iter().enumerate() {
            let start = worker::Start {
                index,
                seed: self.seed.wrapping_add(index as u64),
                listener,
                shared: Arc::clone(&self.shared),
                places: Arc::clone(&running.places),
                phase: watch.clone(),
            };
            let spawned = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker::run(start));
            match spawned {
                Ok(thread) => running.workers.push(thread),
                Err(source) => {
                    let _cut = running.drain(Duration::ZERO);
                    return Err(BindError::Thread { source });
                }
            }
        }
        Ok(running)
    }
}

/// A serving data plane. Dropping it cuts all connections; [`Running::drain`] is the orderly end.
#[derive(Debug)]
pub struct Running {
    phase: watch::Sender<worker::Phase>,
    workers: Vec<JoinHandle<usize>>,
    local_addr: SocketAddr,
    places: Arc<Places>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Open connections, over all workers.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.places.connections()
    }

    /// Stops accepting, closes idle connections, lets requests under way finish with
    /// `Connection: close`, and after `bound` cuts the rest. Blocks until the workers have ended;
    /// returns how many connections were cut.
    #[must_use = "the number of connections that were cut is worth a log line"]
    pub fn drain(self, bound: Duration) -> usize {
        // Fails only when every worker has ended already.
        let _ = self.phase.send(worker::Phase::Draining(bound));
        self.workers.into_iter().map(|w| w.join().unwrap_or_default()).sum()
    }
}
