//! The route table and the limits: read, and checked against each other.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::UpstreamConfig;
use super::raw::Place;
use super::read::{Section, suggest};
use super::validate::{one_of, parse_name};
use super::value::{self, Span, quote};
use crate::decision::policy::{KeyBy, LimitPolicy, MechanismSet, Route, ScopeRule, Target};
use crate::decision::principal::Mechanism;
use crate::decision::rate_limit::{Algorithm, POLICIES_MAX, Quota};
use crate::decision::route::{MethodSet, PathPattern};
use crate::id::Name;

/// Windows that a quota may have.
pub(super) const WINDOW: Span = Span(Quota::WINDOW_MIN, Quota::WINDOW_MAX);

type Upstreams = BTreeMap<Name, UpstreamConfig>;
type Scopes = [Box<str>];

/// Reads `[[routes]]` and `[[limits]]`. `upstreams` and `scopes` (of widget tokens) are `None`
/// when they hold mistakes of their own; then nothing is checked against them.
pub(super) fn read(
    root: &mut Section<'_, '_>,
    upstreams: Option<&Upstreams>,
    scopes: Option<&Scopes>,
) -> (Option<Vec<Route>>, Option<Vec<LimitPolicy>>) {
    let routes = read_routes(root, upstreams, scopes);
    let limits = read_limits(root);
    if let (Some(routes), Some(limits)) = (&routes, &limits) {
        require_anonymous_limits(root, routes, limits);
    }
    let routes = routes.map(|routes| routes.into_iter().map(|(_, route)| route).collect());
    (routes, limits)
}

fn read_routes(
    root: &mut Section<'_, '_>,
    upstreams: Option<&Upstreams>,
    scopes: Option<&Scopes>,
) -> Option<Vec<(Place, Route)>> {
    let items = root.items("routes");
    let mut routes = Vec::with_capacity(items.len());
    let mut names = Names::default();
    for (i, item) in items.iter().enumerate() {
        let mut t = root.item("routes", i, item);
        let place = t.place().clone();
        let route = read_route(&mut t, upstreams, scopes, &mut names);
        t.finish();
        routes.extend(route.map(|route| (place, route)));
    }
    if items.is_empty() && root.has("routes") {
        root.error(
            "routes",
            "holds no route, so every request would be 404; leave it out for the default routes"
                .into(),
        );
    }
    (!items.is_empty() && routes.len() == items.len()).then_some(routes)
}

fn read_route(
    t: &mut Section<'_, '_>,
    upstreams: Option<&Upstreams>,
    scopes: Option<&Scopes>,
    names: &mut Names,
) -> Option<Route> {
    let name = names.read(t);
    let paths = read_paths(t);
    let methods = read_methods(t);
    let hint = "write e.g. [\"shop_api_key\"]";
    let mechanisms = t.list_required("mechanisms", hint, parse_mechanism);
    let mechanisms = mechanisms.map(MechanismSet::from_iter);
    let target = read_target(t, upstreams);
    if let (Some(paths), Some(mechanisms), Some(Target::IssueWidgetToken)) =
        (&paths, mechanisms, &target)
    {
        check_issue_route(t, paths, mechanisms);
    }
    let takes_tokens = mechanisms.is_some_and(|m| m.contains(Mechanism::WidgetToken));
    let rules = read_scope_rules(t, scopes.filter(|_| takes_tokens));
    Some(Route {
        name: name?,
        paths: paths?,
        methods: methods?,
        mechanisms: mechanisms?,
        scopes: rules?,
        target: target?,
    })
}

