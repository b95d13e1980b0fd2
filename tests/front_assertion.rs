//! Spec §8, the upstream's proof: what latchkey signs, as an upstream sees it; and the README's
//! upstream, run as it stands there, against requests that did not come through latchkey.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Response, get, request};
use crate::support::idp::{Key, Provider};
use crate::support::upstream::{Behaviour, Upstream};

const ON: &str = "[assertion]\nenabled = true\n";
const KEY_SET: &str = "/.latchkey/jwks.json";
const OWN: &str = "/api/plugin/shops/demo/products";
const FIELD: &str = "x-auth-assertion";

struct World {
    site: Site,
    upstream: Upstream,
    gateway: Gateway,
    key_id: String,
    key: String,
}

fn world(extra: &str) -> World {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), extra);
    let gateway = site.start();
    gateway.shop("demo");
    let (key_id, key) = gateway.key("demo", &json!({}));
    World { site, upstream, gateway, key_id, key }
}

impl World {
    /// The assertion that the upstream got with the last request.
    fn assertion(&self) -> String {
        self.upstream.last().header(FIELD).expect("an assertion").to_owned()
    }

    fn key_set(&self) -> Value {
        self.gateway.send(&get(KEY_SET)).json()
    }
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The claims of an assertion whose signature verifies by `key_set`.
fn verified(assertion: &str, key_set: &Value) -> Value {
    let parts: Vec<&str> = assertion.split('.').collect();
    assert_eq!(parts.len(), 3, "{assertion}");
    let header = decoded(parts[0]);
    assert_eq!(
        (&header["alg"], &header["typ"]),
        (&json!("EdDSA"), &json!("latchkey-assertion+jwt"))
    );
    let keys = key_set["keys"].as_array().unwrap();
    let jwk = keys.iter().find(|key| key["kid"] == header["kid"]).expect("its key is published");
    let x = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
    let signed = &assertion[..assertion.rfind('.').unwrap()];
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, x)
        .verify(signed.as_bytes(), &signature)
        .expect("the signature");
    decoded(parts[1])
}

