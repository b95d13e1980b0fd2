//! Reads a table key by key: what is wrong is noted and reading goes on, so that one run finds
//! every mistake; what is right is noted too, so that the effective configuration can be printed.
//!
//! The keys that were asked for are the keys there are: [`Section::finish`] reports every other.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use figment::value::{Dict, Value};

use super::print::Line;
use super::raw::{Place, Tree};
use super::report::{Noted, Report, collect_all};
use super::scalar::{
    Kind, coerce, read_bytes, read_duration, read_integer, read_list, read_names, read_number,
    read_text, unknown,
};
use super::value::{self, Span};

/// The table that is not written.
static EMPTY: Dict = Dict::new();

/// A table of the configuration.
pub(super) struct Section<'r, 't> {
    report: &'r mut Report,
    tree: &'t Tree,
    /// What it holds; a mistake if it is no table.
    entries: Result<&'t Dict, Noted>,
    path: String,
    place: Place,
    known: Vec<&'static str>,
    /// An inline table: printed as part of its list.
    inline: bool,
}

impl<'r, 't> Section<'r, 't> {
    /// The whole configuration.
    pub(super) fn root(tree: &'t Tree, report: &'r mut Report) -> Self {
        Self {
            report,
            tree,
            entries: Ok(&tree.root),
            path: String::new(),
            place: Place::default(),
            known: Vec::new(),
            inline: false,
        }
    }

    /// The table `[key]`, empty if it is not written.
    pub(super) fn table(&mut self, key: &'static str) -> Section<'_, 't> {
        let value = self.find(key);
        let path = self.key_path(key);
        self.report.lines.push(Line::Table(path.clone()));
        self.child(path, value)
    }

    /// The names in the table of tables `key`, such as `[upstreams.NAME]`.
    pub(super) fn table_names(&mut self, key: &'static str) -> Result<Vec<&'t str>, Noted> {
        let tables = match self.find(key) {
            None => &EMPTY,
            Some(Value::Dict(_, tables)) => tables,
            Some(other) => {
                return Err(self.error(key, format!("{} is not a table", value::show(other))));
            }
        };
        Ok(tables.keys().map(String::as_str).collect())
    }

    /// The table `[key.name]` of the table of tables `key`.
    pub(super) fn named_table(&mut self, key: &'static str, name: &str) -> Section<'_, 't> {
        let value = self.find(key).and_then(Value::as_dict);
        let path = format!("{}.{}", self.key_path(key), value::render_key(name));
        self.report.lines.push(Line::Table(path.clone()));
        self.child(path, value.and_then(|tables| tables.get(name)))
    }

    /// The tables `[[key]]`, at most `max`.
    pub(super) fn items(&mut self, key: &'static str, max: usize) -> Result<&'t [Value], Noted> {
        let Some(value) = self.find(key) else {
            return Ok(&[]);
        };
        let Some(items) = value.as_array() else {
            let shown = value::show(value);
            let message = format!("{shown} is not a list of tables; write [[{key}]]");
            return Err(self.error(key, message));
        };
        if items.len() > max {
            let message = format!("holds {} tables; {max} is the most", items.len());
            return Err(self.error(key, message));
        }
        Ok(items)
    }

    /// The table `[[key]]` at `index` of [`Section::items`].
    pub(super) fn item(&mut self, key: &str, index: usize, value: &'t Value) -> Section<'_, 't> {
        self.report.lines.push(Line::Item(key.to_owned()));
        let path = format!("{}[{index}]", self.key_path(key));
        self.child(path, Some(value))
    }

    /// The inline tables of the list `key`, which is printed as a whole; at most `max`.
    pub(super) fn inline_items(
        &mut self,
        key: &'static str,
        max: usize,
    ) -> Result<&'t [Value], Noted> {
        let items = self.items(key, max)?;
        if let Some(value) = self.find(key) {
            let place = self.place_of(key);
            self.print(Line::Value(key, value.clone(), place));
        }
        Ok(items)
    }

    /// The inline table at `index` of [`Section::inline_items`].
    pub(super) fn inline_item(
        &mut self,
        key: &str,
        index: usize,
        value: &'t Value,
    ) -> Section<'_, 't> {
        let path = format!("{}[{index}]", self.key_path(key));
        let mut item = self.child(path, Some(value));
        item.inline = true;
        item
    }

    fn child(&mut self, path: String, value: Option<&'t Value>) -> Section<'_, 't> {
        let place = value.map(|v| self.tree.place(v)).unwrap_or_default();
        let entries = match value {
            None => Ok(&EMPTY),
            Some(Value::Dict(_, entries)) => Ok(entries),
            Some(other) => {
                let message = format!("{} is not a table", value::show(other));
                Err(self.report.error(&place, &path, message))
            }
        };
        Section {
            report: self.report,
            tree: self.tree,
            entries,
            path,
            place,
            known: Vec::new(),
            inline: false,
        }
    }

    /// Whether the table is left out or holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_ok_and(Dict::is_empty)
    }

