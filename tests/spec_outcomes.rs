//! Spec §5: every row of the table, the order of checks, and the form of a refusal.

use std::collections::BTreeSet;
use std::io::Write as _;

use serde_json::json;

use crate::support::gateway::Site;
use crate::support::http::{Request, connect, exchange, get, request, send_raw};
use crate::support::upstream::Behaviour;
use crate::support::world::{World, world_with};

/// A world with a key of shop `demo` and a widget token that may only search.
struct Outcomes {
    world: World,
    key: String,
    token: String,
}

fn outcomes(behaviour: Behaviour, extra: &str) -> Outcomes {
    let world = world_with(behaviour, extra);
    let (_, key) = world.gateway.key("demo", &json!({}));
    let (_, token) = world.gateway.token("demo", &json!({"scopes": ["search"]}));
    Outcomes { world, key, token }
}

const OWN: &str = "/api/plugin/shops/demo/products";

impl std::ops::Deref for Outcomes {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

/// Rows that need a state of their own (expiry, key sets, time-outs) are in the other tests of
/// this suite; this is the rest of the table, and the form that all refusals share.
#[test]
fn every_refusal_is_a_problem_with_a_stable_code() {
    let w = outcomes(Behaviour::Echo, "");
    let unknown = format!("sk_{}", "0".repeat(32));
    let evil = |request: Request| request.header("Origin", "https://evil.com");
    let mut ids = BTreeSet::new();
    for (request, status, code, challenge) in [
        (get("/api//search"), 400, "bad_request", None),
        (get("/api/search/%2e%2e/x"), 400, "bad_request", None),
        (get(OWN).key(&w.key).key(&w.key), 400, "bad_request", None),
        (get(OWN).header("X-Shop-API-Key", b"\xff"), 400, "bad_request", None),
        (get("/nowhere").key(&w.key), 404, "not_found", None),
        (get(OWN), 401, "missing_credential", Some("X-Shop-API-Key")),
        (get("/api/widget/x"), 401, "missing_credential", Some("X-Widget-Token")),
        (get(OWN).key(&unknown), 401, "invalid_credential", Some("X-Shop-API-Key")),
        (get(OWN).key("sk_x"), 401, "invalid_credential", Some("X-Shop-API-Key")),
        (get("/api/widget/x").widget("x"), 401, "invalid_credential", Some("X-Widget-Token")),
        (get("/api/search/x").bearer("x"), 401, "invalid_credential", Some("Bearer")),
        (evil(get(OWN).key(&w.key)), 403, "origin_mismatch", None),
        (get("/api/plugin/shops/other/x").key(&w.key), 403, "cross_tenant", None),
        (get("/api/widget/compare").widget(&w.token), 403, "insufficient_scope", None),
    ] {
        let answer = w.gateway.send(&request);
        let problem = answer.json();
        assert_eq!((answer.status, problem["code"].as_str()), (status, Some(code)), "{request:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(problem["status"], json!(status));
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|m| !m.is_empty()), "{member}: {problem}");
        }
        let id = problem["request_id"].as_str().expect("a request id").to_owned();
        assert_eq!(answer.header("x-request-id"), Some(id.as_str()));
        assert!(ids.insert(id.clone()), "request ids repeat");
        let challenged = answer.header("www-authenticate");
        match challenge {
            Some(scheme) => assert!(challenged.is_some_and(|c| c.starts_with(scheme)), "{code}"),
            None => assert_eq!(challenged, None, "{code}"),
        }
        if scheme_is_bearer(challenged) && code == "invalid_credential" {
            assert!(challenged.is_some_and(|c| c.contains("error=\"invalid_token\"")));
        }
        let event = w.gateway.wait_for_log(|e| e["request_id"] == json!(id));
        assert_eq!(event["code"], json!(code));
    }
    assert_eq!(w.upstream.count(), 0, "no refused request reached the upstream");
}

fn scheme_is_bearer(challenge: Option<&str>) -> bool {
    challenge.is_some_and(|c| c.starts_with("Bearer"))
}

