//! The admin plane: what an operator can do, and everything a running latchkey holds.
//!
//! In layers, from the inside out: [`Node`] is the state (store, snapshot, limiter, …);
//! [`operations`] are what can be done to it, each one store transaction and one patch of the
//! snapshot; [`api`] speaks of them in JSON over HTTP and the dashboard in pages; [`listener`]
//! serves both on TCP and on a unix socket; [`jobs`] is what has to happen without anybody asking.
//!
//! Decisions are not made here (`decision` is), nor are requests forwarded (`server` does).

pub mod api;
pub mod audit;
pub mod caller;
pub mod cookie;
mod dashboard;
mod identity;
pub mod jobs;
mod key_sets;
mod ledger;
pub mod listener;
pub mod live;
pub mod node;
mod oidc;
pub mod operations;
mod origin;
pub mod overview;
mod patch;
pub(crate) mod percent;
mod plain;

use std::sync::Arc;

use axum::Router;

pub use self::api::degraded;
pub use self::caller::{Caller, Via};
pub(crate) use self::key_sets::sources as issuer_sources;
pub use self::node::{Node, OpenError};
pub(crate) use self::oidc::{ProviderFault, probe as probe_operators_provider};
pub use self::operations::{Created, Idempotency, OperationError};

/// The routes of the admin plane over `node`: the API, health, metrics and the dashboard.
pub fn router(node: Arc<Node>) -> Router {
    let api = api::router(Arc::clone(&node));
    if node.config.load().admin.dashboard { api.merge(dashboard::router(node)) } else { api }
}

#[cfg(test)]
mod testing;
