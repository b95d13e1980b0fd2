//! The admin API over its two listeners: who may, and what it says.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Request, request};
use crate::support::upstream::{Behaviour, Upstream};

fn gateway() -> (Site, Upstream, Gateway) {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let gateway = site.start();
    (site, upstream, gateway)
}

fn admin_token(gateway: &Gateway, role: &str) -> String {
    let body = json!({"name": role, "role": role});
    let created = gateway.api_ok("POST", "/admin-tokens", &body);
    created["secret"].as_str().expect("a secret").to_owned()
}

#[test]
fn over_tcp_a_token_is_needed_and_its_role_decides() {
    let (_site, _upstream, gateway) = gateway();
    gateway.shop("demo");
    let shops = || request("GET", "/api/v1/shops");
    let bare = shops().send(gateway.admin);
    assert_eq!(bare.status, 401);
    assert!(bare.header("www-authenticate").is_some_and(|c| c.starts_with("Bearer")));
    let wrong = shops().bearer(&format!("lka_{}", "0".repeat(40))).send(gateway.admin);
    assert_eq!(wrong.status, 401);

    let create = || request("POST", "/api/v1/shops/demo/keys").json(&json!({"name": "x"}));
    let tokens = || request("GET", "/api/v1/admin-tokens");
    let as_role = |role: &str, call: Request| {
        let answer = call.bearer(&admin_token(&gateway, role)).send(gateway.admin);
        crate::support::secrets::collect(&answer);
        answer.status
    };
    for (role, read, write, own) in
        [("viewer", 200, 403, 403), ("operator", 200, 201, 403), ("owner", 200, 201, 200)]
    {
        assert_eq!(as_role(role, shops()), read, "{role}");
        assert_eq!(as_role(role, create()), write, "{role}");
        assert_eq!(as_role(role, tokens()), own, "{role}");
    }

    let token = admin_token(&gateway, "viewer");
    let listed = gateway.api_ok("GET", "/admin-tokens", &Value::Null);
    let last = listed["items"].as_array().and_then(|i| i.iter().rfind(|t| t["name"] == "viewer"));
    for item in listed["items"].as_array().expect("items") {
        assert!(item.get("secret").is_none(), "{item}");
    }
    assert!(last.is_some());
    assert_eq!(shops().bearer(&token).send(gateway.admin).status, 200);
    for item in listed["items"].as_array().expect("items") {
        let id = item["id"].as_str().expect("an id");
        if item["role"] == "viewer" {
            gateway.api_ok("DELETE", &format!("/admin-tokens/{id}"), &Value::Null);
        }
    }
    assert_eq!(shops().bearer(&token).send(gateway.admin).status, 401, "revoked at once");
}

#[test]
fn put_is_repeatable_and_creation_idempotent() {
    let (site, _upstream, gateway) = gateway();
    let shop = json!({"name": "Demo", "url": "https://demo.example"});
    assert_eq!(gateway.api("PUT", "/shops/demo", &shop).status, 201);
    assert_eq!(gateway.api("PUT", "/shops/demo", &shop).status, 200);
    let keyed = |body: &Value| {
        let call = request("POST", "/api/v1/shops/demo/keys").json(body);
        let answer = call.header("Idempotency-Key", "one").send_unix(&site.socket());
        crate::support::secrets::collect(&answer);
        answer
    };
    let first = keyed(&json!({"name": "a"}));
    let again = keyed(&json!({"name": "a"}));
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert!(first.json()["secret"].is_string() && again.json()["secret"].is_null());
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(keyed(&json!({"name": "b"})).status, 422);
    let keys = gateway.api_ok("GET", "/shops/demo/keys", &Value::Null);
    assert_eq!(keys["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn lists_are_paged_by_cursor() {
    let (_site, _upstream, gateway) = gateway();
    for n in 0..7 {
        gateway.shop(&format!("shop-{n}"));
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = gateway.api_ok("GET", &format!("/shops?limit=3{cursor}"), &Value::Null);
        let items = page["items"].as_array().expect("items").clone();
        assert!(items.len() <= 3);
        seen.extend(items.iter().map(|i| i["id"].as_str().expect("an id").to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, (0..7).map(|n| format!("shop-{n}")).collect::<Vec<_>>());
    assert_eq!(gateway.api("GET", "/shops?cursor=%21", &Value::Null).status, 400);
}

#[test]
fn mistakes_are_problems_that_name_the_field() {
    let (site, _upstream, gateway) = gateway();
    gateway.shop("demo");
    for (method, path, body, status) in [
        ("POST", "/shops", json!({"id": "x", "url": "nonsense"}), 422),
        ("POST", "/shops", json!({"id": "a b", "url": "https://x.example"}), 422),
        ("POST", "/shops", json!({"id": "demo", "url": "https://x.example"}), 409),
        ("POST", "/shops", json!({"id": "x", "url": "https://x.example", "ulr": 1}), 422),
        ("POST", "/shops/nobody/keys", json!({"name": "x"}), 404),
        ("POST", "/shops/demo/keys", json!({"networks": ["x"]}), 422),
        ("POST", "/shops/demo/keys", json!({"expires_at": "2001-01-01T00:00:00Z"}), 422),
        ("POST", "/shops/demo/widget-tokens", json!({"scopes": ["root"]}), 422),
        ("POST", "/shops/demo/widget-tokens", json!({"lifetime_seconds": 86_401}), 422),
        ("GET", "/nothing", Value::Null, 404),
        ("DELETE", "/shops", Value::Null, 405),
    ] {
        let answer = gateway.api(method, path, &body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(answer.json()["code"].is_string() && answer.json()["detail"].is_string());
    }
    let broken = request("POST", "/api/v1/shops").header("Content-Type", "application/json");
    assert_eq!(broken.body("{").send_unix(&site.socket()).status, 400);
}

#[test]
fn the_openapi_document_names_every_endpoint() {
    let (_site, _upstream, gateway) = gateway();
    let document = gateway.api_ok("GET", "/openapi.json", &Value::Null);
    assert!(document["openapi"].as_str().is_some_and(|v| v.starts_with("3.")));
    for (path, methods) in [
        ("/shops", &["get", "post"][..]),
        ("/shops/{shop}", &["get", "put", "patch", "delete"]),
        ("/shops/{shop}/keys", &["get", "post"]),
        ("/shops/{shop}/keys/{key}", &["get", "patch", "delete"]),
        ("/shops/{shop}/keys/{key}/rotate", &["post"]),
        ("/shops/{shop}/widget-tokens", &["get", "post"]),
        ("/shops/{shop}/widget-tokens/{id}", &["delete"]),
        ("/shops/{shop}/widget-tokens/revoke-all", &["post"]),
        ("/shops/{shop}/limits", &["put", "delete"]),
        ("/shops/{shop}/keys/{key}/limits", &["put", "delete"]),
        ("/issuers", &["get"]),
        ("/issuers/{name}/refresh", &["post"]),
        ("/assertion-keys", &["get"]),
        ("/assertion-keys/rotate", &["post"]),
        ("/explain", &["post"]),
    ] {
        let full = format!("/api/v1{path}");
        for method in methods {
            let operation = &document["paths"][&full][method];
            assert!(operation.is_object(), "{method} {full} is not in the document");
        }
    }
}
