//! The description of the admin API is true: whatever is sent to an operation, good or bad, the
//! answer is one that the description announces, and its body keeps to the announced schema.

use std::process::Command;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Response, request};
use crate::support::schema::{Schemas, junk};
use crate::support::upstream::{Behaviour, Upstream};

/// Requests to each operation.
const CASES: usize = 12;

/// Hashing passwords is not what is tested.
const CHEAP: &str = "[admin.passwords]\nmemory = \"64KiB\"\niterations = 1\n";

/// An answer that ends only when its reader leaves.
const ENDLESS: &str = "/api/v1/events";

/// One whose body is lines of JSON, which Schemathesis cannot write.
const OF_LINES: &str = "/api/v1/import";

/// What Schemathesis looks at. Not whether good requests are taken: what the store holds decides
/// that too.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      negative_data_rejection,unsupported_method,allow_header_conformance,\
                      missing_required_header,use_after_free,ensure_resource_availability";

/// A request that is made up.
#[derive(Debug, Clone)]
struct Made {
    target: String,
    fields: Vec<(String, String)>,
    body: Option<(String, Vec<u8>)>,
}

#[test]
fn every_operation_answers_as_it_is_described() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), CHEAP);
    let gateway = site.start();
    let described = request("GET", "/api/v1/openapi.json").send_unix(&site.socket()).json();
    let schemas = Schemas(&described);
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let mut answers = 0;
    for (path, item) in described["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "patch", "delete"] {
            let Some(operation) = item.get(method).filter(|_| path != ENDLESS) else { continue };
            let ids = furnish(&gateway);
            let requests = requests(schemas, path, operation, &ids);
            for _ in 0..CASES {
                let made = requests.new_tree(&mut runner).unwrap().current();
                let answer = send(&site, &method.to_uppercase(), &made);
                let complaint = complaint(schemas, operation, &answer);
                assert_eq!(complaint, None, "{method} {made:?}\n{}", answer.text());
                answers += usize::from(answer.status < 300);
            }
        }
    }
    // Were all of them refused, little would have been checked.
    assert!(answers > 150, "{answers}");
    assert!(gateway.stop().success());
}

/// Schemathesis thinks of other requests than we do, and goes on from one answer to the next.
#[test]
#[ignore = "needs Schemathesis: tests/run api"]
fn schemathesis_finds_no_fault() {
    let place = std::env::var("LATCHKEY_TEST_SCHEMATHESIS").expect("tests/run api sets it");
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), CHEAP);
    let gateway = site.start();
    furnish(&gateway);
    let described = request("GET", "/api/v1/openapi.json").send_unix(&site.socket());
    std::fs::write(site.path().join("openapi.json"), described.body).unwrap();
    let token = json!({"name": "schemathesis", "role": "owner"});
    let token = gateway.api_ok("POST", "/admin-tokens", &token);
    let run = Command::new("python3")
        .args(["-m", "schemathesis.cli", "run", "openapi.json", "--no-color"])
        .args(["--url", &format!("http://{}", gateway.admin)])
        .args(["--header", &format!("Authorization: Bearer {}", token["secret"].as_str().unwrap())])
        .args(["--exclude-path", ENDLESS, "--exclude-path", OF_LINES])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing,stateful"])
        .args(["--generation-deterministic", "--max-time", "60", "--continue-on-failure"])
        .env("PYTHONPATH", place)
        .current_dir(site.path())
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&run.stdout);
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}\n{error}");
    assert!(gateway.stop().success());
}

/// Makes sure that there is one of everything; the ids, by the parameters' names.
fn furnish(gateway: &Gateway) -> Vec<(&'static str, String)> {
    let shop = json!({"url": "https://demo.example", "name": "Demo"});
    gateway.api_ok("PUT", "/shops/demo", &shop);
    let (key, _) = gateway.key("demo", &json!({}));
    let (token, _) = gateway.token("demo", &json!({}));
    let operators = gateway.api_ok("GET", "/operators", &Value::Null);
    let operator = operators["items"][0]["id"].as_str().unwrap_or_default().to_owned();
    vec![("shop", "demo".to_owned()), ("key", key), ("id", token), ("id", operator)]
}

