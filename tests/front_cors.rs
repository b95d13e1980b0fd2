//! Spec §6 over raw sockets: who may call what, and what every response says about it.

use serde_json::{Value, json};

use crate::support::http::{Request, Response, get, request};
use crate::support::upstream::Behaviour;
use crate::support::world::{World, world, world_with};

const SEARCH: &str = "/api/widget/search";
const DEMO: &str = "https://demo.example";
const EXPOSED: &str = "Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, \
    X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-Id, WWW-Authenticate";

/// Routes of every kind, the own lists among them.
const LISTS: &str = r#"
[cors]
max_age = "90s"
request_headers = ["content-type", "x-widget-token", "x-trace"]
expose_headers = ["x-total", "retry-after"]
[[routes]]
name = "issue"
paths = ["/shops/{shopId}/widget-token"]
mechanisms = ["shop_api_key"]
methods = ["POST"]
answer = "widget_token"
origins = ["https://desk.example"]
[[routes]]
name = "widget"
paths = ["/widget/*"]
methods = ["GET", "POST"]
mechanisms = ["widget_token", "jwt"]
origins = ["https://*.partner.example"]
[[routes]]
name = "search"
paths = ["/search/*"]
mechanisms = ["jwt", "anonymous"]
origins = ["https://app.example"]
[[routes]]
name = "open"
paths = ["/open"]
mechanisms = ["anonymous"]
[[limits]]
name = "anonymous"
paths = ["/search/*", "/open"]
mechanisms = ["anonymous"]
key = "address"
limit = 1000
window = "1m"
"#;

fn preflight(origin: &str, method: &str, path: &str) -> Request {
    let request = request("OPTIONS", path).header("Access-Control-Request-Method", method);
    request.header("Origin", origin)
}

/// `204`, or the code of a refusal.
fn outcome(w: &World, request: &Request) -> String {
    let answer = w.gateway.send(request);
    let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    assert_eq!(answer.header("vary"), Some(vary), "{request:?}");
    if answer.status == 204 {
        assert!(answer.body.is_empty());
        return "204".to_owned();
    }
    assert_eq!(cors_fields(&answer), NOTHING, "{request:?}");
    answer.outcome()
}

const NOTHING: [Option<&str>; 5] = [None; 5];

/// What a response says of CORS, `Vary` apart.
fn cors_fields(answer: &Response) -> [Option<&str>; 5] {
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let names = ["allow-origin", "allow-methods", "allow-headers", "max-age", "expose-headers"];
    names.map(|name| answer.header(&format!("access-control-{name}")))
}

