//! Usage, refusals and the overview over the API.

use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::admin::caller::{Caller, Shops, Via};
use crate::admin::operations::OperationError;
use crate::admin::operations::events::{self, Filter, LISTENERS_PER_CALLER_MAX, NoPlace};
use crate::admin::router;
use crate::admin::testing::{Answer, Bench, START};
use crate::decision::denial::Code;
use crate::events::{LISTENERS_MAX, Refusal, bounded};
use crate::id::{AdminTokenId, KeyId, ShopId};
use crate::store::Role;
use crate::usage::{Outcome, Part, Tally};

fn shop(id: &str) -> ShopId {
    ShopId::parse(id).unwrap()
}

/// Counts what a worker would.
fn count(bench: &Bench, id: &str, part: Part, outcomes: &[Outcome]) {
    let mut tally = Tally::new(&bench.node.usage);
    for outcome in outcomes {
        tally.count(&shop(id), part, *outcome, bench.node.now());
    }
    drop(tally);
    bench.node.ledger.collect(&bench.node);
}

/// Asks as a member of `own`.
async fn as_member(bench: &Bench, own: &str, path: &str) -> Answer {
    let mut request = Bench::request(Method::GET, path, "");
    let shops = Shops::Only([shop(own)].into());
    let member = Caller { role: Role::Member, shops, ..Caller::socket() };
    request.extensions_mut().insert(member);
    bench.answer(request).await
}

fn refuse(bench: &Bench, path: &str, of: Option<&str>, code: Code) {
    bench.node.events.publish(Refusal {
        sequence: 0,
        skipped: 0,
        at: START,
        request_id: "1".into(),
        trace_id: None,
        method: "GET".into(),
        path: bounded(path),
        route: None,
        status: code.status(),
        code,
        why: "because".into(),
        client: [127, 0, 0, 1].into(),
        shop: of.map(shop),
        key_id: None,
        mechanism: None,
        origin: None,
    });
}

#[tokio::test]
async fn counts_show_before_and_after_they_are_stored() {
    let bench = Bench::new();
    bench.shop("one").await;
    let (key, _) = bench.key("one").await;
    let part = Part::Key(KeyId::parse(&key).unwrap());
    let all = [Outcome::Allowed, Outcome::Allowed, Outcome::Refused, Outcome::Limited];
    for stored in [false, true] {
        if stored {
            bench.node.ledger.flush(&bench.node).unwrap();
        } else {
            count(&bench, "one", part, &all);
            count(&bench, "one", Part::WidgetTokens, &[Outcome::Allowed]);
        }
        for resolution in ["minute", "hour", "day"] {
            let path = format!("/api/v1/shops/one/usage?resolution={resolution}&by=key");
            let answer = bench.get(&path).await.expect(200);
            assert_eq!(answer.get("/resolution"), resolution);
            let sums = ["allowed", "refused", "limited"];
            let total = sums.map(|name| answer.get(&format!("/total/{name}")));
            assert_eq!(total, ["3", "1", "1"]);
            assert_eq!(answer.get("/total/points/0/allowed"), "3");
            assert_eq!(answer.get("/parts/0/of"), key);
            assert_eq!(answer.get("/parts/0/allowed"), "2");
            assert_eq!(answer.get("/parts/1/of"), "widget_tokens");
        }
    }
    let answer = bench.get("/api/v1/usage").await.expect(200);
    assert_eq!(
        (answer.get("/items/0/shop"), answer.get("/items/0/allowed")),
        ("one".into(), "3".into())
    );
    bench.shop("two").await;
    let answer = bench.get("/api/v1/usage?limit=1").await.expect(200);
    let cursor = answer.get("/next_cursor");
    let answer = bench.get(&format!("/api/v1/usage?limit=1&cursor={cursor}")).await.expect(200);
    assert_eq!(
        (answer.get("/items/0/shop"), answer.get("/items/0/allowed")),
        ("two".into(), "0".into())
    );
    assert_eq!(answer.get("/next_cursor"), "null");
}