#[test]
fn nothing_is_signed_unless_it_is_asked_for_and_no_client_signs() {
    let w = world("");
    let spellings =
        ["X-Auth-Assertion", "x_auth_assertion", "X-Auth_Assertion", "X.Auth.Assertion"];
    let spoofed = |w: &World| {
        let request =
            spellings.iter().fold(get(OWN).key(&w.key), |r, name| r.header(name, "a.b.c"));
        assert_eq!(w.gateway.send(&request).status, 200);
        w.upstream.last()
    };
    let seen = spoofed(&w);
    assert!(!seen.head.to_ascii_lowercase().contains("assertion"), "{}", seen.head);
    assert_eq!(w.key_set(), json!({"keys": []}));
    assert_eq!(w.site.cli_ok(&["assertion", "keys", "--output", "json"]).trim(), "[]");
    let refused = w.site.cli(&["assertion", "rotate-key"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("assertion.enabled"));

    w.site.configure(Some(&w.upstream), ON);
    w.gateway.signal("HUP");
    crate::support::until(|| (w.key_set() != json!({"keys": []})).then_some(()));
    crate::support::until(|| spoofed(&w).header(FIELD).map(drop));
    let seen = spoofed(&w);
    assert!(!seen.head.contains("a.b.c"), "{}", seen.head);
    verified(&w.assertion(), &w.key_set());
    let World { site, upstream, gateway, key, .. } = w;
    assert!(gateway.stop().success());

    let gateway = site.start();
    assert_eq!(gateway.send(&get(OWN).key(&key)).status, 200);
    let key_set = gateway.send(&get(KEY_SET)).json();
    verified(upstream.last().header(FIELD).unwrap(), &key_set);
}

#[test]
fn an_assertion_says_what_the_other_fields_say() {
    let signer = Key::ed25519("idp");
    let provider = Provider::start(&[&signer]);
    let issuer = provider.issuer();
    let w = world(&format!(
        "{ON}issuer = \"https://door.example\"\nlifetime = \"7s\"\n[[issuers]]\nname = \"main\"\n\
         issuer = \"{issuer}\"\naudiences = [\"latchkey\"]\nalgorithms = [\"EdDSA\"]\n\
         discovery = true\n"
    ));
    let (token_id, token) = w.gateway.token("demo", &json!({"scopes": ["search"]}));
    let jwt = crate::support::until(|| {
        let jwt = signer.sign(&provider.claims());
        (w.gateway.send(&get("/api/search/x").bearer(&jwt)).status == 200).then_some(jwt)
    });
    let subject = provider.claims()["sub"].clone();
    let rows = [
        (get(&format!("{OWN}?page=1")).key(&w.key), "shop_api_key", json!(w.key_id)),
        (
            request("DELETE", "/api/plugin/shops/me/caf%C3%A9").key(&w.key),
            "shop_api_key",
            json!(w.key_id),
        ),
        (get("/api/widget/search?").widget(&token), "widget_token", json!(token_id)),
        (get("/api/search/x?q=%C3%A9&q=2").bearer(&jwt), "jwt", subject),
        (get("/api/search/x").header("Authorization2", "x"), "anonymous", json!("anonymous")),
        (
            get("http://shop.example/api/search/x?y").header("Host", "shop.example"),
            "anonymous",
            json!("anonymous"),
        ),
    ];
    let mut seen_before = Vec::new();
    for (request, mechanism, sub) in rows {
        let answer = w.gateway.send(&request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = w.upstream.last();
        let claims = verified(&w.assertion(), &w.key_set());
        assert_eq!(claims["iss"], "https://door.example");
        assert_eq!(claims["aud"], "default");
        assert_eq!((&claims["mechanism"], &claims["sub"]), (&json!(mechanism), &sub));
        let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        assert_eq!(exp - iat, 7);
        assert!(crate::support::idp::unix_now().abs_diff(iat) < 60);
        assert_eq!(claims["client_address"], "127.0.0.1");
        for (claim, field) in [
            ("jti", "x-request-id"),
            ("mechanism", "x-auth-mechanism"),
            ("shop_id", "x-auth-shop-id"),
            ("key_id", "x-auth-key-id"),
            ("scope", "x-auth-scopes"),
        ] {
            let said = claims.get(claim).map_or("-", |value| value.as_str().unwrap());
            assert_eq!(seen.header(field), Some(said), "{claim}");
        }
        let mut line = seen.request_line().split(' ');
        assert_eq!(claims["method"], line.next().unwrap());
        let (path, query) = line
            .next()
            .map(|t| t.split_once('?').map_or((t, None), |(p, q)| (p, Some(q))))
            .unwrap();
        assert_eq!(claims["path"], path);
        let digest = query.map(|query| {
            let digest = ring::digest::digest(&ring::digest::SHA256, query.as_bytes());
            URL_SAFE_NO_PAD.encode(digest)
        });
        assert_eq!(claims.get("query_sha256").and_then(Value::as_str), digest.as_deref());
        let issuer = claims.get("subject_issuer").and_then(Value::as_str);
        assert_eq!(issuer, (mechanism == "jwt").then_some(provider.issuer()).as_deref());
        assert!(!seen_before.contains(&claims["jti"]), "no two requests share a name");
        seen_before.push(claims["jti"].clone());
    }
}

#[test]
fn the_key_set_is_for_everybody_and_for_reading() {
    let w = world(ON);
    let check = |answer: &Response| {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/jwk-set+json"));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    };
    let answer = w.gateway.send(&get(KEY_SET));
    check(&answer);
    let set = answer.json();
    let key = &set["keys"][0];
    for (member, value) in [("kty", "OKP"), ("crv", "Ed25519"), ("alg", "EdDSA"), ("use", "sig")] {
        assert_eq!(key[member], value);
    }
    assert_eq!(key.as_object().unwrap().len(), 6, "{key}");
    assert!(key["kid"].as_str().unwrap().len() == 43 && key["x"].as_str().unwrap().len() == 43);
    check(&w.gateway.send(&get(&format!("{KEY_SET}?cache=off"))));
    check(&w.gateway.send(&get(KEY_SET).key("sk_wrong").bearer("wrong").widget("wrong")));
    let head = w.gateway.send(&request("HEAD", KEY_SET));
    check(&head);
    assert_eq!(head.header("content-length"), Some(&*answer.body.len().to_string()));
    assert!(head.body.is_empty());
    for other in [
        request("POST", KEY_SET),
        request("OPTIONS", KEY_SET),
        get("/.latchkey/jwks.json/"),
        get("/.latchkey/JWKS.json"),
        get("/.latchkey/"),
    ] {
        assert_eq!(w.gateway.send(&other).outcome(), "404 not_found");
    }
    assert_eq!(w.upstream.count(), 0);
}

#[test]
fn keys_rotate_while_it_serves() {
    let w = world(ON);
    let turns = |args: &[&str]| {
        let keys: Value = serde_json::from_str(&w.site.cli_ok(args)).unwrap();
        let keys = if keys.is_array() { keys } else { keys["items"].clone() };
        let text = |key: &Value, member: &str| key[member].as_str().unwrap().to_owned();
        let keys = keys.as_array().unwrap().iter();
        keys.map(|key| (text(key, "turn"), text(key, "kid"))).collect::<Vec<_>>()
    };
    let list = ["assertion", "keys", "--output", "json"];
    let signs = || {
        assert_eq!(w.gateway.send(&get(OWN).key(&w.key)).status, 200);
        let assertion = w.assertion();
        verified(&assertion, &w.key_set());
        decoded(assertion.split('.').next().unwrap())["kid"].as_str().unwrap().to_owned()
    };
    let first = turns(&list);
    assert_eq!(first, [("current".to_owned(), signs())]);
    let both = turns(&["assertion", "rotate-key", "--output", "json"]);
    assert_eq!((both.len(), &both[0], &*both[1].0), (2, &first[0], "next"));
    assert_eq!(signs(), first[0].1, "nobody knows the next one yet");
    let at_once = turns(&["assertion", "rotate-key", "--at-once", "--output", "json"]);
    assert_eq!(at_once, [("current".to_owned(), signs())]);
    assert!(both.iter().all(|key| key.1 != at_once[0].1));
    assert_eq!(w.key_set()["keys"].as_array().unwrap().len(), 1);
    assert_eq!(turns(&list), at_once);
    let table = w.site.cli_ok(&["assertion", "keys"]);
    assert!(table.contains("KID") && table.contains(&at_once[0].1), "{table}");
}

/// The README's upstream; ends with the test.
struct Verifier {
    child: Child,
    address: SocketAddr,
}

impl Drop for Verifier {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Verifier {
    /// Runs the program that the README shows; `ahead_s` is how far its clock is ahead.
    fn start(dir: &Path, gateway: &Gateway, audience: &str, ahead_s: i64) -> Self {
        let readme = include_str!("../README.md");
        let code = readme.split("```js\n// upstream.mjs\n").nth(1).expect("the README's program");
        let program = dir.join("upstream.mjs");
        std::fs::write(&program, code.split("```").next().unwrap()).unwrap();
        let clock = dir.join(format!("clock{ahead_s}.mjs"));
        let shift = format!("const now = Date.now; Date.now = () => now() + {ahead_s} * 1000;\n");
        std::fs::write(&clock, shift).unwrap();
        let mut child = Command::new("node")
            .arg("--import")
            .arg(&clock)
            .arg(&program)
            .env("KEY_SET_URL", format!("http://{}{KEY_SET}", gateway.data))
            .env("AUDIENCE", audience)
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node runs: `tests/run tools` installs it");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("port ").and_then(|port| port.parse().ok());
        let port: u16 = port.unwrap_or_else(|| panic!("the README's program says {line:?}"));
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn ask(&self, method: &str, target: &str, assertion: &str) -> String {
        let answer = request(method, target).header(FIELD, assertion).send(self.address);
        format!("{} {}", answer.status, answer.text().trim_end())
    }
}

#[test]
fn the_readmes_upstream_takes_what_came_through_latchkey_and_nothing_else() {
    let w = world(ON);
    let target = format!("{OWN}?page=1&x=%20");
    assert_eq!(w.gateway.send(&get(&target).key(&w.key)).status, 200);
    let good = w.assertion();
    let verifier = Verifier::start(w.site.path(), &w.gateway, "default", 0);
    let accepted = format!("200 shop_api_key {}", w.key_id);
    assert_eq!(verifier.ask("GET", &target, &good), accepted);

    let parts: Vec<&str> = good.split('.').collect();
    let (header, claims) = (decoded(parts[0]), decoded(parts[1]));
    let with = |base: &Value, member: &str, value: Value| {
        let mut changed = base.clone();
        changed[member] = value;
        changed
    };
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let impostor = Key::ed25519("impostor");
    let none = encoded(&with(&header, "alg", json!("none")));
    let forged = encoded(&with(&claims, "shop_id", json!("other")));
    let hs256 = {
        // The public key taken for a shared secret.
        let message = format!("{}.{}", encoded(&with(&header, "alg", json!("HS256"))), parts[1]);
        let x = URL_SAFE_NO_PAD.decode(w.key_set()["keys"][0]["x"].as_str().unwrap()).unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &x);
        let mac = ring::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac))
    };
    let refused = [
        ("another's key", impostor.sign_with(&header, &claims)),
        (
            "a key not published",
            impostor.sign_with(&with(&header, "kid", json!("impostor")), &claims),
        ),
        ("no algorithm", format!("{none}.{}.", parts[1])),
        ("no algorithm, the signature kept", format!("{none}.{}.{}", parts[1], parts[2])),
        ("a public key as a secret", hs256),
        ("another type", impostor.sign_with(&with(&header, "typ", json!("JWT")), &claims)),
        ("other claims", format!("{}.{forged}.{}", parts[0], parts[2])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("no part", String::new()),
        ("no JSON", "a.b.c".to_owned()),
        ("two of them", format!("{good}, {good}")),
    ];
    for (what, assertion) in refused {
        let answer = verifier.ask("GET", &target, &assertion);
        assert!(answer.starts_with("401 "), "{what}: {answer}");
    }
    for (method, other) in [
        ("POST", &*target),
        ("GET", OWN),
        ("GET", &format!("{OWN}?")),
        ("GET", &format!("{OWN}?page=2&x=%20")),
        ("GET", &format!("{target}?")),
        ("GET", "/api/plugin/shops/demo/product?page=1&x=%20"),
    ] {
        let answer = verifier.ask(method, other, &good);
        assert_eq!(answer, "401 X-Auth-Assertion: for another request", "{method} {other}");
    }
    let elsewhere = Verifier::start(w.site.path(), &w.gateway, "orders", 0);
    assert_eq!(elsewhere.ask("GET", &target, &good), "401 X-Auth-Assertion: for somebody else");
    let later = Verifier::start(w.site.path(), &w.gateway, "default", 120);
    assert_eq!(later.ask("GET", &target, &good), "401 X-Auth-Assertion: expired");
    assert_eq!(verifier.ask("GET", &target, &good), accepted, "all the while");
}

#[test]
fn the_readmes_upstream_stands_behind_latchkey_and_follows_a_rotation() {
    let w = world(ON);
    let verifier = Verifier::start(w.site.path(), &w.gateway, "default", 0);
    assert_eq!(w.gateway.send(&get(OWN).key(&w.key)).status, 200);
    let old = w.assertion();
    assert!(verifier.ask("GET", OWN, &old).starts_with("200 "));
    w.site.configure(Some(&Upstream::at(verifier.address)), ON);
    w.gateway.signal("HUP");
    let expected = format!("shop_api_key {}\n", w.key_id);
    let call = || w.gateway.send(&get(OWN).key(&w.key));
    crate::support::until(|| (call().text() == expected).then_some(()));
    w.site.cli_ok(&["assertion", "rotate-key", "--at-once"]);
    let answer = call();
    assert_eq!((answer.status, answer.text()), (200, expected));
    assert_eq!(verifier.ask("GET", OWN, &old), "401 X-Auth-Assertion: not signed");
    assert_eq!(w.gateway.send(&get("/api/search/x")).text(), "anonymous anonymous\n");
}
