//! The pages name nothing that is not there: pages, commands, keys, metrics, codes.

use std::collections::BTreeSet;

use super::*;
use crate::config::reference;
use crate::decision::denial::Code;

fn stems() -> BTreeSet<String> {
    sheets().unwrap().into_iter().map(|sheet| sheet.file).collect()
}

fn sources() -> Vec<String> {
    let mut sources = WRITTEN.map(|source| fill::fill(source).unwrap()).to_vec();
    sources.push(command::PROGRAM.to_owned());
    sources
}

/// What stands between backticks, and in lines of code.
fn typed(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in source.lines() {
        match line.strip_prefix("    ") {
            Some(code) => found.push(code.to_owned()),
            None => found.extend(line.split('`').skip(1).step_by(2).map(ToOwned::to_owned)),
        }
    }
    found
}

#[test]
fn pages_refer_to_pages_that_are_there() {
    let files = stems();
    assert!(files.contains("latchkey.toml.5") && files.contains("latchkey-refusals.7"));
    let mut seen = 0;
    for source in sources() {
        for word in source.split([' ', '\n']).filter(|word| word.starts_with("latchkey")) {
            let Some((name, rest)) = word.split_once('(') else { continue };
            let file = format!("{name}.{}", rest.chars().next().unwrap());
            assert!(files.contains(&file), "{word}: there is no {file}");
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn code_fits_a_terminal() {
    for source in sources() {
        for line in source.lines().filter(|line| line.starts_with("    ")) {
            assert!(line.chars().count() <= 4 + 69, "{line}");
        }
    }
}

#[test]
fn commands_that_are_named_exist() {
    let mut seen = 0;
    for source in sources() {
        for typed in typed(&source) {
            let Some(words) = typed.strip_prefix("latchkey ") else { continue };
            let mut command = Cli::command();
            for word in words.split_whitespace() {
                let Some(below) = command.find_subcommand(word) else {
                    let known = command.get_subcommands().next().is_none();
                    assert!(known || word.starts_with('-'), "`{typed}`: there is no {word}");
                    break;
                };
                command = below.clone();
            }
            let flags = words.split_whitespace().filter(|word| word.starts_with("--"));
            for flag in flags.map(|flag| flag.trim_start_matches("--")) {
                let global = ["config", "output", "socket", "store", "version"].contains(&flag);
                let is = |arg: &clap::Arg| arg.get_long() == Some(flag);
                assert!(global || command.get_arguments().any(is), "`{typed}`: no --{flag}");
            }
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn keys_are_found_however_they_are_written() {
    for (asked, found) in [
        ("issuers.ca_file", Some("issuers[].ca_file")),
        ("issuers[].ca_file", Some("issuers[].ca_file")),
        ("issuers[3].ca_f", Some("issuers[].ca_file")),
        ("[[issuers]]", Some("issuers[].name")),
        ("upstreams.search.ca_file", Some("upstreams.NAME.ca_file")),
        ("upstreams.NAME.ca_file", Some("upstreams.NAME.ca_file")),
        ("upstreams.a.probe", Some("upstreams.NAME.probe.path")),
        ("[admin.oidc]", Some("admin.oidc.issuer")),
        ("admin.oidc.roles[0].group", Some("admin.oidc.roles[].group")),
        ("adm", Some("admin.listen")),
        ("adm.listen", None),
        ("issuers.name.more", None),
        ("issuers.nothing", None),
    ] {
        let keys = super::fill::configuration_json(asked);
        let first = keys.as_array().and_then(|keys| keys.first());
        let first = first.and_then(|key| key["key"].as_str());
        assert_eq!(first, found, "{asked}");
    }
}

#[test]
fn keys_that_are_named_exist() {
    let tables = reference();
    let keys = tables.iter().flat_map(|table| &table.keys);
    // `issuers.leeway` is shorter to read than `issuers[].leeway`.
    let paths: BTreeSet<String> = keys.map(|key| key.path.replace("[]", "")).collect();
    let headings: Vec<&str> =
        tables.iter().map(|table| table.heading.trim_matches(['[', ']'])).collect();
    let top: BTreeSet<&str> = headings.iter().filter_map(|h| h.split('.').next()).collect();
    let mut seen = 0;
    for source in sources() {
        for typed in typed(&source) {
            let name = typed.split(" = ").next().unwrap_or_default();
            let plain = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
            let table = name.split('.').next().unwrap_or_default();
            if !name.contains('.') || !name.chars().all(plain) || !top.contains(table) {
                continue;
            }
            assert!(paths.contains(name), "`{typed}` is no key");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn metrics_that_are_named_exist() {
    let known = fill::fill("@metrics@").unwrap();
    let mut seen = 0;
    for typed in sources().iter().flat_map(|source| typed(source)) {
        if typed.starts_with("latchkey_") {
            let is = |line: &str| line == format!("`{typed}`");
            assert!(known.lines().any(is), "there is no metric {typed}");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn every_code_is_explained_and_every_metric_has_a_type() {
    let refusals = find("refusals").unwrap().text;
    for code in Code::ALL {
        let heading = format!("\n  {} {}\n", code.status(), code.as_str());
        assert!(refusals.contains(&heading), "{heading}");
    }
    let metrics = find("metrics").unwrap().text;
    assert!(metrics.contains("latchkey_decisions_total\n        Counter. "), "{metrics}");
    assert!(metrics.contains("Label policy: a name of the configuration."), "{metrics}");
    assert!(!metrics.contains("        . "), "{metrics}");
}

#[test]
fn the_reference_has_every_key_with_its_facts() {
    let text = configuration("server.listen").unwrap();
    assert!(text.contains("[server]\n"), "{text}");
    assert!(text.contains("Text. Default: \"0.0.0.0:8080\". Needs a restart."), "{text}");
    assert!(configuration("nothing").is_err());
    let all = configuration_json("");
    let all = all.as_array().unwrap();
    assert!(all.len() > 150, "{}", all.len());
    let timeout = all.iter().find(|key| key["key"] == "server.head_timeout").unwrap();
    assert_eq!(timeout["default"], "\"10s\"");
    assert_eq!(timeout["type"], "duration, \"1ms\" to \"1h\"");
    assert_eq!(timeout["variable"], "LATCHKEY_SERVER__HEAD_TIMEOUT");
    assert_eq!(timeout["needs_restart"], false);
}
