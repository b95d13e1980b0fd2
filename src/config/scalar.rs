//! Reads one value as what its key wants: a text, a number, a size, a duration, a list.
//!
//! The messages begin where the key's name ends. Nothing here knows a key by its name.

use std::num::NonZeroU32;
use std::time::Duration;

use figment::value::Value;

use super::raw::Place;
use super::shape::Shape;
use super::value::{self, Span};

/// The most members of a list.
const LIST_MAX: usize = 256;

/// A variable's or a flag's text as the number or boolean that is wanted, if it is one.
pub(super) fn coerce(written: &Value, shape: &Shape, textual: bool) -> Value {
    let text = written.as_str().filter(|_| textual);
    let coerced = match shape {
        Shape::Integer(_) => text.and_then(|t| t.parse::<u64>().ok()).map(From::from),
        Shape::Number(_) => text.and_then(|t| t.parse::<f64>().ok()).map(From::from),
        Shape::Boolean => text.and_then(|t| t.parse::<bool>().ok()).map(From::from),
        Shape::Text
        | Shape::Choice(_)
        | Shape::Duration(_)
        | Shape::Bytes(_)
        | Shape::List
        | Shape::Names
        | Shape::Tables
        | Shape::Unsaid => None,
    };
    coerced.unwrap_or_else(|| written.clone())
}

/// A text that `parse` understands.
pub(super) fn read_text<T>(
    written: &Value,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, String> {
    match written.as_str() {
        Some(text) => parse(text),
        None => Err(format!("{} is not a text in quotes", value::show(written))),
    }
}

/// A duration within `span`.
pub(super) fn read_duration(written: &Value, span: Span) -> Result<Duration, String> {
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

/// An integer in a range that does not hold zero.
pub(super) fn read_integer(written: &Value, range: (u32, u32)) -> Result<NonZeroU32, String> {
    let number = read_number(written, range)?;
    NonZeroU32::new(number).ok_or_else(|| format!("{} is not a whole number", value::show(written)))
}

/// An integer in a range.
pub(super) fn read_number(written: &Value, (min, max): (u32, u32)) -> Result<u32, String> {
    let shown = value::show(written);
    let not_whole = || format!("{shown} is not a whole number");
    let number = value::integer(written).ok_or_else(not_whole)?;
    let (low, high) = (i128::from(min), i128::from(max));
    let number = in_range(number, (low, high), || format!("{min} to {max}"), &shown)?;
    u32::try_from(number).map_err(|_| not_whole())
}

/// A size in bytes.
pub(super) fn read_bytes(written: &Value, (min, max): (u64, u64)) -> Result<u64, String> {
    let shown = value::show(written);
    let number = || value::integer(written).and_then(|n| u64::try_from(n).ok());
    let parsed = written.as_str().map_or_else(number, value::parse_bytes);
    let bytes = parsed.ok_or_else(|| {
        format!("{shown} is not a size; write e.g. \"16KiB\", \"64MiB\", or bytes")
    })?;
    let range = || {
        let (min, max) = (value::show_bytes(min), value::show_bytes(max));
        format!("\"{min}\" to \"{max}\"")
    };
    in_range(bytes, (min, max), range, &shown)
}

/// A list.
pub(super) fn read_list(written: &Value) -> Result<Vec<Value>, String> {
    match written.as_array() {
        Some(items) if items.len() <= LIST_MAX => Ok(items.to_vec()),
        Some(_) => Err(format!("holds more than {LIST_MAX} members")),
        None => Err(format!("{} is not a list; write [\"…\"]", value::show(written))),
    }
}

/// A path of names: dots in a text separate them; in a list each text is one.
pub(super) fn read_names<T>(
    written: &Value,
    parse: impl FnOnce(&[&str]) -> Result<T, String>,
) -> Result<T, String> {
    if let Some(text) = written.as_str() {
        // A claim that is named by a URL (OpenID Connect Core §5.1.2) is one name.
        if text.contains("://") {
            let shown = value::quote(text);
            return Err(format!(
                "{shown} holds dots that would separate names; write it as a list, [{shown}]"
            ));
        }
        return parse(&text.split('.').collect::<Vec<_>>());
    }
    let items = written.as_array().unwrap_or_default().iter();
    match items.map(Value::as_str).collect::<Option<Vec<_>>>() {
        Some(names) if !names.is_empty() => parse(&names),
        Some(_) | None => {
            Err(format!("{} is neither a text nor a list of texts", value::show(written)))
        }
    }
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
pub(super) fn unknown(key: &str, known: &[&str], place: &Place, top: bool) -> String {
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