/// Requests to an operation: mostly as described, sometimes not.
fn requests(
    schemas: Schemas<'_>,
    path: &str,
    operation: &Value,
    ids: &[(&str, String)],
) -> BoxedStrategy<Made> {
    let start = Made { target: path.to_owned(), fields: Vec::new(), body: None };
    let mut requests = Just(start).boxed();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap().to_owned();
        let place = parameter["in"].as_str().unwrap().to_owned();
        let known: Vec<String> =
            ids.iter().filter(|(of, _)| *of == name).map(|(_, id)| id.clone()).collect();
        let text = prop_oneof![schemas.valid(&parameter["schema"]), junk()].prop_map(as_text);
        let value = if place == "path" {
            let other = prop_oneof![text, "[a-z0-9_]{1,12}"];
            let known = if known.is_empty() { vec!["demo".to_owned()] } else { known };
            prop_oneof![3 => prop::sample::select(known), 1 => other].prop_map(Some).boxed()
        } else {
            prop::option::weighted(0.3, text).boxed()
        };
        let add = move |(mut made, value): (Made, Option<String>)| {
            let Some(value) = value else { return made };
            match place.as_str() {
                "path" => {
                    made.target = made.target.replace(&format!("{{{name}}}"), &escape(&value));
                }
                "query" => {
                    let mark = if made.target.contains('?') { '&' } else { '?' };
                    made.target = format!("{}{mark}{name}={}", made.target, escape(&value));
                }
                "header" => {
                    let visible = value.chars().filter(|c| matches!(c, ' '..='~')).collect();
                    made.fields.push((name.clone(), visible));
                }
                other => panic!("a parameter in {other}"),
            }
            made
        };
        requests = (requests, value).prop_map(add).boxed();
    }
    let content = operation.pointer("/requestBody/content").and_then(Value::as_object);
    for (media, described) in content.into_iter().flatten() {
        let body = prop_oneof![4 => schemas.valid(&described["schema"]), 1 => junk()];
        let media = media.clone();
        let add = move |(made, body): (Made, Value)| {
            let bytes = if media == "application/json" {
                body.to_string().into_bytes()
            } else {
                format!("{}\n", as_text(body)).into_bytes()
            };
            Made { body: Some((media.clone(), bytes)), ..made }
        };
        requests = (requests, body).prop_map(add).boxed();
    }
    requests
}

fn as_text(value: Value) -> String {
    if let Value::String(text) = value { text } else { value.to_string() }
}

/// Everything but letters and digits, in percent.
fn escape(text: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    // A segment that is empty is another path.
    let escaped: String = text.bytes().map(byte).collect();
    if escaped.is_empty() { "-".to_owned() } else { escaped }
}

fn send(site: &Site, method: &str, made: &Made) -> Response {
    let mut call = request(method, &made.target);
    for (name, value) in &made.fields {
        call = call.header(name, value);
    }
    if let Some((media, bytes)) = &made.body {
        call = call.header("content-type", media).body(bytes.clone());
    }
    let answer = call.send_unix(&site.socket());
    crate::support::secrets::collect(&answer);
    answer
}

/// What of an answer is not as described.
fn complaint<'d>(schemas: Schemas<'d>, operation: &'d Value, answer: &Response) -> Option<String> {
    let status = answer.status.to_string();
    let responses = &operation["responses"];
    let class = format!("{}XX", &status[..1]);
    let Some(described) = responses.get(&status).or_else(|| responses.get(&class)) else {
        return Some(format!("the status {status} is not described"));
    };
    let Some(content) = described.get("content").and_then(Value::as_object) else {
        return (!answer.body.is_empty()).then(|| "a body where none is described".to_owned());
    };
    let media = answer.header("content-type").unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    let Some(described) = content.get(media) else {
        return Some(format!("the content type {media:?} is not described"));
    };
    if media != "application/json" && !media.ends_with("+json") {
        return None;
    }
    let faults = schemas.faults(&described["schema"], &answer.json());
    (!faults.is_empty()).then(|| faults.join("\n"))
}