    /// Whether `key` is written by a source, and not one of the defaults.
    pub(super) fn is_written(&mut self, key: &'static str) -> bool {
        self.find(key).is_some_and(|value| self.tree.place(value).name.is_some())
    }

    /// Prints that `key` is left out, which means `note`.
    pub(super) fn left_out(&mut self, key: &'static str, note: &str) {
        let _ = self.find(key);
        self.print(Line::Nothing(key, note.to_owned()));
    }

    /// Whether `key` is written (or has a default in a table of defaults).
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.find(key).is_some()
    }

    /// Whether the table itself is one of the defaults.
    pub(super) fn is_default(&self) -> bool {
        self.place.name.is_none()
    }

    /// Where the table stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The full name of `key`.
    pub(super) fn key_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a mistake in `key` (a member: `paths[1]`), where the key stands, or where it should.
    pub(super) fn error(&mut self, key: &str, message: String) -> Noted {
        let name = key.split('[').next().unwrap_or(key);
        let place = self.peek(name).map_or_else(|| self.place.clone(), |v| self.tree.place(v));
        let path = self.key_path(key);
        self.report.error(&place, &path, message)
    }

    /// Notes that `key` is missing, unless the table is no table at all.
    pub(super) fn missing(&mut self, key: &str, hint: &str) -> Noted {
        match self.entries {
            Ok(_) => self.error(key, format!("is missing; {hint}")),
            Err(noted) => noted,
        }
    }

    /// Notes a mistake of the table as a whole.
    pub(super) fn error_here(&mut self, message: String) -> Noted {
        self.report.error(&self.place, &self.path, message)
    }

    /// Notes a mistake in a key of another table, by its full name.
    pub(super) fn error_at(&mut self, place: &Place, path: &str, message: String) -> Noted {
        self.report.error(place, path, message)
    }

    /// A duration; `default` as it would be written.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: &str,
        span: Span,
    ) -> Result<Duration, Noted> {
        self.or_default(key, Kind::Text, default, |v| read_duration(v, span))
    }

    /// A duration that has to be written.
    pub(super) fn duration_required(
        &mut self,
        key: &'static str,
        span: Span,
    ) -> Result<Duration, Noted> {
        let hint = "write e.g. \"1m\"";
        self.required(key, Kind::Text, hint, |v| read_duration(v, span))
    }

    /// A size in bytes; `default` as it would be written.
    pub(super) fn bytes(
        &mut self,
        key: &'static str,
        default: &str,
        range: (u64, u64),
    ) -> Result<u64, Noted> {
        self.or_default(key, Kind::Text, default, |v| read_bytes(v, range))
    }

    /// A size in bytes that may be left out, which means `note`.
    pub(super) fn bytes_optional(
        &mut self,
        key: &'static str,
        note: &str,
        range: (u64, u64),
    ) -> Result<Option<u64>, Noted> {
        self.optional(key, Kind::Text, note, |v| read_bytes(v, range))
    }

    /// How many of something, for memory set aside in advance.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        default: u32,
        range: (u32, u32),
    ) -> Result<NonZeroUsize, Noted> {
        self.or_default(key, Kind::Integer, default, |v| {
            let number = read_integer(v, range)?;
            NonZeroUsize::try_from(number).map_err(|e| e.to_string())
        })
    }

    /// An integer.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        default: u32,
        range: (u32, u32),
    ) -> Result<NonZeroU32, Noted> {
        self.or_default(key, Kind::Integer, default, |v| read_integer(v, range))
    }

    /// A count of which there may be none.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        default: u32,
        range: (u32, u32),
    ) -> Result<u32, Noted> {
        self.or_default(key, Kind::Integer, default, |v| read_number(v, range))
    }

    /// An integer that has to be written.
    pub(super) fn integer_required(
        &mut self,
        key: &'static str,
        range: (u32, u32),
    ) -> Result<NonZeroU32, Noted> {
        let hint = "write a number";
        self.required(key, Kind::Integer, hint, |v| read_integer(v, range))
    }

    /// An integer that may be left out, which means `note`.
    pub(super) fn integer_optional(
        &mut self,
        key: &'static str,
        note: &str,
        range: (u32, u32),
    ) -> Result<Option<NonZeroU32>, Noted> {
        self.optional(key, Kind::Integer, note, |v| read_integer(v, range))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> Result<bool, Noted> {
        self.or_default(key, Kind::Boolean, default, |v| {
            v.to_bool().ok_or_else(|| format!("{} is neither true nor false", value::show(v)))
        })
    }

    /// A text that `parse` understands; `default` as it would be written.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Noted> {
        self.or_default(key, Kind::Text, default, |v| read_text(v, parse))
    }

    /// A text that has to be written; `hint` says what to write.
    pub(super) fn text_required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Noted> {
        self.required(key, Kind::Text, hint, |v| read_text(v, parse))
    }

    /// A text that may be left out, which means `note`.
    pub(super) fn text_optional<T>(
        &mut self,
        key: &'static str,
        note: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Noted> {
        self.optional(key, Kind::Text, note, |v| read_text(v, parse))
    }

    /// A list of texts that `parse` understands; `default` as it would be written.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        default: &[&str],
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Noted> {
        let items = self.or_default(key, Kind::Other, default, read_list)?;
        self.read_members(key, &items, parse)
    }

    /// A list that has to be written and to hold something; `hint` says what to write.
    pub(super) fn list_required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Noted> {
        let items = self.required(key, Kind::Other, hint, |v| {
            let items = read_list(v)?;
            if items.is_empty() {
                return Err(format!("is empty; {hint}"));
            }
            Ok(items)
        })?;
        self.read_members(key, &items, parse)
    }

    /// A list that may be left out, which means `note`; if written it has to hold something.
    pub(super) fn list_optional<T>(
        &mut self,
        key: &'static str,
        note: &str,
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, Noted> {
        let items = self.optional(key, Kind::Other, note, |v| {
            let items = read_list(v)?;
            if items.is_empty() {
                return Err(format!("is empty; leave it out for {note}"));
            }
            Ok(items)
        })?;
        items.map(|items| self.read_members(key, &items, parse)).transpose()
    }

    fn read_members<T>(
        &mut self,
        key: &str,
        items: &[Value],
        mut parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Noted> {
        let mut read = |(i, item)| {
            read_text(item, &mut parse)
                .map_err(|message| self.error(&format!("{key}[{i}]"), message))
        };
        collect_all(items.iter().enumerate().map(&mut read))
    }

    /// A path of names: one text, or a list of them; `default` as it would be written.
    pub(super) fn names<T>(
        &mut self,
        key: &'static str,
        default: &str,
        parse: impl FnOnce(&[&str]) -> Result<T, String>,
    ) -> Result<T, Noted> {
        self.or_default(key, Kind::Other, default, |v| read_names(v, parse))
    }

    /// A path of names that may be left out, which means `note`.
    pub(super) fn names_optional<T>(
        &mut self,
        key: &'static str,
        note: &str,
        parse: impl FnOnce(&[&str]) -> Result<T, String>,
    ) -> Result<Option<T>, Noted> {
        self.optional(key, Kind::Other, note, |v| read_names(v, parse))
    }

    fn or_default<T>(
        &mut self,
        key: &'static str,
        kind: Kind,
        default: impl Into<Value>,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<T, Noted> {
        let value = self.written(key, kind).unwrap_or_else(|| default.into());
        self.read(key, value, parse)
    }

    fn required<T>(
        &mut self,
        key: &'static str,
        kind: Kind,
        hint: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<T, Noted> {
        match self.written(key, kind) {
            Some(value) => self.read(key, value, parse),
            None => Err(self.missing(key, hint)),
        }
    }

    fn optional<T>(
        &mut self,
        key: &'static str,
        kind: Kind,
        note: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<Option<T>, Noted> {
        if let Some(value) = self.written(key, kind) {
            return self.read(key, value, parse).map(Some);
        }
        self.print(Line::Nothing(key, note.to_owned()));
        Ok(None)
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        value: Value,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<T, Noted> {
        match parse(&value) {
            Ok(parsed) => {
                let place = self.place_of(key);
                self.print(Line::Value(key, value, place));
                Ok(parsed)
            }
            Err(message) => Err(self.error(key, message)),
        }
    }

    fn written(&mut self, key: &'static str, kind: Kind) -> Option<Value> {
        let written = self.find(key)?;
        Some(coerce(written, kind, self.tree.place(written).textual))
    }

    fn find(&mut self, key: &'static str) -> Option<&'t Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.peek(key)
    }

    /// What is written at `key`, without asking for it.
    fn peek(&self, key: &str) -> Option<&'t Value> {
        self.entries.ok()?.get(key)
    }

    /// Where `key` is written; a default if it is not.
    fn place_of(&self, key: &str) -> Place {
        let written = self.peek(key);
        written.map(|v| self.tree.place(v)).unwrap_or_default()
    }

    fn print(&mut self, line: Line) {
        if !self.inline {
            self.report.lines.push(line);
        }
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self) {
        for (key, value) in self.entries.into_iter().flatten() {
            if self.known.contains(&key.as_str()) {
                continue;
            }
            let place = self.tree.place(value);
            let path = self.key_path(&value::render_key(key));
            let message = unknown(key, &self.known, &place, self.path.is_empty());
            self.report.error(&place, &path, message);
        }
    }
}
