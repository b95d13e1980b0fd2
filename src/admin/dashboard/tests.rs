//! The frame, without a listener: what templates make of hostile text, whom it believes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use proptest::prelude::*;
use tower::ServiceExt as _;

use super::cookies;
use super::form::Errors;
use super::frame::{Flash, next_of, query_value, spans};
use crate::admin::operations::sign_in::{self, Vouched};
use crate::admin::origin::Reached;
use crate::admin::percent::encoded;
use crate::admin::testing::Bench;
use crate::decision::denial::Code;
use crate::decision::origin::Origin;
use crate::events::Refusal;
use crate::store::{OidcSubject, Role};

/// What nobody may ever read as markup, as a direction, or as too long.
const HOSTILE: &str = "\"'><script>alert(1)</script>&{{7171*7177}}\u{202e}`x";

/// The cookie of an owner with this name.
async fn cookie_of(bench: &Bench, name: &str, secure: bool) -> String {
    let vouched = Vouched {
        subject: OidcSubject { issuer: "https://id.example".into(), subject: name.into() },
        name: name.to_owned(),
        role: Role::Owner,
        shops: std::collections::BTreeSet::new(),
    };
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let entered = sign_in::vouched(&bench.node, vouched, from, "a test").await.unwrap();
    format!("{}={}", cookies::name(cookies::SESSION, secure), entered.cookie.expose())
}

async fn ask(bench: &Bench, request: Request<Body>) -> Response<Body> {
    crate::admin::router(Arc::clone(&bench.node)).oneshot(request).await.unwrap()
}

async fn html(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn get(path: &str, cookie: &str) -> Request<Body> {
    Request::get(path).header("cookie", cookie).body(Body::empty()).unwrap()
}

/// No text became markup.
#[track_caller]
fn is_inert(page: &str) {
    for tag in ["<script>", "alert(1)</script", "\"'>", "{{"] {
        let escaped = page.replace("{{7171*7177}}", "");
        assert!(!escaped.contains(tag), "{tag} in {page}");
    }
    assert!(!page.contains("51466267"), "a template in a text was run: {page}");
}

#[tokio::test]
async fn hostile_texts_stay_texts() {
    let bench = Bench::new();
    let cookie = cookie_of(&bench, "ada", false).await;
    bench.node.events.publish(Refusal {
        sequence: 0,
        skipped: 0,
        at: bench.node.now().unix,
        request_id: HOSTILE.into(),
        trace_id: None,
        method: HOSTILE.into(),
        path: HOSTILE.into(),
        route: None,
        status: 401,
        code: Code::MissingCredential,
        why: HOSTILE.into(),
        client: Ipv4Addr::LOCALHOST.into(),
        shop: None,
        key_id: Some(HOSTILE.into()),
        mechanism: None,
        origin: Some(HOSTILE.into()),
    });
    let flash = Flash::bad(HOSTILE).to_cookie();
    for path in ["/", "/refusals", "/explore?event=1", "/about", "/no/such/page"] {
        let cookies = format!("{cookie}; latchkey-flash={flash}");
        let answer = ask(&bench, get(path, &cookies)).await;
        let gone = answer.headers().get_all("set-cookie").iter();
        let gone = gone.filter(|c| c.to_str().unwrap().starts_with("latchkey-flash=;")).count();
        assert_eq!(gone, 1, "{path}: a message is shown once");
        let page = html(answer).await;
        assert!(page.contains("alert(1)"), "{path}: the message is shown: {page}");
        is_inert(&page);
    }
}

#[tokio::test]
async fn what_was_typed_comes_back_as_text() {
    let bench = Bench::new();
    let cookie = cookie_of(&bench, "ada", false).await;
    let page = html(ask(&bench, get("/explore", &cookie)).await).await;
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let typed = encoded(HOSTILE);
    let names = ["method", "path", "host", "origin", "client", "kind", "credential", "headers"];
    let fields: Vec<String> = names.iter().map(|name| format!("{name}={typed}")).collect();
    let pasted = format!("paste={typed}");
    for body in [fields.join("&"), pasted] {
        let request = Request::post("/explore")
            .header("cookie", &cookie)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(format!("csrf={csrf}&{body}")))
            .unwrap();
        let answer = ask(&bench, request).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let page = html(answer).await;
        is_inert(&page);
        assert!(page.contains("aria-invalid=\"true\""), "beside its field: {page}");
    }
}

