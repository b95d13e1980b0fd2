//! Pages of a shop's site: preflights, calls, and answers that their scripts can read.

use super::super::peer::Kind;
use super::super::scene::{Scene, Sent, outcome, problem, values};
use super::super::table::{Cell, Note};
use crate::support::http::{Request, Response, get, request};

const SITE: &str = "https://demo.example";

pub(in super::super) fn preflights(scene: &mut Scene) -> Cell {
    for (origin, right) in [(SITE, "204"), ("https://evil.com", "403 origin_mismatch")] {
        let request = request("OPTIONS", "/api/widget/search")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET")
            .header("Access-Control-Request-Headers", "x-widget-token");
        let Some(Sent { answer, seen }) = scene.send(origin, &request) else { continue };
        scene.check(origin, "outcome", Some(&outcome(&answer)), Some(right));
        scene.check_unseen(origin, seen.as_ref());
        let allowed = Some(origin).filter(|origin| *origin == SITE);
        shared(scene, origin, &answer, allowed, false);
        let fields = values(&answer, "access-control-allow-headers").concat();
        if fields.contains("x-widget-token") != allowed.is_some() {
            scene.complain(origin, format!("Access-Control-Allow-Headers is {fields:?}"));
        }
    }
    Cell::Holds
}

fn call() -> Request {
    get("/api/widget/search").header("Origin", SITE)
}

pub(in super::super) fn refusal(scene: &mut Scene) -> Cell {
    let token = scene.who.token.clone();
    for (what, request, right) in [
        ("no token", call(), "401 missing_credential"),
        (
            "no scope",
            get("/api/widget/compare").header("Origin", SITE).widget(&token),
            "403 insufficient_scope",
        ),
    ] {
        let Some(Sent { answer, seen }) = scene.send(what, &request) else { continue };
        scene.check(what, "outcome", Some(&outcome(&answer)), Some(right));
        scene.check_unseen(what, seen.as_ref());
        shared(scene, what, &answer, Some(SITE), true);
    }
    Cell::Holds
}

pub(in super::super) fn success(scene: &mut Scene) -> Cell {
    let what = "token";
    let request = call().widget(&scene.who.token.clone());
    let Some(Sent { answer, .. }) = scene.send(what, &request) else { return Cell::Holds };
    scene.check(what, "outcome", Some(&outcome(&answer)), Some("200"));
    if scene.kind == Kind::Traefik {
        let origins = values(&answer, "access-control-allow-origin");
        if origins != ["*"] {
            scene.complain(what, format!("Access-Control-Allow-Origin is {origins:?}"));
        }
        scene.note(Note::NothingIntoResponses);
        return Cell::Is("–".to_owned());
    }
    shared(scene, what, &answer, Some(SITE), true);
    Cell::Holds
}

/// Whether a page may read it, and what of it.
fn shared(scene: &mut Scene, what: &str, answer: &Response, allowed: Option<&str>, exposes: bool) {
    let origins = values(answer, "access-control-allow-origin");
    if origins.iter().map(String::as_str).ne(allowed) {
        scene.complain(what, format!("Access-Control-Allow-Origin is {origins:?}"));
    }
    let exposed = values(answer, "access-control-expose-headers").concat();
    if exposes && !exposed.contains("Retry-After") {
        scene.complain(what, format!("Access-Control-Expose-Headers is {exposed:?}"));
    }
    if !values(answer, "vary").concat().to_lowercase().contains("origin") {
        scene.complain(what, format!("Vary is {:?}", values(answer, "vary")));
    }
}

/// What latchkey answers itself is sent to it, whole.
pub(in super::super) fn issue(scene: &mut Scene) -> Cell {
    let what = "widget token";
    let key = scene.who.key.clone();
    let issue = request("POST", "/api/plugin/shops/demo/widget-token");
    let issue = issue.json(&serde_json::json!({"scopes": ["search"]}));
    if let Some(Sent { answer, seen }) = scene.send(what, &issue.clone().key(&key)) {
        scene.check(what, "status", Some(&answer.status.to_string()), Some("201"));
        let token = problem(&answer)["token"].as_str().unwrap_or_default().to_owned();
        scene.check_unseen(what, seen.as_ref());
        let used = scene.send("its token", &get("/api/widget/search").widget(&token));
        let used = used.map(|sent| outcome(&sent.answer));
        scene.check("its token", "outcome", used.as_deref(), Some("200"));
    }
    if let Some(Sent { answer, seen }) = scene.send("no key", &issue) {
        let got = outcome(&answer);
        scene.check("no key", "outcome", Some(&got), Some("401 missing_credential"));
        scene.check_unseen("no key", seen.as_ref());
    }
    // It is issued where the key may be used, and that is where the client is.
    let elsewhere = issue.key(&scene.who.key_elsewhere.clone());
    let spoofed = elsewhere.header("X-Forwarded-For", "192.0.2.7").header("X-Real-IP", "192.0.2.7");
    if let Some(Sent { answer, .. }) = scene.send("from elsewhere", &spoofed) {
        let got = outcome(&answer);
        scene.check("from elsewhere", "outcome", Some(&got), Some("403 network_not_allowed"));
    }
    Cell::Holds
}