#[tokio::test]
async fn periods_are_halves_of_what_they_name() {
    let bench = Bench::new();
    bench.shop("one").await;
    for _ in 0..3 {
        count(&bench, "one", Part::Jwt, &[Outcome::Allowed]);
        bench.clock.advance(Duration::from_secs(60));
    }
    bench.node.ledger.flush(&bench.node).unwrap();
    let at = |minutes: u64| START + Duration::from_secs(60 * minutes);
    for (from, to, expected) in [(0, 3, "3"), (0, 2, "2"), (1, 2, "1"), (3, 4, "0")] {
        let path =
            format!("/api/v1/shops/one/usage?resolution=minute&from={}&to={}", at(from), at(to));
        let answer = bench.get(&path).await.expect(200);
        assert_eq!(answer.get("/total/allowed"), expected, "{path}");
        assert_eq!(
            (answer.get("/from"), answer.get("/to")),
            (at(from).to_string(), at(to).to_string())
        );
    }
    for (query, field) in [
        ("resolution=week", "resolution"),
        ("from=yesterday", "from"),
        ("by=shop", "by"),
        ("format=xml", "format"),
    ] {
        let answer = bench.get(&format!("/api/v1/shops/one/usage?{query}")).await;
        assert_eq!(answer.problem(400, "bad_request").fields(), [field]);
    }
    for query in [
        "from=2030-01-01T00:00:00Z&to=2029-01-01T00:00:00Z",
        "resolution=minute&from=2020-01-01T00:00:00Z",
    ] {
        let answer = bench.get(&format!("/api/v1/shops/one/usage?{query}")).await;
        assert_eq!(answer.problem(422, "invalid").fields(), ["from"]);
    }
    bench.get("/api/v1/shops/nobody/usage").await.problem(404, "not_found");
}

#[tokio::test]
async fn csv_for_who_asks_for_it() {
    let bench = Bench::new();
    bench.shop("one").await;
    count(&bench, "one", Part::Jwt, &[Outcome::Limited]);
    let path = "/api/v1/shops/one/usage";
    let line = format!("{START},one,total,,0,0,1\r\n");
    let header = "time,shop,of,name,allowed,refused,limited\r\n";
    let mut accepting = Bench::request(Method::GET, path, "");
    accepting.headers_mut().insert("accept", "text/html, text/csv;q=0.5".parse().unwrap());
    accepting.extensions_mut().insert(Caller::socket());
    for answer in [
        bench.get(&format!("{path}?format=csv")).await.expect(200),
        bench.answer(accepting).await.expect(200),
    ] {
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/csv"));
        assert_eq!(answer.text, format!("{header}{line}"));
    }
    let answer = bench.get("/api/v1/usage?format=csv&limit=1").await.expect(200);
    assert!(answer.text.contains("one,") && answer.text.ends_with(",0,0,1\r\n"), "{}", answer.text);
}

#[tokio::test]
async fn members_see_their_shops_only() {
    let bench = Bench::new();
    bench.shop("own").await;
    bench.shop("other").await;
    for id in ["own", "other"] {
        count(&bench, id, Part::Jwt, &[Outcome::Allowed]);
    }
    as_member(&bench, "own", "/api/v1/shops/own/usage").await.expect(200);
    as_member(&bench, "own", "/api/v1/shops/other/usage").await.problem(404, "not_found");
    as_member(&bench, "own", "/api/v1/events?shop=other").await.problem(404, "not_found");
    as_member(&bench, "own", "/api/v1/overview").await.problem(403, "insufficient_role");
    let answer = as_member(&bench, "own", "/api/v1/usage").await.expect(200);
    assert_eq!(answer.json()["items"].as_array().unwrap().len(), 1);
    assert_eq!(answer.get("/items/0/shop"), "own");

    refuse(&bench, "/of-nobody", None, Code::NotFound);
    refuse(&bench, "/of-other", Some("other"), Code::CrossTenant);
    refuse(&bench, "/of-own", Some("own"), Code::CrossTenant);
    bench.node.set_draining();
    // Closed: only what is kept would be told, and that is nothing any more.
    let answer = as_member(&bench, "own", "/api/v1/events?after=0").await.expect(200);
    assert!(!answer.text.contains("/of-"), "{}", answer.text);
}

