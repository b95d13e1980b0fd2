//! Which pages' scripts may call a route and read its answers (spec §6): the server's side of
//! CORS in the Fetch standard (§3.2, §4.8).
//!
//! A page is allowed on a route
//!
//! * that takes widget tokens: where some enabled shop lets its widget run, by the rules that a
//!   widget token's `Origin` is judged by, the loopback rule included;
//! * of any kind: where the route's own `origins` say so.
//!
//! Nobody else is, shops' own sites on the routes of shop API keys included: an API key in a page
//! is everybody's who opens it, and a preflight, which names no shop, would tell whose site is a
//! shop's. An operator who wants it all the same says so by `origins`.
//!
//! What is allowed here only opens the door of the browser. Whether the request may pass is
//! [`super::evaluate`]'s to say, origin included: a page that `origins` allows is still no place
//! for another shop's widget token.
//!
//! Knows neither the words of a response nor any of the other header fields it may name.

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, HeaderName, ORIGIN};
use http::{HeaderMap, Method};

use super::authorize::single;
use super::classify;
use super::credential::{X_SHOP_API_KEY, X_WIDGET_TOKEN};
use super::denial::{Denial, OriginFault, OriginSource};
use super::origin::OriginRef;
use super::policy::{Policies, Route};
use super::principal::Mechanism;
use super::request::RequestView;
use super::route::CanonicalPath;

/// Where the widgets of all shops may run; the snapshot knows.
pub trait WidgetPages {
    /// Whether some enabled shop allows its widget on `page` (spec §2.5), the loopback rule
    /// apart.
    fn some_shop_embeds_on(&self, page: OriginRef<'_>) -> bool;
}

/// What a response must tell browsers and caches about who may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Nothing: it is the same for every page, and no page's script may read it.
    Unshared,
    /// That it depends on the `Origin`, of which this request has none that may read it.
    Withheld,
    /// That it depends on the `Origin`, and that this request's may read it.
    Shared,
}

/// Who may read the answer to `request`, whatever it will be.
///
/// Where no route takes the method, the first that takes the path decides, so that a page can read
/// its 404.
#[must_use]
pub fn sharing<W: WidgetPages>(
    request: &RequestView<'_>,
    policies: &Policies,
    pages: &W,
) -> Sharing {
    let Ok(path) = CanonicalPath::parse(request.path) else {
        return Sharing::Unshared;
    };
    let takes_path = |route: &&Route| route.paths.iter().any(|p| p.matches(&path).is_some());
    let mut routes = policies.routes.iter();
    let exact = routes.find(|r| r.methods.contains(request.method) && takes_path(r));
    let Some(route) = exact.or_else(|| policies.routes.iter().find(takes_path)) else {
        return Sharing::Unshared;
    };
    // The origin rule of API keys makes their answers depend on it too.
    let depends = !route.origins.is_empty()
        || route.mechanisms.contains(Mechanism::WidgetToken)
        || route.mechanisms.contains(Mechanism::ShopApiKey);
    match page(request) {
        _ if !depends => Sharing::Unshared,
        Ok(Some(page)) if allows(route, page, policies, pages) => Sharing::Shared,
        Ok(_) | Err(_) => Sharing::Withheld,
    }
}

/// An allowed preflight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer<'a> {
    /// The route it asks for.
    pub route: &'a Route,
    requested: Method,
}

impl Offer<'_> {
    /// The methods a page's script may use on the route. Scripts can send neither `CONNECT` nor
    /// `TRACE`; a route of all methods takes extension methods too, of which the requested one is
    /// named.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        let known = METHODS.iter().filter(|method| self.route.methods.contains(method));
        let extension = !METHODS.contains(&self.requested) && !is_forbidden(&self.requested);
        known.chain(extension.then_some(&self.requested))
    }

    /// The fields that the route's credentials travel in.
    pub fn credential_fields(&self) -> impl Iterator<Item = HeaderName> {
        self.route.mechanisms.iter().filter_map(|mechanism| match mechanism {
            Mechanism::WidgetToken => Some(X_WIDGET_TOKEN),
            Mechanism::ShopApiKey => Some(X_SHOP_API_KEY),
            Mechanism::Jwt => Some(AUTHORIZATION),
            Mechanism::Anonymous => None,
        })
    }
}

/// A refused preflight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<'a> {
    /// Why.
    pub denial: Denial<'static>,
    /// The route it asks for, if there is one.
    pub route: Option<&'a Route>,
}

/// Whether `request` asks for a browser whether a page's script may send another one.
#[must_use]
pub fn is_preflight(request: &RequestView<'_>) -> bool {
    let has = |name| request.headers.contains_key(name);
    *request.method == Method::OPTIONS && has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What to answer to a preflight; `None` if `request` is none. It carries no credential, and none
/// is looked for.
#[must_use]
pub fn preflight<'a, W: WidgetPages>(
    request: &RequestView<'_>,
    policies: &'a Policies,
    pages: &W,
) -> Option<Result<Offer<'a>, Refused<'a>>> {
    is_preflight(request).then(|| judge(request, policies, pages))
}

