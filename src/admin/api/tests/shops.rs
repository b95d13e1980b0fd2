//! Shops, paging, bodies and idempotency.

use axum::http::Method;
use serde_json::{Value, json};

use crate::admin::testing::Bench;

#[tokio::test]
async fn a_shop_lives_and_dies() {
    let bench = Bench::new();
    let body = r#"{"id":"demo","url":"https://demo.example","name":"Demo",
        "widget_origins":["*.demo.example"]}"#;
    let made = bench.post("/api/v1/shops", body).await.expect(201);
    assert_eq!(made.headers["location"], "/api/v1/shops/demo");
    assert_eq!(made.headers["cache-control"], "no-store");
    assert_eq!(made.get("/enabled"), "true");
    assert_eq!(made.get("/created_at"), "2027-01-15T08:00:00Z");
    bench.post("/api/v1/shops", body).await.problem(409, "conflict");

    let read = bench.get("/api/v1/shops/demo").await.expect(200);
    assert_eq!(read.json(), made.json());
    let patched = bench.patch("/api/v1/shops/demo", r#"{"enabled":false}"#).await.expect(200);
    assert_eq!(patched.get("/enabled"), "false");
    assert_eq!(patched.get("/name"), "Demo");
    assert_eq!(patched.get("/revision"), "2");
    let again = bench.patch("/api/v1/shops/demo", r#"{"enabled":false}"#).await.expect(200);
    assert_eq!(again.get("/revision"), "2", "no change is no revision");

    bench.delete("/api/v1/shops/demo").await.expect(204);
    bench.get("/api/v1/shops/demo").await.problem(404, "not_found");
    bench.delete("/api/v1/shops/demo").await.problem(404, "not_found");
    bench.patch("/api/v1/shops/demo", "{}").await.problem(404, "not_found");
}

#[tokio::test]
async fn put_creates_then_replaces_and_is_idempotent() {
    let bench = Bench::new();
    let body = r#"{"url":"https://a.example","name":"A"}"#;
    bench.put("/api/v1/shops/a", body).await.expect(201);
    let limit = r#"{"shop-me":{"limit":7,"window_seconds":60}}"#;
    bench.put("/api/v1/shops/a/limits", limit).await.expect(200);
    let same = bench.put("/api/v1/shops/a", body).await.expect(200);
    assert_eq!(same.get("/revision"), "2");
    let replaced = bench.put("/api/v1/shops/a", r#"{"url":"https://b.example"}"#).await.expect(200);
    assert_eq!(replaced.get("/name"), "", "what is left out gets its default");
    assert_eq!(replaced.get("/limits/shop-me/limit"), "7", "limits are not part of a shop's body");
    bench.put("/api/v1/shops/me", body).await.problem(422, "invalid");
    bench.put("/api/v1/shops/a%2fb", body).await.problem(422, "invalid");
}

#[tokio::test]
async fn faults_of_the_input_are_named_all_at_once() {
    let bench = Bench::new();
    for (body, fields) in [
        (json!({"id":"me","url":"https://a.example"}), vec!["id"]),
        (json!({"id":"a","url":"a.example"}), vec!["url"]),
        (json!({"id":"a","url":"https://a.example/path"}), vec!["url"]),
        (
            json!({"id":"a","url":"x","name":"a\u{0}","widget_origins":["a.example","x y"]}),
            vec!["name", "url", "widget_origins[1]"],
        ),
        (json!({"id":"a","url":"https://a.example","name":"x".repeat(101)}), vec!["name"]),
        (
            json!({"id":"a","url":"https://a.example","widget_origins":vec!["a.example"; 51]}),
            vec!["widget_origins"],
        ),
        (json!({"id":"a","url":"https://a.example","colour":"red"}), vec!["colour"]),
        (json!({"id":"a","url":7}), vec!["url"]),
        (
            json!({"id":"a","url":"https://a.example","widget_origins":["a", 1]}),
            vec!["widget_origins[1]"],
        ),
        (json!({"id":"a"}), vec![""]),
        (json!([]), vec![""]),
    ] {
        let answer = bench.post("/api/v1/shops", &body.to_string()).await;
        assert_eq!(answer.problem(422, "invalid").fields(), fields, "{body}");
    }
    bench.get("/api/v1/shops/a").await.problem(404, "not_found");
}

#[tokio::test]
async fn bodies_that_are_no_json() {
    let bench = Bench::new();
    for body in ["{", "{\"name\":}", "{} {}", "nonsense"] {
        bench.post("/api/v1/shops", body).await;
        let answer = bench.patch("/api/v1/shops/a", body).await;
        answer.problem(400, "malformed_json");
    }
    let large = format!(r#"{{"id":"{}"}}"#, "a".repeat(1 << 20));
    bench.post("/api/v1/shops", &large).await.problem(413, "payload_too_large");
    let mut request = Bench::request(Method::POST, "/api/v1/shops", "{}");
    request.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    request.extensions_mut().insert(crate::admin::Caller::socket());
    bench.answer(request).await.problem(415, "unsupported_media_type");
    bench.post("/api/v1/shops", "").await.problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn what_is_not_there() {
    let bench = Bench::new();
    for path in ["/api/v1", "/api/v1/nothing", "/api/v1/shops/"] {
        bench.get(path).await.problem(404, "not_found");
    }
    for path in ["/api/v1/shops/a.b", "/api/v1/shops/a/keys/key_1", "/api/v1/shops/%ff"] {
        bench.get(path).await.problem(404, "not_found");
    }
    let refused = bench.send(Method::PUT, "/api/v1/shops", "{}").await;
    let refused = refused.problem(405, "method_not_allowed");
    let allow = refused.headers["allow"].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
}

#[tokio::test]
async fn pages_visit_everything_once() {
    let bench = Bench::new();
    for i in 0..7 {
        bench.shop(&format!("s{i}")).await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/shops?limit=3".to_owned();
    loop {
        let page = bench.get(&path).await.expect(200).json();
        let ids = page["items"].as_array().unwrap().iter();
        seen.extend(ids.map(|shop| shop["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/shops?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);
    let all = bench.get("/api/v1/shops?limit=7").await.json();
    assert_eq!(all["next_cursor"], Value::Null);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("cursor=%21", "cursor"),
        ("cursor=bWU", "cursor"),
        ("page=2", "query"),
    ] {
        let answer = bench.get(&format!("/api/v1/shops?{query}")).await;
        assert_eq!(answer.problem(400, "bad_request").fields(), [field], "{query}");
    }
}

#[tokio::test]
async fn an_idempotency_key_makes_a_retry_safe() {
    let bench = Bench::new();
    let send = async |key: &str, path: &str, body: &str| {
        let mut request = Bench::request(Method::POST, path, body);
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        request.extensions_mut().insert(crate::admin::Caller::socket());
        bench.answer(request).await
    };
    let body = r#"{"id":"a","url":"https://a.example"}"#;
    let first = send("k1", "/api/v1/shops", body).await.expect(201);
    assert!(!first.headers.contains_key("idempotent-replayed"));
    let second = send("k1", "/api/v1/shops", body).await.expect(201);
    assert_eq!(second.headers["idempotent-replayed"], "true");
    assert_eq!(second.json(), first.json());
    let other = r#"{"id":"b","url":"https://b.example"}"#;
    send("k1", "/api/v1/shops", other).await.problem(422, "idempotency_conflict");

    let path = "/api/v1/shops/a/keys";
    let made = send("k2", path, r#"{"name":"x"}"#).await.expect(201);
    let secret = made.get("/secret");
    let again = send("k2", path, r#"{"name":"x"}"#).await.expect(201);
    assert_eq!(again.get("/id"), made.get("/id"));
    assert_eq!(again.get("/secret"), "null");
    assert!(!again.text.contains(&secret));
    send("k2", path, r#"{"name":"y"}"#).await.problem(422, "idempotency_conflict");
    let count = bench.get(path).await.json()["items"].as_array().unwrap().len();
    assert_eq!(count, 1);

    let rotate = format!("{path}/{}/rotate", made.get("/id"));
    let fresh = send("k3", &rotate, "").await.expect(201);
    let replay = send("k3", &rotate, "").await.expect(201);
    assert_eq!(replay.get("/id"), fresh.get("/id"));

    let tokens = "/api/v1/shops/a/widget-tokens";
    let token = send("k4", tokens, "{}").await.expect(201);
    let replay = send("k4", tokens, "{}").await.expect(201);
    assert_eq!((replay.get("/id"), replay.get("/token")), (token.get("/id"), "null".into()));

    bench.delete("/api/v1/shops/a").await.expect(204);
    send("k1", "/api/v1/shops", body).await.problem(409, "conflict");
    bench.clock.advance(std::time::Duration::from_secs(24 * 3600));
    send("k1", "/api/v1/shops", body).await.expect(201);
    send(&"x".repeat(256), "/api/v1/shops", other).await.problem(400, "bad_request");
}
