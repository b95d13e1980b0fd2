//! `latchkey doctor` on sites where things are broken on purpose: each is found, named, and told
//! what to do about; nothing is changed.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use std::sync::Arc;
use std::time::Duration;

use latchkey::admin::Node;
use latchkey::admin::operations::backups;
use latchkey::clock::{Clock as _, ManualClock, SystemClock};
use latchkey::config::{self, ConfigFile, Override, Sources};
use latchkey::metrics::Metrics;
use latchkey::secret::SystemEntropy;
use serde_json::{Value, json};

use crate::operators_oidc;
use crate::support::gateway::Site;
use crate::support::idp::{Key, Provider};
use crate::support::openid::OpenId;
use crate::support::tls::Authority;
use crate::support::upstream::{Behaviour, Upstream};

/// What the doctor says of `site`: its exit code and its lines.
fn examine(site: &Site, more: &[&str]) -> (i32, Vec<Value>) {
    let args = [&["doctor", "--output", "json"], more].concat();
    let output = site.cli(&args);
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
    let checks = report["checks"].as_array().unwrap().clone();
    for check in &checks {
        let is_ok = check["status"] == "ok";
        assert_eq!(check["advice"].is_null(), is_ok, "{check}");
        assert!(!check["detail"].as_str().unwrap().is_empty(), "{check}");
    }
    (output.status.code().unwrap(), checks)
}

/// The lines that are not `ok`: `error store: …`.
fn complaints(checks: &[Value]) -> Vec<String> {
    let text = |check: &Value, member: &str| check[member].as_str().unwrap().to_owned();
    let bad = checks.iter().filter(|check| check["status"] != "ok");
    bad.map(|c| format!("{} {}: {}", text(c, "status"), text(c, "check"), text(c, "detail")))
        .collect()
}

/// The only complaint is one that begins with `start` and holds `words`; errors end with 7.
#[track_caller]
fn only(site: &Site, start: &str, words: &[&str]) {
    let (code, checks) = examine(site, &[]);
    let complaints = complaints(&checks);
    let [complaint] = &*complaints else { panic!("{complaints:#?}") };
    assert!(complaint.starts_with(start), "{complaint}");
    for word in words {
        assert!(complaint.contains(word), "{complaint}");
    }
    assert_eq!(code, if start.starts_with("error") { 7 } else { 0 }, "{complaint}");
}

#[track_caller]
fn healthy(site: &Site) {
    let (code, checks) = examine(site, &["--strict"]);
    assert_eq!(complaints(&checks), [""; 0]);
    assert_eq!(code, 0);
}

/// A site that was served from once, and its upstream.
fn used(extra: &str) -> (Site, Upstream) {
    let upstream = Upstream::start(Behaviour::Echo);
    // What a machine that runs tests may lack is not what is tested.
    let site = Site::new(Some(&upstream), &format!("server.connections_max = 10\n{extra}"));
    assert!(site.start().stop().success());
    (site, upstream)
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Every file below `folder`, with what it holds.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        } else if entry.file_type().unwrap().is_file() {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn all_is_well_before_the_first_start_between_and_while_serving() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "server.connections_max = 10\n");
    let untouched = tree(site.path());
    healthy(&site);
    assert_eq!(tree(site.path()), untouched, "nothing is made");

    let gateway = site.start();
    gateway.shop("demo");
    healthy(&site);
    assert!(gateway.stop().success());

    let before = tree(site.path());
    healthy(&site);
    let (_, checks) = examine(&site, &[]);
    let store = checks.iter().find(|check| check["check"] == "store").unwrap();
    assert!(store["detail"].as_str().unwrap().contains("1 shops"), "{store}");
    assert!(tree(site.path()) == before, "nothing is changed");
    assert_eq!(upstream.count(), 0, "no request is sent");

    let printed = site.cli_ok(&["doctor"]);
    assert!(printed.lines().next().unwrap().starts_with("ok       configuration"), "{printed}");
    assert!(printed.contains(" ok, 0 warnings, 0 errors\n"), "{printed}");
}

#[test]
fn a_wrong_configuration_is_told_line_by_line() {
    let site = Site::new(None, "[server]\nworkres = 3\n[limiter]\ncells = 0\n");
    let (code, checks) = examine(&site, &[]);
    assert_eq!((code, checks.len()), (7, 2), "{checks:?}");
    assert!(complaints(&checks)[0].contains("workres"), "{checks:?}");
}

