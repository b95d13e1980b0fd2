//! Refusals: what latchkey would have said itself arrives at the client, and nothing at the API.

use std::collections::BTreeMap;

use super::super::peer::{CLIENT, Kind, exchange_from};
use super::super::scene::{OWN, Scene, Sent, outcome, problem, values};
use super::super::table::{Cell, Note};
use crate::support::http::{Request, Response, get, parse, request};

pub(in super::super) fn challenged(scene: &mut Scene) -> Cell {
    let unknown = format!("sk_{}", "0".repeat(32));
    for (request, right, challenge) in [
        (get(OWN), "401 missing_credential", "X-Shop-API-Key"),
        (get(OWN).key(&unknown), "401 invalid_credential", "X-Shop-API-Key"),
        (get("/api/widget/x"), "401 missing_credential", "X-Widget-Token"),
        (get("/api/search/x").bearer("x"), "401 invalid_credential", "Bearer"),
        (request("POST", OWN).body(vec![b'x'; 100_000]), "401 missing_credential", "X-Shop"),
        (request("DELETE", OWN), "401 missing_credential", "X-Shop"),
    ] {
        let Some(answer) = refused(scene, &request, right) else { continue };
        let challenged = values(&answer, "www-authenticate");
        if challenged.len() != 1 || !challenged[0].starts_with(challenge) {
            scene.complain(right, format!("WWW-Authenticate is {challenged:?}"));
        }
    }
    Cell::Holds
}

pub(in super::super) fn forbidden(scene: &mut Scene) -> Cell {
    let (key, token) = (scene.who.key.clone(), scene.who.token.clone());
    let elsewhere = scene.who.key_elsewhere.clone();
    for (request, right) in [
        (get(OWN).key(&key).header("Origin", "https://evil.com"), "403 origin_mismatch"),
        (get("/api/plugin/shops/other/x").key(&key), "403 cross_tenant"),
        (get("/api/widget/compare").widget(&token), "403 insufficient_scope"),
        (get(OWN).key(&elsewhere), "403 network_not_allowed"),
    ] {
        refused(scene, &request, right);
    }
    Cell::Holds
}

pub(in super::super) fn unroutable(scene: &mut Scene) -> Cell {
    let key = scene.who.key.clone();
    for (request, right) in [
        (get("/nowhere").key(&key), "404 not_found"),
        (request("DELETE", "/nowhere"), "404 not_found"),
        (get("/api/search/a%2fb"), "400 bad_request"),
        (get("/api/search/%25%32%65"), "400 bad_request"),
    ] {
        refused(scene, &request, right);
    }
    Cell::Holds
}

pub(in super::super) fn limited(scene: &mut Scene) -> Cell {
    let twice = get("/api/plugin/shops/demo/twice").key(&scene.who.key.clone());
    for what in ["first", "second"] {
        let Some(Sent { answer, .. }) = scene.send(what, &twice) else { continue };
        scene.check(what, "outcome", Some(&outcome(&answer)), Some("200"));
    }
    let what = "third";
    let Some(answer) = refused(scene, &twice, "429 rate_limited") else { return Cell::Holds };
    // Two an hour is one in half an hour.
    let wait = values(&answer, "retry-after");
    let waits: Vec<u32> = wait.iter().filter_map(|wait| wait.parse().ok()).collect();
    if waits.len() != 1 || !(1..=1800).contains(&waits[0]) {
        scene.complain(what, format!("Retry-After is {wait:?}"));
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
            scene.complain(what, format!("{field} is {got:?}"));
        }
    }
    Cell::Holds
}

pub(in super::super) fn unavailable(scene: &mut Scene) -> Cell {
    let request = get("/api/search/x").bearer(&scene.who.jwt_away.clone());
    let answer = refused(scene, &request, "503 keys_unavailable");
    if answer.is_some_and(|answer| values(&answer, "retry-after").len() != 1) {
        scene.complain("JWT", "no Retry-After");
    }
    Cell::Holds
}

