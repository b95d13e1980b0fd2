//! `/issuers`: the identity providers of the configuration, and how their key sets fare.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::body::Segments;
use super::dto::{Issuer, IssuerRefreshed, Page};
use super::problem::{Code, Problem, ProblemBody};
use super::respond::blocking;
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::admin::operations::issuers;
use crate::config::{Config, IssuerSourceConfig, KeySource};
use crate::decision::jwt::KeySets as _;
use crate::decision::policy;
use crate::id::Name;
use crate::jwks::{IssuerStatus, RefreshError, RefreshReason, Refreshed};
use crate::snapshot::Snapshot;

/// Lists identity providers.
#[utoipa::path(get, path = "/issuers", tag = "issuers", operation_id = "listIssuers",
    responses(
        (status = 200, description = "All of them, in the order of the configuration",
            body = Page<Issuer>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    caller: Caller,
    State(node): State<Arc<Node>>,
) -> Result<Json<Page<Issuer>>, Problem> {
    caller.require(Permission::IssuersRead)?;
    Ok(Json(Page { items: all(&node), next_cursor: None }))
}

/// Fetches an identity provider's key set now.
#[utoipa::path(post, path = "/issuers/{name}/refresh", tag = "issuers",
    operation_id = "refreshIssuer",
    params(("name" = String, Path, description = "The issuer's name in the configuration")),
    responses(
        (status = 200, description = "The issuer, after the refresh", body = IssuerRefreshed),
        (status = 502, description = "The provider did not give a usable key set",
            body = ProblemBody, content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn refresh(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(name): Segments<Name>,
) -> Result<Json<IssuerRefreshed>, Problem> {
    let fetched = fetch(&node, &caller, &name).await?;
    let issuer = all(&node).into_iter().find(|issuer| issuer.name == name);
    let issuer = issuer.ok_or_else(|| Problem::new(Code::NotFound, "There is no such issuer."))?;
    Ok(Json(IssuerRefreshed { issuer, fetched }))
}

/// Has the key set of `name` fetched; whether it was, which within the cool-down it is not.
pub(in crate::admin) async fn fetch(
    node: &Arc<Node>,
    caller: &Caller,
    name: &Name,
) -> Result<bool, Problem> {
    caller.require(Permission::IssuersWrite)?;
    let source = source_of(&node.config.load(), name).map(|source| source.source.clone());
    match source {
        None => return Err(Problem::new(Code::NotFound, "There is no such issuer.")),
        Some(KeySource::Secret) => {
            let detail = "This issuer signs with a shared secret; it has no key set to fetch.";
            return Err(Problem::new(Code::Conflict, detail));
        }
        Some(KeySource::JwksUrl(_) | KeySource::Discovery | KeySource::File(_)) => {}
    }
    let Some(jwks) = node.jwks() else {
        let detail = "Key sets are fetched by a running server only; there is none here.";
        return Err(Problem::new(Code::Unavailable, detail));
    };
    let refreshed = jwks.refresh(name, RefreshReason::Operator).await.map_err(|e| problem(&e))?;
    let Refreshed::Fetched { keys, .. } = refreshed else { return Ok(false) };
    let (issuer, caller) = (name.clone(), caller.clone());
    let record = move |node: &Node| issuers::record_refresh(node, &caller, &issuer, keys);
    blocking(node, record).await?;
    Ok(true)
}

fn problem(error: &RefreshError) -> Problem {
    let detail = error.to_string();
    match error {
        RefreshError::UnknownIssuer | RefreshError::Stopped | RefreshError::Busy => {
            Problem::new(Code::Unavailable, detail).with_retry_after(5)
        }
        RefreshError::Timeout { .. }
        | RefreshError::BadUrl
        | RefreshError::Roots { .. }
        | RefreshError::Unreachable { .. }
        | RefreshError::Status { .. }
        | RefreshError::TooLong { .. }
        | RefreshError::NotUtf8 { .. }
        | RefreshError::Discovery { .. }
        | RefreshError::File { .. }
        | RefreshError::KeySet(_)
        | RefreshError::NoUsableKeys { .. } => Problem::new(Code::UpstreamError, detail),
    }
}

/// Every issuer of the configuration, as it fares now.
pub(in crate::admin) fn all(node: &Node) -> Vec<Issuer> {
    let config = node.config.load();
    let statuses = node.jwks().map(|jwks| jwks.status()).unwrap_or_default();
    let snapshot = node.published.load();
    let describe = |issuer: &policy::Issuer| {
        let status = statuses.iter().find(|status| status.issuer == issuer.name);
        describe(node, &config, &snapshot, issuer, status)
    };
    config.policies.issuers.iter().map(describe).collect()
}

fn describe(
    node: &Node,
    config: &Config,
    snapshot: &Snapshot,
    issuer: &policy::Issuer,
    status: Option<&IssuerStatus>,
) -> Issuer {
    let set = snapshot.key_set(&issuer.name);
    let now = node.now().unix;
    let fresh = set.is_some_and(|set| now <= set.fetched_at() + issuer.stale_max);
    Issuer {
        name: issuer.name.clone(),
        iss: issuer.iss.to_string(),
        source: source_name(source_of(config, &issuer.name)).to_owned(),
        usable: issuer.secret.is_some() || fresh,
        keys: set.map_or(0, crate::decision::jwt::KeySet::len),
        skipped: set.map_or(0, |set| set.skipped().len()),
        fetched_at: set.map(crate::decision::jwt::KeySet::fetched_at),
        last_error: status.and_then(|s| s.last_error.as_ref()).map(ToString::to_string),
        failures: status.map_or(0, |status| status.failures),
        next_refresh: status.and_then(|status| status.next_refresh),
    }
}

fn source_of<'c>(config: &'c Config, name: &Name) -> Option<&'c IssuerSourceConfig> {
    config.issuer_sources.iter().find(|source| source.issuer == *name)
}

fn source_name(source: Option<&IssuerSourceConfig>) -> &'static str {
    match source.map(|source| &source.source) {
        Some(KeySource::JwksUrl(_)) => "jwks_url",
        Some(KeySource::Discovery) => "discovery",
        Some(KeySource::File(_)) => "file",
        Some(KeySource::Secret) | None => "secret",
    }
}
