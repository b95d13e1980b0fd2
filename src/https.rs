//! What all requests have in common that latchkey makes for itself: of identity providers and of a
//! collector of traces. Whom they trust, how they connect, and (of upstreams too) what went wrong.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Connects by http and https, for HTTP/1.1.
pub(crate) type Connector = HttpsConnector<HttpConnector>;

/// Who latchkey says it is, for `User-Agent`.
pub(crate) const AGENT: &str = concat!("latchkey/", env!("CARGO_PKG_VERSION"));

/// Whose certificates are good.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trust<'f> {
    /// Those of the authorities in a PEM file.
    File(&'f Path),
    /// Those of the system's authorities.
    System,
    /// Nobody's: what is not plain http fails.
    Nobody,
}

/// Why there is no connector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The file cannot be read, or is not in PEM form.
    #[error("{file}: {why}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file names nobody.
    #[error("{file}: holds no authority in PEM form")]
    Empty {
        /// Its path.
        file: String,
    },
    /// The system trusts nobody.
    #[error("the system has no trusted root certificates; install ca-certificates")]
    NoRoots,
    /// The library refuses.
    #[error("TLS cannot be used: {0}")]
    Tls(String),
}

/// A connector that trusts `trust`. Reads files: blocks.
pub(crate) fn connector(trust: Trust<'_>) -> Result<Connector, Fault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::Tls(error.to_string()))?
        .with_root_certificates(roots(trust)?)
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build())
}

fn roots(trust: Trust<'_>) -> Result<RootCertStore, Fault> {
    let (found, nobody) = match trust {
        Trust::Nobody => return Ok(RootCertStore::empty()),
        Trust::System => (rustls_native_certs::load_native_certs().certs, Fault::NoRoots),
        Trust::File(path) => {
            let file = path.display().to_string();
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| Fault::File { file: file.clone(), why: error.to_string() })?;
            (certificates, Fault::Empty { file })
        }
    };
    // Some of the system's many may be odd; only none at all is a fault.
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 { Err(nobody) } else { Ok(roots) }
}

/// An error and what caused it: hyper keeps the telling part ("connection refused") inside.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_to_name_somebody() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let fault = |file| connector(Trust::File(file)).unwrap_err().to_string();
        assert!(fault(&file).starts_with(&format!("{}: ", file.display())), "{}", fault(&file));
        for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&file, text).unwrap();
            let want = format!("{}: holds no authority in PEM form", file.display());
            assert_eq!(fault(&file), want, "{text:?}");
        }
        std::fs::write(&file, rcgen::generate_simple_self_signed([]).unwrap().cert.pem()).unwrap();
        assert!(connector(Trust::File(&file)).is_ok());
        assert!(connector(Trust::Nobody).is_ok());
    }

    #[test]
    fn an_error_tells_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("no answer")]
        struct Outer(#[source] std::io::Error);

        assert_eq!(with_causes(&Outer(std::io::Error::other("refused"))), "no answer: refused");
    }
}
