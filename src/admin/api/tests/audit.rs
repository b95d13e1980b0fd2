//! Every change leaves its entry, and only every change; and the log through its API.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use crate::admin::api::dto::AuditEntry;
use crate::admin::caller::{Caller, Via};
use crate::admin::jobs::{Progress, tick};
use crate::admin::operations::configuration;
use crate::admin::testing::{Answer, Bench, config};
use crate::id::AdminTokenId;
use crate::store::{PRUNE_MAX, Role};

/// Operations of the API that change nothing.
const LOOKING: [&str; 2] = ["explain", "verifyAudit"];

/// What takes more than one request to prepare: a fetch, a session, a second factor. Tested where
/// that is.
const ELSEWHERE: [&str; 4] =
    ["refreshIssuer", "resetOperatorSecondFactor", "revokeOperatorSessions", "revokeSession"];

/// What somebody does, what its entry says it was done to, and what of it.
struct Step {
    operation: &'static str,
    method: Method,
    path: String,
    body: &'static str,
    action: &'static str,
    subject: String,
    before: Value,
    after: Value,
}

fn caller() -> Caller {
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
async fn entries(bench: &Bench) -> Vec<AuditEntry> {
    let page = bench.get("/api/v1/audit?limit=1000").await.expect(200).json();
    let mut items: Vec<AuditEntry> = serde_json::from_value(page["items"].clone()).unwrap();
    items.reverse();
    items
}

async fn intact(bench: &Bench) {
    let answer = bench.post("/api/v1/audit/verify", "").await.expect(200);
    assert_eq!(answer.get("/intact"), "true", "{}", answer.text);
}

/// The members of `kept` that `expected` names are as it says.
fn assert_holds(kept: Option<&serde_json::Map<String, Value>>, expected: &Value, what: &str) {
    match expected {
        Value::Null => assert_eq!(kept, None, "{what}"),
        expected => {
            let kept = kept.unwrap_or_else(|| panic!("{what}: nothing kept"));
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(kept.get(name), Some(value), "{what}: {name} in {kept:?}");
            }
        }
    }
}

const ISSUER: &str = "[[issuers]]\nname = \"main\"\nissuer = \"https://id.example\"\n\
     audiences = [\"api\"]\nalgorithms = [\"EdDSA\"]\n\
     jwks_url = \"https://id.example/jwks\"\n[assertion]\nenabled = true\n";

