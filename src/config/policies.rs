//! The route table and the limits: read, and checked against each other.
//!
//! Reads no other table, and decides nothing about requests: what it makes is given to `decision`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::raw::Place;
use super::read::Section;
use super::report::{Noted, collect_all};
use super::scalar::suggest;
use super::server;
use super::upstream::UpstreamConfig;
use super::validate::{one_of, parse_name};
use super::value::{self, Span, quote};
use crate::decision::origin::OriginPattern;
use crate::decision::policy::{KeyBy, LimitPolicy, MechanismSet, Route, ScopeRule, Target};
use crate::decision::principal::Mechanism;
use crate::decision::rate_limit::{Algorithm, POLICIES_MAX, Quota};
use crate::decision::route::{MethodSet, PathPattern};
use crate::id::Name;

/// Windows that a quota may have.
pub(super) const WINDOW: Span = Span(Quota::WINDOW_MIN, Quota::WINDOW_MAX);

/// The most routes, and the most scope rules of one.
const ROUTES_MAX: usize = 256;

type Upstreams = BTreeMap<Name, UpstreamConfig>;
type Scopes = [Box<str>];

/// Reads `[[routes]]` and `[[limits]]`. `upstreams` and `scopes` (of widget tokens) are `None`
/// when they hold mistakes of their own; then nothing is checked against them.
pub(super) fn read(
    root: &mut Section<'_, '_>,
    upstreams: Option<&Upstreams>,
    scopes: Option<&Scopes>,
) -> (Result<Vec<Route>, Noted>, Result<Vec<LimitPolicy>, Noted>) {
    let routes = read_routes(root, upstreams, scopes);
    if let Ok(routes) = &routes {
        refuse_unreachable(root, routes);
    }
    let limits = read_limits(root);
    if let (Ok(routes), Ok(limits)) = (&routes, &limits) {
        require_anonymous_limits(root, routes, limits);
    }
    let routes = routes.map(|routes| routes.into_iter().map(|(_, route)| route).collect());
    (routes, limits)
}

fn read_routes(
    root: &mut Section<'_, '_>,
    upstreams: Option<&Upstreams>,
    scopes: Option<&Scopes>,
) -> Result<Vec<(Place, Route)>, Noted> {
    let items = root.items("routes", ROUTES_MAX)?;
    if items.is_empty() {
        let message = "holds no route: every request would be 404; leave it out for the default \
                       routes";
        return Err(root.error("routes", message.into()));
    }
    let mut names = Names::default();
    collect_all(items.iter().enumerate().map(|(i, item)| {
        let mut t = root.item("routes", i, item);
        let place = t.place().clone();
        let route = read_route(&mut t, upstreams, scopes, &mut names);
        t.finish();
        Ok((place, route?))
    }))
}

fn read_route(
    t: &mut Section<'_, '_>,
    upstreams: Option<&Upstreams>,
    scopes: Option<&Scopes>,
    names: &mut Names,
) -> Result<Route, Noted> {
    let name = names.read(t);
    let paths = read_paths(t);
    let methods = read_methods(t);
    let hint = "write e.g. [\"shop_api_key\"]";
    let mechanisms = t.list_required("mechanisms", hint, parse_mechanism);
    let mechanisms = mechanisms.map(MechanismSet::from_iter);
    let target = read_target(t, upstreams);
    if let (Ok(paths), Ok(mechanisms), Ok(Target::IssueWidgetToken)) = (&paths, mechanisms, &target)
    {
        check_issue_route(t, paths, mechanisms);
    }
    let takes_tokens = mechanisms.is_ok_and(|m| m.contains(Mechanism::WidgetToken));
    let rules = read_scope_rules(t, scopes.filter(|_| takes_tokens));
    let body_bytes_max =
        t.bytes_optional("body_bytes_max", "server.body_bytes_max", server::BODY_BYTES);
    let upgrades = read_upgrades(t, target.as_ref().ok());
    let origins = t.list("origins", &[], parse_origin);
    Ok(Route {
        name: name?,
        paths: paths?,
        methods: methods?,
        mechanisms: mechanisms?,
        scopes: rules?,
        target: target?,
        body_bytes_max: body_bytes_max?,
        upgrades: upgrades?,
        origins: origins?,
    })
}

