//! The manual of the running binary: its pages are there, and say what the binary does.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::gateway::Site;
use crate::support::http::get;
use crate::support::world::world;

#[test]
fn every_metric_that_is_served_is_in_the_manual() {
    let w = world(
        "[[issuers]]\nname = \"id\"\nissuer = \"http://127.0.0.1:9\"\naudiences = [\"a\"]\n\
         jwks_url = \"http://127.0.0.1:9/keys\"\n",
    );
    w.gateway.send(&get("/nowhere"));
    let page = Site::new(None, "").cli_ok(&["man", "metrics", "--text"]);
    let described: BTreeSet<&str> = page.lines().map(str::trim).collect();
    let metrics = w.gateway.metrics();
    let served: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(served.len() > 30, "{metrics}");
    for name in served {
        assert!(described.contains(name), "latchkey-metrics(7) does not know {name}");
    }
}

#[test]
fn the_whole_manual_is_written_at_once() {
    let site = Site::new(None, "");
    let folder = site.path().join("man");
    site.cli_ok(&["man", "--dir", folder.to_str().unwrap()]);
    let pages: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for page in [
        "latchkey.1",
        "latchkey-key-rotate.1",
        "latchkey.toml.5",
        "latchkey-metrics.7",
        "latchkey-proxies.7",
        "latchkey-refusals.7",
        "latchkey-security.7",
        "latchkey-upgrade.7",
    ] {
        assert!(pages.contains(page), "{page} is not in {pages:?}");
        let roff = fs::read_to_string(folder.join(page)).unwrap();
        assert!(roff.contains("\n.SH NAME\n") || roff.contains("\n.SH \"NAME\"\n"), "{page}");
        assert!(!roff.contains("\n@"), "{page} was not filled in");
    }
}

#[test]
fn mistakes_lead_to_the_reference_and_the_reference_to_the_key() {
    let site = Site::new(None, "[cors]\nmax_age = \"never\"\n");
    let checked = site.cli(&["config", "check"]);
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(
        said.contains("cors.max_age: ") && said.contains("latchkey config reference"),
        "{said}"
    );
    // Needs no configuration that is right.
    let text = site.cli_ok(&["config", "reference", "log.level"]);
    assert!(text.contains("Default: \"info\"."), "{text}");
    let keys = site.cli_ok(&["config", "reference", "log", "--output", "json"]);
    let keys: Value = serde_json::from_str(&keys).unwrap();
    assert!(keys.as_array().unwrap().iter().any(|key| key["variable"] == "LATCHKEY_LOG__LEVEL"));
}
