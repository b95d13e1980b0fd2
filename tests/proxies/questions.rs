//! The questions and answers themselves, byte by byte, without a proxy in between: the test is the
//! proxy.

use std::io::{Read as _, Write as _};

use serde_json::json;

use super::peer::{CLIENT, connect_from};
use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Request, Response, connect, get, parse, read_all, request};

const OWN: &str = "/api/plugin/shops/demo/products";
const CONTRACTS: [&str; 5] = ["nginx", "traefik", "caddy", "haproxy", "envoy"];
const IDENTITY: [&str; 5] =
    ["x-auth-mechanism", "x-auth-shop-id", "x-auth-key-id", "x-auth-subject", "x-auth-scopes"];

struct Asked {
    gateway: Gateway,
    key: String,
    _site: Site,
}

/// A gateway that trusts 127.0.0.1, which is where the test connects from.
fn asked(contracts: &[&str], extra: &str) -> Asked {
    asked_of("", contracts, extra)
}

/// The same, with more to say in `[server]`.
fn asked_of(server: &str, contracts: &[&str], extra: &str) -> Asked {
    let site = Site::new(
        None,
        &format!(
            "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n{server}\n\
             [forward_auth]\ncontracts = {contracts:?}\n{extra}"
        ),
    );
    let gateway = site.start();
    gateway.shop("demo").shop("other");
    let (_, key) = gateway.key("demo", &json!({}));
    Asked { gateway, key, _site: site }
}

/// What a proxy asks about: `method target` of a client at 192.0.2.1, as `contract` asks it.
fn question(contract: &str, method: &str, target: &str) -> Request {
    if contract == "envoy" {
        return request(method, &format!("/.latchkey/auth/envoy{target}"))
            .header("Host", "api.example")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-For", "192.0.2.1");
    }
    let endpoint = get(&format!("/.latchkey/auth/{contract}"));
    let forwarded = matches!(contract, "traefik" | "caddy");
    let names = if forwarded {
        ["X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host", "X-Forwarded-Proto"]
    } else {
        ["X-Original-Method", "X-Original-URI", "X-Original-Host", "X-Original-Scheme"]
    };
    let values = [method, target, "api.example", "https"];
    let endpoint = endpoint.header("X-Forwarded-For", "192.0.2.1");
    names.into_iter().zip(values).fold(endpoint, |q, (name, value)| q.header(name, value))
}

/// The status that the proxy sees, and the one that the client should.
fn statuses(answer: &Response) -> (u16, u16) {
    let told = answer.header("x-auth-status").map(|s| s.parse().expect("a status"));
    (answer.status, told.unwrap_or(answer.status))
}

#[test]
fn a_yes_is_200_without_a_body_and_says_who_it_is() {
    let w = asked(&CONTRACTS, "");
    let (_, token) = w.gateway.token("demo", &json!({}));
    for contract in CONTRACTS {
        for question in [
            question(contract, "GET", OWN).key(&w.key),
            question(contract, "POST", OWN).key(&w.key),
            question(contract, "BREW", OWN).key(&w.key),
            question(contract, "GET", "/api/widget/search?q=%2F..").widget(&token),
            question(contract, "GET", "/api/search/x"),
        ] {
            let answer = w.gateway.send(&question);
            assert_eq!(answer.status, 200, "{contract}: {question:?}: {}", answer.text());
            assert!(answer.body.is_empty(), "{contract}: {}", answer.text());
            for field in IDENTITY {
                let value = answer.header(field);
                assert!(value.is_some_and(|v| !v.is_empty()), "{contract}: {field} is {value:?}");
            }
            for field in ["x-request-id", "ratelimit", "ratelimit-policy", "x-ratelimit-limit"] {
                assert!(answer.header(field).is_some(), "{contract}: {field} is missing");
            }
            assert_eq!(answer.header("x-auth-assertion"), None);
        }
    }
}

