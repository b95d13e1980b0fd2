//! Upstreams of a worker: their endpoints, the connections to them, and which one gets a request.
//!
//! Connections and counts of what is in flight are each worker's own, so that nothing on the way
//! of a request is locked; how endpoints are (ejected, unhealthy) all workers know together.
//! Knows requests as something to be sent; what is in their fields is the exchange's.

mod connect;
mod endpoint;
mod h1;
mod h2;
mod health;
mod probe;
pub(super) mod request_body;
pub(super) mod response_body;
pub(super) mod send;
mod state;
mod stream;
mod tls;
pub(super) mod upgrade;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use self::endpoint::Endpoint;
use self::health::Fitness;
use self::send::Tries;
use self::state::State;
pub use self::state::{UpstreamStates, reach};
use super::shared::{Settings, Shared};
use crate::clock::Clock;
use crate::config::{Scheme, UpstreamConfig};
use crate::id::Name;
use crate::trace::Hop;
use crate::trace::context::SpanId;

/// A protected service and this worker's connections to it.
pub(super) struct Upstream {
    state: Arc<State>,
    /// Never empty.
    endpoints: Vec<Rc<Endpoint>>,
    random: Cell<u64>,
}

impl Upstream {
    fn new(state: &Arc<State>, seed: u64) -> Self {
        let endpoints = (0..state.config.endpoints.len())
            .filter_map(|index| Endpoint::new(state, index))
            .map(Rc::new)
            .collect();
        Self { state: Arc::clone(state), endpoints, random: Cell::new(seed | 1) }
    }

    /// As it is configured.
    pub(super) fn config(&self) -> &UpstreamConfig {
        &self.state.config
    }

    /// What is recorded of an exchange with it that went so, called `span`.
    pub(super) fn hop(&self, span: SpanId, tries: &Tries) -> Hop {
        let endpoint = tries.endpoint.get().and_then(|index| self.config().endpoints.get(index));
        let endpoint = endpoint.map(|endpoint| {
            let (scheme, port) = match endpoint.scheme {
                Scheme::Http => ("http", 80),
                Scheme::Https => ("https", 443),
            };
            let authority = &endpoint.authority;
            (scheme, Box::from(authority.host()), authority.port_u16().unwrap_or(port))
        });
        Hop {
            span,
            upstream: self.state.name.clone(),
            endpoint,
            resends: tries.again.get(),
            after: Duration::ZERO,
            head: Duration::ZERO,
        }
    }

    /// The authority of its first endpoint, as `Host`.
    pub(super) fn host(&self) -> HeaderValue {
        let first = self.endpoints.first();
        first.map_or(HeaderValue::from_static("upstream"), |endpoint| endpoint.host().clone())
    }

    /// The endpoint for a request that those at `tried` could not be connected to for: of two
    /// that are fit, picked at random, the one with fewer requests in flight. When none is fit
    /// all are, rather than nobody.
    fn choose(&self, tried: &[usize], clock: &dyn Clock) -> Option<Rc<Endpoint>> {
        if let ([only], []) = (&*self.endpoints, tried) {
            return Some(Rc::clone(only));
        }
        let untried = |endpoint: &&Rc<Endpoint>| !tried.contains(&endpoint.index());
        let fit = |endpoint: &&Rc<Endpoint>| {
            let health = endpoint.shared().map(|shared| &shared.health);
            health.is_some_and(|h| h.fitness(|| clock.now().mono) == Fitness::Healthy)
        };
        // Neither set is kept: there are few endpoints, and most often nothing to leave out.
        let count = self.endpoints.iter().filter(untried).filter(fit).count();
        if count > 0 {
            return self.of_two(count, || self.endpoints.iter().filter(untried).filter(fit));
        }
        let count = self.endpoints.iter().filter(untried).count();
        self.of_two(count, || self.endpoints.iter().filter(untried))
    }

    fn of_two<'a, I>(&'a self, count: usize, candidates: impl Fn() -> I) -> Option<Rc<Endpoint>>
    where
        I: Iterator<Item = &'a Rc<Endpoint>>,
    {
        let first = self.below(count);
        let pick = |at| candidates().nth(at);
        if count < 2 {
            return pick(first).map(Rc::clone);
        }
        let second = (first + 1 + self.below(count - 1)) % count;
        let (first, second) = (pick(first)?, pick(second)?);
        let fewer = if second.in_flight() < first.in_flight() { second } else { first };
        Some(Rc::clone(fewer))
    }

    /// A number below `count`; xorshift64, which is random enough to spread requests.
    fn below(&self, count: usize) -> usize {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
        usize::try_from((x >> 16) % count).unwrap_or_default()
    }
}

/// The upstreams of the settings in force.
pub(super) struct Upstreams {
    settings: RefCell<Option<Arc<Settings>>>,
    by_name: RefCell<HashMap<Name, Rc<Upstream>>>,
    seed: u64,
}

impl Upstreams {
    /// None yet; `seed` is another for each worker.
    pub(super) fn new(seed: u64) -> Self {
        Self { settings: RefCell::default(), by_name: RefCell::default(), seed }
    }

    /// The upstream `name` of `settings`.
    pub(super) fn find(
        &self,
        shared: &Shared,
        settings: &Arc<Settings>,
        name: &Name,
    ) -> Option<Rc<Upstream>> {
        self.follow(shared, settings);
        self.by_name.borrow().get(name).map(Rc::clone)
    }

    /// Takes over `settings`. The upstreams that they leave as they were keep their connections;
    /// connections of the others end with the requests they carry.
    fn follow(&self, shared: &Shared, settings: &Arc<Settings>) {
        if self.settings.borrow().as_ref().is_some_and(|known| Arc::ptr_eq(known, settings)) {
            return;
        }
        let mut old = self.by_name.take();
        let carry = |(name, config): (&Name, &UpstreamConfig)| {
            let state = shared.upstreams.of(name, config, &shared.metrics);
            let kept = old.remove(name).filter(|known| Arc::ptr_eq(&known.state, &state));
            let upstream = kept.unwrap_or_else(|| Rc::new(Upstream::new(&state, self.seed)));
            (name.clone(), upstream)
        };
        let new = settings.upstreams.iter().map(carry).collect();
        self.by_name.replace(new);
        self.settings.replace(Some(Arc::clone(settings)));
    }

    /// What is to be done from time to time: new settings are taken over, connections that were
    /// idle for too long are closed. The worker that is `first` also probes and counts endpoints,
    /// for all of them.
    pub(super) fn keep_up(&self, shared: &Shared, first: bool) {
        self.follow(shared, &shared.settings.load_full());
        let now = shared.clock.now().mono;
        for upstream in self.by_name.borrow().values() {
            for endpoint in &upstream.endpoints {
                endpoint.sweep(now);
            }
            if first {
                upstream.state.count_endpoints(&*shared.clock);
                if upstream.state.take_probes() {
                    probe::start(&upstream.state);
                }
            }
        }
    }
}
