//! Who is calling: the client address behind trusted proxies, and what the caller asked the
//! outermost of them for.
//!
//! A peer that is no trusted proxy speaks for itself alone: its address is the client address and
//! nothing it says about others is looked at. A trusted proxy's word is taken about the peer it
//! had, which is what it wrote last, at the right end of the list. If that names another trusted
//! proxy, the entry before it is that proxy's, and so on; the first address that is not trusted
//! is the client address, and whatever stands left of it came from there and is nobody's word.
//!
//! Where an entry names no address (`unknown`, an obfuscated name, nothing, nonsense) the walk
//! ends at the proxy that wrote it. Skipping the entry instead would let the caller's own claims
//! count; refusing the request would let a proxy that hides its callers serve nobody. So callers
//! whose proxy hides them share that proxy's address, and its limits, as they would without the
//! header. No caller can bring this about: lists are read from the right, `Forwarded` too, where
//! a quote that a caller left open would swallow what the proxy wrote after it for a reader who
//! comes from the left.
//!
//! This module reads header values and addresses, and knows neither sockets nor configuration.

mod authority;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;
use ipnet::IpNet;

pub(crate) use self::authority::is_authority;

/// The most entries of a list that are looked at. Nobody has so many proxies of their own; the
/// walk ends at the last one.
pub const HOPS_MAX: usize = 16;
/// The longest entry that is understood: names of hosts, and parameters nobody asked for.
pub const ENTRY_BYTES_MAX: usize = 512;

/// The scheme that the caller spoke to the outermost trusted proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// Its name in URLs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The schemes of WebSocket are those of HTTP, and some proxies name them instead.
    fn parse(text: &[u8]) -> Option<Self> {
        let is = |name: &[u8]| text.eq_ignore_ascii_case(name);
        if is(b"http") || is(b"ws") {
            Some(Self::Http)
        } else if is(b"https") || is(b"wss") {
            Some(Self::Https)
        } else {
            None
        }
    }
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The client address, never in its IPv4-mapped form.
    pub address: IpAddr,
    /// The trusted proxies between it and here, the peer last; empty when the peer is the client.
    pub proxies: ArrayVec<IpAddr, HOPS_MAX>,
    /// What a trusted proxy says the scheme was.
    pub scheme: Option<Scheme>,
    /// What a trusted proxy says the host was: a name or address with an optional port.
    pub host: Option<Box<str>>,
}

impl Caller {
    /// A caller without proxies.
    #[must_use]
    pub fn direct(peer: IpAddr) -> Self {
        Self { address: peer.to_canonical(), proxies: ArrayVec::new(), scheme: None, host: None }
    }

    /// The caller behind `peer`, by the values of `X-Forwarded-For`, `-Proto` and `-Host` in the
    /// order in which they were received.
    ///
    /// Of several schemes or hosts the last counts: that one alone is sure to be the peer's word.
    #[must_use]
    pub fn from_x_forwarded<'h>(
        peer: IpAddr,
        trusted: &[IpNet],
        addresses: impl DoubleEndedIterator<Item = &'h [u8]>,
        schemes: impl DoubleEndedIterator<Item = &'h [u8]>,
        hosts: impl DoubleEndedIterator<Item = &'h [u8]>,
    ) -> Self {
        let mut caller = Self::direct(peer);
        if !is_trusted(caller.address, trusted) {
            return caller;
        }
        for entry in Entries::new(addresses, Quotes::Plain).take(HOPS_MAX) {
            let Some(address) = entry.and_then(|entry| node(unquoted(entry))) else {
                break;
            };
            caller.go_to(address);
            if !is_trusted(address, trusted) {
                break;
            }
        }
        let last = |entry: Option<Option<&'h [u8]>>| entry.flatten().map(unquoted);
        let scheme = last(Entries::new(schemes, Quotes::Plain).next());
        let host = last(Entries::new(hosts, Quotes::Plain).next());
        caller.scheme = scheme.and_then(Scheme::parse);
        caller.host = host.and_then(authority);
        caller
    }

    /// The caller behind `peer`, by the values of `Forwarded` (RFC 7239) in the order in which
    /// they were received. Scheme and host are those the outermost trusted proxy names, or the
    /// next one if it names none.
    #[must_use]
    pub fn from_forwarded<'h>(
        peer: IpAddr,
        trusted: &[IpNet],
        values: impl DoubleEndedIterator<Item = &'h [u8]>,
    ) -> Self {
        let mut caller = Self::direct(peer);
        if !is_trusted(caller.address, trusted) {
            return caller;
        }
        for entry in Entries::new(values, Quotes::Quoted).take(HOPS_MAX) {
            let Some(element) = entry.and_then(Element::parse) else {
                break;
            };
            caller.scheme = element.scheme.or(caller.scheme);
            caller.host = element.host.or(caller.host);
            let Some(address) = element.address else {
                break;
            };
            caller.go_to(address);
            if !is_trusted(address, trusted) {
                break;
            }
        }
        caller
    }

    /// The caller so far is a trusted proxy, and says that its peer was `address`.
    fn go_to(&mut self, address: IpAddr) {
        // No more entries than the list has room for are looked at.
        self.proxies.insert(0, self.address);
        self.address = address;
    }
}

