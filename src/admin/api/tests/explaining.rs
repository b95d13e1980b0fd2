//! `explain`: a row for each stage that can end a decision.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::admin::testing::Bench;
use crate::decision::rate_limit::Limits as _;

/// Expects that `stage` ended the decision, those before it passed, those after were not reached.
async fn check(bench: &Bench, request: Value, code: &str, stage: &str) {
    let answer = bench.post("/api/v1/explain", &request.to_string()).await.expect(200);
    let json = answer.json();
    assert_eq!(json["decision"], "deny", "{}", answer.text);
    assert_eq!(json["code"], code, "{}", answer.text);
    let stages = json["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 6);
    let mut expected = "passed";
    for found in stages {
        assert!(found["why"].as_str().unwrap().ends_with('.'), "{found}");
        if found["stage"] == stage {
            assert_eq!(found["verdict"], "refused", "{}", answer.text);
            expected = "not_reached";
        } else {
            assert_eq!(found["verdict"], expected, "{}", answer.text);
        }
    }
    assert_eq!(expected, "not_reached", "no stage {stage}");
    for value in request["headers"].as_object().into_iter().flat_map(|headers| headers.values()) {
        let secret = value.as_str().unwrap_or_default();
        assert!(!answer.text.contains(secret) || secret.is_empty(), "repeats a header");
    }
}

#[tokio::test]
async fn every_stage_can_refuse() {
    let attempts = "[failed_attempts]\nlimit = 1\nwindow = \"1m\"\n";
    let bench = Bench::with(attempts);
    bench.shop("demo").await;
    let (_, secret) = bench.key("demo").await;
    let (_, token) = bench.token("demo", r#"{"scopes":["search"]}"#).await;
    let unknown = format!("sk_{}", "0".repeat(32));
    let key = |secret: &str| json!({ "X-Shop-API-Key": secret });
    let plugin = |path: &str, headers: Value| -> Value {
        json!({ "method": "GET", "path": path, "headers": headers })
    };
    let me = "/api/plugin/shops/me";
    check(&bench, plugin("/a//b", json!({})), "bad_request", "classify").await;
    check(&bench, plugin("/nothing", json!({})), "not_found", "classify").await;
    check(&bench, plugin(me, json!({})), "missing_credential", "extract").await;
    let twice = json!({ "x-shop-api-key": ["a", "b"] });
    check(&bench, plugin(me, twice), "bad_request", "extract").await;
    check(&bench, plugin(me, key(&unknown)), "invalid_credential", "authenticate").await;
    let other = "/api/plugin/shops/other";
    check(&bench, plugin(other, key(&secret)), "cross_tenant", "authorize").await;
    let foreign = json!({ "x-shop-api-key": secret, "origin": "https://evil.test" });
    check(&bench, plugin(me, foreign), "origin_mismatch", "authorize").await;
    let scoped = plugin("/api/widget/compare", json!({ "x-widget-token": token }));
    check(&bench, scoped, "insufficient_scope", "authorize").await;

    let own = r#"{"shop-me":{"limit":1,"window_seconds":60}}"#;
    bench.put("/api/v1/shops/demo/limits", own).await.expect(200);
    assert_eq!(bench.decide_key(&secret).await, "allow");
    assert_eq!(bench.decide_key(&secret).await, "allow", "explain charges nothing");
    spend(&bench, &secret);
    check(&bench, plugin(me, key(&secret)), "rate_limited", "admit").await;
    spend(&bench, &unknown);
    check(&bench, plugin(me, key(&secret)), "rate_limited", "throttle").await;
}

/// A real request with this key.
fn spend(bench: &Bench, secret: &str) {
    use crate::decision::{Context, Round, evaluate, request::RequestView};
    let snapshot = bench.node.published.load_full();
    let context = Context {
        facts: &*snapshot,
        limits: &*bench.node.limiter,
        verified: &*bench.node.verified,
    };
    let mut headers = axum::http::HeaderMap::new();
    headers.insert("x-shop-api-key", secret.parse().unwrap());
    let view = RequestView {
        method: &axum::http::Method::GET,
        path: "/api/plugin/shops/me",
        headers: &headers,
        client: "127.0.0.1".parse().unwrap(),
    };
    let _ = evaluate(&view, &context, bench.node.now(), Round::First);
}

#[tokio::test]
async fn an_allowed_request_is_explained() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (id, secret) = bench.key("demo").await;
    let request = json!({
        "method": "GET",
        "path": "/api/plugin/shops/me?x=1",
        "headers": { "x-shop-api-key": secret },
        "client": "192.0.2.1",
    });
    let answer = bench.post("/api/v1/explain", &request.to_string()).await.expect(200);
    let json = answer.json();
    assert_eq!(json["decision"], "allow", "{}", answer.text);
    assert_eq!(json["route"], "plugin");
    assert_eq!(json["target"], "upstream:default");
    assert_eq!(json["mechanism"], "shop_api_key");
    assert_eq!(json["principal"]["credential_id"], id);
    assert_eq!(json["principal"]["shop"], "demo");
    assert_eq!(json["limit"]["remaining"], 59);
    let stages = json["stages"].as_array().unwrap();
    assert!(stages.iter().all(|s| s["verdict"] == "passed" && s["why"].as_str().unwrap() != ""));
    assert!(!answer.text.contains(&secret));
    let anonymous = json!({ "method": "GET", "path": "/api/search/x" });
    let answer = bench.post("/api/v1/explain", &anonymous.to_string()).await.expect(200);
    assert_eq!(answer.get("/mechanism"), "anonymous");
}

#[tokio::test]
async fn preflights_are_explained() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let shop = bench.get("/api/v1/shops/demo").await.expect(200);
    let origin = shop.json()["url"].as_str().unwrap().to_owned();
    let not = "not_reached";
    for (origin, path, status, code, classify, authorize) in [
        (&*origin, "/api/widget/x", 204, json!(null), "passed", "passed"),
        ("https://evil.test", "/api/widget/x", 403, json!("origin_mismatch"), "passed", "refused"),
        (&*origin, "/api/search/x", 403, json!("origin_mismatch"), "passed", "refused"),
        (&*origin, "/nowhere", 404, json!("not_found"), "refused", not),
    ] {
        let headers = json!({ "origin": origin, "access-control-request-method": "GET" });
        let request = json!({ "method": "OPTIONS", "path": path, "headers": headers });
        let answer = bench.post("/api/v1/explain", &request.to_string()).await.expect(200);
        let json = answer.json();
        assert_eq!((&json["status"], &json["code"]), (&json!(status), &code), "{}", answer.text);
        let verdicts = [classify, not, not, not, authorize, not];
        let stages = json["stages"].as_array().unwrap();
        assert!(stages.iter().map(|s| &s["verdict"]).eq(verdicts), "{}", answer.text);
        assert!(stages.iter().all(|s| s["why"].as_str().unwrap().ends_with('.')));
    }
}

