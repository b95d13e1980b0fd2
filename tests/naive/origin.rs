//! A reader of origins as plain as can be, to compare the real one with. Written from RFC 6454
//! §4 and spec §3.5, not from the code.

/// Scheme, host and effective port, all in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) port: u32,
}

impl Site {
    /// Of `text`, which is `scheme://host` or `scheme://host:port` and nothing more.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://")?;
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let after_address = authority.rfind(']').unwrap_or(0);
        let (host, port) = match authority.rfind(':').filter(|colon| *colon > after_address) {
            Some(colon) => (&authority[..colon], authority[colon + 1..].parse().ok()?),
            None => (authority, default_port),
        };
        let in_a_host = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        if host.is_empty() || host.ends_with('.') || !host.chars().all(in_a_host) {
            return None;
        }
        Some(Self { scheme: scheme.into(), host: host.into(), port })
    }

    /// The host, `www.` apart.
    pub(crate) fn bare_host(&self) -> &str {
        self.host.strip_prefix("www.").unwrap_or(&self.host)
    }
}