#[test]
fn preflights_are_answered_for_the_pages_of_enabled_shops_and_nobody_else() {
    let w = world("");
    let origins = json!({"widget_origins": ["*.partner.example"]});
    w.gateway.api_ok("PATCH", "/shops/demo", &origins);
    let key_route = "/api/plugin/shops/demo/products";
    for (origin, method, path, expected) in [
        (DEMO, "GET", SEARCH, "204"),
        (DEMO, "POST", "/api/widget/anything/else?q=1", "204"),
        ("https://www.demo.example", "GET", SEARCH, "204"),
        ("https://DEMO.example:443", "GET", SEARCH, "204"),
        ("https://a.b.partner.example", "GET", SEARCH, "204"),
        ("https://other.example", "GET", SEARCH, "204"),
        ("http://demo.example", "GET", SEARCH, "403 origin_mismatch"),
        ("https://demo.example:8443", "GET", SEARCH, "403 origin_mismatch"),
        ("https://demo.example.evil.com", "GET", SEARCH, "403 origin_mismatch"),
        ("https://partner.example", "GET", SEARCH, "403 origin_mismatch"),
        ("https://evil.com", "GET", SEARCH, "403 origin_mismatch"),
        ("http://localhost:3000", "GET", SEARCH, "403 origin_mismatch"),
        ("null", "GET", SEARCH, "403 origin_mismatch"),
        ("https://demo.example/", "GET", SEARCH, "403 origin_mismatch"),
        ("", "GET", SEARCH, "403 origin_mismatch"),
        ("*", "GET", SEARCH, "403 origin_mismatch"),
        // Whose site is a shop's is not told where a shop's server calls.
        (DEMO, "GET", key_route, "403 origin_mismatch"),
        ("https://evil.com", "GET", key_route, "403 origin_mismatch"),
        (DEMO, "GET", "/api/search/x", "403 origin_mismatch"),
        (DEMO, "GET", "/nowhere", "404 not_found"),
        (DEMO, "GE T", SEARCH, "404 not_found"),
        (DEMO, "", SEARCH, "404 not_found"),
        (DEMO, "GET", "/api//widget", "400 bad_request"),
        (DEMO, "GET", "/api/widget/%2e%2e/x", "400 bad_request"),
    ] {
        let request = preflight(origin, method, path);
        assert_eq!(outcome(&w, &request), expected, "{origin} {method} {path}");
    }
    let twice = preflight(DEMO, "GET", SEARCH).header("Origin", DEMO);
    assert_eq!(outcome(&w, &twice), "403 origin_mismatch");
    let twice = preflight(DEMO, "GET", SEARCH).header("Access-Control-Request-Method", "GET");
    assert_eq!(outcome(&w, &twice), "404 not_found");
    let header = "Access-Control-Request-Headers";
    let headers = preflight(DEMO, "GET", SEARCH).header(header, "X-Widget-TOKEN, x-unknown");
    assert_eq!(outcome(&w, &headers), "204", "the browser compares the names");
    assert_eq!(w.upstream.count(), 0);
}

#[test]
fn a_shop_is_allowed_from_the_moment_it_is_and_no_longer() {
    let w = world("");
    let at = |origin: &str| outcome(&w, &preflight(origin, "GET", SEARCH));
    let change = |fields: &Value| w.gateway.api_ok("PATCH", "/shops/demo", fields);
    let (yes, no) = ("204", "403 origin_mismatch");
    assert_eq!((at(DEMO), at("https://new.example")), (yes.into(), no.into()));
    change(&json!({"url": "https://new.example"}));
    assert_eq!((at(DEMO), at("https://new.example")), (no.into(), yes.into()));
    change(&json!({"widget_origins": ["*.demo.example", "demo.example", "demo.example"]}));
    assert_eq!((at(DEMO), at("https://a.demo.example")), (yes.into(), yes.into()));
    change(&json!({"enabled": false}));
    assert_eq!((at(DEMO), at("https://new.example")), (no.into(), no.into()));
    change(&json!({"widget_origins": [], "enabled": true}));
    assert_eq!((at(DEMO), at("https://new.example")), (no.into(), yes.into()));
    // Two shops on one site: it is allowed as long as one of them is.
    w.gateway.api_ok("PATCH", "/shops/other", &json!({"url": "https://new.example"}));
    w.gateway.api_ok("DELETE", "/shops/demo", &json!(null));
    assert_eq!(at("https://new.example"), yes);
    w.gateway.api_ok("DELETE", "/shops/other", &json!(null));
    assert_eq!(at("https://new.example"), no);
    w.gateway.shop("again");
    let World { site, upstream: _upstream, gateway } = w;
    assert!(gateway.stop().success());
    let gateway = site.start();
    let answer = gateway.send(&preflight("https://again.example", "GET", SEARCH));
    assert_eq!(answer.status, 204, "known after a restart");
}