/// Whether `address` is in one of the networks.
#[must_use]
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// Whether commas in double quotes belong to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Plain,
    Quoted,
}

/// The entries of a comma-separated list over several values, from the right; `None` for one that
/// is too long, which ends the list.
struct Entries<'h, I> {
    values: I,
    quotes: Quotes,
    rest: Option<&'h [u8]>,
}

impl<'h, I: DoubleEndedIterator<Item = &'h [u8]>> Entries<'h, I> {
    fn new(values: I, quotes: Quotes) -> Self {
        Self { values, quotes, rest: None }
    }
}

impl<'h, I: DoubleEndedIterator<Item = &'h [u8]>> Iterator for Entries<'h, I> {
    type Item = Option<&'h [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = match self.rest.take() {
            Some(rest) => rest,
            None => self.values.next_back()?,
        };
        let start = entry_start(value, self.quotes);
        if start > 0 {
            self.rest = value.get(..start - 1);
        }
        let entry = value.get(start..).unwrap_or_default();
        Some((entry.len() <= ENTRY_BYTES_MAX).then(|| entry.trim_ascii()))
    }
}

/// Where the last entry of `value` begins; looks no farther than one byte past the longest entry.
fn entry_start(value: &[u8], quotes: Quotes) -> usize {
    let mut quoted = false;
    let end = value.len();
    let stop = end.saturating_sub(ENTRY_BYTES_MAX + 1);
    for (at, byte) in value.iter().enumerate().skip(stop).rev() {
        match byte {
            b'"' if quotes == Quotes::Quoted && !(quoted && is_escaped(value, at)) => {
                quoted = !quoted;
            }
            b',' if !quoted => return at + 1,
            _ => {}
        }
    }
    stop
}

/// Whether an odd number of backslashes stands before `at`. An opening quote follows `=`.
fn is_escaped(value: &[u8], at: usize) -> bool {
    let before = value.get(..at).unwrap_or_default();
    // Longer runs than an entry are in an entry that is too long.
    let run = before.iter().rev().take(ENTRY_BYTES_MAX).take_while(|b| **b == b'\\').count();
    run % 2 == 1
}

/// Some proxies quote addresses as `Forwarded` has them, in `X-Forwarded-For` too.
fn unquoted(entry: &[u8]) -> &[u8] {
    let inner = entry.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(entry)
}

/// An address with an optional port, IPv6 with or without brackets; with a port only in brackets.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        if !rest.is_empty() && !rest.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        let (address, port) = text.split_once(':')?;
        IpAddr::V4(address.parse::<Ipv4Addr>().ok().filter(|_| is_port(port))?)
    };
    Some(address.to_canonical())
}

/// A port, or the name that stands for one (RFC 7239 §6).
fn is_port(text: &str) -> bool {
    let obfuscated = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits && text.parse::<u16>().is_ok()) || text.strip_prefix('_').is_some_and(obfuscated)
}

fn authority(text: &[u8]) -> Option<Box<str>> {
    str::from_utf8(text).ok().filter(|text| is_authority(text)).map(Box::from)
}

/// What one proxy says in `Forwarded`.
#[derive(Debug, Default)]
struct Element {
    address: Option<IpAddr>,
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
}

