//! API keys: life, rotation, revocation, and that their secrets are shown once.

use std::time::Duration;

use axum::http::Method;

use crate::admin::jobs::{Progress, tick};
use crate::admin::testing::Bench;

const KEYS: &str = "/api/v1/shops/demo/keys";

#[tokio::test]
async fn a_key_verifies_from_its_creation_to_its_revocation() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (id, secret) = bench.key("demo").await;
    assert!(secret.starts_with("sk_") && secret.len() == 35);
    assert_eq!(bench.decide_key(&secret).await, "allow");
    let read = bench.get(&format!("{KEYS}/{id}")).await.expect(200);
    assert!(secret.starts_with(&read.get("/start")) && read.get("/start").len() == 7);
    assert_eq!(read.get("/status"), "active");
    bench.delete(&format!("{KEYS}/{id}")).await.expect(204);
    assert_eq!(bench.decide_key(&secret).await, "invalid_credential");
    bench.get(&format!("{KEYS}/{id}")).await.problem(404, "not_found");
    let bench = bench.restart();
    assert_eq!(bench.decide_key(&secret).await, "invalid_credential");
}

#[tokio::test]
async fn a_secret_is_in_no_later_answer() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (id, secret) = bench.key("demo").await;
    let (_, token) = bench.token("demo", "{}").await;
    let made = bench
        .post("/api/v1/admin-tokens", r#"{"name":"a","role":"owner"}"#)
        .await
        .expect(201)
        .get("/secret");
    let explain = format!(
        r#"{{"method":"GET","path":"/api/plugin/shops/me",
            "headers":{{"x-shop-api-key":"{secret}"}}}}"#
    );
    let mut texts = vec![bench.post("/api/v1/explain", &explain).await.text];
    for path in [
        KEYS.to_owned(),
        format!("{KEYS}/{id}"),
        "/api/v1/shops/demo/widget-tokens".into(),
        "/api/v1/admin-tokens".into(),
        "/api/v1/signing-keys".into(),
        "/api/v1/shops".into(),
        "/api/v1/info".into(),
        "/metrics".into(),
        "/readyz".into(),
    ] {
        texts.push(bench.get(&path).await.expect(200).text);
    }
    texts.push(bench.patch(&format!("{KEYS}/{id}"), r#"{"name":"n"}"#).await.expect(200).text);
    for text in texts {
        for secret in [&secret, &token, &made].map(|s| s.chars().skip(7).collect::<String>()) {
            assert!(!text.contains(&secret), "{text}");
        }
    }
}

#[tokio::test]
async fn rotation_without_grace_ends_the_old_key_at_once() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let body = r#"{"name":"n","networks":["127.0.0.1"],"expires_at":"2030-01-01T00:00:00Z"}"#;
    let old = bench.post(KEYS, body).await.expect(201);
    let limit = r#"{"shop-me":{"limit":7,"window_seconds":60}}"#;
    bench.put(&format!("{KEYS}/{}/limits", old.get("/id")), limit).await.expect(200);
    let path = format!("{KEYS}/{}/rotate", old.get("/id"));
    let new = bench.post(&path, "").await.expect(201);
    assert_ne!(new.get("/id"), old.get("/id"));
    assert_eq!(new.get("/name"), "n");
    assert_eq!(new.get("/networks/0"), "127.0.0.1/32");
    assert_eq!(new.get("/expires_at"), "2030-01-01T00:00:00Z");
    assert_eq!(new.get("/limits/shop-me/limit"), "7");
    assert_eq!(bench.decide_key(&old.get("/secret")).await, "invalid_credential");
    assert_eq!(bench.decide_key(&new.get("/secret")).await, "allow");
    bench.post(&path, "").await.problem(404, "not_found");
}

#[tokio::test]
async fn rotation_with_grace_lets_both_keys_verify_for_a_while() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (id, old) = bench.key("demo").await;
    let path = format!("{KEYS}/{id}/rotate");
    for body in [r#"{"grace_seconds":7776001}"#, r#"{"grace_seconds":-1}"#] {
        let refused = bench.post(&path, body).await.problem(422, "invalid");
        assert_eq!(refused.fields(), ["grace_seconds"]);
    }
    let made = bench.post(&path, r#"{"grace_seconds":60}"#).await.expect(201);
    let new = made.get("/secret");
    let retired = bench.get(&format!("{KEYS}/{id}")).await.expect(200);
    assert_eq!(retired.get("/status"), "grace");
    assert_eq!(retired.get("/replaced_by"), made.get("/id"));
    bench.post(&path, "").await.problem(409, "conflict");
    bench.clock.advance(Duration::from_millis(59_999));
    assert_eq!(bench.decide_key(&old).await, "allow");
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.decide_key(&old).await, "invalid_credential");
    assert_eq!(bench.decide_key(&new).await, "allow");
    assert_eq!(bench.get(&format!("{KEYS}/{id}")).await.get("/status"), "rotated");
    tick(&bench.node, &Progress::default());
    bench.get(&format!("{KEYS}/{id}")).await.problem(404, "not_found");
    let bench = bench.restart();
    assert_eq!(bench.decide_key(&old).await, "invalid_credential");
    assert_eq!(bench.decide_key(&new).await, "allow");
}

