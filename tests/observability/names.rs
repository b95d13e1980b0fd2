//! The names of metrics: those that exist, and those that rules and dashboards speak of.

use std::collections::BTreeSet;
use std::slice;
use std::time::Duration;

use latchkey::clock::Timestamp;
use latchkey::id::Name;
use latchkey::metrics::{Exposition, Metrics};

/// Everything that can be on the metrics page, with whatever is configured.
pub(super) fn existing() -> BTreeSet<String> {
    let metrics = Metrics::new("0").unwrap();
    let name = Name::parse("some").unwrap();
    metrics.configure(slice::from_ref(&name), &[(name.clone(), Duration::from_secs(1))]);
    metrics.certificates(&[Timestamp::MAX]);
    metrics.admin_certificates(&[Timestamp::MAX]);
    metrics.backup_schedule(Some(Duration::from_secs(1)), None);
    let _series = metrics.upstream(&name);
    let text = metrics.expose(Exposition::Text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let names = lines.map(|line| line.split(['{', ' ']).next().unwrap().to_owned());
    names.chain(["up".to_owned(), "ALERTS".to_owned()]).collect()
}

/// The metrics and recorded series that `expr` names.
pub(super) fn named(expr: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = expr;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '"') {
        rest = &rest[start..];
        if let Some(text) = rest.strip_prefix('"') {
            rest = text.split_once('"').expect("a closed string").1;
            continue;
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let word = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        rest = &rest[word.len()..];
        let ours = ["latchkey_", "process_"].iter().any(|prefix| word.starts_with(prefix));
        if ours || word.contains(':') || word == "up" || word == "ALERTS" {
            found.insert(word.to_owned());
        }
    }
    found
}

#[test]
fn names_are_found_in_expressions() {
    let found = named(
        "sum by (job) (rate(latchkey_x_total{code=\"latchkey_not\", job=~\"a:b\"}[5m])) \
         / scalar(latchkey:y:ratio) > 2 * up{job=\"z\"} - process_start_time_seconds",
    );
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["latchkey:y:ratio", "latchkey_x_total", "process_start_time_seconds", "up"]);
}

#[test]
fn what_is_configured_has_names() {
    let existing = existing();
    for name in [
        "latchkey_request_duration_seconds_bucket",
        "latchkey_jwks_stale_max_seconds",
        "latchkey_backup_interval_seconds",
        "latchkey_admin_tls_certificate_expiry_timestamp_seconds",
        "latchkey_upstream_endpoints",
        "latchkey_limited_total",
        "process_max_fds",
    ] {
        assert!(existing.contains(name), "{name}");
    }
}