/// Everything that changes something through the API, in an order in which it can be done. The key
/// and the tokens it is done to are there already.
fn steps(made: &[String]) -> Vec<Step> {
    let [key, other, token, admin_token, operator] = made else { panic!("{made:?}") };
    let mut steps = Vec::new();
    let mut step = |operation, method, path: &str, body, action, subject: &str, before, after| {
        let (path, subject) = (path.to_owned(), subject.to_owned());
        steps.push(Step { operation, method, path, body, action, subject, before, after });
    };
    let (post, put, patch, delete) = (Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    let shop = |rest: &str| format!("/shops/demo{rest}");
    let of_key = |rest: &str| format!("/shops/demo/keys/{key}{rest}");
    let limits = r#"{"shop-me":{"limit":7,"window_seconds":60}}"#;
    let kept = json!({"shop-me": {"limit": 7, "window_seconds": 60, "burst": null}});

    step(
        "createShop",
        post.clone(),
        "/shops",
        r#"{"id":"new","url":"https://new.example"}"#,
        "shop.created",
        "shop:new",
        Value::Null,
        json!({"url": "https://new.example"}),
    );
    step(
        "putShop",
        put.clone(),
        "/shops/newer",
        r#"{"url":"https://newer.example"}"#,
        "shop.created",
        "shop:newer",
        Value::Null,
        json!({"enabled": true}),
    );
    step(
        "putShop",
        put.clone(),
        "/shops/newer",
        r#"{"url":"https://b.example"}"#,
        "shop.changed",
        "shop:newer",
        json!({"url": "https://newer.example"}),
        json!({"url": "https://b.example"}),
    );
    step(
        "patchShop",
        patch.clone(),
        &shop(""),
        r#"{"name":"Demo"}"#,
        "shop.changed",
        "shop:demo",
        json!({"name": ""}),
        json!({"name": "Demo"}),
    );
    step(
        "putShopLimits",
        put.clone(),
        &shop("/limits"),
        limits,
        "shop.limits_changed",
        "shop:demo",
        json!({}),
        kept.clone(),
    );
    step(
        "deleteShopLimits",
        delete.clone(),
        &shop("/limits"),
        "",
        "shop.limits_changed",
        "shop:demo",
        kept.clone(),
        json!({}),
    );
    step(
        "patchKey",
        patch,
        &of_key(""),
        r#"{"name":"till"}"#,
        "key.changed",
        &format!("key:{key}"),
        json!({"name": ""}),
        json!({"name": "till"}),
    );
    step(
        "putKeyLimits",
        put,
        &of_key("/limits"),
        limits,
        "key.limits_changed",
        &format!("key:{key}"),
        json!({}),
        kept.clone(),
    );
    step(
        "deleteKeyLimits",
        delete.clone(),
        &of_key("/limits"),
        "",
        "key.limits_changed",
        &format!("key:{key}"),
        kept,
        json!({}),
    );
    step(
        "rotateKey",
        post.clone(),
        &of_key("/rotate"),
        r#"{"grace_seconds":60}"#,
        "key.rotated",
        &format!("key:{key}"),
        json!({"name": "till"}),
        json!({"grace_until": "2027-01-15T08:01:00Z"}),
    );
    step(
        "deleteKey",
        delete.clone(),
        &of_key(""),
        "",
        "key.revoked",
        &format!("key:{key}"),
        json!({"name": "till"}),
        Value::Null,
    );
    step(
        "rotateKey",
        post.clone(),
        &format!("/shops/demo/keys/{other}/rotate"),
        "",
        "key.rotated",
        &format!("key:{other}"),
        json!({"name": ""}),
        json!({"grace_until": null}),
    );
    step(
        "revokeWidgetToken",
        delete.clone(),
        &shop(&format!("/widget-tokens/{token}")),
        "",
        "widget_token.revoked",
        &format!("widget_token:{token}"),
        json!({"revoked_at": null}),
        json!({"revoked_at": "2027-01-15T08:00:00Z"}),
    );
    step(
        "revokeAllWidgetTokens",
        post.clone(),
        &shop("/widget-tokens/revoke-all"),
        "",
        "widget_token.all_revoked",
        "shop:demo",
        json!({}),
        json!({}),
    );
    step(
        "revokeAdminToken",
        delete.clone(),
        &format!("/admin-tokens/{admin_token}"),
        "",
        "admin_token.revoked",
        &format!("admin_token:{admin_token}"),
        json!({"name": "ci", "role": "viewer"}),
        Value::Null,
    );
    step(
        "rotateSigningKeys",
        post.clone(),
        "/signing-keys/rotate",
        "",
        "signing_key.rotated",
        "signing_key:2",
        json!({"signs": 1}),
        json!({"signs": 2}),
    );
    step(
        "rotateAssertionKeys",
        post,
        "/assertion-keys/rotate",
        r#"{"at_once":true}"#,
        "assertion_key.changed",
        "assertion_key:all",
        json!({"1": {"signs_from": "2027-01-15T08:00:00Z"}}),
        json!({"2": {"signs_from": "2027-01-15T08:00:00Z"}}),
    );
    let of_operator = |rest: &str| format!("/operators/{operator}{rest}");
    step(
        "patchOperator",
        Method::PATCH,
        &of_operator(""),
        r#"{"role":"operator"}"#,
        "operator.changed",
        &format!("operator:{operator}"),
        json!({"role": "viewer"}),
        json!({"role": "operator"}),
    );
    step(
        "resetOperatorPassword",
        Method::PUT,
        &of_operator("/password"),
        r#"{"password":"correct horse battery"}"#,
        "operator.password_reset",
        &format!("operator:{operator}"),
        json!({}),
        json!({}),
    );
    step(
        "deleteOperator",
        delete.clone(),
        &of_operator(""),
        "",
        "operator.deleted",
        &format!("operator:{operator}"),
        json!({"role": "operator"}),
        Value::Null,
    );
    step(
        "deleteShop",
        delete,
        &shop(""),
        "",
        "shop.deleted",
        "shop:demo",
        json!({"name": "Demo"}),
        Value::Null,
    );
    steps
}

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
    for step in steps(&made) {
        let before = entries(&bench).await.len();
        let answer = send(&bench, &step.method, &step.path, step.body).await;
        assert!(answer.status.is_success(), "{}: {}", step.operation, answer.text);
        let now = entries(&bench).await;
        let what = format!("{} {}", step.operation, step.path);
        assert_eq!(now.len(), before + 1, "{what}");
        let entry = now.last().unwrap();
        assert_eq!(entry.action, step.action, "{what}");
        assert_eq!(format!("{}:{}", entry.subject.kind, entry.subject.id), step.subject);
        assert_eq!(entry.actor.label, "adm_0000000000000007", "{what}");
        assert_eq!((entry.actor.name.as_str(), entry.actor.role.as_str()), ("Kim", "owner"));
        assert_eq!(entry.address.as_deref(), Some("192.0.2.9"), "{what}");
        assert_holds(entry.before.as_ref(), &step.before, &what);
        assert_holds(entry.after.as_ref(), &step.after, &what);
        covered.insert(step.operation.to_owned());
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
    assert!(exported.contains(&secret[..7]), "what people recognize a key by is there");
}

#[tokio::test]
async fn lists_are_filtered_and_paged_from_the_newest() {
    let bench = Bench::new();
    for id in ["one", "two", "three"] {
        bench.shop(id).await;
        bench.clock.advance(Duration::from_secs(60));
    }
    let (key, _) = bench.key("two").await;
    let ids = async |query: &str| -> Vec<String> {
        let page = bench.get(&format!("/api/v1/audit?{query}")).await.expect(200).json();
        let items = page["items"].as_array().unwrap().clone();
        items.iter().map(|entry| entry["subject"]["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("action=shop.created").await, ["three", "two", "one"]);
    assert_eq!(ids("shop=two").await, [key.as_str(), "two"]);
    assert_eq!(ids("subject=two").await, ["two"]);
    assert_eq!(ids(&format!("subject=key:{key}")).await, [key.as_str()]);
    assert_eq!(ids("subject=key").await, [key.as_str()]);
    assert_eq!(ids("actor=system").await, ["1"]);
    assert_eq!(ids("actor=test&from=2027-01-15T08:01:00Z&to=2027-01-15T08:02:00Z").await, ["two"]);
    assert_eq!(ids("actor=nobody").await, [""; 0]);
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = bench.get(&format!("/api/v1/audit?limit=2{cursor}")).await.expect(200).json();
        let seqs = page["items"].as_array().unwrap().clone();
        assert!(seqs.len() <= 2);
        all.extend(seqs.iter().map(|entry| entry["seq"].as_u64().unwrap()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(all, [5, 4, 3, 2, 1]);
    for bad in ["action=shop.exploded", "from=yesterday", "shop=%2F", "limit=0", "cursor=x", "x=1"]
    {
        bench.get(&format!("/api/v1/audit?{bad}")).await.problem(400, "bad_request");
    }
}

#[tokio::test]
async fn heads_are_noted_and_held_against_the_log() {
    let bench = Bench::new();
    let expect = bench.get("/api/v1/audit/head").await.expect(200).get("/expect");
    bench.shop("demo").await;
    let verify = async |expect: &str| {
        let body = json!({ "expect": expect }).to_string();
        bench.post("/api/v1/audit/verify", &body).await
    };
    assert_eq!(verify(&expect).await.expect(200).get("/intact"), "true");
    let other = format!("99:{}", expect.split_once(':').unwrap().1);
    let answer = verify(&other).await.expect(200);
    assert_eq!(
        (answer.get("/intact"), answer.get("/faults/0/kind")),
        ("false".into(), "put_back".into())
    );
    assert_eq!(verify("nonsense").await.problem(422, "invalid").fields(), ["expect"]);
}

#[tokio::test]
async fn an_export_is_whole_and_old_entries_go() {
    let bench = Bench::with("[audit]\nretention = \"30d\"\n");
    let many = 2 * PRUNE_MAX + 77;
    bench
        .node
        .store
        .write::<_, crate::admin::OperationError>(|tx| {
            (0..many).try_for_each(|n| {
                let subject =
                    crate::admin::audit::Subject::new(crate::admin::audit::SubjectKind::Data, n);
                let action = crate::admin::audit::Action::DataExported;
                let now = bench.node.now().unix;
                crate::admin::audit::record(tx, &caller(), now, action, subject, None, None)
            })
        })
        .unwrap();
    let answer = bench.get("/api/v1/audit/export").await.expect(200);
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    assert_eq!(answer.text.lines().count(), 1 + 1 + many);
    let last: Value = serde_json::from_str(answer.text.lines().last().unwrap()).unwrap();
    assert_eq!(last["seq"].as_u64(), Some(many as u64 + 1));
    bench.clock.advance(Duration::from_secs(31 * 24 * 3600));
    bench.shop("demo").await;
    tick(&bench.node, &Progress::default());
    let left = entries(&bench).await;
    assert!(left.iter().all(|entry| entry.seq > many as u64 + 1), "{left:?}");
    intact(&bench).await;
    let bench = bench.restart();
    intact(&bench).await;
}

#[tokio::test]
async fn only_who_sees_every_shop_reads_the_log() {
    let bench = Bench::new();
    for (role, status) in [(Role::Member, 403), (Role::Viewer, 200), (Role::Operator, 200)] {
        for path in ["/audit", "/audit/head", "/audit/export"] {
            let path = format!("/api/v1{path}");
            bench.send_as(role, Method::GET, &path, "").await.expect(status);
        }
        bench.send_as(role, Method::POST, "/api/v1/audit/verify", "").await.expect(status);
    }
}