#[test]
fn files_that_are_open_to_others() {
    let (site, _upstream) = used("");
    set_mode(site.config(), 0o666);
    only(&site, "error file: ", &["every user may write it (0666)"]);
    set_mode(site.config(), 0o644);
    set_mode(site.master_key(), 0o644);
    only(&site, "error master_key: ", &["chmod 600"]);
    set_mode(site.master_key(), 0o600);
    set_mode(site.database(), 0o644);
    only(&site, "error store: ", &["mode 0644"]);
    set_mode(site.database(), 0o600);
    set_mode(site.path(), 0o777);
    only(&site, "error file: ", &["every user may write it (0777)"]);
    set_mode(site.path(), 0o700);
    let gateway = site.start();
    set_mode(site.socket(), 0o666);
    only(&site, "error file: ", &["open to every user (0666)"]);
    assert!(gateway.stop().success());
    healthy(&site);
}

#[test]
fn a_master_key_that_is_another_or_gone_and_a_database_that_is_damaged() {
    let (site, _upstream) = used("");
    let (key, database) =
        (fs::read(site.master_key()).unwrap(), fs::read(site.database()).unwrap());
    fs::write(site.master_key(), "A".repeat(43)).unwrap();
    only(&site, "error store: ", &["the master key does not belong to the database"]);
    fs::remove_file(site.master_key()).unwrap();
    only(&site, "error master_key: ", &["there is no master key file"]);
    fs::write(site.master_key(), &key).unwrap();
    set_mode(site.master_key(), 0o600);

    // Past redb's first page, which holds two copies of what it needs.
    let mut damaged = database.clone();
    for byte in &mut damaged[4096..] {
        *byte ^= 0x55;
    }
    fs::write(site.database(), &damaged).unwrap();
    only(&site, "error store: ", &["latchkey.redb"]);
    assert!(fs::read(site.database()).unwrap() == damaged, "it is not repaired");
    fs::write(site.database(), b"").unwrap();
    only(&site, "error store: ", &["it is empty"]);
    fs::write(site.database(), &database).unwrap();
    healthy(&site);
}

/// A crash leaves a file that redb repairs when it opens it: that is no damage, and the doctor
/// leaves it to the server.
#[test]
fn a_database_after_a_crash_is_whole() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "server.connections_max = 10\n");
    let gateway = site.start();
    gateway.shop("demo");
    gateway.kill();
    let before = fs::read(site.database()).unwrap();
    healthy(&site);
    assert!(fs::read(site.database()).unwrap() == before);
}

#[test]
fn addresses_that_are_taken_and_upstreams_that_are_not_there() {
    let (site, upstream) = used("");
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = squatter.local_addr().unwrap();
    let output = site
        .command(&["doctor", "--output", "json"])
        .env("LATCHKEY_SERVER__LISTEN", taken.to_string())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let complaints = complaints(report["checks"].as_array().unwrap());
    assert_eq!(output.status.code(), Some(7));
    assert!(complaints[0].starts_with("error listener: server.listen: "), "{complaints:?}");
    drop(upstream);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = fs::read_to_string(site.config()).unwrap();
    let text = text.replace("[upstreams.default]", "[upstreams.other]\nurl = 'http://GONE'\n$0");
    let text = text.replace("$0", "[upstreams.default]").replace("GONE", &gone.to_string());
    fs::write(site.config(), text).unwrap();
    only(&site, "error upstream: ", &[&gone.to_string()]);
}

/// What a running server was not told: it listens where it always did.
#[test]
fn a_server_that_listens_elsewhere() {
    let (site, _upstream) = used("");
    let gateway = site.start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = site
        .command(&["doctor", "--output", "json"])
        .env("LATCHKEY_ADMIN__LISTEN", free.to_string())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let complaints = complaints(report["checks"].as_array().unwrap());
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("a server runs, but not on"), "{complaints:?}");
    drop(gateway);
}

