//! Who may do what, and what everyone may see.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Method;

use crate::admin::api::auth::Peer;
use crate::admin::testing::{Answer, Bench};
use crate::store::Role;

async fn with_token(bench: &Bench, method: Method, path: &str, authorization: &str) -> Answer {
    from(bench, "192.0.2.1:1", method, path, authorization).await
}

async fn from(
    bench: &Bench,
    peer: &str,
    method: Method,
    path: &str,
    authorization: &str,
) -> Answer {
    let mut request = Bench::request(method, path, "");
    request.extensions_mut().insert(Peer(peer.parse::<SocketAddr>().unwrap()));
    if !authorization.is_empty() {
        request.headers_mut().insert("authorization", authorization.parse().unwrap());
    }
    bench.answer(request).await
}

async fn admin_token(bench: &Bench, role: &str, more: &str) -> (String, String) {
    let body = format!(r#"{{"name":"{role}","role":"{role}"{more}}}"#);
    let made = bench.post("/api/v1/admin-tokens", &body).await.expect(201);
    (made.get("/id"), format!("Bearer {}", made.get("/secret")))
}

/// What parses as the body of a request to `path`: who may not is refused by the operation, which
/// is asked once the request is understood.
fn body(path: &str) -> &'static str {
    match path.trim_start_matches("/api/v1") {
        "/shops" => r#"{"id":"x","url":"https://x.example"}"#,
        "/shops/demo" => r#"{"url":"https://demo.example"}"#,
        "/admin-tokens" | "/operators" => r#"{"name":"x","role":"viewer"}"#,
        path if path.ends_with("/password") => r#"{"password":"long enough for one"}"#,
        "/explain" => r#"{"method":"GET","path":"/"}"#,
        _ => "{}",
    }
}

/// Every operation the API describes, its placeholders filled.
fn operations() -> Vec<(Method, String)> {
    let described = serde_json::to_value(crate::admin::api::description()).unwrap();
    let mut found = Vec::new();
    for (path, item) in described["paths"].as_object().unwrap() {
        let path = path
            .replace("{shop}", "demo")
            .replace("{key}", "key_0000000000000001")
            .replace("backups/{name}", "backups/other.lkbackup")
            .replace("{name}", "main")
            .replace("admin-tokens/{id}", "admin-tokens/adm_0000000000000001")
            .replace("operators/{id}", "operators/op_0000000000000001")
            .replace("sessions/{id}", "sessions/ses_0000000000000001")
            .replace("{id}", "wt_00000000000000000000000000000001");
        for method in item.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes());
            if let Ok(method) = method
                && method != Method::from_bytes(b"PARAMETERS").unwrap()
            {
                found.push((method, path.clone()));
            }
        }
    }
    found
}

/// What the API offers, sorted.
const EVERY_OPERATION: &str = "DELETE /api/v1/admin-tokens/{id}
DELETE /api/v1/backups/{name}
DELETE /api/v1/operators/{id}
DELETE /api/v1/operators/{id}/second-factor
DELETE /api/v1/operators/{id}/sessions
DELETE /api/v1/sessions/{id}
DELETE /api/v1/shops/{shop}
DELETE /api/v1/shops/{shop}/keys/{key}
DELETE /api/v1/shops/{shop}/keys/{key}/limits
DELETE /api/v1/shops/{shop}/limits
DELETE /api/v1/shops/{shop}/widget-tokens/{id}
GET /api/v1/admin-tokens
GET /api/v1/assertion-keys
GET /api/v1/audit
GET /api/v1/audit/export
GET /api/v1/audit/head
GET /api/v1/backups
GET /api/v1/backups/{name}
GET /api/v1/events
GET /api/v1/export
GET /api/v1/info
GET /api/v1/issuers
GET /api/v1/operators
GET /api/v1/operators/{id}
GET /api/v1/operators/{id}/sessions
GET /api/v1/overview
GET /api/v1/sessions
GET /api/v1/shops
GET /api/v1/shops/{shop}
GET /api/v1/shops/{shop}/keys
GET /api/v1/shops/{shop}/keys/{key}
GET /api/v1/shops/{shop}/standing
GET /api/v1/shops/{shop}/usage
GET /api/v1/shops/{shop}/widget-tokens
GET /api/v1/signing-keys
GET /api/v1/usage
PATCH /api/v1/operators/{id}
PATCH /api/v1/shops/{shop}
PATCH /api/v1/shops/{shop}/keys/{key}
POST /api/v1/admin-tokens
POST /api/v1/assertion-keys/rotate
POST /api/v1/audit/verify
POST /api/v1/backups
POST /api/v1/backups/stream
POST /api/v1/backups/{name}/verify
POST /api/v1/explain
POST /api/v1/import
POST /api/v1/issuers/{name}/refresh
POST /api/v1/operators
POST /api/v1/shops
POST /api/v1/shops/{shop}/keys
POST /api/v1/shops/{shop}/keys/{key}/rotate
POST /api/v1/shops/{shop}/widget-tokens
POST /api/v1/shops/{shop}/widget-tokens/revoke-all
POST /api/v1/signing-keys/rotate
PUT /api/v1/operators/{id}/password
PUT /api/v1/shops/{shop}
PUT /api/v1/shops/{shop}/keys/{key}/limits
PUT /api/v1/shops/{shop}/limits";

