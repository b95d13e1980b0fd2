//! Widget tokens, the keys that sign them, and admin tokens.

use std::time::Duration;

use crate::admin::jobs::{Progress, tick};
use crate::admin::operations::widget_tokens::{IssueRequest, issue_batch};
use crate::admin::testing::Bench;
use crate::id::ShopId;

const TOKENS: &str = "/api/v1/shops/demo/widget-tokens";

#[tokio::test]
async fn a_token_verifies_until_it_is_revoked() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (id, token) = bench.token("demo", "{}").await;
    let (_, other) = bench.token("demo", "").await;
    assert_eq!(bench.decide_token(&token).await, "allow");
    bench.delete(&format!("{TOKENS}/{id}")).await.expect(204);
    bench.delete(&format!("{TOKENS}/{id}")).await.expect(204);
    assert_eq!(bench.decide_token(&token).await, "invalid_credential");
    assert_eq!(bench.decide_token(&other).await, "allow");
    bench.delete("/api/v1/shops/other/widget-tokens/wt_00").await.problem(404, "not_found");
    let foreign = format!("/api/v1/shops/other/widget-tokens/{id}");
    bench.delete(&foreign).await.problem(404, "not_found");
    let bench = bench.restart();
    assert_eq!(bench.decide_token(&token).await, "invalid_credential");
    assert_eq!(bench.decide_token(&other).await, "allow");
    let listed = bench.get(TOKENS).await.expect(200).json();
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(items.iter().filter(|t| t["revoked_at"].is_string()).count(), 1);
    assert_eq!(items[0]["issued_by"], "adm_0000000000000001");
}

#[tokio::test]
async fn revoke_all_spares_what_is_issued_after_it() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (_, before) = bench.token("demo", "{}").await;
    let revoke_all = format!("{TOKENS}/revoke-all");
    // The clock stands still: all of it happens within one millisecond.
    for _ in 0..3 {
        bench.post(&revoke_all, "").await.expect(200);
        assert_eq!(bench.decide_token(&before).await, "invalid_credential");
        let (_, after) = bench.token("demo", "{}").await;
        assert_eq!(bench.decide_token(&after).await, "allow");
        bench.post(&revoke_all, "").await.expect(200);
        assert_eq!(bench.decide_token(&after).await, "invalid_credential");
    }
    let (_, ahead) = bench.token("demo", "{}").await;
    bench.clock.step_to(crate::admin::testing::START - Duration::from_secs(3600));
    let bench = bench.restart();
    bench.post(&revoke_all, "").await.expect(200);
    assert_eq!(bench.decide_token(&ahead).await, "invalid_credential", "clock set back");
    let (_, after) = bench.token("demo", "{}").await;
    assert_eq!(bench.decide_token(&after).await, "allow");
    bench.post("/api/v1/shops/none/widget-tokens/revoke-all", "").await.problem(404, "not_found");
}