#[test]
fn certificates_that_expire_have_expired_or_have_the_wrong_key() {
    let authority = Authority::new();
    let valid = |from: i64, to: i64| {
        authority.issue_with(&["a.example"], |params| {
            let now = time::OffsetDateTime::from_unix_timestamp(
                i64::try_from(crate::support::idp::unix_now()).unwrap(),
            )
            .unwrap();
            params.not_before = now + time::Duration::days(from);
            params.not_after = now + time::Duration::days(to);
        })
    };
    authority.install("a", &valid(-1, 90));
    let (site, _upstream) = used(&authority.section(&["a"], ""));
    healthy(&site);
    authority.install("a", &valid(-1, 3));
    only(&site, "warning certificate: ", &["expires at", "in 2 days"]);
    assert_eq!(examine(&site, &["--strict"]).0, 7, "--strict");
    authority.install("a", &valid(-9, -1));
    only(&site, "error certificate: ", &["expired at"]);
    authority.install("a", &valid(1, 9));
    only(&site, "error certificate: ", &["is not valid before"]);
    authority.install("a", &valid(-1, 90));
    let other = authority.issue(&["b.example"]);
    authority.install("b", &other);
    fs::copy(authority.path("b.key"), authority.path("a.key")).unwrap();
    let (code, checks) = examine(&site, &[]);
    assert_eq!(code, 7);
    assert!(complaints(&checks)[0].starts_with("error certificate: "), "{checks:?}");
}

#[test]
fn providers_that_are_down_and_ones_the_server_does_not_know() {
    let key = Key::ed25519("k");
    let provider = Provider::start(&[&key]);
    let issuer = |url: &str| {
        format!(
            "[[issuers]]\nname = 'id'\nissuer = 'https://id.example'\naudiences = ['api']\n\
             algorithms = ['EdDSA']\njwks_url = '{url}'\n"
        )
    };
    let (site, upstream) = used("");
    let url = format!("http://{}/jwks", provider.address);
    let configure = |url: &str| {
        site.configure(Some(&upstream), &format!("server.connections_max = 10\n{}", issuer(url)));
    };
    let gateway = site.start();
    configure(&url);
    only(&site, "warning issuer: ", &["the server does not know it"]);
    drop(gateway);
    healthy(&site);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    configure(&format!("http://{gone}/jwks"));
    only(&site, "error issuer: ", &["gives no usable keys"]);
}

#[test]
fn the_provider_that_operators_sign_in_by() {
    let upstream = Upstream::start(Behaviour::Echo);
    let provider = OpenId::start();
    let site = Site::new(Some(&upstream), "");
    let configure = |issuer: &str| {
        // A plain one is warned of.
        let text = operators_oidc::configuration(&site, issuer, "");
        let text = text.replace("public_url = \"http:", "public_url = \"https:");
        site.configure(Some(&upstream), &format!("server.connections_max = 10\n{text}"));
    };
    configure(&provider.issuer());
    healthy(&site);
    provider.manners().document = Box::new(|d| d["issuer"] = json!("http://127.0.0.1:1"));
    only(&site, "error operators: ", &["cannot be used", "its `issuer` is not admin.oidc.issuer"]);
    // Nobody listens there: passwords let operators in meanwhile.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    configure(&format!("http://{gone}"));
    only(&site, "warning operators: ", &["cannot be reached", &gone.to_string()]);
}

/// Makes a scheduled backup of `site` as a server did so long ago.
fn back_up(site: &Site, ago: Duration) {
    let path = site.database().display().to_string();
    let at = |flag: &str, key: &str, value| Override {
        flag: flag.to_owned(),
        key: key.to_owned(),
        value,
    };
    let sources = Sources {
        file: ConfigFile::Required(site.config()),
        environment: BTreeMap::new(),
        overrides: vec![at("--store", "store.path", path)],
    };
    let config = config::load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
    let clock = Arc::new(ManualClock::at(SystemClock::new().now().unix - ago));
    let metrics = Arc::new(Metrics::new("test").unwrap());
    let node = Node::open(config, clock, Arc::new(SystemEntropy::new()), metrics).unwrap();
    assert!(backups::maintain(&node).unwrap());
}

#[test]
fn scheduled_backups_that_are_missing_late_and_recent() {
    let (site, upstream) = used("");
    // Without a schedule there is nothing to be late.
    let (_, checks) = examine(&site, &[]);
    assert!(checks.iter().all(|check| check["check"] != "backup"), "{checks:?}");
    let text = "server.connections_max = 10\n[backup]\ninterval = \"1d\"\n";
    site.configure(Some(&upstream), text);
    healthy(&site);
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    back_up(&site, hours(72));
    only(&site, "warning backup: ", &["the newest is of", "the next was due at"]);
    // Two intervals: one may be under way.
    back_up(&site, hours(47));
    healthy(&site);
    let (_, checks) = examine(&site, &[]);
    let line = checks.iter().find(|check| check["check"] == "backup").unwrap();
    assert!(line["detail"].as_str().unwrap().contains("the newest is of"), "{line}");
}
