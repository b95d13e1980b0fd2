//! `traceparent` and `tracestate` as W3C Trace Context has them (Recommendation, level 1), and of
//! level 2 the flag that says the trace id is random.
//!
//! It reads and writes; whose word is taken is `begin`'s to say. A `traceparent` that is malformed
//! in any way is none at all, and without one a `tracestate` means nothing.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use arrayvec::ArrayVec;

/// The length of a `traceparent` of version 00; a higher version begins with as much.
pub const TRACEPARENT_BYTES: usize = 55;

/// Most bytes of a `tracestate`, over all its fields, that are passed on: what the specification
/// asks everybody to pass on, and no more.
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// Most members of a `tracestate` (§3.3.1.1).
pub const TRACESTATE_MEMBERS_MAX: usize = 32;

const KEY_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 256;
/// Of the two parts of a key with an `@` in it.
const TENANT_BYTES_MAX: usize = 241;
const SYSTEM_BYTES_MAX: usize = 14;

/// Names a trace: 32 hex digits, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// The trace of this number; zero is none.
    #[must_use]
    pub fn new(number: u128) -> Option<Self> {
        NonZeroU128::new(number).map(Self)
    }

    /// From random bits; the one in 2^128 that is no trace becomes another.
    #[must_use]
    pub fn from_random(high: u64, low: u64) -> Self {
        let number = u128::from(high) << 64 | u128::from(low);
        Self(NonZeroU128::new(number).unwrap_or(NonZeroU128::MIN))
    }

    /// The 56 bits that level 2 calls random if its flag is set.
    #[must_use]
    pub fn randomness(self) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
        let low = self.0.get() as u64;
        low & ((1 << 56) - 1)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Names a span of a trace: 16 hex digits, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// The span of this number; zero is none.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// From random bits; the one in 2^64 that is no span becomes another.
    #[must_use]
    pub fn from_random(number: u64) -> Self {
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What is said of a trace as a whole. Bits that nobody has defined yet are not kept: whoever
/// does not know what they mean must not pass them on (§3.2.2.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// The caller may have recorded it.
    pub sampled: bool,
    /// The low 56 bits of its id are random (level 2).
    pub random: bool,
}

impl Flags {
    /// The flags of a byte.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self { sampled: bits & 1 != 0, random: bits & 2 != 0 }
    }

    /// As a byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.sampled as u8 | (self.random as u8) << 1
    }
}

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span in it.
    pub span: SpanId,
    /// Of the trace.
    pub flags: Flags,
}

impl Parent {
    /// What the values of all `traceparent` fields of a request say: nothing, unless there is
    /// exactly one and it is well-formed.
    #[must_use]
    pub fn of<'h>(mut values: impl Iterator<Item = &'h [u8]>) -> Option<Self> {
        let only = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(only)
    }

    /// What one value says. Version 00 is taken to the letter; of a higher one the part that
    /// version 00 has too, as §3.2.4 asks for; ff is no version.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (fields, rest) = value.split_at_checked(TRACEPARENT_BYTES)?;
        let mut fields = fields.split(|byte| *byte == b'-');
        let version = hex(fields.next()?, 2)?;
        let trace = hex(fields.next()?, 32)?;
        let span = hex(fields.next()?, 16)?;
        let flags = hex(fields.next()?, 2)?;
        let goes_on = match rest.first() {
            None => version != 0xff,
            Some(b'-') => version != 0xff && version != 0,
            Some(_) => false,
        };
        if !goes_on || fields.next().is_some() {
            return None;
        }
        Some(Self {
            trace: TraceId::new(trace)?,
            span: SpanId::new(u64::try_from(span).ok()?)?,
            flags: Flags::from_bits(u8::try_from(flags).ok()?),
        })
    }

    /// As a `traceparent` of version 00.
    #[must_use]
    pub fn write(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut value = [b'-'; TRACEPARENT_BYTES];
        let fields: [(usize, u32, u128); 4] = [
            (0, 2, 0),
            (3, 32, self.trace.0.get()),
            (36, 16, u128::from(self.span.0.get())),
            (53, 2, u128::from(self.flags.bits())),
        ];
        for (at, digits, number) in fields {
            let shifts = (0..digits).rev().map(|digit| digit * 4);
            for (byte, shift) in value.iter_mut().skip(at).zip(shifts) {
                *byte = digit(number >> shift);
            }
        }
        value
    }
}

