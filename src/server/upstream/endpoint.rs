//! An endpoint as one worker has it: its connections and its requests in flight. How it is, all
//! workers know together; that is [`super::state`]'s.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri, header};

use super::connect::{ConnectError, connect};
use super::h1::H1;
use super::h2::{H2, H2Pool, Turn};
use super::state::{EndpointState, State};
use crate::clock::{Clock, Monotonic};
use crate::config::UpstreamConfig;
use crate::decision::origin;

/// See the module documentation.
pub(in crate::server) struct Endpoint {
    state: Arc<State>,
    index: usize,
    scheme: Scheme,
    authority: Authority,
    /// The authority as `Host`.
    host: HeaderValue,
    in_flight: Cell<usize>,
    /// The latest used last.
    #[expect(clippy::vec_box, reason = "large, and moved with every request: boxed once")]
    idle: RefCell<Vec<Box<H1>>>,
    h2: H2Pool,
}

/// A connection to send a request on.
pub(super) enum Connection {
    H1(Box<H1>),
    H2(H2),
}

impl Endpoint {
    pub(super) fn new(state: &Arc<State>, index: usize) -> Option<Self> {
        let config = state.config.endpoints.get(index)?;
        let host = HeaderValue::from_str(config.authority.as_str());
        let scheme = match config.scheme {
            origin::Scheme::Http => Scheme::HTTP,
            origin::Scheme::Https => Scheme::HTTPS,
        };
        Some(Self {
            state: Arc::clone(state),
            index,
            scheme,
            authority: config.authority.clone(),
            host: host.unwrap_or(HeaderValue::from_static("upstream")),
            in_flight: Cell::new(0),
            idle: RefCell::default(),
            h2: H2Pool::default(),
        })
    }

    /// Its place among the upstream's.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Its authority as `Host`.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Requests of this worker that it has not answered whole.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Counts a request as in flight.
    pub(super) fn occupy(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(Rc::clone(self))
    }

    /// What all workers know of it.
    pub(super) fn shared(&self) -> Option<&EndpointState> {
        self.state.endpoints.get(self.index)
    }

    /// It has answered.
    pub(super) fn succeeded(&self) {
        if let Some(shared) = self.shared() {
            shared.health.succeeded();
        }
    }

    fn config(&self) -> &UpstreamConfig {
        &self.state.config
    }

    /// Writes a request's target as this endpoint wants it: the path alone, or for HTTP/2 all of
    /// it.
    pub(super) fn address<B>(&self, request: &mut http::Request<B>, http2: bool) {
        let config = self.config();
        if !config.preserve_host {
            request.headers_mut().insert(header::HOST, self.host.clone());
        }
        if !http2 {
            return;
        }
        let host = request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::TRANSFER_ENCODING);
        let kept = host.filter(|_| config.preserve_host);
        let kept = kept.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        // When it is sent a second time it is there already.
        let kept = kept.or(parts.authority.take().filter(|_| config.preserve_host));
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(kept.unwrap_or_else(|| self.authority.clone()));
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        // All parts are there: that is an absolute URI.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = http::Version::HTTP_2;
    }

    /// A connection to it: an idle one unless `fresh`, or a new one.
    pub(super) async fn connection(
        &self,
        fresh: bool,
        clock: &dyn Clock,
    ) -> Result<Connection, ConnectError> {
        if self.config().http2 {
            return self.h2_connection().await.map(Connection::H2);
        }
        if !fresh && let Some(h1) = self.idle_connection(clock.now().mono) {
            return Ok(Connection::H1(h1));
        }
        let stream = connect(self.target()?, self.config().connect_timeout).await?;
        let h1 = H1::new(stream).await.map_err(|error| self.not_http(&error))?;
        Ok(Connection::H1(Box::new(h1)))
    }

    fn target(&self) -> Result<&super::connect::Target, ConnectError> {
        let target = self.shared().map(|shared| shared.target.as_ref());
        match target {
            Some(Ok(target)) => Ok(target),
            Some(Err(why)) => Err(ConnectError::Unusable(Arc::clone(why))),
            None => Err(ConnectError::Unusable(Arc::from("the endpoint is gone"))),
        }
    }

    fn not_http(&self, error: &hyper::Error) -> ConnectError {
        ConnectError::Tcp {
            host: self.authority.host().into(),
            port: self.authority.port_u16().unwrap_or_default(),
            source: std::io::Error::other(error.to_string()),
        }
    }

    /// The idle connection that was used last; older ones only as long as that is dead.
    fn idle_connection(&self, now: Monotonic) -> Option<Box<H1>> {
        loop {
            let mut h1 = self.idle.borrow_mut().pop()?;
            if h1.is_fresh(self.config().idle_timeout, now) {
                return Some(h1);
            }
        }
    }

    async fn h2_connection(&self) -> Result<H2, ConnectError> {
        let opening = match self.h2.turn().await {
            Turn::Use(h2) => return Ok(h2),
            Turn::Failed(reason) => return Err(ConnectError::Shared(reason)),
            Turn::Open(opening) => opening,
        };
        let opened = async {
            let stream = connect(self.target()?, self.config().connect_timeout).await?;
            H2::new(stream).await.map_err(|error| self.not_http(&error))
        };
        let opened = opened.await;
        let told = opened.as_ref().map(H2::clone).map_err(|error| Arc::from(error.to_string()));
        opening.opened(told);
        opened
    }

    /// Takes a connection back that has carried a request whole.
    pub(super) fn rest(&self, mut h1: Box<H1>, now: Monotonic) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.config().idle_connections_max.get() {
            h1.rest(now);
            idle.push(h1);
        }
    }

    /// Lets go of connections that are dead or were idle for too long.
    pub(super) fn sweep(&self, now: Monotonic) {
        let timeout: Duration = self.config().idle_timeout;
        self.idle.borrow_mut().retain_mut(|h1| h1.is_fresh(timeout, now));
        self.h2.sweep(timeout, now);
    }
}

/// A request in flight at an endpoint, until it is dropped.
pub(in crate::server) struct InFlight(Rc<Endpoint>);

impl InFlight {
    pub(super) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}
