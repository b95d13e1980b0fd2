//! The table: what has to hold through every proxy.

use serde_json::Value;

use super::Scene;
use super::peer::Kind;
use crate::support::http::{Request, Response, get, request};
use crate::support::until;
use crate::support::upstream::Received;

const OWN: &str = "/api/plugin/shops/demo/products";

/// What latchkey says of a caller.
const IDENTITY: [&str; 5] =
    ["x-auth-mechanism", "x-auth-shop-id", "x-auth-key-id", "x-auth-subject", "x-auth-scopes"];

pub(super) fn run(scene: &mut Scene) {
    allowed(scene);
    refused(scene);
    limited(scene);
    spoofed(scene);
    odd_paths(scene);
    bodies(scene);
    answered_by_latchkey(scene);
    pages(scene);
    reserved(scene);
    silent(scene);
    discreet(scene);
}

/// Admitted callers, and who the API is told they are.
fn allowed(scene: &mut Scene) {
    let (key, key_id, token) = (scene.key.clone(), scene.key_id.clone(), scene.token.clone());
    let own = "/api/plugin/shops/demo/products?q=1&r=%2F..";
    let rows: [(&str, Request, [&str; 5]); 4] = [
        ("key", get(own).key(&key), ["shop_api_key", "demo", &key_id, "-", "*"]),
        ("token", get("/api/widget/search").widget(&token), ["widget_token", "demo", "", "-", ""]),
        ("anonymous", get("/api/search/x"), ["anonymous", "-", "-", "anonymous", "-"]),
        ("HEAD", request("HEAD", own).key(&key), ["shop_api_key", "demo", &key_id, "-", "*"]),
    ];
    for (name, request, identity) in rows {
        let name = &format!("allowed {name}");
        let Some((answer, seen)) = scene.send(name, &request) else { continue };
        scene.check(name, "outcome", Some(&outcome(&answer)), Some("200"));
        let Some(seen) = seen else {
            scene.complain(name, "it did not reach the API");
            continue;
        };
        for (field, value) in IDENTITY.into_iter().zip(identity) {
            // Of a token's own id, only that it is there.
            let got = one(scene, name, &seen, field);
            match value {
                "" if got.as_ref().is_none_or(|got| got.len() < 5) => {
                    scene.complain(name, format!("{field} is {got:?}"));
                }
                "" => {}
                value => scene.check(name, field, got.as_deref(), Some(value)),
            }
        }
        let id = one(scene, name, &seen, "x-request-id").unwrap_or_default();
        if id.len() != 32 {
            scene.complain(name, format!("X-Request-Id at the API is {id:?}"));
        }
        for credential in ["x-shop-api-key", "x-widget-token", "authorization"] {
            scene.check(name, credential, seen.headers(credential).first().copied(), None);
        }
        if name.ends_with("key") {
            let line = format!("GET {own} HTTP/1.1");
            scene.check(name, "request line", Some(seen.request_line()), Some(&line));
        }
        // Traefik cannot put what it is told into an answer of the API.
        if scene.kind != Kind::Traefik {
            for field in ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-request-id"] {
                let values = values(&answer, field);
                if values.len() != 1 || values[0] == "upstream" || values[0].is_empty() {
                    scene.complain(name, format!("{field} at the client is {values:?}"));
                }
            }
        }
    }
}

