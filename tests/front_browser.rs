//! Spec §6 as a page's script sees it: real pages in headless Chromium, on other origins than
//! the gateway's.

use serde_json::{Value, json};

use crate::support::browser::{Browser, Pages};
use crate::support::world::{World, world};

/// Calls `arguments[0]` with the widget token `arguments[1]` and a JSON body, which takes a
/// preflight, and returns everything the script can read of the answer.
const CALL: &str = r#"
    const [url, token] = arguments;
    const answer = await fetch(url, {
        method: "POST",
        headers: {"X-Widget-Token": token, "Content-Type": "application/json"},
        body: JSON.stringify({q: "lamp"}),
    });
    const text = await answer.text();
    return {status: answer.status, text, headers: Object.fromEntries(answer.headers)};
"#;

/// The same, up to twenty times, until the answer is 429.
const CALL_UNTIL_LIMITED: &str = r#"
    const [url, token] = arguments;
    for (let i = 0; i < 20; i++) {
        const answer = await fetch(url, {headers: {"X-Widget-Token": token}});
        const text = await answer.text();
        if (answer.status === 429) {
            return {status: 429, text, headers: Object.fromEntries(answer.headers)};
        }
    }
    return {};
"#;

/// Sends without any field that takes a preflight: the browser sends it, and keeps the answer
/// from the script.
const CALL_SIMPLY: &str = "return {status: (await fetch(arguments[0])).status};";

fn problem(answer: &Value) -> Value {
    serde_json::from_str(answer["text"].as_str().unwrap()).unwrap()
}

#[test]
fn a_page_calls_its_widget_route_and_a_foreign_page_reads_nothing() {
    let w = world("");
    let pages = Pages::start();
    let shop = json!({"url": pages.origin("shop.localhost")});
    w.gateway.api_ok("PATCH", "/shops/demo", &shop);
    let (_, token) = w.gateway.token("demo", &json!(null));
    let route = |path: &str| json!(format!("http://{}/api/widget/{path}", w.gateway.data));
    let search = [route("search?q=1"), json!(token)];

    let browser = Browser::start();
    browser.open(&pages.origin("shop.localhost"));
    allowed(&w, &browser.run(CALL, &search));
    refused(&browser.run(CALL, &[route("search"), json!("no token")]));
    limited(&browser.run(CALL_UNTIL_LIMITED, &[route("compare"), json!(token)]));
    assert!(browser.screenshot().starts_with(b"\x89PNG"));

    let passed = w.upstream.count();
    browser.open(&pages.origin("evil.localhost"));
    let denied = json!({"threw": "TypeError: Failed to fetch"});
    assert_eq!(browser.run(CALL, &search), denied, "the preflight is refused");
    assert_eq!(browser.run(CALL_SIMPLY, &[route("search")]), denied, "the 401 is not for it");
    assert_eq!(w.upstream.count(), passed);

    // Who allows the page is not who the page calls: the shop that allows it may be another.
    let other = json!({"widget_origins": [pages.origin("evil.localhost")]});
    w.gateway.api_ok("PATCH", "/shops/other", &other);
    let answer = browser.run(CALL, &search);
    assert_eq!(problem(&answer)["code"], "origin_mismatch", "{answer}");
    assert_eq!(w.upstream.count(), passed);
}

/// The upstream's answer, its body and the limit's headers included.
fn allowed(w: &World, answer: &Value) {
    assert_eq!(answer["status"], 200, "{answer}");
    let echoed = answer["text"].as_str().unwrap();
    assert!(echoed.starts_with("POST /api/widget/search?q=1 HTTP/1.1"), "{echoed}");
    let forwarded = w.upstream.received();
    assert_eq!(forwarded.len(), 1, "the preflight went no further: {forwarded:?}");
    assert_eq!(forwarded[0].body, br#"{"q":"lamp"}"#);
    for name in ["ratelimit", "ratelimit-policy", "x-ratelimit-remaining", "x-request-id"] {
        assert!(answer["headers"][name].is_string(), "{name}: {answer}");
    }
}

/// A 401 that the script can tell apart from others.
fn refused(answer: &Value) {
    let problem = problem(answer);
    assert_eq!((&answer["status"], &problem["code"]), (&json!(401), &json!("invalid_credential")));
    let headers = &answer["headers"];
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["www-authenticate"], "X-Widget-Token realm=\"latchkey\"");
    assert_eq!(headers["x-request-id"], problem["request_id"]);
}

/// A 429 that says when to come back.
fn limited(answer: &Value) {
    assert_eq!(problem(answer)["code"], "rate_limited", "{answer}");
    let headers = &answer["headers"];
    let wait: u64 = headers["retry-after"].as_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(headers["x-ratelimit-remaining"], "0");
}
