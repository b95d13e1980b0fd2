//! The running binary, with a directory of its own.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{PATIENCE, Request, Response, request};
use super::{secrets, upstream::Upstream};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_latchkey");

/// A directory with a configuration, to start latchkey in again and again.
pub(crate) struct Site {
    dir: TempDir,
    listen: SocketAddr,
}

impl Site {
    /// A site whose configuration file is `extra` behind what every test needs: ports that are
    /// free, state in the site's directory, logs as JSON.
    pub(crate) fn new(upstream: Option<&Upstream>, extra: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let site = Self { dir, listen: SocketAddr::from(([127, 0, 0, 1], 0)) };
        site.configure(upstream, extra);
        site
    }

    /// Writes the configuration file anew.
    pub(crate) fn configure(&self, upstream: Option<&Upstream>, extra: &str) {
        let address = upstream.map_or("127.0.0.1:9".to_owned(), |u| u.address.to_string());
        let text = format!(
            "{extra}\n[upstreams.default]\nurl = \"http://{address}\"\nconnect_timeout = \"1s\"\n\
             response_timeout = \"1s\"\n"
        );
        std::fs::write(self.config(), text).expect("a configuration file");
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("latchkey.toml")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("admin.sock")
    }

    /// What the server that was started last has printed.
    pub(crate) fn stdout(&self) -> PathBuf {
        self.path().join("stdout")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path().join("latchkey.redb")
    }

    pub(crate) fn master_key(&self) -> PathBuf {
        self.path().join("master.key")
    }

    /// The binary with this site's configuration and environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(args)
            .env_clear()
            .env("LATCHKEY_SERVER__LISTEN", self.listen.to_string())
            .env("LATCHKEY_SERVER__WORKERS", "2")
            .env("LATCHKEY_ADMIN__LISTEN", "127.0.0.1:0")
            .env("LATCHKEY_STORE__PATH", self.database())
            .env("LATCHKEY_LOG__FORMAT", "json")
            .env("LATCHKEY_LOG__LEVEL", "debug")
            .current_dir(self.path())
            .arg("--config")
            .arg(self.config());
        command
    }

    /// Runs a command of the CLI to its end.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        let output = self.command(args).stdin(Stdio::null()).output().expect("the binary runs");
        secrets::saw(&output.stderr);
        output
    }

    /// Runs a command that has to succeed and returns what it printed.
    pub(crate) fn cli_ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "latchkey {args:?}: {}\n{stderr}", output.status);
        String::from_utf8(output.stdout).expect("UTF-8 on stdout")
    }

    /// From now on the data listener is at `address`, which others know.
    pub(crate) fn listen_at(&mut self, address: SocketAddr) {
        self.listen = address;
    }

    /// Where the data listener is, once it is fixed.
    pub(crate) fn listen_address(&self) -> SocketAddr {
        self.listen
    }

    /// Starts the server and waits until it serves.
    pub(crate) fn start(&self) -> Gateway {
        self.start_with(&[])
    }

    /// The same, with more environment variables.
    pub(crate) fn start_with(&self, environment: &[(&str, &str)]) -> Gateway {
        let mut command = self.command(&["serve"]);
        command.envs(environment.iter().copied());
        Gateway::start(self, command, [Stdio::null(), self.output()])
    }

    /// The same on listeners that it is handed, as systemd hands over its own.
    pub(crate) fn start_inheriting(
        &self,
        listeners: &[BorrowedFd<'_>],
        environment: &[(&str, &str)],
    ) -> Gateway {
        let (command, streams) = self.inheriting(listeners, environment);
        Gateway::start(self, command, streams)
    }

    /// `serve` on these listeners, which it is handed as its first descriptors, one or two.
    pub(crate) fn inheriting(
        &self,
        listeners: &[BorrowedFd<'_>],
        environment: &[(&str, &str)],
    ) -> (Command, [Stdio; 2]) {
        // A process learns its own number only once it is there.
        const TAKE: &str = "exec 3<&0 4<&1 </dev/null >\"$OUTPUT\"; LISTEN_PID=$$ exec \"$@\"";
        let serve = self.command(&["serve"]);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", TAKE, "sh"]).arg(serve.get_program()).args(serve.get_args());
        let variables = serve.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.env_clear().envs(variables).current_dir(self.path());
        command.env("OUTPUT", self.stdout()).env("LISTEN_FDS", listeners.len().to_string());
        command.envs(environment.iter().copied());
        let handed = |index: usize| match listeners.get(index) {
            Some(listener) => Stdio::from(listener.try_clone_to_owned().expect("a descriptor")),
            None => Stdio::null(),
        };
        (command, [handed(0), handed(1)])
    }

    fn output(&self) -> Stdio {
        Stdio::from(File::create(self.stdout()).expect("a file"))
    }
}

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    ended: bool,
}

type SharedLog = Arc<(Mutex<Log>, Condvar)>;

