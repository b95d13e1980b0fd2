//! Every change leaves its entry in the audit log, and nothing else does.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::Method;
use serde_json::Value;

use crate::admin::api::dto::AuditEntry;
use crate::admin::caller::{Caller, Via};
use crate::admin::jobs::{Progress, tick};
use crate::admin::operations::configuration;
use crate::admin::testing::{Answer, Bench, config};
use crate::id::AdminTokenId;
use crate::store::Role;

/// Operations of the API that change nothing.
const LOOKING: [&str; 3] = ["explain", "verifyAudit", "verifyBackup"];

/// What takes more than one request to prepare: a fetch, a session, a second factor, a file.
const ELSEWHERE: [&str; 8] = [
    "refreshIssuer",
    "resetOperatorSecondFactor",
    "revokeOperatorSessions",
    "revokeSession",
    "createBackup",
    "streamBackup",
    "deleteBackup",
    "import",
];

pub(super) fn caller() -> Caller {
    Caller {
        role: Role::Owner,
        name: "Kim".to_owned(),
        via: Via::Token(AdminTokenId(7)),
        address: Some("192.0.2.9".parse().unwrap()),
        ..Caller::socket()
    }
}

async fn send(bench: &Bench, method: &Method, path: &str, body: &str) -> Answer {
    let mut request = Bench::request(method.clone(), &format!("/api/v1{path}"), body);
    request.extensions_mut().insert(caller());
    bench.answer(request).await
}

/// All entries, the oldest first.
pub(super) async fn entries(bench: &Bench) -> Vec<AuditEntry> {
    let page = bench.get("/api/v1/audit?limit=1000").await.expect(200).json();
    let mut items: Vec<AuditEntry> = serde_json::from_value(page["items"].clone()).unwrap();
    items.reverse();
    items
}

pub(super) async fn intact(bench: &Bench) {
    let answer = bench.post("/api/v1/audit/verify", "").await.expect(200);
    assert_eq!(answer.get("/intact"), "true", "{}", answer.text);
}

/// The members of `kept` that `expected` names are as it says.
fn assert_holds(kept: Option<&serde_json::Map<String, Value>>, expected: &str, what: &str) {
    let expected: Option<serde_json::Map<String, Value>> = serde_json::from_str(expected).unwrap();
    assert_eq!(kept.is_some(), expected.is_some(), "{what}: {kept:?}");
    for (name, value) in expected.iter().flatten() {
        assert_eq!(kept.unwrap().get(name), Some(value), "{what}: {name} in {kept:?}");
    }
}

const ISSUER: &str = "[[issuers]]\nname = \"main\"\nissuer = \"https://id.example\"\n\
     audiences = [\"api\"]\nalgorithms = [\"EdDSA\"]\n\
     jwks_url = \"https://id.example/jwks\"\n[assertion]\nenabled = true\n";

const LIMITS: &str = r#"{"shop-me":{"limit":7,"window_seconds":60}}"#;
const KEPT: &str = r#"{"shop-me":{"limit":7,"window_seconds":60,"burst":null}}"#;

