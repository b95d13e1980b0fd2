//! Origins: one parser, one comparison (spec §3.5, RFC 6454), for shops' URLs, widget origins and
//! what browsers send.
//!
//! Never compares by prefix or suffix of text: both sides are parsed, and scheme, host and
//! effective port are compared. The request side is parsed without allocating.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest origin or referer that is looked at, in bytes.
pub const ORIGIN_BYTES_MAX: usize = 2048;

/// `http` or `https`; no other scheme is an origin here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP, default port 80.
    Http,
    /// HTTP over TLS, default port 443.
    Https,
}

impl Scheme {
    /// The port meant when none is written (RFC 9110 §4.2).
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Why a text is not an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// The scheme is missing or neither `http` nor `https`.
    #[error("an origin starts with http:// or https://")]
    Scheme,
    /// The host is missing or not a host name or address.
    #[error("the host is not a valid host name or address")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// User information, a path, a query or a fragment where none belongs.
    #[error("an origin is only scheme, host and port: no user, path, query or fragment")]
    Excess,
}

/// A parsed origin as configured: scheme, host, effective port. The host is lower case, an
/// A-label if it was international.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Scheme,
    host: Box<str>,
    port: u16,
}

impl Origin {
    /// Parses a shop's URL or a configured origin: scheme, host, optional port, optionally a
    /// single trailing `/`. International hosts become A-labels (IDNA, UTS 46).
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let (scheme, authority) = split_scheme(text)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = split_port(authority, scheme)?;
        let host = canonical_host(host)?;
        Ok(Self { scheme, host: host.into(), port })
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    fn as_ref(&self) -> OriginRef<'_> {
        OriginRef { scheme: self.scheme, host: &self.host, port: self.port }
    }
}

/// The serialization of RFC 6454 §6.2: the port only where it is not the scheme's own.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An origin a widget may be embedded on: an exact one, or any subdomain (`https://*.example.com`,
/// or without a scheme `*.example.com` and `example.com`, for https and http on default ports).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPattern {
    /// `None`: either scheme, each on its default port.
    scheme: Option<Scheme>,
    host: Box<str>,
    /// `None`: the scheme's default port.
    port: Option<u16>,
    subdomains: bool,
}

impl OriginPattern {
    /// Parses a configured pattern. `*.` stands for one or more labels and does not match the
    /// bare domain.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let (scheme, authority) = match split_scheme(text) {
            Ok((scheme, authority)) => (Some(scheme), authority),
            Err(_) if !text.contains("://") => (None, text),
            Err(error) => return Err(error),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (authority, subdomains) = match authority.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (authority, false),
        };
        let (host, port) = split_port_optional(authority)?;
        let host = canonical_host(host)?;
        if subdomains && (!host.contains('.') || host.parse::<Ipv4Addr>().is_ok()) {
            // `*.com` would hand the widget to a whole registry.
            return Err(OriginError::Host);
        }
        Ok(Self { scheme, host: host.into(), port, subdomains })
    }

    /// Whether a browser on `presented` is where this pattern allows it (spec §2.5).
    #[must_use]
    pub fn matches(&self, presented: OriginRef<'_>, rules: Rules) -> bool {
        if self.subdomains {
            let Some(head) = strip_suffix_ignore_case(presented.host, &self.host) else {
                return false;
            };
            let Some(labels) = head.strip_suffix('.') else {
                return false;
            };
            if labels.is_empty() {
                return false;
            }
            return self.schemes_and_ports(presented, rules);
        }
        same_host(presented.host, &self.host, rules.www_alias)
            && self.schemes_and_ports(presented, rules)
    }

    fn schemes_and_ports(&self, presented: OriginRef<'_>, rules: Rules) -> bool {
        let scheme = self.scheme.unwrap_or(presented.scheme);
        let port = self.port.unwrap_or(scheme.default_port());
        same_scheme_and_port(presented, scheme, port, rules)
    }
}

