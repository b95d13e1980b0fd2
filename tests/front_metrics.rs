//! The metrics of the running binary: that Prometheus takes them, and that they tell the truth.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::http::{connect, get, request};
use crate::support::until;
use crate::support::upstream::Behaviour;
use crate::support::world::{world, world_with};

/// What Prometheus' own checker says of `text`: nothing, if all is well.
fn promtool(text: &str) -> String {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.unwrap_or_else(|error| {
        panic!("promtool: {error}; 'tests/run tools' installs it (Debian's package prometheus)")
    });
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    format!("{}{}", if output.status.success() { "" } else { "failed: " }, {
        String::from_utf8_lossy(&said)
    })
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

#[track_caller]
fn is(text: &str, series: &str, expected: u32) {
    let found = value(text, series);
    assert!((found - f64::from(expected)).abs() < 0.5, "{series} {found}, not {expected}");
}

#[test]
fn prometheus_finds_no_fault_with_them() {
    let w = world(
        "[[issuers]]\nname = \"id\"\nissuer = \"http://127.0.0.1:9\"\naudiences = [\"a\"]\n\
         jwks_url = \"http://127.0.0.1:9/keys\"\n",
    );
    assert_eq!(promtool(&w.gateway.metrics()), "");
    let (_, secret) = w.gateway.key("demo", &json!({}));
    w.gateway.send(&get("/api/plugin/shops/demo/x").key(&secret));
    w.gateway.send(&get("/nowhere"));
    let text = w.gateway.metrics();
    assert_eq!(promtool(&text), "");
    // It would have said something.
    assert_ne!(promtool("# TYPE latchkey_x counter\nlatchkey_x 1\n"), "");
    assert_ne!(promtool("latchkey_x{a=\"1\" 1\n"), "");
    assert!(!text.contains("demo") && !text.contains("127.0.0.1"), "{text}");
}

#[test]
fn requests_are_counted_by_how_they_ended() {
    let w = world("");
    let (_, secret) = w.gateway.key("demo", &json!({}));
    let body = w.gateway.send(&get("/api/plugin/shops/demo/x").key(&secret)).body;
    let refused = w.gateway.send(&get("/api/plugin/shops/demo/x")).body;
    w.gateway.send(&request("HEAD", "/api/search/x"));
    crate::support::http::send_raw(w.gateway.data, b"GET /nowhere HTTP/1.0\r\n\r\n");
    let metrics = || w.gateway.metrics();
    // A connection is closed a moment after its response was read.
    until(|| metrics().contains("latchkey_connections 0\n").then_some(()));
    let text = metrics();
    is(&text, "latchkey_connections_accepted_total", 4);
    is(&text, "latchkey_requests_in_flight", 0);
    is(&text, r#"latchkey_responses_total{class="2xx",protocol="HTTP/1.1"}"#, 2);
    is(&text, r#"latchkey_responses_total{class="4xx",protocol="HTTP/1.1"}"#, 1);
    is(&text, r#"latchkey_responses_total{class="4xx",protocol="HTTP/1.0"}"#, 1);
    is(&text, r#"latchkey_request_duration_seconds_count{outcome="allowed"}"#, 2);
    is(&text, r#"latchkey_request_duration_seconds_count{outcome="refused"}"#, 2);
    is(&text, r#"latchkey_request_duration_seconds_count{outcome="abandoned"}"#, 0);
    is(&text, r#"latchkey_responses_cut_total{by="downstream"}"#, 0);
    is(&text, r#"latchkey_responses_cut_total{by="upstream"}"#, 0);
    is(&text, "latchkey_decision_duration_seconds_count", 4);
    let bytes = value(&text, "latchkey_response_body_bytes_total");
    assert!(bytes >= f64::from(u32::try_from(body.len() + refused.len()).unwrap()), "{bytes}");
    is(&text, "latchkey_log_lines_dropped_total", 0);
}

#[test]
fn what_is_under_way_is_seen() {
    let w = world_with(Behaviour::Silent, "");
    let mut streams: Vec<_> = (0..3).map(|_| connect(w.gateway.data)).collect();
    for stream in &mut streams {
        stream.write_all(b"GET /api/search/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    }
    until(|| w.gateway.metrics().contains("latchkey_requests_in_flight 3\n").then_some(()));
    is(&w.gateway.metrics(), "latchkey_connections", 3);
    drop(streams);
    until(|| w.gateway.metrics().contains("latchkey_requests_in_flight 0\n").then_some(()));
    until(|| w.gateway.metrics().contains("latchkey_connections 0\n").then_some(()));
}

#[test]
fn the_process_is_seen() {
    let w = world("");
    let text = w.gateway.metrics();
    is(&text, &format!("latchkey_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert!(value(&text, "process_cpu_seconds_total") >= 0.0);
    assert!(value(&text, "process_threads") >= 4.0, "two workers, the log, the admin plane");
    assert!(value(&text, "process_max_fds") >= value(&text, "process_open_fds"));
    let reloaded = value(&text, "latchkey_config_last_reload_success_timestamp_seconds");
    let started = value(&text, "process_start_time_seconds");
    assert!((reloaded - started).abs() < 60.0, "{started} {reloaded}");
    is(&text, "latchkey_jwt_cache_entries", 0);
    is(&text, "latchkey_jwt_cache_evictions_total", 0);
    let before = value(&text, "process_open_fds");
    let held: Vec<_> = (0..20).map(|_| connect(w.gateway.data)).collect();
    // Those of the calls before may be closed by now.
    until(|| (value(&w.gateway.metrics(), "process_open_fds") >= before + 15.0).then_some(()));
    drop(held);
}
