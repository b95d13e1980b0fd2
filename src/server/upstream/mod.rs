//! Upstreams of a worker: one pooled HTTP/1.1 client each, replaced when the settings are.
//!
//! Knows connections; requests, and how long they may take, are `proxy`'s.

pub(super) mod request_body;
pub(super) mod response_body;

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use http::uri::{Authority, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower::Service;

use self::request_body::RequestBody;
use crate::config::UpstreamConfig;
use crate::id::Name;
use crate::server::shared::Settings;

/// A protected service and this worker's connections to it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) config: UpstreamConfig,
    authority: Authority,
    /// The authority as `Host`.
    pub(super) host: HeaderValue,
    pub(super) client: Client<Dial, RequestBody>,
}

impl Upstream {
    fn new(config: &UpstreamConfig) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.idle_connections_max.get())
            .build(Dial::new(config.connect_timeout));
        let authority = config.endpoints.first().map(|endpoint| endpoint.authority.clone());
        let authority = authority.unwrap_or(Authority::from_static("upstream"));
        let host = HeaderValue::from_str(authority.as_str());
        let host = host.unwrap_or(HeaderValue::from_static("upstream"));
        Self { config: config.clone(), authority, host, client }
    }

    /// Where requests go.
    pub(super) fn authority(&self) -> Authority {
        self.authority.clone()
    }
}

/// The upstreams of the settings in force.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    settings: Option<Arc<Settings>>,
    by_name: HashMap<Name, Rc<Upstream>>,
}

impl Upstreams {
    /// The upstream `name` of `settings`. Those that new settings leave as they were keep their
    /// connections; connections of the others end with the requests they carry.
    pub(super) fn find(&mut self, settings: &Arc<Settings>, name: &Name) -> Option<Rc<Upstream>> {
        if !self.settings.as_ref().is_some_and(|known| Arc::ptr_eq(known, settings)) {
            let mut old = std::mem::take(&mut self.by_name);
            let carry = |(name, config): (&Name, &UpstreamConfig)| {
                let kept = old.remove(name).filter(|upstream| upstream.config == *config);
                (name.clone(), kept.unwrap_or_else(|| Rc::new(Upstream::new(config))))
            };
            self.by_name = settings.upstreams.iter().map(carry).collect();
            self.settings = Some(Arc::clone(settings));
        }
        self.by_name.get(name).map(Rc::clone)
    }
}

/// Connects: name resolution and handshake together within the bound.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    connector: HttpConnector,
    bound: Duration,
}

impl Dial {
    fn new(bound: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // So that an address that does not answer leaves time for the next.
        connector.set_connect_timeout(Some(bound));
        Self { connector, bound }
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialled = tokio::time::timeout(self.bound, self.connector.call(uri));
        Box::pin(async move {
            match dialled.await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}