#[test]
fn the_order_of_checks_is_syntax_credential_tenant_origin_scope_limit() {
    let w = outcomes(
        Behaviour::Echo,
        "[[limits]]\nname = \"tight\"\npaths = [\"/*\"]\nkey = \"shop\"\nlimit = 1\n\
         window = \"1h\"\n[[limits]]\nname = \"anonymous\"\npaths = [\"/api/search/*\"]\n\
         mechanisms = [\"anonymous\"]\nkey = \"address\"\nlimit = 1\nwindow = \"1h\"\n",
    );
    let bad_path = "/api/plugin/shops/other/%2e%2e";
    let evil = |request: Request| request.header("Origin", "https://evil.com");
    // Each request has every fault from its row downwards.
    for (request, expected) in [
        (evil(get(bad_path).key("sk_x")), "400 bad_request"),
        (evil(get("/api/plugin/shops/other/x").key("sk_x")), "401 invalid_credential"),
        (evil(get("/api/plugin/shops/other/x").key(&w.key)), "403 cross_tenant"),
        (evil(get(OWN).key(&w.key)), "403 origin_mismatch"),
        (evil(get("/api/widget/compare").widget(&w.token)), "403 origin_mismatch"),
        (get("/api/widget/compare").widget(&w.token), "403 insufficient_scope"),
        // None of these was charged: the shop's one request is still there.
        (get(OWN).key(&w.key), "200 ok"),
        (get(OWN).key(&w.key), "429 rate_limited"),
        (get("/api/widget/compare").widget(&w.token), "403 insufficient_scope"),
        (evil(get(OWN).key(&w.key)), "403 origin_mismatch"),
    ] {
        assert_eq!(w.outcome(&request), expected, "{request:?}");
    }
}

#[test]
fn an_address_that_keeps_failing_is_throttled_before_its_credentials_are_looked_at() {
    let w = outcomes(Behaviour::Echo, "[failed_attempts]\nlimit = 5\nwindow = \"1h\"\n");
    let guess = |n: u32| get(OWN).key(&format!("sk_{n:032x}"));
    for n in 0..5 {
        assert_eq!(w.outcome(&guess(n)), "401 invalid_credential", "attempt {n}");
    }
    let throttled = w.gateway.send(&guess(6));
    assert_eq!(throttled.outcome(), "429 rate_limited");
    let wait: u64 = throttled.header("retry-after").expect("a wait").parse().expect("seconds");
    assert!((1..=720).contains(&wait), "{wait}");
    assert_eq!(w.outcome(&get(OWN).key(&w.key)), "429 rate_limited", "even a good key");
    // Without a credential there is nothing to guess.
    assert_eq!(w.outcome(&get("/api/search/x")), "200 ok");
    assert_eq!(w.outcome(&get(OWN)), "401 missing_credential");
}

#[test]
fn failed_attempts_never_touch_a_shops_quota() {
    let w = outcomes(Behaviour::Echo, "[failed_attempts]\nlimit = 1000\nwindow = \"1m\"\n");
    for n in 0..150u32 {
        let guess = get(OWN).key(&format!("sk_{n:032x}"));
        assert_eq!(w.outcome(&guess), "401 invalid_credential");
    }
    let answer = w.gateway.send(&get(OWN).key(&w.key));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("99"));
}

#[test]
fn upstream_failures() {
    for (behaviour, expected) in
        [(Behaviour::HangUp, "502 upstream_error"), (Behaviour::Silent, "504 upstream_timeout")]
    {
        let w = outcomes(behaviour, "");
        let answer = w.gateway.send(&get(OWN).key(&w.key));
        assert_eq!(answer.outcome(), expected);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    // Nobody listens.
    let site = Site::new(None, "");
    let gateway = site.start();
    gateway.shop("demo");
    let (_, key) = gateway.key("demo", &json!({}));
    assert_eq!(gateway.send(&get(OWN).key(&key)).outcome(), "502 upstream_unreachable");
}

#[test]
fn an_upstreams_cut_body_never_looks_whole() {
    let w = outcomes(Behaviour::CutBody, "");
    let head = format!(
        "GET {OWN} HTTP/1.1\r\nHost: x\r\nX-Shop-API-Key: {}\r\nConnection: close\r\n\r\n",
        w.key
    );
    let answer = exchange(w.gateway.data, head.as_bytes());
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("content-length: 100"), "{text}");
    assert!(crate::support::http::parse(&answer).is_none(), "a cut body looks whole: {text}");
}

