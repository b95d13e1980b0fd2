//! What somebody would try who wants in, or wants the gateway down.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{connect, get, parse};
use crate::support::upstream::{Behaviour, Upstream};

struct World {
    _site: Site,
    upstream: Upstream,
    gateway: Gateway,
    key_id: String,
    key: String,
}

fn world() -> World {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let gateway = site.start();
    gateway.shop("demo");
    let (key_id, key) = gateway.key("demo", &json!({}));
    World { _site: site, upstream, gateway, key_id, key }
}

/// Asks for a widget token, is admitted, and holds the body back until `meanwhile` is over.
fn issue_around(w: &World, meanwhile: impl FnOnce(&World)) -> String {
    let mut stream = connect(w.gateway.data);
    let head = format!(
        "POST /api/plugin/shops/demo/widget-token HTTP/1.1\r\nHost: x\r\nX-Shop-API-Key: {}\r\n\
         Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        w.key
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The body is asked for only after the decision.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 "));
    meanwhile(w);
    stream.write_all(b"{}").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    parse(&answer).unwrap().outcome()
}

#[test]
fn a_key_revoked_while_a_request_is_under_way_issues_no_token() {
    let w = world();
    assert_eq!(issue_around(&w, |_| {}), "201 ok");
    let disable = |w: &World| {
        w.gateway.api_ok("PATCH", "/shops/demo", &json!({"enabled": false}));
    };
    assert_eq!(issue_around(&w, disable), "401 invalid_credential");
    w.gateway.api_ok("PATCH", "/shops/demo", &json!({"enabled": true}));
    let delete = |w: &World| {
        let key = format!("/shops/demo/keys/{}", w.key_id);
        w.gateway.api_ok("DELETE", &key, &Value::Null);
    };
    assert_eq!(issue_around(&w, delete), "401 invalid_credential");
}

#[test]
fn a_segment_that_is_all_parameter_is_none() {
    let w = world();
    let (_, token) = w.gateway.token("demo", &json!({"scopes": ["search"]}));
    let compare = get("/api/widget/compare").widget(&token);
    assert_eq!(w.gateway.send(&compare).outcome(), "403 insufficient_scope");
    // A server that strips parameters first, then empty segments, reads `/api/widget/compare`.
    for path in ["/api/widget/;/compare", "/api/widget/;x=1/compare", "/api/widget/%3Bx/compare"] {
        let tried = w.gateway.send(&get(path).widget(&token));
        assert_eq!(tried.outcome(), "400 bad_request", "{path}");
    }
    assert_eq!(w.upstream.count(), 0);
}

#[test]
fn no_spelling_that_a_cgi_folds_passes_for_latchkeys() {
    let w = world();
    let mut spoofed = get("/api/plugin/shops/me/x").key(&w.key);
    for name in [
        "X!Auth!Shop!Id",
        "X~Auth~Subject",
        "x'auth'mechanism",
        "X$Auth-Scopes",
        "X-Auth|Shop-Id",
        "X+Forwarded+For",
        "X*Request*Id",
    ] {
        spoofed = spoofed.header(name, "spoofed");
    }
    assert_eq!(w.gateway.send(&spoofed).status, 200);
    assert!(!w.upstream.last().head.contains("spoofed"), "{}", w.upstream.last().head);
}

#[test]
fn the_method_that_was_judged_is_the_method() {
    let w = world();
    let mut disguised = get("/api/plugin/shops/me/x").key(&w.key);
    for name in ["X-HTTP-Method-Override", "X_HTTP_Method", "X-Method-Override"] {
        disguised = disguised.header(name, "DELETE");
    }
    assert_eq!(w.gateway.send(&disguised).status, 200);
    assert!(!w.upstream.last().head.contains("DELETE"), "{}", w.upstream.last().head);
}

/// Starts the binary with `limits` of the shell and waits until it serves.
fn start_limited(site: &Site, limits: &str) -> (Child, BufReader<ChildStderr>, SocketAddr) {
    let plain = site.command(&["serve"]);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\""));
    command.arg(plain.get_program()).args(plain.get_args()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(site.path()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut warned = false;
    let data = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "it did not become ready");
        let event: Value = serde_json::from_str(&line).unwrap();
        let message = event["message"].as_str().unwrap();
        warned |= message.contains("server.connections_max");
        if message == "ready" {
            break event["data"].as_str().unwrap().parse().unwrap();
        }
    };
    assert_eq!(warned, limits.contains("-Hn"), "it says when the limit is too low");
    (child, log, data)
}

#[test]
fn a_low_soft_limit_of_open_files_is_raised() {
    let site = Site::new(None, "[server]\nconnections_max = 100\n");
    let (mut child, _log, _) = start_limited(&site, "ulimit -Sn 200");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = line.split_ascii_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
}

#[test]
fn without_a_file_left_it_neither_spins_nor_floods_the_log_and_recovers() {
    let site = Site::new(None, "");
    let (mut child, log, data) = start_limited(&site, "ulimit -Sn 48; ulimit -Hn 48");
    let mut held: Vec<_> = (0..60).map(|_| connect(data)).collect();
    std::thread::park_timeout(std::time::Duration::from_secs(1));
    held.clear();
    let answer = get("/nowhere").send(data);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answer.outcome(), "404 not_found");
    let lines: Vec<_> = log.lines().map_while(Result::ok).collect();
    let refused = lines.iter().filter(|line| line.contains("cannot accept connections")).count();
    // One per worker.
    assert!((1..=2).contains(&refused), "{refused}");
}
