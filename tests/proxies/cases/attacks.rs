//! What clients say to pass for somebody else: headers, paths, and questions of their own.

use super::super::peer::Kind;
use super::super::scene::{OWN, Scene, Sent, outcome, told};
use super::super::table::{Cell, Note};
use crate::support::http::{Request, get, request};
use crate::support::upstream::Received;

const SPOOF: &str = "spoofed";

pub(in super::super) fn identity(scene: &mut Scene) -> Cell {
    let mut names = vec![
        "X-Auth-Mechanism",
        "X-Auth-Shop-Id",
        "X-Auth-Key-Id",
        "X-Auth-Subject",
        "X-Auth-Scopes",
        "X-Auth-Assertion",
        "X-Auth-Status",
        "X-Auth-Problem",
        "x_auth_shop_id",
        "X_Auth_Mechanism",
        "X_AUTH_SCOPES",
        "X.Auth.Shop.Id",
        "X-Auth_Shop-Id",
        "X_Auth-Subject",
        "X_Auth.Subject",
        "x.auth-key-id",
        "X-Request-Id",
        "X-Request-ID",
    ];
    without_effect(scene, &names, SPOOF);
    names = vec!["X-Auth-Anything", "x_auth_anything"];
    whole_family(scene, &names, &[Kind::Nginx]);
    Cell::Holds
}

pub(in super::super) fn forwarded(scene: &mut Scene) -> Cell {
    let names = [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Uri",
        "X-Forwarded-Method",
        "X-Original-URI",
        "X-Original-Method",
        "X-Original-Host",
        "X-Original-Scheme",
        "X_Forwarded_For",
        "X.Forwarded.Host",
        "X_Original_URI",
        "X-Real-IP",
        "Forwarded",
    ];
    // Each of these would turn the request into another one that passes, or its sender into
    // somebody who may.
    for value in ["/api/search/spoofed", "192.0.2.7", "OPTIONS", "for=192.0.2.7", SPOOF] {
        without_effect(scene, &names, value);
    }
    whole_family(scene, &["X-Forwarded-Anything"], &[Kind::Nginx, Kind::Caddy, Kind::Traefik]);
    Cell::Holds
}

pub(in super::super) fn overrides(scene: &mut Scene) -> Cell {
    let names = [
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "Proxy",
    ];
    for value in ["/api/search/spoofed", "DELETE", SPOOF] {
        without_effect(scene, &names, value);
    }
    Cell::Holds
}

/// That `names` change no decision and that none of them reaches the API with `value`.
fn without_effect(scene: &mut Scene, names: &[&str], value: &str) {
    let said = |request: Request| names.iter().fold(request, |r, name| r.header(name, value));
    for (what, request, right) in [
        ("no key", get(OWN), "401 missing_credential"),
        ("key", get(OWN).key(&scene.who.key_elsewhere.clone()), "403 network_not_allowed"),
    ] {
        let what = &format!("{value}, {what}");
        let Some(Sent { answer, seen }) = scene.send(what, &said(request)) else { continue };
        scene.check(what, "outcome", Some(&outcome(&answer)), Some(right));
        scene.check_unseen(what, seen.as_ref());
    }
    let what = &format!("{value}, allowed");
    let request = said(get(OWN).key(&scene.who.key_here.clone()));
    let Some(Sent { answer, seen }) = scene.send(what, &request) else { return };
    let Some(seen) = seen else {
        scene.complain(what, format!("did not reach the API: {}", outcome(&answer)));
        return;
    };
    is_mine(scene, what, &seen);
    let left: Vec<&str> = seen.head.split("\r\n").filter(|line| line.contains(value)).collect();
    if !left.is_empty() {
        scene.complain(what, format!("the API is told {left:?}"));
    }
}

/// Names that mean nothing today. Proxies `by_name` pass on the first of them.
fn whole_family(scene: &mut Scene, names: &[&str], by_name: &[Kind]) {
    let what = "other names";
    let request = get(OWN).key(&scene.who.key.clone());
    let request = names.iter().fold(request, |r, name| r.header(name, SPOOF));
    let Some(Sent { seen: Some(seen), .. }) = scene.send(what, &request) else {
        scene.complain(what, "did not reach the API");
        return;
    };
    let left: Vec<&str> = seen.head.split("\r\n").filter(|line| line.contains(SPOOF)).collect();
    if by_name.contains(&scene.kind) {
        let right = format!("{}: {SPOOF}", names[0]);
        scene.check(what, "left", left.first().copied(), Some(&right));
        scene.note(Note::ByNameOnly);
    } else if !left.is_empty() {
        scene.complain(what, format!("the API is told {left:?}"));
    }
}

