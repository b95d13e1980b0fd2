//! Reads a table key by key: what is wrong is noted and reading goes on, so that one run finds
//! every mistake; what is right is noted too, so that the effective configuration can be printed.
//!
//! The keys that were asked for are the keys there are: [`Section::finish`] reports every other.

use std::time::Duration;

use figment::value::{Dict, Value};

use super::ConfigError;
use super::print::Line;
use super::raw::{Place, Tree};
use super::value::{self, Span};

/// The most members of a list, and of an array of tables.
const LIST_MAX: usize = 256;

/// What reading has found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Mistakes, in the order of reading.
    pub(super) errors: Vec<ConfigError>,
    /// The effective configuration, in the order of reading.
    pub(super) lines: Vec<Line>,
}

impl Report {
    /// Notes a mistake.
    pub(super) fn error(&mut self, place: &Place, key: &str, message: String) {
        self.errors.push(ConfigError { source: place.name.clone(), key: key.to_owned(), message });
    }
}

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Boolean,
    List,
}

/// What stands for a key that is not written.
#[derive(Debug)]
enum Missing<'a> {
    /// This value.
    Default(Value),
    /// Nothing; what that means, for the printed configuration.
    Nothing(&'a str),
    /// It has to be written; what to write.
    Mistake(&'a str),
}

/// A table of the configuration.
pub(super) struct Section<'r, 't> {
    report: &'r mut Report,
    tree: &'t Tree,
    entries: Option<&'t Dict>,
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
            entries: Some(&tree.root),
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
    pub(super) fn table_names(&mut self, key: &'static str) -> Vec<&'t str> {
        let Some(value) = self.find(key) else {
            return Vec::new();
        };
        let Some(tables) = value.as_dict() else {
            self.error(key, format!("{} is not a table", value::show(value)));
            return Vec::new();
        };
        tables.keys().map(String::as_str).collect()
    }

    /// The table `[key.name]` of the table of tables `key`.
    pub(super) fn named_table(&mut self, key: &'static str, name: &str) -> Section<'_, 't> {
        let value = self.find(key).and_then(Value::as_dict);
        let path = format!("{}.{}", self.key_path(key), value::render_key(name));
        self.report.lines.push(Line::Table(path.clone()));
        self.child(path, value.and_then(|tables| tables.get(name)))
    }

    /// The tables `[[key]]`.
    pub(super) fn items(&mut self, key: &'static str) -> &'t [Value] {
        let Some(value) = self.find(key) else {
            return &[];
        };
        match value.as_array() {
            Some(items) if items.len() <= LIST_MAX => items,
            Some(_) => {
                self.error(key, format!("holds more than {LIST_MAX} tables"));
                &[]
            }
            None => {
                let shown = value::show(value);
                self.error(key, format!("{shown} is not a list of tables; write [[{key}]]"));
                &[]
            }
        }
    }

    /// The table `[[key]]` at `index` of [`Section::items`].
    pub(super) fn item(&mut self, key: &str, index: usize, value: &'t Value) -> Section<'_, 't> {
        self.report.lines.push(Line::Item(key.to_owned()));
        let path = format!("{}[{index}]", self.key_path(key));
        self.child(path, Some(value))
    }

    /// The inline tables of the list `key`, which is printed as a whole.
    pub(super) fn inline_items(&mut self, key: &'static str) -> &'t [Value] {
        let items = self.items(key);
        if let Some(value) = self.find(key).filter(|_| !items.is_empty()) {
            self.note_value(key, value.clone(), Some(value));
        }
        items
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
        let place = value.map(|v| self.tree.place(v));
        let entries = value.and_then(Value::as_dict);
        if let (Some(value), None, Some(place)) = (value, entries, &place) {
            let message = format!("{} is not a table", value::show(value));
            self.report.error(place, &path, message);
        }
        Section {
            report: self.report,
            tree: self.tree,
            entries,
            path,
            place: place.unwrap_or_default(),
            known: Vec::new(),
            inline: false,
        }
    }

    /// Whether `key` is written (or has a default in a table of defaults).
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
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
    pub(super) fn error(&mut self, key: &str, message: String) {
        let name = key.split('[').next().unwrap_or(key);
        let value = self.entries.and_then(|entries| entries.get(name));
        let place = value.map_or_else(|| self.place.clone(), |v| self.tree.place(v));
        let path = self.key_path(key);
        self.report.error(&place, &path, message);
    }

    /// Notes a mistake of the table as a whole.
    pub(super) fn error_here(&mut self, message: String) {
        self.report.error(&self.place, &self.path, message);
    }

    /// Notes a mistake in a key of another table, by its full name.
    pub(super) fn error_at(&mut self, place: &Place, path: &str, message: String) {
        self.report.error(place, path, message);
    }

    /// A duration; `default` as it would be written.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: &str,
        span: Span,
    ) -> Option<Duration> {
        let missing = Missing::Default(default.into());
        self.read(key, Kind::Text, missing, |v| read_duration(v, span))?
    }

    /// A duration that has to be written.
    pub(super) fn duration_required(&mut self, key: &'static str, span: Span) -> Option<Duration> {
        let missing = Missing::Mistake("write e.g. \"1m\"");
        self.read(key, Kind::Text, missing, |v| read_duration(v, span))?
    }

    /// A size in bytes between `min` and `max`; `default` as it would be written.
    pub(super) fn bytes(
        &mut self,
        key: &'static str,
        default: &str,
        (min, max): (u64, u64),
    ) -> Option<u64> {
        let missing = Missing::Default(default.into());
        self.read(key, Kind::Text, missing, |written| {
            let parsed = match written {
                Value::String(_, text) => value::parse_bytes(text),
                other => other.to_u128().and_then(|n| u64::try_from(n).ok()),
            };
            let shown = value::show(written);
            let bytes = parsed.ok_or_else(|| {
                format!("{shown} is not a size; write e.g. \"16KiB\", \"64MiB\", or bytes")
            })?;
            let (low, high) = (value::show_bytes(min), value::show_bytes(max));
            in_range(bytes, (min, max), || format!("\"{low}\" to \"{high}\""), &shown)
        })?
    }

    /// An integer between `min` and `max`.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        default: u64,
        range: (u64, u64),
    ) -> Option<u64> {
        let missing = Missing::Default(default.into());
        self.read(key, Kind::Integer, missing, |v| read_integer(v, range))?
    }

    /// An integer between `min` and `max` that has to be written.
    pub(super) fn integer_required(&mut self, key: &'static str, range: (u64, u64)) -> Option<u64> {
        let missing = Missing::Mistake("write a number");
        self.read(key, Kind::Integer, missing, |v| read_integer(v, range))?
    }

    /// An integer that may be left out, which means `note`.
    pub(super) fn integer_optional(
        &mut self,
        key: &'static str,
        note: &str,
        range: (u64, u64),
    ) -> Option<Option<u64>> {
        let missing = Missing::Nothing(note);
        self.read(key, Kind::Integer, missing, |v| read_integer(v, range))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> Option<bool> {
        self.read(key, Kind::Boolean, Missing::Default(default.into()), |v| {
            v.to_bool().ok_or_else(|| format!("{} is neither true nor false", value::show(v)))
        })?
    }

    /// A text that `parse` understands; `default` as it would be written.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let missing = Missing::Default(default.into());
        self.read(key, Kind::Text, missing, |v| read_text(v, parse))?
    }

    /// A text that has to be written; `hint` says what to write.
    pub(super) fn text_required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.read(key, Kind::Text, Missing::Mistake(hint), |v| read_text(v, parse))?
    }

    /// A text that may be left out, which means `note`.
    pub(super) fn text_optional<T>(
        &mut self,
        key: &'static str,
        note: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        self.read(key, Kind::Text, Missing::Nothing(note), |v| read_text(v, parse))
    }

    /// A list of texts that `parse` understands; `default` as it would be written.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        default: &[&str],
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.read_list(key, Missing::Default(default.into()), parse)?
    }

    /// A list that has to be written and to hold something; `hint` says what to write.
    pub(super) fn list_required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let list = self.read_list(key, Missing::Mistake(hint), parse)??;
        self.refuse_empty(key, list, hint)
    }

    /// A list that may be left out, which means `note`; if written it has to hold something.
    pub(super) fn list_optional<T>(
        &mut self,
        key: &'static str,
        note: &str,
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Option<Option<Vec<T>>> {
        match self.read_list(key, Missing::Nothing(note), parse)? {
            None => Some(None),
            Some(list) => {
                self.refuse_empty(key, list, &format!("leave it out for {note}")).map(Some)
            }
        }
    }

    fn refuse_empty<T>(&mut self, key: &str, list: Vec<T>, hint: &str) -> Option<Vec<T>> {
        if list.is_empty() {
            self.error(key, format!("is empty; {hint}"));
            return None;
        }
        Some(list)
    }

    fn read_list<T>(
        &mut self,
        key: &'static str,
        missing: Missing<'_>,
        mut parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Option<Option<Vec<T>>> {
        let items = self.read(key, Kind::List, missing, |v| match v.as_array() {
            Some(items) if items.len() <= LIST_MAX => Ok(items.to_vec()),
            Some(_) => Err(format!("holds more than {LIST_MAX} members")),
            None => Err(format!("{} is not a list; write [\"…\"]", value::show(v))),
        })?;
        let Some(items) = items else {
            return Some(None);
        };
        let mut list = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            match read_text(item, &mut parse) {
                Ok(parsed) => list.push(parsed),
                Err(message) => self.error(&format!("{key}[{i}]"), message),
            }
        }
        (list.len() == items.len()).then_some(Some(list))
    }

    /// A text or a list of texts.
    pub(super) fn text_or_list<T>(
        &mut self,
        key: &'static str,
        missing: Result<&str, &str>,
        parse: impl FnOnce(Result<&str, Vec<&str>>) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let missing = match missing {
            Ok(default) => Missing::Default(default.into()),
            Err(note) => Missing::Nothing(note),
        };
        self.read(key, Kind::Text, missing, |v| {
            if let Some(text) = v.as_str() {
                return parse(Ok(text));
            }
            let items = v.as_array().unwrap_or_default().iter();
            match items.map(Value::as_str).collect::<Option<Vec<_>>>() {
                Some(items) if !items.is_empty() => parse(Err(items)),
                Some(_) | None => {
                    Err(format!("{} is neither a text nor a list of texts", value::show(v)))
                }
            }
        })
    }

    /// The value of `key`, read by `parse`. The outer `None` is a mistake, noted; the inner one a
    /// key left out that may be.
    fn read<T>(
        &mut self,
        key: &'static str,
        kind: Kind,
        missing: Missing<'_>,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let written = self.find(key);
        let value = match (written, missing) {
            (Some(written), _) => coerce(written, kind, self.tree.place(written).textual),
            (None, Missing::Default(default)) => default,
            (None, Missing::Nothing(note)) => {
                let line = Line::Nothing(key, note.to_owned());
                self.report.lines.extend((!self.inline).then_some(line));
                return Some(None);
            }
            (None, Missing::Mistake(hint)) => {
                if self.entries.is_some() {
                    self.error(key, format!("is missing; {hint}"));
                }
                return None;
            }
        };
        match parse(&value) {
            Ok(parsed) => {
                self.note_value(key, value, written);
                Some(Some(parsed))
            }
            Err(message) => {
                self.error(key, message);
                None
            }
        }
    }

    fn note_value(&mut self, key: &'static str, value: Value, written: Option<&Value>) {
        let place = written.map(|v| self.tree.place(v)).unwrap_or_default();
        if !self.inline {
            self.report.lines.push(Line::Value(key, value, place));
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'t Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entries?.get(key)
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

/// A variable's or a flag's text as the number or boolean that is wanted, if it is one.
fn coerce(written: &Value, kind: Kind, textual: bool) -> Value {
    let coerced = match (written, kind) {
        (Value::String(_, text), Kind::Integer) if textual => {
            text.parse::<u64>().ok().map(From::from)
        }
        (Value::String(_, text), Kind::Boolean) if textual => {
            text.parse::<bool>().ok().map(From::from)
        }
        _ => None,
    };
    coerced.unwrap_or_else(|| written.clone())
}

fn read_text<T>(
    written: &Value,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, String> {
    match written.as_str() {
        Some(text) => parse(text),
        None => Err(format!("{} is not a text in quotes", value::show(written))),
    }
}

fn read_duration(written: &Value, span: Span) -> Result<Duration, String> {
    let shown = value::show(written);
    let parsed = written.as_str().and_then(value::parse_duration);
    let duration = parsed
        .ok_or_else(|| format!("{shown} is not a duration; write e.g. \"30s\", \"5m\", \"24h\""))?;
    let range = || {
        let (min, max) = (value::show_duration(span.0), value::show_duration(span.1));
        format!("\"{min}\" to \"{max}\"")
    };
    in_range(duration, (span.0, span.1), range, &shown)
}

fn read_integer(written: &Value, (min, max): (u64, u64)) -> Result<u64, String> {
    let shown = value::show(written);
    let whole = written.to_i128();
    let number = whole.ok_or_else(|| format!("{shown} is not a whole number"))?;
    let (low, high) = (i128::from(min), i128::from(max));
    let number = in_range(number, (low, high), || format!("{min} to {max}"), &shown)?;
    u64::try_from(number).map_err(|_| format!("{shown} is not a whole number"))
}

/// `value`, if it is in `range`.
fn in_range<T: PartialOrd + Default>(
    value: T,
    (min, max): (T, T),
    range: impl FnOnce() -> String,
    shown: &str,
) -> Result<T, String> {
    let zero = T::default();
    if value == zero && min > zero {
        return Err(format!("zero never means unlimited; write {}", range()));
    }
    if value < min || value > max {
        return Err(format!("{shown} is out of range; write {}", range()));
    }
    Ok(value)
}

/// What to say of the unknown `key`.
fn unknown(key: &str, known: &[&str], place: &Place, top: bool) -> String {
    let variable = place.name.as_deref().filter(|_| place.textual && top);
    if let (Some(variable), Some((table, rest))) = (variable, key.split_once('_'))
        && known.contains(&table)
        && variable.starts_with("LATCHKEY_")
    {
        let (table, rest) = (table.to_uppercase(), rest.to_uppercase());
        return format!(
            "unknown key; two underscores stand between a table and its key: \
             did you mean LATCHKEY_{table}__{rest}?"
        );
    }
    match suggest(key, known.iter().copied()) {
        Some(meant) => format!("unknown key; did you mean `{meant}`?"),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// The candidate that `word` most probably was meant to be.
pub(super) fn suggest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    // 0.8 lets pass a letter lost, swapped or added, and an ending cut short; not another word.
    const LIKENESS_MIN: f64 = 0.8;
    let word: String = word.chars().take(64).collect();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