#[tokio::test]
async fn requests_that_cannot_be_explained() {
    let bench = Bench::new();
    for (request, field) in [
        (json!({ "method": "G T", "path": "/" }), "method"),
        (json!({ "method": "GET", "path": "/", "client": "here" }), "client"),
        (json!({ "method": "GET", "path": "/", "headers": { "a b": "x" } }), "headers[0]"),
        (json!({ "method": "GET", "path": "/", "headers": { "a": "se\ncret" } }), "headers.a"),
        (json!({ "method": "GET", "path": "/", "headers": { "a": 5 } }), "headers.a"),
        (json!({ "method": "GET", "path": "/", "body": "x" }), "body"),
    ] {
        let refused = bench.post("/api/v1/explain", &request.to_string()).await;
        let refused = refused.problem(422, "invalid");
        assert_eq!(refused.fields(), [field], "{request}");
        assert!(!refused.text.contains("cret"));
    }
}

#[tokio::test]
async fn explaining_counts_no_failed_attempt() {
    let bench = Bench::with("[failed_attempts]\nlimit = 1\nwindow = \"1m\"\n");
    let unknown = format!("sk_{}", "0".repeat(32));
    for _ in 0..5 {
        assert_eq!(bench.decide_key(&unknown).await, "invalid_credential");
    }
    assert_eq!(bench.node.limiter.occupancy(bench.node.now().mono), 0);
    assert_eq!(Arc::strong_count(&bench.node.limiter), 1);
    let _ = bench.node.limiter.charge(&[], bench.node.now().mono);
}