#[test]
fn preflights_say_what_the_route_takes() {
    let w = world("");
    let answer = w.gateway.send(&preflight(DEMO, "GET", SEARCH));
    let fields = "x-widget-token, content-type, idempotency-key, x-requested-with";
    let methods = "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";
    let expected = [Some(DEMO), Some(methods), Some(fields), Some("600"), None];
    assert_eq!(cors_fields(&answer), expected);
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.header("ratelimit"), None);

    w.site.configure(Some(&w.upstream), LISTS);
    w.gateway.signal("HUP");
    w.gateway
        .wait_for_log(|line| line["message"].as_str().is_some_and(|m| m.contains("was reloaded")));
    let app = "https://app.example";
    let partner = "https://a.partner.example";
    let desk = "https://desk.example";
    for (origin, method, path, methods, fields) in [
        (
            DEMO,
            "GET",
            "/widget/x",
            "GET, HEAD, POST",
            "x-widget-token, authorization, content-type, x-trace",
        ),
        (
            partner,
            "POST",
            "/widget/x",
            "GET, HEAD, POST",
            "x-widget-token, authorization, content-type, x-trace",
        ),
        (
            app,
            "PURGE",
            "/search/x",
            "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH, PURGE",
            "authorization, content-type, x-widget-token, x-trace",
        ),
        (
            desk,
            "POST",
            "/shops/me/widget-token",
            "POST",
            "x-shop-api-key, content-type, x-widget-token, x-trace",
        ),
    ] {
        let answer = w.gateway.send(&preflight(origin, method, path));
        let expected = [Some(origin), Some(methods), Some(fields), Some("90"), None];
        assert_eq!(cors_fields(&answer), expected, "{origin} {method} {path}");
    }
    for (origin, method, path, expected) in [
        (app, "GET", "/widget/x", "403 origin_mismatch"),
        (DEMO, "GET", "/search/x", "403 origin_mismatch"),
        (DEMO, "DELETE", "/widget/x", "404 not_found"),
        (DEMO, "POST", "/shops/me/widget-token", "403 origin_mismatch"),
        (app, "GET", "/open", "403 origin_mismatch"),
        ("https://partner.example", "GET", "/widget/x", "403 origin_mismatch"),
    ] {
        let request = preflight(origin, method, path);
        assert_eq!(outcome(&w, &request), expected, "{origin} {method} {path}");
    }
}

#[test]
fn a_preflight_costs_nobody_anything_and_its_credentials_are_not_looked_at() {
    let w = world("");
    let (_, token) = w.gateway.token("demo", &json!(null));
    for _ in 0..300 {
        let request = preflight(DEMO, "GET", "/api/widget/compare");
        let bad = request.widget("bad").key("bad").bearer("bad").header("Host", "a.example");
        assert_eq!(w.gateway.send(&bad).status, 204);
        assert_eq!(w.gateway.send(&preflight("https://evil.com", "GET", SEARCH)).status, 403);
    }
    let answer = w.gateway.send(&get("/api/widget/compare").widget(&token));
    assert_eq!(answer.status, 200, "the address is not throttled");
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("9"), "and the quota whole");
    assert_eq!(w.upstream.count(), 1);
    let metrics = w.gateway.metrics();
    for (outcome, code) in [("allowed", "ok"), ("refused", "origin_mismatch")] {
        let line = format!(
            "latchkey_decisions_total{{code=\"{code}\",mechanism=\"none\",\
             outcome=\"{outcome}\"}} 300"
        );
        assert!(metrics.contains(&line), "{line}");
    }
}

#[test]
fn options_that_ask_for_nothing_are_requests_like_others() {
    let w = world("");
    let (_, token) = w.gateway.token("demo", &json!(null));
    let method = "Access-Control-Request-Method";
    for (request, expected) in [
        (request("OPTIONS", SEARCH).header("Origin", DEMO), "401 missing_credential"),
        (request("OPTIONS", SEARCH).header(method, "GET"), "401 missing_credential"),
        (request("OPTIONS", SEARCH).header("Origin", DEMO).widget(&token), "200 ok"),
        (get(SEARCH).header("Origin", DEMO).header(method, "GET").widget(&token), "200 ok"),
        (
            request("options", SEARCH).header("Origin", DEMO).header(method, "GET"),
            "401 missing_credential",
        ),
    ] {
        assert_eq!(w.outcome(&request), expected, "{request:?}");
    }
    assert_eq!(w.upstream.count(), 2);
}

