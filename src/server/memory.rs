//! The data plane without sockets: a worker whose connections are brought to it in memory.
//!
//! For measuring and testing the whole way of a request (wire, framing, hyper, exchange, decision,
//! answer) without the system's part of it. It speaks HTTP/1.1, plainly; it accepts nothing,
//! counts no places and knows no drain. Upstreams are reached as always, through sockets.

use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{DuplexStream, duplex};

use super::conn::Transport;
use super::front::arrival::Arrival;
use super::front::stream::Stream;
use super::local::Local;
use super::places::Places;
use super::shared::Shared;
use super::worker::{self, Worker};

/// Bytes on their way, in each direction of a connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// A worker that is brought its connections.
pub struct MemoryServer {
    worker: Rc<Worker>,
}

impl fmt::Debug for MemoryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryServer").finish_non_exhaustive()
    }
}

impl MemoryServer {
    /// A worker without connections, which makes its request ids from `seed`.
    #[must_use]
    pub fn new(shared: Arc<Shared>, seed: u64) -> Self {
        let local = Local::new(shared, Arc::new(Places::default()), seed);
        Self { worker: Rc::new(Worker::new(local)) }
    }

    /// The client's end of a new connection that seems to come from `peer`. It is served until
    /// the client drops it.
    ///
    /// # Panics
    ///
    /// Where no [`tokio::task::LocalSet`] runs.
    #[must_use]
    pub fn connect(&self, peer: IpAddr) -> DuplexStream {
        let (client, server) = duplex(BUFFER_BYTES);
        let worker = Rc::clone(&self.worker);
        tokio::task::spawn_local(async move {
            let settings = worker.local.shared.settings.load_full();
            let (stream, transport) = (Stream::Memory(server), Transport::PLAIN);
            let arrival = Arrival { stream, begun: Vec::new(), transport };
            worker::connection(&worker, peer, arrival, &settings.server).await;
        });
        client
    }
}
