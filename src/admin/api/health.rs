//! `/livez`, `/readyz` and `/metrics`: for probes and Prometheus, without a token. Nothing here
//! names a shop, a key or an address.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::issuers;
use crate::admin::node::Node;
use crate::metrics::{Exposition, Room};
use crate::store::Space;

/// How the node fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// All is well.
    Ok,
    /// It serves, but not everything it is configured to.
    Degraded,
    /// It takes no new work.
    Draining,
}

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
struct Readiness {
    status: Status,
    /// `writable`, or `refuses_writes` after a commit failed: decisions go on, changes fail.
    store: &'static str,
    /// By issuer: `ok`, or `keys_unavailable`: its JWTs get 503, the other mechanisms serve.
    issuers: BTreeMap<String, &'static str>,
}

/// 200 as long as the process answers.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// 200 while the node decides requests, 503 once it is draining. A store that refuses writes or a
/// key set that is missing is `degraded`, and 200: API keys and widget tokens are still decided,
/// and taking the node out of rotation would refuse those as well.
pub(super) async fn ready(State(node): State<Arc<Node>>) -> Response {
    let issuers: BTreeMap<String, &'static str> = issuers::all(&node)
        .into_iter()
        .map(|i| (i.name.to_string(), if i.usable { "ok" } else { "keys_unavailable" }))
        .collect();
    let writable = node.is_writable();
    let whole = writable && issuers.values().all(|state| *state == "ok");
    let (code, status) = match (node.is_draining(), whole) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, Status::Draining),
        (false, true) => (StatusCode::OK, Status::Ok),
        (false, false) => (StatusCode::OK, Status::Degraded),
    };
    let store = if writable { "writable" } else { "refuses_writes" };
    (code, Json(Readiness { status, store, issuers })).into_response()
}

/// Why the node does not do all that it is configured to; `None` if it does.
#[must_use]
pub fn degraded(node: &Node) -> Option<String> {
    let mut reasons = Vec::new();
    if !node.is_writable() {
        reasons.push("the store refuses writes".to_owned());
    }
    let issuers = issuers::all(node);
    let without = issuers.iter().filter(|issuer| !issuer.usable);
    reasons.extend(without.map(|issuer| format!("no keys of issuer {}", issuer.name)));
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

/// All metrics, in the form that `Accept` asks for. What only a look can tell is looked up now;
/// the limiter's table is read on a thread that may take its time.
pub(super) async fn metrics(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
    let accept: Vec<&str> =
        headers.get_all(ACCEPT).iter().filter_map(|field| field.to_str().ok()).collect();
    let form = Exposition::preferred(&accept.join(","));
    let text = tokio::task::spawn_blocking(move || {
        let now = node.now();
        let live = node.limiter.occupancy(now.mono);
        node.metrics.limiter(node.limiter.capacity(), live, node.limiter.overflowed());
        node.metrics.verified_tokens(node.verified.len(), node.verified.evicted());
        for issuer in issuers::all(&node) {
            let age = issuer.fetched_at.map(|at| now.unix.since(at));
            node.metrics.jwks(issuer.name.as_str(), age, issuer.keys);
        }
        let (shops, api_keys) = node.published.load().counts();
        node.metrics.store_holds(node.is_writable(), shops, api_keys);
        // A disk that cannot be asked leaves what it said last.
        if let Ok(Space { database, free, size }) = node.store.space() {
            node.metrics.store_room(Room { database, free, size });
        }
        node.metrics.expose(form)
    });
    match text.await {
        Ok(text) => {
            let fields = [(CONTENT_TYPE, form.content_type()), (VARY, ACCEPT.as_str())];
            (fields, text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