fn is_mine(scene: &mut Scene, what: &str, seen: &Received) {
    for (field, value) in [("x-auth-mechanism", "shop_api_key"), ("x-auth-shop-id", "demo")] {
        let got = scene.one(what, seen, field);
        scene.check(what, field, got.as_deref(), Some(value));
    }
}

/// A field that `Connection` names is taken away on the way: not the ones that say who calls.
pub(in super::super) fn nominated(scene: &mut Scene) -> Cell {
    let what = "key";
    let names = "x-auth-shop-id, x-auth-mechanism, x-forwarded-uri, x-forwarded-for, \
                 x-original-uri, x-original-method, x-request-id, x-shop-api-key";
    let request = get(OWN).key(&scene.who.key_here.clone()).header("Connection", names);
    let Some(Sent { answer, seen }) = scene.send(what, &request) else { return Cell::Holds };
    if let Some(seen) = seen {
        is_mine(scene, what, &seen);
    } else if answer.status < 400 {
        scene.complain(what, format!("is answered {}", outcome(&answer)));
    }
    Cell::Is(told(&answer))
}

/// Nobody asks latchkey through the proxy what it would say.
pub(in super::super) fn reserved(scene: &mut Scene) -> Cell {
    let endpoint = format!("/.latchkey/auth/{}", scene.kind.name());
    let mut said = Vec::new();
    for target in [
        endpoint.clone(),
        format!("{endpoint}/api/search/x"),
        format!("/{endpoint}"),
        format!("/x/..{endpoint}"),
        format!("/%2elatchkey/auth/{}", scene.kind.name()),
        "/.latchkey/".to_owned(),
        "/.latchkey/jwks.json".to_owned(),
    ] {
        for method in ["GET", "OPTIONS"] {
            let what = &format!("{method} {target}");
            let asked = request(method, &target)
                .header("Origin", "https://demo.example")
                .header("Access-Control-Request-Method", "GET")
                .header("X-Original-URI", "/api/search/x")
                .header("X-Original-Method", "GET")
                .header("X-Original-Host", "x")
                .header("X-Original-Scheme", "http")
                .header("X-Forwarded-Uri", "/api/search/x")
                .header("X-Forwarded-Method", "GET");
            let Some(Sent { answer, seen }) = scene.send(what, &asked) else { continue };
            if !matches!(answer.status, 400 | 403 | 404) {
                scene.complain(what, format!("is answered {}", outcome(&answer)));
            }
            scene.check_unseen(what, seen.as_ref());
            said.push(told(&answer));
        }
    }
    distinct(said)
}

pub(in super::super) fn methods(scene: &mut Scene) -> Cell {
    let key = scene.who.key.clone();
    let trace = request("TRACE", OWN).key(&key).bytes("api.example");
    let connect = b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\
                    Connection: close\r\n\r\n"
        .to_vec();
    refused_bytes(scene, [("TRACE", trace), ("CONNECT", connect)])
}

pub(in super::super) fn dots(scene: &mut Scene) -> Cell {
    odd(
        scene,
        &[
            "/api/search/../plugin/shops/demo/products",
            "/api/search/%2e%2e/plugin/shops/demo/products",
            "/api/search/.%2E/plugin/shops/demo/products",
            "/api/./plugin/shops/demo/products",
            "/api/plugin/shops/demo/products/../../../../search/x/../../plugin/shops/demo/x",
            "/api/plugin/shops/other/../demo/products",
        ],
    )
}

pub(in super::super) fn slashes(scene: &mut Scene) -> Cell {
    odd(scene, &["//api/plugin/shops/demo/products", "/api//plugin/shops/demo/products"])
}

pub(in super::super) fn encoded_slashes(scene: &mut Scene) -> Cell {
    odd(
        scene,
        &[
            "/api/search/..%2fplugin/shops/demo/products",
            "/api/search/..%5cplugin/shops/demo/products",
            "/api/search/x%2f..%2f..%2fplugin/shops/demo/products",
            "/api%2Fplugin/shops/demo/products",
            "/api/search/..\\plugin/shops/demo/products",
        ],
    )
}