#[test]
fn bounds_answer_with_their_own_status() {
    let w = outcomes(
        Behaviour::Echo,
        "[server]\nbody_bytes_max = 1000\nhead_timeout = \"300ms\"\nbody_timeout = \"300ms\"\n\
         header_bytes_max = \"8KiB\"\nheader_count_max = 50\n",
    );
    let big = request("POST", OWN).key(&w.key).body(vec![b'x'; 1001]);
    assert_eq!(w.outcome(&big), "413 payload_too_large");
    assert_eq!(w.upstream.count(), 0, "an announced excess never reaches the upstream");
    let fits = request("POST", OWN).key(&w.key).body(vec![b'x'; 1000]);
    assert_eq!(w.outcome(&fits), "200 ok");

    let long = get(OWN).header("X-Long", "x".repeat(20_000));
    assert_eq!(w.gateway.send(&long).status, 431);
    let many = (0..60).fold(get(OWN), |r, n| r.header(&format!("X-{n}"), "x"));
    assert_eq!(w.gateway.send(&many).status, 431);

    // A head that does not end.
    let mut slow = connect(w.gateway.data);
    slow.write_all(b"GET /api/search/x HTTP/1.1\r\nHost: x\r\n").expect("a write");
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut slow, &mut answer).expect("an end");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");

    // A body that does not come.
    let stalled = format!(
        "POST {OWN} HTTP/1.1\r\nHost: x\r\nX-Shop-API-Key: {}\r\nContent-Length: 10\r\n\r\nabc",
        w.key
    );
    assert_eq!(send_raw(w.gateway.data, stalled.as_bytes()).outcome(), "408 request_timeout");
}

#[test]
fn what_is_no_http_request_is_400_and_never_reaches_the_upstream() {
    let w = outcomes(Behaviour::Echo, "");
    let key = &w.key;
    let with = |head: &str| head.replace("KEY", &format!("X-Shop-API-Key: {key}"));
    for bad in [
        "GET /api/search/x HTTP/1.1\r\n\r\n",
        "GET /api/search/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /api/search/x HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET /api/search/x HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET http://other/api/search/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /api/search/x y HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /api/search/x HTTP/9.9\r\nHost: a\r\n\r\n",
        "\u{1}\u{2}\u{3}\r\n\r\n",
        "POST /api/plugin/shops/me/x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: 3\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /api/plugin/shops/me/x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: 3\r\n\
         Content-Length: 4\r\n\r\nabcd",
        "POST /api/plugin/shops/me/x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: +3\r\n\r\nabc",
        "POST /api/plugin/shops/me/x HTTP/1.1\r\nHost: a\r\nKEY\r\n\
         Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /api/plugin/shops/me/x HTTP/1.1\r\nHost: a\r\nKEY\r\n\
         Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST /api/plugin/shops/me/x HTTP/1.1\r\nHost: a\r\nKEY\r\n\
         Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "GET /api/search/x HTTP/1.1\r\nHost: a\r\nX-A: b\r\n folded\r\n\r\n",
        "GET /api/search/\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let bytes = with(bad).into_bytes();
        let mut stream = connect(w.gateway.data);
        stream.write_all(&bytes).expect("a write");
        crate::support::http::finish(&stream);
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad:?} was answered {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{bad:?}: {answer:?}");
    }
    assert_eq!(w.upstream.count(), 0);
    let answer = w.gateway.send(&get(OWN).key(&w.key));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("99"), "no quota was touched");
}

#[test]
fn too_many_connections_are_told_at_once() {
    let w = outcomes(Behaviour::Echo, "[server]\nconnections_max = 4\n");
    let held: Vec<_> = (0..4).map(|_| connect(w.gateway.data)).collect();
    crate::support::until(|| w.gateway.metrics().contains("latchkey_connections 4").then_some(()));
    let answer = crate::support::until(|| {
        let answer = exchange(
            w.gateway.data,
            b"GET /api/search/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        );
        String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 503 ").then_some(answer)
    });
    let answer = crate::support::http::parse(&answer).expect("a whole answer");
    assert_eq!(answer.outcome(), "503 overloaded");
    assert!(answer.header("retry-after").is_some());
    drop(held);
    crate::support::until(|| {
        let answer = exchange(
            w.gateway.data,
            b"GET /api/search/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        );
        String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200 ").then_some(())
    });
}