fn read_target(t: &mut Section<'_, '_>, upstreams: Option<&Upstreams>) -> Option<Target> {
    if t.has("answer") && t.has("upstream") {
        t.error("answer", "stands beside `upstream`; a route has one or the other".into());
    }
    if t.has("answer") {
        return t
            .text_required("answer", "", |text| one_of(text, &[("widget_token", ())]))
            .map(|()| Target::IssueWidgetToken)
            .filter(|_| !t.has("upstream"));
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

fn read_scope_rules(t: &mut Section<'_, '_>, scopes: Option<&Scopes>) -> Option<Vec<ScopeRule>> {
    let items = t.inline_items("scopes");
    let is_default = t.is_default();
    let mut rules = Vec::with_capacity(items.len());
    let mut sound = true;
    for (i, item) in items.iter().enumerate() {
        let mut t = t.inline_item("scopes", i, item);
        let paths = read_paths(&mut t);
        let methods = read_methods(&mut t);
        let hint = "write e.g. scope = \"search\"";
        let scope = t.text_required("scope", hint, value::parse_scope);
        // The default routes name the default scopes; a shorter list is no mistake of theirs.
        let known = scopes.filter(|_| !is_default);
        if let (Some(scope), Some(known)) = (&scope, known)
            && !known.contains(scope)
        {
            let meant = suggest(scope, known.iter().map(|s| &**s));
            let hint = meant.map_or(String::new(), |m| format!("; did you mean `{m}`?"));
            t.error("scope", format!("{} is not in widget.scopes{hint}", quote(scope)));
        }
        t.finish();
        let (Some(paths), Some(methods), Some(scope)) = (paths, methods, scope) else {
            sound = false;
            continue;
        };
        rules.extend(paths.into_iter().map(|path| ScopeRule {
            path,
            methods,
            scope: scope.clone(),
        }));
    }
    sound.then_some(rules)
}

fn read_limits(root: &mut Section<'_, '_>) -> Option<Vec<LimitPolicy>> {
    let items = root.items("limits");
    if items.len() > POLICIES_MAX {
        root.error("limits", format!("holds {} policies; at most {POLICIES_MAX}", items.len()));
        return None;
    }
    let mut limits = Vec::with_capacity(items.len());
    let mut names = Names::default();
    for (i, item) in items.iter().enumerate() {
        let mut t = root.item("limits", i, item);
        limits.extend(read_limit(&mut t, &mut names));
        t.finish();
    }
    (limits.len() == items.len()).then_some(limits)
}

fn read_limit(t: &mut Section<'_, '_>, names: &mut Names) -> Option<LimitPolicy> {
    const UNITS: (u64, u64) = (1, Quota::LIMIT_MAX as u64);
    let name = names.read(t);
    let paths = read_paths(t);
    let methods = read_methods(t);
    let mechanisms = t.list_optional("mechanisms", "all mechanisms", parse_mechanism);
    let key_by =
        t.text_required("key", "write \"shop\", \"key\", \"subject\" or \"address\"", |s| {
            let keys = [
                ("shop", KeyBy::Shop),
                ("key", KeyBy::Key),
                ("subject", KeyBy::Subject),
                ("address", KeyBy::Address),
            ];
            one_of(s, &keys)
        });
    let limit = t.integer_required("limit", UNITS).and_then(units);
    let window = t.duration_required("window", WINDOW);
    let algorithm = t.text("algorithm", "token-bucket", |text| {
        let algorithms = [
            ("token-bucket", Algorithm::TokenBucket),
            ("sliding-window", Algorithm::SlidingWindow),
        ];
        one_of(text, &algorithms)
    });
    let burst = t.integer_optional("burst", "the same as limit", UNITS);
    if let (Some(Algorithm::SlidingWindow), Some(Some(_))) = (algorithm, burst) {
        t.error(
            "burst",
            "a sliding window has no burst; leave it out, or use \"token-bucket\"".into(),
        );
    }
    let burst = burst.and_then(|burst| burst.map_or(limit, units));
    let cost = t.integer("cost", 1, UNITS).and_then(units);
    if let (Some(cost), Some(burst)) = (cost, burst)
        && cost > burst
    {
        t.error(
            "cost",
            format!("{cost} is more than the burst, {burst}: no request would ever pass"),
        );
    }
    let shadow = t.boolean("shadow", false);
    let fallback = t.boolean("fallback", false);
    Some(LimitPolicy {
        name: name?,
        paths: paths?,
        methods: methods?,
        mechanisms: mechanisms?.map_or_else(MechanismSet::all, MechanismSet::from_iter),
        key_by: key_by?,
        quota: Quota::with_burst(limit?.get(), window?, burst?.get())?,
        algorithm: algorithm?,
        cost: cost?,
        shadow: shadow?,
        fallback: fallback?,
    })
}

fn units(number: u64) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(number).ok()?)
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
    // A policy that only reports still takes a request from the fallback.
    let displaced = limits.iter().filter(anonymous).any(|l| l.shadow && !l.fallback);
    for (i, (place, route)) in routes.iter().enumerate() {
        if !route.mechanisms.contains(Mechanism::Anonymous) {
            continue;
        }
        let holds = |l: &&LimitPolicy| {
            let methods = l.methods == MethodSet::all() || l.methods == route.methods;
            methods && !l.shadow && !(l.fallback && displaced)
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
    fn read(&mut self, t: &mut Section<'_, '_>) -> Option<Name> {
        let earlier = &self.0;
        let name = t.text_required("name", "write e.g. name = \"search\"", |text| {
            let name = parse_name(text)?;
            match earlier.iter().position(|n| n.as_ref() == Some(&name)) {
                Some(i) => Err(format!("{} is already the name of number {i}", quote(text))),
                None => Ok(name),
            }
        });
        self.0.push(name.clone());
        name
    }
}

fn read_paths(t: &mut Section<'_, '_>) -> Option<Vec<PathPattern>> {
    t.list_required("paths", "write e.g. [\"/api/search/*\"]", |text| {
        PathPattern::parse(text).map_err(|e| format!("{} is not a path pattern: {e}", quote(text)))
    })
}

fn read_methods(t: &mut Section<'_, '_>) -> Option<MethodSet> {
    let names =
        t.list_optional("methods", "all methods", |text| match MethodSet::parse([text]) {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err(format!("{} is not a method; write e.g. \"GET\", \"POST\"", quote(text))),
        })?;
    match names {
        None => Some(MethodSet::all()),
        Some(names) => MethodSet::parse(names.iter().map(String::as_str)).ok(),
    }
}

fn parse_mechanism(text: &str) -> Result<Mechanism, String> {
    one_of(text, &Mechanism::ALL.map(|m| (m.as_str(), m)))
}
