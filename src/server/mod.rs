//! The data plane: listeners, connections, and what becomes of a request.
//!
//! ```text
//! wire → framing → hyper → handler → decision::evaluate → proxy | issue | respond
//! ```
//!
//! One thread per worker, each with a current-thread runtime, a listener of its own on the shared
//! port (`SO_REUSEPORT`) and its own pool of upstream connections, so that no request ever waits
//! for a lock that another core holds.
//!
//! `wire` and `framing` judge every request head before hyper sees it: what two parsers could
//! read in two ways is answered 400 and goes no further. This module does not decide who may do
//! what, and it opens neither the store nor the admin plane.

mod body;
mod conn;
mod framing;
pub mod front;
mod handler;
mod headers;
mod held;
mod hygiene;
pub mod issue;
mod issue_route;
mod listen;
mod log;
mod proxy;
mod respond;
mod upstream;
mod wire;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use self::issue::IssueSender;
pub use self::listen::BindError;
use self::worker::Gauge;
use crate::clock::Clock;
use crate::config::{Config, ServerConfig, UpstreamConfig};
use crate::id::Name;
use crate::jwks::{Jwks, RefreshReason};
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::secret::{SystemEntropy, random_bytes};
use crate::snapshot::Published;
use crate::verified_tokens::VerifiedTokenCache;

/// What the workers share with the rest of the process.
pub struct Shared {
    /// What decisions are made from.
    pub snapshot: Arc<Published>,
    /// The state of all quotas.
    pub limiter: Arc<Limiter>,
    /// Verified JWTs.
    pub verified: Arc<VerifiedTokenCache>,
    /// Where decisions are counted.
    pub metrics: Arc<Metrics>,
    /// Who fetches a key that a token names and its issuer's set lacks.
    pub keys: Arc<dyn KeyRefresher>,
    /// Who issues widget tokens.
    pub issue: IssueSender,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What a reload of the configuration may replace.
    pub settings: ArcSwap<Settings>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The part of the configuration that the data plane takes over while it runs: stored in
/// [`Shared::settings`], in force for the next request (bounds of a connection: for the next
/// connection).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Upstreams by name.
    pub upstreams: BTreeMap<Name, UpstreamConfig>,
    /// Whether responses carry `X-RateLimit-*`.
    pub x_ratelimit: bool,
    /// Bounds and timeouts; `listen` and `workers` are fixed when the server is bound.
    pub server: ServerConfig,
}

impl Settings {
    /// The settings that `config` asks for.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            upstreams: config.upstreams.clone(),
            x_ratelimit: config.x_ratelimit,
            server: config.server.clone(),
        }
    }
}

/// Asks an identity provider for a key; [`Jwks`] in production.
pub trait KeyRefresher: Send + Sync {
    /// Resolves when the issuer's key set was refreshed, or could not be.
    fn refresh<'a>(&'a self, issuer: &'a Name) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

impl KeyRefresher for Jwks {
    fn refresh<'a>(&'a self, issuer: &'a Name) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            // The next evaluation says what came of it; the keeper logs its failures.
            let _ = Jwks::refresh(self, issuer, RefreshReason::UnknownKid).await;
        })
    }
}

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
        let gauge = Arc::new(Gauge::default());
        let mut running =
            Running { phase, workers: Vec::new(), local_addr: self.local_addr, gauge };
        for (index, listener) in self.listeners.into_iter().enumerate() {
            let start = worker::Start {
                index,
                seed: self.seed.wrapping_add(index as u64),
                listener,
                shared: Arc::clone(&self.shared),
                gauge: Arc::clone(&running.gauge),
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
    gauge: Arc<Gauge>,
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
        self.gauge.count()
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
