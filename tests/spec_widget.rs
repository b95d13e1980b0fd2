//! Spec §2, widget tokens, rule by rule through the running binary.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::{get, request};
use crate::support::secrets;
use crate::support::world::{World, world};

const SEARCH: &str = "/api/widget/search?q=lamp";

fn search(w: &World, token: &str) -> String {
    w.outcome(&get(SEARCH).widget(token))
}

#[test]
fn rule_1_issued_by_api_cli_and_the_shops_own_server() {
    let w = world("");
    let (_, by_api) = w.gateway.token("demo", &json!(null));
    let printed = w.site.cli_ok(&["token", "issue", "demo", "--output", "json"]);
    let by_cli: Value = serde_json::from_str(&printed).expect("JSON");
    let by_cli = by_cli["token"].as_str().expect("a token").to_owned();
    secrets::minted(&by_cli);
    assert_eq!((search(&w, &by_api), search(&w, &by_cli)), ("200 ok".into(), "200 ok".into()));

    let (_, key) = w.gateway.key("demo", &json!({}));
    for path in [
        "/api/plugin/shops/demo/widget-token",
        "/api/shops/demo/widget-token",
        "/api/plugin/shops/me/widget-token",
    ] {
        let answer = w.gateway.send(&request("POST", path).key(&key));
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        secrets::collect(&answer);
        let issued = answer.json();
        let members: Vec<&String> = issued.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["expires_at", "scopes", "token"]);
        assert_eq!(issued["scopes"], json!(["*"]));
        let expires = issued["expires_at"].as_str().expect("a time");
        let expires = latchkey::clock::Timestamp::parse_rfc3339(expires).expect("RFC 3339");
        let lifetime = expires.unix_s().abs_diff(crate::support::idp::unix_now());
        assert!(lifetime.abs_diff(24 * 3600) < 60, "the default is 24 h, not {lifetime} s");
        assert_eq!(search(&w, issued["token"].as_str().expect("a token")), "200 ok");
    }
    assert_eq!(w.upstream.count(), 5, "latchkey answers the issuing itself");
}

