//! Where a worker's connections come from.
//!
//! Usually each worker has a listener of its own on the shared port, and the kernel spreads the
//! connections. A socket that the service manager handed over is one for all of them: if each
//! worker waited on it, the first one to wake would take what comes while there is little to do,
//! and have it all when there is much. So one thread accepts from it, and hands each connection to
//! the worker that has the fewest.
//!
//! What becomes of a connection is the worker's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::log;
use super::places::Places;
use super::pulse::Beat;
use super::worker::Phase;
use crate::clock::{Clock, Monotonic};

/// Connections that wait for one worker to take them up; the others wait in the kernel.
const QUEUE_MAX: usize = 256;
/// The wait after the system refused to hand over a connection (out of file descriptors), and
/// while all workers have as many waiting as they may.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// From one log line about that to the next, microseconds.
const ACCEPT_TOLD_US: u64 = 5_000_000;
/// How long connections are taken after the drain has begun, so that those who are kept by their
/// clients can be told to go on elsewhere.
const PARTING: Duration = Duration::from_secs(1);
/// Between two looks at whether any are left.
const PARTING_LOOK: Duration = Duration::from_millis(10);

/// How long connections are taken when all has to end within `bound`.
pub(super) fn parting(bound: Duration) -> Duration {
    PARTING.min(bound / 4)
}

/// A source of connections, before it is in a runtime.
#[derive(Debug)]
pub(super) enum Source {
    /// A listener of the worker's own.
    Own(std::net::TcpListener),
    /// What it is handed.
    Handed(mpsc::Receiver<Handed>),
}

/// A source of connections.
#[derive(Debug)]
pub(super) enum Intake {
    /// See [`Source::Own`].
    Own(TcpListener),
    /// See [`Source::Handed`].
    Handed(mpsc::Receiver<Handed>),
}

/// A connection that was taken.
pub(super) struct Taken {
    pub(super) tcp: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) seat: Option<Seat>,
}

impl Intake {
    /// To be called within the worker's runtime.
    pub(super) fn new(source: Source) -> io::Result<Self> {
        match source {
            Source::Own(listener) => TcpListener::from_std(listener).map(Self::Own),
            Source::Handed(queue) => Ok(Self::Handed(queue)),
        }
    }

    /// The next connection; `None`: there will be no more.
    pub(super) async fn next(&mut self) -> Option<io::Result<Taken>> {
        match self {
            Self::Own(listener) => {
                let accepted = listener.accept().await;
                Some(accepted.map(|(tcp, peer)| Taken { tcp, peer, seat: None }))
            }
            Self::Handed(queue) => {
                let Handed { tcp, peer, seat } = queue.recv().await?;
                let tcp = TcpStream::from_std(tcp);
                Some(tcp.map(|tcp| Taken { tcp, peer, seat: Some(seat) }))
            }
        }
    }
}

/// What is done where the system hands over no connection.
#[derive(Debug, Default)]
pub(super) struct Faults {
    told: Option<Monotonic>,
}

impl Faults {
    /// Says so, and waits a moment. It goes on for as long as somebody keeps connections open: no
    /// flood of it.
    pub(super) async fn met(&mut self, error: &io::Error, clock: &dyn Clock) {
        let now = clock.now().mono;
        let silent = |at: Monotonic| now.us().saturating_sub(at.us()) >= ACCEPT_TOLD_US;
        if self.told.is_none_or(silent) {
            log::accept_failed(error);
            self.told = Some(now);
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub(super) struct Handed {
    tcp: std::net::TcpStream,
    peer: SocketAddr,
    seat: Seat,
}

/// A connection's place among those of its worker; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    taken: Arc<[AtomicUsize]>,
    worker: usize,
}

impl Seat {
    fn new(taken: &Arc<[AtomicUsize]>, worker: usize) -> Self {
        if let Some(seats) = taken.get(worker) {
            seats.fetch_add(1, Ordering::Relaxed);
        }
        Self { taken: Arc::clone(taken), worker }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(seats) = self.taken.get(self.worker) {
            seats.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Hands connections to the workers.
pub(super) struct Usher {
    queues: Vec<mpsc::Sender<Handed>>,
    taken: Arc<[AtomicUsize]>,
}

impl Usher {
    /// One for so many workers, and what each of them takes its connections from.
    pub(super) fn new(workers: usize) -> (Self, Vec<Source>) {
        let (queues, sources) = (0..workers)
            .map(|_| {
                let (queue, source) = mpsc::channel(QUEUE_MAX);
                (queue, Source::Handed(source))
            })
            .unzip();
        let taken = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        (Self { queues, taken }, sources)
    }

    /// Hands it to the worker that has the fewest and can take it; waits until there is one.
    async fn hand(&self, mut tcp: std::net::TcpStream, peer: SocketAddr) {
        loop {
            let mut workers: Vec<usize> = (0..self.queues.len()).collect();
            let load = |worker: &usize| self.taken.get(*worker).map(|n| n.load(Ordering::Relaxed));
            workers.sort_by_key(load);
            for worker in workers {
                let Some(queue) = self.queues.get(worker) else {
                    continue;
                };
                let seat = Seat::new(&self.taken, worker);
                match queue.try_send(Handed { tcp, peer, seat }) {
                    Ok(()) => return,
                    Err(TrySendError::Full(back) | TrySendError::Closed(back)) => tcp = back.tcp,
                }
            }
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// What the thread that accepts starts from.
pub(super) struct Start {
    pub(super) listener: std::net::TcpListener,
    pub(super) usher: Usher,
    pub(super) places: Arc<Places>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) beat: Beat,
}

/// Accepts for all workers until the drain has begun and the workers have had time to part from
/// their connections. What waits in the socket then is left to whoever it is handed to next.
pub(super) fn run(start: Start) {
    let beat = start.beat.clone();
    let accepted = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(accept_all(start)));
    match accepted {
        Ok(()) => beat.end(),
        Err(error) => log::acceptor_failed(&error),
    }
}

async fn accept_all(start: Start) -> io::Result<()> {
    let Start { listener, usher, places, clock, mut phase, beat } = start;
    let listener = TcpListener::from_std(listener)?;
    let serving = async {
        let mut faults = Faults::default();
        loop {
            match accept(&listener).await {
                Ok((tcp, peer)) => usher.hand(tcp, peer).await,
                Err(error) => faults.met(&error, clock.as_ref()).await,
            }
        }
    };
    let ending = async {
        // An error: the handle was dropped, and there is nothing to wait for.
        let draining = phase.wait_for(|phase| matches!(phase, Phase::Draining(_))).await;
        let bound = match draining.as_deref() {
            Ok(Phase::Draining(bound)) => *bound,
            Ok(Phase::Serving) | Err(_) => return,
        };
        drop(draining);
        let emptied = async {
            while places.connections() > 0 {
                tokio::time::sleep(PARTING_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(parting(bound), emptied).await;
    };
    let answering = async {
        beat.answer().await;
        // Nobody asks any more: no reason to end.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = ending => {}
        () = answering => {}
        () = serving => {}
    }
    Ok(())
}

/// The next connection, free of this thread's runtime.
async fn accept(listener: &TcpListener) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let (tcp, peer) = listener.accept().await?;
    Ok((tcp.into_std()?, peer))
}