fn read_target(t: &mut Section<'_, '_>, upstreams: Option<&Upstreams>) -> Result<Target, Noted> {
    let has_upstream = t.has("upstream");
    if t.has("answer") {
        let answers = [("widget_token", Target::IssueWidgetToken)];
        let answer = t.choice_required("answer", "", &answers);
        if has_upstream {
            let message = "stands beside `answer`; a route has one or the other";
            return Err(t.error("upstream", message.into()));
        }
        return answer;
    }
    let upstream = t.text("upstream", "default", |text| {
        let name = parse_name(text)?;
        let Some(upstreams) = upstreams else {
            return Ok(name);
        };
        if upstreams.contains_key(&name) {
            return Ok(name);
        }
        Err(match suggest(text, upstreams.keys().map(Name::as_str)) {
            Some(meant) => format!("there is no [upstreams.{name}]; did you mean `{meant}`?"),
            None => format!("there is no [upstreams.{name}]"),
        })
    });
    upstream.map(Target::Upstream)
}

fn read_upgrades(t: &mut Section<'_, '_>, target: Option<&Target>) -> Result<Vec<Box<str>>, Noted> {
    let mut upgrades: Vec<Box<str>> = t.list("upgrades", &[], parse_upgrade)?;
    if let Some(Target::IssueWidgetToken) = target
        && !upgrades.is_empty()
    {
        let message = "needs an upstream to upgrade to; this route is answered by latchkey itself";
        return Err(t.error("upgrades", message.into()));
    }
    upgrades.sort_unstable();
    upgrades.dedup();
    Ok(upgrades)
}

/// A protocol to upgrade to (RFC 9110 §7.8), in lower case.
fn parse_upgrade(text: &str) -> Result<Box<str>, String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let sound = text.split('/').all(|part| !part.is_empty() && part.bytes().all(token));
    if !sound || text.split('/').count() > 2 || text.len() > 64 {
        return Err(format!("{} is not a protocol; write e.g. \"websocket\"", quote(text)));
    }
    let lower = text.to_ascii_lowercase();
    let name = lower.split('/').next().unwrap_or_default();
    if matches!(name, "http" | "h2" | "h2c" | "h3" | "tls") {
        // Requests inside the tunnel would be nobody's, and under no limit.
        return Err(format!("{} would carry requests past every check", quote(text)));
    }
    Ok(lower.into())
}

fn parse_origin(text: &str) -> Result<OriginPattern, String> {
    OriginPattern::parse(text).map_err(|e| {
        format!(
            "{} is not an origin: {e}; write e.g. \"https://app.example\" or \
             \"https://*.example.com\"",
            quote(text)
        )
    })
}

fn check_issue_route(t: &mut Section<'_, '_>, paths: &[PathPattern], mechanisms: MechanismSet) {
    for (i, path) in paths.iter().enumerate() {
        if !path.names_shop() {
            t.error(
                &format!("paths[{i}]"),
                "a route that answers with a widget token needs {shopId} in its path".into(),
            );
        }
    }
    // A widget token that could issue tokens would never end; nobody else stands for the shop.
    if !mechanisms.iter().eq([Mechanism::ShopApiKey]) {
        t.error(
            "mechanisms",
            "a route that answers with a widget token takes [\"shop_api_key\"] alone".into(),
        );
    }
}

fn read_scope_rules(
    t: &mut Section<'_, '_>,
    scopes: Option<&Scopes>,
) -> Result<Vec<ScopeRule>, Noted> {
    let items = t.inline_items("scopes", ROUTES_MAX)?;
    // The default routes name the default scopes; a shorter list is no mistake of theirs.
    let known = scopes.filter(|_| !t.is_default());
    let rules = collect_all(items.iter().enumerate().map(|(i, item)| {
        let mut t = t.inline_item("scopes", i, item);
        let paths = read_paths(&mut t);
        let methods = read_methods(&mut t);
        let scope = t.text_required("scope", "write e.g. scope = \"search\"", |text| {
            let scope = value::parse_scope(text)?;
            match known {
                Some(known) if !known.contains(&scope) => Err(unknown_scope(&scope, known)),
                Some(_) | None => Ok(scope),
            }
        });
        t.finish();
        let (paths, methods, scope) = (paths?, methods?, scope?);
        let rule = move |path| ScopeRule { path, methods, scope: scope.clone() };
        Ok(paths.into_iter().map(rule).collect::<Vec<_>>())
    }))?;
    Ok(rules.into_iter().flatten().collect())
}

