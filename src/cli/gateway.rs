//! A running gateway: node, data plane, admin plane and background work, started and stopped in
//! order. `serve` runs one over what the configuration names, `demo` over a temporary store.
//!
//! Knows neither signals nor the command line; those are `serve`'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};

use super::admin_plane::AdminPlane;
use super::certificates::{self, Keeper, Kept};
use super::collector;
use super::exit::{Exit, Failure};
use super::service::Sockets;
use super::start;
use crate::admin::listener::{self, AdminSocket, ListenError, Secured};
use crate::admin::operations::{configuration, widget_tokens};
use crate::admin::{self, Created, Node, OperationError, jobs};
use crate::config::Config;
use crate::id::Name;
use crate::server::issue::IssuedToken;
use crate::server::issue::{self, ISSUE_QUEUE_MAX, IssueError, IssueReceiver, IssueRequest};
use crate::server::{
    BindError, KeyRefresher, Pulse, Running, Server, Settings, Shared, UpstreamStates,
};
use crate::store::TokenRecord;
use crate::tls::Tls;
use crate::trace::{self, Collector, Exporter};

/// A gateway that serves.
pub(super) struct Gateway {
    node: Arc<Node>,
    shared: Arc<Shared>,
    server: Running,
    /// Those of the data plane's listener, then those of the admin plane's.
    certificates: [Arc<Keeper>; 2],
    /// Where spans go, for now.
    collector: watch::Sender<Option<Arc<Collector>>>,
    admin_address: SocketAddr,
    shutdown: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// After the tasks: they end on it.
    _plane: AdminPlane,
}

impl Gateway {
    /// Starts everything on `sockets` and on what it binds where there is none, certificates and
    /// listeners first: a file that is wrong or an address that is taken leaves no database behind.
    pub(super) async fn start(config: Config, sockets: Sockets) -> Result<Self, Failure> {
        let named = config.clone();
        let load = move || {
            certificates::check_upstreams(&named)?;
            certificates::check_providers(&named)?;
            certificates::load(&named)
        };
        let tls = spawn_blocking(load).await;
        let (tls, admin_tls) = tls.map_err(|e| other(&e))??;
        let collector = collector::load(&config).await?;
        let tcp = admin_tcp(&config, sockets.admin).await?;
        let admin_address = tcp.local_addr().map_err(|e| other(&e))?;
        if sockets.data.is_none() {
            start::ensure_free("server.listen", config.server.listen)?;
        }
        let opened = config.clone();
        let node = spawn_blocking(move || start::open_node(opened)).await;
        let node = node.map_err(|e| other(&e))??;
        let socket = admin_socket(&config, sockets.admin_socket)?;
        node.metrics.certificates(tls.as_ref().map(Tls::expiries).unwrap_or_default());
        node.metrics.admin_certificates(admin_tls.as_ref().map(Tls::expiries).unwrap_or_default());
        let (shared, issue, spans) = share(&node, &config, tls);
        let admin_tls: Secured = admin_tls.map(|tls| Arc::new(ArcSwap::from_pointee(tls)));
        let certificates = [Kept::Data(Arc::clone(&shared)), Kept::Admin(admin_tls.clone())]
            .map(|kept| Arc::new(Keeper::new(&node, kept)));
        prepare(&shared, &shared.settings.load()).await?;
        let server = data_plane(&config, sockets.data, &shared)?;
        let (shutdown, watch) = watch::channel(false);
        let plane = AdminPlane::start()?;
        node.set_bulk(plane.bulk().clone());
        let mut tasks = JoinSet::new();
        let router = admin::router(Arc::clone(&node));
        let routes = router.clone();
        let tcp = listener::serve_tcp(tcp, admin_tls, Arc::clone(&node), routes, watch.clone());
        tasks.spawn_on(tcp, plane.handle());
        let unix = listener::serve_unix(socket, router, watch.clone());
        tasks.spawn_on(unix, plane.handle());
        tasks.spawn_on(jobs::run(Arc::clone(&node), watch.clone()), plane.handle());
        tasks.spawn(jobs::serve_workers(Arc::clone(&node), watch.clone()));
        for keeper in &certificates {
            tasks.spawn(Arc::clone(keeper).watch(watch.clone()));
        }
        let (collector, targets) = watch::channel(collector);
        tasks.spawn(trace::run(
            Exporter {
                spans,
                collector: targets,
                metrics: Arc::clone(&node.metrics),
                clock: Arc::clone(&node.clock),
            },
            watch.clone(),
        ));
        tasks.spawn(issue_tokens(Arc::clone(&node), issue, watch));
        let server = server.start().map_err(|e| bind_failure(&e))?;
        record(&node, configuration::started).await;
        Ok(Self {
            node,
            shared,
            server,
            certificates,
            collector,
            admin_address,
            shutdown,
            tasks,
            _plane: plane,
        })
    }

