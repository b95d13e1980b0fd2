//! What the workers share with the rest of the process.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::issue::IssueSender;
use super::message::cors::CorsFields;

use super::upstream::UpstreamStates;
use crate::clock::Clock;
use crate::config::{
    AssertionConfig, Config, CorsConfig, ForwardAuthConfig, ServerConfig, UpstreamConfig,
};
use crate::events::Events;
use crate::id::Name;
use crate::jwks::{Jwks, RefreshReason};
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::snapshot::Published;
use crate::tls::Tls;
use crate::trace::{Policy, Spans};
use crate::usage;
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
    /// What all workers know of the upstreams.
    pub upstreams: UpstreamStates,
    /// What is counted of shops and keys.
    pub usage: Arc<usage::Recorder>,
    /// Refusals, for whoever looks.
    pub events: Arc<Events>,
    /// What is recorded of sampled requests, for the collector.
    pub spans: Spans,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What a reload of the configuration may replace.
    pub settings: ArcSwap<Settings>,
    /// The certificates in force; `None` makes the listener a plain one.
    pub tls: Option<ArcSwap<Tls>>,
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
    /// The access log: one of so many requests is in it; `None` when it is off.
    pub access: Option<NonZeroU32>,
    /// What browsers on other origins may do.
    pub cors: CorsConfig,
    /// Deciding for other proxies.
    pub forward_auth: ForwardAuthConfig,
    /// The proof that upstreams get.
    pub assertion: AssertionConfig,
    /// Which traces requests are of.
    pub tracing: Policy,
    /// What browsers are told, from `cors`.
    pub(super) cors_fields: CorsFields,
}

impl Settings {
    /// The settings that `config` asks for.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            upstreams: config.upstreams.clone(),
            x_ratelimit: config.x_ratelimit,
            server: config.server.clone(),
            access: config.log.access.then_some(config.log.access_sample),
            cors: config.cors.clone(),
            forward_auth: config.forward_auth.clone(),
            assertion: config.assertion.clone(),
            tracing: Policy::from_config(&config.tracing),
            cors_fields: CorsFields::new(&config.cors),
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
