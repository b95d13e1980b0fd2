//! What all workers know of an upstream: how its endpoints are, how TLS is spoken to it, and where
//! it is counted. Connections and requests in flight are each worker's own.
//!
//! A state lives as long as its configuration and the files that this names: a reload that
//! changes neither keeps it, ejections and probes included.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::Digest;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::connect::{Target, Tls, connect};
use super::health::{Fitness, Health};
use super::tls::{Material, UpstreamTlsError};
use crate::clock::Clock;
use crate::config::{Endpoint, UpstreamConfig};
use crate::id::Name;
use crate::metrics::{EndpointCounts, Metrics, UpstreamCause, UpstreamMetrics};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct State {
    pub(super) name: Name,
    pub(super) config: UpstreamConfig,
    /// In the order of the configuration's endpoints.
    pub(super) endpoints: Vec<EndpointState>,
    pub(super) metrics: UpstreamMetrics,
    fingerprint: Option<Digest>,
    probed: AtomicBool,
}

/// An endpoint, as all workers know it.
#[derive(Debug)]
pub(super) struct EndpointState {
    pub(super) health: Health,
    /// Where it is; or why it cannot be reached whatever is tried.
    pub(super) target: Result<Target, Arc<str>>,
}

impl State {
    fn new(name: &Name, config: &UpstreamConfig, metrics: &Metrics, tls: &Material) -> Self {
        let client = config.tls.as_ref().map(|_| tls.client_config(config));
        let endpoint = |endpoint: &Endpoint| EndpointState {
            health: Health::default(),
            target: target(config, endpoint, client.as_ref()).map_err(Arc::from),
        };
        Self {
            name: name.clone(),
            config: config.clone(),
            endpoints: config.endpoints.iter().map(endpoint).collect(),
            metrics: metrics.upstream(name),
            fingerprint: config.tls.as_ref().map(|_| tls.fingerprint()),
            probed: AtomicBool::new(false),
        }
    }

    /// Whether nobody has taken on its probes yet; the caller does, then.
    pub(super) fn take_probes(&self) -> bool {
        self.config.probe.is_some() && !self.probed.swap(true, Ordering::Relaxed)
    }

    /// Counts an endpoint's failure, which may eject it.
    pub(super) fn failed(&self, index: usize, cause: UpstreamCause, clock: &dyn Clock) {
        self.metrics.error(cause);
        let Some(endpoint) = self.endpoints.get(index) else {
            return;
        };
        let Some(time) = endpoint.health.failed(&self.config.ejection, clock.now().mono) else {
            return;
        };
        self.metrics.ejection();
        tracing::warn!(
            target: "latchkey::server",
            upstream = self.name.as_str(),
            endpoint = self.authority(index),
            seconds = time.as_secs_f64(),
            cause = cause.as_str(),
            "endpoint left out after failures in a row"
        );
    }

    /// The endpoint's host and port, as configured.
    pub(super) fn authority(&self, index: usize) -> &str {
        self.config.endpoints.get(index).map(|e| e.authority.as_str()).unwrap_or_default()
    }

    /// What went wrong with an endpoint, and which one it is, for the log.
    pub(super) fn told(&self, index: usize, why: &str) -> String {
        format!("upstream `{}` at {}: {why}", self.name, self.authority(index))
    }

    /// Brings the gauges up to date.
    pub(super) fn count_endpoints(&self, clock: &dyn Clock) {
        let mut counts = EndpointCounts::default();
        for endpoint in &self.endpoints {
            match endpoint.health.fitness(|| clock.now().mono) {
                Fitness::Healthy => counts.healthy += 1,
                Fitness::Ejected => counts.ejected += 1,
                Fitness::Unhealthy => counts.unhealthy += 1,
            }
        }
        self.metrics.endpoints(counts);
    }
}

