//! The log of the running binary: what it says, what it never says, and that nobody waits for it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Shutdown, SocketAddr};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::{Value, json};

use crate::support::gateway::Site;
use crate::support::http::{connect, get, request};
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::world::{World, world, world_with};
use crate::support::{secrets, until};

/// Lines that the queue of these tests holds.
const QUEUE_LINES: usize = 16;

/// A gateway whose standard error is read by hand.
struct Unread {
    child: Child,
    stderr: BufReader<ChildStderr>,
    data: SocketAddr,
    admin: SocketAddr,
}

impl Unread {
    /// Starts `site` and reads up to the line that says it is ready.
    fn start(site: &Site) -> Self {
        let mut child = site
            .command(&["serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::with_capacity(64, child.stderr.take().unwrap());
        let ready = loop {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it did not become ready");
            secrets::saw(line.as_bytes());
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["message"] == "ready" {
                break event;
            }
        };
        let address = |name: &str| ready[name].as_str().unwrap().parse().unwrap();
        Self { data: address("data"), admin: address("admin"), child, stderr }
    }

    fn dropped(&self) -> u64 {
        let metrics = get("/metrics").send(self.admin).text();
        let line =
            metrics.lines().find_map(|l| l.strip_prefix("latchkey_log_lines_dropped_total "));
        line.unwrap().parse().unwrap()
    }

    fn terminate(&self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn requests_are_answered_while_nobody_reads_standard_error() {
    let site = Site::new(None, &format!("[log]\nqueue_lines_max = {QUEUE_LINES}\naccess = true\n"));
    let mut gateway = Unread::start(&site);
    // A pipe holds 64 KiB, and each of these makes 4 KiB of log at least.
    let target = format!("/nowhere/{}", "x".repeat(2000));
    for _ in 0..100 {
        assert_eq!(get(&target).send(gateway.data).status, 404);
    }
    let dropped = gateway.dropped();
    assert!(dropped > 50, "{dropped}");

    // The reader comes back: it gets what waited, and is told what it missed.
    let (mut lines, mut told) = (0, 0);
    while told < dropped {
        let mut line = String::new();
        assert_ne!(gateway.stderr.read_line(&mut line).unwrap(), 0, "told of {told}");
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["target"] == "latchkey::log" {
            assert_eq!(event["level"], "WARN");
            told += event["lines"].as_u64().unwrap();
        } else {
            lines += 1;
        }
    }
    assert!(lines > QUEUE_LINES, "what waited is there: {lines}");
    assert_eq!(get("/after").send(gateway.data).status, 404);
    gateway.terminate();
    let mut rest = String::new();
    gateway.stderr.read_to_string(&mut rest).unwrap();
    let rest = events(&rest);
    assert!(rest.iter().any(|event| event["path"] == "/after"), "{rest:?}");
    assert_eq!(rest.last().unwrap()["message"], "stopped");
}

#[test]
fn it_ends_although_nobody_reads_standard_error() {
    let site = Site::new(None, &format!("[log]\nqueue_lines_max = {QUEUE_LINES}\n"));
    let mut gateway = Unread::start(&site);
    let target = format!("/nowhere/{}", "x".repeat(4000));
    for _ in 0..60 {
        get(&target).send(gateway.data);
    }
    assert!(gateway.dropped() > 0);
    gateway.terminate();
    assert!(gateway.child.wait().unwrap().success());
}

#[test]
fn no_line_is_lost_when_somebody_reads() {
    let w = world("[log]\naccess = true\n");
    for _ in 0..2000 {
        assert_eq!(w.gateway.send(&get("/nowhere")).status, 404);
    }
    w.gateway.signal("TERM");
    w.gateway.wait_for_log(|event| event["message"] == "stopped");
    let events = events(&w.gateway.log_lines().join("\n"));
    for target in ["latchkey::refusal", "latchkey::access"] {
        let of_target = events.iter().filter(|event| event["target"] == target);
        let mut ids: Vec<_> = of_target.map(|e| e["request_id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 2000, "{target}");
    }
    assert!(events.iter().all(|event| event["target"] != "latchkey::log"));
    assert_eq!(events.last().unwrap()["message"], "stopped");
}

#[test]
fn what_looks_like_a_secret_is_masked_in_both_formats() {
    let key = format!("sk_{}", "0123456789abcdef".repeat(2));
    let jwt = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLWE_b-Rva2Vu";
    let cases = [
        (key.clone(), "/sk_0123…/end"),
        (format!("lkw1_{}", "Ab0-_".repeat(20)), "/lkw1_…/end"),
        (jwt.to_owned(), "/eyJ…/end"),
        (format!("lka_{}", "ab01".repeat(16)), "/lka_ab01…/end"),
    ];
    for format in ["json", "text"] {
        let site = Site::new(None, "[log]\naccess = true\n");
        let mut command = site.command(&["serve"]);
        command.env("LATCHKEY_LOG__FORMAT", format).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut text = String::new();
        while !text.contains(" ready") && !text.contains("\"ready\"") {
            assert_ne!(stderr.read_line(&mut text).unwrap(), 0, "{text}");
        }
        let ready = text.lines().last().unwrap();
        let at = ready.find("data").map(|at| &ready[at + 4..]).unwrap();
        let at = at.trim_start_matches(['=', '"', ':']);
        let data = at[..at.find([' ', '"']).unwrap()].parse().unwrap();
        for (secret, _) in &cases {
            secrets::minted(secret);
            assert_eq!(get(&format!("/nowhere/{secret}/end")).send(data).status, 404);
        }
        let status = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(status.success() && child.wait().unwrap().success());
        stderr.read_to_string(&mut text).unwrap();
        secrets::saw(text.as_bytes());
        for (_, expected) in &cases {
            let lines = text.lines().filter(|line| line.contains(expected)).count();
            assert_eq!(lines, 2, "{expected} in {text}");
        }
    }
    secrets::assert_none_leaked();
}

/// The line of the access log about `path`.
fn access(w: &World, path: &str) -> Value {
    w.gateway.wait_for_log(|event| event["target"] == "latchkey::access" && event["path"] == path)
}

fn accesses(w: &World) -> usize {
    let lines = w.gateway.log_lines();
    lines.iter().filter(|line| line.contains("\"latchkey::access\"")).count()
}

#[test]
fn the_access_log_tells_how_a_request_went() {
    let w = world("[log]\naccess = true\n");
    let (key_id, secret) = w.gateway.key("demo", &json!({}));
    let path = "/api/plugin/shops/demo/x";
    let response = w.gateway.send(&get(&format!("{path}?page=7")).key(&secret));
    assert_eq!(response.status, 200);
    let line = access(&w, path);
    assert_eq!(line["request_id"], response.header("x-request-id").unwrap());
    assert_eq!(line["message"], "request ended");
    for (name, expected) in [
        ("level", json!("INFO")),
        ("client", json!("127.0.0.1")),
        ("method", json!("GET")),
        ("protocol", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("mechanism", json!("shop_api_key")),
        ("shop", json!("demo")),
        ("key_id", json!(key_id)),
        ("bytes", json!(response.body.len())),
        ("code", Value::Null),
        ("cut_by", Value::Null),
    ] {
        assert_eq!(line[name], expected, "{name}: {line}");
    }
    assert!(line["route"].is_string(), "{line}");
    let time = |name: &str| line[name].as_u64().unwrap();
    assert!(time("total_us") >= time("upstream_us"), "{line}");
    assert!(time("total_us") >= time("decision_us"), "{line}");
    assert!(!line.to_string().contains("page"), "no query: {line}");

    assert_eq!(w.outcome(&get("/api/plugin/shops/other/x").key(&secret)), "403 cross_tenant");
    let line = access(&w, "/api/plugin/shops/other/x");
    assert_eq!((&line["status"], &line["code"]), (&json!(403), &json!("cross_tenant")));
    assert_eq!((&line["shop"], &line["upstream_us"]), (&json!("demo"), &Value::Null));
    assert_eq!(w.gateway.send(&request("HEAD", "/unknown")).status, 404);
    let line = access(&w, "/unknown");
    assert_eq!((&line["method"], &line["bytes"]), (&json!("HEAD"), &json!(0)));
    assert_eq!((&line["cut_by"], &line["code"]), (&Value::Null, &json!("not_found")));
}

#[test]
fn the_access_log_tells_who_ended_a_request_early() {
    let w = world_with(Behaviour::CutBody, "[log]\naccess = true\n");
    let answer = crate::support::http::exchange(
        w.gateway.data,
        b"GET /api/search/cut HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    let line = access(&w, "/api/search/cut");
    assert_eq!((&line["cut_by"], &line["bytes"]), (&json!("upstream"), &json!(10)));

    let w = world_with(Behaviour::Silent, "[log]\naccess = true\n");
    let mut stream = connect(w.gateway.data);
    std::io::Write::write_all(&mut stream, b"GET /api/search/left HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    until(|| (w.upstream.count() == 1).then_some(()));
    stream.shutdown(Shutdown::Both).unwrap();
    let line = access(&w, "/api/search/left");
    assert_eq!((&line["cut_by"], &line["status"]), (&json!("downstream"), &Value::Null));
    let metrics = w.gateway.metrics();
    for expected in [
        "latchkey_request_duration_seconds_count{outcome=\"abandoned\"} 1",
        "latchkey_responses_cut_total{by=\"downstream\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == expected), "no {expected} in {metrics}");
    }
}

#[test]
fn the_access_log_is_off_until_it_is_asked_for_and_samples() {
    let w = world("");
    assert_eq!(w.gateway.send(&get("/api/search/quiet")).status, 200);
    let reload = |extra: &str, before: usize| {
        w.site.configure(Some(&w.upstream), extra);
        w.gateway.signal("HUP");
        until(|| {
            let lines = w.gateway.log_lines();
            let done = lines.iter().filter(|l| l.contains("the configuration was reloaded"));
            (done.count() > before).then_some(())
        });
    };
    reload("[log]\naccess = true\n", 0);
    assert_eq!(w.gateway.send(&get("/api/search/loud")).status, 200);
    access(&w, "/api/search/loud");
    assert_eq!(accesses(&w), 1);
    reload("[log]\naccess = true\naccess_sample = 8\n", 1);
    for _ in 0..800 {
        w.gateway.send(&get("/nowhere"));
    }
    reload("", 2);
    let sampled = accesses(&w) - 1;
    assert!((50..=160).contains(&sampled), "about 100: {sampled}");
    w.gateway.send(&get("/nowhere"));
    w.gateway.signal("TERM");
    w.gateway.wait_for_log(|event| event["message"] == "stopped");
    assert_eq!(accesses(&w) - 1, sampled);
}

#[test]
fn a_mistake_at_the_start_is_told_after_what_was_logged_before() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "[server]\nconnections_max = 1000000\n");
    let gateway = site.start();
    let output = site.command(&["serve"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let last = text.lines().position(|line| line.starts_with("latchkey: error:")).unwrap();
    assert!(text.lines().take(last).all(|line| line.starts_with('{')), "{text}");
    assert!(text.lines().any(|line| line.contains("fewer files may be open")), "{text}");
    assert!(gateway.stop().success());
}
