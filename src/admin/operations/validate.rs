//! What names, origins, expiries and the like must look like. Every fault is collected, so that
//! nobody corrects a request one message at a time.
//!
//! Looks at nothing but what was sent: what exists already is the operation's to check.

use std::time::Duration;

use ipnet::IpNet;

use super::OperationError;
use crate::clock::Timestamp;
use crate::decision::origin::{Origin, OriginPattern};

/// Longest name, in characters.
pub(super) const NAME_CHARS_MAX: usize = 100;
/// Most widget origins of a shop.
pub(super) const WIDGET_ORIGINS_MAX: usize = 50;
/// Most source networks of a key.
pub(super) const NETWORKS_MAX: usize = 50;
/// Longest origin, in bytes.
const ORIGIN_BYTES_MAX: usize = 300;

/// A fault of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// Where: a member, as a path such as `networks[2]`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// All faults in one line.
pub(super) fn summary(problems: &[FieldProblem]) -> String {
    let line = |p: &FieldProblem| format!("{}: {}", p.field, p.problem);
    problems.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// Collects faults.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<FieldProblem>);

impl Faults {
    pub(super) fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.0.push(FieldProblem { field: field.into(), problem: problem.into() });
    }

    /// Whether there was none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each fault by itself.
    pub(super) fn lines(self) -> Vec<String> {
        self.0.into_iter().map(|fault| format!("{}: {}", fault.field, fault.problem)).collect()
    }

    /// The end: an error if there was any fault.
    pub(super) fn into_result(self) -> Result<(), OperationError> {
        if self.0.is_empty() { Ok(()) } else { Err(OperationError::Invalid(self.0)) }
    }

    /// A name for people. `what` may not be empty; a shop's and a key's name may.
    pub(super) fn name(&mut self, field: &str, text: &str, may_be_empty: bool) {
        if text.chars().count() > NAME_CHARS_MAX {
            self.add(field, format!("longer than {NAME_CHARS_MAX} characters"));
        }
        if text.chars().any(char::is_control) {
            self.add(field, "holds a control character");
        }
        if !may_be_empty && text.trim().is_empty() {
            self.add(field, "is empty; give it a name that people will recognize");
        }
    }

    /// A shop's own site.
    pub(super) fn url(&mut self, field: &str, text: &str) {
        if text.len() > ORIGIN_BYTES_MAX {
            self.add(field, format!("longer than {ORIGIN_BYTES_MAX} bytes"));
        } else if let Err(error) = Origin::parse(text) {
            self.add(field, format!("{error}; write it as `https://shop.example`"));
        }
    }

    /// Where a shop's widget may run besides its own site.
    pub(super) fn widget_origins(&mut self, field: &str, origins: &[String]) {
        if origins.len() > WIDGET_ORIGINS_MAX {
            self.add(field, format!("more than {WIDGET_ORIGINS_MAX} origins"));
        }
        for (i, text) in origins.iter().take(WIDGET_ORIGINS_MAX).enumerate() {
            let place = format!("{field}[{i}]");
            if text.len() > ORIGIN_BYTES_MAX {
                self.add(place, format!("longer than {ORIGIN_BYTES_MAX} bytes"));
            } else if let Err(error) = OriginPattern::parse(text) {
                self.add(place, format!("{error}; for subdomains write `*.example.com`"));
            }
        }
    }

    /// Source networks: an address, or a network with no bit set beyond its prefix.
    pub(super) fn networks(&mut self, field: &str, texts: &[String]) -> Vec<IpNet> {
        if texts.len() > NETWORKS_MAX {
            self.add(field, format!("more than {NETWORKS_MAX} networks"));
        }
        let mut networks = Vec::new();
        for (i, text) in texts.iter().take(NETWORKS_MAX).enumerate() {
            match parse_network(text) {
                Ok(network) => networks.push(network),
                Err(problem) => self.add(format!("{field}[{i}]"), problem),
            }
        }
        networks
    }

    /// An expiry lies ahead.
    pub(super) fn expiry(&mut self, field: &str, at: Option<Timestamp>, now: Timestamp) {
        if at.is_some_and(|at| at <= now) {
            self.add(field, "is not in the future");
        }
    }

    /// A duration within bounds.
    pub(super) fn within(&mut self, field: &str, asked: Duration, min: Duration, max: Duration) {
        if asked < min || asked > max {
            let (min, max) = (min.as_secs(), max.as_secs());
            self.add(field, format!("is not from {min} to {max} seconds"));
        }
    }
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => match text.parse::<std::net::IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => return Err("is not a network like 192.0.2.0/24 or an address".to_owned()),
        },
    };
    if network.trunc() != network {
        return Err(format!("has bits set beyond its prefix; {} was meant?", network.trunc()));
    }
    if let IpNet::V6(v6) = network
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err("is an IPv4 network written as IPv6; write it as IPv4".to_owned());
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(check: impl FnOnce(&mut Faults)) -> Vec<String> {
        let mut faults = Faults::default();
        check(&mut faults);
        faults.0.into_iter().map(|f| f.field).collect()
    }

    #[test]
    fn names() {
        for (name, may_be_empty, ok) in [
            ("Bob's shop", true, true),
            ("", true, true),
            ("", false, false),
            ("  ", false, false),
            (&*"é".repeat(100), false, true),
            (&*"x".repeat(101), false, false),
            ("a\nb", true, false),
            ("a\u{7f}b", true, false),
        ] {
            assert_eq!(faults(|f| f.name("name", name, may_be_empty)).is_empty(), ok, "{name:?}");
        }
    }

    #[test]
    fn urls_and_origins() {
        for (url, ok) in [
            ("https://shop.example", true),
            ("http://shop.example:8080/", true),
            ("shop.example", false),
            ("https://shop.example/path", false),
            ("ftp://shop.example", false),
            ("", false),
        ] {
            assert_eq!(faults(|f| f.url("url", url)).is_empty(), ok, "{url}");
        }
        let origins: Vec<String> =
            ["*.a.example", "x y", "https://b.example"].map(Into::into).into();
        assert_eq!(faults(|f| f.widget_origins("o", &origins)), ["o[1]"]);
        let many = vec!["a.example".to_owned(); 51];
        assert_eq!(faults(|f| f.widget_origins("o", &many)), ["o"]);
    }

    #[test]
    fn networks() {
        for (text, expected) in [
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("192.0.2.1/24", None),
            ("::ffff:192.0.2.1", None),
            ("192.0.2.0/33", None),
            ("everything", None),
            ("", None),
        ] {
            let parsed = parse_network(text).ok().map(|n| n.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
        let many = vec!["192.0.2.1".to_owned(); 51];
        assert_eq!(faults(|f| drop(f.networks("networks", &many))), ["networks"]);
    }

    #[test]
    fn expiries_and_durations() {
        let now = Timestamp::from_unix_s(100);
        assert!(faults(|f| f.expiry("e", None, now)).is_empty());
        assert!(faults(|f| f.expiry("e", Some(Timestamp::from_unix_ms(100_001)), now)).is_empty());
        assert_eq!(faults(|f| f.expiry("e", Some(now), now)), ["e"]);
        let (one, ten) = (Duration::from_secs(1), Duration::from_secs(10));
        assert!(faults(|f| f.within("d", ten, one, ten)).is_empty());
        assert_eq!(faults(|f| f.within("d", Duration::ZERO, one, ten)), ["d"]);
    }
}