/// The pattern that matches exactly the pages that [`is_same_site`] finds on the origin.
impl From<&Origin> for OriginPattern {
    fn from(origin: &Origin) -> Self {
        let Origin { scheme, host, port } = origin;
        let port = Some(*port).filter(|port| *port != scheme.default_port());
        Self { scheme: Some(*scheme), host: host.clone(), port, subdomains: false }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(f, "{}://", scheme.as_str())?;
        }
        if self.subdomains {
            f.write_str("*.")?;
        }
        f.write_str(&self.host)?;
        match self.port {
            Some(port) if self.scheme.map(Scheme::default_port) != Some(port) => {
                write!(f, ":{port}")
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The two relaxations of spec §3.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A leading `www.` is the same site on either side.
    pub www_alias: bool,
    /// The scheme does not count (and with it not the difference of default ports).
    pub ignore_scheme: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { www_alias: true, ignore_scheme: false }
    }
}

/// What a browser said, parsed but borrowed; the host may hold upper case.
#[derive(Debug, Clone, Copy)]
pub struct OriginRef<'a> {
    scheme: Scheme,
    host: &'a str,
    port: u16,
}

impl<'a> OriginRef<'a> {
    /// Parses an `Origin` field's value (RFC 6454 §7). `null` is not an origin.
    pub fn parse_origin(text: &'a str) -> Result<Self, OriginError> {
        if text.len() > ORIGIN_BYTES_MAX {
            return Err(OriginError::Excess);
        }
        let (scheme, authority) = split_scheme(text)?;
        let (host, port) = split_port(authority, scheme)?;
        check_ascii_host(host)?;
        Ok(Self { scheme, host, port })
    }

    /// Parses the origin of a `Referer` field's value (RFC 9110 §10.1.3): path and query may
    /// follow, user information may not.
    pub fn parse_referer(text: &'a str) -> Result<Self, OriginError> {
        if text.len() > ORIGIN_BYTES_MAX {
            return Err(OriginError::Excess);
        }
        let (_, rest) = split_scheme(text)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let cut = text.len() - rest.len() + end;
        Self::parse_origin(text.get(..cut).ok_or(OriginError::Host)?)
    }

    /// Whether the host is the machine itself: `localhost`, `*.localhost` (RFC 6761 §6.3),
    /// 127.0.0.0/8 or `[::1]`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host;
        if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            return v6.parse::<Ipv6Addr>().is_ok_and(|a| a.is_loopback());
        }
        host.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback())
            || host.eq_ignore_ascii_case("localhost")
            || strip_suffix_ignore_case(host, ".localhost").is_some_and(|head| !head.is_empty())
    }
}

/// Whether a browser on `presented` is on the site `shop` (spec §3.5).
#[must_use]
pub fn is_same_site(presented: OriginRef<'_>, shop: &Origin, rules: Rules) -> bool {
    let shop = shop.as_ref();
    same_host(presented.host, shop.host, rules.www_alias)
        && same_scheme_and_port(presented, shop.scheme, shop.port, rules)
}

/// Whether a browser on `presented` may embed a widget of `shop` with the extra origins `extra`
/// (spec §2.5).
#[must_use]
pub fn may_embed(
    presented: OriginRef<'_>,
    shop: &Origin,
    extra: &[OriginPattern],
    rules: Rules,
) -> bool {
    is_same_site(presented, shop, rules) || extra.iter().any(|p| p.matches(presented, rules))
}

/// Where an index of patterns keeps `pattern`: see [`find_pattern`].
pub fn pattern_key(pattern: &OriginPattern, hasher: &impl BuildHasher) -> u64 {
    let (host, kind) = if pattern.subdomains {
        (&*pattern.host, KeyKind::Subdomains)
    } else {
        (bare(&pattern.host), KeyKind::Exact)
    };
    let mut state = hasher.build_hasher();
    host.bytes().rev().for_each(|byte| state.write_u8(byte));
    let default = pattern.scheme.map(Scheme::default_port);
    let port = pattern.port.filter(|port| Some(*port) != default);
    key(state, kind, port.unwrap_or(DEFAULT_PORT))
}

