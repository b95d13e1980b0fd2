//! Forwarding an admitted request to its upstream, and its response back.
//!
//! Takes the proof that the request was admitted, and asks no further. Which endpoint gets it,
//! and whether it may be sent again, is the upstream's to say.
//!
//! `Expect: 100-continue` ends here: hyper asks the client for its body, with a 100, when the
//! body is first wanted, which is when the request has been admitted and a connection to the
//! upstream stands. The upstream never sees the expectation, so it has nothing to answer.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TE, TRAILER, UPGRADE};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri, Version, request};
use hyper::body::Body as _;

use super::Exchange;
use super::reply::Source;
use crate::clock::Clock;
use crate::decision::Admitted;
use crate::decision::denial::Code;
use crate::decision::policy::Target;
use crate::decision::principal::Mechanism;
use crate::metrics::UpstreamCause;
use crate::server::client_body::ClientBody;
use crate::server::failure::Failure;
use crate::server::log::Whose;
use crate::server::message::fields::{self, Outgoing};
use crate::server::message::problem::{self, LimitHeaders};
use crate::server::message::trailers;
use crate::server::request_id::RequestId;
use crate::server::upstream::request_body::RequestBody;
use crate::server::upstream::send::{self, Answer, SendError, Tries, Upgraded};
use crate::server::upstream::{Upstream, upgrade};
use crate::trace::context::SpanId;

/// A request on its way to its upstream. Only an [`Admitted`] becomes one.
pub(super) struct Forward {
    request: Request<RequestBody>,
    upstream: Rc<Upstream>,
    /// The protocol it asks to change to.
    upgrade: Option<Box<str>>,
    /// The client takes trailer fields.
    trailers: bool,
    limit: Option<LimitHeaders>,
    whose: Whose,
    clock: Arc<dyn Clock>,
    id: RequestId,
    /// Its exchange with the upstream, if that is recorded.
    span: Option<SpanId>,
}

/// What comes of it.
pub(super) enum Forwarded {
    /// A response.
    Response(Response<Source>),
    /// A 101, after which both sides exchange bytes.
    Upgraded(Response<Source>, Upgraded),
}

impl Forward {
    /// Whose request it is.
    pub(super) fn whose(&self) -> Whose {
        self.whose
    }

    /// What its exchange with the upstream is called, if that is recorded.
    pub(super) fn recorded(&self) -> Option<(SpanId, Rc<Upstream>)> {
        self.span.map(|span| (span, Rc::clone(&self.upstream)))
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
        let (shared, route) = (&conn.local.shared, admitted.route());
        let settings = shared.settings.load();
        let found = match &route.target {
            Target::Upstream(name) => conn.local.upstreams.find(shared, &settings, name),
            Target::IssueWidgetToken => None,
        };
        let Some(upstream) = found else {
            let detail = "The service behind this route is not configured.";
            let reason = format!("route `{}` has no upstream", route.name);
            return Err(Failure::new(Code::UpstreamUnreachable, detail, reason));
        };
        let bytes_max = route.body_bytes_max.unwrap_or(settings.server.body_bytes_max);
        let body = RequestBody::new(body, bytes_max);
        let has_body = body.watch().is_some();
        let http2 = upstream.config().http2;
        let wanted = upgrade::wanted(parts, has_body, &route.upgrades).filter(|_| !http2);
        let way = Way {
            upgrade: wanted.map(Box::from),
            trailers_taken: trailers::are_taken(&parts.headers),
            trailers_announced: trailers::announced(&parts.headers).filter(|_| has_body),
            http2,
        };
        let trace = exchange.trace.as_ref();
        // Where the exchange is not recorded, nobody ever sees a span of its own.
        let span = trace.filter(|trace| trace.is_recorded).map(|_| conn.local.traces.span());
        let preserved = upstream.config().preserve_host.then(|| parts.headers.get(HOST).cloned());
        let outgoing = Outgoing {
            principal: admitted.principal(),
            id: &id,
            caller: &exchange.caller,
            peer: &conn.forwarded_for,
            scheme: conn.scheme,
            host: &preserved.flatten().unwrap_or_else(|| upstream.host()),
            assertion: exchange.assertion_for_upstream(&admitted, parts)?,
            trace: trace.map(|trace| (trace, span.unwrap_or(trace.span))),
            strips_authorization: route.mechanisms.contains(Mechanism::Jwt),
            chunked: has_body && body.size_hint().exact().is_none(),
        };
        fields::prepare_request(&mut parts.headers, &outgoing);
        let mut request = Request::new(body);
        // Method and path stay, for what the log says if there is no answer.
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = origin_form(&parts.uri);
        *request.headers_mut() = std::mem::take(&mut parts.headers);
        way.write(&mut request);
        Ok(Self {
            request,
            upstream,
            upgrade: way.upgrade,
            trailers: way.trailers_taken,
            limit,
            whose: Whose::of(admitted.principal()),
            clock: Arc::clone(&shared.clock),
            id,
            span,
        })
    }

