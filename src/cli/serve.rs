//! `serve`: a gateway, until it is told to stop.
//!
//! Signals become words to the gateway here: stop, reload; the service manager is told what came
//! of them. How the gateway stops and reloads is its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use super::exit::{Exit, Failure};
use super::gateway::Gateway;
use super::output::{Format, Output};
use super::service::{Inherited, Line, Manager, Sockets, Standing, attend};
use super::start::{self, reachable};
use crate::admin::Node;
use crate::admin::operations::configuration;
use crate::admin::operations::set_up;
use crate::config::{self, AdminConfig, Config, ConfigFile, Sources};
use crate::logging::{self, LogHandle};
use crate::secret::SecretText;

/// A caller's connection and the upstream's.
const FILES_PER_CONNECTION: u64 = 2;
/// What is open besides: the admin plane's connections, listeners, the database.
const FILES_BESIDE: u64 = 1024;
/// What the end takes besides the drain: the admin plane's own, and the last writes.
const STOP_BESIDE: Duration = Duration::from_secs(15);

/// Runs it; returns when a signal has stopped it.
pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    let ran = start_and_serve(sources);
    if let Err(failure) = &ran {
        // What `systemctl status` shows of a start that failed.
        Manager::of_process().tell(&[Line::Status(failure.message.clone())]);
    }
    ran
}