#[tokio::test]
async fn the_api_describes_every_route() {
    let bench = Bench::new();
    let served = with_token(&bench, Method::GET, "/api/v1/openapi.json", "").await.expect(200);
    let json = served.json();
    assert_eq!(json, serde_json::to_value(crate::admin::api::description()).unwrap());
    assert!(json["openapi"].as_str().unwrap().starts_with("3."));
    assert!(json["components"]["securitySchemes"]["admin_token"].is_object());
    let mut listed: Vec<String> = Vec::new();
    for (path, item) in json["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["operationId"].is_string(), "{method} {path}");
            listed.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    listed.sort();
    assert_eq!(listed.join("\n"), EVERY_OPERATION);
    let text = json.to_string();
    for pointer in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(json.pointer(pointer).is_some(), "nothing at {pointer}");
    }
}

/// Who may, at least.
fn least_role(method: &Method, path: &str) -> Role {
    let is = |part: &str| path.contains(part);
    let looks = method == Method::GET;
    match () {
        () if is("/admin-tokens") || is("/v1/export") => Role::Owner,
        () if is("/backups") && (looks && path.ends_with("/backups") || is("/verify")) => {
            Role::Operator
        }
        () if is("/backups") => Role::Owner,
        () if is("/operators") || is("/sessions") => {
            if looks {
                Role::Operator
            } else {
                Role::Owner
            }
        }
        () if looks || is("/explain") || is("/audit/verify") => Role::Viewer,
        () => Role::Operator,
    }
}

