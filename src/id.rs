//! Validated identifiers: what a name may look like is decided here, once, while parsing.
//!
//! Identifiers that travel on the request path are inline values (no heap), so that copying one
//! costs no allocation. This module does not know what the identifiers are for.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an identifier. The text itself is not repeated: it may be a secret pasted
/// into the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a [`ShopId`].
    #[error(
        "not a shop id: 1 to 63 characters of A-Z a-z 0-9 - _, the first a letter or digit; \
         `me` is reserved"
    )]
    Shop,
    /// Not a [`KeyId`].
    #[error("not a key id: `key_` and 16 lowercase hex digits")]
    Key,
    /// Not a [`TokenId`].
    #[error("not a widget token id: `wt_` and 32 lowercase hex digits")]
    Token,
    /// Not an [`AdminTokenId`].
    #[error("not an admin token id: `adm_` and 16 lowercase hex digits")]
    AdminToken,
    /// Not an [`OperatorId`].
    #[error("not an operator id: `op_` and 16 lowercase hex digits")]
    Operator,
    /// Not a [`SessionId`].
    #[error("not a session id: `ses_` and 16 lowercase hex digits")]
    Session,
    /// Not a [`Name`].
    #[error("not a name: 1 to 63 characters of a-z 0-9 - _, the first a letter or digit")]
    Name,
}

/// Longest [`ShopId`] and [`Name`], in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// The tenant's identifier, as it stands in `/shops/{shopId}`: 1 to 63 ASCII letters, digits,
/// `-` or `_`, the first a letter or a digit. Never `me` (spec §3.3).
#[derive(Clone, Copy)]
pub struct ShopId {
    len: u8,
    bytes: [u8; NAME_BYTES_MAX],
}

impl ShopId {
    /// Parses `text`; [`IdError::Shop`] if it is not a shop id.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let first = text.bytes().next().ok_or(IdError::Shop)?;
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if text.len() > NAME_BYTES_MAX
            || !first.is_ascii_alphanumeric()
            || !text.bytes().all(word)
            || text == "me"
        {
            return Err(IdError::Shop);
        }
        let mut bytes = [0; NAME_BYTES_MAX];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        let len = u8::try_from(text.len()).map_err(|_| IdError::Shop)?;
        Ok(Self { len, bytes })
    }

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl PartialEq for ShopId {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.bytes == other.bytes
    }
}

impl Eq for ShopId {}

impl PartialOrd for ShopId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShopId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for ShopId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// A name from the configuration: of a route, a limit policy, an issuer, an upstream. 1 to 63
/// lowercase ASCII letters, digits, `-` or `_`, the first a letter or a digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(std::sync::Arc<str>);

impl Name {
    /// Parses `text`; [`IdError::Name`] if it is not a name.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let first = text.bytes().next().ok_or(IdError::Name)?;
        let start = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let word = |b: u8| start(b) || b == b'-' || b == b'_';
        if text.len() > NAME_BYTES_MAX || !start(first) || !text.bytes().all(word) {
            return Err(IdError::Name);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Declares an identifier of `$prefix` and fixed-width lowercase hex.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $prefix:literal, $digits:literal, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl $name {
            /// Parses the text form; an error if `text` is anything else.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let digits = text.strip_prefix($prefix).ok_or($error)?;
                let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
                if digits.len() != $digits || !digits.bytes().all(lower_hex) {
                    return Err($error);
                }
                <$int>::from_str_radix(digits, 16).map(Self).map_err(|_| $error)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:0", $digits, "x}"), self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        text_id!($name);
    };
}

/// `Debug`, `FromStr` and `Deserialize` by way of `parse` and `Display`.
macro_rules! text_id {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// `Display` and `Serialize` by way of `as_str`.
macro_rules! str_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        text_id!($name);
    };
}

str_id!(ShopId);
str_id!(Name);

hex_id!(
    /// The public name of a shop API key, safe to log and to show.
    KeyId, u64, "key_", 16, IdError::Key
);
hex_id!(
    /// The public name of a widget token, for the revocation list.
    TokenId, u128, "wt_", 32, IdError::Token
);
hex_id!(
    /// The public name of an admin token.
    AdminTokenId, u64, "adm_", 16, IdError::AdminToken
);
hex_id!(
    /// The public name of an operator.
    OperatorId, u64, "op_", 16, IdError::Operator
);
hex_id!(
    /// The public name of an operator's session.
    SessionId, u64, "ses_", 16, IdError::Session
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shop_ids() {
        for good in ["a", "demo", "Shop_1-x", "0", &"a".repeat(63), "mee", "ME"] {
            assert_eq!(ShopId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "me", "-a", "_a", "a b", "a/b", "a.b", "é", "a;b", &"a".repeat(64)] {
            assert_eq!(ShopId::parse(bad), Err(IdError::Shop), "{bad:?}");
        }
    }

    #[test]
    fn hex_ids_round_trip_and_reject_other_spellings() {
        let id = KeyId(0xab);
        assert_eq!(id.to_string(), "key_00000000000000ab");
        assert_eq!(KeyId::parse(&id.to_string()), Ok(id));
        for bad in ["", "key_", "key_00000000000000AB", "key_+0000000000000ab", "00000000000000ab"]
        {
            assert_eq!(KeyId::parse(bad), Err(IdError::Key), "{bad:?}");
        }
        let token = TokenId(7);
        assert_eq!(TokenId::parse(&token.to_string()), Ok(token));
    }

    #[test]
    fn names() {
        assert_eq!(Name::parse("widget-search").unwrap().as_str(), "widget-search");
        for bad in ["", "Upper", "a b", "-x", &"a".repeat(64)] {
            assert_eq!(Name::parse(bad), Err(IdError::Name), "{bad:?}");
        }
    }
}
