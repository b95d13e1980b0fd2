//! What may stand where a host is named: in `Host`, in a target, in what a proxy says of them.

use std::net::Ipv6Addr;

/// `host` or `host:port`, without user information (RFC 3986 §3.2); the host a name of letters,
/// digits, `-`, `.` and `_`, an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn is_authority(text: &str) -> bool {
    let port =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else {
            return false;
        };
        let port_ok = rest.is_empty() || rest.strip_prefix(':').is_some_and(port);
        return address.parse::<Ipv6Addr>().is_ok() && port_ok;
    }
    let (name, port_ok) = match text.split_once(':') {
        Some((name, digits)) => (name, port(digits)),
        None => (text, true),
    };
    let name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !name.is_empty() && name.len() <= 255 && name.bytes().all(name_byte) && port_ok
}
