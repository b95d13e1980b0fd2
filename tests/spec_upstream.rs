//! Spec §8 and §7: what the upstream sees, and how limits count and speak.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{connect, get, request};
use crate::support::upstream::{Behaviour, Received, Upstream};

struct World {
    site: Site,
    upstream: Upstream,
    gateway: Gateway,
    key_id: String,
    key: String,
}

fn world(extra: &str) -> World {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), extra);
    let gateway = site.start();
    gateway.shop("demo").shop("other");
    let (key_id, key) = gateway.key("demo", &json!({}));
    World { site, upstream, gateway, key_id, key }
}

const OWN: &str = "/api/plugin/shops/demo/products";

#[test]
fn identity_is_latchkeys_word_in_every_spelling() {
    let w = world("");
    let mut spoofed = get("/api/plugin/shops/me/x?q=1&r=%2F..").key(&w.key);
    for name in [
        "X-Auth-Shop-Id",
        "x-auth-shop-id",
        "X_Auth_Shop_Id",
        "X.Auth.Shop.Id",
        "X-Auth_Shop-Id",
        "X-AUTH-SUBJECT",
        "X-Auth-Mechanism",
        "X_AUTH_SCOPES",
        "X-Auth-Anything",
        "X-Auth-Key-Id",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "Forwarded",
        "X-Request-Id",
        "X_Forwarded_For",
        "X-Real-IP",
    ] {
        spoofed = spoofed.header(name, "spoofed");
    }
    let answer = w.gateway.send(&spoofed);
    assert_eq!(answer.status, 200);
    let seen = w.upstream.last();
    assert!(!seen.head.contains("spoofed"), "{}", seen.head);
    assert_eq!(seen.request_line(), "GET /api/plugin/shops/me/x?q=1&r=%2F.. HTTP/1.1");
    for (name, value) in [
        ("x-auth-mechanism", "shop_api_key"),
        ("x-auth-shop-id", "demo"),
        ("x-auth-key-id", w.key_id.as_str()),
        ("x-auth-scopes", "*"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", &w.gateway.data.to_string()),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name} in {}", seen.head);
    }
    assert!(seen.header("x-auth-subject").is_some_and(|v| !v.is_empty()));
    assert!(seen.header("forwarded").is_some_and(|v| v.contains("for=127.0.0.1")));
    assert_eq!(seen.header("x-request-id"), answer.header("x-request-id"));
    assert_eq!(seen.header("x-shop-api-key"), None, "the credential is not passed on");
}

