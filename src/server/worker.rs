//! A worker: one thread, its connections, its upstream pools.
//!
//! It bounds and drains connections; where they come from is `intake`'s, what is said on them is
//! `wire`'s and `handler`'s.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;

use super::conn::{Conn, Transport};
use super::front::arrival::{self, Arrival};
use super::front::h2::{self, H2Wire};
use super::front::proxied::{self, ProxiedFault};
use super::front::raw::RawWire;
use super::front::tunnel;
use super::front::wire::Wire;
use super::intake::{Faults, Intake, Seat, Source, Taken, parting};
use super::local::Local;
use super::message::problem;
use super::places::{AddressPlace, Place, Places};
use super::pulse::Beat;
use super::shared::Shared;
use super::stage::{Entry, Stage, Stages};
use super::upstream::send::Upgraded;
use super::{exchange, log};
use crate::client_address::is_trusted;
use crate::config::ServerConfig;
use crate::decision::denial::Code;
use crate::metrics::{Bound, Held};

/// Connections over the bound that are seen off with care at a time, per worker.
const SHED_MAX: usize = 64;
/// How long one of them may take.
const SHED_LINGER: Duration = Duration::from_millis(250);
/// How long a connection that was taken last may have no request under way before it is closed.
const FRESH: Duration = Duration::from_millis(500);
/// Between two looks at what nobody waits for: idle connections, new settings.
const UPKEEP_PAUSE: Duration = Duration::from_secs(1);
/// The least read buffer that hyper accepts.
const HYPER_BUFFER_MIN: usize = 8192;

/// What all workers are told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// Accept.
    Serving,
    /// Finish within this time.
    Draining(Duration),
}

/// An open connection: its place, and what counts it.
struct Open {
    worker: Rc<Worker>,
    _place: Place,
    _counted: Held,
    /// Where connections are handed out.
    _seat: Option<Seat>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let worker = &self.worker;
        worker.open.set(worker.open.get() - 1);
        if worker.open.get() == 0 {
            worker.emptied.notify_one();
        }
    }
}

/// A worker's connections.
pub(super) struct Worker {
    pub(super) local: Rc<Local>,
    /// Connections of this worker.
    open: Cell<usize>,
    emptied: Notify,
    shedding: Cell<usize>,
    stages: Stages,
}

impl Worker {
    /// A worker that has no connection yet.
    pub(super) fn new(local: Local) -> Self {
        Self {
            local: Rc::new(local),
            open: Cell::new(0),
            emptied: Notify::new(),
            shedding: Cell::new(0),
            stages: Stages::default(),
        }
    }

    /// An open connection, unless all places are taken.
    fn open(self: &Rc<Self>, max: usize, seat: Option<Seat>) -> Option<Open> {
        let counted = self.local.shared.metrics.connection();
        let place = self.local.places.connection(max)?;
        self.open.set(self.open.get() + 1);
        let worker = Rc::clone(self);
        Some(Open { worker, _place: place, _counted: counted, _seat: seat })
    }

    /// What `future`, of a connection without a request, comes to; `None` when it has to end.
    async fn in_time<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.stages.entry().before(Stage::Closing, future).await
    }

    /// Returns when no connection is left.
    async fn emptied(&self) {
        while self.open.get() > 0 {
            self.emptied.notified().await;
        }
    }
}

/// What a worker starts from.
pub(super) struct Start {
    pub(super) index: usize,
    pub(super) seed: u64,
    pub(super) source: Source,
    pub(super) shared: Arc<Shared>,
    pub(super) places: Arc<Places>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) beat: Beat,
}

/// Serves until drained; returns how many connections were cut.
pub(super) fn run(start: Start) -> usize {
    let index = start.index;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log::worker_failed(index, &error);
            return 0;
        }
    };
    let intake = {
        let _context = runtime.enter();
        match Intake::new(start.source) {
            Ok(intake) => intake,
            Err(error) => {
                log::worker_failed(index, &error);
                return 0;
            }
        }
    };
    let worker = Rc::new(Worker::new(Local::new(start.shared, start.places, start.seed)));
    let local = LocalSet::new();
    let beat = start.beat.clone();
    local.spawn_local(start.beat.answer());
    let cut = local.block_on(&runtime, serve(index, worker, intake, start.phase));
    beat.end();
    cut
}