    /// Where callers connect.
    pub(super) fn data_address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Where the admin plane listens.
    pub(super) fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Asks the data plane whether it still answers.
    pub(super) fn pulse(&self) -> Pulse {
        self.server.pulse()
    }

    /// The node.
    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Puts `config` in force, its certificates with it or nothing at all; returns what is worth
    /// telling the operator.
    pub(super) async fn reload(&self, config: Config) -> Result<Vec<String>, Failure> {
        let [data, admin] = &self.certificates;
        let prepared = (data.prepare(&config).await?, admin.prepare(&config).await?);
        let collector = collector::load(&config).await?;
        let named = config.clone();
        let checked = spawn_blocking(move || certificates::check_providers(&named)).await;
        checked.map_err(|e| other(&e))??;
        let wanted = Settings::from_config(&config);
        prepare(&self.shared, &wanted).await?;
        // Requests between the two steps are decided by the old routes or by the new ones: both
        // find their upstreams.
        let mut both = wanted.clone();
        for (name, upstream) in &self.shared.settings.load().upstreams {
            both.upstreams.entry(name.clone()).or_insert_with(|| upstream.clone());
        }
        self.shared.settings.store(Arc::new(both));
        let node = Arc::clone(&self.node);
        // It waits for its turn among writers, and those wait for the disk.
        let warnings = spawn_blocking(move || node.reload(config)).await.map_err(|e| other(&e))?;
        let upstreams = wanted.upstreams.clone();
        self.shared.settings.store(Arc::new(wanted));
        // From now on no worker takes over what is gone: not even its series come back.
        self.shared.upstreams.retain(&upstreams, &self.shared.metrics);
        data.install(prepared.0);
        admin.install(prepared.1);
        self.collector.send_replace(collector);
        Ok(warnings)
    }

    /// Stops everything, the data plane first: what is in flight may finish, within the bound of
    /// `server.drain_timeout`, and may still have tokens issued. Ends when the last write is on
    /// the disk.
    pub(super) async fn stop(mut self) {
        self.node.set_draining();
        let bound: Duration = self.node.config.load().server.drain_timeout;
        let server = self.server;
        match spawn_blocking(move || server.drain(bound)).await {
            Ok(0) => {}
            Ok(cut) => tracing::warn!(cut, "connections were cut at the end of the drain timeout"),
            Err(error) => tracing::error!(%error, "the data plane did not stop cleanly"),
        }
        self.shutdown.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        record(&self.node, configuration::stopped).await;
    }
}

fn data_plane(
    config: &Config,
    inherited: Option<std::net::TcpListener>,
    shared: &Arc<Shared>,
) -> Result<Server, Failure> {
    let server = match inherited {
        Some(listener) => Server::inherit(listener, &config.server, Arc::clone(shared)),
        None => Server::bind(&config.server, Arc::clone(shared)),
    };
    server.map_err(|e| bind_failure(&e))
}

async fn admin_tcp(
    config: &Config,
    inherited: Option<std::net::TcpListener>,
) -> Result<TcpListener, Failure> {
    match inherited {
        Some(listener) => listener::inherit_tcp(listener).map_err(|e| other(&e)),
        None => listener::bind_tcp(config.admin.listen).await.map_err(|e| listen_failure(&e)),
    }
}

fn admin_socket(
    config: &Config,
    inherited: Option<std::os::unix::net::UnixListener>,
) -> Result<AdminSocket, Failure> {
    match inherited {
        Some(listener) => listener::inherit_unix(listener).map_err(|e| other(&e)),
        None => listener::bind_unix(&config.admin.socket).map_err(|e| listen_failure(&e)),
    }
}

/// Appends to the audit log; neither start nor stop fails for it.
async fn record(node: &Arc<Node>, append: fn(&Node) -> Result<(), OperationError>) {
    let node = Arc::clone(node);
    if let Ok(Err(error)) = spawn_blocking(move || append(&node)).await {
        tracing::warn!(%error, "the audit log does not hold that the server started or stopped");
    }
}

/// Reads the files that the upstreams of `settings` name, before those are put in force.
async fn prepare(shared: &Arc<Shared>, settings: &Settings) -> Result<(), Failure> {
    let (shared, upstreams) = (Arc::clone(shared), settings.upstreams.clone());
    let prepared = spawn_blocking(move || shared.upstreams.prepare(&upstreams, &shared.metrics));
    let prepared = prepared.await.map_err(|e| other(&e))?;
    prepared.map_err(|message| Failure::new(Exit::Configuration, message))
}

