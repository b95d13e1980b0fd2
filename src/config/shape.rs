//! What a key wants, as data: to read what was written, and to describe the key to people.
//!
//! Every reader of a value says its shape, so that no description of a key is written twice.
//! Nothing here knows a key by its name.

use super::value::{self, Span};

/// What the value of a key may be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// A text with a grammar of its own.
    Text,
    /// One of some texts.
    Choice(Vec<&'static str>),
    /// A duration.
    Duration(Span),
    /// A size in bytes.
    Bytes((u64, u64)),
    /// A whole number.
    Integer((u32, u32)),
    /// A number, whole or not.
    Number((f64, f64)),
    /// `true` or `false`.
    Boolean,
    /// A list of texts.
    List,
    /// A path of names: a text, or a list of them.
    Names,
    /// A list of inline tables.
    Tables,
    /// Not said: only what leaving the key out means is.
    Unsaid,
}

impl Shape {
    /// The shape in words, its bounds included.
    pub(super) fn describe(&self) -> String {
        let quoted = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| value::quote(name)).collect();
            names.join(", ")
        };
        match self {
            Self::Text | Self::Unsaid => "text".into(),
            Self::Choice(names) => match names.as_slice() {
                [one] => value::quote(one),
                names => format!("one of {}", quoted(names)),
            },
            Self::Duration(Span(min, max)) => {
                let (min, max) = (value::show_duration(*min), value::show_duration(*max));
                format!("duration, \"{min}\" to \"{max}\"")
            }
            Self::Bytes((min, max)) => {
                let (min, max) = (value::show_bytes(*min), value::show_bytes(*max));
                format!("size, \"{min}\" to \"{max}\"")
            }
            Self::Integer((min, max)) => format!("integer, {min} to {max}"),
            Self::Number((min, max)) => format!("number, {min:.1} to {max:.1}"),
            Self::Boolean => "true or false".into(),
            Self::List => "list of texts".into(),
            Self::Names => "text, or list of texts".into(),
            Self::Tables => "list of tables".into(),
        }
    }
}

/// What it means to leave a key out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Without {
    /// This value, as TOML.
    Default(String),
    /// What the text says.
    Means(String),
    /// An empty list.
    Nothing,
    /// A mistake.
    Refused,
}

/// What the program knows of one key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fact {
    /// Its full name, as it was asked for: `routes[0].paths`.
    pub(super) path: String,
    /// What it may be.
    pub(super) shape: Shape,
    /// What leaving it out means.
    pub(super) without: Without,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_say_their_bounds() {
        for (shape, words) in [
            (Shape::Text, "text"),
            (Shape::Choice(vec!["a", "b"]), "one of \"a\", \"b\""),
            (Shape::Choice(vec!["a"]), "\"a\""),
            (Shape::Duration(Span::TIMEOUT), "duration, \"1ms\" to \"1h\""),
            (Shape::Duration(Span::LEEWAY), "duration, \"0s\" to \"10m\""),
            (Shape::Bytes((1, 1 << 20)), "size, \"1B\" to \"1MiB\""),
            (Shape::Integer((0, 10)), "integer, 0 to 10"),
            (Shape::Number((0.0, 1.0)), "number, 0.0 to 1.0"),
        ] {
            assert_eq!(shape.describe(), words);
        }
    }
}