async fn serve(
    index: usize,
    worker: Rc<Worker>,
    mut intake: Intake,
    mut phase: watch::Receiver<Phase>,
) -> usize {
    let upkeep = tokio::task::spawn_local(keep_up(Rc::clone(&worker.local), index == 0));
    let mut faults = Faults::default();
    loop {
        tokio::select! {
            biased;
            _ = phase.changed() => break,
            Some(taken) = intake.next() => take(&worker, taken, &mut faults).await,
        }
    }
    let bound = match *phase.borrow() {
        Phase::Draining(bound) => bound,
        // The handle was dropped.
        Phase::Serving => Duration::ZERO,
    };
    let _ = tokio::time::timeout(bound, end_all(&worker, intake, bound)).await;
    upkeep.abort();
    worker.open.get()
}

async fn take(worker: &Rc<Worker>, taken: io::Result<Taken>, faults: &mut Faults) {
    match taken {
        Ok(taken) => accept(worker, taken),
        Err(error) => faults.met(&error, worker.local.shared.clock.as_ref()).await,
    }
}

/// Ends all connections, none of which is cut; see [`Stage`].
async fn end_all(worker: &Rc<Worker>, intake: Intake, bound: Duration) {
    worker.stages.enter(Stage::Parting);
    take_the_last(worker, intake, parting(bound)).await;
    worker.stages.enter(Stage::Leaving);
    let _ = tokio::time::timeout(FRESH.min(bound / 4), worker.emptied()).await;
    worker.stages.enter(Stage::Closing);
    worker.emptied().await;
}

/// Takes connections for a while still, as long as there are any to be parted from.
async fn take_the_last(worker: &Rc<Worker>, mut intake: Intake, time: Duration) {
    let mut faults = Faults::default();
    let mut over = pin!(tokio::time::sleep(time));
    // Who hands them out sees to the time.
    let own = matches!(intake, Intake::Own(_));
    loop {
        tokio::select! {
            biased;
            () = &mut over, if own => break,
            () = worker.emptied(), if own => break,
            taken = intake.next() => match taken {
                Some(taken) => take(worker, taken, &mut faults).await,
                None => break,
            },
        }
    }
    // Who is in the queue takes the connection to be made, and would see it reset.
    if let Intake::Own(listener) = intake {
        let queued = || poll_fn(|cx| Poll::Ready(listener.poll_accept(cx)));
        while let Poll::Ready(Ok((tcp, peer))) = queued().await {
            accept(worker, Taken { tcp, peer, seat: None });
        }
    }
}

/// Looks after what nobody waits for. Ends with the worker.
async fn keep_up(local: Rc<Local>, first: bool) {
    loop {
        local.upstreams.keep_up(&local.shared, first);
        local.usage.borrow_mut().keep_up(local.shared.clock.now());
        tokio::time::sleep(UPKEEP_PAUSE).await;
    }
}

fn accept(worker: &Rc<Worker>, taken: Taken) {
    let Taken { tcp, peer, seat: handed } = taken;
    let settings = worker.local.shared.settings.load_full();
    let Some(open) = worker.open(settings.server.connections_max.get(), handed) else {
        shed(worker, tcp, peer.ip(), Bound::Connections);
        return;
    };
    // Responses are written whole: nothing is gained by waiting for more.
    let _ = tcp.set_nodelay(true);
    tokio::task::spawn_local(async move {
        let (worker, server) = (&*open.worker, &settings.server);
        if let Some(Seated { tcp, peer, _place }) = seat(&open.worker, tcp, peer, server).await {
            let arriving = arrival::arrive(tcp, peer, &worker.local.shared, server);
            if let Some(Some(arrival)) = worker.in_time(arriving).await {
                connection(worker, peer, arrival, server).await;
            }
        }
        drop(open);
    });
}