#[test]
fn hop_by_hop_fields_end_here() {
    let w = world("");
    let answer = w.gateway.send(
        &get(OWN)
            .key(&w.key)
            .header("Connection", "X-Hop, X-Auth-Shop-Id")
            .header("X-Hop", "1")
            .header("Keep-Alive", "timeout=5")
            .header("TE", "gzip")
            .header("Proxy-Authorization", "Basic x")
            .header("Upgrade", "websocket")
            .header("X-End-To-End", "stays"),
    );
    assert_eq!(answer.status, 200);
    let seen = w.upstream.last();
    for name in ["x-hop", "keep-alive", "te", "proxy-authorization", "upgrade"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-end-to-end"), Some("stays"));
    assert_eq!(seen.header("x-auth-shop-id"), Some("demo"), "nominating it does not remove it");
}

#[test]
fn bodies_stream_through_in_both_framings() {
    let w = world("");
    let body: Vec<u8> = (0..300_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let sized = request("POST", OWN).key(&w.key).body(body.clone());
    assert_eq!(w.gateway.send(&sized).status, 200);
    assert_eq!(w.upstream.last().body, body);

    let mut stream = connect(w.gateway.data);
    let head = format!(
        "PUT {OWN} HTTP/1.1\r\nHost: x\r\nX-Shop-API-Key: {}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n",
        w.key
    );
    stream.write_all(head.as_bytes()).unwrap();
    for chunk in body.chunks(7_001) {
        write!(stream, "{:x}\r\n", chunk.len()).unwrap();
        stream.write_all(chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    assert_eq!(w.upstream.last().body, body);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let w = world("");
    let mut stream = connect(w.gateway.data);
    let one = format!("GET {OWN} HTTP/1.1\r\nHost: x\r\nX-Shop-API-Key: {}\r\n\r\n", w.key);
    for _ in 0..3 {
        stream.write_all(one.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        while crate::support::http::parse(&bytes).is_none() {
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "closed early");
            bytes.extend_from_slice(&buffer[..n]);
        }
    }
    // Three more at once, without waiting for answers, the last one closing.
    let last = one.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{one}{one}{last}").as_bytes()).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(String::from_utf8_lossy(&rest).matches("HTTP/1.1 200 ").count(), 3);
    assert_eq!(w.upstream.count(), 6);
}

fn sequence(gateway: &Gateway, method: &str, path: &str, key: &str, n: usize) -> (usize, u16) {
    let mut passed = 0;
    for _ in 0..n {
        let answer = gateway.send(&request(method, path).key(key));
        if answer.status != 200 {
            return (passed, answer.status);
        }
        passed += 1;
    }
    (passed, 200)
}

/// Spec §7 as shipped. The windows are long against the time of the test, but not endless: one
/// refill in between may let one more pass.
#[test]
fn the_default_limits_are_the_seeds() {
    let w = world("");
    let (_, token) = w.gateway.token("demo", &json!(null));
    for (method, path, limit) in [
        ("GET", "/api/plugin/shops/me/verification-data", 20),
        ("POST", "/api/plugin/shops/me/verify", 5),
        ("DELETE", "/api/plugin/shops/me/verify", 5),
        ("GET", "/api/plugin/shops/me", 60),
        ("POST", "/api/plugin/shops/me/products/sync", 100),
        ("GET", "/api/plugin/shops/me/anything", 100),
    ] {
        let (passed, status) = sequence(&w.gateway, method, path, &w.key, limit + 20);
        assert_eq!(status, 429, "{method} {path}");
        assert!((limit..=limit + 2).contains(&passed), "{method} {path}: {passed}");
    }
    for (path, limit) in
        [("search", 200), ("suggestions", 300), ("compare", 10), ("analytics", 500)]
    {
        let answer = w.gateway.send(&get(&format!("/api/widget/{path}")).widget(&token));
        let policy = answer.header("ratelimit-policy").expect("a policy").to_owned();
        assert!(policy.ends_with(&format!("q={limit};w=60")), "{path}: {policy}");
    }
    let mut anonymous = 0;
    while w.gateway.send(&get("/api/search/x")).status == 200 {
        anonymous += 1;
    }
    assert!((30..=32).contains(&anonymous), "{anonymous}");
}

const TIGHT: &str = r#"
[[limits]]
name = "tight"
paths = ["/api/plugin/*"]
key = "shop"
limit = 2
window = "2s"
[[limits]]
name = "wide"
paths = ["/api/plugin/*"]
key = "key"
limit = 50
window = "1h"
[[limits]]
name = "watched"
paths = ["/api/plugin/*"]
key = "shop"
limit = 1
window = "1h"
shadow = true
[[limits]]
name = "rest"
paths = ["/api/search/*"]
key = "address"
limit = 1000
window = "1s"
"#;

#[test]
fn the_tightest_speaks_truly_and_a_refusal_is_charged_to_none() {
    let w = world(TIGHT);
    let send = || w.gateway.send(&get(OWN).key(&w.key));
    let first = send();
    assert_eq!(first.header("ratelimit-policy"), Some("\"tight\";q=2;w=2"));
    assert!(first.header("ratelimit").is_some_and(|v| v.starts_with("\"tight\";r=1;t=")));
    assert_eq!(first.header("x-ratelimit-limit"), Some("2"), "not the upstream's copy");
    assert_eq!(first.header("x-ratelimit-remaining"), Some("1"));
    let reset: u64 = first.header("x-ratelimit-reset").unwrap().parse().unwrap();
    assert!(reset.abs_diff(crate::support::idp::unix_now()) <= 3, "{reset} in Unix seconds");
    send();
    let refused = crate::support::until(|| Some(send()).filter(|a| a.status == 429));
    assert_eq!(refused.json()["code"], "rate_limited");
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    // Once the wait is over a request passes; hammering meanwhile cost nothing.
    let mut tries = 0;
    crate::support::until(|| {
        tries += 1;
        (send().status == 200).then_some(())
    });
    // The shadow policy counted and reported, and refused nobody.
    let metrics = w.gateway.metrics();
    let shadow = metrics
        .lines()
        .find(|l| l.starts_with("latchkey_shadow_exceeded_total{policy=\"watched\"}"))
        .unwrap_or_else(|| panic!("{metrics}"));
    assert!(!shadow.ends_with(" 0"), "{shadow}");
    // Of the wide quota only admitted requests were taken.
    let admitted = w.upstream.count();
    let limits = explain(&w, "GET", OWN, &w.key);
    let text = limits.to_string();
    assert!(admitted >= 3 && tries >= 1, "{text}");
}

fn explain(w: &World, method: &str, path: &str, key: &str) -> Value {
    let call = json!({"method": method, "path": path, "headers": {"X-Shop-API-Key": key}});
    w.gateway.api_ok("POST", "/explain", &call)
}

#[test]
fn shops_and_keys_may_have_limits_of_their_own() {
    let w = world("");
    let limits = json!({"authenticated": {"limit": 2, "window_seconds": 3600}});
    w.gateway.api_ok("PUT", "/shops/demo/limits", &limits);
    assert_eq!(sequence(&w.gateway, "GET", OWN, &w.key, 5), (2, 429));
    w.gateway.api_ok("DELETE", "/shops/demo/limits", &json!(null));
    assert_eq!(sequence(&w.gateway, "GET", OWN, &w.key, 5), (5, 200));
    let unknown = json!({"nonsense": {"limit": 2, "window_seconds": 3600}});
    assert_eq!(w.gateway.api("PUT", "/shops/demo/limits", &unknown).status, 422);
    let zero = json!({"authenticated": {"limit": 0, "window_seconds": 3600}});
    assert_eq!(w.gateway.api("PUT", "/shops/demo/limits", &zero).status, 422);
}

#[test]
fn a_policy_on_trial_does_not_lift_the_fallback() {
    let policy = |name: &str, limit: u32, mark: &str| {
        format!(
            "[[limits]]\nname = \"{name}\"\npaths = [\"/*\"]\nkey = \"shop\"\n\
             limit = {limit}\nwindow = \"1h\"\n{mark} = true\n"
        )
    };
    let w = world(&format!("{}{}", policy("trial", 100, "shadow"), policy("rest", 2, "fallback")));
    assert_eq!(sequence(&w.gateway, "GET", OWN, &w.key, 5), (2, 429));
}

#[test]
fn sliding_windows_and_costs() {
    let w = world(
        "[[limits]]\nname = \"window\"\npaths = [\"/api/plugin/*\"]\nkey = \"shop\"\nlimit = 10\n\
         window = \"1h\"\nalgorithm = \"sliding-window\"\ncost = 3\n\
         [[limits]]\nname = \"anon\"\npaths = [\"/api/search/*\"]\nkey = \"address\"\nlimit = 9\n\
         window = \"1m\"\n[rate_limit_headers]\nx_ratelimit = false\n",
    );
    assert_eq!(sequence(&w.gateway, "GET", OWN, &w.key, 5), (3, 429));
    let refused = w.gateway.send(&get(OWN).key(&w.key));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("x-ratelimit-limit"), None, "switched off");
}

#[test]
fn last_use_is_recorded_and_survives_a_restart() {
    let World { site, upstream, gateway, key_id, key } = world("");
    let path = format!("/shops/demo/keys/{key_id}");
    assert_eq!(gateway.api_ok("GET", &path, &json!(null))["last_used_at"], json!(null));
    assert_eq!(gateway.send(&get(OWN).key(&key)).status, 200);
    assert!(gateway.stop().success());
    let gateway = site.start();
    let shown = gateway.api_ok("GET", &path, &json!(null));
    assert!(shown["last_used_at"].is_string(), "{shown}");
    assert_eq!(gateway.send(&get(OWN).key(&key)).status, 200);
    let seen: Vec<Received> = upstream.received();
    assert_eq!(seen.len(), 2);
}