/// A lower-case hex digit, of the low four bits.
fn digit(number: u128) -> u8 {
    match (number & 0xf) as u8 {
        low @ 0..=9 => b'0' + low,
        low => b'a' + (low - 10),
    }
}

/// The number that exactly so many lower-case hex digits spell.
fn hex(text: &[u8], digits: usize) -> Option<u128> {
    if text.len() != digits {
        return None;
    }
    text.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// Whether the values of all `tracestate` fields of a request are together well-formed and within
/// bounds, so that they may be passed on as they are. Members are looked at, and not understood.
#[must_use]
pub fn is_passable<'h>(values: impl Iterator<Item = &'h [u8]>) -> bool {
    let mut keys = ArrayVec::<&[u8], TRACESTATE_MEMBERS_MAX>::new();
    let mut bytes = 0usize;
    for value in values {
        // Several fields are one, with commas between them.
        bytes = bytes.saturating_add(usize::from(bytes > 0)).saturating_add(value.len());
        if bytes > TRACESTATE_BYTES_MAX {
            return false;
        }
        for member in value.split(|byte| *byte == b',') {
            let member = trim(member);
            if member.is_empty() {
                continue;
            }
            let Some(key) = key_of(member) else {
                return false;
            };
            if keys.contains(&key) || keys.try_push(key).is_err() {
                return false;
            }
        }
    }
    true
}

/// Without the optional white space around it.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The key of a member that is well-formed.
fn key_of(member: &[u8]) -> Option<&[u8]> {
    let (key, value) = member.split_at_checked(member.iter().position(|byte| *byte == b'=')?)?;
    let value = value.get(1..)?;
    let sound = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'=';
    let is_value = (1..=VALUE_BYTES_MAX).contains(&value.len()) && value.iter().all(sound);
    (is_value && is_key(key)).then_some(key)
}

