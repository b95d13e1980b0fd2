//! The certificates of a running gateway: loaded at the start, on a reload of the configuration,
//! and when their files change.
//!
//! Files are compared by what they hold: a time of change says too little (two changes in one
//! second, a link that points elsewhere). A set that cannot be used is told once and counted, and
//! the one in force stays. Whether to serve TLS at all is decided at the start.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task::spawn_blocking;

use super::exit::{Exit, Failure};
use crate::admin::Node;
use crate::admin::listener::Secured;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, TlsConfig};
use crate::https;
use crate::server::{Shared, UpstreamStates};
use crate::tls::{Fingerprint, Tls, Versions};

/// Whether the files that the upstreams of `config` name can be used. Blocks.
pub(super) fn check_upstreams(config: &Config) -> Result<(), Failure> {
    let checked = UpstreamStates::check(&config.upstreams);
    checked.map_err(|why| Failure::new(Exit::Configuration, why))
}

/// Whether the files of authorities can be used by which the identity providers of `config` are
/// known. They are read again whenever one is asked. Blocks.
pub(super) fn check_providers(config: &Config) -> Result<(), Failure> {
    let issuers = config.issuer_sources.iter().enumerate();
    let issuers = issuers.map(|(at, issuer)| (format!("issuers[{at}]"), issuer.ca_file.as_ref()));
    let operators = config.admin.oidc.as_ref().and_then(|oidc| oidc.ca_file.as_ref());
    for (place, file) in issuers.chain([("admin.oidc".to_owned(), operators)]) {
        if let Some(file) = file {
            https::connector(https::Trust::File(file)).map_err(|fault| {
                Failure::new(Exit::Configuration, format!("{place}.ca_file: {fault}"))
            })?;
        }
    }
    Ok(())
}

/// Loads the certificates that `config` names, those of the data plane first; what is doubtful
/// about them is logged. Blocks.
pub(super) fn load(config: &Config) -> Result<(Option<Tls>, Option<Tls>), Failure> {
    let load = |tls: Option<&TlsConfig>, http| -> Result<Option<Tls>, Failure> {
        let Some(tls) = tls else {
            return Ok(None);
        };
        let loaded = Tls::load(tls, http, SystemClock::new().now().unix);
        let tls = loaded.map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
        for warning in tls.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(Some(tls))
    };
    Ok((
        load(config.server.tls.as_ref(), Versions::Both)?,
        load(config.admin.tls.as_ref(), Versions::Http1)?,
    ))
}

/// Whose certificates a [`Keeper`] keeps.
#[derive(Debug)]
pub(super) enum Kept {
    /// Those of the data plane's listener.
    Data(Arc<Shared>),
    /// Those of the admin plane's.
    Admin(Secured),
}

/// Keeps the certificates of a listener.
#[derive(Debug)]
pub(super) struct Keeper {
    node: Arc<Node>,
    kept: Kept,
    /// Held while files are read and put in force: one at a time, the latest last.
    turn: Arc<Mutex<()>>,
}

/// A set of certificates that is not in force yet, and the turn that it takes.
pub(super) struct Prepared(Option<(Tls, OwnedMutexGuard<()>)>);

impl Keeper {
    pub(super) fn new(node: &Arc<Node>, kept: Kept) -> Self {
        Self { node: Arc::clone(node), kept, turn: Arc::default() }
    }

    fn in_force(&self) -> Option<&ArcSwap<Tls>> {
        match &self.kept {
            Kept::Data(shared) => shared.tls.as_ref(),
            Kept::Admin(tls) => tls.as_deref(),
        }
    }

    /// What the configuration in force names.
    fn configured(&self) -> Option<TlsConfig> {
        match &self.kept {
            Kept::Data(shared) => shared.settings.load().server.tls.clone(),
            Kept::Admin(_) => self.node.config.load().admin.tls.clone(),
        }
    }

    /// What `config` names.
    fn wanted<'c>(&self, config: &'c Config) -> Option<&'c TlsConfig> {
        match &self.kept {
            Kept::Data(_) => config.server.tls.as_ref(),
            Kept::Admin(_) => config.admin.tls.as_ref(),
        }
    }

    /// Reads what `config` names, without putting it in force.
    ///
    /// # Errors
    ///
    /// The set cannot be used: told and counted.
    pub(super) async fn prepare(&self, config: &Config) -> Result<Prepared, Failure> {
        let (Some(in_force), Some(wanted)) = (self.in_force(), self.wanted(config)) else {
            return Ok(Prepared(None));
        };
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let known = self.configured().as_ref() == Some(wanted);
        if known && fingerprint(wanted).await == Some(in_force.load().fingerprint()) {
            return Ok(Prepared(None));
        }
        match self.read(wanted).await {
            Ok(tls) => Ok(Prepared(Some((tls, turn)))),
            Err(why) => Err(Failure::new(Exit::Configuration, why)),
        }
    }

    /// Puts a set in force for new connections.
    pub(super) fn install(&self, prepared: Prepared) {
        if let (Some((tls, _turn)), Some(in_force)) = (prepared.0, self.in_force()) {
            self.replace(in_force, tls);
        }
    }

    /// Looks at the files again and again, until `shutdown` becomes true.
    pub(super) async fn watch(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let (Some(in_force), Some(mut config)) = (self.in_force(), self.configured()) else {
            return;
        };
        let mut refused = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(config.watch_interval) => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
            let _turn = self.turn.lock().await;
            // One that says nothing of TLS any more asks for a restart.
            config = self.configured().unwrap_or(config);
            let found = fingerprint(&config).await;
            if found == Some(in_force.load().fingerprint()) {
                refused = None;
            } else if found != refused {
                match self.read(&config).await {
                    Ok(tls) => self.replace(in_force, tls),
                    // Its message was logged; the same files are not read again for another.
                    Err(_) => refused = found,
                }
            }
        }
    }

    /// Reads a set; one that cannot be used is told and counted.
    async fn read(&self, config: &TlsConfig) -> Result<Tls, String> {
        let (config, now) = (config.clone(), self.node.now().unix);
        let http = match &self.kept {
            Kept::Data(_) => Versions::Both,
            Kept::Admin(_) => Versions::Http1,
        };
        let why = match spawn_blocking(move || Tls::load(&config, http, now)).await {
            Ok(Ok(tls)) => return Ok(tls),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(error = why, "new certificates cannot be used; the old ones stay in force");
        self.node.metrics.certificates_loaded(false);
        Err(why)
    }

    fn replace(&self, in_force: &ArcSwap<Tls>, tls: Tls) {
        for warning in tls.warnings() {
            tracing::warn!("{warning}");
        }
        let metrics = &self.node.metrics;
        metrics.certificates_loaded(true);
        match &self.kept {
            Kept::Data(_) => metrics.certificates(tls.expiries()),
            Kept::Admin(_) => metrics.admin_certificates(tls.expiries()),
        }
        in_force.store(Arc::new(tls));
        tracing::info!("new certificates are in force for new connections");
    }
}

/// That of the files of `config`; `None` if they could not be looked at.
async fn fingerprint(config: &TlsConfig) -> Option<Fingerprint> {
    let config = config.clone();
    spawn_blocking(move || Fingerprint::of(&config)).await.ok()
}
