//! `serve`: a gateway, until it is told to stop.
//!
//! Signals become words to the gateway here: stop, reload. How it stops and reloads is its own.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Exit, Failure};
use super::gateway::Gateway;
use super::start;
use crate::config::{self, Config, Sources};
use crate::logging::{self, LogHandle};

/// A caller's connection and the upstream's.
const FILES_PER_CONNECTION: u64 = 2;
/// What is open besides: the admin plane's connections, listeners, the database.
const FILES_BESIDE: u64 = 1024;

/// Runs it; returns when a signal has stopped it.
pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    let config = start::load(sources)?;
    let log = logging::init(&config.log)
        .map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
    raise_open_files(config.server.connections_max.get());
    let runtime = start::runtime()?;
    let served = runtime.block_on(serve(config, sources, &log));
    // Everything has ended, or was told a second time to stop and is not waited for.
    runtime.shutdown_background();
    served
}

/// Lets the process open as many files as the system grants it, and says so when that is not
/// enough: whoever opens connections until none is left would shut out the admin plane and the
/// upstreams.
fn raise_open_files(connections_max: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // What there is serves too, and is compared below.
    let _ = setrlimit(Resource::Nofile, raised);
    let Some(granted) = getrlimit(Resource::Nofile).current else {
        return;
    };
    let needed = files_needed(connections_max);
    if granted < needed {
        tracing::warn!(
            granted,
            needed,
            "fewer files may be open than server.connections_max needs; raise the limit \
             (LimitNOFILE=, ulimit -Hn), or lower server.connections_max"
        );
    }
}

/// How many files a server may have open that has `connections_max` connections.
pub(super) fn files_needed(connections_max: usize) -> u64 {
    let connections = u64::try_from(connections_max).unwrap_or(u64::MAX);
    connections.saturating_mul(FILES_PER_CONNECTION).saturating_add(FILES_BESIDE)
}

async fn serve(config: Config, sources: &Sources, log: &LogHandle) -> Result<(), Failure> {
    // Installed first: a signal during the start is not lost.
    let mut signals = Signals::install()?;
    let key_file = config.store.master_key_file.clone();
    let key_existed = key_file.exists();
    let socket = config.admin.socket.clone();
    let gateway = Gateway::start(config).await?;
    gateway.node().metrics.log_lines_dropped(log.dropped_lines());
    if !key_existed {
        let file = key_file.display();
        tracing::info!(%file, "a new master key was made; back it up, apart from the database");
    }
    let (data, admin) = (gateway.data_address(), gateway.admin_address());
    let (socket, version) = (socket.display(), env!("CARGO_PKG_VERSION"));
    tracing::info!(%data, %admin, %socket, version, "ready");
    loop {
        match signals.next().await {
            Told::Reload => reload(&gateway, sources, log).await,
            Told::Stop(name) => {
                tracing::info!(signal = name, "stopping; requests under way may finish");
                tokio::select! {
                    () = gateway.stop() => tracing::info!("stopped"),
                    () = signals.stop() => tracing::warn!("told again: stopped at once"),
                }
                return Ok(());
            }
        }
    }
}

/// Reads the configuration again and puts it in force; one that is wrong changes nothing.
async fn reload(gateway: &Gateway, sources: &Sources, log: &LogHandle) {
    let read = sources.clone();
    let loaded = tokio::task::spawn_blocking(move || config::load(&read)).await;
    let node = gateway.node();
    let count = |success| node.metrics.config_reload(success, node.now().unix);
    let config = match loaded {
        Ok(Ok(config)) => config,
        Ok(Err(errors)) => {
            for error in errors.iter() {
                tracing::error!(%error, "the configuration is wrong");
            }
            tracing::error!("the configuration was not reloaded; the old one stays in force");
            return count(false);
        }
        Err(error) => {
            tracing::error!(%error, "the configuration was not reloaded");
            return count(false);
        }
    };
    let level = log.apply(&config.log);
    match gateway.reload(config).await {
        Ok(warnings) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            if let Err(error) = level {
                tracing::warn!(%error, "the level of the log stays as it was");
            }
            tracing::info!("the configuration was reloaded");
            count(true);
        }
        Err(failure) => {
            tracing::error!(error = failure.message, "the configuration was not reloaded");
            count(false);
        }
    }
}

/// Returns when the process is told to stop.
pub(super) async fn stop_signal() -> Result<(), Failure> {
    Signals::install()?.stop().await;
    Ok(())
}

/// What a signal says.
enum Told {
    /// Read the configuration again.
    Reload,
    /// Finish and stop; the signal's name.
    Stop(&'static str),
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> Result<Self, Failure> {
        let install = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Failure, format!("signals cannot be received: {error}"))
            })
        };
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hangup: install(SignalKind::hangup())?,
        })
    }

    /// The next signal that says stop.
    async fn stop(&mut self) {
        while let Told::Reload = self.next().await {}
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}
