//! What the running binary counts of shops and keys, and tells of refusals as they happen.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{PATIENCE, get};
use crate::support::until;
use crate::support::upstream::{Behaviour, Upstream};

fn total(gateway: &Gateway, query: &str) -> [u64; 3] {
    let path = format!("/shops/demo/usage?resolution=day{query}");
    let answer = gateway.api_ok("GET", &path, &Value::Null);
    ["allowed", "refused", "limited"].map(|name| answer["total"][name].as_u64().unwrap())
}

#[test]
fn counts_survive_a_stop_and_a_kill() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(
        Some(&upstream),
        "[usage]\nflush_interval = \"1s\"\n[[limits]]\nname = \"few\"\n\
         paths = [\"/*\"]\nkey = \"shop\"\nlimit = 8\nwindow = \"1h\"\n",
    );
    let gateway = site.start();
    gateway.shop("demo");
    let (id, secret) = gateway.key("demo", &json!({}));
    let path = get("/api/plugin/shops/demo/x").key(&secret);
    let foreign = get("/api/plugin/shops/other/x").key(&secret);
    for _ in 0..5 {
        assert_eq!(gateway.send(&path).status, 200);
    }
    assert_eq!(gateway.send(&foreign).status, 403);
    // Garbage is nobody's.
    gateway.send(&get("/api/plugin/shops/demo/x").key("sk_00000000000000000000000000000000"));
    until(|| (total(&gateway, "") == [5, 1, 0]).then_some(()));
    // At the end everything is stored, collected or not.
    assert_eq!(gateway.send(&path).status, 200);
    assert!(gateway.stop().success());
    let gateway = site.start();
    assert_eq!(total(&gateway, ""), [6, 1, 0]);
    // The limiter began anew.
    while gateway.send(&path).status == 200 {}
    until(|| (total(&gateway, "") == [14, 1, 1]).then_some(()));
    // Stored by now, or within the second.
    let store = "latchkey_usage_waiting 0";
    until(|| gateway.metrics().lines().any(|line| line == store).then_some(()));
    let used = gateway.api_ok("GET", &format!("/shops/demo/keys/{id}"), &Value::Null);
    assert!(used["last_used_at"].is_string(), "{used}");
    gateway.kill();
    // The same without a server.
    let listed = site.cli_ok(&["usage", "demo", "--by", "key", "--output", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["total"]["allowed"], 14);
    assert_eq!(
        (&listed["parts"][0]["of"], &listed["parts"][0]["limited"]),
        (&json!(id), &json!(1))
    );
    let csv = site.cli_ok(&["usage", "--csv"]);
    assert_eq!(csv, "shop,allowed,refused,limited\r\ndemo,14,1,1\r\n");
}

#[test]
fn the_last_use_of_a_key_survives_a_kill() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let gateway = site.start();
    gateway.shop("demo");
    let (id, secret) = gateway.key("demo", &json!({}));
    let key = format!("/shops/demo/keys/{id}");
    gateway.send(&get("/api/plugin/shops/demo/x").key(&secret));
    let used = gateway.api_ok("GET", &key, &Value::Null)["last_used_at"].clone();
    assert!(used.is_string());
    // The next commit of the job that stores them: ten seconds at most, not a minute.
    let commits = |gateway: &Gateway| {
        let text = gateway.metrics();
        let series = "latchkey_store_commit_duration_seconds_count ";
        let found = text.lines().find_map(|line| line.strip_prefix(series));
        found.unwrap().parse::<f64>().unwrap()
    };
    let before = commits(&gateway);
    until(|| (commits(&gateway) > before + 0.5).then_some(()));
    gateway.kill();
    let gateway = site.start();
    let kept = &gateway.api_ok("GET", &key, &Value::Null)["last_used_at"];
    assert_eq!(*kept, used);
}

/// A stream of events.
struct Listener(BufReader<UnixStream>);

impl Listener {
    fn start(site: &Site, query: &str, last: Option<&str>) -> Self {
        let mut stream = UnixStream::connect(site.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let head = format!("GET /api/v1/events{query} HTTP/1.1\r\nHost: x\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut this = Self(BufReader::new(stream));
        let head = this.until(str::is_empty);
        assert!(head[0].starts_with("HTTP/1.1 200"), "{head:?}");
        // It listens from when it says so.
        this.until(|line| line.starts_with("retry:"));
        this
    }

    fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the stream ended: {lines:?}");
            let line = line.trim_end().to_owned();
            let is_last = wanted(&line);
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }

    /// The next event's data.
    fn event(&mut self) -> Value {
        let lines = self.until(|line| line.starts_with("data: "));
        serde_json::from_str(lines.last().unwrap().strip_prefix("data: ").unwrap()).unwrap()
    }
}

#[test]
fn refusals_are_told_as_they_happen() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let gateway = site.start();
    gateway.shop("demo");
    let (id, secret) = gateway.key("demo", &json!({}));
    let mut all = Listener::start(&site, "", None);
    let mut of_shop = Listener::start(&site, "?shop=demo", None);
    gateway.send(&get("/nowhere?secret=1"));
    let foreign = get("/api/plugin/shops/other/x").key(&secret);
    let foreign = foreign.header("Origin", "https://evil.example");
    gateway.send(&foreign);

    let first = all.event();
    assert_eq!((&first["code"], &first["path"]), (&json!("not_found"), &json!("/nowhere")));
    let second = all.event();
    assert_eq!(second["code"], "cross_tenant");
    assert_eq!((&second["shop"], &second["key_id"]), (&json!("demo"), &json!(id)));
    assert_eq!(second["origin"], "https://evil.example");
    assert_eq!(second["mechanism"], "shop_api_key");
    // The other listener gets what it asked for, and only that.
    assert_eq!(of_shop.event(), second);
    assert!(![first.to_string(), second.to_string()].concat().contains(&secret));

    // A listener that comes back goes on where it was; one that comes late begins with what is
    // kept.
    drop(all);
    gateway.send(&get("/third"));
    let mut resumed = Listener::start(&site, "", Some(second["id"].as_str().unwrap()));
    assert_eq!(resumed.event()["path"], "/third");
    let mut late = Listener::start(&site, "?after=0", None);
    assert_eq!(late.event(), first);

    // A healthy stream outlives the time that a write may take, and ends with the server.
    for _ in 0..3 {
        of_shop.until(|line| line == ":");
    }
    gateway.send(&foreign);
    assert_eq!(of_shop.event()["code"], "cross_tenant");
    assert!(gateway.stop().success());
    let mut rest = String::new();
    of_shop.0.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "cut off: {rest:?}");
}