#[tokio::test]
async fn every_operation_needs_a_token_and_its_role() {
    let bench = Bench::new();
    let (_, viewer) = admin_token(&bench, "viewer", "").await;
    let (_, operator) = admin_token(&bench, "operator", "").await;
    for (method, path) in operations() {
        let bare = with_token(&bench, method.clone(), &path, "").await;
        let bare = bare.problem(401, "missing_credential");
        assert!(bare.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        let least = least_role(&method, &path);
        for (token, role) in [(&viewer, Role::Viewer), (&operator, Role::Operator)] {
            let may = role >= least;
            if may && path.ends_with("/events") {
                // An answer without an end.
                continue;
            }
            let mut request = Bench::request(method.clone(), &path, body(&path));
            request.headers_mut().insert("authorization", token.parse().unwrap());
            let answer = bench.answer(request).await;
            assert_eq!(answer.status == 403, !may, "{method} {path} {}", answer.text);
            if !may {
                answer.problem(403, "insufficient_role");
            }
        }
        if path.ends_with("/events") {
            continue;
        }
        let answer = bench.send_as(Role::Owner, method, &path, body(&path)).await;
        assert!(answer.status != 401 && answer.status != 403 && answer.status != 500, "{path}");
    }
}

#[tokio::test]
async fn a_token_verifies_until_it_expires_or_is_revoked() {
    let bench = Bench::new();
    let (id, token) = admin_token(&bench, "operator", "").await;
    let expiring = r#","expires_at":"2027-01-15T08:01:00Z""#;
    let (_, brief) = admin_token(&bench, "viewer", expiring).await;
    let get = |token: &str| {
        let token = token.to_owned();
        let bench = &bench;
        async move { with_token(bench, Method::GET, "/api/v1/info", &token).await }
    };
    assert_eq!(get(&token).await.expect(200).get("/role"), "operator");
    assert_eq!(get(&brief).await.expect(200).get("/role"), "viewer");
    bench.clock.advance(Duration::from_secs(60));
    let expired = get(&brief).await.problem(401, "expired_credential");
    assert!(expired.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    bench.delete(&format!("/api/v1/admin-tokens/{id}")).await.expect(204);
    get(&token).await.problem(401, "invalid_credential");
    let listed = bench.get("/api/v1/admin-tokens").await;
    assert_eq!(listed.get("/items/0/last_used_at"), "2027-01-15T08:00:00Z");
    for bad in ["Basic x", "Bearer", "Bearer lka_", "Bearer LKA_00", "lka_00"] {
        get(bad).await.problem(401, "invalid_credential");
    }
}

#[tokio::test]
async fn an_address_that_guesses_is_throttled() {
    let bench = Bench::with("[failed_attempts]\nlimit = 3\nwindow = \"1m\"\n");
    let (_, good) = admin_token(&bench, "viewer", "").await;
    let bad = format!("Bearer lka_{}", "0".repeat(40));
    let (path, here, there) = ("/api/v1/info", "192.0.2.1:1", "192.0.2.2:1");
    for _ in 0..3 {
        let answer = from(&bench, here, Method::GET, path, &bad).await;
        answer.problem(401, "invalid_credential");
    }
    let refused = from(&bench, here, Method::GET, path, &good).await.problem(429, "rate_limited");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    from(&bench, there, Method::GET, path, &good).await.expect(200);
    bench.clock.advance(Duration::from_secs(wait));
    from(&bench, here, Method::GET, path, &good).await.expect(200);
}

#[tokio::test]
async fn health_and_metrics_need_no_token() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let get = |path: &'static str| with_token(&bench, Method::GET, path, "");
    get("/livez").await.expect(200);
    let ready = get("/readyz").await.expect(200);
    assert_eq!((ready.get("/status"), ready.get("/store")), ("ok".into(), "writable".into()));
    let metrics = get("/metrics").await.expect(200);
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert!(metrics.text.contains("latchkey_store_commit_duration_seconds_count"));
    assert!(!metrics.text.contains("demo"));
    bench.node.set_draining();
    assert_eq!(get("/readyz").await.expect(503).get("/status"), "draining");
    get("/livez").await.expect(200);
}

#[tokio::test]
async fn issuers_without_keys_degrade_and_say_so() {
    let issuer = "[[issuers]]\nname = \"main\"\nissuer = \"https://id.example\"\n\
         audiences = [\"api\"]\nalgorithms = [\"ES256\"]\n\
         jwks_url = \"https://id.example/jwks\"\n";
    let bench = Bench::with(issuer);
    let ready = bench.get("/readyz").await.expect(200);
    assert_eq!(ready.get("/status"), "degraded");
    assert_eq!(ready.get("/issuers/main"), "keys_unavailable");
    let listed = bench.get("/api/v1/issuers").await.expect(200);
    assert_eq!(listed.get("/items/0/name"), "main");
    assert_eq!(
        (listed.get("/items/0/usable"), listed.get("/items/0/keys")),
        ("false".into(), "0".into())
    );
    bench.post("/api/v1/issuers/other/refresh", "").await.problem(404, "not_found");
    bench.post("/api/v1/issuers/main/refresh", "").await.problem(503, "unavailable");
    assert!(bench.get("/metrics").await.text.contains("latchkey_jwks_age_seconds"));
}
