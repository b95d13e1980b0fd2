//! Which route a request takes: paths judged once and strictly, patterns, methods.
//!
//! A path is either read in the one way every careful server reads it, or refused with 400, so
//! that latchkey and the upstream can never see different paths. This module does not
//! authenticate anybody.

use std::borrow::Cow;
use std::fmt;

use http::Method;

/// Longest path that is looked at, in bytes, still encoded.
pub const PATH_BYTES_MAX: usize = 4096;

/// Why a path is refused (400 `bad_request`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathError {
    /// Not in origin form (RFC 9112 §3.2.1).
    #[error("the path does not start with /")]
    NotAbsolute,
    /// Over [`PATH_BYTES_MAX`].
    #[error("the path is longer than 4096 bytes")]
    TooLong,
    /// A byte that RFC 3986 §3.3 does not allow unencoded.
    #[error("the path holds a character that must be percent-encoded")]
    Character,
    /// `%` without two hex digits.
    #[error("a % in the path is not followed by two hex digits")]
    Encoding,
    /// `.` or `..`, encoded or not.
    #[error("the path holds a dot segment")]
    DotSegment,
    /// `//`, or a segment of nothing but parameters.
    #[error("the path holds an empty segment")]
    EmptySegment,
    /// `%2F`, `%5C` or a backslash.
    #[error("the path holds an encoded slash or a backslash")]
    Slash,
    /// Decoding twice would give something else than decoding once.
    #[error("the path is encoded twice")]
    DoubleEncoding,
    /// NUL or another control character, encoded.
    #[error("the path holds an encoded control character")]
    Control,
    /// The decoded bytes are not UTF-8.
    #[error("the decoded path is not UTF-8")]
    Utf8,
    /// A `;` parameter in the segment that names the shop.
    #[error("the shop segment of the path holds a ; parameter")]
    ShopParameter,
}

/// A path that every reader reads alike: decoded once, without dot segments, empty segments,
/// encoded separators or control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalPath<'a>(Cow<'a, str>);

impl<'a> CanonicalPath<'a> {
    /// Judges `raw`, the path of the request target without its query. Allocates only when
    /// something is percent-encoded.
    pub fn parse(raw: &'a str) -> Result<Self, PathError> {
        if raw.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        let decoded = decode(raw)?;
        let mut segments = decoded.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            match segment {
                // The last segment may be empty: a trailing slash.
                "" if segments.peek().is_some() => return Err(PathError::EmptySegment),
                "." | ".." => return Err(PathError::DotSegment),
                "" => {}
                // To servers that strip path parameters first, `..;x` is a dot segment and `;x` an
                // empty one.
                _ => match segment.split(';').next() {
                    Some("." | "..") => return Err(PathError::DotSegment),
                    Some("") => return Err(PathError::EmptySegment),
                    Some(_) | None => {}
                },
            }
        }
        Ok(Self(decoded))
    }

    /// The decoded path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Decodes percent-encoding once and refuses what could be read in two ways.
fn decode(raw: &str) -> Result<Cow<'_, str>, PathError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b);
    if raw.contains('\\') {
        return Err(PathError::Slash);
    }
    if !raw.bytes().all(allowed) {
        return Err(PathError::Character);
    }
    if !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (high, low) = (bytes.next().and_then(hex), bytes.next().and_then(hex));
        let (Some(high), Some(low)) = (high, low) else {
            return Err(PathError::Encoding);
        };
        match high << 4 | low {
            b'/' | b'\\' => return Err(PathError::Slash),
            0..=0x1f | 0x7f => return Err(PathError::Control),
            b'%' => return Err(PathError::DoubleEncoding),
            byte => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| PathError::Utf8)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// A set of request methods. Extension methods are in the set of all methods only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodSet(u16);

impl MethodSet {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::PATCH,
        Method::TRACE,
        Method::CONNECT,
    ];
    const ALL: u16 = u16::MAX;

    /// Every method.
    #[must_use]
    pub const fn all() -> Self {
        Self(Self::ALL)
    }

    /// The set of the methods named in `names` (upper case, RFC 9110 §9); `GET` brings `HEAD`
    /// with it. The name that is not a standard method is the error.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        names.into_iter().try_fold(Self(0), |set, name| {
            let bit = Self::KNOWN.iter().position(|m| m.as_str() == name).ok_or(name)?;
            let head = if name == "GET" { 1 << 1 } else { 0 };
            Ok(Self(set.0 | 1 << bit | head))
        })
    }

    /// Whether `method` is in the set.
    #[must_use]
    pub fn contains(self, method: &Method) -> bool {
        match Self::KNOWN.iter().position(|m| m == method) {
            Some(bit) => self.0 & 1 << bit != 0,
            None => self.0 == Self::ALL,
        }
    }
}