impl Element {
    /// `None` when it is malformed, or says something twice.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut element = Self::default();
        // `for`, `proto`, `host`.
        let mut seen = [false; 3];
        let mut rest = text;
        while !rest.is_empty() {
            let (Pair { name, value }, after) = pair(rest)?;
            rest = after;
            let names: [&[u8]; 3] = [b"for", b"proto", b"host"];
            let known = names.iter().position(|known| name.eq_ignore_ascii_case(known));
            let Some(seen) = known.and_then(|known| seen.get_mut(known)) else {
                continue;
            };
            if std::mem::replace(seen, true) {
                return None;
            }
            match known {
                Some(0) => element.address = node(&value),
                Some(1) => element.scheme = Scheme::parse(&value),
                _ => element.host = authority(&value),
            }
        }
        Some(element)
    }
}

/// A parameter of an element.
struct Pair<'h> {
    name: &'h [u8],
    value: Cow<'h, [u8]>,
}

/// The first `name=value` of an element, and what follows the semicolon after it. The value is a
/// quoted string, or anything that holds no quote and no space: unquoted colons and brackets are
/// common, if not allowed.
fn pair(text: &[u8]) -> Option<(Pair<'_>, &[u8])> {
    let text = text.trim_ascii_start();
    let equals = text.iter().position(|b| *b == b'=')?;
    let (name, value) = (text.get(..equals)?, text.get(equals + 1..)?);
    if name.is_empty() || !name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
        return None;
    }
    let (value, rest) = match value {
        [b'"', quoted @ ..] => quoted_string(quoted)?,
        _ => bare(value)?,
    };
    match rest.trim_ascii_start() {
        [] => Some((Pair { name, value }, &[])),
        [b';', rest @ ..] => Some((Pair { name, value }, rest.trim_ascii_start())),
        _ => None,
    }
}

/// A value without quotes, and what follows it.
fn bare(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = text.iter().position(|b| *b == b';').unwrap_or(text.len());
    let (value, rest) = text.split_at_checked(end)?;
    let value = value.trim_ascii_end();
    let good = !value.is_empty() && !value.iter().any(|b| matches!(b, b'"' | b' ' | b'\t'));
    good.then_some((Cow::Borrowed(value), rest))
}

