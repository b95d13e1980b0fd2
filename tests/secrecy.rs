//! No secret stands where it does not belong. Every test of this suite hands what the binary
//! writes to [`crate::support::secrets`]; this one makes a run that mints every kind of secret and
//! uses each in every way it can end up in a log.

use std::fs;

use serde_json::{Value, json};

use crate::support::gateway::Site;
use crate::support::http::{get, request};
use crate::support::idp::{Key, Provider};
use crate::support::secrets;
use crate::support::upstream::{Behaviour, Upstream};

#[test]
fn no_secret_in_logs_metrics_errors_or_database() {
    let upstream = Upstream::start(Behaviour::Echo);
    let key = Key::es256("k");
    let provider = Provider::start(&[&key]);
    let issuer = format!(
        "[[issuers]]\nname = \"main\"\nissuer = \"{}\"\naudiences = [\"latchkey\"]\n\
         algorithms = [\"ES256\"]\ndiscovery = true\n",
        provider.issuer()
    );
    let site = Site::new(Some(&upstream), &issuer);
    let gateway = site.start();
    gateway.shop("demo");
    let (key_id, api_key) = gateway.key("demo", &json!({}));
    let (token_id, token) = gateway.token("demo", &json!(null));
    let admin = gateway.api_ok("POST", "/admin-tokens", &json!({"name": "ci", "role": "owner"}));
    let admin = admin["token"].as_str().or(admin["secret"].as_str()).expect("a token").to_owned();
    secrets::minted(&admin);
    let jwt = key.sign(&provider.claims());
    secrets::minted(&jwt);

    for path in ["/api/plugin/shops/me/x", "/api/widget/x", "/api/search/x", "/nowhere", "/a//b"] {
        for secret in [&api_key, &token, &jwt, &admin] {
            gateway.send(&get(path).key(secret));
            gateway.send(&get(path).widget(secret));
            gateway.send(&get(path).bearer(secret));
            gateway.send(&get(path).header("Authorization", secret));
            gateway.send(&get(path).header("Origin", format!("https://{secret}.example")));
            gateway.send(&get(&format!("{path}?key={secret}")));
            let admin_call = request("GET", "/api/v1/shops").bearer(secret);
            admin_call.send(gateway.admin);
        }
    }
    let rotate = format!("/shops/demo/keys/{key_id}/rotate");
    gateway.api_ok("POST", &rotate, &json!({"grace_seconds": 60}));
    gateway.api_ok("DELETE", &format!("/shops/demo/widget-tokens/{token_id}"), &json!(null));
    let explained = json!({
        "method": "GET", "path": "/api/plugin/shops/me/x",
        "headers": {"X-Shop-API-Key": api_key, "X-Widget-Token": token},
    });
    secrets::saw(gateway.api("POST", "/explain", &explained).text().as_bytes());
    for path in ["/shops", "/shops/demo/keys", "/shops/demo/widget-tokens", "/admin-tokens"] {
        secrets::saw(gateway.api("GET", path, &Value::Null).text().as_bytes());
    }
    gateway.metrics();
    assert!(gateway.stop().success());

    let master = fs::read_to_string(site.master_key()).expect("the master key");
    secrets::minted(master.trim());
    let database = fs::read(site.database()).expect("the database");
    secrets::saw(&database);
    for secret in [&api_key, &token, &admin] {
        let sha256 = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
        assert!(memchr::memmem::find(&database, sha256.as_ref()).is_none(), "an unkeyed digest");
    }
    secrets::assert_none_leaked();
    let (minted, searched) = secrets::tally();
    assert!(minted >= 6 && searched > 100_000, "{minted} secrets in {searched} bytes");
}

#[test]
fn the_search_finds_a_secret_that_is_there() {
    let haystack = b"level=info key=sk_00112233445566778899aabbccddeeff";
    assert!(secrets::contains(haystack, "sk_00112233445566778899aabbccddeeff"));
    assert!(!secrets::contains(haystack, "sk_ffeeddccbbaa99887766554433221100"));
}