#[test]
fn a_no_is_what_the_proxy_can_carry() {
    let limits = "[[limits]]\nname = \"one\"\npaths = [\"/api/plugin/shops/{shopId}/one\"]\n\
                  key = \"shop\"\nlimit = 1\nwindow = \"1h\"\n\
                  [[limits]]\nname = \"anonymous\"\npaths = [\"/api/search/*\"]\n\
                  mechanisms = [\"anonymous\"]\nkey = \"address\"\nlimit = 9\nwindow = \"1m\"\n";
    for contract in CONTRACTS {
        let w = asked(&[contract], limits);
        let one = question(contract, "GET", "/api/plugin/shops/demo/one").key(&w.key);
        assert_eq!(w.gateway.send(&one).status, 200);
        for (asked, truth, code) in [
            (question(contract, "GET", OWN), 401, "missing_credential"),
            (
                question(contract, "GET", "/api/plugin/shops/other/x").key(&w.key),
                403,
                "cross_tenant",
            ),
            (question(contract, "GET", "/nowhere"), 404, "not_found"),
            (question(contract, "GET", "/api//search"), 400, "bad_request"),
            (question(contract, "GET", "/api/search/../x"), 400, "bad_request"),
            (question(contract, "CONNECT", "/api/search/x"), 400, "bad_request"),
            (one.clone(), 429, "rate_limited"),
        ] {
            if contract == "envoy" && asked.bytes("x").starts_with(b"CONNECT") {
                continue;
            }
            let answer = w.gateway.send(&asked);
            let carried = contract != "nginx" || truth == 401 || truth == 403;
            let seen = if carried { truth } else { 403 };
            assert_eq!(statuses(&answer), (seen, truth), "{contract}: {code}");
            let problem = answer.json();
            assert_eq!(problem["code"], code, "{contract}");
            assert_eq!(problem["status"], truth);
            assert_eq!(answer.header("www-authenticate").is_some(), truth == 401);
            assert_eq!(answer.header("retry-after").is_some(), truth == 429);
            assert_eq!(answer.header("ratelimit").is_some(), truth == 429);
            let header = answer.header("x-auth-problem");
            assert_eq!(header.is_some(), contract == "nginx");
            assert!(header.is_none_or(|p| p.as_bytes() == answer.body), "{header:?}");
            assert!(IDENTITY.iter().all(|field| answer.header(field).is_none()), "{contract}");
        }
    }
}

#[test]
fn only_a_trusted_proxy_is_answered_and_only_by_a_contract_that_is_on() {
    let w = asked(&["nginx"], "");
    let asks = |client, question: &Request| {
        let mut stream = connect_from(client, w.gateway.data).expect("a connection");
        stream.write_all(&question.bytes("x")).expect("a write");
        parse(&read_all(&mut stream).expect("an answer")).expect("a whole answer")
    };
    let good = question("nginx", "GET", OWN).key(&w.key);
    assert_eq!(asks([127, 0, 0, 1].into(), &good).status, 200);
    let stranger = asks(CLIENT, &good);
    assert_eq!(stranger.outcome(), "403 network_not_allowed");
    // No oracle: what it would have been told makes no difference.
    let others = asks(CLIENT, &question("nginx", "GET", "/nowhere"));
    assert_eq!(others.outcome(), "403 network_not_allowed");
    w.gateway.wait_for_log(|line| {
        line["reason"].as_str().is_some_and(|r| r.contains("not in server.trusted_proxies"))
    });
    for contract in CONTRACTS.into_iter().filter(|c| *c != "nginx") {
        let answer = w.gateway.send(&question(contract, "GET", OWN).key(&w.key));
        assert_eq!(answer.outcome(), "404 not_found", "{contract}");
    }
    for path in ["/.latchkey/", "/.latchkey/auth", "/.latchkey/auth/", "/.latchkey/auth/apache"] {
        assert_eq!(w.gateway.send(&get(path)).outcome(), "404 not_found", "{path}");
    }
    // And the spent quota is that of the one yes.
    let answer = w.gateway.send(&good);
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("98"));
}

#[test]
fn an_unreadable_question_is_a_no_that_names_the_missing_line_in_the_log() {
    let w = asked(&CONTRACTS, "");
    let set = |name: &str| question("nginx", "GET", "/api/search/x").without(name);
    for (asked, reason) in [
        (set("X-Original-URI"), "X-Original-URI is missing"),
        (set("X-Original-URI"), "proxy_set_header X-Original-URI $request_uri;"),
        (set("X-Original-Method"), "X-Original-Method is missing"),
        (set("X-Original-Host"), "X-Original-Host is missing"),
        (set("X-Original-Scheme"), "X-Original-Scheme is missing"),
        (set("X-Forwarded-For"), "X-Forwarded-For is missing"),
        (set("none").header("X-Original-URI", "/x"), "X-Original-URI is there more than once"),
        (set("X-Original-URI").header("X-Original-URI", "x"), "does not begin with /"),
        (set("X-Forwarded-For").header("X-Forwarded-For", "1.2.3"), "does not end in an address"),
        (set("X-Forwarded-For").header("X-Forwarded-For", "192.0.2.1, unknown"), "in an address"),
        (set("X-Original-Host").header("X-Original-Host", "a b"), "Host header is not"),
    ] {
        let answer = w.gateway.send(&asked);
        assert_eq!(statuses(&answer), (403, 400), "{reason}");
        let id = answer.header("x-request-id").expect("a name").to_owned();
        let line = w
            .gateway
            .wait_for_log(|line| line["request_id"] == json!(id) && line["reason"].is_string());
        let said = line["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{said:?} does not say {reason:?}");
    }
}

