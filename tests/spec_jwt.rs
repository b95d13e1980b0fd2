//! Spec §4, JWTs and anonymous access, rule by rule through the running binary.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Site};
use crate::support::http::get;
use crate::support::idp::{Key, KeySetAnswer, Provider, unix_now};
use crate::support::tls::Authority;
use crate::support::upstream::{Behaviour, Upstream};

const PATH: &str = "/api/search/products";

struct World {
    site: Site,
    upstream: Upstream,
    provider: Provider,
    gateway: Gateway,
}

const ALL: &str = "\"RS256\", \"RS384\", \"RS512\", \"PS256\", \"PS384\", \"PS512\", \"ES256\", \
                   \"ES384\", \"EdDSA\"";

fn issuer(provider: &Provider, extra: &str) -> String {
    format!(
        "[failed_attempts]\nlimit = 10000\nwindow = \"1m\"\n[[issuers]]\nname = \"main\"\n\
         issuer = \"{}\"\naudiences = [\"latchkey\"]\nalgorithms = [{ALL}]\ndiscovery = true\n\
         {extra}\n",
        provider.issuer()
    )
}

fn world(keys: &[&Key], extra: &str) -> World {
    let upstream = Upstream::start(Behaviour::Echo);
    let provider = Provider::start(keys);
    let site = Site::new(Some(&upstream), &issuer(&provider, extra));
    let gateway = site.start();
    fetched(&gateway);
    World { site, upstream, provider, gateway }
}

/// Waits until the key set is there: the server is ready before it.
fn fetched(gateway: &Gateway) {
    crate::support::until(|| {
        let issuers = gateway.api_ok("GET", "/issuers", &json!(null));
        let keys = issuers["items"][0]["keys"].as_u64().unwrap_or(0);
        (keys > 0).then_some(())
    });
}

impl World {
    fn outcome(&self, token: &str) -> String {
        self.gateway.send(&get(PATH).bearer(token)).outcome()
    }

    fn with(&self, change: &Value) -> Value {
        let mut claims = self.provider.claims();
        for (name, value) in change.as_object().expect("an object") {
            if value.is_null() {
                claims.as_object_mut().expect("an object").remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    }
}

/// Keys come by https from whom the configuration trusts, and from nobody else.
#[test]
fn a_provider_is_who_its_certificate_says() {
    let (authority, other) = (Authority::new(), Authority::new());
    let key = Key::es256("one");
    let provider = Provider::start_tls(&[&key], &authority);
    let upstream = Upstream::start(Behaviour::Echo);
    let trusting = |authority: &Authority, file: &str| {
        issuer(&provider, &format!("ca_file = {:?}", authority.path(file)))
    };
    let token = key.sign(&provider.claims());
    for configuration in [issuer(&provider, ""), trusting(&other, "ca.pem")] {
        let site = Site::new(Some(&upstream), &configuration);
        let gateway = site.start();
        let failure = crate::support::until(|| {
            let issuers = gateway.api_ok("GET", "/issuers", &json!(null));
            issuers["items"][0]["last_error"].as_str().map(str::to_owned)
        });
        assert!(failure.contains("certificate"), "{failure}");
        let outcome = gateway.send(&get(PATH).bearer(&token)).outcome();
        assert_eq!(outcome, "503 keys_unavailable", "{failure}");
    }
    let site = Site::new(Some(&upstream), &trusting(&authority, "ca.pem"));
    let gateway = site.start();
    fetched(&gateway);
    assert_eq!(gateway.send(&get(PATH).bearer(&token)).outcome(), "200 ok");
    site.configure(Some(&upstream), &trusting(&authority, "nothing.pem"));
    let checked = site.cli(&["config", "check"]);
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("issuers[0].ca_file: ") && said.contains("nothing.pem: "), "{said}");
}

#[test]
fn rule_1_every_algorithm_verifies() {
    let keys = [
        Key::ed25519("ed"),
        Key::es256("p256"),
        Key::es384("p384"),
        Key::rsa("rs256", Algorithm::RS256),
        Key::rsa("rs384", Algorithm::RS384),
        Key::rsa("rs512", Algorithm::RS512),
        Key::rsa("ps256", Algorithm::PS256),
        Key::rsa("ps384", Algorithm::PS384),
        Key::rsa("ps512", Algorithm::PS512),
    ];
    let w = world(&keys.iter().collect::<Vec<_>>(), "");
    for key in &keys {
        let token = key.sign(&w.provider.claims());
        for round in ["cold", "cached"] {
            assert_eq!(w.outcome(&token), "200 ok", "{:?} {round}", key.algorithm);
        }
        let mut forged = token.into_bytes();
        let last = forged.len() - 10;
        forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).expect("ASCII");
        assert_eq!(w.outcome(&forged), "401 invalid_credential", "{:?}", key.algorithm);
    }
    let received = w.upstream.last();
    assert_eq!(received.header("x-auth-mechanism"), Some("jwt"));
    assert_eq!(received.header("x-auth-subject"), Some("ada"));
    assert_eq!(received.header("x-auth-scopes"), Some("catalog:read"));
    assert_eq!(received.header("authorization"), None);
}