/// Sends `request` from the shop's page, from a foreign one, and from none.
#[track_caller]
fn check_shared(w: &World, request: &Request, expected: &str) {
    for origin in [Some(DEMO), Some("https://evil.com"), Some("null"), None] {
        let sent = match origin {
            Some(origin) => request.clone().header("Origin", origin),
            None => request.clone(),
        };
        let answer = w.gateway.send(&sent);
        let allowed = origin == Some(DEMO);
        let shared = [Some(DEMO), None, None, None, Some(EXPOSED)];
        let fields = if allowed { shared } else { NOTHING };
        assert_eq!(cors_fields(&answer), fields, "{sent:?}: {answer:?}");
        assert_eq!(answer.header("vary"), Some("Origin"), "{sent:?}");
        if allowed {
            assert_eq!(answer.outcome(), expected, "{sent:?}");
        }
    }
}

#[test]
fn refusals_and_answers_are_shared_with_the_page_alone() {
    let w = world("[server]\nbody_bytes_max = \"10B\"\n");
    let (_, token) = w.gateway.token("demo", &json!({"scopes": ["search", "compare"]}));
    check_shared(&w, &get(SEARCH).widget(&token), "200 ok");
    check_shared(&w, &get(SEARCH), "401 missing_credential");
    check_shared(&w, &get(SEARCH).widget("bad"), "401 invalid_credential");
    check_shared(&w, &get("/api/widget/suggestions").widget(&token), "403 insufficient_scope");
    check_shared(&w, &get(SEARCH).widget(&token).widget(&token), "400 bad_request");
    check_shared(&w, &get(SEARCH).header("Host", "a b"), "400 bad_request");
    check_shared(
        &w,
        &request("POST", SEARCH).widget(&token).body("x".repeat(11)),
        "413 payload_too_large",
    );
    for _ in 0..10 {
        w.gateway.send(&get("/api/widget/compare").widget(&token));
    }
    check_shared(&w, &get("/api/widget/compare").widget(&token), "429 rate_limited");
    let (_, other) = w.gateway.token("other", &json!(null));
    check_shared(&w, &get(SEARCH).widget(&other), "403 origin_mismatch");
    w.gateway.api_ok("PATCH", "/shops/other", &json!({"url": DEMO, "enabled": false}));
    check_shared(&w, &get(SEARCH).widget(&other), "403 shop_disabled");
}

#[test]
fn failures_of_the_upstream_are_shared_too() {
    for (behaviour, expected) in
        [(Behaviour::HangUp, "502 upstream_error"), (Behaviour::Silent, "504 upstream_timeout")]
    {
        let w = world_with(behaviour, "");
        let (_, token) = w.gateway.token("demo", &json!(null));
        check_shared(&w, &get(SEARCH).widget(&token), expected);
    }
}

#[test]
fn an_address_that_is_throttled_can_read_that_it_is() {
    let w = world("");
    let throttled = crate::support::until(|| {
        let answer = w.gateway.send(&get(SEARCH).widget("bad").header("Origin", DEMO));
        (answer.status == 429).then_some(answer)
    });
    assert_eq!(throttled.header("access-control-allow-origin"), Some(DEMO));
    assert!(throttled.header("retry-after").is_some());
}

