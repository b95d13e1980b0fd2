//! The audit log through its API: lists, heads, verification, exports, retention.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use super::audit::{caller, entries, intact};
use crate::admin::OperationError;
use crate::admin::audit::{Action, Subject, SubjectKind, record};
use crate::admin::jobs::{Progress, tick};
use crate::admin::testing::Bench;
use crate::store::{PRUNE_MAX, Role};

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
        .write::<_, OperationError>(|tx| {
            (0..many).try_for_each(|n| {
                let subject = Subject::new(SubjectKind::Data, n);
                let action = Action::DataExported;
                let now = bench.node.now().unix;
                record(tx, &caller(), now, action, subject, None, None)
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