    /// Sends it and waits for the head of the response.
    pub(super) async fn send(self, tries: &Tries) -> Result<Forwarded, Failure> {
        let Self { request, upstream, upgrade, trailers, limit, clock, id, .. } = self;
        let answer = send::send(&upstream, request, upgrade.as_deref(), &clock, tries).await;
        let answer = match answer.map_err(|error| failure(&error))? {
            Answer::Response(response) => {
                let announced = trailers::announced(response.headers()).filter(|_| trailers);
                let mut response = *response;
                fields::prepare_response(response.headers_mut());
                if let Some(announced) = announced {
                    response.headers_mut().insert(TRAILER, announced);
                }
                if response.status() == StatusCode::NO_CONTENT {
                    // It has no body, so nothing to say how long that is (RFC 9110 §8.6).
                    response.headers_mut().remove(CONTENT_LENGTH);
                }
                Forwarded::Response(response.map(|mut body| {
                    if trailers {
                        body.pass_trailers();
                    }
                    Source::Upstream(Box::new(body), id)
                }))
            }
            Answer::Upgraded(response, upgraded) => {
                let mut response = *response;
                fields::prepare_response(response.headers_mut());
                // What follows is no body, so it has no length.
                response.headers_mut().remove(CONTENT_LENGTH);
                let token = upgrade.as_deref().unwrap_or_default();
                response.headers_mut().insert(UPGRADE, fields::owned(token.to_owned()));
                let option = HeaderValue::from_static("upgrade");
                response.headers_mut().insert(CONNECTION, option);
                Forwarded::Upgraded(response.map(|()| Source::Whole(bytes::Bytes::new())), upgraded)
            }
        };
        Ok(match answer {
            Forwarded::Response(response) => Forwarded::Response(marked(response, limit, &id)),
            Forwarded::Upgraded(response, upgraded) => {
                Forwarded::Upgraded(marked(response, limit, &id), upgraded)
            }
        })
    }
}

/// What a request's fields say about this one hop.
struct Way {
    upgrade: Option<Box<str>>,
    trailers_taken: bool,
    trailers_announced: Option<HeaderValue>,
    http2: bool,
}

impl Way {
    fn write(&self, request: &mut Request<RequestBody>) {
        if let Some(announced) = &self.trailers_announced {
            request.headers_mut().insert(TRAILER, announced.clone());
        }
        // HTTP/2 carries trailers without a word; HTTP/1.1 only those that were announced.
        if self.trailers_announced.is_some() || self.http2 {
            request.body_mut().pass_trailers();
        }
        let headers = request.headers_mut();
        if self.trailers_taken {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            if !self.http2 {
                headers.append(CONNECTION, HeaderValue::from_static("te"));
            }
        }
        if let Some(token) = &self.upgrade {
            headers.insert(UPGRADE, fields::owned(token.to_string()));
            headers.append(CONNECTION, HeaderValue::from_static("upgrade"));
        }
    }
}

/// What latchkey says on every response of an upstream.
fn marked(
    mut response: Response<Source>,
    limit: Option<LimitHeaders>,
    id: &RequestId,
) -> Response<Source> {
    *response.version_mut() = Version::HTTP_11;
    if let Some(limit) = limit {
        problem::remove_limit_headers(response.headers_mut());
        limit.apply(response.headers_mut());
    }
    response.headers_mut().insert(fields::X_REQUEST_ID, problem::request_id(id));
    response
}

/// The path and query as they were received.
fn origin_form(target: &Uri) -> Uri {
    let path = target.path_and_query().cloned();
    path.unwrap_or(PathAndQuery::from_static("/")).into()
}

fn failure(error: &SendError) -> Failure {
    let (cause, reason) = match error {
        SendError::Body(fault) => {
            return Failure::new(fault.code(), fault.detail(), fault.to_string());
        }
        SendError::Upstream(cause, reason) => (*cause, reason),
    };
    let (code, detail) = match cause {
        UpstreamCause::Connect | UpstreamCause::Tls => {
            (Code::UpstreamUnreachable, "The service behind this route cannot be reached.")
        }
        UpstreamCause::ConnectTimeout => (
            Code::UpstreamTimeout,
            "The service behind this route did not accept a connection in time.",
        ),
        UpstreamCause::Timeout | UpstreamCause::BodyTimeout => {
            (Code::UpstreamTimeout, "The service behind this route did not answer in time.")
        }
        UpstreamCause::BrokenOff | UpstreamCause::Body => {
            (Code::UpstreamError, "The service behind this route broke off without an answer.")
        }
        UpstreamCause::Malformed => {
            (Code::UpstreamError, "The service behind this route gave an answer that is none.")
        }
    };
    Failure::new(code, detail, reason.as_str())
}
