//! `ETag`, `If-Match` and `If-None-Match`: nobody's change is lost to another's.

use std::time::Duration;

use axum::http::{Method, Request};
use serde_json::json;

use crate::admin::Caller;
use crate::admin::testing::{Answer, Bench};

/// Sends a request with one more header field, as the owner.
async fn send(bench: &Bench, method: &str, path: &str, body: &str, field: (&str, &str)) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request: Request<_> = Bench::request(method, &format!("/api/v1{path}"), body);
    let name: axum::http::HeaderName = field.0.parse().unwrap();
    request.headers_mut().insert(name, field.1.parse().unwrap());
    request.extensions_mut().insert(Caller::socket());
    bench.answer(request).await
}

fn etag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

const SHOP: &str = r#"{"url":"https://demo.example"}"#;

#[tokio::test]
async fn writes_to_a_shop_ask_what_it_was() {
    let bench = Bench::new();
    let made = bench.put("/api/v1/shops/demo", SHOP).await.expect(201);
    let first = etag(&made);
    assert_eq!(etag(&bench.get("/api/v1/shops/demo").await), first);
    let patched = bench.patch("/api/v1/shops/demo", r#"{"name":"A"}"#).await.expect(200);
    let second = etag(&patched);
    assert_ne!(first, second);

    let limits = r#"{"shop-me":{"limit":7,"window_seconds":60}}"#;
    for (method, path, body) in [
        ("PUT", "/shops/demo", SHOP),
        ("PATCH", "/shops/demo", r#"{"name":"B"}"#),
        ("PUT", "/shops/demo/limits", limits),
        ("DELETE", "/shops/demo/limits", ""),
        ("DELETE", "/shops/demo", ""),
    ] {
        let weak = format!("W/{second}");
        for stale in [first.as_str(), &weak, "\"\"", "\"x\"", "W/\"x\", \"1-1\""] {
            let answer = send(&bench, method, path, body, ("if-match", stale)).await;
            answer.problem(412, "precondition_failed");
        }
        let answer = send(&bench, method, path, body, ("if-none-match", "*")).await;
        answer.problem(412, "precondition_failed");
        let answer = send(&bench, method, path, body, ("if-match", "1-1")).await;
        assert_eq!(answer.problem(400, "bad_request").fields(), ["if-match"]);
    }
    assert_eq!(etag(&bench.get("/api/v1/shops/demo").await), second, "nothing was written");

    let list = format!("\"0-0\", {second}");
    let put = send(&bench, "PUT", "/shops/demo/limits", limits, ("if-match", &list)).await;
    let third = etag(&put.expect(200));
    assert_eq!(etag(&bench.get("/api/v1/shops/demo").await), third);
    send(&bench, "PATCH", "/shops/demo", r#"{"name":"C"}"#, ("if-match", "*")).await.expect(200);
    // What would be refused anyway is refused for that (RFC 9110 §13.2.1).
    send(&bench, "PATCH", "/shops/demo", r#"{"url":"x"}"#, ("if-match", &first))
        .await
        .problem(422, "invalid");
    send(&bench, "PATCH", "/shops/gone", "{}", ("if-match", "*")).await.problem(404, "not_found");
    let fourth = etag(&bench.get("/api/v1/shops/demo").await);
    send(&bench, "DELETE", "/shops/demo", "", ("if-match", &fourth)).await.expect(204);

    // A new shop under the old id is not the old one, though it was changed as often.
    send(&bench, "PUT", "/shops/demo", SHOP, ("if-match", "*"))
        .await
        .problem(412, "precondition_failed");
    bench.clock.advance(Duration::from_millis(5));
    let again = send(&bench, "PUT", "/shops/demo", SHOP, ("if-none-match", "*")).await.expect(201);
    assert_ne!(etag(&again), first);
    send(&bench, "DELETE", "/shops/demo", "", ("if-match", &first))
        .await
        .problem(412, "precondition_failed");
}

#[tokio::test]
async fn reads_that_know_the_answer_get_none() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let (key, _) = bench.key("demo").await;
    for path in ["/shops/demo".to_owned(), format!("/shops/demo/keys/{key}")] {
        let tag = etag(&bench.get(&format!("/api/v1{path}")).await.expect(200));
        for same in [tag.clone(), format!("W/{tag}"), format!("\"x\" , {tag}"), "*".to_owned()] {
            let answer = send(&bench, "GET", &path, "", ("if-none-match", &same)).await.expect(304);
            assert_eq!((etag(&answer), answer.text.as_str()), (tag.clone(), ""));
        }
        send(&bench, "GET", &path, "", ("if-none-match", "\"0-0\"")).await.expect(200);
        send(&bench, "GET", &path, "", ("if-none-match", "x")).await.problem(400, "bad_request");
    }
}

/// The tag of a key's answer changes when the answer does, and a writer is not bothered by that.
#[tokio::test]
async fn a_key_that_expires_reads_anew_and_can_be_written() {
    let bench = Bench::new();
    bench.shop("demo").await;
    let body = json!({"expires_at": "2027-01-15T08:01:00Z"}).to_string();
    let made = bench.post("/api/v1/shops/demo/keys", &body).await.expect(201);
    let path = format!("/shops/demo/keys/{}", made.get("/id"));
    let tag = etag(&made);
    send(&bench, "GET", &path, "", ("if-none-match", &tag)).await.expect(304);
    bench.clock.advance(Duration::from_secs(61));
    let read = send(&bench, "GET", &path, "", ("if-none-match", &tag)).await.expect(200);
    assert_eq!(read.get("/status"), "expired");
    assert_ne!(etag(&read), tag);
    let patched = send(&bench, "PATCH", &path, r#"{"name":"x"}"#, ("if-match", &tag)).await;
    let tag = etag(&patched.expect(200));
    send(&bench, "PATCH", &path, r#"{"name":"y"}"#, ("if-match", &tag)).await.expect(200);
    send(&bench, "DELETE", &path, "", ("if-match", &tag)).await.problem(412, "precondition_failed");
    let limits = format!("{path}/limits");
    send(&bench, "DELETE", &limits, "", ("if-match", &tag))
        .await
        .problem(412, "precondition_failed");
    send(&bench, "DELETE", &path, "", ("if-match", "*")).await.expect(204);
}

/// Of all who saw the same, one writes; each who retries from what it reads then writes once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_update_is_lost_in_a_race() {
    const WRITERS: usize = 2;
    const WRITES: usize = 15;
    let bench = std::sync::Arc::new(Bench::new());
    bench.put("/api/v1/shops/demo", SHOP).await.expect(201);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let bench = std::sync::Arc::clone(&bench);
        writers.spawn(async move {
            let mut lost = 0;
            for write in 0..WRITES {
                loop {
                    let seen = bench.get("/api/v1/shops/demo").await.expect(200);
                    let mut origins: Vec<String> =
                        serde_json::from_value(seen.json()["widget_origins"].clone()).unwrap();
                    origins.push(format!("https://w{writer}-{write}.example"));
                    let body = json!({ "widget_origins": origins }).to_string();
                    let tag = etag(&seen);
                    let field = ("if-match", tag.as_str());
                    match send(&bench, "PATCH", "/shops/demo", &body, field).await {
                        answer if answer.status == 200 => break,
                        answer => drop(answer.problem(412, "precondition_failed")),
                    }
                    lost += 1;
                }
            }
            lost
        });
    }
    writers.join_all().await;
    let shop = bench.get("/api/v1/shops/demo").await;
    let origins = shop.json()["widget_origins"].as_array().unwrap().len();
    assert_eq!(origins, WRITERS * WRITES);
    assert_eq!(shop.get("/revision"), (WRITERS * WRITES + 1).to_string());
}

#[tokio::test]
async fn shops_are_found_by_words() {
    let bench = Bench::new();
    for (id, name) in [("red-1", "Käse"), ("red-2", "Wein"), ("blue-1", "käse und Wein")] {
        let body = json!({"url": format!("https://{id}.example"), "name": name}).to_string();
        bench.put(&format!("/api/v1/shops/{id}"), &body).await.expect(201);
    }
    let ids = |answer: &Answer| -> Vec<String> {
        let items = answer.json()["items"].as_array().cloned().unwrap();
        items.iter().map(|shop| shop["id"].as_str().unwrap().to_owned()).collect()
    };
    for (q, expected) in [
        ("K%C3%84SE", &["blue-1", "red-1"][..]),
        ("k%C3%A4se+WEIN", &["blue-1"]),
        ("RED-", &["red-1", "red-2"]),
        ("2.example", &["red-2"]),
        ("nothing", &[]),
        ("+", &["blue-1", "red-1", "red-2"]),
        ("", &["blue-1", "red-1", "red-2"]),
    ] {
        let found = bench.get(&format!("/api/v1/shops?q={q}")).await.expect(200);
        assert_eq!(ids(&found), expected, "{q}");
        assert_eq!(found.get("/next_cursor"), "null");
    }
    let first = bench.get("/api/v1/shops?q=red&limit=1").await.expect(200);
    assert_eq!(ids(&first), ["red-1"]);
    let next = first.get("/next_cursor");
    let second = bench.get(&format!("/api/v1/shops?q=red&limit=1&cursor={next}")).await.expect(200);
    assert_eq!(ids(&second), ["red-2"]);
    let long = "a".repeat(201);
    bench.get(&format!("/api/v1/shops?q={long}")).await.problem(400, "bad_request");
    bench.get("/api/v1/shops?q=a&p=b").await.problem(400, "bad_request");
}

/// Serde takes a list for an object; the API does not. Nothing, and `null`, are a body left out.
#[tokio::test]
async fn bodies_are_objects() {
    let bench = Bench::new();
    bench.shop("demo").await;
    for body in [r#"["a","https://a.example"]"#, " []", "[null]"] {
        bench.post("/api/v1/shops", body).await.problem(422, "invalid");
        bench.patch("/api/v1/shops/demo", body).await.problem(422, "invalid");
        bench.post("/api/v1/shops/demo/keys", body).await.problem(422, "invalid");
    }
    for body in ["", "null", " null\n", "{}"] {
        bench.post("/api/v1/shops/demo/keys", body).await.expect(201);
    }
}

#[tokio::test]
async fn writes_to_an_operator_ask_what_it_was() {
    let bench = Bench::new();
    let made = r#"{"name":"ada","role":"viewer"}"#;
    let id = bench.post("/api/v1/operators", made).await.expect(201).get("/id");
    let path = format!("/operators/{id}");
    let read = async || bench.get(&format!("/api/v1{path}")).await.expect(200);
    let first = etag(&read().await);
    let same = send(&bench, "GET", &path, "", ("if-none-match", &first)).await;
    assert_eq!(same.status, 304);
    let patch = r#"{"role":"operator"}"#;
    let second = etag(&send(&bench, "PATCH", &path, patch, ("if-match", &first)).await.expect(200));
    assert_ne!(first, second);
    send(&bench, "GET", &path, "", ("if-none-match", &first)).await.expect(200);

    let password = format!("{path}/password");
    let new = r#"{"password":"long enough for one"}"#;
    for (method, path, body) in [
        ("PATCH", &path, r#"{"disabled":true}"#),
        // What changes nothing asks all the same.
        ("PATCH", &path, patch),
        ("PUT", &password, new),
        ("DELETE", &path, ""),
    ] {
        for stale in [first.as_str(), &format!("W/{second}"), "\"x\""] {
            let answer = send(&bench, method, path, body, ("if-match", stale)).await;
            answer.problem(412, "precondition_failed");
        }
    }
    assert_eq!(etag(&read().await), second, "nothing was written");
    let reset = send(&bench, "PUT", &password, new, ("if-match", &second)).await.expect(200);
    let third = etag(&reset);
    assert_eq!(etag(&read().await), third);
    send(&bench, "DELETE", &path, "", ("if-match", &third)).await.expect(204);
    send(&bench, "DELETE", &path, "", ("if-match", "*")).await.problem(404, "not_found");
}
