//! The effective configuration as TOML, for `latchkey config print`.
//!
//! It holds what was read, not what it was made into: files that hold secrets by name only.

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

impl Effective {
    pub(super) fn new(lines: Vec<Line>) -> Self {
        Self { lines }
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
