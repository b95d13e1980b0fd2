//! The command line: the same with a server and without one, for people and for scripts.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Site};
use crate::support::http::get;
use crate::support::secrets;
use crate::support::upstream::{Behaviour, Upstream};

fn json_of(site: &Site, args: &[&str]) -> Value {
    let mut all = args.to_vec();
    all.extend(["--output", "json"]);
    let printed = site.cli_ok(&all);
    let value: Value = serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{e}: {printed}"));
    for name in ["secret", "token"] {
        if let Some(secret) = value[name].as_str() {
            secrets::minted(secret);
        }
    }
    value
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn refused(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.starts_with("latchkey: error: ") || code == 2, "{stderr}");
    stderr
}

/// What an administrator does in the first hour, whether a server runs or not.
fn first_hour(site: &Site) -> (String, String) {
    let url = ["shop", "create", "acme", "--url", "https://acme.example"];
    assert_eq!(text(&json_of(site, &url), "id"), "acme");
    let key = json_of(site, &["key", "create", "acme", "--name", "production"]);
    let listed = json_of(site, &["key", "list", "acme"]);
    assert!(listed.to_string().contains(text(&key, "id")), "{listed}");
    let token = json_of(site, &["token", "issue", "acme", "--scope", "search"]);
    let shown = json_of(site, &["shop", "show", "acme"]);
    assert_eq!(text(&shown, "url"), "https://acme.example");
    json_of(site, &["shop", "update", "acme", "--name", "Acme"]);
    json_of(site, &["shop", "limits", "acme", "--set", "authenticated=1000/1m"]);
    let standing = json_of(site, &["shop", "standing", "acme"]);
    let of = |policy: &str| standing.as_array().unwrap().iter().find(|s| s["policy"] == policy);
    let own = of("authenticated").unwrap();
    assert_eq!((&own["left"], &own["own"]), (&1000.into(), &true.into()), "{standing}");
    let operator = ["operator", "token", "create", "--name", "ci", "--role", "viewer"];
    assert!(text(&json_of(site, &operator), "secret").starts_with("lka_"));
    let rotate = ["key", "rotate", "acme", text(&key, "id"), "--grace", "1h"];
    let rotated = json_of(site, &rotate);
    json_of(site, &["token", "rotate-signing-key"]);
    (text(&rotated, "secret").to_owned(), text(&token, "token").to_owned())
}

fn works(gateway: &Gateway, key: &str, token: &str) {
    assert_eq!(gateway.send(&get("/api/plugin/shops/acme/x").key(key)).status, 200);
    assert_eq!(gateway.send(&get("/api/widget/search").widget(token)).status, 200);
    let compare = gateway.send(&get("/api/widget/compare").widget(token));
    assert_eq!(compare.outcome(), "403 insufficient_scope");
}

#[test]
fn the_first_hour_with_a_server() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let gateway = site.start();
    let (key, token) = first_hour(&site);
    works(&gateway, &key, &token);
}

#[test]
fn the_first_hour_without_a_server() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let (key, token) = first_hour(&site);
    works(&site.start(), &key, &token);
}

#[test]
fn tables_show_the_secret_once_and_say_so() {
    let site = Site::new(None, "");
    let empty = site.cli_ok(&["shop", "list"]);
    assert!(empty.contains("latchkey shop create"), "an empty list says what to do: {empty}");
    site.cli_ok(&["shop", "create", "acme", "--url", "https://acme.example"]);
    let created = site.cli_ok(&["key", "create", "acme", "--name", "production"]);
    let secret = created.split_whitespace().find(|w| w.starts_with("sk_")).expect("a secret");
    let secret = &secret[..35];
    secrets::minted(secret);
    assert!(created.contains("once"), "{created}");
    let listed = site.cli_ok(&["key", "list", "acme"]);
    assert!(listed.contains("production") && !listed.contains(secret), "{listed}");
    for line in listed.lines().chain(created.lines()) {
        assert!(line.chars().count() <= 110, "too wide: {line}");
    }
}

#[test]
fn mistakes_say_what_was_wrong_and_have_their_exit_codes() {
    let site = Site::new(None, "");
    assert!(
        refused(&site.cli(&["shop", "create", "me", "--url", "https://x.example"]), 2)
            .contains("reserved")
    );
    let url = site.cli(&["shop", "create", "acme", "--url", "ftp://acme"]);
    assert!(refused(&url, 6).contains("url"), "the field is named");
    refused(&site.cli(&["shop", "show", "nobody"]), 6);
    refused(&site.cli(&["frobnicate"]), 2);
    refused(&site.cli(&["key", "create", "nobody", "--name", "x"]), 6);
    refused(&site.cli(&["shop", "delete", "acme"]), 2);
}

#[test]
fn explain_walks_the_stages_and_tells_the_operator_why() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let gateway = site.start();
    gateway.shop("demo").shop("other");
    let (_, key) = gateway.key("demo", &json!({}));
    let header = format!("X-Shop-API-Key: {key}");
    let path = "/api/plugin/shops/other/x";
    let told = json_of(&site, &["explain", "--path", path, "-H", &header]);
    assert_eq!(text(&told, "code"), "cross_tenant");
    let stages: Vec<(&str, &str)> = told["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .map(|s| (text(s, "stage"), text(s, "verdict")))
        .collect();
    assert_eq!(
        stages,
        [
            ("classify", "passed"),
            ("extract", "passed"),
            ("throttle", "passed"),
            ("authenticate", "passed"),
            ("authorize", "refused"),
            ("admit", "not_reached"),
        ]
    );
    assert!(!told.to_string().contains(&key), "the credential is not echoed");
    let shown = site.cli_ok(&["explain", "--path", path, "-H", &header]);
    assert!(shown.contains("cross_tenant") && !shown.contains(&key), "{shown}");
    // Explaining charges nothing.
    let own = "/api/plugin/shops/demo/x";
    for _ in 0..5 {
        json_of(&site, &["explain", "--path", own, "-H", &header]);
    }
    let answer = gateway.send(&get(own).key(&key));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("99"));
}

#[test]
fn completions_man_and_help_are_there() {
    let site = Site::new(None, "");
    for shell in ["bash", "zsh", "fish"] {
        assert!(site.cli_ok(&["completions", shell]).contains("latchkey"), "{shell}");
    }
    assert!(site.cli_ok(&["man"]).contains(".TH latchkey"));
    let pages = site.path().join("man");
    site.cli_ok(&["man", "--dir", pages.to_str().unwrap()]);
    assert!(std::fs::read_dir(&pages).unwrap().count() > 10);
    let help = site.cli_ok(&["--help"]);
    for word in ["serve", "demo", "explain", "Exit codes"] {
        assert!(help.contains(word), "no {word} in {help}");
    }
}

#[test]
fn config_check_and_print() {
    let site = Site::new(None, "[widget]\nlifetime = \"2h\"\n");
    assert!(site.cli_ok(&["config", "check"]).contains("ok"));
    let printed = site.cli_ok(&["config", "print"]);
    assert!(printed.contains("lifetime = \"2h\""), "{printed}");
    // What it prints is itself a configuration.
    std::fs::write(site.config(), &printed).unwrap();
    assert!(site.cli_ok(&["config", "check"]).contains("ok"));
}
