//! Forwarding an admitted request to its upstream, and its response back.
//!
//! Takes the proof that the request was admitted, and asks no further. A request of which the
//! upstream may have seen something is never sent twice: what it has begun cannot be taken back.

use std::error::Error as StdError;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version, request};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy;

use super::Exchange;
use super::reply::Source;
use crate::decision::Admitted;
use crate::decision::denial::Code;
use crate::decision::policy::Target;
use crate::decision::principal::Mechanism;
use crate::server::client_body::ClientBody;
use crate::server::failure::Failure;
use crate::server::log;
use crate::server::message::fields::{self, Outgoing};
use crate::server::message::problem::{self, LimitHeaders};
use crate::server::request_id::RequestId;
use crate::server::upstream::Upstream;
use crate::server::upstream::request_body::{BodyWatch, RequestBody};
use crate::server::upstream::response_body::UpstreamBody;

/// A request on its way to its upstream. Only an [`Admitted`] becomes one.
pub(super) struct Forward {
    request: Request<RequestBody>,
    upstream: Rc<Upstream>,
    watch: Option<Arc<BodyWatch>>,
    limit: Option<LimitHeaders>,
    mechanism: Mechanism,
    id: RequestId,
}

impl Forward {
    /// How the caller authenticated.
    pub(super) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Makes the upstream's request out of the client's.
    ///
    /// # Errors
    ///
    /// The route's upstream is not configured any more: the settings changed this moment.
    #[expect(clippy::needless_pass_by_value, reason = "a proof is used up by what it proves")]
    pub(super) fn new(
        admitted: Admitted<'_>,
        limit: Option<LimitHeaders>,
        parts: &mut request::Parts,
        body: Option<ClientBody>,
        exchange: &Exchange<'_>,
    ) -> Result<Self, Failure> {
        let (conn, id) = (exchange.conn, exchange.id);
        let settings = conn.local.shared.settings.load();
        let found = match &admitted.route().target {
            Target::Upstream(name) => conn.local.upstreams.borrow_mut().find(&settings, name),
            Target::IssueWidgetToken => None,
        };
        let Some(upstream) = found else {
            let detail = "The service behind this route is not configured.";
            let reason = format!("route `{}` has no upstream", admitted.route().name);
            return Err(Failure::new(Code::UpstreamUnreachable, detail, reason));
        };
        let own = admitted.route().body_bytes_max;
        let bytes_max = own.unwrap_or(settings.server.body_bytes_max);
        let body = RequestBody::new(body, bytes_max);
        let watch = body.watch();
        let outgoing = Outgoing {
            principal: admitted.principal(),
            id: &id,
            caller: &exchange.caller,
            peer: &conn.forwarded_for,
            scheme: conn.scheme,
            host: &upstream.host,
            assertion: exchange.assertion_for_upstream(&admitted, parts)?,
            strips_authorization: admitted.route().mechanisms.contains(Mechanism::Jwt),
            chunked: watch.is_some() && body.size_hint().exact().is_none(),
        };
        fields::prepare_request(&mut parts.headers, &outgoing);
        let mut request = Request::new(body);
        *request.method_mut() = std::mem::take(&mut parts.method);
        *request.uri_mut() = upstream_uri(&upstream, std::mem::take(&mut parts.uri))?;
        *request.headers_mut() = std::mem::take(&mut parts.headers);
        let mechanism = admitted.principal().mechanism();
        Ok(Self { request, upstream, watch, limit, mechanism, id })
    }

    /// Sends it and waits for the head of the response.
    pub(super) async fn send(self) -> Result<Response<Source>, Failure> {
        let Self { request, upstream, watch, limit, mechanism: _, id } = self;
        let bound = upstream.config.response_timeout;
        let response = await_head(&upstream, request, watch.as_deref(), bound).await?;
        let (mut parts, incoming) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            let detail = "The service behind this route changed the protocol unasked.";
            return Err(Failure::new(Code::UpstreamError, detail, "101 without Upgrade"));
        }
        parts.version = Version::HTTP_11;
        fields::prepare_response(&mut parts.headers);
        if let Some(limit) = limit {
            problem::remove_limit_headers(&mut parts.headers);
            limit.apply(&mut parts.headers);
        }
        parts.headers.insert(fields::X_REQUEST_ID, problem::request_id(&id));
        let timeout = upstream.config.body_timeout;
        let body = UpstreamBody::new(incoming, timeout);
        Ok(Response::from_parts(parts, Source::Upstream(Box::new(body), id)))
    }
}

/// The target as it was received, at the upstream.
fn upstream_uri(upstream: &Upstream, target: Uri) -> Result<Uri, Failure> {
    let mut parts = target.into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(upstream.authority());
    let path = parts.path_and_query.take();
    parts.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).map_err(|error| {
        Failure::new(Code::Internal, "The request cannot be forwarded.", error.to_string())
    })
}

/// Waits for the head of the response, at most `bound` from the start (the wait for a connection
/// included), or from the last progress of the request's body.
async fn await_head(
    upstream: &Upstream,
    request: Request<RequestBody>,
    watch: Option<&BodyWatch>,
    bound: Duration,
) -> Result<Response<Incoming>, Failure> {
    let mut response = pin!(upstream.client.request(request));
    let mut frames = 0;
    loop {
        match tokio::time::timeout(bound, response.as_mut()).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => return Err(failure(&error, watch)),
            Err(_) => {
                let now = watch.map_or(0, BodyWatch::frames);
                if now == frames {
                    let reason = format!("no response within {} ms", bound.as_millis());
                    let detail = "The service behind this route did not answer in time.";
                    return Err(Failure::new(Code::UpstreamTimeout, detail, reason));
                }
                frames = now;
            }
        }
    }
}

fn failure(error: &legacy::Error, watch: Option<&BodyWatch>) -> Failure {
    if let Some(fault) = watch.and_then(BodyWatch::fault) {
        return Failure::new(fault.code(), fault.detail(), fault.to_string());
    }
    let reason = log::chain(error);
    if !error.is_connect() {
        let detail = "The service behind this route broke off without an answer.";
        return Failure::new(Code::UpstreamError, detail, reason);
    }
    if is_timeout(error) {
        let detail = "The service behind this route did not accept a connection in time.";
        return Failure::new(Code::UpstreamTimeout, detail, reason);
    }
    let detail = "The service behind this route cannot be reached.";
    Failure::new(Code::UpstreamUnreachable, detail, reason)
}

fn is_timeout(error: &legacy::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}
