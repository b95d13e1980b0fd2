//! `ETag`, `If-Match` and `If-None-Match` (RFC 9110 §13): the version of a shop or a key, as text.
//!
//! A tag is two numbers in hexadecimal, or three: when the thing was made, how often it was
//! changed, and, of a key, what the API says of it that changes by itself (its last use, its
//! state). A write that says `If-Match` asks whether somebody else *changed* it: there the third
//! does not count, or a key in use could not be edited. A read that says `If-None-Match` asks
//! whether the answer would be the same: there it does. Weak tags never match a write.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::problem::Problem;
use crate::admin::operations::{Precondition, Version, Versions};
use crate::clock::Timestamp;

/// The most tags of a field.
const TAGS_MAX: usize = 64;

/// A representation's tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag(String);

impl Tag {
    /// Of what changes only when it is changed.
    pub(super) fn of(version: impl Into<Version>) -> Self {
        let Version { created_at, revision } = version.into();
        Self(format!("{:x}-{revision:x}", created_at.unix_ms()))
    }

    /// Of what changes by itself, too: `volatile` says to what.
    pub(super) fn volatile(version: impl Into<Version>, volatile: u64) -> Self {
        let Self(tag) = Self::of(version);
        Self(format!("{tag}-{volatile:x}"))
    }

    /// The value of `ETag`.
    pub(super) fn value(&self) -> HeaderValue {
        // Hexadecimal digits and dashes are field text.
        HeaderValue::from_str(&format!("\"{}\"", self.0))
            .unwrap_or(HeaderValue::from_static("\"\""))
    }
}

/// What an opaque tag says of the version it was made of; `None` if it is none of ours.
fn version(opaque: &str) -> Option<Version> {
    let mut numbers = opaque.split('-').map(|part| u64::from_str_radix(part, 16));
    let (created_at, revision) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(Version { created_at: Timestamp::from_unix_ms(created_at), revision })
}

/// A tag as a request says it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    weak: bool,
    opaque: String,
}

/// The tags of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    Of(Vec<Given>),
}

impl Tags {
    /// Versions that a write compares: strongly (RFC 9110 §8.8.3.2).
    fn versions(&self) -> Versions {
        match self {
            Self::Any => Versions::Any,
            Self::Of(tags) => {
                let strong = tags.iter().filter(|tag| !tag.weak);
                Versions::Of(strong.filter_map(|tag| version(&tag.opaque)).collect())
            }
        }
    }

    /// Whether a read that has one of these has `tag`: compared weakly.
    fn hold(&self, tag: &Tag) -> bool {
        match self {
            Self::Any => true,
            Self::Of(tags) => tags.iter().any(|given| given.opaque == tag.0),
        }
    }
}

/// The conditions of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

impl<S: Sync> FromRequestParts<S> for Conditions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self {
            if_match: read(&parts.headers, &IF_MATCH)?,
            if_none_match: read(&parts.headers, &IF_NONE_MATCH)?,
        })
    }
}

impl Conditions {
    /// What has to hold for a write.
    pub(super) fn of_write(&self) -> Precondition {
        Precondition {
            matches: self.if_match.as_ref().map(Tags::versions),
            matches_none: self.if_none_match.as_ref().map(Tags::versions),
        }
    }

    /// The answer to a read of what is there: itself, or that the caller has it already.
    pub(super) fn answer<T: Serialize>(&self, tag: &Tag, body: T) -> Response {
        if self.if_none_match.as_ref().is_some_and(|tags| tags.hold(tag)) {
            return (StatusCode::NOT_MODIFIED, [(ETAG, tag.value())]).into_response();
        }
        tagged(tag, Json(body).into_response())
    }
}

/// `response` with the tag of what it shows.
pub(super) fn tagged(tag: &Tag, mut response: Response) -> Response {
    response.headers_mut().insert(ETAG, tag.value());
    response
}

fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let mut tags = Vec::new();
    let values: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    if values.is_empty() {
        return Ok(None);
    }
    for value in &values {
        let text = value.to_str().unwrap_or("\u{7f}").trim();
        if text == "*" && values.len() == 1 {
            return Ok(Some(Tags::Any));
        }
        let detail = "is neither `*` nor a list of entity tags such as \"1a-2\"";
        let parsed = parse(text).filter(|parsed| parsed.len() + tags.len() <= TAGS_MAX);
        tags.extend(parsed.ok_or_else(|| Problem::bad_parameter(name.as_str(), detail))?);
    }
    Ok(Some(Tags::Of(tags)))
}

/// A list of entity tags (RFC 9110 §8.8.3).
fn parse(text: &str) -> Option<Vec<Given>> {
    let mut tags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(tags).filter(|tags| !tags.is_empty());
        }
        let (weak, quoted) = match rest.strip_prefix("W/") {
            Some(after) => (true, after),
            None => (false, rest),
        };
        let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
        let after = after.trim_start_matches([' ', '\t']);
        if opaque.chars().any(|c| c <= ' ' || c == '\u{7f}')
            || !(after.is_empty() || after.starts_with(','))
        {
            return None;
        }
        tags.push(Given { weak, opaque: opaque.to_owned() });
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(created: u64, revision: u64) -> Version {
        Version { created_at: Timestamp::from_unix_ms(created), revision }
    }

    #[test]
    fn fields_in_and_out_of_the_grammar() {
        let given = |weak, opaque: &str| Given { weak, opaque: opaque.to_owned() };
        for (text, expected) in [
            ("\"1-2\"", Some(vec![given(false, "1-2")])),
            ("\"\"", Some(vec![given(false, "")])),
            ("W/\"a\", \"b\"", Some(vec![given(true, "a"), given(false, "b")])),
            (", \"a\" ,,\"b\",", Some(vec![given(false, "a"), given(false, "b")])),
            ("\"a,b\"", Some(vec![given(false, "a,b")])),
            ("", None),
            (",", None),
            ("a", None),
            ("\"a", None),
            ("\"a\" \"b\"", None),
            ("w/\"a\"", None),
            ("\"a b\"", None),
            ("*, \"a\"", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn writes_compare_what_was_changed_and_reads_what_is_shown() {
        let of = |text: &str| Tags::Of(parse(text).unwrap());
        let tag = Tag::volatile(version(0x1a, 2), 7);
        assert_eq!(tag.value(), "\"1a-2-7\"");
        assert_eq!(of("\"1a-2-6\"").versions(), Versions::Of(vec![version(0x1a, 2)]));
        assert_eq!(of("W/\"1a-2-7\", \"x\"").versions(), Versions::Of(Vec::new()));
        assert!(of("W/\"1a-2-7\"").hold(&tag) && !of("\"1a-2-6\"").hold(&tag));
        assert!(Tags::Any.hold(&tag));
    }

    proptest! {
        #[test]
        fn tags_come_back(created in any::<u64>(), revision in any::<u64>(), more in any::<u64>()) {
            let one = version(created, revision);
            for tag in [Tag::of(one), Tag::volatile(one, more)] {
                let value = tag.value();
                let given = parse(value.to_str().unwrap()).unwrap();
                prop_assert_eq!(Tags::Of(given).versions(), Versions::Of(vec![one]));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[W/\", a-f0-9*\\-\\PC]{0,40}") {
            let _ = parse(&text);
        }
    }
}