fn unknown_scope(scope: &str, known: &Scopes) -> String {
    let meant = suggest(scope, known.iter().map(|s| &**s));
    let hint = meant.map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
    format!("{} is not in widget.scopes{hint}", quote(scope))
}

fn read_limits(root: &mut Section<'_, '_>) -> Result<Vec<LimitPolicy>, Noted> {
    let items = root.items("limits", POLICIES_MAX)?;
    let mut names = Names::default();
    collect_all(items.iter().enumerate().map(|(i, item)| {
        let mut t = root.item("limits", i, item);
        let limit = read_limit(&mut t, &mut names);
        t.finish();
        limit
    }))
}

fn read_limit(t: &mut Section<'_, '_>, names: &mut Names) -> Result<LimitPolicy, Noted> {
    const UNITS: (u32, u32) = (1, Quota::LIMIT_MAX);
    let name = names.read(t);
    let paths = read_paths(t);
    let methods = read_methods(t);
    let mechanisms = t.list_optional("mechanisms", "all mechanisms", parse_mechanism);
    let keys = [
        ("shop", KeyBy::Shop),
        ("key", KeyBy::Key),
        ("subject", KeyBy::Subject),
        ("address", KeyBy::Address),
    ];
    let hint = "write \"shop\", \"key\", \"subject\" or \"address\"";
    let key_by = t.choice_required("key", hint, &keys);
    let limit = t.integer_required("limit", UNITS);
    let window = t.duration_required("window", WINDOW);
    let algorithms =
        [("token-bucket", Algorithm::TokenBucket), ("sliding-window", Algorithm::SlidingWindow)];
    let algorithm = t.choice("algorithm", "token-bucket", &algorithms);
    let burst = t.integer_optional("burst", "the same as limit", UNITS);
    if let Ok(Algorithm::SlidingWindow) = algorithm {
        refuse_for_sliding_window(t, window, burst);
    }
    let burst = burst.and_then(|burst| burst.map_or(limit, Ok));
    let cost = t.integer("cost", 1, UNITS);
    if let (Ok(cost), Ok(burst)) = (cost, burst)
        && cost > burst
    {
        t.error(
            "cost",
            format!("{cost} is more than the burst, {burst}: no request would ever pass"),
        );
    }
    let shadow = t.boolean("shadow", false);
    let fallback = t.boolean("fallback", false);
    let quota = quota(t, limit, window, burst);
    Ok(LimitPolicy {
        name: name?,
        paths: paths?,
        methods: methods?,
        mechanisms: mechanisms?.map_or_else(MechanismSet::all, MechanismSet::from_iter),
        key_by: key_by?,
        quota: quota?,
        algorithm: algorithm?,
        cost: cost?,
        shadow: shadow?,
        fallback: fallback?,
    })
}

/// What a sliding window cannot do: spend at once what it has not saved, count parts of a second.
fn refuse_for_sliding_window(
    t: &mut Section<'_, '_>,
    window: Result<Duration, Noted>,
    burst: Result<Option<NonZeroU32>, Noted>,
) {
    if let Ok(Some(_)) = burst {
        let message = "a sliding window has no burst; leave it out, or use \"token-bucket\"";
        t.error("burst", message.into());
    }
    if window.is_ok_and(|window| window.subsec_nanos() > 0) {
        let message = "a sliding window lasts whole seconds; round it, or use \"token-bucket\"";
        t.error("window", message.into());
    }
}

/// A quota, of keys that were read within its bounds.
pub(super) fn quota(
    t: &mut Section<'_, '_>,
    limit: Result<NonZeroU32, Noted>,
    window: Result<Duration, Noted>,
    burst: Result<NonZeroU32, Noted>,
) -> Result<Quota, Noted> {
    let quota = Quota::with_burst(limit?.get(), window?, burst?.get());
    quota.ok_or_else(|| t.error("limit", "is more than can be counted".into()))
}

