//! Where a request's head and body end, judged strictly (RFC 9112): what a lenient reader and a
//! strict one could take for two different requests is refused.
//!
//! Works on bytes alone, without I/O and without allocation. What a field means is not looked at,
//! except for the two that frame the body.

/// How a message is refused before it is a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// 400, with what is wrong.
    Malformed(&'static str),
    /// 414: the request line alone is over the bound.
    TargetTooLong,
    /// 431: over the bound in bytes.
    TooLarge,
    /// 431: over the bound in fields.
    TooManyFields,
}

/// Bounds of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadBounds {
    /// Bytes, the final empty line included.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// So many bytes; zero without a body.
    Length(u64),
    /// Chunks (RFC 9112 §7.1).
    Chunked,
}

/// A complete head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its length in bytes, the final empty line included.
    pub len: usize,
    /// What follows it.
    pub body: BodyFraming,
}

/// Looks for the end of a head and judges it once complete. Each byte is looked at once however
/// slowly they arrive.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadScanner {
    scanned: usize,
    lines: usize,
    line_start: usize,
}

impl HeadScanner {
    /// Looks at `bytes`, which begin where the head begins; `None` while it is incomplete.
    pub fn scan(&mut self, bytes: &[u8], bounds: HeadBounds) -> Result<Option<Head>, HeadFault> {
        for (i, byte) in bytes.iter().enumerate().skip(self.scanned) {
            if *byte != b'\n' {
                continue;
            }
            let line = bytes.get(self.line_start..i).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(HeadFault::Malformed("a line does not end in CR LF"));
            };
            if self.lines == 0 && i > bounds.bytes {
                return Err(HeadFault::TargetTooLong);
            }
            self.line_start = i + 1;
            if line.is_empty() {
                let len = i + 1;
                let within = len <= bounds.bytes && self.lines <= bounds.fields + 1;
                let head = bytes.get(..len).unwrap_or_default();
                let body = judge(head)?;
                let whole = Ok(Some(Head { len, body }));
                return if within { whole } else { Err(self.too_long(len, bounds)) };
            }
            self.lines += 1;
        }
        self.scanned = bytes.len();
        if self.scanned > bounds.bytes || self.lines > bounds.fields + 1 {
            return Err(self.too_long(self.scanned, bounds));
        }
        Ok(None)
    }

    fn too_long(&self, len: usize, bounds: HeadBounds) -> HeadFault {
        if self.lines == 0 {
            HeadFault::TargetTooLong
        } else if len > bounds.bytes {
            HeadFault::TooLarge
        } else {
            HeadFault::TooManyFields
        }
    }
}

/// Judges a complete head, line by line.
fn judge(head: &[u8]) -> Result<BodyFraming, HeadFault> {
    let mut lines = head
        .split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty());
    let version = request_line(lines.next().unwrap_or_default()).map_err(HeadFault::Malformed)?;
    let mut framing = Framing::default();
    for line in lines {
        field(line, &mut framing).map_err(HeadFault::Malformed)?;
    }
    framing.conclude(version).map_err(HeadFault::Malformed)
}

/// The versions that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

/// `METHOD SP target SP HTTP/1.x`, with single spaces (RFC 9112 §3).
fn request_line(line: &[u8]) -> Result<Version, &'static str> {
    let mut parts = line.split(|b| *b == b' ');
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let version = parts.next().unwrap_or_default();
    if parts.next().is_some() || method.is_empty() || target.is_empty() {
        return Err("the request line is not `METHOD target HTTP/1.1` with single spaces");
    }
    if !method.iter().copied().all(is_token) {
        return Err("the method holds a character that is not allowed");
    }
    // A fragment is never sent (RFC 9112 §3.2), and readers differ in what they make of one.
    if !target.iter().all(|b| matches!(b, 0x21..=0x7e) && *b != b'#') {
        return Err("the request target holds a character that must be percent-encoded");
    }
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        _ => Err("the HTTP version is not 1.1 or 1.0"),
    }
}