#[test]
fn an_upstream_has_no_word_of_its_own() {
    let own = "Access-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\n\
               Access-Control-Expose-Headers: X-Upstream\r\nAccess-Control-Anything: x\r\n\
               Vary: Accept-Encoding\r\n";
    let w = world_with(Behaviour::Fields(own), "");
    let (_, token) = w.gateway.token("demo", &json!(null));
    let shared = [Some(DEMO), None, None, None, Some(EXPOSED)];
    for (request, fields, vary) in [
        (
            get(SEARCH).widget(&token).header("Origin", DEMO),
            shared,
            &["Accept-Encoding", "Origin"][..],
        ),
        (get(SEARCH).widget(&token), NOTHING, &["Accept-Encoding", "Origin"]),
        (get("/api/search/x").header("Origin", DEMO), NOTHING, &["Accept-Encoding"]),
    ] {
        let answer = w.gateway.send(&request);
        assert_eq!(answer.status, 200);
        assert_eq!(cors_fields(&answer), fields, "{request:?}");
        assert_eq!(answer.header("access-control-anything"), None);
        let said: Vec<_> = answer
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case("vary"))
            .map(|(_, v)| v.as_str())
            .collect();
        assert_eq!(said, vary, "{request:?}");
    }
    for lines in ["Vary: accept, ORIGIN\r\n", "Vary: *\r\n"] {
        let w = world_with(Behaviour::Fields(lines), "");
        let (_, token) = w.gateway.token("demo", &json!(null));
        let answer = w.gateway.send(&get(SEARCH).widget(&token));
        assert_eq!(answer.header("vary").map(|v| format!("Vary: {v}\r\n")).as_deref(), Some(lines));
    }
}

#[test]
fn routes_share_with_their_own_lists() {
    let w = world(LISTS);
    let (_, key) = w.gateway.key("demo", &json!({}));
    let (_, token) = w.gateway.token("demo", &json!(null));
    let (app, desk, partner) =
        ("https://app.example", "https://desk.example", "https://a.partner.example");
    let exposed = format!("{EXPOSED}, x-total");
    for (request, origin, vary, shared, expected) in [
        (get("/search/x"), app, true, true, "200 ok"),
        (get("/search/x"), DEMO, true, false, "200 ok"),
        (get("/open"), app, false, false, "200 ok"),
        (get("/nowhere"), app, false, false, "404 not_found"),
        (request("DELETE", "/widget/x"), DEMO, true, true, "404 not_found"),
        (request("DELETE", "/widget/x"), app, true, false, "404 not_found"),
        (
            request("POST", "/shops/me/widget-token").key("bad"),
            desk,
            true,
            true,
            "401 invalid_credential",
        ),
        // The door is open, but the key is the shop's, and the token too.
        (
            request("POST", "/shops/me/widget-token").key(&key),
            desk,
            true,
            true,
            "403 origin_mismatch",
        ),
        (get("/widget/x").widget(&token), partner, true, true, "403 origin_mismatch"),
        (request("POST", "/shops/me/widget-token").key(&key), DEMO, true, false, "201 ok"),
    ] {
        let answer = w.gateway.send(&request.clone().header("Origin", origin));
        assert_eq!(answer.outcome(), expected, "{request:?} {origin}");
        assert_eq!(answer.header("vary"), vary.then_some("Origin"), "{request:?} {origin}");
        let fields = [Some(origin), None, None, None, Some(exposed.as_str())];
        assert_eq!(
            cors_fields(&answer),
            if shared { fields } else { NOTHING },
            "{request:?} {origin}"
        );
    }
    w.gateway.api_ok("PATCH", "/shops/demo", &json!({"url": desk}));
    let issue = request("POST", "/shops/me/widget-token").key(&key).header("Origin", desk);
    let answer = w.gateway.send(&issue);
    assert_eq!(answer.outcome(), "201 ok");
    assert_eq!(answer.header("access-control-allow-origin"), Some(desk));
}

#[test]
fn loopback_pages_are_allowed_only_where_the_configuration_says_so() {
    let w = world("[widget]\nallow_loopback_origins = true\n");
    for (origin, path, expected) in [
        ("http://localhost:3000", SEARCH, "204"),
        ("http://a.localhost", SEARCH, "204"),
        ("http://[::1]:3000", SEARCH, "204"),
        ("http://localhost.evil.com", SEARCH, "403 origin_mismatch"),
        ("http://localhost:3000", "/api/search/x", "403 origin_mismatch"),
        ("http://localhost:3000", "/api/plugin/shops/demo/x", "403 origin_mismatch"),
    ] {
        let request = preflight(origin, "GET", path);
        assert_eq!(outcome(&w, &request), expected, "{origin} {path}");
    }
}
