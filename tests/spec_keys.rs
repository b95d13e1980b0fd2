//! Spec §3, shop API keys, rule by rule through the running binary.

use serde_json::json;

use crate::support::http::get;
use crate::support::world::world;

const OWN: &str = "/api/plugin/shops/demo/products";

#[test]
fn rule_1_keys_are_random_shown_once_and_stored_only_as_a_digest() {
    let w = world("");
    let (id, secret) = w.gateway.key("demo", &json!({}));
    let (_, second) = w.gateway.key("demo", &json!({}));
    for key in [&secret, &second] {
        assert_eq!(key.len(), 35);
        let digits = key.strip_prefix("sk_").expect("the prefix");
        assert!(digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    }
    assert_ne!(secret, second);
    assert_eq!(w.outcome(&get(OWN).key(&secret)), "200 ok");
    let shown = w.gateway.api_ok("GET", &format!("/shops/demo/keys/{id}"), &json!(null));
    let listed = w.gateway.api_ok("GET", "/shops/demo/keys", &json!(null));
    for text in [shown.to_string(), listed.to_string()] {
        assert!(!text.contains(&secret[..12]), "{text}");
    }
    let database = std::fs::read(w.site.database()).expect("the database file");
    let sha256 = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
    for needle in [secret.as_bytes(), sha256.as_ref()] {
        assert!(memchr::memmem::find(&database, needle).is_none());
    }
}

#[test]
fn rule_2_several_keys_rotation_expiry_networks_and_own_limits() {
    let w = world("");
    let (first_id, first) = w.gateway.key("demo", &json!({}));
    let (second_id, second) = w.gateway.key("demo", &json!({}));
    let ok = |secret: &str| w.outcome(&get(OWN).key(secret));
    assert_eq!((ok(&first), ok(&second)), ("200 ok".into(), "200 ok".into()));

    // Without grace the old key is unknown at once.
    let path = format!("/shops/demo/keys/{first_id}/rotate");
    let rotated = w.gateway.api_ok("POST", &path, &json!({}));
    let replacement = rotated["secret"].as_str().expect("a secret");
    assert_eq!(ok(&first), "401 invalid_credential");
    assert_eq!(ok(replacement), "200 ok");
    assert_eq!(ok(&second), "200 ok", "the shop's other key is untouched");

    // With grace both verify.
    let path = format!("/shops/demo/keys/{second_id}/rotate");
    let rotated = w.gateway.api_ok("POST", &path, &json!({"grace_seconds": 3600}));
    assert_eq!(ok(rotated["secret"].as_str().expect("a secret")), "200 ok");
    assert_eq!(ok(&second), "200 ok");

    // Networks: the tests call from 127.0.0.1.
    let (_, here) = w.gateway.key("demo", &json!({"networks": ["127.0.0.0/8"]}));
    let (_, elsewhere) = w.gateway.key("demo", &json!({"networks": ["192.0.2.0/24"]}));
    assert_eq!(ok(&here), "200 ok");
    assert_eq!(ok(&elsewhere), "403 network_not_allowed");

    // Own limits: three a minute instead of the policy's hundred, for this key alone.
    let (id, limited) = w.gateway.key("demo", &json!({}));
    let limits = json!({"authenticated": {"limit": 3, "window_seconds": 60}});
    w.gateway.api_ok("PUT", &format!("/shops/demo/keys/{id}/limits"), &limits);
    let outcomes: Vec<String> = (0..4).map(|_| ok(&limited)).collect();
    assert_eq!(outcomes, ["200 ok", "200 ok", "200 ok", "429 rate_limited"]);
    assert_eq!(ok(&here), "200 ok");
}

#[test]
fn rule_2_an_expired_key_is_expired_and_a_revoked_one_unknown() {
    let roomy = "[[limits]]\nname = \"roomy\"\npaths = [\"/*\"]\nkey = \"shop\"\n\
                 limit = 100000\nwindow = \"1s\"\n";
    let w = world(roomy);
    let soon = latchkey::clock::Timestamp::from_unix_s(crate::support::idp::unix_now() + 2);
    let (_, secret) = w.gateway.key("demo", &json!({"expires_at": soon.to_string()}));
    assert_eq!(w.outcome(&get(OWN).key(&secret)), "200 ok");
    let expired = crate::support::until(|| {
        let outcome = w.outcome(&get(OWN).key(&secret));
        (outcome != "200 ok").then_some(outcome)
    });
    assert_eq!(expired, "401 expired_credential");

    let (id, revoked) = w.gateway.key("demo", &json!({}));
    w.gateway.api_ok("DELETE", &format!("/shops/demo/keys/{id}"), &json!(null));
    assert_eq!(w.outcome(&get(OWN).key(&revoked)), "401 invalid_credential");
}

#[test]
fn rules_3_and_6_the_path_names_the_keys_own_shop() {
    let w = world("");
    let (_, secret) = w.gateway.key("demo", &json!({}));
    for (path, expected) in [
        ("/api/plugin/shops/demo/products", "200 ok"),
        ("/api/plugin/shops/demo", "200 ok"),
        ("/api/plugin/shops/me", "200 ok"),
        ("/api/plugin/shops/me/products", "200 ok"),
        ("/api/plugin/shops/d%65mo/products", "200 ok"),
        ("/api/plugin/shops/other/products", "403 cross_tenant"),
        ("/api/plugin/shops/nobody/products", "403 cross_tenant"),
        ("/api/plugin/shops/Demo/products", "403 cross_tenant"),
        ("/api/plugin/shops/demo2/products", "403 cross_tenant"),
        ("/api/plugin/shops/demo%20/products", "403 cross_tenant"),
        ("/api/plugin/shops/demo;x=1/products", "400 bad_request"),
    ] {
        assert_eq!(w.outcome(&get(path).key(&secret)), expected, "{path}");
    }
    let exists = w.gateway.send(&get("/api/plugin/shops/other/x").key(&secret));
    let absent = w.gateway.send(&get("/api/plugin/shops/nobody/x").key(&secret));
    assert_eq!(exists.json()["detail"], absent.json()["detail"]);
}

#[test]
fn rules_4_and_5_a_browser_must_be_on_the_shops_site() {
    let w = world("");
    let (_, secret) = w.gateway.key("demo", &json!({}));
    let extra = json!({"widget_origins": ["https://partner.example"]});
    w.gateway.api_ok("PATCH", "/shops/demo", &extra);
    for (headers, expected) in [
        (&[][..], "200 ok"),
        (&[("Origin", "https://demo.example")], "200 ok"),
        (&[("Origin", "https://DEMO.example:443")], "200 ok"),
        (&[("Origin", "https://www.demo.example")], "200 ok"),
        (&[("Origin", "http://demo.example")], "403 origin_mismatch"),
        (&[("Origin", "https://demo.example:8443")], "403 origin_mismatch"),
        (&[("Origin", "https://demo.example.evil.com")], "403 origin_mismatch"),
        (&[("Origin", "https://evil.com")], "403 origin_mismatch"),
        (&[("Origin", "https://partner.example")], "403 origin_mismatch"),
        (&[("Origin", "null")], "403 origin_mismatch"),
        (&[("Origin", "")], "403 origin_mismatch"),
        (&[("Origin", "https://demo.example/")], "403 origin_mismatch"),
        (&[("Origin", "https://a@demo.example")], "403 origin_mismatch"),
        (&[("Origin", "https://demo.example.")], "403 origin_mismatch"),
        (
            &[("Origin", "https://demo.example"), ("Origin", "https://demo.example")],
            "403 origin_mismatch",
        ),
        (&[("Referer", "https://demo.example/cart?x=1")], "200 ok"),
        (&[("Referer", "https://evil.com/https://demo.example/")], "403 origin_mismatch"),
        (&[("Referer", "about:blank")], "403 origin_mismatch"),
        (
            &[("Origin", "https://evil.com"), ("Referer", "https://demo.example/")],
            "403 origin_mismatch",
        ),
        (&[("Origin", "https://demo.example"), ("Referer", "https://evil.com/")], "200 ok"),
    ] {
        let mut request = get(OWN).key(&secret);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        assert_eq!(w.outcome(&request), expected, "{headers:?}");
    }
}

#[test]
fn rule_5_the_two_conveniences_are_configuration() {
    let w = world("[origin]\nwww_alias = false\nscheme = \"ignore\"\n");
    let (_, secret) = w.gateway.key("demo", &json!({}));
    let from = |origin: &str| w.outcome(&get(OWN).key(&secret).header("Origin", origin));
    assert_eq!(from("https://www.demo.example"), "403 origin_mismatch");
    assert_eq!(from("http://demo.example"), "200 ok");
}

#[test]
fn rule_5_http_shops_accept_https_and_never_the_reverse() {
    let w = world("");
    let url = json!({"id": "plain", "name": "plain", "url": "http://plain.example"});
    w.gateway.api_ok("POST", "/shops", &url);
    let (_, secret) = w.gateway.key("plain", &json!({}));
    let path = "/api/plugin/shops/plain/x";
    let from = |origin: &str| w.outcome(&get(path).key(&secret).header("Origin", origin));
    assert_eq!(from("http://plain.example"), "200 ok");
    assert_eq!(from("https://plain.example"), "200 ok");
}

#[test]
fn unknown_revoked_and_orphaned_keys_answer_alike() {
    let w = world("");
    w.gateway.shop("gone");
    let (_, orphan) = w.gateway.key("gone", &json!({}));
    w.gateway.api_ok("DELETE", "/shops/gone", &json!(null));
    let (id, revoked) = w.gateway.key("demo", &json!({}));
    w.gateway.api_ok("DELETE", &format!("/shops/demo/keys/{id}"), &json!(null));
    let unknown = format!("sk_{}", "0123456789abcdef".repeat(2));
    let seen: Vec<_> = [unknown, revoked, orphan]
        .iter()
        .map(|secret| {
            let response = w.gateway.send(&get(OWN).key(secret));
            let mut names: Vec<String> =
                response.headers.iter().map(|(name, _)| name.to_lowercase()).collect();
            names.sort();
            let mut problem = response.json();
            problem["request_id"] = json!(null);
            (response.status, names, problem)
        })
        .collect();
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    assert_eq!(seen[0].0, 401);
    assert_eq!(w.upstream.count(), 0);
}

#[test]
fn a_recreated_shop_does_not_inherit_the_keys_of_the_deleted_one() {
    let w = world("");
    let (_, old) = w.gateway.key("demo", &json!({}));
    let (_, token) = w.gateway.token("demo", &json!(null));
    w.gateway.api_ok("DELETE", "/shops/demo", &json!(null));
    w.gateway.shop("demo");
    assert_eq!(w.outcome(&get(OWN).key(&old)), "401 invalid_credential");
    let with_token = get("/api/widget/search").widget(&token);
    assert_eq!(w.outcome(&with_token), "401 invalid_credential");
}