fn is_key(key: &[u8]) -> bool {
    let sound =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(byte);
    let part = |part: &[u8], max: usize, digit_first: bool| {
        let first = part.first().copied().unwrap_or_default();
        let starts = first.is_ascii_lowercase() || (digit_first && first.is_ascii_digit());
        starts && part.len() <= max && part.iter().all(sound)
    };
    let mut parts = key.split(|byte| *byte == b'@');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(simple), None, _) => part(simple, KEY_BYTES_MAX, false),
        (Some(tenant), Some(system), None) => {
            part(tenant, TENANT_BYTES_MAX, true) && part(system, SYSTEM_BYTES_MAX, false)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn parsed(value: &str) -> Option<(String, String, u8)> {
        let parent = Parent::parse(value.as_bytes())?;
        Some((parent.trace.to_string(), parent.span.to_string(), parent.flags.bits()))
    }

    #[test]
    fn well_formed_ones() {
        for (version, flags, rest, expected) in [
            ("00", "00", "", 0),
            ("00", "01", "", 1),
            ("00", "02", "", 2),
            ("00", "03", "", 3),
            // Bits that nobody has defined are not passed on.
            ("00", "ff", "", 3),
            ("00", "fc", "", 0),
            ("01", "01", "", 1),
            ("cc", "01", "-", 1),
            ("cc", "01", "-what-the-future.will=bring", 1),
            ("fe", "09", "-", 1),
        ] {
            let value = format!("{version}-{TRACE}-{SPAN}-{flags}{rest}");
            let expected = (TRACE.to_owned(), SPAN.to_owned(), expected);
            assert_eq!(parsed(&value), Some(expected), "{value}");
        }
    }

    #[test]
    fn malformed_ones() {
        let zero_trace = "0".repeat(32);
        let upper = TRACE.to_uppercase();
        for value in [
            String::new(),
            "00".into(),
            TRACE.into(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-011"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-x"),
            format!("00-{TRACE}-{SPAN}-01 "),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("ff-{TRACE}-{SPAN}-01-x"),
            format!("FE-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("000-{TRACE}-{SPAN}-01"),
            format!("01-{TRACE}-{SPAN}-01x"),
            format!("01-{TRACE}-{SPAN}-01."),
            format!("00-{zero_trace}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-0A"),
            format!("00-{}-{SPAN}-01", TRACE.replace('4', "g")),
            format!("00-{TRACE}a-{SPAN}-01"),
            format!("00-{}-{SPAN}a-01", TRACE.trim_start_matches('4')),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{TRACE}-{SPAN}+01"),
            format!("00-{TRACE}-{SPAN}-+1"),
            format!("00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(parsed(&value), None, "{value:?}");
        }
    }

    #[test]
    fn two_fields_are_none() {
        let value = format!("00-{TRACE}-{SPAN}-01");
        let of = |count: usize| Parent::of(std::iter::repeat_n(value.as_bytes(), count));
        assert!(of(0).is_none() && of(1).is_some() && of(2).is_none() && of(3).is_none());
        assert_eq!(Parent::of([value.as_bytes(), b""].into_iter()), None);
    }

    #[test]
    fn members_of_a_tracestate() {
        let long_key = format!("{}=1", "a".repeat(257));
        let long_value = format!("a={}", "v".repeat(257));
        let most = (0..32).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let more = format!("{most},k32=v");
        let (first, second) = (format!("a={}", "v".repeat(256)), format!("b={}", "v".repeat(251)));
        let full = format!("{first},{second}");
        let (over, second_over) = (format!("{full}v"), format!("{second}v"));
        for (values, passable) in [
            (&[][..], true),
            (&[""], true),
            (&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], true),
            (&["rojo=1", "congo=2"], true),
            (&["foo=1 \t , \t bar=2,"], true),
            (&["foo= 1"], true),
            (&["0tenant@system=1,a@b=2"], true),
            (&["a*/_-9=1"], true),
            (&[&most], true),
            (&[&full], true),
            (&[&first, &second], true),
            (&[&more], false),
            (&[&most, "k32=v"], false),
            (&[&over], false),
            (&[&first, &second_over], false),
            (&[&long_key], false),
            (&[&long_value], false),
            (&["foo"], false),
            (&["foo="], false),
            (&["=1"], false),
            (&["foo=1,foo=2"], false),
            (&["foo=1", "foo=1"], false),
            (&["foo=1=2"], false),
            (&["Foo=1"], false),
            (&["0foo=1"], false),
            (&["foo =1"], false),
            (&["foo@=1"], false),
            (&["@foo=1"], false),
            (&["foo@@bar=1"], false),
            (&["a@b@c=1"], false),
            (&["a@0b=1"], false),
            (&["a@abcdefghijklmno=1"], false),
            (&["foo=a\u{7f}"], false),
            (&["foo=é"], false),
            (&["foo=a\tb"], false),
            (&["foo=1;bar=2"], false),
            (&["foo.bar=1"], false),
        ] {
            let bytes = values.iter().map(|value| value.as_bytes());
            assert_eq!(is_passable(bytes), passable, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(trace in 1u128.., span in 1u64.., bits in 0u8..4) {
            let parent = Parent {
                trace: TraceId::new(trace).unwrap(),
                span: SpanId::new(span).unwrap(),
                flags: Flags::from_bits(bits),
            };
            let value = parent.write();
            let spelled = format!("00-{trace:032x}-{span:016x}-{bits:02x}");
            prop_assert_eq!(std::str::from_utf8(&value).unwrap(), spelled);
            prop_assert_eq!(Parent::parse(&value), Some(parent));
        }

        /// A reader of another make: the grammar as a list of what stands where.
        #[test]
        fn a_plain_reader_agrees(
            version in "(00|01|ff|fe|0g|0|000)",
            trace in "([0-9a-f]{32}|[0-9a-f]{31}|0{32}|[0-9A-F]{32})",
            span in "([0-9a-f]{16}|[0-9a-f]{17}|0{16})",
            flags in "([0-9a-f]{2}|[0-9]|zz)",
            rest in "(|-|-[a-z-]{0,9}|[a-z])",
        ) {
            let value = format!("{version}-{trace}-{span}-{flags}{rest}");
            let lower = |text: &str, length| text.len() == length
                && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
            // What follows may itself be what is missing: a flag's second digit.
            let tail = format!("{flags}{rest}");
            let (flags, rest) = tail.split_at(tail.len().min(2));
            let sound = lower(&version, 2)
                && version != "ff"
                && lower(&trace, 32)
                && trace.chars().any(|c| c != '0')
                && lower(&span, 16)
                && span.chars().any(|c| c != '0')
                && lower(flags, 2)
                && (rest.is_empty() || (version != "00" && rest.starts_with('-')));
            prop_assert_eq!(Parent::parse(value.as_bytes()).is_some(), sound, "{}", value);
        }

        #[test]
        fn nothing_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Parent::parse(&value);
            let _ = is_passable(std::iter::once(&value[..]));
        }
    }
}
