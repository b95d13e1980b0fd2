//! Operators through the command line, with a server and without one; and the set-up link.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::support::gateway::Site;
use crate::support::secrets;

/// Hashes that cost next to nothing.
const CHEAP: &str = "[admin.passwords]\nmemory = \"64KiB\"\niterations = 1\n";

fn json_of(site: &Site, args: &[&str]) -> Value {
    let mut all = vec!["operator"];
    all.extend(args);
    all.extend(["--output", "json"]);
    let printed = site.cli_ok(&all);
    let value: Value = serde_json::from_str(&printed).unwrap_or(Value::Null);
    if let Some(password) = value["password"].as_str() {
        secrets::minted(password);
    }
    value
}

fn refused(site: &Site, args: &[&str], code: i32, saying: &str) {
    let mut all = vec!["operator"];
    all.extend(args);
    says(&site.cli(&all), code, saying);
}

fn says(output: &Output, code: i32, saying: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(saying), "{stderr}");
}

/// Runs a command with `input` on its standard input.
fn with_input(site: &Site, args: &[&str], input: &str) -> Output {
    let mut child = site
        .command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    secrets::saw(&output.stderr);
    secrets::saw(&output.stdout);
    output
}

/// All that can be done to operators from the command line.
fn manage(site: &Site) {
    assert_eq!(json_of(site, &["list"]), json!([]));
    let ada = json_of(site, &["create", "ada", "--role", "owner", "--generate"]);
    assert_eq!((&ada["name"], &ada["role"]), (&json!("ada"), &json!("owner")));
    assert_eq!(ada["password"].as_str().expect("a password").len(), 29);
    refused(site, &["create", "ADA", "--role", "viewer", "--generate"], 6, "`ada` exists");
    refused(site, &["create", "bob", "--role", "member", "--generate"], 6, "shops:");
    refused(site, &["create", "bob", "--role", "viewer"], 2, "--password-stdin");
    site.cli_ok(&["shop", "create", "acme", "--url", "https://acme.example"]);
    let create =
        ["operator", "create", "bob", "--role", "member", "--shop", "acme", "--password-stdin"];
    secrets::minted("a password from a pipe");
    let made = with_input(site, &create, "a password from a pipe\r\nnot this line\n");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    says(
        &with_input(site, &["operator", "reset-password", "bob", "--password-stdin"], ""),
        2,
        "no",
    );
    let reset = ["operator", "reset-password", "Bob", "--password-stdin"];
    says(&with_input(site, &reset, "short\n"), 6, "at least 12 characters");
    assert!(with_input(site, &reset, "another fine password\n").status.success());
    let listed = json_of(site, &["list"]);
    assert_eq!(listed.as_array().expect("a list").len(), 2, "{listed}");
    assert!(!listed.to_string().contains("argon2"), "{listed}");
    let bob = json_of(site, &["set-role", "bob", "operator"]);
    assert_eq!((&bob["role"], &bob["shops"]), (&json!("operator"), &json!([])));
    assert_eq!(json_of(site, &["disable", "bob"])["disabled"], true);
    assert_eq!(json_of(site, &["enable", "bob"])["disabled"], false);
    json_of(site, &["reset-totp", "bob"]);
    assert_eq!(json_of(site, &["sessions"]), json!([]));
    assert_eq!(json_of(site, &["sessions", "bob"]), json!([]));
    assert_eq!(json_of(site, &["sessions", "revoke", "--all-of", "bob"])["ended"], 0);
    refused(site, &["sessions", "revoke", "ses_0000000000000001"], 6, "no such session");
    refused(site, &["disable", "ada"], 6, "the last owner");
    refused(site, &["delete", "ada", "--yes"], 6, "the last owner");
    refused(site, &["delete", "bob"], 2, "--yes");
    json_of(site, &["delete", bob["id"].as_str().expect("an id"), "--yes"]);
    refused(site, &["enable", "bob"], 6, "operator list");
    assert_eq!(json_of(site, &["list"]).as_array().expect("a list").len(), 1);
    let scoped =
        ["token", "create", "--name", "t", "--role", "member", "--shop", "acme", "--scope"];
    let token = json_of(site, &[&scoped[..], &["keys:read"]].concat());
    secrets::minted(token["secret"].as_str().expect("a secret"));
    assert_eq!((&token["scopes"], &token["shops"]), (&json!(["keys:read"]), &json!(["acme"])));
    refused(site, &[&scoped[..], &["keys"]].concat(), 6, "scopes[0]");
}

#[test]
fn operators_are_managed_without_a_server() {
    manage(&Site::new(None, CHEAP));
}

#[test]
fn operators_are_managed_through_the_server() {
    let site = Site::new(None, CHEAP);
    let _gateway = site.start();
    manage(&site);
}

#[test]
fn the_set_up_link_is_printed_while_there_is_no_operator_and_logged_never() {
    let site = Site::new(None, CHEAP);
    let gateway = site.start();
    let first = gateway.set_up_link().expect("a link");
    assert!(first.starts_with(&format!("http://{}/setup#", gateway.admin)), "{first}");
    assert!(gateway.log_lines().iter().any(|line| line.contains("there is no owner yet")));
    assert!(gateway.stop().success());
    let public = "[admin]\npublic_url = \"https://latchkey.example\"\n";
    site.configure(None, &format!("{CHEAP}{public}"));
    let gateway = site.start();
    let second = gateway.set_up_link().expect("another link");
    assert!(second.starts_with("https://latchkey.example/setup#"), "{second}");
    assert_ne!(first.split_once('#').unwrap().1, second.split_once('#').unwrap().1);
    json_of(&site, &["create", "ada", "--role", "owner", "--generate"]);
    assert!(gateway.stop().success());
    let gateway = site.start();
    assert_eq!(gateway.set_up_link(), None);
}