/// The quoted string whose opening quote was taken, and what follows it.
fn quoted_string(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = text.iter().position(|b| matches!(b, b'"' | b'\\'))?;
    if text.get(end) == Some(&b'"') {
        return Some((Cow::Borrowed(text.get(..end)?), text.get(end + 1..)?));
    }
    let mut value = Vec::new();
    let mut bytes = text.iter().enumerate();
    loop {
        match bytes.next()? {
            (at, b'"') => return Some((Cow::Owned(value), text.get(at + 1..)?)),
            (_, b'\\') => value.push(*bytes.next()?.1),
            (_, byte) => value.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn networks() -> Vec<IpNet> {
        ["10.0.0.0/8", "2001:db8:aa::/48"].iter().map(|n| n.parse().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn bytes<'h>(lines: &'h [&'h str]) -> impl DoubleEndedIterator<Item = &'h [u8]> {
        lines.iter().map(|line| line.as_bytes())
    }

    fn x_forwarded(peer: &str, lines: &[&str]) -> Caller {
        let none = || bytes(&[]);
        Caller::from_x_forwarded(ip(peer), &networks(), bytes(lines), none(), none())
    }

    #[test]
    fn addresses_from_x_forwarded_for() {
        const PEER: &str = "10.0.0.1";
        for (peer, lines, address, proxies) in [
            // Nobody who is not trusted is believed.
            ("192.0.2.1", &["1.1.1.1"][..], "192.0.2.1", &[][..]),
            ("::ffff:192.0.2.1", &["1.1.1.1"], "192.0.2.1", &[]),
            // A trusted proxy that says nothing is the caller.
            (PEER, &[], PEER, &[]),
            (PEER, &[""], PEER, &[]),
            (PEER, &["1.1.1.1"], "1.1.1.1", &[PEER]),
            ("::ffff:10.0.0.1", &["1.1.1.1"], "1.1.1.1", &[PEER]),
            // The caller's own claims stand left of what the proxy wrote.
            (PEER, &["9.9.9.9, 1.1.1.1"], "1.1.1.1", &[PEER]),
            (PEER, &["9.9.9.9", "1.1.1.1"], "1.1.1.1", &[PEER]),
            (PEER, &["10.0.0.9,1.1.1.1"], "1.1.1.1", &[PEER]),
            (PEER, &["9.9.9.9, 1.1.1.1 , 10.0.0.2"], "1.1.1.1", &["10.0.0.2", PEER]),
            (PEER, &["9.9.9.9, 1.1.1.1", "10.0.0.2"], "1.1.1.1", &["10.0.0.2", PEER]),
            (PEER, &["10.0.0.3, 10.0.0.2"], "10.0.0.3", &["10.0.0.2", PEER]),
            ("2001:db8:aa::1", &["2001:db8::7"], "2001:db8::7", &["2001:db8:aa::1"]),
            // What is no address ends the walk, and is never skipped.
            (PEER, &["1.1.1.1, unknown"], PEER, &[]),
            (PEER, &["1.1.1.1, "], PEER, &[]),
            (PEER, &["1.1.1.1", ""], PEER, &[]),
            (PEER, &["1.1.1.1, _hidden, 10.0.0.2"], "10.0.0.2", &[PEER]),
            (PEER, &["unknown, 1.1.1.1"], "1.1.1.1", &[PEER]),
        ] {
            let caller = x_forwarded(peer, lines);
            let proxies: Vec<IpAddr> = proxies.iter().map(|p| ip(p)).collect();
            assert_eq!((caller.address, &*caller.proxies), (ip(address), &*proxies), "{lines:?}");
        }
    }

    #[test]
    fn entries_that_name_an_address() {
        for (entry, address) in [
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4:0", "1.2.3.4"),
            ("1.2.3.4:65535", "1.2.3.4"),
            ("1.2.3.4:_port", "1.2.3.4"),
            ("\"1.2.3.4:80\"", "1.2.3.4"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("[::ffff:1.2.3.4]:1", "1.2.3.4"),
            ("\t1.2.3.4 ", "1.2.3.4"),
        ] {
            assert_eq!(x_forwarded("10.0.0.1", &[entry]).address, ip(address), "{entry}");
        }
        for entry in [
            "1.2.3",
            "01.2.3.4",
            "1.2.3.4.",
            "1.2.3.4:",
            "1.2.3.4:x",
            "1.2.3.4:65536",
            "1.2.3.4:+1",
            "1.2.3.4:_",
            "1.2.3.4:80:80",
            "[1.2.3.4]",
            "[::1",
            "::1]",
            "[::1]80",
            "[::1]:",
            "[::1]:-1",
            "fe80::1%eth0",
            "[fe80::1%1]",
            "1.2.3.4 5",
            "0x01020304",
            "localhost",
            "\"1.2.3.4",
            "1.2.3.4\"",
            "for=1.2.3.4",
            "unknown",
            "_x",
            "-",
        ] {
            assert_eq!(
                x_forwarded("10.0.0.1", &[entry]),
                Caller::direct(ip("10.0.0.1")),
                "{entry}"
            );
        }
    }

    #[test]
    fn lists_are_followed_only_so_far() {
        let long = vec!["10.0.0.2"; HOPS_MAX * 2].join(",");
        assert_eq!(x_forwarded("10.0.0.1", &[&long]).proxies.len(), HOPS_MAX);
        let (fits, over) = (ENTRY_BYTES_MAX - 7, ENTRY_BYTES_MAX - 6);
        for (spaces, address) in [(fits, "1.1.1.1"), (over, "10.0.0.1")] {
            let padded = format!("9.9.9.9,{}1.1.1.1", " ".repeat(spaces));
            assert_eq!(x_forwarded("10.0.0.1", &[&padded]).address, ip(address), "{spaces}");
            let alone = format!("{}1.1.1.1", " ".repeat(spaces));
            assert_eq!(x_forwarded("10.0.0.1", &[&alone]).address, ip(address), "{spaces}");
        }
    }

    #[test]
    fn schemes_and_hosts_of_x_forwarded() {
        for (peer, schemes, hosts, scheme, host) in [
            ("10.0.0.1", &["https"][..], &["a.example:8443"][..], "https", "a.example:8443"),
            ("10.0.0.1", &["HTTP"], &["[::1]:80"], "http", "[::1]:80"),
            ("10.0.0.1", &["wss"], &["\"a\""], "https", "a"),
            ("10.0.0.1", &["https, http"], &["evil", "a"], "http", "a"),
            ("10.0.0.1", &["https", ""], &["a, "], "-", "-"),
            ("10.0.0.1", &["ftp"], &["a/b"], "-", "-"),
            ("10.0.0.1", &[], &["u@a"], "-", "-"),
            ("192.0.2.1", &["https"], &["a"], "-", "-"),
        ] {
            let (peer, trusted) = (ip(peer), networks());
            let caller =
                Caller::from_x_forwarded(peer, &trusted, bytes(&[]), bytes(schemes), bytes(hosts));
            assert_eq!(caller.scheme.map_or("-", Scheme::as_str), scheme, "{schemes:?}");
            assert_eq!(caller.host.as_deref().unwrap_or("-"), host, "{hosts:?}");
        }
    }

    #[test]
    fn callers_by_forwarded() {
        const PEER: &str = "10.0.0.1";
        for (lines, address, scheme, host) in [
            (&["for=1.1.1.1"][..], "1.1.1.1", "-", "-"),
            (&["For=\"1.1.1.1\";Proto=HTTPS;Host=a"], "1.1.1.1", "https", "a"),
            (&["for=\"[2001:db8::1]:80\" ; host=\"a:1\""], "2001:db8::1", "-", "a:1"),
            (&["for=[2001:db8::1]:_x;by=_me;secret=\"a,b;c\\\"d\""], "2001:db8::1", "-", "-"),
            (&["host=\"a\\.example\";for=1.1.1.1;"], "1.1.1.1", "-", "a.example"),
            (
                &["for=1.1.1.1;proto=https;host=a, for=10.0.0.2;proto=http;host=b"],
                "1.1.1.1",
                "https",
                "a",
            ),
            (&["for=1.1.1.1", "for=10.0.0.2;proto=http;host=b"], "1.1.1.1", "http", "b"),
            // What stands left of an untrusted address is nobody's word.
            (
                &["for=9.9.9.9;proto=https;host=evil, for=1.1.1.1;proto=http"],
                "1.1.1.1",
                "http",
                "-",
            ),
            (&["for=\", for=1.1.1.1"], "1.1.1.1", "-", "-"),
            (&["for=\"\\", "for=\"1.1.1.1\""], "1.1.1.1", "-", "-"),
            (&["for=\"a, for=\\\"1.1.1.1;host=\"b\""], PEER, "-", "-"),
            // A proxy that hides its peer still says the rest.
            (&["for=9.9.9.9, for=unknown;proto=https;host=a"], PEER, "https", "a"),
            (&["for=9.9.9.9, proto=https"], PEER, "https", "-"),
            (&["for=9.9.9.9, for=_x, for=10.0.0.2"], "10.0.0.2", "-", "-"),
            // Malformed elements say nothing.
            (&["for=1.1.1.1;for=1.1.1.1"], PEER, "-", "-"),
            (&["for=1.1.1.1;proto=https;proto=http"], PEER, "-", "-"),
            (&["for=1.1.1.1;;proto=https"], PEER, "-", "-"),
            (&["for =1.1.1.1"], PEER, "-", "-"),
            (&["for=1.1.1.1 proto=https"], PEER, "-", "-"),
            (&["for=\"1.1.1.1\"x"], PEER, "-", "-"),
            (&["for=1.1.1.1\""], PEER, "-", "-"),
            (&["1.1.1.1"], PEER, "-", "-"),
            (&["for="], PEER, "-", "-"),
            (&["for=9.9.9.9,"], PEER, "-", "-"),
            (&["proto=ftp;host=\"a b\";for=1.1.1.1"], "1.1.1.1", "-", "-"),
        ] {
            let trusted = networks();
            let caller = Caller::from_forwarded(ip(PEER), &trusted, bytes(lines));
            assert_eq!(caller.address, ip(address), "{lines:?}");
            assert_eq!(caller.scheme.map_or("-", Scheme::as_str), scheme, "{lines:?}");
            assert_eq!(caller.host.as_deref().unwrap_or("-"), host, "{lines:?}");
            let untrusted = Caller::from_forwarded(ip("192.0.2.1"), &trusted, bytes(lines));
            assert_eq!(untrusted, Caller::direct(ip("192.0.2.1")));
        }
    }

    /// What a proxy may write of its peer, and what that is.
    fn hop() -> impl Strategy<Value = (String, Option<IpAddr>)> {
        let address = prop_oneof![
            (1u8..4).prop_map(|n| IpAddr::from([10, 0, 0, n])),
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<u16>().prop_map(|n| IpAddr::from([0x2001, 0xdb8, 0xaa, 0, 0, 0, 0, n])),
            any::<[u16; 8]>().prop_map(IpAddr::from),
        ];
        prop_oneof![
            8 => (address, proptest::option::of(any::<u16>())).prop_map(|(address, port)| {
                let text = match (address, port) {
                    (IpAddr::V4(v4), Some(port)) => format!("{v4}:{port}"),
                    (IpAddr::V6(v6), Some(port)) => format!("[{v6}]:{port}"),
                    (address, None) => address.to_string(),
                };
                (text, Some(address.to_canonical()))
            }),
            1 => prop_oneof![Just("unknown"), Just("_x"), Just("1.2.3"), Just("::g"), Just("")]
                .prop_map(|text| (text.to_owned(), None)),
        ]
    }

    /// The obvious reading: go left while what was named last is trusted.
    fn model(peer: IpAddr, hops: &[Option<IpAddr>]) -> IpAddr {
        let mut at = peer;
        let mut left = hops.to_vec();
        while networks().iter().any(|n| n.contains(&at)) {
            match left.pop() {
                Some(Some(next)) => at = next,
                Some(None) | None => break,
            }
        }
        at
    }

    proptest! {
        #[test]
        fn x_forwarded_for_is_read_as_the_model_reads_it(
            hops in vec((hop(), any::<bool>()), 0..HOPS_MAX),
        ) {
            let mut lines: Vec<String> = Vec::new();
            for ((text, _), new_line) in &hops {
                match lines.last_mut() {
                    Some(line) if !new_line => *line = format!("{line}, {text}"),
                    _ => lines.push(text.clone()),
                }
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let meant: Vec<_> = hops.iter().map(|((_, address), _)| *address).collect();
            let caller = x_forwarded("10.9.9.9", &lines);
            prop_assert_eq!(caller.address, model(ip("10.9.9.9"), &meant));
            let trusted = networks();
            prop_assert!(caller.proxies.iter().all(|proxy| is_trusted(*proxy, &trusted)));
        }

        /// Whatever a caller sends, the proxies' words about it are the same.
        #[test]
        fn no_caller_moves_its_address(
            claims in vec(vec(prop_oneof![
                4 => prop::sample::select(b"\"\\,;=for 10.:[]".to_vec()), 1 => any::<u8>(),
            ], 0..40), 0..3),
            own_line in any::<bool>(),
            proxies in 0u8..4,
            hidden in any::<bool>(),
        ) {
            let written = |style: fn(&str) -> String| {
                let client = style("192.0.2.7");
                let proxies = (0..proxies).map(|n| style(&format!("10.0.0.{n}")));
                std::iter::once(client).chain(proxies).collect::<Vec<_>>().join(", ")
            };
            let plain = written(str::to_owned);
            let quoted = written(|address| format!("secret=\"a\\\\\\\",\";for=\"{address}:1\""));
            for (appended, forwarded) in [(plain, false), (quoted, true)] {
                let mut lines = claims.clone();
                match lines.last_mut() {
                    Some(line) if !own_line => {
                        line.extend_from_slice(b", ");
                        line.extend_from_slice(appended.as_bytes());
                    }
                    _ => lines.push(appended.into_bytes()),
                }
                if hidden {
                    let entry = if forwarded { "for=unknown" } else { "unknown" };
                    lines.push(entry.into());
                }
                let lines = || lines.iter().map(Vec::as_slice);
                let trusted = networks();
                let none = || bytes(&[]);
                let caller = if forwarded {
                    Caller::from_forwarded(ip("10.9.9.9"), &trusted, lines())
                } else {
                    Caller::from_x_forwarded(ip("10.9.9.9"), &trusted, lines(), none(), none())
                };
                let expected = if hidden { "10.9.9.9" } else { "192.0.2.7" };
                prop_assert_eq!(caller.address, ip(expected));
            }
        }

        #[test]
        fn anything_is_read_without_panic(
            lines in vec(vec(any::<u8>(), 0..600), 0..4),
        ) {
            let trusted: Vec<IpNet> = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
            let lines = || lines.iter().map(Vec::as_slice);
            let _ = Caller::from_x_forwarded(ip("::1"), &trusted, lines(), lines(), lines());
            let _ = Caller::from_forwarded(ip("::1"), &trusted, lines());
        }
    }
}