/// Why a text is not a path pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It has to start with `/`.
    #[error("a path pattern starts with /")]
    NotAbsolute,
    /// `*` elsewhere than at the end.
    #[error("* may only stand at the end of a path pattern")]
    Star,
    /// A placeholder other than `{shopId}` or `{name}` as a whole segment, or `{shopId}` twice.
    #[error("a placeholder is a whole segment: one {{shopId}} at most, or {{any-name}}")]
    Placeholder,
    /// The fixed parts are not a canonical path.
    #[error("{0}")]
    Path(PathError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    /// `{shopId}`
    Shop,
    /// `{anything}`
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// The path ends with the last segment (a trailing slash is another path).
    Exact,
    /// `/*`: anything below, and the path itself.
    Below,
    /// `x*`: anything that starts so.
    Prefix,
}

/// A path pattern of the configuration.
///
/// `/a/b` matches itself. `{shopId}` matches one segment and names the shop; any other `{name}`
/// matches one segment. A final `/*` matches the path before it and everything below; a final `*`
/// after text matches everything that continues that text. Comparison is case-sensitive, on the
/// decoded path.
#[derive(Clone, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
    tail: Tail,
    text: Box<str>,
}

/// A pattern matched; `shop` is the segment at `{shopId}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMatch<'p> {
    /// The segment that names the shop, if the pattern has one.
    pub shop: Option<&'p str>,
}

impl PathPattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if !text.starts_with('/') {
            return Err(PatternError::NotAbsolute);
        }
        let (fixed, tail) = match text.strip_suffix('*') {
            Some(head) => match head.strip_suffix('/') {
                Some(parent) => (parent, Tail::Below),
                None => (head, Tail::Prefix),
            },
            None => (text, Tail::Exact),
        };
        if fixed.contains('*') {
            return Err(PatternError::Star);
        }
        let segments = fixed.split('/').skip(1).map(segment).collect::<Result<Vec<_>, _>>()?;
        let literal: String = segments
            .iter()
            .map(|s| match s {
                Segment::Literal(text) => format!("/{text}"),
                Segment::Shop | Segment::Any => "/x".to_owned(),
            })
            .collect();
        if !literal.is_empty() {
            CanonicalPath::parse(&literal).map_err(PatternError::Path)?;
        }
        let placeholder_prefix =
            tail == Tail::Prefix && !matches!(segments.last(), Some(Segment::Literal(_)));
        if placeholder_prefix || segments.iter().filter(|s| **s == Segment::Shop).count() > 1 {
            return Err(PatternError::Placeholder);
        }
        Ok(Self { segments, tail, text: text.into() })
    }

    /// Matches `path`.
    #[must_use]
    pub fn matches<'p>(&self, path: &'p CanonicalPath<'_>) -> Option<PathMatch<'p>> {
        let mut shop = None;
        let mut rest = path.as_str();
        for (i, segment) in self.segments.iter().enumerate() {
            rest = rest.strip_prefix('/')?;
            if let Segment::Literal(text) = segment
                && self.tail == Tail::Prefix
                && i + 1 == self.segments.len()
            {
                return rest.starts_with(&**text).then_some(PathMatch { shop });
            }
            let end = rest.find('/').unwrap_or(rest.len());
            let (head, tail) = rest.split_at_checked(end)?;
            match segment {
                Segment::Literal(text) if **text == *head => {}
                Segment::Shop if !head.is_empty() => shop = Some(head),
                Segment::Any if !head.is_empty() => {}
                Segment::Literal(_) | Segment::Shop | Segment::Any => return None,
            }
            rest = tail;
        }
        match self.tail {
            Tail::Exact => rest.is_empty(),
            Tail::Below | Tail::Prefix => rest.is_empty() || rest.starts_with('/'),
        }
        .then_some(PathMatch { shop })
    }

    /// Whether the pattern names a shop.
    #[must_use]
    pub fn names_shop(&self) -> bool {
        self.segments.contains(&Segment::Shop)
    }
}