#[test]
fn rule_1_a_shops_server_asks_only_for_what_it_may() {
    let w = world("");
    let (_, key) = w.gateway.key("demo", &json!({}));
    let path = "/api/plugin/shops/demo/widget-token";
    for (body, expected) in [
        (r#"{"scopes":["search"],"lifetime_seconds":60}"#, "201 ok"),
        ("{}", "201 ok"),
        (r#"{"lifetime_seconds":86401}"#, "400 bad_request"),
        (r#"{"lifetime_seconds":0}"#, "400 bad_request"),
        (r#"{"lifetime_seconds":-5}"#, "400 bad_request"),
        (r#"{"scopes":["admin"]}"#, "400 bad_request"),
        (r#"{"scope":["search"]}"#, "400 bad_request"),
        (r#"{"scopes":"search"}"#, "400 bad_request"),
        ("{", "400 bad_request"),
        ("[]", "400 bad_request"),
    ] {
        let answer = w.gateway.send(&request("POST", path).key(&key).body(body));
        secrets::collect(&answer);
        assert_eq!(answer.outcome(), expected, "{body}: {}", answer.text());
    }
    let other = request("POST", "/api/plugin/shops/other/widget-token").key(&key);
    assert_eq!(w.outcome(&other), "403 cross_tenant");
    let bare = request("POST", path);
    assert_eq!(w.outcome(&bare), "401 missing_credential");
    let huge = request("POST", path).key(&key).body(vec![b' '; 100_000]);
    assert_eq!(w.outcome(&huge), "413 payload_too_large");
}

#[test]
fn rule_2_rotating_the_api_key_leaves_tokens_valid() {
    let w = world("");
    let (id, key) = w.gateway.key("demo", &json!({}));
    let path = "/api/plugin/shops/demo/widget-token";
    let answer = w.gateway.send(&request("POST", path).key(&key));
    secrets::collect(&answer);
    let token = answer.json()["token"].as_str().expect("a token").to_owned();
    w.gateway.api_ok("POST", &format!("/shops/demo/keys/{id}/rotate"), &json!({}));
    assert_eq!(search(&w, &token), "200 ok");
    assert!(!token.contains(&key[3..]), "a token does not carry the key");
}

#[test]
fn rule_3_signature_then_shop_then_revocation_then_origin() {
    let w = world("");
    let (id, token) = w.gateway.token("demo", &json!(null));
    let mut altered = token.clone().into_bytes();
    let middle = altered.len() / 2;
    altered[middle] = if altered[middle] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).expect("ASCII");
    assert_eq!(search(&w, &altered), "401 invalid_credential");
    assert_eq!(search(&w, "lkw1_"), "401 invalid_credential");

    // A token of another installation is signed elsewhere.
    let elsewhere = world("");
    let (_, foreign) = elsewhere.gateway.token("demo", &json!(null));
    assert_eq!(search(&w, &foreign), "401 invalid_credential");

    // A disabled shop's token is authentic, and refused.
    w.gateway.api_ok("PATCH", "/shops/demo", &json!({"enabled": false}));
    assert_eq!(search(&w, &token), "403 shop_disabled");
    w.gateway.api_ok("PATCH", "/shops/demo", &json!({"enabled": true}));
    assert_eq!(search(&w, &token), "200 ok");

    // Revoked, with a foreign Origin as well: the credential speaks first.
    w.gateway.api_ok("DELETE", &format!("/shops/demo/widget-tokens/{id}"), &json!(null));
    let revoked = get(SEARCH).widget(&token).header("Origin", "https://evil.com");
    assert_eq!(w.outcome(&revoked), "401 invalid_credential");
}

#[test]
fn rule_3_revoke_all_before_now_spares_what_comes_after() {
    let w = world("");
    let (_, before) = w.gateway.token("demo", &json!(null));
    let (_, foreign) = w.gateway.token("other", &json!(null));
    w.gateway.api_ok("POST", "/shops/demo/widget-tokens/revoke-all", &json!(null));
    let (_, after) = w.gateway.token("demo", &json!(null));
    assert_eq!(search(&w, &before), "401 invalid_credential");
    assert_eq!(search(&w, &after), "200 ok");
    assert_eq!(search(&w, &foreign), "200 ok");
}

#[test]
fn rule_3_an_expired_token_is_expired() {
    let w = world("");
    let (_, token) = w.gateway.token("demo", &json!({"lifetime_seconds": 1}));
    let outcome = crate::support::until(|| {
        let outcome = search(&w, &token);
        (outcome != "200 ok").then_some(outcome)
    });
    assert_eq!(outcome, "401 expired_credential");
}

#[test]
fn rule_4_scopes_by_path() {
    let w = world("");
    let (_, all) = w.gateway.token("demo", &json!(null));
    let (_, star) = w.gateway.token("demo", &json!({"scopes": ["*"]}));
    let (_, some) = w.gateway.token("demo", &json!({"scopes": ["search", "analytics"]}));
    for (path, expected) in [
        ("/api/widget/search", "200 ok"),
        ("/api/widget/search/by/image", "200 ok"),
        ("/api/widget/analytics/click", "200 ok"),
        ("/api/widget/suggestions?q=l", "403 insufficient_scope"),
        ("/api/widget/compare", "403 insufficient_scope"),
        ("/api/widget/%63ompare", "403 insufficient_scope"),
        ("/api/widget/other", "200 ok"),
        ("/api/widget", "200 ok"),
    ] {
        assert_eq!(w.outcome(&get(path).widget(&some)), expected, "{path}");
        assert_eq!(w.outcome(&get(path).widget(&all)), "200 ok", "{path}");
        assert_eq!(w.outcome(&get(path).widget(&star)), "200 ok", "{path}");
    }
}

#[test]
fn rule_5_origins_of_widgets() {
    let w = world("");
    let origins = json!({"widget_origins": ["*.partner.example", "http://blog.example:8080"]});
    w.gateway.api_ok("PATCH", "/shops/demo", &origins);
    let (_, token) = w.gateway.token("demo", &json!(null));
    for (origin, expected) in [
        ("https://demo.example", "200 ok"),
        ("https://www.demo.example", "200 ok"),
        ("https://a.partner.example", "200 ok"),
        ("https://a.b.partner.example", "200 ok"),
        ("http://blog.example:8080", "200 ok"),
        ("http://blog.example", "403 origin_mismatch"),
        ("https://partner.example", "403 origin_mismatch"),
        ("https://evilpartner.example", "403 origin_mismatch"),
        ("https://evil.com", "403 origin_mismatch"),
        ("null", "403 origin_mismatch"),
        ("http://localhost:3000", "403 origin_mismatch"),
        ("http://127.0.0.1:3000", "403 origin_mismatch"),
    ] {
        let request = get(SEARCH).widget(&token).header("Origin", origin);
        assert_eq!(w.outcome(&request), expected, "{origin}");
    }
    // A Referer says nothing about a widget.
    let request = get(SEARCH).widget(&token).header("Referer", "https://evil.com/");
    assert_eq!(w.outcome(&request), "200 ok");
}

#[test]
fn rule_5_loopback_origins_only_where_the_configuration_says_so() {
    let w = world("[widget]\nallow_loopback_origins = true\n");
    let (_, token) = w.gateway.token("demo", &json!(null));
    let from = |origin: &str| w.outcome(&get(SEARCH).widget(&token).header("Origin", origin));
    for origin in ["http://localhost:3000", "http://127.0.0.1:3000", "http://[::1]:3000"] {
        assert_eq!(from(origin), "200 ok", "{origin}");
    }
    assert_eq!(from("http://localhost.evil.com"), "403 origin_mismatch");
}

#[test]
fn rule_6_signing_keys_rotate_and_survive_a_restart() {
    let World { site, upstream: _upstream, gateway } = world("");
    let (_, before) = gateway.token("demo", &json!(null));
    gateway.api_ok("POST", "/signing-keys/rotate", &json!(null));
    let (_, after) = gateway.token("demo", &json!(null));
    let search = |gateway: &Gateway, token: &str| gateway.send(&get(SEARCH).widget(token)).status;
    assert_eq!((search(&gateway, &before), search(&gateway, &after)), (200, 200));
    assert!(gateway.stop().success());
    let gateway = site.start();
    assert_eq!((search(&gateway, &before), search(&gateway, &after)), (200, 200));
}

#[test]
fn credentials_of_another_mechanism_are_as_good_as_absent() {
    let w = world("");
    let (_, key) = w.gateway.key("demo", &json!({}));
    let (_, token) = w.gateway.token("demo", &json!(null));
    let own = "/api/plugin/shops/demo/x";
    for (request, expected) in [
        (get(own).widget(&token), "401 missing_credential"),
        (get(SEARCH).key(&key), "401 missing_credential"),
        (get(SEARCH).bearer(&token), "401 missing_credential"),
        (get(own).bearer(&key), "401 missing_credential"),
        (get(own).key(&token), "401 invalid_credential"),
        (get(SEARCH).widget(&key), "401 invalid_credential"),
        (get(SEARCH).widget(&token).key("garbage"), "200 ok"),
        (get(own).key(&key).widget("garbage"), "200 ok"),
        (get("/api/search/x").key("garbage"), "200 ok"),
    ] {
        assert_eq!(w.outcome(&request), expected, "{request:?}");
    }
    let forwarded = w.upstream.last();
    assert_eq!(forwarded.header("x-auth-mechanism"), Some("anonymous"));
    assert_eq!(forwarded.header("x-shop-api-key"), None, "a stray key is not passed on");
}
