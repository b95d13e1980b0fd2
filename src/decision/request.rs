//! What the decision core sees of a request: borrowed, already split, never the body.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, Method};

/// A request as decisions see it.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path of the request target, still encoded, without its query.
    pub path: &'a str,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The client address.
    pub client: IpAddr,
}

/// The address a caller is counted under: IPv4 as it is (also when mapped into IPv6), IPv6 by its
/// /64, since whoever has one address of it has them all (spec §4.4).
#[must_use]
pub fn client_network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_networks() {
        for (client, network) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::1", "2001:db8:1:2::"),
        ] {
            let got = client_network(client.parse().unwrap());
            assert_eq!(got, network.parse::<IpAddr>().unwrap(), "{client}");
        }
    }
}
