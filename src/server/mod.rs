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
//! `worker` owns a thread and its `local` state, `intake` is where its connections come from,
//! `stage` how far its end has got, `pulse` whether it still answers; `conn` and `streams` are what
//! a connection's parts know of each other, `client_body` is a request's body, `places` what all
//! workers have of them, `memory` a worker without sockets; `shared` is all that comes from outside
//! of the data plane. A room imports only from those below it: worker, front, exchange,
//! `forward_auth`, upstream, message.
//!
//! One thread per worker, each with a current-thread runtime, a listener of its own on the shared
//! port (`SO_REUSEPORT`; on a socket that was handed over, one thread accepts for all of them) and
//! its own pool of upstream connections, so that no request ever waits for a lock that another core
//! holds.
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
mod intake;
pub mod issue;
mod live;
mod local;
mod log;
pub mod memory;
pub mod message;
mod places;
mod pulse;
mod request_id;
mod shared;
mod stage;
mod streams;
mod upstream;
mod worker;

#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use self::front::listen;
pub use self::front::listen::BindError;
use self::intake::{Source, Usher};
use self::places::Places;
pub use self::pulse::Pulse;
pub use self::shared::{KeyRefresher, Settings, Shared};
pub use self::upstream::{UpstreamStates, reach};
use crate::config::ServerConfig;
use crate::secret::{SystemEntropy, random_bytes};

/// A bound, not yet serving data plane.
#[derive(Debug)]
pub struct Server {
    listeners: Listeners,
    local_addr: SocketAddr,
    seed: u64,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Listeners {
    /// One per worker.
    Own(Vec<TcpListener>),
    /// One for so many workers; it may outlive the process.
    Inherited(TcpListener, NonZeroUsize),
}

impl Server {
    /// Binds one listener per worker. With port 0 the system picks one port for all of them.
    pub fn bind(config: &ServerConfig, shared: Arc<Shared>) -> Result<Self, BindError> {
        let seed = seed()?;
        let (listeners, local_addr) = listen::bind(config.listen, config.workers)?;
        Ok(Self { listeners: Listeners::Own(listeners), local_addr, seed, shared })
    }

    /// Takes over a listener that others have bound to `config.listen`, and may hand to the next
    /// process: nothing that waits in it is refused when this one ends.
    pub fn inherit(
        listener: TcpListener,
        config: &ServerConfig,
        shared: Arc<Shared>,
    ) -> Result<Self, BindError> {
        let seed = seed()?;
        let fault = |source| BindError::Other { address: config.listen, source };
        let local_addr = listener.local_addr().map_err(fault)?;
        listener.set_nonblocking(true).map_err(fault)?;
        let listeners = Listeners::Inherited(listener, config.workers);
        Ok(Self { listeners, local_addr, seed, shared })
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
        let Self { listeners, local_addr, seed, shared } = self;
        let (phase, watch) = watch::channel(worker::Phase::Serving);
        let places = Arc::new(Places::default());
        let (sources, inherited) = match listeners {
            Listeners::Own(own) => (own.into_iter().map(Source::Own).collect(), None),
            Listeners::Inherited(listener, workers) => {
                let (usher, sources) = Usher::new(workers.get());
                (sources, Some((listener, usher)))
            }
        };
        let pulse = Pulse::new(sources.len() + usize::from(inherited.is_some()));
        let acceptor = inherited.map(|(listener, usher)| intake::Start {
            listener,
            usher,
            places: Arc::clone(&places),
            clock: Arc::clone(&shared.clock),
            phase: watch.clone(),
            beat: pulse.beat(sources.len()),
        });
        let mut running =
            Running { phase, workers: Vec::new(), acceptor: None, local_addr, places, pulse };
        for (index, source) in sources.into_iter().enumerate() {
            let start = worker::Start {
                index,
                seed: seed.wrapping_add(index as u64),
                source,
                shared: Arc::clone(&shared),
                places: Arc::clone(&running.places),
                phase: watch.clone(),
                beat: running.pulse.beat(index),
            };
            let spawned = spawn(format!("worker-{index}"), move || worker::run(start));
            match spawned {
                Ok(thread) => running.workers.push(thread),
                Err(error) => return Err(running.give_up(error)),
            }
        }
        if let Some(start) = acceptor {
            match spawn("acceptor".to_owned(), move || intake::run(start)) {
                Ok(thread) => running.acceptor = Some(thread),
                Err(error) => return Err(running.give_up(error)),
            }
        }
        Ok(running)
    }
}

fn seed() -> Result<u64, BindError> {
    let seed = random_bytes(&SystemEntropy::new()).map_err(|_| BindError::Entropy)?;
    Ok(u64::from_be_bytes(seed))
}

fn spawn<T: Send + 'static>(
    name: String,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, BindError> {
    let spawned = std::thread::Builder::new().name(name).spawn(run);
    spawned.map_err(|source| BindError::Thread { source })
}

/// A serving data plane. Dropping it cuts all connections; [`Running::drain`] is the orderly end.
#[derive(Debug)]
pub struct Running {
    phase: watch::Sender<worker::Phase>,
    workers: Vec<JoinHandle<usize>>,
    /// Accepts for all workers, where they have no listeners of their own.
    acceptor: Option<JoinHandle<()>>,
    local_addr: SocketAddr,
    places: Arc<Places>,
    pulse: Pulse,
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

    /// Asks the workers whether they still answer.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Ends every connection with its next answer, stops accepting when that has had its time or
    /// none is left, closes what rests, and after `bound` cuts what is still under way. Blocks
    /// until the workers have ended; returns how many connections were cut.
    #[must_use = "the number of connections that were cut is worth a log line"]
    pub fn drain(self, bound: Duration) -> usize {
        // Fails only when every worker has ended already.
        let _ = self.phase.send(worker::Phase::Draining(bound));
        if let Some(acceptor) = self.acceptor {
            // A panic has been reported by the panic hook.
            let _ = acceptor.join();
        }
        self.workers.into_iter().map(|w| w.join().unwrap_or_default()).sum()
    }

    /// Ends what has been started.
    fn give_up(self, error: BindError) -> BindError {
        let _cut = self.drain(Duration::ZERO);
        error
    }
}
