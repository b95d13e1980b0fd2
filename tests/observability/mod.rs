//! What an operator watches latchkey with: metrics, rules and dashboards, held against the tools
//! that read them.
//!
//! What needs a running Prometheus or more than a moment is ignored here; `tests/run
//! observability` installs what is missing and runs it.

mod dashboards;
mod names;
mod openmetrics;
mod prometheus;
mod rules;
mod scene;
mod series;

use std::path::{Path, PathBuf};

/// A file or folder of the repository.
fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The series of a text of metrics: names and labels.
fn prometheus_series(text: &str) -> std::collections::BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}
