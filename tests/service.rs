//! Under a service manager: what it is told, and the sockets and secrets that it hands over.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{PATIENCE, connect, get, request};
use crate::support::upstream::{Behaviour, Upstream};

const ROUTE: &str = "[[routes]]\nname = \"open\"\npaths = [\"/*\"]\n\
                     mechanisms = [\"anonymous\"]\nupstream = \"default\"\n\
                     [[limits]]\nname = \"all\"\npaths = [\"/*\"]\nkey = \"address\"\n\
                     limit = 100000\nwindow = \"1s\"\n";

/// A service manager that is told things.
struct Told {
    path: PathBuf,
    messages: Receiver<String>,
}

impl Told {
    fn new(site: &Site) -> Self {
        let path = site.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (send, messages) = sync_channel(1000);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = socket.recv(&mut buffer) {
                let text = String::from_utf8(buffer[..n].to_vec()).unwrap();
                if send.send(text).is_err() {
                    return;
                }
            }
        });
        Self { path, messages }
    }

    fn next(&self) -> String {
        self.messages.recv_timeout(PATIENCE).expect("to be told something")
    }

    /// The next message that says `line`; what comes before has to be of `among`.
    fn until(&self, line: &str, among: &[&str]) -> String {
        loop {
            let message = self.next();
            if message.lines().any(|l| l == line) {
                return message;
            }
            let known = |l: &str| among.iter().any(|start| l.starts_with(start));
            assert!(message.lines().all(known), "{message:?} before {line}");
        }
    }
}

/// What a message says of how things are.
fn status(message: &str) -> &str {
    message.lines().find_map(|line| line.strip_prefix("STATUS=")).unwrap_or("")
}

#[test]
fn a_service_manager_is_told_what_happens() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), ROUTE);
    let told = Told::new(&site);
    let socket = told.path.to_str().unwrap();
    let gateway = site.start_with(&[("NOTIFY_SOCKET", socket)]);
    let ready = told.until("READY=1", &["STATUS=starting"]);
    let (data, admin) = (gateway.data, gateway.admin);
    let shown = status(&ready);
    for part in [&format!("http on {data}"), &format!("admin on {admin}"), "0 shops, 0 keys"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    assert_eq!(gateway.send(&get("/x")).status, 200);

    let reload = || {
        gateway.signal("HUP");
        let begun = told.until("RELOADING=1", &["STATUS="]);
        let at = begun.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(at.unwrap().parse::<u64>().unwrap() > 0, "{begun}");
        told.until("READY=1", &["STATUS="])
    };
    reload();
    site.configure(Some(&upstream), "[server]\nnonsense = 1\n");
    let refused = reload();
    assert!(status(&refused).contains("reload was refused: "), "{refused}");
    assert!(status(&refused).contains("nonsense"), "{refused}");
    let metric = |line: &str| gateway.metrics().lines().any(|l| l == line);
    assert!(metric("latchkey_config_last_reload_successful 0"));
    assert_eq!(gateway.send(&get("/x")).status, 200, "the old one is in force");
    site.configure(Some(&upstream), ROUTE);
    let accepted = reload();
    assert!(!status(&accepted).is_empty() && !accepted.contains("refused"), "{accepted}");
    assert!(metric("latchkey_config_last_reload_successful 1"));

    gateway.signal("TERM");
    let stopping = told.until("STOPPING=1", &["STATUS="]);
    let extended = stopping.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    assert!(extended.unwrap().parse::<u64>().unwrap() > 30_000_000, "{stopping}");
    assert!(status(&stopping).starts_with("stopping"), "{stopping}");
    assert_eq!(gateway.stop_already_signalled().code(), Some(0));
}