/// A connection that is to be served.
struct Seated {
    tcp: TcpStream,
    /// Where it comes from.
    peer: IpAddr,
    /// Trusted proxies need none: they bring the connections of many.
    _place: Option<AddressPlace>,
}

/// Finds out where a connection comes from, and whether that has too many of them.
async fn seat(
    worker: &Rc<Worker>,
    mut tcp: TcpStream,
    peer: SocketAddr,
    server: &ServerConfig,
) -> Option<Seated> {
    let mut source = peer;
    if server.proxy_protocol && is_trusted(peer.ip(), &server.trusted_proxies) {
        let header = Box::pin(proxied::read_header(&mut tcp));
        let header = tokio::time::timeout(server.first_byte_timeout, header);
        match worker.in_time(header).await? {
            Ok(Ok(named)) => source = named.unwrap_or(peer),
            Ok(Err(ProxiedFault::Malformed(fault))) => {
                log::proxy_header_malformed(peer, &fault);
                return None;
            }
            // Somebody only looked whether anybody listens.
            Ok(Err(ProxiedFault::Ended(_))) => return None,
            Err(_) => {
                worker.local.shared.metrics.bound_hit(Bound::FirstByteTimeout);
                return None;
            }
        }
    }
    let peer = source.ip();
    if is_trusted(peer, &server.trusted_proxies) {
        return Some(Seated { tcp, peer, _place: None });
    }
    let place = worker.local.places.address(peer, server.connections_per_address_max.get());
    if place.is_none() {
        shed(worker, tcp, peer, Bound::ConnectionsPerAddress);
        return None;
    }
    Some(Seated { tcp, peer, _place: place })
}

/// Serves a connection until its end.
pub(super) async fn connection(
    worker: &Worker,
    peer: IpAddr,
    arrival: Arrival,
    server: &ServerConfig,
) {
    let Arrival { stream, begun, transport } = arrival;
    let conn = Rc::new(Conn::new(Rc::clone(&worker.local), peer, transport));
    let entry = worker.stages.entry();
    if let Some(streams) = conn.streams() {
        let wire = H2Wire::new(stream, &begun, Rc::clone(&conn), server);
        let handle = |request| exchange::handle(Rc::clone(&conn), request);
        let is_ending = |cx: &Context<'_>| match entry.stage(cx) {
            Stage::Serving => false,
            // One that has brought no request yet may bring its first.
            Stage::Parting => streams.steps() > 0,
            Stage::Leaving | Stage::Closing => true,
        };
        // Boxed: it is several times as large as a connection of HTTP/1.1.
        Box::pin(h2::serve(&conn, wire, server, is_ending, handle)).await;
    } else {
        let wire = Wire::new(stream, &begun, Rc::clone(&conn), server);
        http1(worker, &entry, &conn, wire, server).await;
    }
}

/// Serves HTTP/1.1. hyper has two buffers of 8 KiB for as long as it has the connection, so it has
/// it only from one head to the next rest: who says nothing costs little.
async fn http1(
    worker: &Worker,
    entry: &Entry<'_>,
    conn: &Rc<Conn>,
    mut wire: Wire,
    server: &ServerConfig,
) {
    // One that has brought no request yet is not known to rest.
    let mut last = Stage::Closing;
    loop {
        let first = poll_fn(|cx| match wire.poll_first(cx) {
            Poll::Ready(first) => Poll::Ready(Some(first)),
            Poll::Pending if wire.has_begun() => entry.ends(cx, Stage::Closing),
            Poll::Pending => entry.ends(cx, last),
        });
        match first.await {
            Some(Ok(())) => {}
            Some(Err(error)) => return log::connection_ended(&error),
            None => return end(wire).await,
        }
        match requests(entry, conn, wire, server).await {
            Ok(left) if conn.is_resting() => wire = left,
            Ok(left) => return after_http(worker, conn, left).await,
            Err(error) => return log::connection_ended(&error),
        }
        last = Stage::Leaving;
    }
}