/// Reads a stream until it said so much.
async fn listen(bench: &Bench, caller: Caller, query: &str, events: usize) -> String {
    let mut request = Bench::request(Method::GET, &format!("/api/v1/events?{query}"), "");
    request.extensions_mut().insert(caller);
    let response = router(std::sync::Arc::clone(&bench.node)).oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body: Body = response.into_body();
    let mut text = String::new();
    while text.matches("event: ").count() < events {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn streams_tell_what_was_asked_for_and_may_be_seen() {
    let bench = Bench::new();
    refuse(&bench, "/of-nobody", None, Code::NotFound);
    refuse(&bench, "/of-other", Some("other"), Code::CrossTenant);
    refuse(&bench, "/of-own", Some("own"), Code::ShopDisabled);
    let told = |text: &str| {
        let of = ["/of-nobody", "/of-other", "/of-own"];
        of.map(|path| text.contains(path))
    };
    let owner = Caller::socket;
    assert_eq!(told(&listen(&bench, owner(), "after=0", 3).await), [true, true, true]);
    let text = listen(&bench, owner(), "after=0&code=cross_tenant", 1).await;
    assert_eq!(told(&text), [false, true, false]);
    let text = listen(&bench, owner(), "after=0&shop=own", 1).await;
    assert_eq!(told(&text), [false, false, true]);
    let shops = Shops::Only([shop("own")].into());
    let member = Caller { role: Role::Member, shops, ..Caller::socket() };
    assert_eq!(told(&listen(&bench, member.clone(), "after=0", 1).await), [false, false, true]);
    // Why a service failed is for those who run it; that it did, for the shop too.
    refuse(&bench, "/failed", Some("own"), Code::UpstreamUnreachable);
    let failed = "after=0&code=upstream_unreachable";
    let text = listen(&bench, member, failed, 1).await;
    assert!(text.contains("Upstream unreachable") && !text.contains("because"), "{text}");
    assert!(listen(&bench, owner(), failed, 1).await.contains("because"));
    bench.get("/api/v1/events?code=nonsense").await.problem(400, "bad_request");
    bench.get("/api/v1/events?shop=a.b").await.problem(400, "bad_request");
    bench.get("/api/v1/overview?span=1y").await.problem(400, "bad_request");
    let overview = bench.get("/api/v1/overview?span=24h").await.expect(200);
    assert_eq!((overview.get("/span"), overview.get("/now/shops")), ("24h".into(), "0".into()));
}

#[tokio::test]
async fn one_caller_does_not_take_the_places_of_all() {
    let bench = Bench::new();
    let token = |id| Caller { via: Via::Token(AdminTokenId(id)), ..Caller::socket() };
    let subscribe =
        |id| events::subscribe(&bench.node, &token(id), Filter::default(), None).map(drop);
    let kept: Vec<_> = (0..LISTENERS_PER_CALLER_MAX)
        .map(|_| events::subscribe(&bench.node, &token(1), Filter::default(), None).unwrap())
        .collect();
    let refused = subscribe(1).unwrap_err();
    assert!(matches!(refused, OperationError::TooManyListeners(NoPlace::Yours)), "{refused}");
    subscribe(2).unwrap();
    let mut request = Bench::request(Method::GET, "/api/v1/events", "");
    request.extensions_mut().insert(token(1));
    bench.answer(request).await.problem(503, "unavailable");
    drop(kept);
    subscribe(1).unwrap();
    assert!(bench.node.listening.lock().unwrap().is_empty(), "nothing is kept of who has left");
    // All places: by enough of them.
    let everyone: Vec<_> = (0..LISTENERS_MAX as u64)
        .map(|id| events::subscribe(&bench.node, &token(id), Filter::default(), None).unwrap())
        .collect();
    let refused = subscribe(1000).unwrap_err();
    assert!(matches!(refused, OperationError::TooManyListeners(NoPlace::Everyones(_))));
    assert_eq!(bench.node.listening.lock().unwrap().len(), everyone.len());
}
