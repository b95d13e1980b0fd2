//! The gateway under test: the real binary over a store that was filled before.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::filled;
use super::http::{Response, request};

/// The password of the operator who looks at the dashboard.
pub(crate) const PASSWORD: &str = "seven grey horses in the rain";

/// Names another build of latchkey to measure, for comparison.
const BINARY: &str = "LATCHKEY_BENCH_BINARY";

/// A running gateway; killed when dropped.
pub(crate) struct Site {
    folder: TempDir,
    child: Child,
    /// Where callers connect.
    pub(crate) data: SocketAddr,
    /// Where the admin plane listens.
    pub(crate) admin: SocketAddr,
}

impl Site {
    /// Fills a store and starts a gateway over it.
    pub(crate) fn start(shops: u32, upstream: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        filled::fill(folder.path(), shops);
        let config = folder.path().join("latchkey.toml");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n\
             [admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"admin.sock\"\n\
             [log]\nformat = \"json\"\n\
             [upstreams.default]\nurl = \"http://{upstream}\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let binary = std::env::var_os(BINARY).unwrap_or(env!("CARGO_BIN_EXE_latchkey").into());
        let mut child = Command::new(binary)
            .args(["serve", "--config"])
            .arg(&config)
            .env_clear()
            .env("LATCHKEY_STORE__PATH", folder.path().join(filled::DATABASE))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (data, admin) = ready(&mut log);
        // What comes later is kept for whoever wonders, and stops nobody.
        let mut kept = File::create(folder.path().join("log")).unwrap();
        std::thread::spawn(move || std::io::copy(&mut log, &mut kept));
        let site = Self { folder, child, data, admin };
        site.api(
            "POST",
            "/operators",
            &json!({"name": "ada", "role": "owner",
            "password": PASSWORD}),
        );
        site
    }

    /// The owner's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// Calls the admin API as the owner, and expects success.
    pub(crate) fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        let call = request(method, &format!("/api/v1{path}"));
        let call = if body.is_null() { call } else { call.json(body) };
        let response = call.send_unix(&self.socket());
        succeeded(path, &response);
        if response.body.is_empty() { Value::Null } else { response.json() }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
pub(crate) fn succeeded(what: &str, response: &Response) {
    assert!(response.status < 400, "{what}: {} {}", response.status, response.text());
}

/// Reads the log until it says where the gateway listens.
fn ready(log: &mut impl std::io::BufRead) -> (SocketAddr, SocketAddr) {
    let mut before = String::new();
    for line in log.by_ref().lines() {
        let line = line.unwrap();
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event["message"] == "ready" {
            let address = |name: &str| {
                let fields = if event[name].is_null() { &event["fields"] } else { &event };
                fields[name].as_str().unwrap().parse().unwrap()
            };
            return (address("data"), address("admin"));
        }
        before = before + &line + "\n";
    }
    panic!("latchkey did not become ready:\n{before}");
}
