//! What goes wrong at start: one clear message, its own exit code, nothing half-made; and what
//! SIGHUP and SIGTERM do.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use serde_json::json;

use crate::support::gateway::Site;
use crate::support::http::{connect, get, request};
use crate::support::upstream::{Behaviour, Upstream};

fn failure(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{text}");
}

#[test]
fn every_mistake_of_a_configuration_at_once_with_its_place() {
    let site =
        Site::new(None, "[server]\nlisten = \"nowhere\"\nworkres = 3\n[limiter]\ncells = 0\n");
    let output = site.command(&["serve"]).env_remove("LATCHKEY_SERVER__LISTEN").output().unwrap();
    failure(&output, 3, &["latchkey.toml", "server.listen", "workres", "workers", "limiter.cells"]);
    assert!(!site.database().exists() && !site.master_key().exists(), "nothing half-made");
    fs::write(site.config(), "[server\n").unwrap();
    failure(&site.cli(&["config", "check"]), 3, &["latchkey.toml:1:8"]);
    fs::remove_file(site.config()).unwrap();
    failure(&site.cli(&["serve"]), 3, &["latchkey.toml"]);
    site.configure(None, "");
    let unknown = site.command(&["config", "check"]).env("LATCHKEY_SERVER__LISTNE", "x").output();
    failure(&unknown.unwrap(), 3, &["LATCHKEY_SERVER__LISTNE"]);
}