/// A running latchkey; killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    log: SharedLog,
    socket: PathBuf,
    stdout: PathBuf,
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    fn start(site: &Site, mut command: Command, [stdin, stdout]: [Stdio; 2]) -> Self {
        let mut child = command
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = SharedLog::default();
        let stderr = child.stderr.take().expect("a pipe");
        let shared = Arc::clone(&log);
        std::thread::spawn(move || collect(stderr, &shared));
        let ready = wait_for(&log, |line| ready(line).is_some());
        let Some((data, admin)) = ready.as_deref().and_then(ready_addresses) else {
            let _ = child.kill();
            let lines = log.0.lock().expect("no panic under the lock").lines.join("\n");
            panic!("latchkey did not become ready:\n{lines}");
        };
        Self { child, log, socket: site.socket(), stdout: site.stdout(), data, admin }
    }

    /// The set-up link that was printed at the start, if one was; its token is watched for.
    pub(crate) fn set_up_link(&self) -> Option<String> {
        let printed = std::fs::read_to_string(&self.stdout).expect("what was printed");
        let link = printed.split_whitespace().find(|word| word.contains("/setup#"))?;
        secrets::minted(link.split_once('#').expect("a fragment").1);
        Some(link.to_owned())
    }

    /// Sends a request to the data listener.
    pub(crate) fn send(&self, request: &Request) -> Response {
        request.send(self.data)
    }

    /// Sends a request to the admin listener.
    pub(crate) fn send_admin(&self, request: &Request) -> Response {
        request.send(self.admin)
    }

    /// Calls the admin API through the unix socket.
    pub(crate) fn api(&self, method: &str, path: &str, body: &Value) -> Response {
        let call = request(method, &format!("/api/v1{path}"));
        let call = if body.is_null() { call } else { call.json(body) };
        let response = call.send_unix(&self.socket);
        secrets::collect(&response);
        response
    }

    /// Calls the admin API and expects success.
    pub(crate) fn api_ok(&self, method: &str, path: &str, body: &Value) -> Value {
        let response = self.api(method, path, body);
        assert!(response.status < 300, "{method} {path}: {} {}", response.status, response.text());
        if response.body.is_empty() { Value::Null } else { response.json() }
    }

    /// Creates a shop on `https://<id>.example`.
    pub(crate) fn shop(&self, id: &str) -> &Self {
        let url = format!("https://{id}.example");
        self.api_ok("POST", "/shops", &json!({"id": id, "name": id, "url": url}));
        self
    }

    /// Creates a key for `shop`: its id and its secret.
    pub(crate) fn key(&self, shop: &str, options: &Value) -> (String, String) {
        let mut body = json!({"name": "test"});
        for (name, value) in options.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let created = self.api_ok("POST", &format!("/shops/{shop}/keys"), &body);
        let text = |name: &str| created[name].as_str().expect("a string").to_owned();
        (text("id"), text("secret"))
    }

    /// Issues a widget token for `shop`: its id and its text.
    pub(crate) fn token(&self, shop: &str, options: &Value) -> (String, String) {
        let body = if options.is_null() { &json!({}) } else { options };
        let issued = self.api_ok("POST", &format!("/shops/{shop}/widget-tokens"), body);
        let text = |name: &str| issued[name].as_str().expect("a string").to_owned();
        (text("id"), text("token"))
    }

    /// The metrics page.
    pub(crate) fn metrics(&self) -> String {
        let response = request("GET", "/metrics").send(self.admin);
        assert_eq!(response.status, 200);
        secrets::saw(&response.body);
        response.text()
    }

    /// Waits for a log line that `wanted` accepts.
    pub(crate) fn wait_for_log(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let parse = |line: &str| serde_json::from_str::<Value>(line).ok();
        let found = wait_for(&self.log, |line| parse(line).is_some_and(|v| wanted(&v)));
        let lines = || self.log_lines().join("\n");
        found.as_deref().and_then(parse).unwrap_or_else(|| panic!("no such line:\n{}", lines()))
    }

    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.log.0.lock().expect("no panic under the lock").lines.clone()
    }

    /// Memory that is in use.
    pub(crate) fn resident_kib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().strip_suffix("kB"));
        number.expect("a size in kB").trim().parse().expect("a number")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// SIGKILL, and what the system says of it.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a running process");
        self.child.wait().expect("an exit status");
    }

    /// SIGTERM, and the exit status after draining.
    pub(crate) fn stop(self) -> ExitStatus {
        self.signal("TERM");
        self.stop_already_signalled()
    }

    /// The exit status, when the signal was already sent.
    pub(crate) fn stop_already_signalled(mut self) -> ExitStatus {
        self.child.wait().expect("an exit status")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            secrets::assert_none_leaked();
        }
    }
}

fn collect(stderr: impl std::io::Read, log: &SharedLog) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while reader.by_ref().read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        secrets::saw(&line);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        log.0.lock().expect("no panic under the lock").lines.push(text);
        log.1.notify_all();
    }
    log.0.lock().expect("no panic under the lock").ended = true;
    log.1.notify_all();
}

/// The first line that `wanted` accepts; `None` when the log ends or patience does.
fn wait_for(log: &SharedLog, wanted: impl Fn(&str) -> bool) -> Option<String> {
    let mut seen = 0;
    let mut guard = log.0.lock().expect("no panic under the lock");
    loop {
        if let Some(line) = guard.lines.iter().skip(seen).find(|line| wanted(line)) {
            return Some(line.clone());
        }
        seen = guard.lines.len();
        if guard.ended {
            return None;
        }
        let (next, timeout) = log.1.wait_timeout(guard, PATIENCE).expect("no panic under the lock");
        if timeout.timed_out() {
            return None;
        }
        guard = next;
    }
}

fn ready(line: &str) -> Option<Value> {
    let event: Value = serde_json::from_str(line).ok()?;
    (event["message"] == "ready").then_some(event)
}

fn ready_addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let fields = ready(line)?;
    let address = |name: &str| fields[name].as_str()?.parse().ok();
    Some((address("data")?, address("admin")?))
}