/// Where `endpoint` is and as whom it has to prove itself; or why it cannot be reached whatever is
/// tried.
fn target(
    config: &UpstreamConfig,
    endpoint: &Endpoint,
    client: Option<&Result<Arc<ClientConfig>, UpstreamTlsError>>,
) -> Result<Target, String> {
    let host = endpoint.host().trim_start_matches('[').trim_end_matches(']');
    let tls = match client {
        None => None,
        Some(Err(error)) => return Err(error.to_string()),
        Some(Ok(client)) => {
            let wanted = config.tls.as_ref().and_then(|tls| tls.server_name.clone());
            let name = wanted.map_or_else(|| ServerName::try_from(host.to_owned()), Ok);
            let name = name.map_err(|error| format!("`{host}`: {error}"))?;
            Some(Tls { config: Arc::clone(client), name })
        }
    };
    Ok(Target { host: host.into(), port: endpoint.port(), tls, http2: config.http2 })
}

/// Connects to `endpoint` of the upstream `config` as a worker would, its TLS handshake included,
/// and hangs up.
///
/// # Errors
///
/// Why there is no connection.
pub async fn reach(config: &UpstreamConfig, endpoint: &Endpoint) -> Result<(), String> {
    let material = config.tls.as_ref().map(Material::read).transpose();
    let material = material.map_err(|error| error.to_string())?.unwrap_or_default();
    let client = config.tls.as_ref().map(|_| material.client_config(config));
    let target = target(config, endpoint, client.as_ref())?;
    let connected = connect(&target, config.connect_timeout).await;
    connected.map(drop).map_err(|error| error.to_string())
}

/// The files of an upstream, which can be used.
fn material(name: &Name, config: &UpstreamConfig) -> Result<Material, String> {
    let failed = |error: UpstreamTlsError| format!("upstreams.{name}: {error}");
    let material = config.tls.as_ref().map(Material::read).transpose();
    let material = material.map_err(failed)?.unwrap_or_default();
    if config.tls.is_some() {
        material.client_config(config).map_err(failed)?;
    }
    Ok(material)
}

/// The states of all upstreams.
#[derive(Default)]
pub struct UpstreamStates(Mutex<HashMap<Name, Arc<State>>>);

impl fmt::Debug for UpstreamStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamStates").finish_non_exhaustive()
    }
}

impl UpstreamStates {
    /// Whether the files that `upstreams` name can be used, as of now. Blocks.
    ///
    /// # Errors
    ///
    /// What of them is not usable.
    pub fn check(upstreams: &BTreeMap<Name, UpstreamConfig>) -> Result<(), String> {
        upstreams.iter().try_for_each(|(name, config)| material(name, config).map(drop))
    }

    /// Reads the files that `upstreams` name, before they are put in force. Blocks.
    ///
    /// # Errors
    ///
    /// What of them is not usable; nothing has changed then.
    pub fn prepare(
        &self,
        upstreams: &BTreeMap<Name, UpstreamConfig>,
        metrics: &Metrics,
    ) -> Result<(), String> {
        let mut prepared = Vec::new();
        for (name, config) in upstreams {
            prepared.push((name, config, material(name, config)?));
        }
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, config, material) in prepared {
            let fingerprint = config.tls.as_ref().map(|_| material.fingerprint());
            let same = |state: &Arc<State>| {
                let known = state.fingerprint.as_ref().map(Digest::as_ref);
                state.config == *config && known == fingerprint.as_ref().map(Digest::as_ref)
            };
            if !states.get(name).is_some_and(same) {
                let state = State::new(name, config, metrics, &material);
                states.insert(name.clone(), Arc::new(state));
            }
        }
        Ok(())
    }

    /// Forgets the upstreams that are not in `upstreams` any more.
    pub fn retain(&self, upstreams: &BTreeMap<Name, UpstreamConfig>, metrics: &Metrics) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|name, _| {
            let kept = upstreams.contains_key(name);
            if !kept {
                metrics.forget_upstream(name);
            }
            kept
        });
    }

    /// The state of an upstream; made now unless it was prepared.
    pub(super) fn of(&self, name: &Name, config: &UpstreamConfig, metrics: &Metrics) -> Arc<State> {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = states.get(name).filter(|state| state.config == *config) {
            return Arc::clone(known);
        }
        let material = config.tls.as_ref().map(Material::read).transpose();
        let material = material.unwrap_or_else(|error| {
            tracing::error!(%error, upstream = name.as_str(), "no TLS to an upstream");
            None
        });
        let state = State::new(name, config, metrics, &material.unwrap_or_default());
        let state = Arc::new(state);
        states.insert(name.clone(), Arc::clone(&state));
        state
    }
}
