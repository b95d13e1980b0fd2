//! JSON objects as tokens must have them: every member name once (RFC 7515 §4, RFC 7519 §4).
//!
//! Two parsers that settle a repeated name differently would read two tokens in one; so such a
//! text is no token at all. Says nothing about what the members mean.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};

/// Why a text is not a strict JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObjectError {
    /// Not JSON (RFC 8259), or nested too deeply.
    NotJson,
    /// JSON, but not an object.
    NotAnObject,
    /// A member name occurs twice, at whatever depth.
    RepeatedMember,
}

/// Parses a JSON object all of whose objects name each member once. Recursion is bounded by the
/// parser (128 levels).
pub(super) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, ObjectError> {
    match serde_json::from_slice(bytes) {
        Ok(Strict(Value::Object(members))) => Ok(members),
        Ok(Strict(_)) => Err(ObjectError::NotAnObject),
        Err(e) if e.classify() == Category::Data => Err(ObjectError::RepeatedMember),
        Err(_) => Err(ObjectError::NotJson),
    }
}

/// A JSON value that was read strictly.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without repeated member names")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(element)) = elements.next_element()? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, _>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("repeated member name"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        let rows: [(&str, Result<&str, ObjectError>); 14] = [
            ("{}", Ok("{}")),
            (
                " { \"a\" : [1, -2, 0.5, null, true, \"x\"] } ",
                Ok(r#"{"a":[1,-2,0.5,null,true,"x"]}"#),
            ),
            (r#"{"a":{"b":1},"b":1}"#, Ok(r#"{"a":{"b":1},"b":1}"#)),
            (r#"{"a":1,"a":1}"#, Err(ObjectError::RepeatedMember)),
            (r#"{"a":1,"\u0061":2}"#, Err(ObjectError::RepeatedMember)),
            (r#"{"x":[{"a":1,"a":2}]}"#, Err(ObjectError::RepeatedMember)),
            ("[]", Err(ObjectError::NotAnObject)),
            ("\"x\"", Err(ObjectError::NotAnObject)),
            ("null", Err(ObjectError::NotAnObject)),
            ("", Err(ObjectError::NotJson)),
            ("{} {}", Err(ObjectError::NotJson)),
            ("{'a':1}", Err(ObjectError::NotJson)),
            (r#"{"a":1e999}"#, Err(ObjectError::NotJson)),
            ("{\"a\":NaN}", Err(ObjectError::NotJson)),
        ];
        for (text, expected) in rows {
            let parsed = parse_object(text.as_bytes()).map(|o| Value::Object(o).to_string());
            assert_eq!(parsed.as_deref().map_err(|e| *e), expected, "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(4000), "]".repeat(4000));
        assert_eq!(parse_object(deep.as_bytes()), Err(ObjectError::NotJson));
        assert_eq!(parse_object(b"{\"a\":\"\xff\"}"), Err(ObjectError::NotJson));
    }
}
