//! What the data plane tells the operator: one event per refusal, and what went wrong.
//!
//! No event holds a credential, a query string or a body. Targets: `latchkey::refusal` for
//! refusals, `latchkey::access` for the access log, `latchkey::server` for the rest.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::HeaderValue;
use tracing::field::{DisplayValue, display};
use tracing::{debug, info, warn};

use super::failure::Failure;
use super::front::tunnel::End;
use super::request_id::RequestId;
use crate::client_address::Scheme;
use crate::config::Contract;
use crate::decision::Refusal;
use crate::decision::denial::Code;
use crate::decision::policy::Route;
use crate::decision::principal::{Mechanism, Principal};
use crate::https::with_causes;
use crate::id::{KeyId, Name, ShopId, TokenId};
use crate::metrics::{CutBy, Handshake};
use crate::trace::Trace;
use crate::trace::context::{SpanId, TraceId};

/// What is said of every request that does not go through.
pub(super) struct Subject<'a> {
    /// The client address.
    pub(super) client: IpAddr,
    /// The name in the client's certificate.
    pub(super) certificate: Option<&'a str>,
    pub(super) id: &'a RequestId,
    /// Its place in its trace, if it is of one.
    pub(super) trace: Option<&'a Trace>,
    pub(super) method: &'a str,
    /// Without its query.
    pub(super) path: &'a str,
    /// The field that browsers send; for those who look, not for the log.
    pub(super) origin: Option<&'a HeaderValue>,
}

/// Whose request it is, told when its decision and all that it borrowed are gone. Copied: a
/// request that goes well pays no allocation for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose {
    pub(super) mechanism: Mechanism,
    pub(super) shop: Option<ShopId>,
    credential: Option<CredentialId>,
}

#[derive(Debug, Clone, Copy)]
enum CredentialId {
    Key(KeyId),
    Token(TokenId),
}

impl Whose {
    pub(super) fn of(principal: &Principal<'_>) -> Self {
        let credential = match principal {
            Principal::ShopApiKey { key, .. } => Some(CredentialId::Key(key.id)),
            Principal::WidgetToken { token, .. } => Some(CredentialId::Token(token.id)),
            Principal::Jwt { .. } | Principal::Anonymous => None,
        };
        Self { mechanism: principal.mechanism(), shop: principal.shop().copied(), credential }
    }

    /// The public name of the credential, if it has one.
    pub(super) fn key_id(&self) -> Option<String> {
        self.credential.map(|credential| match credential {
            CredentialId::Key(id) => id.to_string(),
            CredentialId::Token(id) => id.to_string(),
        })
    }
}

impl Subject<'_> {
    fn trace_id(&self) -> Option<DisplayValue<TraceId>> {
        self.trace.map(|trace| display(trace.id))
    }

    /// latchkey's own span.
    fn span_id(&self) -> Option<DisplayValue<SpanId>> {
        self.trace.map(|trace| display(trace.span))
    }
}

/// What the access log says of a request that has ended.
pub(super) struct Access<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) protocol: &'static str,
    pub(super) status: Option<u16>,
    pub(super) code: Option<Code>,
    pub(super) mechanism: Option<Mechanism>,
    pub(super) route: Option<&'a Name>,
    pub(super) shop: Option<&'a ShopId>,
    pub(super) key_id: Option<&'a str>,
    pub(super) bytes: u64,
    pub(super) cut: Option<CutBy>,
    pub(super) decision: Duration,
    /// Until the head of the upstream's response.
    pub(super) upstream: Option<Duration>,
    pub(super) total: Duration,
}

/// A request has ended. What does not apply is left out.
pub(super) fn access(access: &Access<'_>) {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let subject = &access.subject;
    info!(
        target: "latchkey::access",
        request_id = subject.id.as_str(),
        trace_id = subject.trace_id(),
        span_id = subject.span_id(),
        client = %subject.client,
        client_certificate = subject.certificate,
        method = subject.method,
        path = subject.path,
        protocol = access.protocol,
        status = access.status,
        code = access.code.map(Code::as_str),
        route = access.route.map(Name::as_str),
        mechanism = access.mechanism.map(Mechanism::as_str),
        shop = access.shop.map(ShopId::as_str),
        key_id = access.key_id,
        bytes = access.bytes,
        cut_by = access.cut.map(CutBy::as_str),
        decision_us = us(access.decision),
        upstream_us = access.upstream.map(us),
        total_us = us(access.total),
        "request ended"
    );
}

/// A refusal by the decision core.
pub(super) fn refusal(subject: &Subject<'_>, refusal: &Refusal<'_>) {
    let principal = refusal.principal.as_ref();
    let code = refusal.denial.code();
    info!(
        target: "latchkey::refusal",
        request_id = subject.id.as_str(),
        trace_id = subject.trace_id(),
        span_id = subject.span_id(),
        code = code.as_str(),
        status = code.status(),
        route = refusal.route.map(route_name),
        mechanism = refusal.mechanism().map(Mechanism::as_str),
        shop = principal.and_then(Principal::shop).map(ShopId::as_str),
        key_id = principal.and_then(key_id),
        client = %subject.client,
        client_certificate = subject.certificate,
        method = subject.method,
        path = subject.path,
        reason = &*refusal.denial.reason(),
        "request refused"
    );
}