#[tokio::test]
async fn a_key_expires_and_can_be_prolonged() {
    let bench = Bench::new();
    bench.shop("demo").await;
    for at in ["2027-01-15T08:00:00Z", "2000-01-01T00:00:00Z", "tomorrow"] {
        let body = format!(r#"{{"expires_at":"{at}"}}"#);
        let refused = bench.post(KEYS, &body).await.problem(422, "invalid");
        assert_eq!(refused.fields(), ["expires_at"], "{at}");
    }
    let made = bench.post(KEYS, r#"{"expires_at":"2027-01-15T08:01:00Z"}"#).await.expect(201);
    let path = format!("{KEYS}/{}", made.get("/id"));
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.decide_key(&made.get("/secret")).await, "expired_credential");
    assert_eq!(bench.get(&path).await.get("/status"), "expired");
    bench.post(&format!("{path}/rotate"), "").await.problem(409, "conflict");
    let kept = bench.patch(&path, r#"{"name":"n"}"#).await.expect(200);
    assert_eq!(kept.get("/expires_at"), "2027-01-15T08:01:00Z", "left out stays");
    bench.patch(&path, r#"{"expires_at":null}"#).await.expect(200);
    assert_eq!(bench.decide_key(&made.get("/secret")).await, "allow");
}

#[tokio::test]
async fn networks_bind_a_key() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let refused = bench.post(KEYS, r#"{"networks":["10.0.0.1/8","x"]}"#).await;
    assert_eq!(refused.problem(422, "invalid").fields(), ["networks[0]", "networks[1]"]);
    let made = bench.post(KEYS, r#"{"networks":["10.0.0.0/8"]}"#).await.expect(201);
    let secret = made.get("/secret");
    assert_eq!(bench.decide_key(&secret).await, "network_not_allowed");
    let path = format!("{KEYS}/{}", made.get("/id"));
    bench.patch(&path, r#"{"networks":[]}"#).await.expect(200);
    assert_eq!(bench.decide_key(&secret).await, "allow");
}

#[tokio::test]
async fn a_key_is_found_under_its_own_shop_only() {
    let bench = Bench::new();
    bench.shop("demo").await;
    bench.shop("other").await;
    let (id, secret) = bench.key("demo").await;
    for (method, path, body) in [
        (Method::GET, format!("/api/v1/shops/other/keys/{id}"), ""),
        (Method::PATCH, format!("/api/v1/shops/other/keys/{id}"), "{}"),
        (Method::DELETE, format!("/api/v1/shops/other/keys/{id}"), ""),
        (Method::POST, format!("/api/v1/shops/other/keys/{id}/rotate"), ""),
        (Method::PUT, format!("/api/v1/shops/other/keys/{id}/limits"), "{}"),
        (Method::GET, "/api/v1/shops/none/keys".to_owned(), ""),
        (Method::POST, "/api/v1/shops/none/keys".to_owned(), "{}"),
    ] {
        bench.send(method, &path, body).await.problem(404, "not_found");
    }
    assert_eq!(bench.decide_key(&secret).await, "allow");
}

#[tokio::test]
async fn a_deleted_shop_takes_its_keys_and_tokens_with_it() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (_, secret) = bench.key("demo").await;
    let (_, token) = bench.token("demo", "{}").await;
    bench.delete("/api/v1/shops/demo").await.expect(204);
    assert_eq!(bench.decide_key(&secret).await, "invalid_credential");
    assert_eq!(bench.decide_token(&token).await, "invalid_credential");
    bench.shop("demo").await;
    assert_eq!(bench.decide_key(&secret).await, "invalid_credential");
    assert_eq!(bench.decide_token(&token).await, "invalid_credential");
    assert_eq!(bench.get(KEYS).await.json()["items"], serde_json::json!([]));
    let bench = bench.restart();
    assert_eq!(bench.decide_key(&secret).await, "invalid_credential");
    assert_eq!(bench.decide_token(&token).await, "invalid_credential");
}

#[tokio::test]
async fn a_shop_holds_a_hundred_keys() {
    let bench = Bench::new();
    bench.shop("demo").await;
    for _ in 0..100 {
        bench.key("demo").await;
    }
    bench.post(KEYS, "{}").await.problem(409, "conflict");
    let first = bench.get(&format!("{KEYS}?limit=1")).await.get("/items/0/id");
    let path = format!("{KEYS}/{first}/rotate");
    bench.post(&path, r#"{"grace_seconds":60}"#).await.problem(409, "conflict");
    bench.post(&path, "").await.expect(201);
}

#[tokio::test]
async fn times_of_last_use_reach_the_store() {
    use std::sync::atomic::Ordering;
    let bench = Bench::new();
    bench.shop("demo").await;
    let (id, _) = bench.key("demo").await;
    let progress = Progress::default();
    let path = format!("{KEYS}/{id}");
    assert_eq!(bench.get(&path).await.get("/last_used_at"), "null");
    for seconds in [5, 20] {
        bench.clock.advance(Duration::from_secs(seconds));
        let now_ms = crate::clock::Clock::now(&*bench.clock).unix.unix_ms();
        let snapshot = bench.node.published.load_full();
        let key = snapshot.api_keys().next().unwrap();
        key.last_used_ms.store(now_ms, Ordering::Relaxed);
        drop(snapshot);
        tick(&bench.node, &progress);
    }
    let bench = bench.restart();
    assert_eq!(bench.get(&path).await.get("/last_used_at"), "2027-01-15T08:00:25Z");
    assert_eq!(bench.get(&path).await.get("/revision"), "1");
}
