//! The limits as they are configured, whom they hold, and what they refused.

use std::collections::HashMap;

use askama::Template;

use super::figures::{count, duration};
use super::frame::Frame;
use super::visit::SignedIn;
use super::{Answer, page};
use crate::admin::caller::Permission;
use crate::admin::node::Node;
use crate::decision::policy::{KeyBy, LimitPolicy, Policies, Route, Target};
use crate::decision::principal::Mechanism;
use crate::decision::rate_limit::{Algorithm, QuotaOverride};
use crate::snapshot::Snapshot;

#[derive(Template)]
#[template(path = "policies.html")]
struct Page {
    frame: Frame,
    limits: Vec<Limit>,
    routes: Vec<RouteRow>,
    attempts: String,
    cells: String,
    cells_live: String,
    overflowed: u64,
}

/// A limit, in words.
struct Limit {
    name: String,
    quota: String,
    burst: Option<String>,
    paths: Vec<String>,
    methods: String,
    mechanisms: String,
    key_by: &'static str,
    algorithm: &'static str,
    cost: u32,
    shadow: bool,
    fallback: bool,
    of_shops: usize,
    of_keys: usize,
    refused: String,
    would_refuse: String,
}

/// A route, in words.
struct RouteRow {
    name: String,
    paths: Vec<String>,
    methods: String,
    mechanisms: String,
    scopes: usize,
    target: String,
}

/// Own limits by policy: of shops, and of keys.
type Overrides = HashMap<String, (usize, usize)>;

/// The policies.
pub(super) async fn show(visit: SignedIn) -> Answer {
    visit.caller().require(Permission::NodeRead)?;
    let frame = visit.frame("Policies", "/policies");
    let shown = visit.load(move |node, _| Ok(read(node, frame))).await?;
    page(&shown)
}

/// Looks at every shop and key, and at every cell of the limiter: on a thread that may block.
fn read(node: &Node, frame: Frame) -> Page {
    let snapshot = node.published.load_full();
    let policies: &Policies = &snapshot.shared_policies();
    let overrides = overrides(&snapshot);
    let attempts = policies.attempts.quota;
    Page {
        frame,
        limits: policies.limits.iter().map(|limit| limit_of(node, limit, &overrides)).collect(),
        routes: policies.routes.iter().map(route_of).collect(),
        attempts: format!("{} in {}", attempts.limit, duration(attempts.window_s())),
        cells: count(&node.limiter.capacity()),
        cells_live: count(&node.limiter.occupancy(node.now().mono)),
        overflowed: node.limiter.overflowed(),
    }
}

fn overrides(snapshot: &Snapshot) -> Overrides {
    let mut found = Overrides::new();
    let mut add = |limits: &[QuotaOverride], of_key: bool| {
        for own in limits {
            let (shops, keys) = found.entry(own.policy.to_string()).or_default();
            *(if of_key { keys } else { shops }) += 1;
        }
    };
    snapshot.shops().for_each(|shop| add(&shop.limits, false));
    snapshot.api_keys().for_each(|key| add(&key.limits, true));
    found
}

fn limit_of(node: &Node, limit: &LimitPolicy, overrides: &Overrides) -> Limit {
    let (refused, would_refuse) = node.metrics.limited_totals(limit.name.as_str());
    let (of_shops, of_keys) = overrides.get(limit.name.as_str()).copied().unwrap_or_default();
    let quota = limit.quota;
    let is_bucket = limit.algorithm == Algorithm::TokenBucket;
    Limit {
        name: limit.name.to_string(),
        quota: format!("{} in {}", quota.limit, duration(quota.window_s())),
        burst: (is_bucket && quota.burst != quota.limit).then(|| quota.burst.to_string()),
        paths: limit.paths.iter().map(ToString::to_string).collect(),
        methods: methods(limit.methods),
        mechanisms: mechanisms(limit.mechanisms.iter()),
        key_by: match limit.key_by {
            KeyBy::Shop => "shop",
            KeyBy::Key => "credential",
            KeyBy::Subject => "subject",
            KeyBy::Address => "client address",
        },
        algorithm: match limit.algorithm {
            Algorithm::TokenBucket => "token bucket",
            Algorithm::SlidingWindow => "sliding window",
        },
        cost: limit.cost.get(),
        shadow: limit.shadow,
        fallback: limit.fallback,
        of_shops,
        of_keys,
        refused: count(&refused),
        would_refuse: count(&would_refuse),
    }
}

fn route_of(route: &Route) -> RouteRow {
    RouteRow {
        name: route.name.to_string(),
        paths: route.paths.iter().map(ToString::to_string).collect(),
        methods: methods(route.methods),
        mechanisms: mechanisms(route.mechanisms.iter()),
        scopes: route.scopes.len(),
        target: match &route.target {
            Target::Upstream(name) => format!("upstream {name}"),
            Target::IssueWidgetToken => "latchkey: issues a widget token".to_owned(),
        },
    }
}

fn methods(set: crate::decision::route::MethodSet) -> String {
    if set == crate::decision::route::MethodSet::all() {
        return "every method".to_owned();
    }
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let method = |name: &&str| {
        axum::http::Method::from_bytes(name.as_bytes()).is_ok_and(|method| set.contains(&method))
    };
    known.into_iter().filter(method).collect::<Vec<_>>().join(", ")
}

fn mechanisms(members: impl Iterator<Item = Mechanism>) -> String {
    let words = members.map(|mechanism| match mechanism {
        Mechanism::WidgetToken => "widget tokens",
        Mechanism::ShopApiKey => "API keys",
        Mechanism::Jwt => "JWTs",
        Mechanism::Anonymous => "anonymous",
    });
    words.collect::<Vec<_>>().join(", ")
}