/// A refusal before any decision, or by the widget-token route.
pub(super) fn rejected(subject: &Subject<'_>, code: Code, reason: &str) {
    info!(
        target: "latchkey::refusal",
        request_id = subject.id.as_str(),
        trace_id = subject.trace_id(),
        span_id = subject.span_id(),
        code = code.as_str(),
        status = code.status(),
        client = %subject.client,
        client_certificate = subject.certificate,
        method = subject.method,
        path = subject.path,
        reason,
        "request refused"
    );
}

/// A trusted proxy asks about a request.
pub(super) fn asked(subject: &Subject<'_>, contract: Contract, scheme: Scheme) {
    debug!(
        target: "latchkey::server",
        request_id = subject.id.as_str(),
        trace_id = subject.trace_id(),
        span_id = subject.span_id(),
        contract = contract.as_str(),
        client = %subject.client,
        scheme = scheme.as_str(),
        method = subject.method,
        path = subject.path,
        "a proxy asks"
    );
}

/// A refusal of what never became a request.
pub(super) fn unread(client: IpAddr, id: &RequestId, code: Code, reason: &str) {
    info!(
        target: "latchkey::refusal",
        request_id = id.as_str(),
        code = code.as_str(),
        status = code.status(),
        %client,
        reason,
        "request refused"
    );
}

/// An admitted request that got no response from its upstream.
pub(super) fn failed(subject: &Subject<'_>, whose: &Whose, failure: &Failure) {
    warn!(
        target: "latchkey::server",
        request_id = subject.id.as_str(),
        trace_id = subject.trace_id(),
        span_id = subject.span_id(),
        code = failure.code.as_str(),
        status = failure.code.status(),
        mechanism = whose.mechanism.as_str(),
        shop = whose.shop.as_ref().map(ShopId::as_str),
        key_id = whose.key_id(),
        client = %subject.client,
        client_certificate = subject.certificate,
        method = subject.method,
        path = subject.path,
        reason = failure.reason,
        "admitted request failed"
    );
}

/// A response that the upstream did not complete.
pub(super) fn reply_broken(client: IpAddr, id: &RequestId, trace: Option<&Trace>, reason: &str) {
    warn!(
        target: "latchkey::server",
        request_id = id.as_str(),
        trace_id = trace.map(|trace| display(trace.id)),
        span_id = trace.map(|trace| display(trace.span)),
        %client,
        reason,
        "upstream broke off a response; the client's connection is cut"
    );
}

/// A widget token was issued.
pub(super) fn issued(subject: &Subject<'_>, shop: &str, key_id: &str, token_id: &str) {
    info!(
        target: "latchkey::server",
        request_id = subject.id.as_str(),
        trace_id = subject.trace_id(),
        span_id = subject.span_id(),
        shop,
        key_id,
        token_id,
        "widget token issued"
    );
}

/// A connection ended with an error: the peer went away, or did not take its response.
pub(super) fn connection_ended(error: &dyn Error) {
    debug!(target: "latchkey::server", error = with_causes(error), "connection ended early");
}

/// A TLS handshake that came to nothing: told, and not warned of, as scanners make many. A client
/// without the certificate that is asked of it is refused like a request.
pub(super) fn handshake_failed(peer: IpAddr, outcome: Handshake, error: &dyn Error) {
    let (client, reason) = (peer.to_canonical(), with_causes(error));
    if outcome == Handshake::ClientCertificate {
        info!(
            target: "latchkey::refusal",
            %client,
            outcome = outcome.as_str(),
            reason,
            "TLS handshake refused"
        );
    } else {
        debug!(
            target: "latchkey::server",
            %client,
            outcome = outcome.as_str(),
            reason,
            "TLS handshake failed"
        );
    }
}

/// A connection ended that had changed its protocol.
pub(super) fn tunnel_ended(client: IpAddr, end: End) {
    debug!(target: "latchkey::server", %client, ?end, "upgraded connection ended");
}

/// The system refused to hand over a connection.
pub(super) fn accept_failed(error: &io::Error) {
    warn!(
        target: "latchkey::server",
        %error,
        "cannot accept connections; if the limit of open files is reached, raise it or lower \
         server.connections_max"
    );
}

/// A trusted proxy did not say where a connection came from.
pub(super) fn proxy_header_malformed(peer: SocketAddr, fault: &dyn Error) {
    warn!(
        target: "latchkey::server",
        %peer,
        error = %fault,
        "connection closed; check that this proxy sends the PROXY protocol, or switch \
         server.proxy_protocol off"
    );
}

/// A worker could not start.
pub(super) fn worker_failed(index: usize, error: &io::Error) {
    tracing::error!(target: "latchkey::server", worker = index, %error, "a worker cannot start");
}

/// The thread that accepts for all workers could not.
pub(super) fn acceptor_failed(error: &io::Error) {
    tracing::error!(target: "latchkey::server", %error, "no connections are accepted");
}

fn route_name(route: &Route) -> &str {
    route.name.as_str()
}

/// The public name of the credential, if it has one.
pub(super) fn key_id(principal: &Principal<'_>) -> Option<String> {
    Whose::of(principal).key_id()
}
