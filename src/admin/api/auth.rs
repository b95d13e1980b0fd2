//! Who is calling, and what its role lets it do.
//!
//! A [`Caller`] is put into the request's extensions by who knows it: the listener of the unix
//! socket, which trusts the file's mode, or [`authenticate`] below for everyone else. No header
//! ever says that a caller is trusted. What a handler needs it asks for by type: [`AsViewer`],
//! [`AsOperator`], [`AsOwner`].

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
use crate::admin::node::Node;
use crate::admin::operations::admin_tokens::{self, AdminTokenFailure};
use crate::decision::Facts as _;
use crate::decision::credential::bearer_token;
use crate::decision::rate_limit::{Algorithm, Charge, Limits as _, POLICIES_MAX};
use crate::decision::request::client_network;
use crate::id::AdminTokenId;
use crate::store::Role;

/// RFC 6750 §3.
const CHALLENGE: &str = "Bearer realm=\"latchkey-admin\"";
const CHALLENGE_INVALID: &str = "Bearer realm=\"latchkey-admin\", error=\"invalid_token\"";

/// Who is calling the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What it may do.
    pub role: Role,
    /// What people know it by.
    pub name: String,
    /// How it came.
    pub via: Via,
}

/// How a caller came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// With this admin token.
    Token(AdminTokenId),
    /// Through the unix socket, whose file mode let it in.
    Socket,
    /// Within the process: the command line on a store that no server has open.
    InProcess,
}

impl Caller {
    /// Whoever may open the unix socket owns the node.
    #[must_use]
    pub fn socket() -> Self {
        Self { role: Role::Owner, name: "socket".to_owned(), via: Via::Socket }
    }

    /// Whoever may open the store owns the node.
    #[must_use]
    pub fn in_process() -> Self {
        Self { role: Role::Owner, name: "command line".to_owned(), via: Via::InProcess }
    }

    /// The caller in records and logs.
    #[must_use]
    pub fn label(&self) -> String {
        match self.via {
            Via::Token(id) => id.to_string(),
            Via::Socket => "socket".to_owned(),
            Via::InProcess => "cli".to_owned(),
        }
    }
}

/// The other end of the connection, as the listener saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// A caller that may look.
#[derive(Debug)]
pub(super) struct AsViewer(pub(super) Caller);

/// A caller that may change shops, keys and tokens.
#[derive(Debug)]
pub(super) struct AsOperator(pub(super) Caller);

/// A caller that may change operators too.
#[derive(Debug)]
pub(super) struct AsOwner(pub(super) Caller);

impl<S: Sync> FromRequestParts<S> for AsViewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        require(parts, Role::Viewer).map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for AsOperator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        require(parts, Role::Operator).map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for AsOwner {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        require(parts, Role::Owner).map(Self)
    }
}

fn require(parts: &Parts, needed: Role) -> Result<Caller, Problem> {
    let Some(caller) = parts.extensions.get::<Caller>() else {
        return Err(missing());
    };
    if caller.role >= needed {
        return Ok(caller.clone());
    }
    let detail = format!("This needs the role `{needed}`; the token has `{}`.", caller.role);
    Err(Problem::new(Code::InsufficientRole, detail))
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
        Ok(token) => Ok(Caller { role: token.role, name: token.name, via: Via::Token(token.id) }),
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
