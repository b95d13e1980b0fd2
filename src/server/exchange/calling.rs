//! Who is calling with a request, and of which trace it is, by the settings in force.

use http::header::{FORWARDED, HeaderValue};
use http::request;

use crate::client_address::{Caller, is_trusted};
use crate::config::ForwardingHeader;
use crate::server::conn::Conn;
use crate::server::forward_auth::is_reserved;
use crate::server::message::fields::{
    TRACEPARENT, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO,
};
use crate::trace::Trace;

/// Who is calling. A trusted proxy may send the requests of many callers over one connection.
pub(super) fn caller(conn: &Conn, parts: &request::Parts) -> Caller {
    let settings = conn.local.shared.settings.load();
    let trusted = &*settings.server.trusted_proxies;
    let values = |name| parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let configured = settings.server.forwarding_header;
    // In what a proxy asks, the contract says where the address is, not the configuration.
    let asks = is_reserved(parts.uri.path());
    match if asks { ForwardingHeader::XForwardedFor } else { configured } {
        _ if trusted.is_empty() => Caller::direct(conn.peer),
        ForwardingHeader::XForwardedFor => Caller::from_x_forwarded(
            conn.peer,
            trusted,
            values(X_FORWARDED_FOR),
            values(X_FORWARDED_PROTO),
            values(X_FORWARDED_HOST),
        ),
        ForwardingHeader::Forwarded => {
            Caller::from_forwarded(conn.peer, trusted, values(FORWARDED))
        }
    }
}

/// The trace that a request is of; `None` while traces are off.
pub(super) fn trace(conn: &Conn, parts: &request::Parts) -> Option<Trace> {
    let settings = conn.local.shared.settings.load();
    let claims = parts.headers.get_all(TRACEPARENT).iter().map(HeaderValue::as_bytes);
    let is_trusted = || is_trusted(conn.peer, &settings.server.trusted_proxies);
    conn.local.traces.begin(&settings.tracing, claims, is_trusted)
}