fn judge<'a, W: WidgetPages>(
    request: &RequestView<'_>,
    policies: &'a Policies,
    pages: &W,
) -> Result<Offer<'a>, Refused<'a>> {
    let unrouted = |denial| Refused { denial, route: None };
    let path =
        CanonicalPath::parse(request.path).map_err(|error| unrouted(Denial::BadPath(error)))?;
    let requested = requested_method(request.headers).ok_or(unrouted(Denial::NotFound))?;
    let route = match classify(&requested, &path, policies) {
        Ok(classified) => classified.route,
        Err(Denial::BadPath(error)) => return Err(unrouted(Denial::BadPath(error))),
        Err(_) => return Err(unrouted(Denial::NotFound)),
    };
    let refused = |denial| Refused { denial, route: Some(route) };
    let mismatch = |fault| Denial::OriginMismatch { source: OriginSource::Origin, fault };
    match page(request) {
        Ok(Some(page)) if allows(route, page, policies, pages) => Ok(Offer { route, requested }),
        Ok(_) => Err(refused(mismatch(OriginFault::Unlisted))),
        Err(denial) => Err(refused(denial)),
    }
}

/// The methods of RFC 9110 §9 and RFC 5789 that a page's script can send.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::OPTIONS,
    Method::PATCH,
];

/// Fetch standard §2.2.1, "forbidden method".
fn is_forbidden(method: &Method) -> bool {
    ["CONNECT", "TRACE", "TRACK"].iter().any(|m| m.eq_ignore_ascii_case(method.as_str()))
}

/// The one method asked for; what is repeated or no method is none that a route could take.
fn requested_method(headers: &HeaderMap) -> Option<Method> {
    let mut values = headers.get_all(ACCESS_CONTROL_REQUEST_METHOD).iter();
    let value = values.next()?;
    Method::from_bytes(value.as_bytes()).ok().filter(|_| values.next().is_none())
}

fn page<'r>(request: &RequestView<'r>) -> Result<Option<OriginRef<'r>>, Denial<'static>> {
    single(request, &ORIGIN, OriginSource::Origin, OriginRef::parse_origin)
}