/// What the data plane shares with the node, and the node's ends of the channels between them.
fn share(
    node: &Arc<Node>,
    config: &Config,
    tls: Option<Tls>,
) -> (Arc<Shared>, IssueReceiver, trace::Received) {
    let (sender, receiver) = issue::channel();
    let (spans, recorded) = trace::channel(config.tracing.queue_max, &node.metrics);
    let shared = Shared {
        snapshot: Arc::clone(&node.published),
        limiter: Arc::clone(&node.limiter),
        verified: Arc::clone(&node.verified),
        metrics: Arc::clone(&node.metrics),
        keys: Arc::new(NodeKeys(Arc::clone(node))),
        issue: sender,
        upstreams: UpstreamStates::default(),
        usage: Arc::clone(&node.usage),
        events: Arc::clone(&node.events),
        spans,
        clock: Arc::clone(&node.clock),
        settings: ArcSwap::from_pointee(Settings::from_config(config)),
        tls: tls.map(ArcSwap::from_pointee),
    };
    (Arc::new(shared), receiver, recorded)
}

/// The node's keeper of key sets, which a reload may replace.
struct NodeKeys(Arc<Node>);

impl KeyRefresher for NodeKeys {
    fn refresh<'a>(
        &'a self,
        issuer: &'a Name,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if let Some(keeper) = self.0.jwks() {
                KeyRefresher::refresh(&*keeper, issuer).await;
            }
        })
    }
}

/// Issues the widget tokens that the data plane asks for; whatever waits is one transaction.
async fn issue_tokens(
    node: Arc<Node>,
    mut requests: IssueReceiver,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            received = requests.recv_many(&mut batch, ISSUE_QUEUE_MAX) => {
                if received == 0 {
                    return;
                }
            }
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        let node = Arc::clone(&node);
        // A panic has been reported by the panic hook; those who wait are told by the drop.
        drop(spawn_blocking(move || issue_batch(&node, batch)).await);
    }
}

fn issue_batch(node: &Node, batch: Vec<IssueRequest>) {
    let wanted = batch.iter().map(|request| widget_tokens::IssueRequest {
        shop: request.shop,
        scopes: request.scopes.split_ascii_whitespace().map(str::to_owned).collect(),
        lifetime: Some(request.lifetime),
        issued_by: request.key_id.to_string(),
        authority: Some(request.key_id),
        idempotency: None,
    });
    match widget_tokens::issue_batch(node, wanted.collect()) {
        Ok(results) => {
            for (request, result) in batch.into_iter().zip(results) {
                let answer = result.map_err(|error| issue_error(&error)).and_then(issued);
                // The caller may have left; the token expires by itself.
                drop(request.reply.send(answer));
            }
        }
        Err(error) => {
            let error = issue_error(&error);
            for request in batch {
                drop(request.reply.send(Err(error)));
            }
        }
    }
}

fn issued(created: Created<TokenRecord>) -> Result<IssuedToken, IssueError> {
    let TokenRecord { id, scopes, expires_at, .. } = created.record;
    // Without an idempotency key nothing is a repetition, and only those come without the token.
    let token = created.secret.ok_or(IssueError::Store)?;
    Ok(IssuedToken { token, expires_at, scopes, id })
}

fn issue_error(error: &OperationError) -> IssueError {
    match error {
        OperationError::NotFound(_) => IssueError::Gone,
        OperationError::Forbidden { .. }
        | OperationError::Conflict(_)
        | OperationError::Invalid(_)
        | OperationError::IdempotencyConflict
        | OperationError::PreconditionFailed
        | OperationError::TooMany { .. }
        | OperationError::Busy
        | OperationError::PasswordUnusable
        | OperationError::Interrupted
        | OperationError::Store(_)
        | OperationError::TooManyListeners(_)
        | OperationError::Files(_)
        | OperationError::Entropy(_) => {
            tracing::error!(%error, "a widget token could not be issued");
            IssueError::Store
        }
    }
}

fn listen_failure(error: &ListenError) -> Failure {
    let exit = match error {
        ListenError::InUse { .. } => Exit::AddressInUse,
        ListenError::Tcp { why, .. } if why.kind() == std::io::ErrorKind::AddrInUse => {
            Exit::AddressInUse
        }
        ListenError::Tcp { .. }
        | ListenError::PathTooLong { .. }
        | ListenError::NotASocket { .. }
        | ListenError::Unix { .. } => Exit::Failure,
    };
    Failure::new(exit, error.to_string())
}

fn bind_failure(error: &BindError) -> Failure {
    let exit = match error {
        BindError::InUse { .. } => Exit::AddressInUse,
        BindError::Denied { .. }
        | BindError::NotAvailable { .. }
        | BindError::Other { .. }
        | BindError::Entropy
        | BindError::Thread { .. } => Exit::Failure,
    };
    Failure::new(exit, error.to_string())
}

fn other(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format!("the gateway could not be started: {error}"))
}
