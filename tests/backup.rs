//! Backups, import and export by the real binary: what is restored elsewhere decides the same, and
//! whatever goes wrong on the way leaves things as they were.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::gateway::{BINARY, Gateway, Site};
use crate::support::http::{Request, get, request};
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::{secrets, until};

const PASSPHRASE: &str = "four words that nobody guesses";

fn site() -> (Site, Upstream) {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    (site, upstream)
}

/// A file with the passphrase.
fn passphrase_file(site: &Site) -> String {
    let path = site.path().join("passphrase");
    fs::write(&path, PASSPHRASE).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// What a gateway says of some requests: status, code, and whether limits are told.
fn answers(gateway: &Gateway, requests: &[Request]) -> Vec<(u16, String, Option<String>)> {
    let ask = |request: &Request| {
        let response = gateway.send(request);
        let policy = response.header("RateLimit-Policy").map(ToOwned::to_owned);
        (response.status, response.outcome(), policy)
    };
    requests.iter().map(ask).collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn exit_of(site: &Site, args: &[&str]) -> (i32, String) {
    let output = site.cli(args);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A shop for every way to be let in or refused, and the requests that show it.
fn populate(gateway: &Gateway) -> Vec<Request> {
    for shop in ["plain", "closed", "limited"] {
        gateway.shop(shop);
    }
    let mut requests = Vec::new();
    let me = |secret: &str| get("/api/plugin/shops/me/x").key(secret);
    for shop in ["plain", "closed", "limited"] {
        requests.push(me(&gateway.key(shop, &json!({})).1));
    }
    gateway.api_ok("PATCH", "/shops/closed", &json!({"enabled": false}));
    let few = json!({"authenticated": {"limit": 77, "window_seconds": 3600}});
    gateway.api_ok("PUT", "/shops/limited/limits", &few);
    let (revoked_id, revoked) = gateway.key("plain", &json!({}));
    gateway.api_ok("DELETE", &format!("/shops/plain/keys/{revoked_id}"), &Value::Null);
    let (rotated_id, rotated) = gateway.key("plain", &json!({}));
    let path = format!("/shops/plain/keys/{rotated_id}/rotate");
    let successor = gateway.api_ok("POST", &path, &json!({"grace_seconds": 3600}));
    let successor = successor["secret"].as_str().unwrap().to_owned();
    let bound = gateway.key("plain", &json!({"networks": ["192.0.2.0/24"]})).1;
    requests.extend([revoked, rotated, successor, bound].iter().map(|secret| me(secret)));
    let widget = |token: &str| get("/api/widget/config").widget(token);
    requests.push(widget(&gateway.token("plain", &Value::Null).1));
    let (id, revoked) = gateway.token("plain", &Value::Null);
    gateway.api_ok("DELETE", &format!("/shops/plain/widget-tokens/{id}"), &Value::Null);
    requests.push(widget(&revoked));
    requests.push(widget("wt_nonsense"));
    requests
}

#[test]
fn what_is_restored_on_another_machine_decides_the_same() {
    let (here, upstream) = site();
    let gateway = here.start();
    let requests = populate(&gateway);
    let admin = gateway.api_ok("POST", "/admin-tokens", &json!({"name": "ci", "role": "viewer"}));
    let admin = admin["secret"].as_str().unwrap().to_owned();
    let before = answers(&gateway, &requests);
    let outcomes: std::collections::BTreeSet<_> = before.iter().map(|(_, o, _)| o).collect();
    assert!(outcomes.len() >= 4, "{before:?}");
    let pass = passphrase_file(&here);
    let file = here.path().join("moved.lkbackup").display().to_string();
    let open = here.path().join("open.lkbackup").display().to_string();
    here.cli_ok(&["backup", "create", &file, "--passphrase-file", &pass, "--include-master-key"]);
    here.cli_ok(&["backup", "create", &open]);
    let made = here.cli_ok(&["backup", "create", "--output", "json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["state"], "good", "{made}");
    let name = made["name"].as_str().unwrap();
    assert!(here.cli_ok(&["backup", "list"]).contains(name));
    here.cli_ok(&["backup", "fetch", name]);
    assert!(here.cli_ok(&["verify", name]).contains("belongs to the master key here"));
    here.cli_ok(&["backup", "delete", name, "--yes"]);
    assert!(here.cli_ok(&["backup", "list"]).contains("No backups"));
    for file in [&file, &open] {
        let bytes = fs::read(file).unwrap();
        secrets::saw(&bytes);
        let key = fs::read_to_string(here.master_key()).unwrap();
        assert!(!secrets::contains(&bytes, key.trim()));
        assert!(!secrets::contains(&bytes, PASSPHRASE));
    }
    assert!(gateway.stop().success());

    let there = Site::new(Some(&upstream), "");
    let pass = passphrase_file(&there);
    let (code, error) = exit_of(&there, &["restore", &open]);
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("master key"), "{error}");
    let (code, error) = exit_of(&there, &["restore", &file]);
    assert_eq!(code, 7, "{error}");
    assert!(!there.database().exists() && !there.master_key().exists());
    there.cli_ok(&["restore", &file, "--passphrase-file", &pass]);
    let gateway = there.start();
    assert_eq!(answers(&gateway, &requests), before);
    let call = request("GET", "/api/v1/shops/limited").bearer(&admin).send(gateway.admin);
    assert_eq!(call.json()["limits"]["authenticated"]["limit"], 77);
    let log = there.cli_ok(&["audit", "list"]);
    assert!(log.contains("backup.restored") && log.contains("shop.created"), "{log}");
    assert!(there.cli_ok(&["audit", "verify"]).contains("intact"));
    // While a server runs, nothing is restored.
    let (code, error) = exit_of(&there, &["restore", &file, "--force", "--passphrase-file", &pass]);
    assert_eq!(code, 6, "{error}");
    assert!(gateway.stop().success());
    let (code, error) = exit_of(&there, &["restore", &file, "--passphrase-file", &pass]);
    assert!(code == 4 && error.contains("--force"), "{error}");
    there.cli_ok(&["restore", &open, "--force"]);
    assert_eq!(answers(&there.start(), &requests), before);
    assert!(names_in(there.path()).iter().any(|name| name.contains(".before-restore-")));
    assert!(!names_in(there.path()).iter().any(|name| name.starts_with(".latchkey-")));
    secrets::assert_none_leaked();
}

#[test]
fn a_damaged_backup_is_told_by_its_exit_code() {
    let (site, _upstream) = site();
    site.cli_ok(&["shop", "create", "a", "--url", "https://a.example"]);
    let file = site.path().join("b.lkbackup");
    let path = file.display().to_string();
    site.cli_ok(&["backup", "create", &path]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, error) = exit_of(&site, &["backup", "create", &path]);
    assert!(code == 1 && error.contains("there already"), "{error}");
    let good = fs::read(&file).unwrap();
    let mut bytes = good.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    for args in [&["backup", "verify", &path][..], &["restore", &path, "--force"]] {
        let (code, error) = exit_of(&site, args);
        assert!(code == 7 && error.contains("damaged"), "{error}");
    }
    fs::write(&file, &good[..middle]).unwrap();
    let (code, error) = exit_of(&site, &["verify", &path]);
    assert!(code == 7 && error.contains("cut off"), "{error}");
    assert!(site.cli_ok(&["shop", "list"]).contains("https://a.example"));
}

/// The backup comes through a pipe, so the kill always finds the restoration half done.
#[test]
fn a_restoration_that_is_killed_leaves_the_old_database() {
    let (site, _upstream) = site();
    site.cli_ok(&["shop", "create", "old", "--url", "https://old.example"]);
    let file = site.path().join("b.lkbackup");
    site.cli_ok(&["backup", "create", &file.display().to_string()]);
    let bytes = fs::read(&file).unwrap();
    site.cli_ok(&["shop", "create", "newer", "--url", "https://newer.example"]);
    let pipe = site.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for sent in [0, 100, bytes.len() / 2, bytes.len() - 1] {
        let args = ["restore", &pipe.display().to_string(), "--force"];
        let mut child = site.command(&args).stderr(Stdio::null()).spawn().unwrap();
        let mut to = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        to.write_all(&bytes[..sent]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        drop(to);
        let shops = site.cli_ok(&["shop", "list"]);
        assert!(shops.contains("https://newer.example"), "{shops}");
    }
    site.cli_ok(&["restore", &file.display().to_string(), "--force"]);
    assert!(!site.cli_ok(&["shop", "list"]).contains("newer"));
    let left = names_in(site.path());
    assert!(!left.iter().any(|name| name.starts_with(".latchkey-")), "{left:?}");
}

#[test]
fn a_disk_that_takes_no_more_leaves_no_half_file() {
    let (site, _upstream) = site();
    let gateway = site.start();
    for n in 0..30 {
        gateway.shop(&format!("shop-{n}"));
    }
    let (backup, export) = (site.path().join("out.lkbackup"), site.path().join("out.jsonl"));
    for (file, args) in [(&backup, ["backup", "create"].as_slice()), (&export, &["export"])] {
        let limited = site.command(&[]);
        let mut shell = Command::new("sh");
        let script = "trap '' XFSZ; ulimit -f 4; exec \"$@\"";
        shell.args(["-c", script, "sh", BINARY]).args(args).arg(file).args(limited.get_args());
        shell.env_clear().current_dir(site.path());
        shell.envs(limited.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = shell.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains("cannot be written"), "{error}");
        assert!(!file.exists());
    }
    assert!(!names_in(site.path()).iter().any(|name| name.starts_with(".latchkey-")));
}

#[test]
fn the_server_makes_backups_by_itself() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "[backup]\ninterval = \"1h\"\nkeep = 2\n");
    let scheduled = |gateway: &Gateway| {
        let list = gateway.api_ok("GET", "/backups", &Value::Null);
        assert_eq!(list["schedule"]["keep"], 2);
        let items = list["items"].as_array().unwrap().clone();
        Some(items).filter(|items| !items.is_empty())
    };
    let gateway = site.start();
    let first = until(|| scheduled(&gateway));
    assert_eq!((first.len(), &first[0]["state"]), (1, &json!("good")));
    assert!(gateway.metrics().contains("latchkey_backups_total{kind=\"scheduled\",result=\"succ"));
    assert!(gateway.stop().success());
    let gateway = site.start();
    let log = |line: &Value| line["fields"]["message"] == "a backup was made";
    let again = until(|| scheduled(&gateway));
    assert_eq!(again.len(), 1);
    assert!(
        !gateway
            .log_lines()
            .iter()
            .any(|line| { serde_json::from_str::<Value>(line).is_ok_and(|line| log(&line)) })
    );
}

fn secret(n: usize) -> String {
    format!("sk_{n:032x}")
}

/// `shops` shops of 100 keys each.
fn records(shops: usize) -> String {
    let mut text = String::new();
    for shop in 0..shops {
        let id = format!("shop-{shop}");
        let line =
            format!("{{\"type\":\"shop/1\",\"id\":\"{id}\",\"url\":\"https://{id}.example\"}}");
        writeln!(text, "{line}").unwrap();
        for key in 0..100 {
            let secret = secret(shop * 100 + key);
            let line = format!("{{\"type\":\"key/1\",\"shop\":\"{id}\",\"secret\":\"{secret}\"}}");
            writeln!(text, "{line}").unwrap();
        }
    }
    text
}

#[test]
fn an_import_that_is_killed_is_finished_by_the_next() {
    let (site, _upstream) = site();
    let file = site.path().join("keys.jsonl").display().to_string();
    fs::write(&file, records(60)).unwrap();
    let gateway = site.start();
    let mut import = site.command(&["import", &file]);
    let mut child = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let keys =
        |gateway: &Gateway| gateway.api_ok("GET", "/info", &Value::Null)["keys"].as_u64().unwrap();
    until(|| Some(keys(&gateway)).filter(|keys| *keys > 0));
    gateway.kill();
    assert!(!child.wait().unwrap().success());
    let gateway = site.start();
    let stored = keys(&gateway);
    assert!(stored > 0 && stored % 1_000 == 0, "whole batches: {stored}");
    let done = site.cli_ok(&["import", &file, "--output", "json"]);
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!(
        done["keys"],
        json!({"created": 6_000 - stored, "replaced": 0, "unchanged": stored})
    );
    assert_eq!(keys(&gateway), 6_000);
    for n in [0, 999, 1_000, 3_456, 5_999] {
        let response = gateway.send(&get("/api/plugin/shops/me/x").key(&secret(n)));
        assert_eq!(response.status, 200, "{n}: {}", response.outcome());
    }
    let log = site.cli_ok(&["audit", "list"]);
    assert!(log.contains("data.imported"), "{log}");
}

#[test]
fn an_import_tells_every_fault_and_works_without_a_server() {
    let (site, _upstream) = site();
    let file = site.path().join("keys.jsonl").display().to_string();
    fs::write(&file, records(2) + "{}\n" + &records(1)).unwrap();
    let (code, error) = exit_of(&site, &["import", &file]);
    assert_eq!(code, 6, "{error}");
    assert!(error.contains("line 203: ") && error.contains("line 204: "), "{error}");
    assert!(!error.contains("sk_0"), "{error}");
    fs::write(&file, records(2)).unwrap();
    let dry = site.cli_ok(&["import", &file, "--dry-run"]);
    assert!(dry.contains("keys: 200 new"), "{dry}");
    assert!(site.cli_ok(&["import", &file]).contains("keys: 200 new"));
    let exported = site.cli_ok(&["export"]);
    assert_eq!(exported.lines().count(), 203);
    assert!(!exported.contains(&secret(7)));
    fs::write(&file, exported).unwrap();
    assert!(site.cli_ok(&["import", &file]).contains("200 here already"));
}
