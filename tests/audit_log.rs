//! The audit log of the running binary: what it holds, and that tampering with it shows.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::gateway::Site;
use crate::support::idp::Key;
use crate::support::secrets;
use crate::support::until;
use crate::support::upstream::{Behaviour, Upstream};

/// What was done, in order.
fn actions(site: &Site) -> Vec<String> {
    let listed = site.cli_ok(&["audit", "list", "--limit", "1000", "--output", "json"]);
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let actions = listed.iter().rev().map(|entry| entry["action"].as_str().unwrap().to_owned());
    actions.collect()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_life_of_a_server_is_in_its_log_and_verified_with_it_and_without() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(Some(&upstream), "");
    let gateway = site.start();
    gateway.shop("demo");
    let (_, secret) = gateway.key("demo", &json!({}));
    site.configure(Some(&upstream), "[widget]\nlifetime = \"7m\"\n");
    gateway.signal("HUP");
    gateway.wait_for_log(|line| line["message"] == "the configuration was reloaded");
    site.configure(Some(&upstream), "[widget]\nlifetime = \"soon\"\n");
    gateway.signal("HUP");
    gateway.wait_for_log(|line| {
        line["message"].as_str().is_some_and(|text| text.contains("was not reloaded"))
    });
    site.configure(Some(&upstream), "");
    // Recorded after it is logged, so wait for what follows.
    let expected = [
        "signing_key.rotated",
        "process.started",
        "shop.created",
        "key.created",
        "configuration.reloaded",
        "configuration.refused",
    ];
    let recorded = |found: &[String]| found.iter().any(|a| a == "configuration.refused");
    let found = crate::support::until(|| Some(actions(&site)).filter(|found| recorded(found)));
    assert_eq!(found, expected);
    assert!(site.cli_ok(&["audit", "verify"]).starts_with("intact: 6 entries"));
    let head = site.cli_ok(&["audit", "head"]).trim().to_owned();

    gateway.stop();
    // The same over the store itself.
    assert_eq!(actions(&site).last().map(String::as_str), Some("process.stopped"));
    site.cli_ok(&["audit", "verify", "--expect", &head]);
    let table = site.cli_ok(&["audit", "list", "--shop", "demo"]);
    assert!(table.contains("shop.created") && table.contains("key.created"), "{table}");
    assert!(!table.contains("process.started") && !table.contains(&secret), "{table}");
}

#[test]
fn an_export_is_verified_and_tampering_with_it_is_exit_code_7() {
    let site = Site::new(None, "");
    for id in ["one", "two", "three"] {
        site.cli_ok(&["shop", "create", id, "--url", "https://shop.example"]);
    }
    let file = site.path().join("audit.jsonl");
    let name = file.display().to_string();
    site.cli_ok(&["audit", "export", "--file", &name]);
    let whole = std::fs::read_to_string(&file).unwrap();
    assert_eq!(whole, site.cli_ok(&["audit", "export"]));
    secrets::saw(whole.as_bytes());
    let verify = || site.cli(&["audit", "verify", "--file", &name]);
    assert_eq!(code(&verify()), 0, "{}", stderr(&verify()));

    std::fs::write(&file, whole.replace("\"two\"", "\"six\"")).unwrap();
    assert_eq!(code(&verify()), 7);
    assert!(stderr(&verify()).contains("entry 3 was altered"), "{}", stderr(&verify()));
    let lines: Vec<&str> = whole.lines().collect();
    std::fs::write(&file, lines[..lines.len() - 1].join("\n") + "\n").unwrap();
    assert_eq!(code(&verify()), 7);
    assert!(stderr(&verify()).contains("missing"), "{}", stderr(&verify()));
    std::fs::write(&file, "not an export\n").unwrap();
    assert_eq!(code(&verify()), 1);

    let mac = "0".repeat(64);
    let stranger = site.cli(&["audit", "verify", "--expect", &format!("2:{mac}")]);
    assert_eq!(code(&stranger), 7);
    let later =
        site.cli(&["audit", "verify", "--expect", &format!("99:{mac}"), "--output", "json"]);
    assert_eq!(code(&later), 7);
    let report: Value = serde_json::from_slice(&later.stdout).unwrap();
    assert_eq!(
        (&report["intact"], &report["faults"][0]["kind"]),
        (&json!(false), &json!("put_back"))
    );
    assert_eq!(code(&site.cli(&["audit", "verify", "--expect", "nonsense"])), 2);
    assert_eq!(code(&site.cli(&["audit", "list", "--action", "shop.exploded"])), 2);
}

#[test]
fn a_key_set_that_somebody_has_fetched_is_an_entry() {
    let site = Site::new(None, "");
    let file = site.path().join("keys.json");
    std::fs::write(&file, json!({"keys": [Key::ed25519("f").jwk()]}).to_string()).unwrap();
    site.configure(
        None,
        &format!(
            "[[issuers]]\nname = \"file\"\nissuer = \"https://f.example\"\n\
             audiences = [\"latchkey\"]\nalgorithms = [\"EdDSA\"]\njwks_file = {file:?}\n",
        ),
    );
    let _gateway = site.start();
    // Until who fetches key sets has begun its work, there is nobody to ask.
    until(|| site.cli(&["issuer", "refresh", "file"]).status.success().then_some(()));
    let listed = ["audit", "list", "--action", "issuer.refreshed", "--output", "json"];
    let listed: Value = serde_json::from_str(&site.cli_ok(&listed)).unwrap();
    let entry = &listed[0];
    assert_eq!((&entry["subject"]["id"], &entry["after"]), (&json!("file"), &json!({"keys": 1})));
    assert_eq!(entry["actor"]["label"], "socket");
}