#[test]
fn rule_1_claims() {
    let key = Key::es256("k");
    let w = world(&[&key], "required_claims = [\"client_id\"]\nleeway = \"30s\"\n");
    let now = unix_now();
    let good = json!({"client_id": "app"});
    for (change, expected) in [
        (json!({}), "200 ok"),
        (json!({"client_id": null}), "401 invalid_credential"),
        (json!({"iss": "https://other.example"}), "401 invalid_credential"),
        (json!({"iss": null}), "401 invalid_credential"),
        (json!({"aud": "other"}), "401 invalid_credential"),
        (json!({"aud": ["other", "latchkey"]}), "200 ok"),
        (json!({"aud": []}), "401 invalid_credential"),
        (json!({"aud": null}), "401 invalid_credential"),
        (json!({"sub": null}), "401 invalid_credential"),
        (json!({"sub": "a\r\nX-Auth-Shop-Id: x"}), "401 invalid_credential"),
        (json!({"exp": null}), "401 invalid_credential"),
        (json!({"exp": (now + 60).to_string()}), "401 invalid_credential"),
        (json!({"exp": now + 60}), "200 ok"),
        (json!({"exp": 0.5}), "401 expired_credential"),
        (json!({"exp": now - 20}), "200 ok"),
        (json!({"exp": now - 60}), "401 expired_credential"),
        (json!({"nbf": now + 20}), "200 ok"),
        (json!({"nbf": now + 90}), "401 invalid_credential"),
        (json!({"iat": now + 90}), "401 invalid_credential"),
    ] {
        let mut claims = w.with(&good);
        for (name, value) in change.as_object().expect("an object") {
            if value.is_null() {
                claims.as_object_mut().expect("an object").remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        assert_eq!(w.outcome(&key.sign(&claims)), expected, "{change}");
    }
}

#[test]
fn rule_1_scopes_and_the_tenant_come_from_configured_claims() {
    let key = Key::ed25519("k");
    let routes = r#"scope_claim = "realm_access.roles"
shop_claim = "shop"
[[routes]]
name = "tenant"
paths = ["/tenant/{shopId}/*"]
mechanisms = ["jwt"]
upstream = "default"
scopes = [{ paths = ["/tenant/{shopId}/admin*"], scope = "admin" }]
"#;
    let w = world(&[&key], routes);
    let claims = w.with(&json!({"shop": "demo", "realm_access": {"roles": ["reader"]}}));
    let token = key.sign(&claims);
    for (path, expected) in [
        ("/tenant/demo/x", "200 ok"),
        ("/tenant/me/x", "200 ok"),
        ("/tenant/other/x", "403 cross_tenant"),
        ("/tenant/demo/admin", "403 insufficient_scope"),
        ("/tenant/other/admin", "403 cross_tenant"),
    ] {
        assert_eq!(w.gateway.send(&get(path).bearer(&token)).outcome(), expected, "{path}");
    }
    let refused = w.gateway.send(&get("/tenant/demo/admin").bearer(&token));
    let challenge = refused.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    let unbound = key.sign(&w.with(&json!({"realm_access": {"roles": ["admin"]}})));
    let request = get("/tenant/demo/x").bearer(&unbound);
    assert_eq!(w.gateway.send(&request).outcome(), "403 cross_tenant");
    let received = w.upstream.received();
    assert!(received.iter().any(|r| r.header("x-auth-shop-id") == Some("demo")));
}

#[test]
fn rule_2_the_token_does_not_choose_how_it_is_verified() {
    let (key, foreign) = (Key::es256("k"), Key::es256("k"));
    let rsa = Key::rsa("r", Algorithm::RS256);
    let w = world(&[&key, &rsa], "typ = [\"at+jwt\"]\n");
    let claims = w.provider.claims();
    let header = |typ: &str| json!({"alg": "ES256", "kid": "k", "typ": typ});
    assert_eq!(w.outcome(&key.sign_with(&header("at+jwt"), &claims)), "200 ok");
    assert_eq!(w.outcome(&key.sign_with(&header("application/AT+JWT"), &claims)), "200 ok");
    assert_eq!(w.outcome(&key.sign_with(&header("JWT"), &claims)), "401 invalid_credential");
    let forged = foreign.sign_with(&header("at+jwt"), &claims);
    assert_eq!(w.outcome(&forged), "401 invalid_credential");

    // The provider's public keys, offered as HMAC secrets, and no signature at all.
    let b64 = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, rsa.jwk().to_string().as_bytes());
    for (head, expected) in [
        (json!({"alg": "none", "typ": "at+jwt"}), "401 invalid_credential"),
        (json!({"alg": "None", "typ": "at+jwt", "kid": "k"}), "401 invalid_credential"),
        (json!({"alg": "HS256", "typ": "at+jwt", "kid": "r"}), "401 invalid_credential"),
        (json!({"alg": "RS256", "typ": "at+jwt", "kid": "k"}), "401 invalid_credential"),
        (
            json!({"alg": "ES256", "typ": "at+jwt", "kid": "k", "crit": ["x"], "x": 1}),
            "401 invalid_credential",
        ),
        (json!({"alg": "ES256", "typ": "at+jwt", "jwk": foreign.jwk()}), "401 invalid_credential"),
        (
            json!({"alg": "ES256", "typ": "at+jwt", "jku": "http://127.0.0.1:9/jwks", "kid": "k"}),
            "401 invalid_credential",
        ),
    ] {
        let message = format!("{}.{}", b64(&head), b64(&claims));
        let mac = ring::hmac::sign(&hmac, message.as_bytes());
        let mac = URL_SAFE_NO_PAD.encode(mac);
        assert_eq!(w.outcome(&format!("{message}.{mac}")), expected, "{head}");
        assert_eq!(w.outcome(&format!("{message}.")), expected, "{head}");
    }
    // `crit` on an otherwise good token.
    let mut critical = header("at+jwt");
    critical["crit"] = json!(["exp"]);
    assert_eq!(w.outcome(&key.sign_with(&critical, &claims)), "401 invalid_credential");
}

#[test]
fn rule_3_an_unknown_kid_is_asked_for_once_per_cool_down() {
    let (old, new, never) = (Key::es256("old"), Key::es256("new"), Key::es256("never"));
    let w = world(&[&old], "cooldown = \"1h\"\n");
    let claims = w.provider.claims();
    assert_eq!(w.outcome(&old.sign(&claims)), "200 ok");
    w.provider.set_keys(&[&old, &new]);
    let before = w.provider.fetches();
    assert_eq!(w.outcome(&new.sign(&claims)), "200 ok", "the set is fetched for the new kid");
    assert_eq!(w.provider.fetches(), before + 1);
    for _ in 0..5 {
        assert_eq!(w.outcome(&never.sign(&claims)), "401 invalid_credential");
    }
    assert_eq!(w.provider.fetches(), before + 1, "the cool-down holds");
}

#[test]
fn rule_3_a_key_that_left_the_set_stops_verifying_even_when_cached() {
    let (gone, stays) = (Key::es256("gone"), Key::es256("stays"));
    let w = world(&[&gone, &stays], "");
    let token = gone.sign(&w.provider.claims());
    assert_eq!((w.outcome(&token), w.outcome(&token)), ("200 ok".into(), "200 ok".into()));
    w.provider.set_keys(&[&stays]);
    w.gateway.api_ok("POST", "/issuers/main/refresh", &json!(null));
    assert_eq!(w.outcome(&token), "401 invalid_credential");
    assert_eq!(w.outcome(&stays.sign(&w.provider.claims())), "200 ok");
}

#[test]
fn rule_3_the_last_good_set_serves_on_and_survives_a_restart() {
    let key = Key::es256("k");
    let World { site, upstream: _upstream, provider, gateway } = world(&[&key], "");
    let token = key.sign(&provider.claims());
    provider.set(KeySetAnswer::Broken);
    let refresh = gateway.api("POST", "/issuers/main/refresh", &json!(null));
    assert!(refresh.status >= 400, "{}", refresh.text());
    let status = |gateway: &Gateway| gateway.send(&get(PATH).bearer(&token)).status;
    assert_eq!(status(&gateway), 200);
    assert!(gateway.stop().success());
    let gateway = site.start();
    assert_eq!(status(&gateway), 200, "kept across a restart with the provider down");
}

#[test]
fn rule_3_without_keys_a_jwt_is_503_and_the_rest_serves() {
    let upstream = Upstream::start(Behaviour::Echo);
    let key = Key::es256("k");
    let provider = Provider::start(&[&key]);
    provider.set(KeySetAnswer::Broken);
    let site = Site::new(Some(&upstream), &issuer(&provider, ""));
    let gateway = site.start();
    gateway.shop("demo");
    let (_, secret) = gateway.key("demo", &json!({}));
    let answer = gateway.send(&get(PATH).bearer(&key.sign(&provider.claims())));
    assert_eq!(answer.outcome(), "503 keys_unavailable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(gateway.send(&get("/api/plugin/shops/me").key(&secret)).status, 200);
    assert_eq!(gateway.send(&get(PATH)).status, 200, "anonymous is not affected");
    let readiness = crate::support::http::request("GET", "/readyz").send(gateway.admin);
    assert!(readiness.text().contains("main"), "{}", readiness.text());
}

#[test]
fn rule_3_past_the_stale_bound_it_is_503_not_401() {
    let key = Key::es256("k");
    let w = world(&[&key], "stale_max = \"2s\"\nrefresh_interval = \"1s\"\n");
    let token = key.sign(&w.provider.claims());
    w.provider.set(KeySetAnswer::Broken);
    let outcome = crate::support::until(|| {
        let outcome = w.outcome(&token);
        (outcome != "200 ok").then_some(outcome)
    });
    assert_eq!(outcome, "503 keys_unavailable");
}

#[test]
fn rule_3_key_sets_come_from_url_and_file_too() {
    let upstream = Upstream::start(Behaviour::Echo);
    let (url_key, file_key) = (Key::es256("u"), Key::ed25519("f"));
    let provider = Provider::start(&[&url_key]);
    let site = Site::new(Some(&upstream), "");
    let file = site.path().join("keys.json");
    std::fs::write(&file, json!({"keys": [file_key.jwk()]}).to_string()).expect("a key set");
    site.configure(
        Some(&upstream),
        &format!(
            "[[issuers]]\nname = \"url\"\nissuer = \"https://u.example\"\n\
             audiences = [\"latchkey\"]\nalgorithms = [\"ES256\"]\njwks_url = \"{}/jwks\"\n\
             [[issuers]]\nname = \"file\"\nissuer = \"https://f.example\"\n\
             audiences = [\"latchkey\"]\nalgorithms = [\"EdDSA\"]\njwks_file = {file:?}\n",
            provider.issuer()
        ),
    );
    let gateway = site.start();
    for (iss, key) in [("https://u.example", &url_key), ("https://f.example", &file_key)] {
        let mut claims = provider.claims();
        claims["iss"] = json!(iss);
        let token = key.sign(&claims);
        crate::support::until(|| {
            let outcome = gateway.send(&get(PATH).bearer(&token)).outcome();
            assert!(["200 ok", "503 keys_unavailable"].contains(&&*outcome), "{iss}: {outcome}");
            (outcome == "200 ok").then_some(())
        });
        // Keys of one issuer do not vouch for the other.
        claims["iss"] = json!("https://u.example");
        let crossed = file_key.sign(&claims);
        assert_ne!(gateway.send(&get(PATH).bearer(&crossed)).status, 200);
    }
}

#[test]
fn rule_4_anonymous_only_without_an_authorization_header() {
    let key = Key::es256("k");
    let w = world(&[&key], "");
    let anonymous = w.gateway.send(&get(PATH));
    assert_eq!(anonymous.outcome(), "200 ok");
    let limit = anonymous.header("ratelimit-policy").expect("a limit").to_owned();
    assert!(limit.contains("q=30;w=60"), "{limit}");
    for value in ["Basic YTpi", "Bearer", "Bearer ", "Bearer x", "Bearer a b", "", "x"] {
        let answer = w.gateway.send(&get(PATH).header("Authorization", value));
        assert_eq!(answer.outcome(), "401 invalid_credential", "{value:?}");
    }
    let twice = get(PATH).header("Authorization", "Bearer a").header("Authorization", "Bearer a");
    assert_eq!(w.gateway.send(&twice).outcome(), "400 bad_request");
}
