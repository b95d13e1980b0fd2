//! The keys of a table by the kind of value they want: durations, sizes, counts, texts, lists.
//!
//! Every reader notes a mistake where the key stands, or a value to print. No key is known here
//! by its name, but that the names of keys that name files end in `_file`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use figment::value::Value;

use super::credential::Credentials;
use super::read::Section;
use super::report::{Noted, collect_all};
use super::scalar::{
    read_bytes, read_duration, read_integer, read_list, read_names, read_number, read_text,
};
use super::shape::Shape;
use super::validate::one_of;
use super::value::{self, Span};

impl Section<'_, '_> {
    /// A duration; `default` as it would be written.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: &str,
        span: Span,
    ) -> Result<Duration, Noted> {
        self.or_default(key, &Shape::Duration(span), default, |v| read_duration(v, span))
    }

    /// A duration that has to be written.
    pub(super) fn duration_required(
        &mut self,
        key: &'static str,
        span: Span,
    ) -> Result<Duration, Noted> {
        let hint = "write e.g. \"1m\"";
        self.required(key, &Shape::Duration(span), hint, |v| read_duration(v, span))
    }

    /// A duration that may be left out, which means `note`.
    pub(super) fn duration_optional(
        &mut self,
        key: &'static str,
        note: &str,
        span: Span,
    ) -> Result<Option<Duration>, Noted> {
        self.optional(key, &Shape::Duration(span), note, |v| read_duration(v, span))
    }

    /// A size in bytes; `default` as it would be written.
    pub(super) fn bytes(
        &mut self,
        key: &'static str,
        default: &str,
        range: (u64, u64),
    ) -> Result<u64, Noted> {
        self.or_default(key, &Shape::Bytes(range), default, |v| read_bytes(v, range))
    }

    /// A size in bytes that may be left out, which means `note`.
    pub(super) fn bytes_optional(
        &mut self,
        key: &'static str,
        note: &str,
        range: (u64, u64),
    ) -> Result<Option<u64>, Noted> {
        self.optional(key, &Shape::Bytes(range), note, |v| read_bytes(v, range))
    }

    /// How many of something, for memory set aside in advance.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        default: u32,
        range: (u32, u32),
    ) -> Result<NonZeroUsize, Noted> {
        self.or_default(key, &Shape::Integer(range), default, |v| {
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
        self.or_default(key, &Shape::Integer(range), default, |v| read_integer(v, range))
    }

    /// A count of which there may be none.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        default: u32,
        range: (u32, u32),
    ) -> Result<u32, Noted> {
        self.or_default(key, &Shape::Integer(range), default, |v| read_number(v, range))
    }

    /// An integer that has to be written.
    pub(super) fn integer_required(
        &mut self,
        key: &'static str,
        range: (u32, u32),
    ) -> Result<NonZeroU32, Noted> {
        let hint = "write a number";
        self.required(key, &Shape::Integer(range), hint, |v| read_integer(v, range))
    }

    /// An integer that may be left out, which means `note`.
    pub(super) fn integer_optional(
        &mut self,
        key: &'static str,
        note: &str,
        range: (u32, u32),
    ) -> Result<Option<NonZeroU32>, Noted> {
        self.optional(key, &Shape::Integer(range), note, |v| read_integer(v, range))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> Result<bool, Noted> {
        self.or_default(key, &Shape::Boolean, default, |v| {
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
        let credentials = self.credentials();
        self.or_default(key, &Shape::Text, default, |v| {
            read_text(v, |text| named(key, text, credentials, parse))
        })
    }

    /// A text that has to be written; `hint` says what to write.
    pub(super) fn text_required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Noted> {
        let credentials = self.credentials();
        self.required(key, &Shape::Text, hint, |v| {
            read_text(v, |text| named(key, text, credentials, parse))
        })
    }

    /// A text that may be left out, which means `note`.
    pub(super) fn text_optional<T>(
        &mut self,
        key: &'static str,
        note: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Noted> {
        let credentials = self.credentials();
        self.optional(key, &Shape::Text, note, |v| {
            read_text(v, |text| named(key, text, credentials, parse))
        })
    }

    /// What one of `choices` names; `default` as it would be written.
    pub(super) fn choice<T: Clone>(
        &mut self,
        key: &'static str,
        default: &str,
        choices: &[(&'static str, T)],
    ) -> Result<T, Noted> {
        let shape = Shape::Choice(choices.iter().map(|(name, _)| *name).collect());
        self.or_default(key, &shape, default, |v| read_text(v, |text| one_of(text, choices)))
    }

    /// What one of `choices` names, which has to be written; `hint` says what to write.
    pub(super) fn choice_required<T: Clone>(
        &mut self,
        key: &'static str,
        hint: &str,
        choices: &[(&'static str, T)],
    ) -> Result<T, Noted> {
        let shape = Shape::Choice(choices.iter().map(|(name, _)| *name).collect());
        self.required(key, &shape, hint, |v| read_text(v, |text| one_of(text, choices)))
    }

    /// A list of texts that `parse` understands; `default` as it would be written.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        default: &[&str],
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Noted> {
        let items = self.or_default(key, &Shape::List, default, read_list)?;
        self.read_members(key, &items, parse)
    }

    /// A list that has to be written and to hold something; `hint` says what to write.
    pub(super) fn list_required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Noted> {
        let items = self.required(key, &Shape::List, hint, |v| {
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
        let items = self.optional(key, &Shape::List, note, |v| {
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
        self.or_default(key, &Shape::Names, default, |v| read_names(v, parse))
    }

    /// A path of names that may be left out, which means `note`.
    pub(super) fn names_optional<T>(
        &mut self,
        key: &'static str,
        note: &str,
        parse: impl FnOnce(&[&str]) -> Result<T, String>,
    ) -> Result<Option<T>, Noted> {
        self.optional(key, &Shape::Names, note, |v| read_names(v, parse))
    }
}

/// Parses `text`; where `key` names a file, that may be a credential.
fn named<T>(
    key: &str,
    text: &str,
    credentials: &Credentials,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, String> {
    let resolved = if key.ends_with("_file") { credentials.resolve(text)? } else { None };
    parse(resolved.as_deref().unwrap_or(text))
}