/// The fields that frame the body.
#[derive(Debug, Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    fn conclude(self, version: Version) -> Result<BodyFraming, &'static str> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err("Content-Length and Transfer-Encoding are both present"),
            (None, true) if version == Version::Http10 => {
                Err("HTTP/1.0 knows no Transfer-Encoding")
            }
            (None, true) => Ok(BodyFraming::Chunked),
            (length, false) => Ok(BodyFraming::Length(length.unwrap_or(0))),
        }
    }
}

/// `name: value`, without line folding (RFC 9112 §5).
fn field(line: &[u8], framing: &mut Framing) -> Result<(), &'static str> {
    let Some(colon) = line.iter().position(|b| *b == b':') else {
        return Err("a header line has no colon");
    };
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err("a header name holds a character that is not allowed, or a line is folded");
    }
    if !value.iter().copied().all(is_field_byte) {
        return Err("a header value holds a control character");
    }
    if name.eq_ignore_ascii_case(b"content-length") {
        if framing.length.is_some() {
            return Err("Content-Length is present more than once");
        }
        framing.length = Some(decimal(value.trim_ascii()).ok_or("Content-Length is no number")?);
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        if framing.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err("Transfer-Encoding is not exactly `chunked`");
        }
        framing.chunked = true;
    }
    Ok(())
}

/// A decimal number of at most 18 digits, which fits a signed 64-bit reader too.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}

/// A character of a token (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A byte of a field value: no control character but the tab (RFC 9110 §5.5).
fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// The chunked framing is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked framing of the body is malformed")]
pub struct ChunkFault;

/// The most bytes of extensions on one chunk. They are legal, ignored, and not passed on.
const EXTENSION_BYTES_MAX: u16 = 256;
/// The most bytes of trailer fields. They are ignored and not passed on.
const TRAILER_BYTES_MAX: u16 = 8192;

/// Follows a chunked body to its end (RFC 9112 §7.1), byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkScanner {
    /// In the size, with so many digits seen.
    Size {
        /// The value so far.
        size: u64,
        /// Digits so far.
        digits: u8,
    },
    /// In an extension, with so many bytes seen.
    Extension {
        /// The chunk's size.
        size: u64,
        /// Bytes so far.
        bytes: u16,
    },
    /// Before the LF of the size line.
    SizeLf {
        /// The chunk's size.
        size: u64,
    },
    /// In data, with so many bytes left.
    Data(u64),
    /// Before the CR after data.
    DataCr,
    /// Before the LF after data.
    DataLf,
    /// In the trailer section.
    Trailer {
        /// Bytes so far.
        bytes: u16,
        /// At the start of a line.
        fresh: bool,
    },
    /// Before the LF of a trailer line; of the empty one when `last`.
    TrailerLf {
        /// Bytes so far.
        bytes: u16,
        /// It ends the body.
        last: bool,
    },
    /// Past the end.
    Done,
}

impl Default for ChunkScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkScanner {
    /// At the start of a chunked body.
    #[must_use]
    pub const fn new() -> Self {
        Self::Size { size: 0, digits: 0 }
    }

