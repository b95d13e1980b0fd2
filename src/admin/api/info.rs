//! `/info` and `/signing-keys`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::dto::{Info, Page, Policy, SigningKey};
use super::problem::{Problem, ProblemBody};
use super::respond::blocking;
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::admin::operations::signing_keys::{self, SigningKeyInfo};
use crate::decision::policy::LimitPolicy;
use crate::decision::rate_limit::Algorithm;

/// What runs here: version, counts, limits.
#[utoipa::path(get, path = "/info", tag = "node", operation_id = "getInfo",
    responses(
        (status = 200, description = "What runs here", body = Info),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn info(
    caller: Caller,
    State(node): State<Arc<Node>>,
) -> Result<Json<Info>, Problem> {
    caller.require(Permission::NodeRead)?;
    let snapshot = node.published.load_full();
    let policies = snapshot.shared_policies();
    let (shops, keys) = snapshot.counts();
    Ok(Json(Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        shops,
        keys,
        generation: snapshot.generation,
        routes: policies.routes.iter().map(|route| route.name.clone()).collect(),
        policies: policies.limits.iter().map(policy).collect(),
        widget_scopes: policies.widget.scopes.iter().map(ToString::to_string).collect(),
        role: caller.role.to_string(),
    }))
}

/// Lists the keys that sign widget tokens, without the keys themselves.
#[utoipa::path(get, path = "/signing-keys", tag = "signing keys", operation_id = "listSigningKeys",
    responses(
        (status = 200, description = "All of them, the oldest first", body = Page<SigningKey>),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn signing_keys(
    caller: Caller,
    State(node): State<Arc<Node>>,
) -> Result<Json<Page<SigningKey>>, Problem> {
    let keys = blocking(&node, move |node| signing_keys::list(node, &caller)).await?;
    let items = keys.into_iter().map(signing_key).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// Lets a new key sign widget tokens from now on; live tokens stay valid.
#[utoipa::path(post, path = "/signing-keys/rotate", tag = "signing keys",
    operation_id = "rotateSigningKeys",
    responses(
        (status = 201, description = "The new key", body = SigningKey),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn rotate_signing_keys(
    caller: Caller,
    State(node): State<Arc<Node>>,
) -> Result<(StatusCode, Json<SigningKey>), Problem> {
    let key = blocking(&node, move |node| signing_keys::rotate(node, &caller)).await?;
    Ok((StatusCode::CREATED, Json(signing_key(key))))
}

fn signing_key(key: SigningKeyInfo) -> SigningKey {
    let SigningKeyInfo { id, created_at, retired_at, last_expiry } = key;
    SigningKey { id, signs: retired_at.is_none(), created_at, retired_at, last_expiry }
}

fn policy(limit: &LimitPolicy) -> Policy {
    let algorithm = match limit.algorithm {
        Algorithm::TokenBucket => "token-bucket",
        Algorithm::SlidingWindow => "sliding-window",
    };
    Policy {
        name: limit.name.clone(),
        limit: limit.quota.limit.get(),
        window_seconds: limit.quota.window_s(),
        burst: limit.quota.burst.get(),
        algorithm: algorithm.to_owned(),
        cost: limit.cost.get(),
        shadow: limit.shadow,
    }
}