pub(in super::super) fn parameters(scene: &mut Scene) -> Cell {
    odd(
        scene,
        &[
            "/api/search/..;/plugin/shops/demo/products",
            "/api/search/..;x=y/plugin/shops/demo/products",
            "/api/search/.;/plugin/shops/demo/products",
        ],
    )
}

pub(in super::super) fn encodings(scene: &mut Scene) -> Cell {
    odd(
        scene,
        &[
            "/api/%2570lugin/shops/demo/products",
            "/%61pi/plugin/shops/demo/products",
            "/api/search/%252e%252e/plugin/shops/demo/products",
            "/api/plugin/shops/%64emo/products",
        ],
    )
}

pub(in super::super) fn unreadable(scene: &mut Scene) -> Cell {
    odd(
        scene,
        &[
            "/api/search/x%00",
            "/api/search/%zz",
            "/api/search/%",
            "/api/search/%ff",
            "/api/search/%c0%af",
        ],
    )
}

/// Where the open part of the API could be taken for the closed part, nobody without a credential
/// gets through.
fn odd(scene: &mut Scene, targets: &[&str]) -> Cell {
    let requests = targets.iter().map(|target| (*target, get(target).bytes("api.example")));
    refused_bytes(scene, requests)
}

pub(in super::super) fn raw(scene: &mut Scene) -> Cell {
    let targets: [(&str, &[u8]); 9] = [
        ("a byte that is no UTF-8", b"/api/search/\xff/../../plugin/shops/demo/x"),
        ("the same in a closed path", b"/api/plugin/shops/demo/\xff"),
        ("a blank", b"/api/plugin/shops/demo/a b"),
        ("a control byte", b"/api/plugin/shops/demo/\x01"),
        ("a tab", b"/api/plugin/shops/demo/\tx"),
        ("a fragment", b"/api/plugin/shops/demo/x#/api/search/x"),
        ("a whole URL", b"http://api.example/api/plugin/shops/demo/x"),
        ("a whole URL of another host", b"http://evil.example/api/plugin/shops/demo/x"),
        ("no path", b"api/plugin/shops/demo/x"),
    ];
    let requests = targets.into_iter().map(|(what, target)| {
        let tail = b" HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n";
        (what, [b"GET ".as_slice(), target, tail].concat())
    });
    refused_bytes(scene, requests)
}

fn refused_bytes<'a>(
    scene: &mut Scene,
    requests: impl IntoIterator<Item = (&'a str, Vec<u8>)>,
) -> Cell {
    let mut said = Vec::new();
    for (what, bytes) in requests {
        let Some(Sent { answer, seen }) = scene.send_bytes(what, &bytes) else {
            said.push("_closed_".to_owned());
            continue;
        };
        if !matches!(answer.status, 400 | 401 | 404 | 405 | 421 | 501) {
            scene.complain(what, format!("is answered {}", outcome(&answer)));
        }
        if let Some(seen) = seen {
            scene.complain(what, format!("reached the API as {}", seen.request_line()));
        }
        said.push(told(&answer));
    }
    distinct(said)
}

fn distinct(mut said: Vec<String>) -> Cell {
    said.sort_by_key(|word| (word.trim_matches('_').to_owned(), word.starts_with('_')));
    said.dedup();
    Cell::Is(said.join(", "))
}

pub(in super::super) fn plain(scene: &mut Scene) -> Cell {
    for target in [
        "/api/search/x?a=/../..&b=%2F%00&c=//",
        "/api/search/%C3%A9?",
        "/api/search/a;b=c",
        "/api/search/a%20b?q=a+b&q=%ff",
        "/api/search/~a!$&'()*+,;=:@",
    ] {
        let Some(Sent { answer, seen }) = scene.send(target, &get(target)) else { continue };
        scene.check(target, "outcome", Some(&outcome(&answer)), Some("200"));
        let line = format!("GET {target} HTTP/1.1");
        let got = seen.as_ref().map(Received::request_line);
        scene.check(target, "request line", got, Some(&line));
    }
    Cell::Holds
}
