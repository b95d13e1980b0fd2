//! A real Prometheus on loopback that scrapes every second, in a directory of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::shipped;
use crate::support::http::{Request, get};
use crate::support::until;

/// A running Prometheus; killed when dropped.
pub(super) struct Prometheus {
    child: Child,
    dir: TempDir,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one whose `scrape_configs` is `scrape`, with the rules that are shipped.
    pub(super) fn start(scrape: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\n\
             rule_files:\n  - {}\nscrape_configs:\n{scrape}",
            shipped("packaging/prometheus/latchkey.rules.yml").display()
        );
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let address = free_port();
        let child = Command::new("prometheus")
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("prometheus: {e}; 'tests/run observability' installs it"));
        let mut this = Self { child, dir, address };
        until(|| {
            if let Some(status) = this.child.try_wait().unwrap() {
                panic!("prometheus ended with {status}:\n{}", this.log());
            }
            let ready = get("/-/ready").try_send(address, crate::support::http::PATIENCE);
            ready.is_ok_and(|response| response.status == 200).then_some(())
        });
        this
    }

    fn log(&self) -> String {
        read_log(self.dir.path())
    }

    /// What the API answers to `path`.
    pub(super) fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut target = format!("/api/v1/{path}");
        for (i, (name, value)) in parameters.iter().enumerate() {
            let separator = if i == 0 { '?' } else { '&' };
            write!(target, "{separator}{name}={}", escaped(value)).unwrap();
        }
        let request: Request = get(&target);
        let response = request.send(self.address);
        assert_eq!(response.status, 200, "{target}: {}\n{}", response.text(), self.log());
        response.json()
    }

    /// The instant vector that `query` gives.
    pub(super) fn query(&self, query: &str) -> Value {
        self.api("query", &[("query", query)])
    }

    /// Waits until every rule was evaluated, without an error and with all texts of its alerts.
    pub(super) fn rules_are_well(&self) {
        let answer = until(|| {
            let answer = self.api("rules", &[]);
            let evaluated = rules_of(&answer).all(|rule| rule["health"] != "unknown");
            evaluated.then_some(answer)
        });
        for rule in rules_of(&answer) {
            assert_eq!(rule["health"], "ok", "{rule}");
            assert!(!rule["alerts"].to_string().contains("error expanding"), "{rule}");
        }
    }
}

/// Those that are evaluated every second; the others wait for two minutes.
fn rules_of(answer: &Value) -> impl Iterator<Item = &Value> {
    let groups = answer["data"]["groups"].as_array().unwrap().iter();
    let often = groups.filter(|group| group["interval"] == 1);
    often.flat_map(|group| group["rules"].as_array().unwrap())
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_log(dir: &Path) -> String {
    let log = fs::read(dir.join("log")).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// As a query wants it.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").unwrap();
        }
    }
    out
}