/// Everything else that changes something through the API, in an order in which it can be done:
/// the operation, the request and its body, the action and its subject, and what of the subject
/// was and is.
const STEPS: [[&str; 6]; 21] = [
    [
        "createShop",
        "POST /shops",
        r#"{"id":"new","url":"https://new.example"}"#,
        "shop.created shop:new",
        "null",
        r#"{"url":"https://new.example"}"#,
    ],
    [
        "putShop",
        "PUT /shops/newer",
        r#"{"url":"https://newer.example"}"#,
        "shop.created shop:newer",
        "null",
        r#"{"enabled":true}"#,
    ],
    [
        "putShop",
        "PUT /shops/newer",
        r#"{"url":"https://b.example"}"#,
        "shop.changed shop:newer",
        r#"{"url":"https://newer.example"}"#,
        r#"{"url":"https://b.example"}"#,
    ],
    [
        "patchShop",
        "PATCH /shops/demo",
        r#"{"name":"Demo"}"#,
        "shop.changed shop:demo",
        r#"{"name":""}"#,
        r#"{"name":"Demo"}"#,
    ],
    [
        "putShopLimits",
        "PUT /shops/demo/limits",
        LIMITS,
        "shop.limits_changed shop:demo",
        "{}",
        KEPT,
    ],
    [
        "deleteShopLimits",
        "DELETE /shops/demo/limits",
        "",
        "shop.limits_changed shop:demo",
        KEPT,
        "{}",
    ],
    [
        "patchKey",
        "PATCH /shops/demo/keys/{key}",
        r#"{"name":"till"}"#,
        "key.changed key:{key}",
        r#"{"name":""}"#,
        r#"{"name":"till"}"#,
    ],
    [
        "putKeyLimits",
        "PUT /shops/demo/keys/{key}/limits",
        LIMITS,
        "key.limits_changed key:{key}",
        "{}",
        KEPT,
    ],
    [
        "deleteKeyLimits",
        "DELETE /shops/demo/keys/{key}/limits",
        "",
        "key.limits_changed key:{key}",
        KEPT,
        "{}",
    ],
    [
        "rotateKey",
        "POST /shops/demo/keys/{key}/rotate",
        r#"{"grace_seconds":60}"#,
        "key.rotated key:{key}",
        r#"{"name":"till"}"#,
        r#"{"grace_until":"2027-01-15T08:01:00Z"}"#,
    ],
    [
        "deleteKey",
        "DELETE /shops/demo/keys/{key}",
        "",
        "key.revoked key:{key}",
        r#"{"name":"till"}"#,
        "null",
    ],
    [
        "rotateKey",
        "POST /shops/demo/keys/{other}/rotate",
        "",
        "key.rotated key:{other}",
        r#"{"name":""}"#,
        r#"{"grace_until":null}"#,
    ],
    [
        "revokeWidgetToken",
        "DELETE /shops/demo/widget-tokens/{token}",
        "",
        "widget_token.revoked widget_token:{token}",
        r#"{"revoked_at":null}"#,
        r#"{"revoked_at":"2027-01-15T08:00:00Z"}"#,
    ],
    [
        "revokeAllWidgetTokens",
        "POST /shops/demo/widget-tokens/revoke-all",
        "",
        "widget_token.all_revoked shop:demo",
        "{}",
        "{}",
    ],
    [
        "revokeAdminToken",
        "DELETE /admin-tokens/{admin_token}",
        "",
        "admin_token.revoked admin_token:{admin_token}",
        r#"{"name":"ci","role":"viewer"}"#,
        "null",
    ],
    [
        "rotateSigningKeys",
        "POST /signing-keys/rotate",
        "",
        "signing_key.rotated signing_key:2",
        r#"{"signs":1}"#,
        r#"{"signs":2}"#,
    ],
    [
        "rotateAssertionKeys",
        "POST /assertion-keys/rotate",
        r#"{"at_once":true}"#,
        "assertion_key.changed assertion_key:all",
        r#"{"1":{"signs_from":"2027-01-15T08:00:00Z"}}"#,
        r#"{"2":{"signs_from":"2027-01-15T08:00:00Z"}}"#,
    ],
    [
        "patchOperator",
        "PATCH /operators/{operator}",
        r#"{"role":"operator"}"#,
        "operator.changed operator:{operator}",
        r#"{"role":"viewer"}"#,
        r#"{"role":"operator"}"#,
    ],
    [
        "resetOperatorPassword",
        "PUT /operators/{operator}/password",
        r#"{"password":"correct horse battery"}"#,
        "operator.password_reset operator:{operator}",
        "{}",
        "{}",
    ],
    [
        "deleteOperator",
        "DELETE /operators/{operator}",
        "",
        "operator.deleted operator:{operator}",
        r#"{"role":"operator"}"#,
        "null",
    ],
    [
        "deleteShop",
        "DELETE /shops/demo",
        "",
        "shop.deleted shop:demo",
        r#"{"name":"Demo"}"#,
        "null",
    ],
];

