//! The dashboards that are shipped: whole, about metrics that exist, and each of their queries
//! answered by a Prometheus that scrapes latchkey under load.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::names::{existing, named};
use super::scene::{JOB, Scene};
use super::{read, shipped};
use crate::support::until;

const DASHBOARDS: [&str; 4] = ["jwks", "limits", "overview", "store"];

/// The dashboards: where each is, its text, and what it says.
pub(super) fn all() -> Vec<(PathBuf, String, Value)> {
    let folder = shipped("packaging/grafana");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let stems: Vec<&str> = files.iter().map(|f| f.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(stems, DASHBOARDS);
    let parsed = |path: PathBuf| {
        let text = read(&path);
        let value = serde_json::from_str(&text).unwrap();
        (path, text, value)
    };
    files.into_iter().map(parsed).collect()
}

/// The panels of a dashboard that show something, without the rows they are in.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key]
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| panic!("no {key} in {}", serde_json::to_string_pretty(value).unwrap()))
}

#[test]
fn dashboards_are_whole() {
    let mut uids = BTreeSet::new();
    for (path, raw, board) in all() {
        let place = path.display();
        assert!(uids.insert(text(&board, "uid").to_owned()), "{place}: a uid twice");
        assert!(text(&board, "title").starts_with("latchkey: "), "{place}");
        text(&board, "description");
        assert!(board["schemaVersion"].as_u64().unwrap() >= 39, "{place}");
        assert!(board.get("id").is_none(), "{place}: an id is a database's");
        // As `jq` writes it: a change is seen line by line.
        let pretty = serde_json::to_string_pretty(&board).unwrap();
        assert_eq!(raw.lines().count(), pretty.lines().count(), "{place}: not laid out");
        assert!(raw.ends_with("}\n"), "{place}");
        let variables: Vec<&str> = board["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variable| text(variable, "name"))
            .collect();
        assert!(variables.starts_with(&["datasource", "job", "instance"]), "{place}");
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            let id = panel["id"].as_u64().unwrap();
            assert!(ids.insert(id), "{place}: panel {id} twice");
            text(panel, "title");
        }
        for panel in panels(&board) {
            let title = text(panel, "title");
            text(panel, "description");
            if panel["type"] == "text" {
                text(&panel["options"], "content");
                continue;
            }
            text(&panel["fieldConfig"]["defaults"], "unit");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{place}: {title}");
            for source in targets.iter().chain([panel]) {
                assert_eq!(source["datasource"]["uid"], "${datasource}", "{place}: {title}");
            }
            let references: BTreeSet<&str> =
                targets.iter().map(|target| text(target, "refId")).collect();
            assert_eq!(references.len(), targets.len(), "{place}: {title}");
            for expr in targets.iter().map(|target| text(target, "expr")) {
                // A number of seconds would be wrong for any other interval of scraping.
                assert!(!expr.contains("rate(") || !expr.contains("[1m]"), "{place}: {title}");
                let variables_used = expr.split('$').skip(1).map(|rest| {
                    rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap()
                });
                for used in variables_used.filter(|used| !used.starts_with("__")) {
                    assert!(variables.contains(&used), "{place}: {title}: ${used}");
                }
            }
        }
        overlaps(&board, &place.to_string());
    }
}

/// No panel lies on another, or beyond the 24 columns there are.
fn overlaps(board: &Value, place: &str) {
    let mut taken = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        let grid = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(grid("x") + grid("w") <= 24, "{place}: {}", panel["title"]);
        for x in grid("x")..grid("x") + grid("w") {
            for y in grid("y")..grid("y") + grid("h") {
                assert!(taken.insert((x, y)), "{place}: {} lies on another", panel["title"]);
            }
        }
    }
}

#[test]
fn dashboards_speak_of_what_exists() {
    let mut known = existing();
    let rules = read(&shipped("packaging/prometheus/latchkey.rules.yml"));
    let recorded = rules.lines().filter_map(|line| line.trim().strip_prefix("- record: "));
    known.extend(recorded.map(str::to_owned));
    let mut seen = BTreeSet::new();
    for (path, _, board) in all() {
        let targets = panels(&board).filter_map(|panel| panel["targets"].as_array()).flatten();
        let annotations = board["annotations"]["list"].as_array().unwrap();
        let annotations = annotations.iter().filter_map(|annotation| annotation["expr"].as_str());
        let variables = board["templating"]["list"].as_array().unwrap();
        let variables = variables.iter().filter_map(|variable| variable["definition"].as_str());
        let exprs = targets.map(|target| text(target, "expr")).chain(annotations).chain(variables);
        for expr in exprs {
            let named = named(expr);
            assert!(!named.is_empty(), "{}: {expr}", path.display());
            let missing: Vec<_> = named.difference(&known).collect();
            assert!(missing.is_empty(), "{}: there is no {missing:?}", path.display());
            seen.extend(named);
        }
    }
    // Whatever is counted can be looked at.
    let of = |name: &str| {
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        family.unwrap_or(name).to_owned()
    };
    let shown: BTreeSet<String> = seen.iter().map(|name| of(name)).collect();
    let unseen: Vec<String> = known
        .iter()
        .filter(|name| name.starts_with("latchkey_"))
        .map(|name| of(name))
        .filter(|family| !shown.contains(family))
        .collect();
    // How often it was tried is told by whether it went well, and by alerts.
    let expected = ["latchkey_config_reloads_total", "latchkey_tls_reloads_total"];
    let unseen: Vec<&String> =
        unseen.iter().filter(|family| !expected.contains(&family.as_str())).collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:?}");
}

/// What Grafana puts in place of its variables.
fn substituted(expr: &str) -> String {
    let expr = expr.replace("$__rate_interval", "15s").replace("$__interval", "5s");
    let expr = expr.replace("$job", JOB).replace("$instance", ".*").replace("$issuer", ".*");
    assert!(!expr.contains('$'), "{expr}");
    expr
}

#[test]
#[ignore = "needs a running Prometheus, and some seconds of load: tests/run observability"]
fn every_query_is_answered() {
    let scene = Scene::start();
    let mut queries: Vec<(String, String)> = Vec::new();
    for (path, _, board) in all() {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        for panel in panels(&board) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let place = format!("{stem}: {}: {}", text(panel, "title"), text(target, "refId"));
                queries.push((place, substituted(text(target, "expr"))));
            }
        }
        for variable in board["templating"]["list"].as_array().unwrap() {
            if let Some(definition) = variable["definition"].as_str() {
                let inner = definition.strip_prefix("label_values(").unwrap();
                let (selector, label) = inner.trim_end_matches(')').rsplit_once(", ").unwrap();
                let place = format!("{stem}: ${}", text(variable, "name"));
                queries.push((place, substituted(&format!("count by ({label}) ({selector})"))));
            }
        }
    }
    assert!(queries.len() > 100, "{}", queries.len());
    for (place, query) in &queries {
        // Rates need two scrapes, rules an evaluation: until there is a number.
        let mut last = Value::Null;
        let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(|| {
                last = scene.prometheus.query(query);
                let samples = last["data"]["result"].as_array()?;
                let is_number = |sample: &Value| {
                    sample["value"][1].as_str().is_some_and(|number| number != "NaN")
                };
                samples.iter().any(is_number).then_some(())
            });
        }));
        assert!(answered.is_ok(), "{place}\n{query}\n{last}");
    }
    scene.prometheus.rules_are_well();
}
