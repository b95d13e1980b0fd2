//! What is read in a certificate: the names it is for, how long it is valid, whose it is.
//!
//! Trusts nothing it reads: whether a certificate is to be believed is the handshake's to say.

use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::clock::Timestamp;

/// Longest name of a client that is kept, in characters.
const CLIENT_NAME_CHARS_MAX: usize = 256;

/// What latchkey asks of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its DNS names (`dNSName` of its subject alternative names), in lower case.
    pub(super) dns_names: Vec<String>,
    /// The name of whom it was issued to, if it has one.
    pub(super) subject: Option<String>,
    /// Not valid before.
    pub(super) not_before: Timestamp,
    /// Not valid after.
    pub(super) not_after: Timestamp,
}

impl Facts {
    /// Reads a certificate; `None` if it is not one.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let certificate = CertificateInner::<Raw>::from_der(der).ok()?;
        let facts = certificate.tbs_certificate();
        let names = facts.get_extension::<SubjectAltName>().ok()?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let validity = facts.validity();
        let common_name = || facts.subject().common_name().ok().flatten();
        let subject = names
            .iter()
            .find_map(client_name)
            .or_else(|| common_name().map(|name| legible("cn", &name.value())));
        Some(Self {
            dns_names: names.iter().filter_map(dns_name).collect(),
            subject,
            not_before: timestamp(validity.not_before),
            not_after: timestamp(validity.not_after),
        })
    }

    /// Whether it is valid at `now`.
    pub(super) fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

fn timestamp(time: x509_cert::time::Time) -> Timestamp {
    Timestamp::from_unix_s(time.to_unix_duration().as_secs())
}

fn dns_name(name: &GeneralName) -> Option<String> {
    if let GeneralName::DnsName(name) = name {
        Some(name.as_str().to_ascii_lowercase())
    } else {
        None
    }
}

/// A name with what kind it is of: a URI must not pass for a host, nor a common name, which some
/// authorities let the client choose, for either.
fn client_name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(legible("dns", name.as_str())),
        GeneralName::UniformResourceIdentifier(uri) => Some(legible("uri", uri.as_str())),
        GeneralName::Rfc822Name(address) => Some(legible("email", address.as_str())),
        GeneralName::OtherName(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::IpAddress(_)
        | GeneralName::RegisteredId(_) => None,
    }
}

fn legible(kind: &str, name: &str) -> String {
    let kept = name.chars().take(CLIENT_NAME_CHARS_MAX);
    let shown = kept.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    [kind, ":"].into_iter().flat_map(str::chars).chain(shown).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn der(alter: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.not_before = rcgen::date_time_ymd(2020, 1, 2);
        params.not_after = rcgen::date_time_ymd(2051, 3, 4);
        alter(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn facts(alter: impl FnOnce(&mut CertificateParams)) -> Facts {
        Facts::read(&der(alter)).unwrap()
    }

    fn subject(names: Vec<SanType>, common_name: Option<&str>) -> Option<String> {
        let alter = |params: &mut CertificateParams| {
            params.subject_alt_names = names;
            if let Some(name) = common_name {
                params.distinguished_name.push(DnType::CommonName, name);
            }
        };
        facts(alter).subject
    }

    #[test]
    fn validity() {
        let facts = facts(|_| {});
        assert_eq!(facts.not_before, Timestamp::parse_rfc3339("2020-01-02T00:00:00Z").unwrap());
        assert_eq!(facts.not_after, Timestamp::parse_rfc3339("2051-03-04T00:00:00Z").unwrap());
        assert!(facts.is_valid_at(facts.not_before) && facts.is_valid_at(facts.not_after));
        assert!(!facts.is_valid_at(facts.not_after + std::time::Duration::from_secs(1)));
        assert!(!facts.is_valid_at(facts.not_before - std::time::Duration::from_secs(1)));
    }

    #[test]
    fn names() {
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let ip = || SanType::IpAddress("127.0.0.1".parse().unwrap());
        let uri = || SanType::URI("spiffe://mesh.example/ns/a".try_into().unwrap());
        let email = || SanType::Rfc822Name("a@b.example".try_into().unwrap());
        let facts = facts(|params| {
            params.subject_alt_names = vec![ip(), dns("A.example"), uri(), dns("*.b.example")];
        });
        assert_eq!(facts.dns_names, ["a.example", "*.b.example"]);
        assert_eq!(facts.subject.as_deref(), Some("dns:A.example"));
        assert_eq!(subject(vec![uri()], Some("x")).unwrap(), "uri:spiffe://mesh.example/ns/a");
        assert_eq!(subject(vec![ip(), email()], None).unwrap(), "email:a@b.example");
        assert_eq!(subject(vec![ip()], Some("né")).unwrap(), "cn:né");
        assert_eq!(subject(vec![], None), None);
        let spoof = subject(vec![], Some("a\n{\"code\":\"ok\"}")).unwrap();
        assert_eq!(spoof, "cn:a\u{fffd}{\"code\":\"ok\"}");
        let long = subject(vec![], Some(&"x".repeat(1000))).unwrap();
        assert_eq!(long.len(), "cn:".len() + CLIENT_NAME_CHARS_MAX);
    }

    proptest! {
        #[test]
        fn garbage_is_no_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Facts::read(&bytes), None);
        }

        #[test]
        fn a_damaged_certificate_is_read_or_not_but_nothing_breaks(
            at in 0usize..200, byte in any::<u8>(), cut in 0usize..200,
        ) {
            let mut der = der(|_| {});
            der[at] = byte;
            let _ = Facts::read(&der);
            der.truncate(cut);
            prop_assert_eq!(Facts::read(&der), None);
        }
    }
}
