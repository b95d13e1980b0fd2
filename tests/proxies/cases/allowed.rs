//! Admitted callers: who the API is told they are, and what they are told themselves.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::peer::{CLIENT, Kind};
use super::super::scene::{OWN, Scene, Sent, outcome, values};
use super::super::table::{Cell, Note};
use crate::support::http::{Request, get, request};
use crate::support::upstream::Received;

/// What latchkey says of a caller.
const IDENTITY: [&str; 5] =
    ["x-auth-mechanism", "x-auth-shop-id", "x-auth-key-id", "x-auth-subject", "x-auth-scopes"];

const QUERIED: &str = "/api/plugin/shops/demo/products?q=1&r=%2F..";

pub(in super::super) fn known(scene: &mut Scene) -> Cell {
    let (key, key_id) = (scene.who.key.clone(), scene.who.key_id.clone());
    let (token, token_id) = (scene.who.token.clone(), scene.who.token_id.clone());
    let jwt = scene.who.jwt.clone();
    let subject = "ada l%C3%B6velace";
    let rows: [(&str, Request, [&str; 5]); 6] = [
        ("key", get(QUERIED).key(&key), ["shop_api_key", "demo", &key_id, "-", "*"]),
        (
            "token",
            get("/api/widget/search").widget(&token),
            ["widget_token", "demo", &token_id, "-", "search"],
        ),
        ("JWT", get("/api/search/x").bearer(&jwt), ["jwt", "demo", "-", subject, "catalog:read"]),
        ("anonymous", get("/api/search/x"), ["anonymous", "-", "-", "anonymous", "-"]),
        ("HEAD", request("HEAD", OWN).key(&key), ["shop_api_key", "demo", &key_id, "-", "*"]),
        ("PATCH", request("PATCH", OWN).key(&key), ["shop_api_key", "demo", &key_id, "-", "*"]),
    ];
    for (what, request, identity) in rows {
        let Some(Sent { answer, seen }) = scene.send(what, &request) else { continue };
        scene.check(what, "outcome", Some(&outcome(&answer)), Some("200"));
        let Some(seen) = seen else {
            scene.complain(what, "it did not reach the API");
            continue;
        };
        for (field, value) in IDENTITY.into_iter().zip(identity) {
            let got = scene.one(what, &seen, field);
            scene.check(what, field, got.as_deref(), Some(value));
        }
        named(scene, what, &seen);
        addressed(scene, what, &seen, "http");
        for credential in ["x-shop-api-key", "x-widget-token", "authorization"] {
            scene.check(what, credential, seen.headers(credential).first().copied(), None);
        }
        if what == "key" {
            let line = format!("GET {QUERIED} HTTP/1.1");
            scene.check(what, "request line", Some(seen.request_line()), Some(&line));
        }
    }
    Cell::Holds
}

/// The request has a name of latchkey's.
fn named(scene: &mut Scene, what: &str, seen: &Received) {
    let id = scene.one(what, seen, "x-request-id").unwrap_or_default();
    if id.len() != 32 {
        scene.complain(what, format!("X-Request-Id at the API is {id:?}"));
    }
}

/// Where it comes from, as the proxy knows it.
pub(super) fn addressed(scene: &mut Scene, what: &str, seen: &Received, scheme: &str) {
    let client = CLIENT.to_string();
    let host =
        if scheme == "https" { seen.header("x-forwarded-host") } else { Some("api.example") };
    for (field, right) in [
        ("x-forwarded-for", Some(client.as_str())),
        ("x-forwarded-proto", Some(scheme)),
        ("x-forwarded-host", host),
    ] {
        let got = scene.one(what, seen, field);
        // Envoy leaves `Host` as it came and says nothing twice.
        if field == "x-forwarded-host" && scene.kind == Kind::Envoy && got.is_none() {
            continue;
        }
        scene.check(what, field, got.as_deref(), right);
    }
}