/// Asks `found` about the [`pattern_key`]s of all patterns that could match `page` under any
/// [`Rules`], until it finds one that does. Other patterns may have one of these keys: `found` has
/// to ask [`OriginPattern::matches`].
///
/// Reads the host once, from its end: a key per parent domain, and one for the host itself
/// without `www.`; each for the port as it is and, if it is the scheme's own, for no port.
pub fn find_pattern<B: BuildHasher>(
    page: OriginRef<'_>,
    hasher: &B,
    mut found: impl FnMut(u64) -> bool,
) -> bool
where
    B::Hasher: Clone,
{
    let is_default = page.port == page.scheme.default_port();
    let mut ask = |state: &B::Hasher, kind| {
        found(key(state.clone(), kind, page.port))
            || (is_default && found(key(state.clone(), kind, DEFAULT_PORT)))
    };
    let mut state = hasher.build_hasher();
    let bare_len = bare(page.host).len();
    for (read, byte) in page.host.bytes().rev().enumerate() {
        if byte == b'.' && ask(&state, KeyKind::Subdomains) {
            return true;
        }
        if read == bare_len && ask(&state, KeyKind::Exact) {
            return true;
        }
        state.write_u8(byte.to_ascii_lowercase());
    }
    bare_len == page.host.len() && ask(&state, KeyKind::Exact)
}

/// Stands for the scheme's own port in a key; no port is 0.
const DEFAULT_PORT: u16 = 0;

#[derive(Clone, Copy)]
enum KeyKind {
    Exact,
    Subdomains,
}

fn key(mut state: impl Hasher, kind: KeyKind, port: u16) -> u64 {
    // No host holds this byte, so that no host runs into what follows it.
    state.write_u8(b'/');
    state.write_u8(kind as u8);
    state.write_u16(port);
    state.finish()
}

fn same_scheme_and_port(presented: OriginRef<'_>, scheme: Scheme, port: u16, rules: Rules) -> bool {
    let upgraded = scheme == Scheme::Http && presented.scheme == Scheme::Https;
    if presented.scheme == scheme {
        return presented.port == port;
    }
    if !(upgraded || rules.ignore_scheme) {
        return false;
    }
    // Another scheme brings its own default port with it; a port that was written must be equal.
    let both_default =
        presented.port == presented.scheme.default_port() && port == scheme.default_port();
    both_default || (presented.port == port && port != scheme.default_port())
}

fn same_host(presented: &str, configured: &str, www_alias: bool) -> bool {
    if presented.eq_ignore_ascii_case(configured) {
        return true;
    }
    if !www_alias {
        return false;
    }
    bare(presented).eq_ignore_ascii_case(bare(configured))
}

/// The host without a leading `www.`.
fn bare(host: &str) -> &str {
    strip_prefix_ignore_case(host, "www.").unwrap_or(host)
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn strip_suffix_ignore_case<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let (rest, tail) = text.split_at_checked(text.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(rest)
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), OriginError> {
    if let Some(rest) = strip_prefix_ignore_case(text, "https://") {
        return Ok((Scheme::Https, rest));
    }
    match strip_prefix_ignore_case(text, "http://") {
        Some(rest) => Ok((Scheme::Http, rest)),
        None => Err(OriginError::Scheme),
    }
}

fn split_port(authority: &str, scheme: Scheme) -> Result<(&str, u16), OriginError> {
    let (host, port) = split_port_optional(authority)?;
    Ok((host, port.unwrap_or(scheme.default_port())))
}

fn split_port_optional(authority: &str) -> Result<(&str, Option<u16>), OriginError> {
    if authority.contains(['/', '?', '#', '@', '\\']) {
        return Err(OriginError::Excess);
    }
    let host_end = match authority.strip_prefix('[') {
        Some(v6) => v6.find(']').ok_or(OriginError::Host)? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(host_end).ok_or(OriginError::Host)?;
    if rest.is_empty() {
        return Ok((host, None));
    }
    let digits = rest.strip_prefix(':').ok_or(OriginError::Host)?;
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(OriginError::Port);
    }
    match digits.parse::<u16>() {
        Ok(port) if port > 0 => Ok((host, Some(port))),
        Ok(_) | Err(_) => Err(OriginError::Port),
    }
}

/// A configured host as compared: lower case, A-labels, IPv6 in its canonical text.
fn canonical_host(host: &str) -> Result<String, OriginError> {
    if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let address: Ipv6Addr = v6.parse().map_err(|_| OriginError::Host)?;
        return Ok(format!("[{address}]"));
    }
    let ascii = idna::domain_to_ascii_strict(host).map_err(|_| OriginError::Host)?;
    check_ascii_host(&ascii)?;
    Ok(ascii)
}