/// Refusals: status, code, challenge, problem and nothing at the API.
fn refused(scene: &mut Scene) {
    let (key, token) = (scene.key.clone(), scene.token.clone());
    let elsewhere = scene.key_elsewhere.clone();
    let unknown = format!("sk_{}", "0".repeat(32));
    let evil = |request: Request| request.header("Origin", "https://evil.com");
    for (request, expected, challenge) in [
        (get(OWN), "401 missing_credential", Some("X-Shop-API-Key")),
        (get(OWN).key(&unknown), "401 invalid_credential", Some("X-Shop-API-Key")),
        (get("/api/widget/x"), "401 missing_credential", Some("X-Widget-Token")),
        (get("/api/search/x").bearer("x"), "401 invalid_credential", Some("Bearer")),
        (evil(get(OWN).key(&key)), "403 origin_mismatch", None),
        (get("/api/plugin/shops/other/x").key(&key), "403 cross_tenant", None),
        (get("/api/widget/compare").widget(&token), "403 insufficient_scope", None),
        (get(OWN).key(&elsewhere), "403 network_not_allowed", None),
        (get("/nowhere").key(&key), "404 not_found", None),
        (request("DELETE", "/nowhere"), "404 not_found", None),
        (request("POST", OWN).body(vec![b'x'; 100_000]), "401 missing_credential", Some("X-Shop")),
    ] {
        let name = &format!("refused {expected}");
        let Some((answer, seen)) = scene.send(name, &request) else { continue };
        scene.check(name, "outcome", Some(&outcome(&answer)), Some(expected));
        scene.check(name, "at the API", seen.as_ref().map(|s| s.head.as_str()), None);
        let content_type = values(&answer, "content-type");
        if content_type != ["application/problem+json"] {
            scene.complain(name, format!("Content-Type is {content_type:?}"));
        }
        let challenged = values(&answer, "www-authenticate");
        let right = match challenge {
            Some(scheme) => challenged.len() == 1 && challenged[0].starts_with(scheme),
            None => challenged.is_empty(),
        };
        if !right {
            scene.complain(name, format!("WWW-Authenticate is {challenged:?}"));
        }
        let id = problem(&answer)["request_id"].as_str().unwrap_or_default().to_owned();
        let ids = values(&answer, "x-request-id");
        if id.len() != 32 || ids != [id.as_str()] {
            scene.complain(name, format!("X-Request-Id is {ids:?}, in the problem {id:?}"));
        }
    }
    let name = "refused HEAD";
    if let Some((answer, _)) = scene.send(name, &request("HEAD", OWN)) {
        scene.check(name, "status", Some(&answer.status.to_string()), Some("401"));
        scene.check(name, "body", Some(&String::from_utf8_lossy(&answer.body)), Some(""));
        let challenges = values(&answer, "www-authenticate").len();
        scene.check(name, "challenges", Some(&challenges.to_string()), Some("1"));
    }
    // Some proxies make one header of two, and that is no key.
    let name = "refused, a key twice";
    if let Some((answer, seen)) = scene.send(name, &get(OWN).key(&key).key(&key)) {
        if !["400 bad_request", "401 invalid_credential"].contains(&outcome(&answer).as_str()) {
            scene.complain(name, format!("is answered {}", outcome(&answer)));
        }
        scene.check(name, "at the API", seen.as_ref().map(|s| s.head.as_str()), None);
    }
}