/// A route that an earlier one always takes the place of is a mistake, and may be a dangerous one:
/// its checks are never made.
fn refuse_unreachable(root: &mut Section<'_, '_>, routes: &[(Place, Route)]) {
    for (i, (place, route)) in routes.iter().enumerate() {
        let earlier = || routes.iter().map(|(_, route)| route).take(i);
        for (j, path) in route.paths.iter().enumerate() {
            let hides = |r: &&Route| {
                let methods = r.methods == MethodSet::all() || r.methods == route.methods;
                methods && r.paths.iter().any(|above| is_above(above, path))
            };
            if let Some(first) = earlier().find(hides) {
                let message = format!(
                    "\"{path}\" is never reached: the route `{}` before it takes every such \
                     request; put this one first",
                    first.name
                );
                root.error_at(place, &format!("routes[{i}].paths[{j}]"), message);
            }
        }
    }
}

/// Anonymous access costs a caller nothing, so it is never without a limit (spec §1). The rule is
/// simpler than the truth, and errs to the safe side: every path of the route has to be under
/// one enforced policy for `anonymous` that names it, or a pattern ending in `*` above it.
fn require_anonymous_limits(
    root: &mut Section<'_, '_>,
    routes: &[(Place, Route)],
    limits: &[LimitPolicy],
) {
    let anonymous = |l: &&LimitPolicy| l.mechanisms.contains(Mechanism::Anonymous);
    for (i, (place, route)) in routes.iter().enumerate() {
        if !route.mechanisms.contains(Mechanism::Anonymous) {
            continue;
        }
        let holds = |l: &&LimitPolicy| {
            let methods = l.methods == MethodSet::all() || l.methods == route.methods;
            methods && !l.shadow
        };
        let enforced: Vec<_> = limits.iter().filter(anonymous).filter(holds).collect();
        let free = route.paths.iter().find(|path| {
            let covers = |l: &&LimitPolicy| l.paths.iter().any(|p| is_above(p, path));
            !enforced.iter().any(covers)
        });
        if let Some(path) = free {
            let message = format!(
                "anonymous access to \"{path}\" needs a limit; write a [[limits]] with \
                 paths = [\"{path}\"], mechanisms = [\"anonymous\"], key = \"address\""
            );
            root.error_at(place, &format!("routes[{i}].mechanisms"), message);
        }
    }
}

/// Whether `upper` is `lower`, or ends in `*` above it.
fn is_above(upper: &PathPattern, lower: &PathPattern) -> bool {
    let (upper, lower) = (upper.to_string(), lower.to_string());
    let Some(start) = upper.strip_suffix('*') else {
        return upper == lower;
    };
    lower.starts_with(start) || start.strip_suffix('/') == Some(lower.as_str())
}

/// The names of an array of tables, which are unique.
#[derive(Default)]
struct Names(Vec<Option<Name>>);

impl Names {
    fn read(&mut self, t: &mut Section<'_, '_>) -> Result<Name, Noted> {
        let earlier = &self.0;
        let name = t.text_required("name", "write e.g. name = \"search\"", |text| {
            let name = parse_name(text)?;
            match earlier.iter().position(|n| n.as_ref() == Some(&name)) {
                Some(i) => Err(format!("{} is already the name of number {i}", quote(text))),
                None => Ok(name),
            }
        });
        self.0.push(name.as_ref().ok().cloned());
        name
    }
}

fn read_paths(t: &mut Section<'_, '_>) -> Result<Vec<PathPattern>, Noted> {
    t.list_required("paths", "write e.g. [\"/api/search/*\"]", |text| {
        PathPattern::parse(text).map_err(|e| format!("{} is not a path pattern: {e}", quote(text)))
    })
}

fn read_methods(t: &mut Section<'_, '_>) -> Result<MethodSet, Noted> {
    let names =
        t.list_optional("methods", "all methods", |text| match MethodSet::parse([text]) {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err(format!("{} is not a method; write e.g. \"GET\", \"POST\"", quote(text))),
        })?;
    let Some(names) = names else {
        return Ok(MethodSet::all());
    };
    MethodSet::parse(names.iter().map(String::as_str))
        .map_err(|name| t.error("methods", format!("{} is not a method", quote(name))))
}

fn parse_mechanism(text: &str) -> Result<Mechanism, String> {
    one_of(text, &Mechanism::ALL.map(|m| (m.as_str(), m)))
}