#[tokio::test]
async fn cookies_are_held_to_https_where_there_is_https() {
    let bench = Bench::new();
    let reached = |https: bool, origin: &str| Reached {
        https,
        origin: Origin::parse(origin).ok(),
        client: Ipv4Addr::LOCALHOST.into(),
    };
    let set = |headers: &HeaderMap| headers["set-cookie"].to_str().unwrap().to_owned();
    for (https, origin, prefix) in [
        (true, "https://lk.example", "__Host-latchkey-form="),
        (false, "http://localhost:8081", "latchkey-form="),
    ] {
        let mut request = get("/sign-in", "");
        request.extensions_mut().insert(reached(https, origin));
        let answer = ask(&bench, request).await;
        let cookie = set(answer.headers());
        assert!(cookie.starts_with(prefix), "{cookie}");
        assert_eq!(cookie.contains("; Secure"), https, "{cookie}");
        assert!(cookie.contains("; Path=/;") && !cookie.contains("Domain"), "{cookie}");
    }
    // A session's cookie without the prefix may have been set by another host of the domain.
    let plain = cookie_of(&bench, "ada", false).await;
    for (https, expected) in [(true, 303), (false, 200)] {
        let mut request = get("/", &plain);
        request.extensions_mut().insert(reached(https, "https://lk.example"));
        assert_eq!(ask(&bench, request).await.status().as_u16(), expected);
    }
}

#[tokio::test]
async fn live_data_is_for_who_is_signed_in() {
    let bench = Bench::new();
    let cookie = cookie_of(&bench, "ada", false).await;
    let answer = ask(&bench, get("/live/overview?span=24h", &cookie)).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    let data: serde_json::Value = serde_json::from_str(&html(answer).await).unwrap();
    assert_eq!((data["span"].as_str(), data["step_seconds"].as_u64()), (Some("24h"), Some(60)));
    let events = ask(&bench, get("/live/events?after=0", &cookie)).await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    assert_eq!(events.headers()["cache-control"], "no-store");
    for path in ["/live/overview", "/live/events"] {
        assert_eq!(ask(&bench, get(path, "")).await.status(), StatusCode::SEE_OTHER);
    }
}

#[test]
fn a_sign_in_leads_to_places_of_this_site_only() {
    for (asked, place) in [
        ("/", Some("/")),
        ("/shops?q=a%20b", Some("/shops?q=a%20b")),
        ("", None),
        ("shops", None),
        ("//evil.example", None),
        ("/\\evil.example", None),
        ("/a\\b", None),
        ("https://evil.example", None),
        ("/a\r\nset-cookie: x", None),
        ("/ä", None),
    ] {
        assert_eq!(next_of(asked), place, "{asked}");
    }
    assert_eq!(next_of(&format!("/{}", "a".repeat(3000))), None);
}

#[test]
fn queries_are_read() {
    for (query, value) in [
        ("code=a", "a"),
        ("x=1&code=a%2Fb+c", "a/b c"),
        ("code=", ""),
        ("code", ""),
        ("code=%", ""),
        ("code=%zz", ""),
        ("code=%+1", ""),
        ("code=%ff", ""),
        ("code=a&code=b", "a"),
    ] {
        assert_eq!(query_value(Some(query), "code"), value, "{query}");
    }
    assert_eq!(query_value(None, "code"), "");
}

#[test]
fn errors_belong_to_fields() {
    let mut errors = Errors::of("networks[2]", "is not a network");
    errors.add("", "a shop of this id exists");
    assert_eq!(errors.get("networks"), Some("Is not a network."));
    assert_eq!(errors.get("net"), None);
    assert_eq!(errors.others(["networks"]), ["A shop of this id exists."]);
    assert_eq!(errors.others([]).len(), 2);
}

#[test]
fn backticks_mark_code() {
    assert_eq!(
        spans("use `a` or `b`."),
        [(false, "use "), (true, "a"), (false, " or "), (true, "b"), (false, ".")]
    );
    assert_eq!(spans("one ` alone"), [(false, "one ` alone")]);
    assert_eq!(spans("`a`"), [(true, "a")]);
}

proptest! {
    #[test]
    fn a_segment_is_read_back(text in ".{0,80}") {
        let query = format!("a={}", encoded(&text));
        prop_assert_eq!(query_value(Some(&query), "a"), text);
    }

    #[test]
    fn a_message_survives_its_cookie(text in ".{0,200}", good in any::<bool>()) {
        let flash = if good { Flash::good(text) } else { Flash::bad(text) };
        let cookie = flash.to_cookie();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        prop_assert!(cookie.bytes().all(plain));
        if flash.text.len() < 600 {
            prop_assert_eq!(Flash::from_cookie(&cookie), Some(flash));
        }
    }

    #[test]
    fn no_cookie_makes_a_message_of_nonsense(value in ".{0,80}") {
        let _ = Flash::from_cookie(&value);
    }
}
