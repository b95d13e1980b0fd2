//! `/backups`, `/import` and `/export`.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::Value;

use crate::admin::Caller;
use crate::admin::testing::{Answer, Bench};
use crate::store::Role;

async fn lines(bench: &Bench, path: &str, content_type: &str, body: &str) -> Vec<Value> {
    let answer = ask(bench, path, content_type, body, Some("application/x-ndjson")).await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let lines = answer.expect(200).text;
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn ask(
    bench: &Bench,
    path: &str,
    content_type: &str,
    body: &str,
    accept: Option<&str>,
) -> Answer {
    let mut request = Request::builder().method(Method::POST).uri(format!("/api/v1{path}"));
    if !content_type.is_empty() {
        request = request.header("content-type", content_type);
    }
    if let Some(accept) = accept {
        request = request.header("accept", accept);
    }
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    request.extensions_mut().insert(Caller::socket());
    bench.answer(request).await
}

const NDJSON: &str = "application/x-ndjson";

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_made_listed_checked_and_deleted() {
    let bench = Bench::new();
    bench.shop("a").await;
    let made = bench.post("/api/v1/backups", "").await.expect(201);
    let path = made.headers["location"].to_str().unwrap().to_owned();
    assert_eq!((made.get("/state"), made.get("/shops")), ("good".to_owned(), "1".to_owned()));
    let list = bench.get("/api/v1/backups").await.expect(200);
    assert_eq!(list.get("/items/0/name"), made.get("/name"));
    assert_eq!(list.get("/schedule"), "null");
    let checked = bench.post(&format!("{path}/verify"), "").await.expect(200);
    assert_eq!(checked.get("/opened"), "true");
    bench.send_as(Role::Operator, Method::GET, &path, "").await.problem(403, "insufficient_role");
    bench.send_as(Role::Viewer, Method::GET, "/api/v1/backups", "").await.expect(403);
    bench.delete(&path).await.expect(204);
    bench.delete(&path).await.problem(404, "not_found");
    let body = r#"{"passphrase":"a long passphrase","include_master_key":true}"#;
    let refused = bench.post("/api/v1/backups", body).await.problem(422, "invalid");
    assert_eq!(refused.fields(), ["include_master_key"]);
    let refused = bench.post("/api/v1/backups", r#"{"passphrase":"short"}"#).await;
    assert_eq!(refused.problem(422, "invalid").fields(), ["passphrase"]);
    for name in ["%2e%2e%2fmaster.key", "..", "master.key", "a%00.lkbackup", "a%2fb.lkbackup"] {
        let answer = bench.get(&format!("/api/v1/backups/{name}")).await;
        assert_eq!(answer.status, 404, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_work_tells_its_progress_and_its_end() {
    let bench = Bench::new();
    let told = lines(&bench, "/backups", "", "").await;
    assert_eq!(told.last().unwrap()["event"], "done");
    let name = told.last().unwrap()["result"]["name"].as_str().unwrap().to_owned();
    let told = lines(&bench, &format!("/backups/{name}/verify"), "", "").await;
    assert_eq!(told.last().unwrap()["result"]["state"], "good");
    let told = lines(&bench, "/backups", "application/json", r#"{"passphrase":"x"}"#).await;
    assert_eq!(told.last().unwrap()["event"], "failed");
    assert_eq!(told.last().unwrap()["problem"]["code"], "invalid");
    let shop = r#"{"type":"shop/1","id":"a","url":"https://a.example"}"#;
    let told = lines(&bench, "/import", NDJSON, shop).await;
    assert_eq!(told.last().unwrap()["result"]["shops"]["created"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_are_refused_line_by_line() {
    let bench = Bench::new();
    let answer = ask(&bench, "/import", NDJSON, "{}\n\nno\n", None).await;
    let answer = answer.problem(422, "invalid");
    assert_eq!(answer.fields(), ["line 1", "line 3"]);
    ask(&bench, "/import", "application/json", "{}", None)
        .await
        .problem(415, "unsupported_media_type");
    ask(&bench, "/import?dry_run=maybe", NDJSON, "", None).await.problem(400, "bad_request");
    let shop = r#"{"type":"shop/1","id":"a","url":"https://a.example"}"#;
    let dry = ask(&bench, "/import?dry_run=true", NDJSON, shop, None).await.expect(200);
    assert_eq!((dry.get("/dry_run"), dry.get("/shops/created")), ("true".into(), "1".into()));
    bench.get("/api/v1/shops/a").await.expect(404);
    ask(&bench, "/import", NDJSON, shop, None).await.expect(200);
    let exported = bench.get("/api/v1/export?keys=false").await.expect(200);
    assert_eq!(exported.text.lines().count(), 2);
    let again = ask(&bench, "/import", NDJSON, &exported.text, None).await.expect(200);
    assert_eq!(again.get("/shops/unchanged"), "1");
    bench.send_as(Role::Operator, Method::GET, "/api/v1/export", "").await.expect(403);
    bench.send_as(Role::Operator, Method::GET, "/api/v1/export?keys=false", "").await.expect(200);
}