#[test]
fn the_journal_is_told_levels_and_nobody_else() {
    use std::os::unix::fs::MetadataExt as _;

    let site = Site::new(None, ROUTE);
    // What a journal is to a process: a stream whose name it knows.
    let journal = site.path().join("journal");
    let run = |named: &dyn Fn(u64, u64) -> String| {
        let file = std::fs::File::create(&journal).unwrap();
        let metadata = file.metadata().unwrap();
        let mut command = site.command(&["serve"]);
        command.env("LATCHKEY_LOG__LEVEL", "info").env("LATCHKEY_LOG__FORMAT", "text");
        command.env("JOURNAL_STREAM", named(metadata.dev(), metadata.ino()));
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        crate::support::until(|| {
            std::fs::read_to_string(&journal).unwrap().contains(" ready").then_some(())
        });
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::read_to_string(&journal).unwrap()
    };
    let told = run(&|device, inode| format!("{device}:{inode}"));
    assert!(told.lines().all(|line| line.starts_with("<6>") || line.starts_with("<4>")), "{told}");
    let other = run(&|device, inode| format!("{device}:{}", inode + 1));
    assert!(!other.contains("<6>"), "{other}");
}

#[test]
fn signs_of_life_come_as_often_as_they_are_asked_for() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), ROUTE);
    let told = Told::new(&site);
    let socket = told.path.to_str().unwrap();
    let environment = [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "200000")];
    let gateway = site.start_with(&environment);
    for _ in 0..5 {
        told.until("WATCHDOG=1", &["STATUS=", "READY=1"]);
    }
    // They go on while the last request is waited for.
    let mut busy = connect(gateway.data);
    busy.write_all(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab").unwrap();
    crate::support::until(|| {
        gateway.metrics().contains("latchkey_requests_in_flight 1").then_some(())
    });
    gateway.signal("TERM");
    told.until("STOPPING=1", &["WATCHDOG=1"]);
    for _ in 0..3 {
        told.until("WATCHDOG=1", &["STATUS="]);
    }
    busy.write_all(b"cd").unwrap();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(gateway.stop_already_signalled().success());

    // Meant for another process.
    let other = [&environment[..], &[("WATCHDOG_PID", "1")]].concat();
    let gateway = site.start_with(&other);
    told.until("READY=1", &["STATUS=", "WATCHDOG=1"]);
    assert!(gateway.stop().success());
    told.until("STOPPING=1", &["STATUS="]);
}

#[test]
fn a_start_that_fails_says_why() {
    let site = Site::new(None, "[server]\nnonsense = 1\n");
    let told = Told::new(&site);
    let output = site.command(&["serve"]).env("NOTIFY_SOCKET", &told.path).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let message = told.next();
    assert!(status(&message).contains("nonsense"), "{message}");
    assert!(!message.contains("READY"), "{message}");
}

/// Everything that answers on the listeners of a gateway.
fn is_served(gateway: &Gateway) {
    assert_eq!(gateway.send(&get("/x")).status, 200);
    assert_eq!(gateway.send_admin(&get("/livez")).status, 200);
    gateway.api_ok("GET", "/info", &serde_json::Value::Null);
}

#[test]
fn sockets_that_are_handed_over_are_served_and_outlive_the_process() {
    let upstream = Upstream::start(Behaviour::Echo);
    let mut site = Site::new(Some(&upstream), ROUTE);
    let data = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    site.listen_at(data.local_addr().unwrap());
    let admin_address = admin.local_addr().unwrap().to_string();
    let environment = [("LATCHKEY_ADMIN__LISTEN", admin_address.as_str())];
    // In whatever order.
    for handed in [[data.as_fd(), admin.as_fd()], [admin.as_fd(), data.as_fd()]] {
        let gateway = site.start_inheriting(&handed, &environment);
        assert_eq!(gateway.data, data.local_addr().unwrap());
        assert_eq!(gateway.admin.to_string(), admin_address);
        is_served(&gateway);
        assert!(gateway.stop().success());
        // Whoever connects now waits for the next.
        drop(TcpStream::connect(data.local_addr().unwrap()).unwrap());
    }

    // The owner's socket, and nothing else.
    site.listen_at("127.0.0.1:0".parse().unwrap());
    let socket = UnixListener::bind(site.socket()).unwrap();
    let mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(site.socket(), mode).unwrap();
    };
    mode(0o666);
    let refused = refusal(&site, &[socket.as_fd()], &[]);
    assert!(refused.contains("SocketMode=0660"), "{refused}");
    mode(0o660);
    for _ in 0..2 {
        let gateway = site.start_inheriting(&[socket.as_fd()], &[]);
        is_served(&gateway);
        assert!(gateway.stop().success());
        assert!(site.socket().exists(), "it is the manager's to remove");
    }
}