pub(in super::super) fn proven(scene: &mut Scene) -> Cell {
    let what = "key";
    let request = request("POST", &format!("{OWN}?a=b")).key(&scene.who.key.clone());
    let Some(Sent { seen: Some(seen), .. }) = scene.send(what, &request) else {
        scene.complain(what, "it did not reach the API");
        return Cell::Holds;
    };
    let assertion = scene.one(what, &seen, "x-auth-assertion").unwrap_or_default();
    let claims: Value = assertion
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let id = scene.one(what, &seen, "x-request-id");
    for (claim, right) in [
        ("aud", json!("forward-auth")),
        ("jti", json!(id)),
        ("shop_id", json!("demo")),
        ("key_id", json!(scene.who.key_id)),
        ("mechanism", json!("shop_api_key")),
        ("method", json!("POST")),
        ("path", json!(OWN)),
    ] {
        if claims[claim] != right {
            scene.complain(what, format!("{claim} is {} instead of {right}", claims[claim]));
        }
    }
    Cell::Holds
}

/// Where it stands with its limit, and its name.
pub(in super::super) fn told(scene: &mut Scene) -> Cell {
    let fields = [
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-request-id",
    ];
    let cannot = scene.kind == Kind::Traefik;
    for (what, request) in [
        ("key", get(OWN).key(&scene.who.key.clone())),
        ("token", get("/api/widget/search").widget(&scene.who.token.clone())),
        ("JWT", get("/api/search/x").bearer(&scene.who.jwt.clone())),
        ("anonymous", get("/api/search/x")),
    ] {
        let Some(Sent { answer, seen }) = scene.send(what, &request) else { continue };
        let id =
            seen.and_then(|seen| seen.headers("x-request-id").first().map(ToString::to_string));
        for field in fields {
            let got = values(&answer, field);
            let right = match field {
                // What the API says of itself is all there is.
                "x-ratelimit-limit" | "x-request-id" if cannot => got == ["upstream"],
                _ if cannot => got.is_empty(),
                "ratelimit-policy" => got.len() == 1 && got[0].contains("q=1000;w=60"),
                "x-ratelimit-limit" => got == ["1000"],
                "x-request-id" => got.first() == id.as_ref() && got.len() == 1,
                _ => got.len() == 1 && !got[0].is_empty(),
            };
            if !right {
                scene.complain(what, format!("{field} at the client is {got:?}"));
            }
        }
    }
    if cannot {
        scene.note(Note::NothingIntoResponses);
        return Cell::Is("–".to_owned());
    }
    Cell::Holds
}

pub(in super::super) fn bodies(scene: &mut Scene) -> Cell {
    let key = scene.who.key.clone();
    let body = |length: usize| -> Vec<u8> {
        (0..length).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect()
    };
    for (method, length) in
        [("HEAD", 0), ("POST", 0), ("PUT", 10), ("POST", 100_000), ("POST", 900_000)]
    {
        let what = &format!("{method} with {length} bytes");
        let request = request(method, OWN).key(&key).body(body(length));
        let Some(Sent { answer, seen }) = scene.send(what, &request) else { continue };
        whole(scene, what, &outcome(&answer), seen.as_ref(), &body(length));
        if method != "HEAD" && answer.body != body(length) {
            scene.complain(what, "the client got another body");
        }
    }
    let what = "chunked";
    let mut bytes = format!(
        "POST {OWN} HTTP/1.1\r\nHost: api.example\r\nX-Shop-API-Key: {key}\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    for chunk in body(100_000).chunks(7_919) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    if let Some(Sent { answer, seen }) = scene.send_bytes(what, &bytes) {
        whole(scene, what, &outcome(&answer), seen.as_ref(), &body(100_000));
    }
    Cell::Holds
}

fn whole(scene: &mut Scene, what: &str, outcome: &str, seen: Option<&Received>, body: &[u8]) {
    scene.check(what, "outcome", Some(outcome), Some("200"));
    if seen.is_none_or(|seen| seen.body != body) {
        scene.complain(what, "the API got another body");
    }
}
