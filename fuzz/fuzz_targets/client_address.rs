//! Who is calling: nobody whom no trusted proxy vouches for can say it, and what a plain reader
//! makes of `X-Forwarded-For` is what is read.
//!
//! Input: lines, each the value of a header field as the caller sent it.

#![no_main]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderValue;
use ipnet::IpNet;
use latchkey::client_address::{Caller, HOPS_MAX, is_trusted};
use libfuzzer_sys::fuzz_target;

const CALLER: &str = "198.51.100.7";

fuzz_target!(|input: &[u8]| {
    let trusted: Vec<IpNet> =
        ["10.0.0.0/8", "2001:db8::/32"].iter().map(|net| net.parse().expect("a network")).collect();
    let proxy = IpAddr::from([10, 0, 0, 1]);
    let caller: IpAddr = CALLER.parse().expect("an address");
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    // Others do not get past the parser of the head.
    if lines.iter().any(|line| HeaderValue::from_bytes(line).is_err()) {
        return;
    }
    let none = || std::iter::empty::<&[u8]>();
    let for_ = |peer, values: &[&[u8]]| {
        let values = values.to_vec();
        Caller::from_x_forwarded(peer, &trusted, values.into_iter(), none(), none())
    };
    let forwarded = |peer, values: &[&[u8]]| {
        Caller::from_forwarded(peer, &trusted, values.to_vec().into_iter())
    };

    // A stranger speaks for itself.
    assert_eq!(for_(caller, &lines), Caller::direct(caller));
    assert_eq!(forwarded(caller, &lines), Caller::direct(caller));

    // What a proxy writes last is its word, whatever the caller wrote before it: on a line of its
    // own, or behind a comma on the caller's last one.
    let mut apart = lines.clone();
    apart.push(CALLER.as_bytes());
    assert_eq!(for_(proxy, &apart).address, caller);
    let mut same = lines.clone();
    let joined = [lines[lines.len() - 1], b", ", CALLER.as_bytes()].concat();
    same[lines.len() - 1] = &joined;
    assert_eq!(for_(proxy, &same).address, caller);
    let element = format!("for={CALLER};proto=https");
    let mut apart = lines.clone();
    apart.push(element.as_bytes());
    assert_eq!(forwarded(proxy, &apart).address, caller);
    let joined = [lines[lines.len() - 1], b", ", element.as_bytes()].concat();
    same[lines.len() - 1] = &joined;
    assert_eq!(forwarded(proxy, &same).address, caller);

    // All of it, if the proxy wrote it.
    let read = for_(proxy, &lines);
    if lines.iter().all(|line| line.len() <= 100 && !line.contains(&b'"')) {
        assert_eq!(read.address, plain(&lines, proxy, &trusted), "{lines:?}");
    }
    for seen in [read, forwarded(proxy, &lines)] {
        assert!(seen.proxies.len() <= HOPS_MAX);
        assert!(seen.proxies.iter().all(|proxy| is_trusted(*proxy, &trusted)));
        assert_eq!(seen.address, seen.address.to_canonical());
    }
});

/// From the right, past proxies, to the first that is none.
fn plain(lines: &[&[u8]], peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let list = lines.join(&b',');
    let mut at = peer;
    for entry in list.rsplit(|byte| *byte == b',').take(HOPS_MAX) {
        let text = std::str::from_utf8(entry).ok();
        let Some(address) = text.and_then(|text| node(text.trim_matches([' ', '\t']))) else {
            break;
        };
        at = address;
        if !is_trusted(at, trusted) {
            break;
        }
    }
    at
}

/// An address, with a port or without; a port may be digits or a name (RFC 7239 §6.3).
fn node(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return Some(inner.parse::<Ipv6Addr>().ok()?.to_canonical());
    }
    // With digits in place of the name, and no zone, it is what the standard library reads.
    let (address, port) = text.rsplit_once(':').filter(|_| !text.contains('%'))?;
    let named = port.strip_prefix('_').is_some_and(|name| {
        let letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !name.is_empty() && name.chars().all(letter)
    });
    let port = if named { "1" } else { port };
    Some(format!("{address}:{port}").parse::<SocketAddr>().ok()?.ip().to_canonical())
}
