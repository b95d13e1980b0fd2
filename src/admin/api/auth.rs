//! Who is calling.
//!
//! A [`Caller`] is put into the request's extensions by who knows it: the listener of the unix
//! socket, which trusts the file's mode, or [`authenticate`] below for everyone else. No header
//! ever says that a caller is trusted. Handlers ask for it by type and hand it on; what it may do
//! is checked by [`operations`](crate::admin::operations).

use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::{Code, Problem};
use crate::admin::caller::{Caller, Shops, Via};
use crate::admin::node::Node;
use crate::admin::operations::admin_tokens::{self, AdminTokenFailure};
use crate::decision::Facts as _;
use crate::decision::credential::bearer_token;
use crate::decision::rate_limit::{Algorithm, Charge, Limits as _, POLICIES_MAX};
use crate::decision::request::client_network;

/// RFC 6750 §3.
const CHALLENGE: &str = "Bearer realm=\"latchkey-admin\"";
const CHALLENGE_INVALID: &str = "Bearer realm=\"latchkey-admin\", error=\"invalid_token\"";

/// The other end of the connection, as the listener saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Whoever calls. What it may do, operations check.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// Finds out who calls, unless the listener knows already. An address that keeps presenting bad
/// tokens is refused before its tokens are looked at.
pub(super) async fn authenticate(
    State(node): State<Arc<Node>>,
    mut request: Request,
    next: Next,
) -> Response {
    if request.extensions().get::<Caller>().is_none() {
        let peer = request.extensions().get::<Peer>();
        let client = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0.ip());
        match by_token(&node, request.headers(), client) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
            }
            Err(problem) => return problem.into_response(),
        }
    }
    next.run(request).await
}

fn by_token(node: &Node, headers: &HeaderMap, client: IpAddr) -> Result<Caller, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(missing());
    };
    let attempt = attempt(node, client);
    let standing = node.limiter.peek(&attempt, node.now().mono);
    if standing.exceeded {
        let detail =
            "Too many failed attempts from this address; wait as long as Retry-After says.";
        let seconds = standing.reset_us.div_ceil(1_000_000);
        return Err(Problem::new(Code::RateLimited, detail).with_retry_after(seconds));
    }
    let text = value.to_str().ok().filter(|_| values.next().is_none()).and_then(bearer_token);
    let found =
        text.map_or(Err(AdminTokenFailure::Invalid), |text| admin_tokens::authenticate(node, text));
    match found {
        Ok(token) => Ok(Caller {
            scopes: admin_tokens::scopes(&token),
            shops: token.shops.map_or(Shops::All, Shops::Only),
            role: token.role,
            name: token.name,
            via: Via::Token(token.id),
            address: Some(client),
        }),
        Err(AdminTokenFailure::Expired) => {
            let detail = "The admin token has expired; create a new one.";
            Err(Problem::new(Code::ExpiredCredential, detail).with_challenge(CHALLENGE_INVALID))
        }
        Err(AdminTokenFailure::Invalid) => {
            node.limiter.charge(&[attempt], node.now().mono);
            tracing::warn!(%client, "an admin token was refused");
            let detail = "The admin token is malformed, unknown or revoked.";
            Err(Problem::new(Code::InvalidCredential, detail).with_challenge(CHALLENGE_INVALID))
        }
    }
}

fn missing() -> Problem {
    let detail = "The request carries no admin token; send `Authorization: Bearer lka_…`. The \
         command `latchkey operator token create` makes one.";
    Problem::new(Code::MissingCredential, detail).with_challenge(CHALLENGE)
}

/// A failed attempt, counted apart from those on the data plane.
fn attempt(node: &Node, client: IpAddr) -> Charge {
    let snapshot = node.published.load();
    Charge {
        cell: snapshot.cell_hasher().hash_one(("admin attempts", client_network(client))),
        policy: u16::try_from(POLICIES_MAX).unwrap_or(u16::MAX),
        quota: snapshot.policies().attempts.quota,
        algorithm: Algorithm::TokenBucket,
        cost: NonZeroU32::MIN,
        shadow: false,
    }
}
