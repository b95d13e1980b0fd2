//! Limits of a shop's and a key's own, and what is left of them.

use crate::admin::testing::Bench;
use crate::decision::rate_limit::Limits as _;
use crate::decision::{Facts as _, charge_of_shop};
use crate::id::ShopId;

const SHOP: &str = "/api/v1/shops/demo/limits";

async fn limit_of(bench: &Bench, secret: &str) -> String {
    let body = format!(
        r#"{{"method":"GET","path":"/api/plugin/shops/me",
            "headers":{{"x-shop-api-key":"{secret}"}}}}"#
    );
    let answer = bench.post("/api/v1/explain", &body).await.expect(200);
    format!("{} {}", answer.get("/limit/policy"), answer.get("/limit/limit"))
}

#[tokio::test]
async fn a_keys_own_limit_wins_over_the_shops() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (id, secret) = bench.key("demo").await;
    let of_key = format!("/api/v1/shops/demo/keys/{id}/limits");
    assert_eq!(limit_of(&bench, &secret).await, "shop-me 60");
    let body = |limit: u32| format!(r#"{{"shop-me":{{"limit":{limit},"window_seconds":9}}}}"#);
    bench.put(SHOP, &body(7)).await.expect(200);
    assert_eq!(limit_of(&bench, &secret).await, "shop-me 7");
    bench.put(&of_key, &body(3)).await.expect(200);
    assert_eq!(limit_of(&bench, &secret).await, "shop-me 3");
    let bench = bench.restart();
    assert_eq!(limit_of(&bench, &secret).await, "shop-me 3");
    bench.delete(&of_key).await.expect(200);
    assert_eq!(limit_of(&bench, &secret).await, "shop-me 7");
    bench.delete(&format!("{SHOP}?policy=shop-me")).await.expect(200);
    assert_eq!(limit_of(&bench, &secret).await, "shop-me 60");
    bench.delete(&format!("{SHOP}?policy=shop-me")).await.problem(404, "not_found");
    bench.delete(SHOP).await.expect(200);
}

#[tokio::test]
async fn put_replaces_the_whole_set() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let two = r#"{"shop-me":{"limit":7,"window_seconds":60,"burst":2},
        "widget-search":{"limit":1,"window_seconds":1}}"#;
    bench.put(SHOP, two).await.expect(200);
    let one = r#"{"widget-search":{"limit":1,"window_seconds":1}}"#;
    let left = bench.put(SHOP, one).await.expect(200).json();
    assert_eq!(left, serde_json::from_str::<serde_json::Value>(one).unwrap());
    assert_eq!(bench.get("/api/v1/shops/demo").await.json()["limits"], left);
}

#[tokio::test]
async fn limits_out_of_bounds() {
    let bench = Bench::new();
    bench.shop("demo").await;
    for (body, fields) in [
        (r#"{"nothing":{"limit":1,"window_seconds":1}}"#, vec!["nothing"]),
        (r#"{"shop-me":{"limit":0,"window_seconds":1}}"#, vec!["shop-me.limit"]),
        (r#"{"shop-me":{"limit":262144,"window_seconds":1}}"#, vec!["shop-me.limit"]),
        (r#"{"shop-me":{"limit":1,"window_seconds":0}}"#, vec!["shop-me.window_seconds"]),
        (r#"{"shop-me":{"limit":1,"window_seconds":2678401}}"#, vec!["shop-me.window_seconds"]),
        (r#"{"shop-me":{"limit":1,"window_seconds":1,"burst":0}}"#, vec!["shop-me.burst"]),
        (r#"{"shop-me":{"limit":-1,"window_seconds":1}}"#, vec!["shop-me.limit"]),
        (r#"{"shop-me":{"limit":1}}"#, vec!["shop-me"]),
        (r#"{"shop-me":{"limit":1,"window":"1m","window_seconds":1}}"#, vec!["shop-me.window"]),
    ] {
        let refused = bench.put(SHOP, body).await.problem(422, "invalid");
        assert_eq!(refused.fields(), fields, "{body}");
    }
    bench.put("/api/v1/shops/none/limits", "{}").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_quota_must_pay_for_one_request() {
    let limit = "[[limits]]\nname = \"dear\"\npaths = [\"/*\"]\nkey = \"shop\"\nlimit = 100\n\
         window = \"1m\"\ncost = 10\n";
    let bench = Bench::with(limit);
    bench.shop("demo").await;
    for (body, ok) in [
        (r#"{"dear":{"limit":9,"window_seconds":60}}"#, false),
        (r#"{"dear":{"limit":100,"window_seconds":60,"burst":9}}"#, false),
        (r#"{"dear":{"limit":10,"window_seconds":60}}"#, true),
        (r#"{"dear":{"limit":9,"window_seconds":60,"burst":10}}"#, true),
    ] {
        bench.put(SHOP, body).await.expect(if ok { 200 } else { 422 });
    }
}

#[tokio::test]
async fn what_was_charged_is_told_and_comes_back() {
    let bench = Bench::new();
    bench.shop("demo").await;
    bench.put(SHOP, r#"{"shop-me":{"limit":7,"window_seconds":60}}"#).await.expect(200);
    let told = async |policy: &str| {
        let all = bench.get("/api/v1/shops/demo/standing").await.expect(200).json();
        let mut items = all["items"].as_array().unwrap().iter().cloned();
        items.find(|item| item["policy"] == policy).map(|mut item| {
            item.as_object_mut().unwrap().remove("policy");
            item.to_string()
        })
    };
    let standing = |limit: u32, own: bool, left: u32, reset: u64| {
        let told = serde_json::json!({
            "limit": limit, "window_seconds": 60, "burst": limit, "own": own,
            "left": left, "whole": limit, "reset_seconds": reset,
        });
        Some(told.to_string())
    };
    let untouched = standing(200, false, 200, 0);
    assert_eq!(told("shop-me").await, standing(7, true, 7, 0));
    assert_eq!(told("widget-search").await, untouched);
    assert_eq!(told("search-anonymous").await, None, "counts by address");
    let id = ShopId::parse("demo").unwrap();
    let snapshot = bench.node.published.load_full();
    let index = snapshot.policies().limits.iter().position(|p| p.name.as_str() == "shop-me");
    let index = u16::try_from(index.unwrap()).unwrap();
    let charge = charge_of_shop(index, snapshot.shop(&id).unwrap(), &*snapshot).unwrap();
    let spend = |times: u32| {
        for _ in 0..times {
            bench.node.limiter.charge(&[charge], bench.node.now().mono);
        }
    };
    spend(3);
    // A seventh of a minute each.
    assert_eq!(told("shop-me").await, standing(7, true, 4, 26));
    assert_eq!(told("shop-me").await, standing(7, true, 4, 26), "a look costs nothing");
    assert_eq!(told("widget-search").await, untouched);
    spend(9);
    assert_eq!(told("shop-me").await, standing(7, true, 0, 60));
    bench.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(told("shop-me").await, standing(7, true, 7, 0));
    bench.get("/api/v1/shops/nobody/standing").await.problem(404, "not_found");
}
