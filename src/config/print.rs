//! The effective configuration as TOML, for `latchkey config print`.
//!
//! It holds what was read, not what it was made into: files that hold secrets by name only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use figment::value::Value;

use super::raw::Place;
use super::value::{render, render_key};

/// A line of the effective configuration.
#[derive(Debug, Clone)]
pub(super) enum Line {
    /// `[name]`
    Table(String),
    /// `[[name]]`
    Item(String),
    /// `key = value`, and where it stands.
    Value(&'static str, Value, Place),
    /// `key` is left out, which means what the text says.
    Nothing(&'static str, String),
}

/// The effective configuration, ready to be printed.
#[derive(Debug, Clone)]
pub struct Effective {
    lines: Vec<Line>,
}

/// A key whose value is another than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub path: String,
    /// Its value before, as TOML, and where it stood.
    pub old: Option<String>,
    /// Its value after.
    pub new: Option<String>,
}

impl Effective {
    pub(super) fn new(lines: Vec<Line>) -> Self {
        Self { lines }
    }

    /// The keys whose values, or where they stand, differ between this and `newer`, each with the
    /// one and the other; `None`: not there. A key is written as a path, such as `routes[2].name`.
    #[must_use]
    pub fn differences(&self, newer: &Self) -> Vec<Difference> {
        let (old, new) = (self.by_path(), newer.by_path());
        let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let difference = |path: &String| {
            let (old, new) = (old.get(path).cloned(), new.get(path).cloned());
            (old != new).then(|| Difference { path: path.clone(), old, new })
        };
        paths.into_iter().filter_map(difference).collect()
    }

    fn by_path(&self) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        let mut items: BTreeMap<&str, usize> = BTreeMap::new();
        let mut prefix = String::new();
        for line in &self.lines {
            match line {
                Line::Table(name) => prefix.clone_from(name),
                Line::Item(name) => {
                    let count = items.entry(name).or_default();
                    prefix = format!("{name}[{count}]");
                    *count += 1;
                }
                Line::Nothing(..) => {}
                Line::Value(key, value, place) => {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    let value = match &place.name {
                        Some(name) => format!("{}  # {}", render(value), one_line(name)),
                        None => render(value),
                    };
                    values.insert(format!("{prefix}{dot}{key}"), value);
                }
            }
        }
        values
    }

    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        for line in &self.lines {
            let written = match line {
                Line::Table(name) => writeln!(out, "\n[{name}]"),
                Line::Item(name) => writeln!(out, "\n[[{name}]]"),
                Line::Nothing(key, note) => writeln!(out, "# {key}: left out, {note}"),
                Line::Value(key, value, place) => {
                    let (key, value) = (render_key(key), render(value));
                    match &place.name {
                        Some(name) => writeln!(out, "{key} = {value}  # {}", one_line(name)),
                        None => writeln!(out, "{key} = {value}"),
                    }
                }
            };
            // Writing to a String does not fail.
            debug_assert!(written.is_ok());
        }
        out.trim_start().to_owned()
    }
}

/// A file's name may hold a line break; a comment may not.
fn one_line(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_by_their_paths() {
        let place =
            |name: Option<&str>| Place { name: name.map(ToOwned::to_owned), textual: false };
        let value = |key, text: &str, name| Line::Value(key, Value::from(text), place(name));
        let old = Effective::new(vec![
            value("same", "x", None),
            Line::Table("server".to_owned()),
            value("listen", "a", Some("one.toml")),
            Line::Item("limits".to_owned()),
            value("name", "first", None),
            Line::Item("limits".to_owned()),
            value("name", "second", None),
        ]);
        assert_eq!(old.differences(&old), []);
        let new = Effective::new(vec![
            value("same", "x", None),
            Line::Table("server".to_owned()),
            value("listen", "b", Some("two\n.toml")),
            Line::Nothing("tls", "no TLS".to_owned()),
            Line::Item("limits".to_owned()),
            value("name", "first", None),
        ]);
        let difference = |path: &str, old: Option<&str>, new: Option<&str>| Difference {
            path: path.to_owned(),
            old: old.map(ToOwned::to_owned),
            new: new.map(ToOwned::to_owned),
        };
        assert_eq!(
            old.differences(&new),
            [
                difference("limits[1].name", Some("\"second\""), None),
                difference("server.listen", Some("\"a\"  # one.toml"), Some("\"b\"  # two?.toml")),
            ]
        );
    }
}
