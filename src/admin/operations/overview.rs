//! How the node fared lately, for who may look at all of it.

use super::OperationError;
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::admin::overview::{IssuerState, Overview, Present, Span};
use crate::decision::jwt::{KeySet, KeySets as _};

/// The metrics of `span`, and what holds at present.
pub fn read(node: &Node, caller: &Caller, span: Span) -> Result<Overview, OperationError> {
    caller.require(Permission::NodeRead)?;
    let (shops, api_keys) = node.published.load().counts();
    let issuers = issuers(node);
    let present = |limiter_cells_live| Present {
        shops,
        api_keys,
        store_writable: node.is_writable(),
        limiter_cells: node.limiter.capacity(),
        limiter_cells_live,
        issuers,
    };
    Ok(node.overview.read(span, node.now(), present))
}

fn issuers(node: &Node) -> Vec<IssuerState> {
    let statuses = node.jwks().map(|jwks| jwks.status()).unwrap_or_default();
    let (snapshot, now) = (node.published.load(), node.now().unix);
    let policies = snapshot.shared_policies();
    let state = |issuer: &crate::decision::policy::Issuer| {
        let set = snapshot.key_set(&issuer.name);
        let status = statuses.iter().find(|status| status.issuer == issuer.name);
        let is_fresh = set.is_some_and(|set| now <= set.fetched_at() + issuer.stale_max);
        IssuerState {
            name: issuer.name.to_string(),
            usable: issuer.secret.is_some() || is_fresh,
            keys: set.map_or(0, KeySet::len),
            age_seconds: set.map(|set| now.since(set.fetched_at()).as_secs()),
            last_error: status.and_then(|s| s.last_error.as_ref()).map(ToString::to_string),
        }
    };
    policies.issuers.iter().map(state).collect()
}
