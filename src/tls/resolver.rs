//! Which certificate a client gets: by the name it asks for, and by the signatures it understands.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates of one name, in the order of the configuration: an RSA certificate may stand
/// beside an ECDSA one for clients that know no other.
type Alternatives = Vec<Arc<CertifiedKey>>;

/// Certificates by the names they are for.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    exact: HashMap<String, Alternatives>,
    /// `*.example.com`, by `example.com`.
    wildcard: HashMap<String, Alternatives>,
    /// Everything, the first of which is for names that no certificate has.
    all: Alternatives,
}

impl Resolver {
    /// Adds a certificate that is for `names`.
    pub(super) fn add(&mut self, key: CertifiedKey, names: &[String]) {
        let key = Arc::new(key);
        for name in names {
            let alternatives = match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.to_owned()).or_default(),
                None => self.exact.entry(name.clone()).or_default(),
            };
            alternatives.push(Arc::clone(&key));
        }
        self.all.push(key);
    }

    /// The same, unless it is empty.
    pub(super) fn complete(self) -> Option<Self> {
        (!self.all.is_empty()).then_some(self)
    }

    /// The certificates for a name, an exact match before a wildcard, which stands for one label.
    fn alternatives(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let name = name.strip_suffix('.').unwrap_or(&name);
            let parent = || name.split_once('.').map(|(_, parent)| parent);
            self.exact.get(name).or_else(|| self.wildcard.get(parent()?))
        });
        found.unwrap_or(&self.all)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let alternatives = self.alternatives(hello.server_name());
        let schemes = hello.signature_schemes();
        let usable = alternatives.iter().find(|c| c.key.choose_scheme(schemes).is_some());
        // Without a usable one the handshake fails, and the client is told why.
        usable.or(alternatives.first()).cloned()
    }
}