fn allows<W: WidgetPages>(
    route: &Route,
    page: OriginRef<'_>,
    policies: &Policies,
    pages: &W,
) -> bool {
    let listed = || route.origins.iter().any(|pattern| pattern.matches(page, policies.origin));
    let widget = || {
        route.mechanisms.contains(Mechanism::WidgetToken)
            && ((policies.widget.allow_loopback_origins && page.is_loopback())
                || pages.some_shop_embeds_on(page))
    };
    listed() || widget()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::decision::origin::{OriginPattern, Rules};
    use crate::decision::policy::{AttemptPolicy, Target, WidgetPolicy};
    use crate::decision::rate_limit::Quota;
    use crate::decision::route::{MethodSet, PathPattern};
    use crate::id::Name;

    /// A directory of one shop, on `https://shop.example`.
    struct OneShop;

    impl WidgetPages for OneShop {
        fn some_shop_embeds_on(&self, page: OriginRef<'_>) -> bool {
            OriginPattern::parse("https://shop.example").unwrap().matches(page, Rules::default())
        }
    }

    fn route(paths: &[&str], methods: &[&str], mechanisms: &[Mechanism], list: &[&str]) -> Route {
        let all = methods.is_empty();
        Route {
            name: Name::parse("route").unwrap(),
            paths: paths.iter().map(|path| PathPattern::parse(path).unwrap()).collect(),
            methods: if all {
                MethodSet::all()
            } else {
                MethodSet::parse(methods.iter().copied()).unwrap()
            },
            mechanisms: mechanisms.iter().copied().collect(),
            scopes: Vec::new(),
            target: Target::Upstream(Name::parse("default").unwrap()),
            body_bytes_max: None,
            upgrades: Vec::new(),
            origins: list.iter().map(|text| OriginPattern::parse(text).unwrap()).collect(),
        }
    }

    fn policies(routes: Vec<Route>, allow_loopback_origins: bool) -> Policies {
        let day = Duration::from_secs(86_400);
        Policies {
            routes,
            limits: Vec::new(),
            issuers: Vec::new(),
            origin: Rules::default(),
            widget: WidgetPolicy {
                lifetime: day,
                lifetime_max: day,
                scopes: Vec::new(),
                allow_loopback_origins,
            },
            attempts: AttemptPolicy { quota: Quota::new(10, Duration::from_secs(60)).unwrap() },
        }
    }

    fn with_request<T>(
        method: &str,
        path: &str,
        fields: &[(HeaderName, &str)],
        then: impl FnOnce(&RequestView<'_>) -> T,
    ) -> T {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let method = method.parse().unwrap();
        let client = "192.0.2.1".parse().unwrap();
        then(&RequestView { method: &method, path, headers: &headers, client })
    }

    /// Whether a preflight is allowed.
    fn asked(policies: &Policies, method: &str, path: &str, origin: &str) -> bool {
        let fields = [(ORIGIN, origin), (ACCESS_CONTROL_REQUEST_METHOD, method)];
        with_request("OPTIONS", path, &fields, |view| {
            let judged = preflight(view, policies, &OneShop).unwrap();
            judged.is_ok_and(|offer| {
                let named = offer.methods().any(|named| named.as_str() == method);
                assert!(named || is_forbidden(&method.parse().unwrap()), "{method} is not named");
                true
            })
        })
    }

    fn shared(policies: &Policies, method: &str, path: &str, origin: &str) -> Sharing {
        let fields = [(ORIGIN, origin)];
        with_request(method, path, &fields, |view| sharing(view, policies, &OneShop))
    }

    #[test]
    fn who_may_call_what() {
        use Mechanism::{Anonymous, Jwt, ShopApiKey, WidgetToken};
        let (shop, list, loopback) =
            ("https://shop.example", "https://a.list.example", "http://localhost:1");
        for (mechanisms, patterns, allow_loopback, allowed) in [
            (&[WidgetToken][..], &[][..], false, &[shop][..]),
            (&[WidgetToken], &[], true, &[shop, loopback]),
            (&[WidgetToken, Jwt], &["https://*.list.example"], false, &[shop, list]),
            (&[ShopApiKey], &[], true, &[]),
            (&[ShopApiKey], &["*.list.example"], true, &[list]),
            (&[Jwt, Anonymous], &[], true, &[]),
            (&[Jwt, Anonymous], &["https://a.list.example"], true, &[list]),
        ] {
            let routes = vec![route(&["/*"], &[], mechanisms, patterns)];
            let policies = policies(routes, allow_loopback);
            for origin in [shop, list, loopback, "https://list.example", "null", "x", ""] {
                let expected = allowed.contains(&origin);
                let row = format!("{origin} on {mechanisms:?} {patterns:?} {allow_loopback}");
                assert_eq!(asked(&policies, "GET", "/", origin), expected, "{row}");
                let depends = mechanisms[0] != Jwt || !patterns.is_empty();
                let sharing = match (depends, expected) {
                    (false, _) => Sharing::Unshared,
                    (true, false) => Sharing::Withheld,
                    (true, true) => Sharing::Shared,
                };
                assert_eq!(shared(&policies, "GET", "/", origin), sharing, "{row}");
            }
        }
    }

    #[test]
    fn only_options_with_both_fields_is_a_preflight() {
        let both = [(ORIGIN, "null"), (ACCESS_CONTROL_REQUEST_METHOD, "")];
        for (method, fields, expected) in [
            ("OPTIONS", &both[..], true),
            ("OPTIONS", &both[..1], false),
            ("OPTIONS", &both[1..], false),
            ("GET", &both[..], false),
            ("options", &both[..], false),
        ] {
            assert_eq!(with_request(method, "/", fields, is_preflight), expected, "{method}");
        }
    }

    proptest! {
        /// A browser that is let through can read what it gets, and one that could read it would
        /// have been let through.
        #[test]
        fn preflights_and_answers_agree(
            table in prop::collection::vec((0..4_usize, 0..4_usize, 0..16_u8, any::<bool>()), 1..5),
            method in prop::sample::select(&["GET", "HEAD", "POST", "PURGE", "patch", "TRACE"][..]),
            path in prop::sample::select(&["/", "/a", "/a/b", "/b", "/a//b", "/c/%2e%2e"][..]),
            origin in prop::sample::select(&[
                "https://shop.example", "https://www.shop.example", "https://list.example",
                "https://evil.example", "http://localhost", "null", "",
            ][..]),
            allow_loopback: bool,
        ) {
            let paths: [&[&str]; 4] = [&["/a"], &["/a/*"], &["/b", "/"], &["/*"]];
            let methods: [&[&str]; 4] = [&[], &["GET"], &["POST", "TRACE"], &["OPTIONS"]];
            let routes = table.iter().map(|(path, methods_at, mechanisms, listed)| {
                let taken = Mechanism::ALL.into_iter().enumerate();
                let taken: Vec<_> =
                    taken.filter(|(i, _)| mechanisms >> i & 1 == 1).map(|(_, m)| m).collect();
                let list: &[&str] = if *listed { &["list.example"] } else { &[] };
                route(paths[*path], methods[*methods_at], &taken, list)
            });
            let policies = policies(routes.collect(), allow_loopback);
            let taken = CanonicalPath::parse(path)
                .is_ok_and(|path| classify(&method.parse().unwrap(), &path, &policies).is_ok());
            let sharing = shared(&policies, method, path, origin);
            let expected = taken && sharing == Sharing::Shared;
            prop_assert_eq!(asked(&policies, method, path, origin), expected);
        }
    }
}
