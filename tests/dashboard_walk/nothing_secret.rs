//! Every secret that a run mints through the dashboard, looked for in everything that the run
//! leaves behind or shows: each page but the one that shows it, what is live, the log, the
//! metrics, the audit log, the database, backups with and without a passphrase.

use std::fs;
use std::io::{Read as _, Write as _};

use serde_json::Value;

use super::CHEAP;
use crate::support::dashboard::{PASSWORD, Person, between, code_now, encoded, operator, post};
use crate::support::gateway::{Gateway, Site};
use crate::support::http::{Response, connect, get};
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::{secrets, until};

const PASSPHRASE: &str = "a passphrase of several words";

/// What was minted, by kind, and what was seen, by place.
#[derive(Default)]
struct Search {
    secrets: Vec<(&'static str, String)>,
    places: Vec<(String, Vec<u8>)>,
}

impl Search {
    fn minted(&mut self, kind: &'static str, secret: impl Into<String>) -> String {
        let secret = secret.into();
        assert!(secret.len() >= 12, "{kind} is too short to look for: {secret}");
        self.secrets.push((kind, secret.clone()));
        secret
    }

    fn saw(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.places.push((place.into(), bytes.into()));
    }

    /// Every secret that stands in a place.
    fn found(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (kind, secret) in &self.secrets {
            let here = self.places.iter().filter(|(_, bytes)| secrets::contains(bytes, secret));
            found.extend(here.map(|(place, _)| format!("{kind} {secret} in {place}")));
        }
        found
    }
}

/// What a page shows once.
fn shown(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    between(&answer.text(), "select-all\">", "<")
}

fn once(page: &Response) -> String {
    between(&page.text(), "name=\"once\" value=\"", "\"")
}

/// Keys, tokens, operators, a second factor: all that a person is shown once.
fn mint(search: &mut Search, gateway: &Gateway, ada: &Person) -> String {
    let form = once(&ada.get("/shops/demo"));
    let made = ada.post("/shops/demo/keys", &[("name", "Server"), ("once", &form)]);
    let key = search.minted("API key", shown(&made));
    let again = ada.post("/shops/demo/keys", &[("name", "Server"), ("once", &form)]);
    search.saw("the form that made a key, sent again", again.body);
    let page = ada.get("/shops/demo").text();
    let href = format!("/shops/demo/keys/{}", between(&page, "/shops/demo/keys/", "\""));
    let rotated = ada.post(&format!("{href}/rotate"), &[("grace", "1h")]);
    search.minted("rotated API key", shown(&rotated));
    let issued = ada.post("/shops/demo/tokens", &[]);
    let token = search.minted("widget token", shown(&issued));
    let made = ada.post("/tokens", &[("name", "ci"), ("role", "owner")]);
    let admin = search.minted("admin token", shown(&made));
    let made = ada.post("/operators", &[("name", "olga"), ("role", "viewer")]);
    search.minted("generated password", shown(&made));
    let fields = [("current", PASSWORD), ("password", "short"), ("repeated", "short")];
    search.saw("a password that was not taken", ada.post("/account/password", &fields).body);

    let wrong = ada.post("/account/second-factor", &[("own_password", "not this one")]);
    assert_eq!(wrong.status, 422);
    search.saw("a password that was wrong", wrong.body);
    let setup = ada.post("/account/second-factor", &[("own_password", PASSWORD)]);
    let (setup, at) = (setup.clone(), setup.header("location").map(str::to_owned));
    let setup = if setup.status == 303 { ada.get(&at.expect("a page")) } else { setup };
    let secret = shown(&setup);
    let code = code_now(&secret);
    let codes = ada.post("/account/second-factor/confirm", &[("code", &code)]);
    search.minted("second factor", secret.replace(' ', ""));
    search.minted("second factor in groups", secret);
    let list = between(&codes.text(), "<ul class=\"codes\">", "</ul>");
    let found: Vec<&str> =
        list.split("<li>").filter_map(|item| item.split_once('<')).map(|p| p.0).collect();
    assert_eq!(found.len(), 10, "{list}");
    for code in found {
        search.minted("recovery code", code);
    }

    // Used where it works, and where it is of no use.
    for secret in [&key, &token, &admin] {
        for path in ["/api/plugin/shops/me", "/api/widget/x", "/nowhere"] {
            for used in [get(path).key(secret), get(path).widget(secret), get(path).bearer(secret)]
            {
                gateway.send(&used);
            }
            gateway
                .send(&get(&format!("{path}?key={secret}")).header("Origin", "https://x.example"));
        }
        let pasted = format!("curl http://x/api/plugin/shops/me -H 'X-Shop-API-Key: {secret}'");
        search.saw("the explorer", ada.post("/explore", &[("paste", &pasted)]).body);
        let described =
            [("method", "GET"), ("path", "/"), ("kind", "bearer"), ("credential", secret)];
        search.saw("the explorer's form", ada.post("/explore", &described).body);
        search.saw("an import that failed", ada.post("/import", &[("lines", secret)]).body);
    }
    key
}

/// The link that is printed, used up: the cookie of the owner's first session.
fn set_up(search: &mut Search, gateway: &Gateway) {
    let link = gateway.set_up_link().expect("a link");
    let token = search.minted("set-up token", link.split_once('#').expect("a fragment").1);
    let form = get("/setup").send(gateway.admin);
    let csrf = between(&form.text(), "name=\"csrf\" value=\"", "\"");
    let cookie = format!("latchkey-form={csrf}");
    for password in ["short", PASSWORD] {
        let fields = [
            ("csrf", csrf.as_str()),
            ("token", &token),
            ("name", "ada"),
            ("password", password),
            ("repeated", password),
        ];
        let sent = post("/setup", &encoded(&fields)).header("Cookie", &cookie);
        search.saw("the set-up", sent.send(gateway.admin).body);
    }
}

const PAGES: [&str; 17] = [
    "/",
    "/shops",
    "/refusals",
    "/explore",
    "/policies",
    "/issuers",
    "/operators",
    "/tokens",
    "/account",
    "/backups",
    "/api",
    "/about",
    "/live/overview",
    "/audit",
    "/audit.jsonl",
    "/export.jsonl",
    "/sign-in",
];

#[test]
fn nothing_that_is_shown_once_is_anywhere_else() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let backups = site.path().join("backups");
    let text =
        format!("{CHEAP}[backup]\ndirectory = {backups:?}\n[usage]\nflush_interval = \"1s\"\n");
    site.configure(Some(&upstream), &text);
    let gateway = site.start();
    let mut search = Search::default();
    search.minted("password", PASSWORD);
    search.minted("passphrase", PASSPHRASE);
    set_up(&mut search, &gateway);
    let ada = Person::sign_in(&gateway, "ada");
    search.minted("session", ada.session());
    gateway.shop("demo");
    mint(&mut search, &gateway, &ada);
    operator(&gateway, "mona", "member", &["demo"]);
    let mona = Person::sign_in(&gateway, "mona");
    search.minted("session", mona.session());