    /// Follows `bytes`; returns how many of them belong to the body.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, ChunkFault> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if *self == Self::Done {
                break;
            }
            if let Self::Data(left) = self {
                let here = u64::try_from(bytes.len() - at).unwrap_or(u64::MAX).min(*left);
                *left -= here;
                at += usize::try_from(here).unwrap_or(usize::MAX);
                if *left == 0 {
                    *self = Self::DataCr;
                }
                continue;
            }
            *self = self.step(*byte).ok_or(ChunkFault)?;
            at += 1;
        }
        Ok(at)
    }

    /// The state after one byte outside of data.
    fn step(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { size, digits: 1.. } | Self::Extension { size, .. }, b'\r') => {
                Self::SizeLf { size }
            }
            (Self::Size { size, digits: 1.. }, b';') => Self::Extension { size, bytes: 0 },
            // 15 hex digits fit a signed 64-bit reader too.
            (Self::Size { size, digits: digits @ ..15 }, _) => {
                let digit = char::from(byte).to_digit(16)?;
                Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Self::Extension { size, bytes: bytes @ ..EXTENSION_BYTES_MAX }, _)
                if is_field_byte(byte) =>
            {
                Self::Extension { size, bytes: bytes + 1 }
            }
            (Self::SizeLf { size: 0 }, b'\n') => Self::Trailer { bytes: 0, fresh: true },
            (Self::SizeLf { size }, b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::new(),
            (Self::Trailer { bytes, fresh }, b'\r') => Self::TrailerLf { bytes, last: fresh },
            (Self::Trailer { fresh: true, .. }, b' ' | b'\t') => return None,
            (Self::Trailer { bytes: bytes @ ..TRAILER_BYTES_MAX, .. }, _)
                if is_field_byte(byte) =>
            {
                Self::Trailer { bytes: bytes + 1, fresh: false }
            }
            (Self::TrailerLf { last: true, .. }, b'\n') => Self::Done,
            (Self::TrailerLf { bytes, .. }, b'\n') => Self::Trailer { bytes, fresh: true },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: HeadBounds = HeadBounds { bytes: 256, fields: 4 };

    fn scan(head: &[u8]) -> Result<Option<Head>, HeadFault> {
        HeadScanner::default().scan(head, BOUNDS)
    }

    #[test]
    fn heads_that_frame_their_body_one_way() {
        for (fields, body) in [
            ("", BodyFraming::Length(0)),
            ("Content-Length: 0\r\n", BodyFraming::Length(0)),
            ("content-LENGTH:12 \r\n", BodyFraming::Length(12)),
            (
                "Content-Length: 999999999999999999\r\n",
                BodyFraming::Length(999_999_999_999_999_999),
            ),
            ("Transfer-Encoding: chunked\r\n", BodyFraming::Chunked),
            ("transfer-encoding:\tChunked\r\n", BodyFraming::Chunked),
            ("X: caf\u{e9}\r\nY:\r\n", BodyFraming::Length(0)),
        ] {
            let text = format!("POST /a?b={{}}|c HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            let head = scan(text.as_bytes());
            assert_eq!(head, Ok(Some(Head { len: text.len(), body })), "{fields:?}");
        }
    }

    #[test]
    fn heads_that_could_be_read_two_ways() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 1 1\r\n",
            "Content-Length: 1000000000000000000\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: \u{b}chunked\r\n",
            "Transfer-Encoding:\r\n chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding\t: chunked\r\n",
            " Transfer-Encoding: chunked\r\n",
            "X: a\r\n b\r\n",
            "X: a\n",
            "X: a\nTransfer-Encoding: chunked\r\n",
            "X: a\rTransfer-Encoding: chunked\r\n",
            "X: \0\r\n",
            "X: \u{7f}\r\n",
            "X\r\n",
            ": x\r\n",
            "X Y: x\r\n",
            "X\u{e9}: x\r\n",
        ] {
            let text = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            let fault = scan(text.as_bytes());
            assert!(matches!(fault, Err(HeadFault::Malformed(_))), "{fields:?}: {fault:?}");
        }
    }

    #[test]
    fn request_lines() {
        for line in [
            "",
            "GET",
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET / x HTTP/1.1",
            " GET / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "G@T / HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
            "GET /#a HTTP/1.1",
            "GET /\u{7f} HTTP/1.1",
            "GET / HTTP/1.2",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            "GET / HTTP/1.1x",
            "PRI * HTTP/2.0",
        ] {
            let text = format!("{line}\r\nHost: x\r\n\r\n");
            let fault = scan(text.as_bytes());
            assert!(matches!(fault, Err(HeadFault::Malformed(_))), "{line:?}: {fault:?}");
        }
        let old = scan(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(matches!(old, Err(HeadFault::Malformed(_))));
        assert!(scan(b"GET / HTTP/1.0\r\n\r\n").unwrap().is_some());
    }

    #[test]
    fn bounds() {
        let fields = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(n));
        assert!(scan(fields(4).as_bytes()).unwrap().is_some());
        assert_eq!(scan(fields(5).as_bytes()), Err(HeadFault::TooManyFields));
        let long = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(256));
        assert_eq!(scan(long.as_bytes()), Err(HeadFault::TooLarge));
        assert_eq!(scan(format!("{long}\r\n\r\n").as_bytes()), Err(HeadFault::TooLarge));
        let target = format!("GET /{}", "b".repeat(256));
        assert_eq!(scan(target.as_bytes()), Err(HeadFault::TargetTooLong));
        let whole = format!("{target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(scan(whole.as_bytes()), Err(HeadFault::TargetTooLong));
    }

    #[test]
    fn chunked_bodies() {
        let whole = |body: &[u8]| {
            let mut scanner = ChunkScanner::new();
            scanner.advance(body).map(|n| (n, scanner))
        };
        for body in [
            "0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "A\r\n0123456789\r\n000\r\n\r\n",
            "3;x=\"y\"\r\nabc\r\n0;z\r\n\r\n",
            "0\r\nTrailer: x\r\nOther:\r\n\r\n",
        ] {
            let more = format!("{body}GET /");
            assert_eq!(whole(more.as_bytes()), Ok((body.len(), ChunkScanner::Done)), "{body:?}");
        }
        for body in [
            "\r\n",
            "x\r\n",
            "0x3\r\n",
            "-3\r\n",
            "+3\r\n",
            " 3\r\n",
            "3 \r\n",
            "3\n",
            "3\r\r\n",
            "3\r\nabc0",
            "3\r\nabcd",
            "3\r\nabc\n",
            "3\r\nabc\rX",
            "3;\nabc",
            "3;\0\r\n",
            ";x\r\n",
            "1000000000000000\r\n",
            "0\r\nA: b\n",
            "0\r\n folded\r\n",
            "0\r\nA: \0\r\n",
        ] {
            assert_eq!(whole(body.as_bytes()), Err(ChunkFault), "{body:?}");
        }
        let endless = format!("3;{}", "x".repeat(257));
        assert_eq!(whole(endless.as_bytes()), Err(ChunkFault));
        let endless = format!("0\r\n{}", "X: y\r\n".repeat(3000));
        assert_eq!(whole(endless.as_bytes()), Err(ChunkFault));
    }

    proptest! {
        #[test]
        fn how_bytes_arrive_changes_nothing(
            cuts in proptest::collection::vec(1usize..9, 0..40),
            body in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut chunks = format!("{:x};e\r\n", body.len()).into_bytes();
            chunks.extend(&body);
            chunks.extend(b"\r\n0\r\nT: v\r\n\r\n");
            if body.is_empty() {
                chunks = b"0\r\n\r\n".to_vec();
            }
            let mut scanner = ChunkScanner::new();
            let mut rest = &chunks[..];
            for cut in cuts.into_iter().chain(std::iter::repeat(7)) {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                prop_assert_eq!(scanner.advance(piece), Ok(piece.len()));
                rest = after;
            }
            prop_assert_eq!(scanner, ChunkScanner::Done);
        }

        #[test]
        fn a_head_is_judged_alike_however_it_arrives(
            text in "(GET|PO ST) /[a-z]{0,4} HTTP/1.[01]\r\n([A-Z]{1,3}: ?[a-z]{0,3}\r?\n){0,4}\r\n"
        ) {
            let bytes = text.as_bytes();
            let mut scanner = HeadScanner::default();
            let mut last = Ok(None);
            for end in 1..=bytes.len() {
                last = scanner.scan(&bytes[..end], BOUNDS);
                if !matches!(last, Ok(None)) {
                    break;
                }
            }
            // Byte for byte a fault may be met before another one; never a different verdict.
            prop_assert_eq!(last.is_ok(), scan(bytes).is_ok());
        }
    }
}
