//! The rules that are shipped: promtool takes them and runs their tests, they speak of metrics that
//! exist, and every alert says what to do and was seen to fire and not to fire.

use std::collections::BTreeSet;
use std::process::Command;

use super::names::{existing, named};
use super::{read, shipped};

const RULES: &str = "packaging/prometheus/latchkey.rules.yml";
const TESTS: [&str; 2] =
    ["tests/observability/alerts.test.yml", "tests/observability/budgets.test.yml"];

/// One rule, as far as its lines tell without a reader of YAML.
#[derive(Debug, Default)]
struct Rule {
    alert: Option<String>,
    record: Option<String>,
    expr: String,
    lines: Vec<String>,
}

/// The rules of `text`, which is laid out as the shipped file is: a rule begins with `- alert:` or
/// `- record:`, and its keys stand under it.
fn rules(text: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut in_expr = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let alert = line.strip_prefix("- alert: ").map(str::to_owned);
        let record = line.strip_prefix("- record: ").map(str::to_owned);
        if alert.is_some() || record.is_some() || line.starts_with("- name: ") {
            in_expr = false;
            rules.push(Rule { alert, record, ..Rule::default() });
            continue;
        }
        let Some(rule) = rules.last_mut() else { continue };
        match line.split_once(": ").or_else(|| line.strip_suffix(':').map(|key| (key, ""))) {
            Some(("expr", expr)) => {
                in_expr = true;
                expr.trim_start_matches(">-").clone_into(&mut rule.expr);
            }
            Some(("for" | "labels" | "annotations", _)) => in_expr = false,
            _ if in_expr => {
                rule.expr.push(' ');
                rule.expr.push_str(line);
            }
            _ => {}
        }
        rule.lines.push(line.to_owned());
    }
    rules.retain(|rule| rule.alert.is_some() || rule.record.is_some());
    rules
}

/// Runs promtool in the folder of the first file.
fn promtool(args: &[&str], files: &[&str]) -> (bool, String) {
    let mut command = Command::new("promtool");
    command.args(args).args(files.iter().map(|file| shipped(file)));
    let output = command.output().unwrap_or_else(|error| {
        panic!("promtool: {error}; 'tests/run tools' installs it (Debian's package prometheus)")
    });
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn promtool_takes_the_rules_and_the_scrape_example() {
    let (well, said) = promtool(&["check", "rules"], &[RULES]);
    assert!(well && said.contains("SUCCESS"), "{said}");
    let (well, said) = promtool(&["check", "config"], &["packaging/prometheus/prometheus.yml"]);
    assert!(well && said.contains("SUCCESS"), "{said}");
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    let (well, said) = promtool(&["test", "rules"], &TESTS);
    assert!(well, "{said}");
}

#[test]
fn rules_speak_of_what_exists() {
    let rules = rules(&read(&shipped(RULES)));
    assert!(rules.len() >= 50, "{}", rules.len());
    let mut known = existing();
    known.extend(rules.iter().filter_map(|rule| rule.record.clone()));
    for rule in &rules {
        let name = rule.alert.as_ref().or(rule.record.as_ref()).unwrap();
        let named = named(&rule.expr);
        assert!(!named.is_empty() || rule.expr.contains("vector("), "{name}: {}", rule.expr);
        let missing: Vec<_> = named.difference(&known).collect();
        assert!(missing.is_empty(), "{name}: there is no {missing:?}");
    }
    // Recorded for somebody: an alert, another rule, or a dashboard.
    let dashboards: String = super::dashboards::all().iter().map(|(_, text, _)| &**text).collect();
    for record in rules.iter().filter_map(|rule| rule.record.as_ref()) {
        let used = rules.iter().any(|rule| named(&rule.expr).contains(record));
        assert!(used || dashboards.contains(record.as_str()), "nobody reads {record}");
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let rules = rules(&read(&shipped(RULES)));
    let mut anchors: BTreeSet<String> = BTreeSet::new();
    for rule in rules.iter().filter(|rule| rule.alert.is_some()) {
        let name = rule.alert.as_ref().unwrap();
        assert!(name.starts_with("Latchkey"), "{name}");
        let value =
            |key: &str| rule.lines.iter().find_map(|line| line.strip_prefix(key)).map(str::trim);
        for (section, keys) in [
            ("labels:", &["severity:"][..]),
            ("annotations:", &["summary:", "description:", "runbook:"][..]),
        ] {
            let section = value(section).unwrap_or_else(|| panic!("{name} has no {section}"));
            if let Some(alias) = section.strip_prefix('*') {
                assert!(anchors.contains(alias), "{name}: *{alias}");
                continue;
            }
            if let Some(anchor) = section.strip_prefix('&') {
                anchors.insert(anchor.to_owned());
            }
            for key in keys {
                assert!(value(key).is_some_and(|text| !text.is_empty()), "{name} has no {key}");
            }
        }
        if let Some(severity) = value("severity:") {
            assert!(["critical", "warning", "info", "none"].contains(&severity), "{name}");
        }
    }
}

#[test]
fn every_alert_was_seen_both_ways() {
    let tests: String = TESTS.iter().map(|file| read(&shipped(file))).collect();
    let expectations: Vec<&str> = tests.split("- expr: ALERTS{").skip(1).collect();
    // Whether some expectation names the alert, and expects it, or expects nothing.
    let about = |name: &str, window: Option<&str>, fires: bool| {
        expectations.iter().any(|expectation| {
            let (selector, rest) = expectation.split_once('}').unwrap();
            let named = selector.contains(&format!("alertname=\"{name}\""));
            let of = window.is_none_or(|w| selector.contains(&format!("window=\"{w}\"")));
            let samples = rest.split_once("exp_samples:").unwrap().1.trim_start();
            named && of && samples.starts_with("[]") != fires
        })
    };
    let rules = rules(&read(&shipped(RULES)));
    for rule in rules.iter().filter(|rule| rule.alert.is_some()) {
        let name = rule.alert.as_ref().unwrap();
        let window = rule.lines.iter().find_map(|line| line.strip_prefix("labels: "));
        let window = window.and_then(|labels| {
            [("fast", "1h"), ("medium", "6h"), ("slow", "1d"), ("creeping", "3d")]
                .into_iter()
                .find_map(|(anchor, window)| labels.ends_with(anchor).then_some(window))
        });
        assert_eq!(window.is_some(), name.ends_with("BudgetBurn"), "{name}: {:?}", rule.lines);
        assert!(about(name, window, true), "no test expects {name} {window:?} to fire");
        assert!(about(name, window, false), "no test expects {name} {window:?} not to fire");
    }
}