#[test]
fn master_keys_that_are_wrong_missing_or_open_to_others() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    assert!(site.start().stop().success());
    assert_eq!(fs::metadata(site.master_key()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(site.database()).unwrap().permissions().mode() & 0o077, 0);
    let good = fs::read(site.master_key()).unwrap();

    fs::set_permissions(site.master_key(), fs::Permissions::from_mode(0o644)).unwrap();
    failure(&site.cli(&["serve"]), 4, &["master.key", "chmod 600"]);
    fs::set_permissions(site.master_key(), fs::Permissions::from_mode(0o600)).unwrap();

    let other = "A".repeat(43);
    fs::write(site.master_key(), &other).unwrap();
    failure(&site.cli(&["serve"]), 4, &["master key"]);
    fs::write(site.master_key(), "short").unwrap();
    failure(&site.cli(&["serve"]), 4, &["master.key"]);
    fs::remove_file(site.master_key()).unwrap();
    failure(&site.cli(&["serve"]), 4, &["master.key"]);
    assert!(!site.master_key().exists(), "no new key beside an existing database");

    fs::write(site.master_key(), good).unwrap();
    fs::set_permissions(site.master_key(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(site.start().stop().success());
}

#[test]
fn databases_that_are_locked_or_not_databases() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let gateway = site.start();
    failure(&site.cli(&["serve"]), 4, &["latchkey.redb"]);
    assert_eq!(gateway.send(&get("/api/search/x")).status, 200, "the first one is undisturbed");
    assert!(gateway.stop().success());
    fs::write(site.database(), b"this is not a database at all, but it is long enough").unwrap();
    failure(&site.cli(&["serve"]), 4, &["latchkey.redb"]);
}

#[test]
fn ports_in_use() {
    let upstream = Upstream::start(Behaviour::Echo);
    for variable in ["LATCHKEY_SERVER__LISTEN", "LATCHKEY_ADMIN__LISTEN"] {
        let site = Site::new(Some(&upstream), "");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let output = site.command(&["serve"]).env(variable, &address).output().unwrap();
        failure(&output, 5, &[&address, "in use"]);
    }
    // Another latchkey with the same data port is noticed too, SO_REUSEPORT or not.
    let (first, second) = (Site::new(Some(&upstream), ""), Site::new(Some(&upstream), ""));
    let gateway = first.start();
    let address = gateway.data.to_string();
    let output =
        second.command(&["serve"]).env("LATCHKEY_SERVER__LISTEN", &address).output().unwrap();
    failure(&output, 5, &[&address, "in use"]);
}

#[test]
fn a_stale_socket_is_replaced_and_the_socket_is_not_for_everybody() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    site.start().kill();
    assert!(site.socket().exists(), "SIGKILL leaves it behind");
    let gateway = site.start();
    assert_eq!(fs::metadata(site.socket()).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(gateway.stop().success());
}

#[test]
fn sighup_swaps_a_good_configuration_and_ignores_a_bad_one() {
    let upstream = Upstream::start(Behaviour::Echo);
    let route = |name: &str| {
        format!(
            "[[routes]]\nname = \"r\"\npaths = [\"/{name}/*\"]\nmechanisms = [\"anonymous\"]\n\
             upstream = \"default\"\n[[limits]]\nname = \"l\"\npaths = [\"/*\"]\n\
             key = \"address\"\nlimit = 1000\nwindow = \"1s\"\n"
        )
    };
    let site = Site::new(Some(&upstream), &route("old"));
    let gateway = site.start();
    let statuses = |gateway: &crate::support::gateway::Gateway| {
        let status = |path: &str| gateway.send(&get(path)).status;
        (status("/old/x"), status("/new/x"))
    };
    assert_eq!(statuses(&gateway), (200, 404));

    site.configure(Some(&upstream), "[server]\nnonsense = 1\n");
    gateway.signal("HUP");
    gateway.wait_for_log(|e| e["level"] == "ERROR" && e.to_string().contains("nonsense"));
    assert_eq!(statuses(&gateway), (200, 404), "a bad file changes nothing");

    site.configure(Some(&upstream), &route("new"));
    gateway.signal("HUP");
    let swapped = || (statuses(&gateway) == (404, 200)).then_some(());
    crate::support::until(swapped);
    let metrics = gateway.metrics();
    for line in [
        "latchkey_config_reloads_total{result=\"failure\"} 1",
        "latchkey_config_reloads_total{result=\"success\"} 1",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}

#[test]
fn sigterm_finishes_what_was_begun_and_has_a_bound() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "[server]\ndrain_timeout = \"10s\"\n");
    let gateway = site.start();
    gateway.shop("demo");
    let (_, key) = gateway.key("demo", &json!({}));
    let mut busy = connect(gateway.data);
    let head = format!(
        "POST /api/plugin/shops/me/x HTTP/1.1\r\nHost: x\r\nX-Shop-API-Key: {key}\r\n\
         Content-Length: 4\r\n\r\nab"
    );
    busy.write_all(head.as_bytes()).unwrap();
    let mut idle = connect(gateway.data);
    // The busy request is under way once the gauge says so.
    crate::support::until(|| {
        gateway.metrics().contains("latchkey_requests_in_flight 1").then_some(())
    });
    gateway.signal("TERM");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "an idle connection is closed without a word");
    busy.write_all(b"cd").unwrap();
    let mut answer = Vec::new();
    busy.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(upstream.last().body, b"abcd");
    assert!(gateway.stop_already_signalled().success());

    let site = Site::new(Some(&upstream), "[server]\ndrain_timeout = \"100ms\"\n");
    let gateway = site.start();
    gateway.shop("demo");
    let mut stuck = connect(gateway.data);
    stuck.write_all(b"GET /api/search/x HTTP/1.1\r\nHost:").unwrap();
    assert!(gateway.stop().success(), "a stuck connection does not hold it up");
}

#[test]
fn health_readiness_and_healthcheck() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    failure(&site.cli(&["healthcheck"]), 6, &[]);
    let gateway = site.start();
    for path in ["/livez", "/readyz"] {
        assert_eq!(request("GET", path).send(gateway.admin).status, 200, "{path}");
    }
    let address = gateway.admin.to_string();
    let output =
        site.command(&["healthcheck"]).env("LATCHKEY_ADMIN__LISTEN", &address).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