#[tokio::test]
async fn scopes_and_lifetimes() {
    let bench = Bench::new();
    bench.shop("demo").await;
    for (body, field) in [
        (r#"{"scopes":["search","fly"]}"#, "scopes[1]"),
        (r#"{"lifetime_seconds":0}"#, "lifetime_seconds"),
        (r#"{"lifetime_seconds":99999999}"#, "lifetime_seconds"),
        (r#"{"lifetime":60}"#, "lifetime"),
    ] {
        let refused = bench.post(TOKENS, body).await.problem(422, "invalid");
        assert_eq!(refused.fields(), [field], "{body}");
    }
    let made = bench.post(TOKENS, r#"{"scopes":["search","search"],"lifetime_seconds":60}"#).await;
    let made = made.expect(201);
    assert_eq!(made.get("/scopes"), r#"["search"]"#);
    assert_eq!(made.get("/expires_at"), "2027-01-15T08:01:00Z");
    let token = made.get("/token");
    let search = [("x-widget-token", &*token)];
    assert_eq!(bench.decide("GET", "/api/widget/search", &search).await, "allow");
    assert_eq!(bench.decide("GET", "/api/widget/compare", &search).await, "insufficient_scope");
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.decide_token(&token).await, "expired_credential");
    bench.clock.advance(Duration::from_secs(24 * 3600));
    tick(&bench.node, &Progress::default());
    assert_eq!(bench.get(TOKENS).await.json()["items"], serde_json::json!([]));
    bench.post("/api/v1/shops/none/widget-tokens", "{}").await.problem(404, "not_found");
}

/// A wall clock that ran ahead and is set right again brings no revoked token back.
#[tokio::test]
async fn a_revocation_outlives_a_clock_that_ran_ahead() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (id, token) = bench.token("demo", "{}").await;
    let (_, other) = bench.token("demo", r#"{"lifetime_seconds":1}"#).await;
    let start = bench.node.now().unix;
    bench.delete(&format!("/api/v1/shops/demo/widget-tokens/{id}")).await.expect(204);
    let (ahead, right) = (start + Duration::from_secs(26 * 3600), start + Duration::from_secs(60));
    bench.clock.step_to(ahead);
    tick(&bench.node, &Progress::default());
    bench.clock.step_to(right);
    assert_eq!(bench.decide_token(&token).await, "invalid_credential");
    bench.clock.step_to(ahead);
    let bench = bench.restart();
    assert_eq!(bench.decide_token(&other).await, "expired_credential");
    bench.clock.step_to(right);
    assert_eq!(bench.decide_token(&token).await, "invalid_credential");
}

#[tokio::test]
async fn a_batch_issues_what_it_can() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let request = |shop: &str| IssueRequest {
        shop: ShopId::parse(shop).unwrap(),
        scopes: Vec::new(),
        lifetime: None,
        issued_by: "key_00000000000000ab".to_owned(),
        authority: None,
        idempotency: None,
    };
    let wanted = vec![request("demo"), request("none"), request("demo")];
    let results = issue_batch(&bench.node, wanted).unwrap();
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    for made in results.into_iter().flatten() {
        let token = made.secret.unwrap();
        assert_eq!(bench.decide_token(token.expose()).await, "allow");
    }
    assert!(issue_batch(&bench.node, Vec::new()).unwrap().is_empty());
}

#[tokio::test]
async fn signing_keys_rotate_without_invalidating_live_tokens() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (_, old) = bench.token("demo", r#"{"lifetime_seconds":3600}"#).await;
    let fresh = bench.post("/api/v1/signing-keys/rotate", "").await.expect(201);
    assert_eq!((fresh.get("/id"), fresh.get("/signs")), ("2".into(), "true".into()));
    let (_, new) = bench.token("demo", "{}").await;
    let bench = bench.restart();
    assert_eq!(bench.decide_token(&old).await, "allow");
    assert_eq!(bench.decide_token(&new).await, "allow");
    let progress = Progress::default();
    tick(&bench.node, &progress);
    let keys =
        async || bench.get("/api/v1/signing-keys").await.json()["items"].as_array().unwrap().len();
    assert_eq!(keys().await, 2, "the old key still verifies a live token");
    bench.clock.advance(Duration::from_secs(3600));
    tick(&bench.node, &progress);
    assert_eq!(keys().await, 1);
    let rotation = bench.node.config.load().widget_signing_key_rotation;
    bench.clock.advance(rotation);
    tick(&bench.node, &progress);
    let listed = bench.get("/api/v1/signing-keys").await.json();
    let last = listed["items"].as_array().unwrap().last().unwrap();
    assert_eq!((last["id"].as_u64(), last["signs"].as_bool()), (Some(3), Some(true)));
}

#[tokio::test]
async fn admin_tokens_are_made_listed_and_revoked() {
    let bench = Bench::new();
    let path = "/api/v1/admin-tokens";
    for (body, field) in [
        (r#"{"name":"","role":"owner"}"#, "name"),
        (r#"{"name":"a","role":"king"}"#, "role"),
        (r#"{"name":"a","role":"owner","expires_at":"2000-01-01T00:00:00Z"}"#, "expires_at"),
        (r#"{"name":"a"}"#, ""),
    ] {
        let refused = bench.post(path, body).await.problem(422, "invalid");
        assert_eq!(refused.fields(), [field], "{body}");
    }
    let owner = bench.post(path, r#"{"name":"a","role":"owner"}"#).await.expect(201);
    let secret = owner.get("/secret");
    assert!(secret.starts_with("lka_") && secret.len() == 44, "{secret}");
    let viewer = bench
        .post(path, r#"{"name":"v","role":"viewer","expires_at":"2030-01-01T00:00:00Z"}"#)
        .await
        .expect(201);
    assert_eq!(bench.get(path).await.json()["items"].as_array().unwrap().len(), 2);
    let of_owner = format!("{path}/{}", owner.get("/id"));
    bench.delete(&of_owner).await.problem(409, "conflict");
    bench.delete(&format!("{path}/{}", viewer.get("/id"))).await.expect(204);
    bench.delete(&format!("{path}/{}", viewer.get("/id"))).await.problem(404, "not_found");
    bench.post(path, r#"{"name":"b","role":"owner"}"#).await.expect(201);
    bench.delete(&of_owner).await.expect(204);
}
