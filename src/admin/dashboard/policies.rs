//! The limits as they are configured, whom they hold, how far they are used up, and what they
//! refused.

use std::collections::HashMap;

use askama::Template;

use super::figures::{count, counted, duration, percent};
use super::frame::Frame;
use super::visit::SignedIn;
use super::{Answer, page};
use crate::admin::caller::Permission;
use crate::admin::node::Node;
use crate::decision::charge_of_shop;
use crate::decision::policy::{KeyBy, LimitPolicy, Policies, Route, Target};
use crate::decision::principal::Mechanism;
use crate::decision::rate_limit::{Algorithm, Limits as _, QuotaOverride};
use crate::id::ShopId;
use crate::limiter::Peek;
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
    overflowed: String,
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
    /// Who has another quota.
    own: String,
    fill: Option<Fill>,
    refused: String,
    would_refuse: String,
}

/// How far a limit that counts a shop's requests together is used up at present.
struct Fill {
    /// Shops that have used some of it, if there are several.
    shops: Option<String>,
    /// The shop that has the least left, and the share of its quota that is used.
    most: Option<(ShopId, String, f64)>,
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
    let shown = visit.at_leisure(move |node, _| Ok(read(node, frame))).await??;
    page(&shown)
}

/// Looks at every shop and key, and at every cell of the limiter: on a thread that may block.
fn read(node: &Node, frame: Frame) -> Page {
    let snapshot = node.published.load_full();
    let policies: &Policies = &snapshot.shared_policies();
    let overrides = overrides(&snapshot);
    let attempts = policies.attempts.quota;
    let cells_live = node.limiter.occupancy(node.now().mono);
    let limits = (0u16..).zip(&policies.limits).map(|(index, limit)| {
        // Of an empty table nothing has to be asked for.
        let fill = fill_of(node, &snapshot, (index, limit), cells_live > 0);
        limit_of(node, limit, &overrides, fill)
    });
    Page {
        frame,
        limits: limits.collect(),
        routes: policies.routes.iter().map(route_of).collect(),
        attempts: format!("{} in {}", attempts.limit, duration(attempts.window_s())),
        cells: count(node.limiter.capacity()),
        cells_live: count(cells_live),
        overflowed: count(node.limiter.overflowed()),
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

/// Asks for what every shop has left of a limit, and charges nothing. `None`: it is not counted by
/// shop, and by whom it is counted is not known to the table.
fn fill_of(
    node: &Node,
    snapshot: &Snapshot,
    (index, limit): (u16, &LimitPolicy),
    any_used: bool,
) -> Option<Fill> {
    if limit.key_by != KeyBy::Shop {
        return None;
    }
    let (limits, now) = (Peek(&node.limiter), node.now().mono);
    let mut shops = 0;
    let mut most: Option<(ShopId, f64)> = None;
    for shop in snapshot.shops().take_while(|_| any_used) {
        let charge = charge_of_shop(index, shop, snapshot)?;
        let at_once = match limit.algorithm {
            Algorithm::TokenBucket => charge.quota.burst.get(),
            Algorithm::SlidingWindow => charge.quota.limit.get(),
        };
        let at = limits.peek(&charge, now);
        // What is told is what would be left after one more request.
        let after = if at.exceeded { 0 } else { limit.cost.get() };
        let left = at.remaining.saturating_add(after).min(at_once);
        if left == at_once {
            continue;
        }
        shops += 1;
        let used = f64::from(at_once - left) / f64::from(at_once);
        if most.is_none_or(|(_, before)| used > before) {
            most = Some((shop.id, used));
        }
    }
    let most = most.map(|(shop, used)| (shop, percent(used), used));
    Some(Fill { shops: (shops > 1).then(|| counted(shops, "shop")), most })
}

fn limit_of(node: &Node, limit: &LimitPolicy, overrides: &Overrides, fill: Option<Fill>) -> Limit {
    let (refused, would_refuse) = node.metrics.limited_totals(limit.name.as_str());
    let of = overrides.get(limit.name.as_str()).copied().unwrap_or_default();
    let own = [(of.0, "shop"), (of.1, "key")].map(|(n, one)| (n > 0).then(|| counted(n, one)));
    let own: Vec<String> = own.into_iter().flatten().collect();
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
        own: own.join(" and "),
        fill,
        refused: count(refused),
        would_refuse: count(would_refuse),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::Bench;
    use crate::decision::Facts as _;

    #[tokio::test]
    async fn the_shop_that_used_most_of_a_limit_is_told() {
        let bench = Bench::new();
        for shop in ["calm", "busy", "idle"] {
            bench.shop(shop).await;
        }
        let node = &bench.node;
        let snapshot = node.published.load();
        let policies = snapshot.shared_policies();
        let limits: Vec<(u16, &LimitPolicy)> = (0..).zip(&policies.limits).collect();
        let of =
            |name: &str| limits.iter().copied().find(|(_, l)| l.name.as_str() == name).unwrap();
        let told = |name: &str, any_used| {
            let fill = fill_of(node, &snapshot, of(name), any_used);
            fill.map(|fill| (fill.shops, fill.most.map(|(id, share, _)| (id.to_string(), share))))
        };
        assert_eq!(told("shop-me", true), Some((None, None)));
        assert_eq!(told("search-anonymous", true), None, "it counts addresses");
        let charge = |shop: &str, times: usize| {
            let shop = snapshot.shop(&ShopId::parse(shop).unwrap()).unwrap();
            let charge = charge_of_shop(of("shop-me").0, shop, &**snapshot).unwrap();
            for _ in 0..times {
                node.limiter.charge(&[charge], node.now().mono);
            }
        };
        charge("calm", 3);
        let most = |shop: &str, share: &str| Some((shop.to_owned(), share.to_owned()));
        assert_eq!(told("shop-me", true), Some((None, most("calm", "5.0 %"))));
        charge("busy", 90);
        let told_now = told("shop-me", true);
        assert_eq!(told_now, Some((Some("2 shops".to_owned()), most("busy", "100 %"))));
        assert_eq!(told("shop-me", false), Some((None, None)), "an empty table is not asked");
        assert_eq!(told("widget-search", true), Some((None, None)));
    }
}