pub(in super::super) fn head(scene: &mut Scene) -> Cell {
    let what = "HEAD";
    let Some(Sent { answer, seen }) = scene.send(what, &request("HEAD", OWN)) else {
        return Cell::Holds;
    };
    scene.check(what, "status", Some(&answer.status.to_string()), Some("401"));
    scene.check(what, "body", Some(&String::from_utf8_lossy(&answer.body)), Some(""));
    scene.check_unseen(what, seen.as_ref());
    let challenges = values(&answer, "www-authenticate").len();
    scene.check(what, "challenges", Some(&challenges.to_string()), Some("1"));
    Cell::Holds
}

/// Some proxies make one field of two, and that is no key.
pub(in super::super) fn twice(scene: &mut Scene) -> Cell {
    let what = "key";
    let key = scene.who.key.clone();
    let Some(Sent { answer, seen }) = scene.send(what, &get(OWN).key(&key).key(&key)) else {
        return Cell::Holds;
    };
    scene.check_unseen(what, seen.as_ref());
    let joins = scene.kind == Kind::Envoy;
    let right = if joins { "401 invalid_credential" } else { "400 bad_request" };
    scene.check(what, "outcome", Some(&outcome(&answer)), Some(right));
    if joins {
        scene.note(Note::JoinsFields);
    }
    Cell::Is(answer.status.to_string())
}

/// Sends a request that is refused through the proxy and to latchkey itself, and compares.
fn refused(scene: &mut Scene, request: &Request, right: &str) -> Option<Response> {
    let Sent { answer, seen } = scene.send(right, request)?;
    scene.check(right, "outcome", Some(&outcome(&answer)), Some(right));
    scene.check_unseen(right, seen.as_ref());
    let itself = exchange_from(CLIENT, scene.gateway().data, &request.bytes("api.example"));
    let itself = itself.ok().and_then(|bytes| parse(&bytes)).expect("latchkey's own answer");
    let (said, truth) = (nameless(&answer, right), nameless(&itself, right));
    if said != truth {
        scene.complain(right, format!("the body is {said} instead of {truth}"));
    }
    let id = problem(&answer)["request_id"].as_str().unwrap_or_default().to_owned();
    let ids = values(&answer, "x-request-id");
    if id.len() != 32 || ids != [id.as_str()] {
        scene.complain(right, format!("X-Request-Id is {ids:?}, in the problem {id:?}"));
    }
    let (fields, truth) = (fields(&answer), fields(&itself));
    for (name, value) in &truth {
        let got = fields.get(name).map(String::as_str);
        scene.check(right, name, got, Some(value));
    }
    for name in ["www-authenticate", "retry-after", "ratelimit"] {
        if fields.contains_key(name) && !truth.contains_key(name) {
            scene.complain(right, format!("{name} is not latchkey's"));
        }
    }
    Some(answer)
}

/// The body without the request's own name, and of limits without the seconds that pass.
fn nameless(answer: &Response, right: &str) -> String {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let id = problem(answer)["request_id"].as_str().unwrap_or("no name").to_owned();
    let text = text.replace(&id, "");
    let is_limit = right.starts_with("429");
    text.chars().map(|c| if is_limit && c.is_ascii_digit() { '#' } else { c }).collect()
}

/// What latchkey says beside the body; of what counts down, only that it is there.
fn fields(answer: &Response) -> BTreeMap<String, String> {
    let own_to_a_connection = ["connection", "content-length", "date", "server", "x-request-id"];
    let counting = ["ratelimit", "x-ratelimit-reset", "retry-after"];
    let mut fields = BTreeMap::<String, String>::new();
    for (name, value) in &answer.headers {
        let name = name.to_ascii_lowercase();
        if own_to_a_connection.contains(&name.as_str()) {
            continue;
        }
        let value = if counting.contains(&name.as_str()) { "there" } else { value };
        let known = fields.entry(name).or_default();
        if !known.is_empty() {
            known.push_str(", ");
        }
        known.push_str(value);
    }
    fields
}