    until(|| ada.get("/shops/demo/traffic").text().contains("Allowed").then_some(()));
    for sealed in [false, true] {
        let fields: &[_] = if sealed { &[("passphrase", PASSPHRASE)] } else { &[] };
        let made = ada.post("/backups", fields);
        assert_eq!(made.status, 303, "{}", made.text());
    }
    let shop = ["", "/tokens", "/limits", "/traffic", "/traffic.csv", "/settings"];
    let shop: Vec<String> = shop.iter().map(|part| format!("/shops/demo{part}")).collect();
    let pages = PAGES.into_iter().chain(shop.iter().map(String::as_str));
    let listed = ada.get("/shops/demo").text() + &ada.get("/operators").text();
    let lead_to = listed
        .split('"')
        .filter(|l| l.starts_with("/shops/demo/keys/") || l.starts_with("/operators/"));
    for path in pages.chain(lead_to) {
        search.saw(format!("{path} for its owner"), ada.get(path).body);
        search.saw(format!("{path} for a member"), mona.get(path).body);
    }
    let api = [
        "/shops",
        "/shops/demo/keys",
        "/shops/demo/widget-tokens",
        "/operators",
        "/admin-tokens",
        "/audit",
        "/sessions",
    ];
    for path in api {
        search.saw(format!("API {path}"), gateway.api("GET", path, &Value::Null).body);
    }
    search.saw("the live events", events(&gateway, &ada));
    search.saw("/metrics", gateway.metrics());
    search.saw("the audit log", site.cli_ok(&["audit", "export"]));
    search.saw("the export", site.cli_ok(&["export"]));
    let log = gateway.log_lines().join("\n");
    assert!(log.len() > 5000, "{log}");
    search.saw("the log", log);
    assert!(gateway.stop().success());
    search.saw("the database", fs::read(site.database()).expect("a database"));
    let files: Vec<_> =
        fs::read_dir(&backups).expect("backups").flatten().map(|e| e.path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        search.saw(format!("{}", file.display()), fs::read(&file).expect("a backup"));
    }
    let master = fs::read_to_string(site.master_key()).expect("a key");
    search.minted("master key", master.trim());
    assert_eq!(search.found(), [""; 0]);
    assert!(search.places.len() > 60 && search.secrets.len() > 20);
}

/// What streams to an open page, from the oldest event that is kept to one that comes last.
fn events(gateway: &Gateway, ada: &Person) -> Vec<u8> {
    let mut stream = connect(gateway.admin);
    let session = ada.session();
    let (host, last) = (gateway.admin, "/the-last-one");
    let head = format!(
        "GET /live/events?after=0 HTTP/1.1\r\nHost: {host}\r\nCookie: latchkey={session}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("a request is sent");
    gateway.send(&get(last));
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while !secrets::contains(&bytes, last) {
        let read = stream.read(&mut buffer).expect("events");
        assert!(read > 0, "{}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..read]);
    }
    assert!(secrets::contains(&bytes, "missing_credential") || bytes.len() > 4000);
    bytes
}