/// Has hyper answer requests, until none is under way or the connection ends.
async fn requests(
    entry: &Entry<'_>,
    conn: &Rc<Conn>,
    wire: Wire,
    server: &ServerConfig,
) -> hyper::Result<Wire> {
    let buffer = server.header_bytes_max.saturating_add(1).max(HYPER_BUFFER_MIN);
    let mut builder = http1::Builder::new();
    // The wire has bounds and timeouts of its own. hyper's own bound on fields is 100, and
    // setting it costs an allocation per request.
    builder.header_read_timeout(None).max_buf_size(buffer);
    if server.header_count_max > 100 {
        builder.max_headers(server.header_count_max);
    }
    // Boxed: it is seven times as large as all the rest of a connection's task.
    let service = service_fn(|request| {
        Box::pin(saying_if_last(entry, exchange::handle(Rc::clone(conn), request)))
    });
    let mut http = builder.serve_connection(wire, service);
    poll_fn(|cx| {
        // Listed, for the tunnel that may follow.
        entry.stage(cx);
        let polled = Pin::new(&mut http).poll(cx);
        if polled.is_pending() && conn.is_resting() { Poll::Ready(Ok(())) } else { polled }
    })
    .await?;
    Ok(http.into_parts().io)
}

/// Has a response say that its connection ends, from the drain on. Not hyper's graceful shutdown:
/// that would close a connection whose response has begun without having said so.
async fn saying_if_last<B, E>(
    entry: &Entry<'_>,
    answer: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<B>, E> {
    let mut response = answer.await?;
    if entry.now() > Stage::Serving && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// What follows hyper's part: a tunnel, if both sides have agreed to change the protocol, else the
/// orderly end. Hyper leaves that to us where a request had asked for an upgrade in vain; where it
/// has seen to it, nothing is left to do.
async fn after_http(worker: &Worker, conn: &Conn, wire: Wire) {
    let Some(upgraded) = conn.take_upgraded() else {
        end(wire).await;
        return;
    };
    let timeout = worker.local.shared.settings.load().server.tunnel_idle_timeout;
    let is_stopped = || worker.stages.now() >= Stage::Leaving;
    let Upgraded { stream, early, in_flight } = upgraded;
    let tunnel = tunnel::run(RawWire::new(wire), stream, &early, timeout, is_stopped);
    // Boxed: few connections come to be one.
    let end = Box::pin(tunnel).await;
    drop(in_flight);
    log::tunnel_ended(conn.peer, end);
}

/// The orderly end of a connection.
async fn end(mut wire: Wire) {
    let ended = poll_fn(|cx| hyper::rt::Write::poll_shutdown(Pin::new(&mut wire), cx));
    // The peer may be gone: then there is nobody to end it with.
    let _ = ended.await;
}

/// Answers 503 on a connection over a bound, without reading the request it may bring; one that
/// begins with TLS is closed, as it understands nothing else. At most [`SHED_MAX`] at a time are
/// waited for, so that the answer is not overtaken by a reset.
fn shed(worker: &Rc<Worker>, mut tcp: TcpStream, peer: IpAddr, bound: Bound) {
    worker.local.shared.metrics.bound_hit(bound);
    let conn = Conn::new(Rc::clone(&worker.local), peer, Transport::PLAIN);
    let id = worker.local.ids.next();
    let detail = if bound == Bound::ConnectionsPerAddress {
        "Your address has too many connections open; close some."
    } else {
        "All connections are taken; try again in a moment."
    };
    conn.unread(&id, Code::Overloaded, detail);
    if worker.local.shared.tls.is_some() {
        return;
    }
    let answer = problem::raw_problem(Code::Overloaded, detail.into(), &id);
    let socket = SockRef::from(&tcp);
    // A new connection's send buffer is empty and holds all of it.
    let _ = socket.send(&answer);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    if worker.shedding.get() >= SHED_MAX {
        return;
    }
    worker.shedding.set(worker.shedding.get() + 1);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let mut discarded = [0; 2048];
        let read_on = async { while matches!(tcp.read(&mut discarded).await, Ok(1..)) {} };
        let _ = tokio::time::timeout(SHED_LINGER, read_on).await;
        worker.shedding.set(worker.shedding.get() - 1);
    });
}
