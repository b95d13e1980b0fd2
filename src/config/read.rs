//! Reads a table key by key: what is wrong is noted and reading goes on, so that one run finds
//! every mistake; what is right is noted too, so that the effective configuration can be printed.
//!
//! The keys that were asked for are the keys there are: [`Section::finish`] reports every other.
//! What a key's value may be is said in `typed`.

use figment::value::{Dict, Value};

use super::credential::Credentials;
use super::print::Line;
use super::raw::{Place, Tree};
use super::report::{Noted, Report};
use super::scalar::{coerce, unknown};
use super::shape::{Fact, Shape, Without};
use super::value;

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
        self.note(key, &Shape::Tables, || Without::Nothing);
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
        self.note(key, &Shape::Unsaid, || Without::Means(note.to_owned()));
        self.print(Line::Nothing(key, note.to_owned()));
    }

    /// What values that name a credential stand for.
    pub(super) fn credentials(&self) -> &'t Credentials {
        &self.tree.credentials
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

    /// The value of `key`, or `default`.
    pub(super) fn or_default<T>(
        &mut self,
        key: &'static str,
        shape: &Shape,
        default: impl Into<Value>,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<T, Noted> {
        let default = default.into();
        self.note(key, shape, || Without::Default(value::render(&default)));
        let value = self.written(key, shape).unwrap_or(default);
        self.read(key, value, parse)
    }

    /// The value of `key`, which has to be written; `hint` says what to write.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        shape: &Shape,
        hint: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<T, Noted> {
        self.note(key, shape, || Without::Refused);
        match self.written(key, shape) {
            Some(value) => self.read(key, value, parse),
            None => Err(self.missing(key, hint)),
        }
    }

    /// The value of `key`, which may be left out: that means `note`.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        shape: &Shape,
        note: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<Option<T>, Noted> {
        self.note(key, shape, || Without::Means(note.to_owned()));
        if let Some(value) = self.written(key, shape) {
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

    fn written(&mut self, key: &'static str, shape: &Shape) -> Option<Value> {
        let written = self.find(key)?;
        Some(coerce(written, shape, self.tree.place(written).textual))
    }

    /// Notes what is known of `key`, where somebody wants to know.
    fn note(&mut self, key: &str, shape: &Shape, without: impl FnOnce() -> Without) {
        if self.report.facts.is_none() {
            return;
        }
        let path = self.key_path(key);
        if let Some(facts) = &mut self.report.facts {
            facts.push(Fact { path, shape: shape.clone(), without: without() });
        }
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