/// Operations of the API that change something, by their names.
fn changing() -> BTreeSet<String> {
    let described = serde_json::to_value(crate::admin::api::description()).unwrap();
    let mut names = BTreeSet::new();
    for item in described["paths"].as_object().unwrap().values() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            if method != "get" && !LOOKING.contains(&name) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[tokio::test]
async fn every_change_through_the_api_leaves_one_entry() {
    let bench = Bench::with(ISSUER);
    bench.shop("demo").await;
    // Creations name what they made only in their answer.
    let mut covered: BTreeSet<String> = ELSEWHERE.map(ToOwned::to_owned).into();
    let mut made = Vec::new();
    for (operation, path, body, action) in [
        ("createKey", "/shops/demo/keys", "{}", "key.created"),
        ("createKey", "/shops/demo/keys", "{}", "key.created"),
        ("createWidgetToken", "/shops/demo/widget-tokens", "", "widget_token.issued"),
        (
            "createAdminToken",
            "/admin-tokens",
            r#"{"name":"ci","role":"viewer"}"#,
            "admin_token.created",
        ),
        ("createOperator", "/operators", r#"{"name":"ada","role":"viewer"}"#, "operator.created"),
    ] {
        let before = entries(&bench).await.len();
        let answer = send(&bench, &Method::POST, path, body).await.expect(201);
        let now = entries(&bench).await;
        assert_eq!(now.len(), before + 1, "{operation}");
        let entry = now.last().unwrap();
        assert_eq!((entry.action.as_str(), &entry.subject.id), (action, &answer.get("/id")));
        assert!(entry.before.is_none() && entry.after.is_some(), "{operation}");
        made.push(answer.get("/id"));
        covered.insert(operation.to_owned());
    }
    let placeholders = ["{key}", "{other}", "{token}", "{admin_token}", "{operator}"];
    let fill = |text: &str| {
        let pairs = placeholders.iter().zip(&made);
        pairs.fold(text.to_owned(), |text, (name, id)| text.replace(name, id))
    };
    for [operation, request, body, entry_of, was, is] in STEPS {
        let (what, before) = (fill(request), entries(&bench).await.len());
        let (method, path) = what.split_once(' ').unwrap();
        let answer = send(&bench, &method.parse().unwrap(), path, body).await;
        assert!(answer.status.is_success(), "{what}: {}", answer.text);
        let now = entries(&bench).await;
        assert_eq!(now.len(), before + 1, "{what}");
        let entry = now.last().unwrap();
        let AuditEntry { action, subject, actor, .. } = entry;
        assert_eq!(format!("{action} {}:{}", subject.kind, subject.id), fill(entry_of));
        assert_eq!(actor.label, "adm_0000000000000007", "{what}");
        assert_eq!((actor.name.as_str(), actor.role.as_str()), ("Kim", "owner"), "{what}");
        assert_eq!(entry.address.as_deref(), Some("192.0.2.9"), "{what}");
        assert_holds(entry.before.as_ref(), was, &what);
        assert_holds(entry.after.as_ref(), is, &what);
        covered.insert(operation.to_owned());
    }
    assert_eq!(covered, changing(), "an operation is not in this table");
    intact(&bench).await;
}

#[tokio::test]
async fn what_changes_nothing_leaves_none() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (key, _) = bench.key("demo").await;
    let (token, _) = bench.token("demo", "{}").await;
    let revoke = format!("/shops/demo/widget-tokens/{token}");
    send(&bench, &Method::DELETE, &revoke, "").await.expect(204);
    let create = || {
        let mut request = Bench::request(Method::POST, "/api/v1/shops/demo/keys", "{}");
        request.headers_mut().insert("idempotency-key", "again".parse().unwrap());
        request.extensions_mut().insert(caller());
        request
    };
    bench.answer(create()).await.expect(201);
    let before = entries(&bench).await;
    bench.answer(create()).await.expect(201);
    for (method, path, body) in [
        (Method::PUT, "/shops/demo", r#"{"url":"https://demo.example"}"#),
        (Method::PATCH, "/shops/demo", "{}"),
        (Method::PUT, "/shops/demo/limits", "{}"),
        (Method::DELETE, "/shops/demo/limits", ""),
        (Method::PATCH, &format!("/shops/demo/keys/{key}"), r#"{"networks":[]}"#),
        (Method::DELETE, &revoke, ""),
        // Refused, and not done.
        (Method::POST, "/shops", r#"{"id":"demo","url":"https://demo.example"}"#),
        (Method::PATCH, "/shops/demo", r#"{"url":"nonsense"}"#),
        (Method::DELETE, "/shops/none", ""),
        (Method::DELETE, "/shops/demo/keys/key_0000000000000001", ""),
        (Method::POST, &format!("/shops/demo/keys/{key}/rotate"), r#"{"grace_seconds":99999999}"#),
        (Method::POST, "/assertion-keys/rotate", ""),
    ] {
        send(&bench, &method, path, body).await;
        assert_eq!(entries(&bench).await, before, "{method} {path}");
    }
    let viewer = bench.send_as(Role::Viewer, Method::DELETE, "/api/v1/shops/demo", "").await;
    viewer.expect(403);
    bench.node.reload(config(&bench.dir, ""));
    tick(&bench.node, &Progress::default());
    assert_eq!(entries(&bench).await, before);
}

#[tokio::test]
async fn what_happens_by_itself_is_the_systems() {
    let bench = Bench::with(ISSUER);
    bench.shop("demo").await;
    let (key, _) = bench.key("demo").await;
    let rotate = format!("/shops/demo/keys/{key}/rotate");
    send(&bench, &Method::POST, &rotate, r#"{"grace_seconds":60}"#).await.expect(201);
    let before = entries(&bench).await.len();
    bench.clock.advance(Duration::from_secs(61));
    tick(&bench.node, &Progress::default());
    bench.clock.advance(Duration::from_secs(200 * 24 * 3600));
    tick(&bench.node, &Progress::default());
    bench.node.reload(config(&bench.dir, "[widget]\nlifetime = \"7m\"\n"));
    configuration::refused(&bench.node, "a.toml", &["limits[0]: no name".to_owned()]).unwrap();
    configuration::started(&bench.node).unwrap();
    configuration::stopped(&bench.node).unwrap();
    let found = entries(&bench).await.split_off(before);
    let actions: Vec<&str> = found.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "key.pruned",
            "signing_key.rotated",
            "signing_key.removed",
            "assertion_key.changed",
            "configuration.reloaded",
            "configuration.refused",
            "process.started",
            "process.stopped",
        ]
    );
    assert!(found.iter().all(|entry| entry.actor.label == "system" && entry.address.is_none()));
    let reloaded = serde_json::to_string(&found[4].after).unwrap();
    assert!(reloaded.contains("widget.lifetime = \\\"7m\\\"  # "), "{reloaded}");
    assert!(!reloaded.contains("store.path"), "only what differs: {reloaded}");
    assert_eq!(found[5].subject.id, "a.toml");
    intact(&bench).await;
    // The first entries are about the first keys: nothing is before the log.
    let first: Vec<String> =
        entries(&bench).await.into_iter().take(2).map(|entry| entry.action).collect();
    assert_eq!(first, ["signing_key.rotated", "assertion_key.changed"]);
}

#[tokio::test]
async fn no_secret_is_in_any_entry() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (key, secret) = bench.key("demo").await;
    let (_, token) = bench.token("demo", "{}").await;
    let rotate = format!("/api/v1/shops/demo/keys/{key}/rotate");
    let rotated = bench.post(&rotate, "{}").await.expect(201).get("/secret");
    let admin = bench.post("/api/v1/admin-tokens", r#"{"name":"a","role":"owner"}"#).await;
    let admin = admin.expect(201).get("/secret");
    let exported = bench.get("/api/v1/audit/export").await.expect(200).text;
    let digests = [&secret, &rotated, &admin].map(|secret| {
        use base64::Engine as _;
        let digest = bench.node.pepper().digest(secret.as_bytes());
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest.as_bytes())
    });
    for secret in [&secret, &token, &rotated, &admin].into_iter().chain(&digests) {
        assert!(!exported.contains(secret.as_str()));
    }
    assert!(exported.contains(secret.get(..7).unwrap()), "what people recognize a key by is there");
}