/// What `serve` says of sockets that it does not start with.
fn refusal(
    site: &Site,
    listeners: &[std::os::fd::BorrowedFd<'_>],
    environment: &[(&str, &str)],
) -> String {
    let (mut command, [first, second]) = site.inheriting(listeners, environment);
    let child = command.stdin(first).stdout(second).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(!site.database().exists() || text.contains("SocketMode"), "nothing half-made");
    text
}

#[test]
fn sockets_that_nobody_would_answer_on_are_refused() {
    let mut site = Site::new(None, ROUTE);
    site.listen_at("127.0.0.1:1".parse().unwrap());
    let stray = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stray.local_addr().unwrap();
    let names = [("LISTEN_FDNAMES", "latchkey.socket")];
    let told = refusal(&site, &[stray.as_fd()], &names);
    for word in ["latchkey.socket", &address.to_string(), "server.listen is 127.0.0.1:1"] {
        assert!(told.contains(word), "no {word:?} in {told}");
    }
    let client = TcpStream::connect(address).unwrap();
    let told = refusal(&site, &[client.as_fd()], &names);
    assert!(told.contains("no stream socket that listens"), "{told}");
    let datagrams = UnixDatagram::unbound().unwrap();
    let told = refusal(&site, &[datagrams.as_fd()], &names);
    assert!(told.contains("no stream socket that listens"), "{told}");
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), ROUTE);
    let gateway = site.start_with(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]);
    is_served(&gateway);
    assert!(gateway.stop().success());
}

#[test]
fn one_socket_for_all_workers_is_shared_evenly() {
    const CONNECTIONS: usize = 64;
    let upstream = Upstream::start(Behaviour::Echo);
    let mut site = Site::new(Some(&upstream), ROUTE);
    let data = TcpListener::bind("127.0.0.1:0").unwrap();
    site.listen_at(data.local_addr().unwrap());
    let workers = [("LATCHKEY_SERVER__WORKERS", "4")];
    let gateway = site.start_inheriting(&[data.as_fd()], &workers);
    // One after the other, while nothing else happens: nobody is busy.
    let mut ids: Vec<String> = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = connect(gateway.data);
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        let answer = loop {
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0);
            bytes.extend_from_slice(&buffer[..n]);
            if let Some(answer) = crate::support::http::parse(&bytes) {
                break answer;
            }
        };
        ids.push(answer.header("x-request-id").unwrap().to_owned());
        kept.push(stream);
    }
    // A request's id begins with what its worker began with.
    let mut shares = std::collections::BTreeMap::<&str, usize>::new();
    for id in &ids {
        *shares.entry(&id[..16]).or_default() += 1;
    }
    assert_eq!(shares.into_values().collect::<Vec<_>>(), [CONNECTIONS / 4; 4], "{ids:?}");
}

#[test]
fn the_master_key_may_be_handed_over() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let gateway = site.start();
    gateway.shop("demo");
    let (_, key) = gateway.key("demo", &serde_json::json!({}));
    assert!(gateway.stop().success());
    let directory = site.path().join("credentials");
    std::fs::create_dir(&directory).unwrap();
    let credential = directory.join("master.key");
    std::fs::rename(site.master_key(), &credential).unwrap();
    std::fs::set_permissions(&credential, std::fs::Permissions::from_mode(0o400)).unwrap();
    let handed = [("CREDENTIALS_DIRECTORY", directory.to_str().unwrap())];
    for extra in ["", "[store]\nmaster_key_file = \"credential:master.key\"\n"] {
        site.configure(Some(&upstream), extra);
        let gateway = site.start_with(&handed);
        let ask = request("GET", "/api/plugin/shops/me/x").key(&key);
        assert_eq!(gateway.send(&ask).status, 200);
        assert!(gateway.stop().success());
    }
    assert!(!site.master_key().exists(), "no second one is made");
    let output = site.cli(&["serve"]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("LoadCredential=master.key:"), "{text}");
}