fn start_and_serve(sources: &Sources) -> Result<(), Failure> {
    // Before there are threads.
    let inherited = Inherited::of_process()?;
    let config = start::load(sources)?;
    let sockets = inherited.sort(&config)?;
    let log = logging::init(&config.log)
        .map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
    raise_open_files(config.server.connections_max.get());
    let runtime = start::runtime()?;
    let manager = Arc::new(Manager::of_process());
    let served = runtime.block_on(serve(config, sockets, sources, &log, &manager));
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

async fn serve(
    config: Config,
    sockets: Sockets,
    sources: &Sources,
    log: &LogHandle,
    manager: &Arc<Manager>,
) -> Result<(), Failure> {
    // Installed first: a signal during the start is not lost.
    let mut signals = Signals::install()?;
    let key_file = config.store.master_key_file.clone();
    let key_existed = key_file.exists();
    let socket = config.admin.socket.clone();
    manager.tell(&[Line::Status("starting".to_owned())]);
    let gateway = Gateway::start(config, sockets).await?;
    gateway.node().metrics.log_lines_dropped(log.dropped_lines());
    if !key_existed {
        let file = key_file.display();
        tracing::info!(%file, "a new master key was made; back it up, apart from the database");
    }
    // Before it is ready: whoever waits for that finds it.
    show_set_up_link(&gateway);
    let standing = Arc::new(Standing::new(Arc::clone(manager), &gateway, &socket));
    // Aborted when dropped.
    let mut attending = JoinSet::new();
    attending.spawn(attend(Arc::clone(&standing), gateway.pulse()));
    standing.tell(Line::Ready);
    let (data, admin) = (gateway.data_address(), gateway.admin_address());
    let (socket, version) = (socket.display(), env!("CARGO_PKG_VERSION"));
    tracing::info!(%data, %admin, %socket, version, "ready");
    loop {
        match signals.next().await {
            Told::Reload => {
                manager.tell(&[Line::Reloading]);
                let outcome = reload(&gateway, sources, log).await;
                standing.reloaded(outcome.err().as_deref());
            }
            Told::Stop(name) => {
                tracing::info!(signal = name, "stopping; requests under way may finish");
                let drain = gateway.node().config.load().server.drain_timeout;
                manager.tell(&[
                    Line::Stopping,
                    Line::Extend(drain.saturating_add(STOP_BESIDE)),
                    Line::Status("stopping; requests under way may finish".to_owned()),
                ]);
                tokio::select! {
                    () = gateway.stop() => tracing::info!("stopped"),
                    () = signals.stop() => tracing::warn!("told again: stopped at once"),
                }
                return Ok(());
            }
        }
    }
}

/// Shows how to make the first owner, if there is none: on standard output, where the log does
/// not go. Its token is not logged.
fn show_set_up_link(gateway: &Gateway) {
    let node = gateway.node();
    let config = node.config.load();
    if !config.admin.dashboard {
        return;
    }
    let token = match set_up::open(node) {
        Ok(Some(token)) => token,
        Ok(None) => return,
        Err(error) => return tracing::warn!(%error, "no set-up link could be made"),
    };
    let text = set_up_text(&config.admin, reachable(gateway.admin_address()), &token);
    match Output::stdout(Format::Table).text(text.expose()) {
        Ok(()) => tracing::info!("there is no owner yet; the set-up link is on standard output"),
        Err(failure) => tracing::warn!(error = failure.message, "no set-up link could be shown"),
    }
}

/// The link, and what to do with it. The token is in the fragment, which browsers keep to
/// themselves: it is in no proxy's log and in no `Referer`.
fn set_up_text(config: &AdminConfig, listens: SocketAddr, token: &SecretText) -> SecretText {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let base = match &config.public_url {
        Some(origin) => origin.to_string(),
        None => format!("{scheme}://{listens}"),
    };
    let minutes = set_up::LIFETIME.as_secs() / 60;
    SecretText::new(format!(
        "\nThere is no owner yet. Open this link within {minutes} minutes to make the first \
         one:\n\n  {base}/setup#{}\n\nOr make it here: latchkey operator create NAME \
         --role owner\n\n",
        token.expose()
    ))
}

/// Reads the configuration again and puts it in force; one that is wrong changes nothing, and is
/// told why in a line.
async fn reload(gateway: &Gateway, sources: &Sources, log: &LogHandle) -> Result<(), String> {
    let read = sources.clone();
    let loaded = tokio::task::spawn_blocking(move || config::load(&read)).await;
    let node = gateway.node();
    let count = |success| node.metrics.config_reload(success, node.now().unix);
    let config = match loaded {
        Ok(Ok(config)) => config,
        Ok(Err(errors)) => {
            let faults: Vec<String> = errors.iter().map(ToString::to_string).collect();
            for error in &faults {
                tracing::error!(error, "the configuration is wrong");
            }
            let why = faults.first().cloned().unwrap_or_default();
            record_refusal(node, sources, faults).await;
            tracing::error!("the configuration was not reloaded; the old one stays in force");
            count(false);
            return Err(why);
        }
        Err(error) => {
            tracing::error!(%error, "the configuration was not reloaded");
            count(false);
            return Err(error.to_string());
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
            Ok(())
        }
        Err(failure) => {
            tracing::error!(error = failure.message, "the configuration was not reloaded");
            record_refusal(node, sources, vec![failure.message.clone()]).await;
            count(false);
            Err(failure.message)
        }
    }
}

/// Lets the audit log know that a configuration was refused.
async fn record_refusal(node: &Arc<Node>, sources: &Sources, faults: Vec<String>) {
    let source = match &sources.file {
        ConfigFile::Absent => "environment".to_owned(),
        ConfigFile::Required(path) | ConfigFile::Optional(path) => path.display().to_string(),
        ConfigFile::Inline { name, .. } => name.clone(),
    };
    let node = Arc::clone(node);
    let record = move || configuration::refused(&node, &source, &faults);
    if let Ok(Err(error)) = tokio::task::spawn_blocking(record).await {
        tracing::warn!(%error, "the audit log does not hold this refusal");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_up_link_leads_to_where_browsers_reach_us() {
        let mut config = AdminConfig::new(([0, 0, 0, 0], 9180).into(), "admin.sock".into());
        let token = SecretText::new("tok".to_owned());
        let listens = reachable(config.listen);
        let text = |config: &AdminConfig| set_up_text(config, listens, &token);
        let plain = text(&config);
        assert!(plain.expose().contains("  http://127.0.0.1:9180/setup#tok\n"), "in its fragment");
        let public = crate::decision::origin::Origin::parse("https://latchkey.example");
        config.public_url = Some(public.unwrap());
        assert!(text(&config).expose().contains("  https://latchkey.example/setup#tok\n"));
    }
}