#[test]
fn the_client_address_is_the_one_behind_the_trusted_proxies() {
    // Where direct callers' addresses stand makes no difference to a contract.
    let w = asked_of("forwarding_header = \"forwarded\"", &["caddy"], "");
    let networks = json!({"networks": ["198.51.100.0/24"]});
    let (_, key) = w.gateway.key("demo", &networks);
    for (chain, status) in [
        ("198.51.100.7", 200),
        ("192.0.2.1", 403),
        // What stands left of an address that is nobody's proxy is that address's word.
        ("198.51.100.7, 192.0.2.1", 403),
        ("192.0.2.1, 198.51.100.7", 200),
        ("198.51.100.7, 127.0.0.1", 200),
    ] {
        let asked = question("caddy", "GET", OWN).without("X-Forwarded-For");
        let asked = asked.header("X-Forwarded-For", chain).header("Forwarded", "for=192.0.2.1");
        let answer = w.gateway.send(&asked.key(&key));
        assert_eq!(answer.status, status, "{chain}");
    }
}

#[test]
fn what_latchkey_answers_itself_is_no_question() {
    let w = asked(&CONTRACTS, "");
    for contract in CONTRACTS {
        let issue = question(contract, "POST", "/api/plugin/shops/demo/widget-token").key(&w.key);
        let preflight = question(contract, "OPTIONS", "/api/widget/search")
            .header("Origin", "https://demo.example")
            .header("Access-Control-Request-Method", "GET");
        for asked in [issue, preflight] {
            let answer = w.gateway.send(&asked);
            assert_eq!(statuses(&answer).1, 404, "{contract}: {}", answer.text());
            let id = answer.header("x-request-id").expect("a name").to_owned();
            let line = w
                .gateway
                .wait_for_log(|line| line["request_id"] == json!(id) && line["reason"].is_string());
            assert!(line["reason"].as_str().is_some_and(|r| r.contains("answers")), "{line}");
        }
    }
}

#[test]
fn a_page_can_read_the_answers() {
    let w = asked(&CONTRACTS, "");
    for contract in CONTRACTS {
        let asked = question(contract, "GET", "/api/widget/search");
        let answer = w.gateway.send(&asked.header("Origin", "https://demo.example"));
        assert_eq!(statuses(&answer).1, 401);
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://demo.example"), "{contract}");
    }
}

/// A body is ignored, and the connection goes on behind it.
#[test]
fn a_body_breaks_nothing() {
    let w = asked(&CONTRACTS, "");
    let mut stream = connect(w.gateway.data);
    for length in [1, 5_000, 60_000] {
        let head = format!(
            "POST /.latchkey/auth/envoy{OWN} HTTP/1.1\r\nHost: api.example\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-For: 192.0.2.1\r\nX-Shop-API-Key: {}\r\n\
             Content-Length: {length}\r\n\r\n",
            w.key
        );
        stream.write_all(head.as_bytes()).expect("a write");
        stream.write_all(&vec![b'x'; length]).expect("a write");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
    // Announced and much too long: the answer comes all the same.
    let asked = question("envoy", "POST", OWN).key(&w.key).body(vec![b'x'; 300_000]);
    assert_eq!(w.gateway.send(&asked).status, 200);
}

#[test]
fn a_yes_can_be_proven() {
    let w = asked(&CONTRACTS, "[assertion]\nenabled = true\n");
    for contract in CONTRACTS {
        let answer = w.gateway.send(&question(contract, "GET", OWN).key(&w.key));
        assert_eq!(answer.status, 200, "{contract}");
        let assertion = answer.header("x-auth-assertion").expect("an assertion");
        assert_eq!(assertion.split('.').count(), 3, "{contract}");
    }
}