fn limited(scene: &mut Scene) {
    let twice = get("/api/plugin/shops/demo/twice").key(&scene.key.clone());
    for (name, expected) in [("first", "200"), ("second", "200"), ("third", "429 rate_limited")] {
        let name = &format!("limit, {name}");
        let Some((answer, seen)) = scene.send(name, &twice) else { continue };
        scene.check(name, "outcome", Some(&outcome(&answer)), Some(expected));
        if answer.status == 200 {
            continue;
        }
        scene.check(name, "at the API", seen.as_ref().map(|s| s.head.as_str()), None);
        let wait = values(&answer, "retry-after");
        let waits = wait.iter().filter_map(|w| w.parse::<u32>().ok());
        if !waits.eq(waits_within(&wait)) || wait.len() != 1 {
            scene.complain(name, format!("Retry-After is {wait:?}"));
        }
        for (field, start) in [
            ("ratelimit", "\"twice\";r=0;t="),
            ("ratelimit-policy", "\"twice\";q=2;w=3600"),
            ("x-ratelimit-limit", "2"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1"),
        ] {
            let got = values(&answer, field);
            if got.len() != 1 || !got[0].starts_with(start) {
                scene.complain(name, format!("{field} is {got:?}"));
            }
        }
    }
}

/// Those waits that can be true: two an hour is one in half an hour.
fn waits_within(values: &[String]) -> impl Iterator<Item = u32> {
    values.iter().filter_map(|w| w.parse().ok()).filter(|s| (1..=1800).contains(s))
}

/// What a client says of itself has no effect: not on the decision, not at the API.
fn spoofed(scene: &mut Scene) {
    let names = [
        "X-Auth-Mechanism",
        "X-Auth-Shop-Id",
        "X-Auth-Key-Id",
        "X-Auth-Subject",
        "X-Auth-Scopes",
        "X-Auth-Assertion",
        "X-Auth-Anything",
        "x_auth_shop_id",
        "X_Auth_Mechanism",
        "X_AUTH_SCOPES",
        "X.Auth.Shop.Id",
        "X-Auth_Shop-Id",
        "X_Auth-Subject",
        "X-Request-Id",
    ];
    let said = |request: Request| {
        let request = names.iter().fold(request, |r, name| r.header(name, "spoofed"));
        // Each of these would turn the request into another one that passes.
        request
            .header("X-Original-URI", "/api/search/spoofed")
            .header("X-Original-Method", "OPTIONS")
            .header("X-Forwarded-Uri", "/api/search/spoofed")
            .header("X-Forwarded-Method", "OPTIONS")
            .header("X-Original-Host", "spoofed.example")
            .header("X-Forwarded-Host", "spoofed.example")
            .header("X-Forwarded-For", "192.0.2.7")
            .header("X-Real-IP", "192.0.2.7")
            .header("Forwarded", "for=192.0.2.7")
            .header("X_Original_URI", "/api/search/spoofed")
            .header("X_Forwarded_For", "192.0.2.7")
    };
    let name = "spoofed, refused";
    if let Some((answer, seen)) = scene.send(name, &said(get(OWN))) {
        scene.check(name, "outcome", Some(&outcome(&answer)), Some("401 missing_credential"));
        scene.check(name, "at the API", seen.as_ref().map(|s| s.head.as_str()), None);
    }
    let elsewhere = get(OWN).key(&scene.key_elsewhere.clone());
    let name = "spoofed address, refused";
    if let Some((answer, _)) = scene.send(name, &said(elsewhere)) {
        scene.check(name, "outcome", Some(&outcome(&answer)), Some("403 network_not_allowed"));
    }
    let here = scene.key_here.clone();
    let nominated = "x-auth-shop-id, x-auth-mechanism, x-forwarded-uri, x-forwarded-for, \
                     x-original-uri, x-request-id";
    for (name, request) in [
        ("spoofed, allowed", said(get(OWN).key(&here))),
        ("nominated", get(OWN).key(&here).header("Connection", nominated)),
    ] {
        let Some((answer, seen)) = scene.send(name, &request) else { continue };
        let Some(seen) = seen else {
            // A proxy that drops a nominated header before it asks is answered no.
            if name != "nominated" || answer.status < 400 {
                scene.complain(name, format!("did not reach the API: {}", outcome(&answer)));
            }
            continue;
        };
        for (field, value) in [("x-auth-mechanism", "shop_api_key"), ("x-auth-shop-id", "demo")] {
            let got = one(scene, name, &seen, field);
            scene.check(name, field, got.as_deref(), Some(value));
        }
        // nginx removes what it knows the name of, and nothing is said under this one.
        let harmless = |line: &str| {
            line.to_lowercase().contains("original_uri")
                || (scene.kind == Kind::Nginx && line.starts_with("X-Auth-Anything"))
        };
        let lines = seen.head.split("\r\n");
        let left: Vec<&str> =
            lines.filter(|line| line.contains("spoofed") && !harmless(line)).collect();
        if !left.is_empty() {
            scene.complain(name, format!("the API is told {left:?}"));
        }
    }
}

/// Paths that two readers could read in two ways: where the open part of the API could be taken
/// for the closed part, nobody without a credential gets through.
fn odd_paths(scene: &mut Scene) {
    for target in [
        "/api/search/../plugin/shops/demo/products",
        "/api/search/%2e%2e/plugin/shops/demo/products",
        "/api/search/.%2E/plugin/shops/demo/products",
        "/api/search/..%2fplugin/shops/demo/products",
        "/api/search/..%5cplugin/shops/demo/products",
        "/api/search/x%2f..%2f..%2fplugin/shops/demo/products",
        "/api/search/..;/plugin/shops/demo/products",
        "//api/plugin/shops/demo/products",
        "/api//plugin/shops/demo/products",
        "/api/./plugin/shops/demo/products",
        "/api/%2570lugin/shops/demo/products",
        "/%61pi/plugin/shops/demo/products",
        "/api/plugin/shops/demo/products/../../../../search/x/../../plugin/shops/demo/products",
        "/api/search/x%00",
        "/api/search/%ff",
        "/api/search/%zz",
    ] {
        let name = &format!("odd path {target}");
        let Some((answer, seen)) = scene.send(name, &get(target)) else { continue };
        if !matches!(answer.status, 400 | 401 | 404) {
            scene.complain(name, format!("is answered {}", outcome(&answer)));
        }
        if let Some(seen) = seen {
            scene.complain(name, format!("reached the API as {}", seen.request_line()));
        }
    }
    for target in
        ["/api/search/x?a=/../..&b=%2F%00&c=//", "/api/search/%C3%A9?", "/api/search/a;b=c"]
    {
        let name = &format!("odd but plain {target}");
        let Some((answer, seen)) = scene.send(name, &get(target)) else { continue };
        scene.check(name, "outcome", Some(&outcome(&answer)), Some("200"));
        let line = format!("GET {target} HTTP/1.1");
        scene.check(name, "request line", seen.as_ref().map(Received::request_line), Some(&line));
    }
}

fn bodies(scene: &mut Scene) {
    let key = scene.key.clone();
    for length in [0, 10, 100_000, 900_000] {
        let name = &format!("body of {length}");
        let body: Vec<u8> = (0..length).map(|i| b'a' + u8::try_from(i % 23).unwrap_or(0)).collect();
        let post = request("POST", OWN).key(&key).body(body.clone());
        let Some((answer, seen)) = scene.send(name, &post) else { continue };
        scene.check(name, "outcome", Some(&outcome(&answer)), Some("200"));
        if seen.is_none_or(|seen| seen.body != body) {
            scene.complain(name, "the API got another body");
        }
    }
}

/// What latchkey answers itself is sent to it, whole.
fn answered_by_latchkey(scene: &mut Scene) {
    let key = scene.key.clone();
    let name = "widget token";
    let issue = request("POST", "/api/plugin/shops/demo/widget-token").key(&key);
    let issue = issue.json(&serde_json::json!({"scopes": ["search"]}));
    if let Some((answer, seen)) = scene.send(name, &issue) {
        scene.check(name, "status", Some(&answer.status.to_string()), Some("201"));
        let token = problem(&answer)["token"].as_str().map(str::len);
        if token.is_none_or(|length| length < 20) {
            scene.complain(name, "no token is issued");
        }
        scene.check(name, "at the API", seen.as_ref().map(|s| s.head.as_str()), None);
    }
}

/// A page's script on the shop's site: its preflight, its call, and a refusal it can read.
fn pages(scene: &mut Scene) {
    let (site, evil) = ("https://demo.example", "https://evil.com");
    let preflight = |origin: &str| {
        request("OPTIONS", "/api/widget/search")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET")
            .header("Access-Control-Request-Headers", "x-widget-token")
    };
    let call = get("/api/widget/search").header("Origin", site);
    let token = scene.token.clone();
    for (name, request, expected, allowed) in [
        ("preflight", preflight(site), "204", Some(site)),
        ("preflight from elsewhere", preflight(evil), "403 origin_mismatch", None),
        ("call of a page", call.clone().widget(&token), "200", Some(site)),
        ("refused call of a page", call, "401 missing_credential", Some(site)),
    ] {
        let Some((answer, seen)) = scene.send(name, &request) else { continue };
        scene.check(name, "outcome", Some(&outcome(&answer)), Some(expected));
        if expected == "200" {
            // Traefik cannot put what it is told into an answer of the API.
            if scene.kind == Kind::Traefik {
                continue;
            }
        } else {
            scene.check(name, "at the API", seen.as_ref().map(|s| s.head.as_str()), None);
        }
        let origins = values(&answer, "access-control-allow-origin");
        if origins.iter().map(String::as_str).ne(allowed) {
            scene.complain(name, format!("Access-Control-Allow-Origin is {origins:?}"));
        }
        let exposed = values(&answer, "access-control-expose-headers").concat();
        if allowed.is_some() && expected != "204" && !exposed.contains("Retry-After") {
            scene.complain(name, format!("Access-Control-Expose-Headers is {exposed:?}"));
        }
        if !values(&answer, "vary").concat().to_lowercase().contains("origin") {
            scene.complain(name, format!("Vary is {:?}", values(&answer, "vary")));
        }
    }
}

/// Nobody asks latchkey through the proxy what it would say.
fn reserved(scene: &mut Scene) {
    let endpoint = format!("/.latchkey/auth/{}", scene.kind.name());
    for target in [
        endpoint.clone(),
        format!("{endpoint}/api/search/x"),
        format!("/{endpoint}"),
        format!("/x/..{endpoint}"),
        format!("/%2elatchkey/auth/{}", scene.kind.name()),
        "/.latchkey/".to_owned(),
    ] {
        for method in ["GET", "OPTIONS"] {
            let name = &format!("reserved {method} {target}");
            let asked = request(method, &target)
                .header("Origin", "https://demo.example")
                .header("Access-Control-Request-Method", "GET")
                .header("X-Original-URI", "/api/search/x")
                .header("X-Original-Method", "GET")
                .header("X-Original-Host", "x")
                .header("X-Original-Scheme", "http")
                .header("X-Forwarded-Uri", "/api/search/x")
                .header("X-Forwarded-Method", "GET");
            let Some((answer, seen)) = scene.send(name, &asked) else { continue };
            if !matches!(answer.status, 400 | 403 | 404) {
                scene.complain(name, format!("is answered {}", outcome(&answer)));
            }
            scene.check(name, "at the API", seen.as_ref().map(|s| s.head.as_str()), None);
        }
    }
}

/// Without latchkey nobody gets through, and with it again everybody does.
fn silent(scene: &mut Scene) {
    let (own, open) = (get(OWN).key(&scene.key.clone()), get("/api/search/x"));
    if let Some(gateway) = scene.gateway.take() {
        gateway.stop();
    }
    for (name, request) in [("silent, key", &own), ("silent, anonymous", &open)] {
        let Some((answer, seen)) = scene.send(name, request) else { continue };
        if !matches!(answer.status, 403 | 500 | 502 | 503 | 504) {
            scene.complain(name, format!("is answered {}", answer.status));
        }
        scene.check(name, "at the API", seen.as_ref().map(|s| s.head.as_str()), None);
    }
    scene.gateway = Some(scene.site.start());
    let back = until(|| scene.proxy.send(&own).filter(|answer| answer.status == 200));
    scene.check("back", "outcome", Some(&outcome(&back)), Some("200"));
}

/// What the proxy logs holds nobody's credential.
fn discreet(scene: &mut Scene) {
    let log = scene.proxy.log();
    for secret in [&scene.key, &scene.key_here, &scene.key_elsewhere, &scene.token] {
        if let Some(line) = log.lines().find(|line| line.contains(secret.as_str())) {
            scene.complaints.push(format!("the proxy logs a credential: {line}"));
            break;
        }
    }
}

/// `401 missing_credential`; the status alone of what is no problem.
fn outcome(answer: &Response) -> String {
    match problem(answer)["code"].as_str() {
        Some(code) => format!("{} {code}", answer.status),
        None => answer.status.to_string(),
    }
}

fn problem(answer: &Response) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

fn values(answer: &Response, field: &str) -> Vec<String> {
    let of_field = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(field));
    of_field.map(|(_, value)| value.clone()).collect()
}

/// The one value of a field at the API.
fn one(scene: &mut Scene, name: &str, seen: &Received, field: &str) -> Option<String> {
    let values = seen.headers(field);
    if values.len() > 1 {
        scene.complain(name, format!("{field} at the API is {values:?}"));
    }
    values.first().map(|&value| value.to_owned())
}