/// A host name (RFC 1123 §2.1, underscores tolerated as browsers do) or an IP address literal.
fn check_ascii_host(host: &str) -> Result<(), OriginError> {
    if let Some(v6) = host.strip_prefix('[') {
        let v6 = v6.strip_suffix(']').ok_or(OriginError::Host)?;
        return v6.parse::<Ipv6Addr>().map(|_| ()).map_err(|_| OriginError::Host);
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    // A last label of digits only makes it an IPv4 address, which must then parse as one.
    let numeric_tail =
        |h: &str| h.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    let name = !host.is_empty() && host.len() <= 253 && host.split('.').all(label);
    if name && (!numeric_tail(host) || host.parse::<Ipv4Addr>().is_ok()) {
        Ok(())
    } else {
        Err(OriginError::Host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(presented: &str, shop: &str, rules: Rules) -> bool {
        let shop = Origin::parse(shop).unwrap();
        OriginRef::parse_origin(presented).is_ok_and(|p| is_same_site(p, &shop, rules))
    }

    #[test]
    fn same_site_table() {
        let rules = Rules::default();
        let strict = Rules { www_alias: false, ..rules };
        let loose = Rules { ignore_scheme: true, ..rules };
        for (presented, shop, rules, expected) in [
            ("https://shop.example", "https://shop.example", rules, true),
            ("https://SHOP.example", "https://shop.example/", rules, true),
            ("https://shop.example:443", "https://shop.example", rules, true),
            ("https://shop.example:8443", "https://shop.example", rules, false),
            ("https://www.shop.example", "https://shop.example", rules, true),
            ("https://shop.example", "https://www.shop.example", rules, true),
            ("https://www.shop.example", "https://shop.example", strict, false),
            ("https://www.www.shop.example", "https://shop.example", rules, false),
            ("https://shop.example", "http://shop.example", rules, true),
            ("http://shop.example", "https://shop.example", rules, false),
            ("http://shop.example", "https://shop.example", loose, true),
            ("https://shop.example:80", "http://shop.example", rules, false),
            ("https://shop.example:8080", "http://shop.example:8080", rules, true),
            ("https://shop.example.evil.com", "https://shop.example", rules, false),
            ("https://evilshop.example", "https://shop.example", rules, false),
            ("https://shop.example.", "https://shop.example", rules, false),
            ("https://user@shop.example", "https://shop.example", rules, false),
            ("https://shop.example/", "https://shop.example", rules, false),
            ("https://shop.example?x", "https://shop.example", rules, false),
            ("https://shop.example#x", "https://shop.example", rules, false),
            ("https://shop.example\\@evil", "https://shop.example", rules, false),
            ("null", "https://shop.example", rules, false),
            ("", "https://shop.example", rules, false),
            ("https://", "https://shop.example", rules, false),
            ("ftp://shop.example", "https://shop.example", rules, false),
            ("https://shop.example:0", "https://shop.example", rules, false),
            ("https://shop.example:", "https://shop.example", rules, false),
            ("https://shop.example:99999", "https://shop.example", rules, false),
            ("https://xn--bcher-kva.example", "https://bücher.example", rules, true),
            ("https://bücher.example", "https://bücher.example", rules, false),
            ("https://[::1]:3000", "https://[0:0::1]:3000", rules, true),
            ("https://127.0.0.1", "https://127.0.0.1", rules, true),
            ("https://127.0.1", "https://127.0.0.1", rules, false),
        ] {
            assert_eq!(same(presented, shop, rules), expected, "{presented} on {shop} {rules:?}");
        }
    }

    #[test]
    fn embedding_table() {
        let shop = Origin::parse("https://shop.example").unwrap();
        for (pattern, presented, expected) in [
            ("*.partner.com", "https://a.partner.com", true),
            ("*.partner.com", "https://a.b.PARTNER.com", true),
            ("*.partner.com", "http://a.partner.com", true),
            ("*.partner.com", "https://partner.com", false),
            ("*.partner.com", "https://evilpartner.com", false),
            ("*.partner.com", "https://.partner.com", false),
            ("*.partner.com", "https://a.partner.com:8443", false),
            ("https://*.partner.com:8443", "https://a.partner.com:8443", true),
            ("https://*.partner.com", "http://a.partner.com", false),
            ("partner.com", "https://partner.com", true),
            ("https://partner.com", "https://www.partner.com", true),
            ("partner.com", "https://a.partner.com", false),
            ("partner.com", "https://shop.example", true),
        ] {
            let extra = [OriginPattern::parse(pattern).unwrap()];
            let got = OriginRef::parse_origin(presented)
                .is_ok_and(|p| may_embed(p, &shop, &extra, Rules::default()));
            assert_eq!(got, expected, "{presented} under {pattern}");
        }
        for bad in ["*.com", "*", "*.", "https://*", "a.*.com", "*.1.2.3.4", "*.a.com/x"] {
            assert!(OriginPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_index_is_asked_a_few_times_whatever_is_sent() {
        let labels = vec!["a"; 126].join(".");
        for (origin, times) in [
            (format!("https://{labels}"), 2 * 126),
            (format!("https://{labels}:8443"), 126),
            ("https://www.shop.example".to_owned(), 2 * 3),
            ("http://[::1]:1".to_owned(), 1),
        ] {
            let mut asked = 0;
            let page = OriginRef::parse_origin(&origin).unwrap();
            let hasher = std::hash::RandomState::new();
            assert!(!find_pattern(page, &hasher, |_| {
                asked += 1;
                false
            }));
            assert_eq!(asked, times, "{origin}");
        }
    }

    #[test]
    fn referers() {
        let shop = Origin::parse("https://shop.example").unwrap();
        for (referer, expected) in [
            ("https://shop.example/cart?x=1#y", true),
            ("https://shop.example", true),
            ("https://shop.example?x", true),
            ("https://evil.com/https://shop.example", false),
            ("https://shop.example@evil.com/", false),
            ("https://user@shop.example/", false),
            ("about:blank", false),
        ] {
            let got = OriginRef::parse_referer(referer)
                .is_ok_and(|p| is_same_site(p, &shop, Rules::default()));
            assert_eq!(got, expected, "{referer}");
        }
    }

    #[test]
    fn loopback_hosts() {
        for (origin, expected) in [
            ("http://localhost:3000", true),
            ("http://a.LOCALHOST", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:5173", true),
            ("http://.localhost", false),
            ("http://localhost.evil.com", false),
            ("http://notlocalhost", false),
            ("http://128.0.0.1", false),
        ] {
            let got = OriginRef::parse_origin(origin).is_ok_and(|o| o.is_loopback());
            assert_eq!(got, expected, "{origin}");
        }
    }

    #[test]
    fn display_is_the_serialization() {
        for (text, shown) in [
            ("HTTPS://Shop.Example:443/", "https://shop.example"),
            ("http://shop.example:8080", "http://shop.example:8080"),
        ] {
            assert_eq!(Origin::parse(text).unwrap().to_string(), shown);
        }
        for text in ["*.partner.com", "https://*.partner.com", "http://partner.com:8080"] {
            assert_eq!(OriginPattern::parse(text).unwrap().to_string(), text);
        }
    }
}