fn segment(text: &str) -> Result<Segment, PatternError> {
    match text {
        "{shopId}" => Ok(Segment::Shop),
        _ if text.starts_with('{') && text.ends_with('}') && text.len() > 2 => Ok(Segment::Any),
        _ if text.contains(['{', '}']) => Err(PatternError::Placeholder),
        _ => Ok(Segment::Literal(text.into())),
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_paths() {
        for (raw, expected) in [
            ("/", Ok("/")),
            ("/api/search", Ok("/api/search")),
            ("/api/search/", Ok("/api/search/")),
            ("/a%20b", Ok("/a b")),
            ("/caf%C3%A9", Ok("/café")),
            ("/a;v=1/b", Ok("/a;v=1/b")),
            ("/...", Ok("/...")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("", Err(PathError::NotAbsolute)),
            ("*", Err(PathError::NotAbsolute)),
            ("api", Err(PathError::NotAbsolute)),
            ("/a/../b", Err(PathError::DotSegment)),
            ("/a/.", Err(PathError::DotSegment)),
            ("/a/%2e%2E/b", Err(PathError::DotSegment)),
            ("/a/.%2e/b", Err(PathError::DotSegment)),
            ("/a/..;x/b", Err(PathError::DotSegment)),
            ("/a//b", Err(PathError::EmptySegment)),
            ("//", Err(PathError::EmptySegment)),
            ("/a/;x", Err(PathError::EmptySegment)),
            ("/;/a", Err(PathError::EmptySegment)),
            ("/a/%3b=/b", Err(PathError::EmptySegment)),
            ("/a%2fb", Err(PathError::Slash)),
            ("/a%5Cb", Err(PathError::Slash)),
            ("/a\\b", Err(PathError::Slash)),
            ("/a%252fb", Err(PathError::DoubleEncoding)),
            ("/a%25", Err(PathError::DoubleEncoding)),
            ("/a%00b", Err(PathError::Control)),
            ("/a%0d%0ab", Err(PathError::Control)),
            ("/a%7f", Err(PathError::Control)),
            ("/a%", Err(PathError::Encoding)),
            ("/a%2", Err(PathError::Encoding)),
            ("/a%zz", Err(PathError::Encoding)),
            ("/a%+1", Err(PathError::Encoding)),
            ("/a%ff", Err(PathError::Utf8)),
            ("/a%c0%af", Err(PathError::Utf8)),
            ("/a b", Err(PathError::Character)),
            ("/é", Err(PathError::Character)),
            ("/a\"b", Err(PathError::Character)),
            ("/a#b", Err(PathError::Character)),
        ] {
            let got = CanonicalPath::parse(raw);
            assert_eq!(got.as_ref().map(CanonicalPath::as_str).map_err(|e| *e), expected, "{raw}");
        }
        let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
        assert_eq!(CanonicalPath::parse(&long), Err(PathError::TooLong));
    }

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("/api/search/*", "/api/search", Some(None)),
            ("/api/search/*", "/api/search/", Some(None)),
            ("/api/search/*", "/api/search/a/b", Some(None)),
            ("/api/search/*", "/api/searching", None),
            ("/api/search/*", "/api", None),
            ("/api/widget/search*", "/api/widget/search", Some(None)),
            ("/api/widget/search*", "/api/widget/search/x", Some(None)),
            ("/api/widget/search*", "/api/widget/searching/x", Some(None)),
            ("/api/widget/search*", "/api/widget/sear", None),
            ("/s/{shopId}/*", "/s/demo", Some(Some("demo"))),
            ("/s/{shopId}/*", "/s/demo/x/y", Some(Some("demo"))),
            ("/s/{shopId}/*", "/s/", None),
            ("/s/{shopId}/*", "/s", None),
            ("/s/{shopId}/products/{id}", "/s/demo/products/7", Some(Some("demo"))),
            ("/s/{shopId}/products/{id}", "/s/demo/products/", None),
            ("/s/{shopId}/products/{id}", "/s/demo/products/7/", None),
            ("/exact", "/exact", Some(None)),
            ("/exact", "/Exact", None),
            ("/exact", "/exact/", None),
            ("/*", "/", Some(None)),
            ("/*", "/x/y", Some(None)),
            ("/", "/", Some(None)),
            ("/", "/x", None),
        ] {
            let parsed = PathPattern::parse(pattern).unwrap();
            let canonical = CanonicalPath::parse(path).unwrap();
            let got = parsed.matches(&canonical).map(|m| m.shop);
            assert_eq!(got, expected, "{pattern} on {path}");
        }
        for bad in
            ["", "x", "/a*b", "/*/a", "/{shopId}/{shopId}", "/a{x}", "/{x}*", "/a/../b", "/a//b"]
        {
            assert!(PathPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn method_sets() {
        let set = MethodSet::parse(["GET", "POST"]).unwrap();
        assert!(set.contains(&Method::GET) && set.contains(&Method::HEAD));
        assert!(set.contains(&Method::POST) && !set.contains(&Method::DELETE));
        let purge = Method::from_bytes(b"PURGE").unwrap();
        assert!(!set.contains(&purge) && MethodSet::all().contains(&purge));
        assert_eq!(MethodSet::parse(["get"]), Err("get"));
    }
}
