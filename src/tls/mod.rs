//! The certificates in force: read from files, checked, put into a form handshakes are made from.
//!
//! A set of certificates is whole or not at all: one file that cannot be used refuses the set, and
//! whoever holds an older one goes on serving it. Every set has session tickets and a session
//! cache of its own, so that no session outlives the rules under which its client was verified.
//!
//! Opens no connection and watches no file; whoever does compares [`Fingerprint`]s.

mod certificate;
mod files;
mod resolver;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SupportedProtocolVersion, version};

use self::certificate::Facts;
use self::resolver::Resolver;
use crate::clock::Timestamp;
use crate::config::{CertificateFiles, ClientAuth, TlsConfig, TlsVersion};

pub use self::files::Fingerprint;

/// HTTP/2 as it is named in a handshake.
const H2: &[u8] = b"h2";
/// HTTP/1.1, likewise.
const H1: &[u8] = b"http/1.1";

/// The versions of HTTP that a listener offers in handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// HTTP/2, or else HTTP/1.1.
    Both,
    /// HTTP/1.1.
    Http1,
}

impl Versions {
    fn alpn(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Both => &[H2, H1],
            Self::Http1 => &[H1],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// Why a set of certificates is not used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}; is the path right, and may this user read it?",
        file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is too long to be what it should be.
    #[error("{}: longer than {max} bytes: this is no certificate or key", file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
        /// The bound.
        max: u64,
    },
    /// A certificate file without a certificate, or with something broken.
    #[error("{}: {why}; it must hold certificates in PEM form (`BEGIN CERTIFICATE`), the server's \
        own first", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// A key file without a usable key.
    #[error("{}: {why}; it must hold one private key in PEM form without a passphrase: ECDSA \
        P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// Key and certificate do not belong together.
    #[error("{}: this is not the key of the first certificate in {}; use the key that the \
        certificate was requested with", key_file.display(), chain_file.display())]
    Mismatch {
        /// The certificate's file.
        chain_file: PathBuf,
        /// The key's file.
        key_file: PathBuf,
    },
    /// The authorities of client certificates cannot be used.
    #[error("{}: {why}; it must hold, in PEM form, the certificates of the authorities that \
        client certificates are issued by", file.display())]
    ClientCa {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// Client certificates are asked for, and nobody is named whose word counts.
    #[error("client_ca_file: needed unless client_auth is \"off\"")]
    NoClientCa,
    /// There is no certificate.
    #[error("tls.certificates: at least one certificate is needed")]
    NoCertificate,
    /// TLS cannot be set up: no randomness, or an impossible choice of versions.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// A set of certificates, ready to serve. New connections take the one in force; those that are
/// there keep theirs.
#[derive(Debug)]
pub struct Tls {
    pub(crate) rustls: Arc<rustls::ServerConfig>,
    pub(crate) handshake_timeout: Duration,
    fingerprint: Fingerprint,
    expiries: Vec<Timestamp>,
    warnings: Vec<String>,
}

impl Tls {
    /// Reads and checks everything that `config` names. Blocks on files.
    ///
    /// # Errors
    ///
    /// [`TlsError`], for the first thing that is wrong.
    pub fn load(config: &TlsConfig, http: Versions, now: Timestamp) -> Result<Self, TlsError> {
        // Before the files: one that is changed in between is looked at again.
        let fingerprint = Fingerprint::of(config);
        let provider = Arc::new(ring::default_provider());
        let mut resolver = Resolver::default();
        let (mut expiries, mut warnings) = (Vec::new(), Vec::new());
        for files in &config.certificates {
            let (key, facts) = certified_key(files, &provider, &mut warnings)?;
            warnings.extend(doubts(&files.chain_file, &facts, now));
            expiries.push(facts.not_after);
            resolver.add(key, &facts.dns_names);
        }
        let resolver = resolver.complete().ok_or(TlsError::NoCertificate)?;
        let versions: &[&'static SupportedProtocolVersion] = match config.min_version {
            TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            TlsVersion::Tls13 => &[&version::TLS13],
        };
        let mut rustls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(client_verifier(config, &provider)?)
            .with_cert_resolver(Arc::new(resolver));
        rustls.alpn_protocols = http.alpn();
        rustls.ticketer = ring::Ticketer::new()?;
        Ok(Self {
            rustls: Arc::new(rustls),
            handshake_timeout: config.handshake_timeout,
            fingerprint,
            expiries,
            warnings,
        })
    }

    /// What the files were when they were read.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// When the certificates expire, in the order of the configuration.
    #[must_use]
    pub fn expiries(&self) -> &[Timestamp] {
        &self.expiries
    }

    /// What an operator should know and what does not keep the set from serving: certificates
    /// that are expired or not valid yet, that name no host, or keys that everybody can read.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// From when until when the first certificate of `file` is valid, whoever it is for. Blocks.
///
/// # Errors
///
/// [`TlsError`]: the file holds none, or cannot be read.
pub fn validity(file: &Path) -> Result<(Timestamp, Timestamp), TlsError> {
    let fault = |file, why| TlsError::Certificate { file, why };
    let chain = files::certificates(file).map_err(|why| why.of(file, fault))?;
    let facts = chain.first().and_then(|own| Facts::read(own));
    let facts =
        facts.ok_or_else(|| fault(file.to_owned(), "its first certificate cannot be read"))?;
    Ok((facts.not_before, facts.not_after))
}

/// A client as its certificate names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// Its name with its kind: `dns:`, `uri:`, `email:` or `cn:`; `-` if it has none.
    pub(crate) name: Box<str>,
    /// Whether it is valid now: a resumed session brings a certificate that was verified when the
    /// session began.
    pub(crate) is_valid: bool,
}

impl ClientCertificate {
    /// What a verified certificate says.
    pub(crate) fn read(der: &CertificateDer<'_>, now: Timestamp) -> Self {
        match Facts::read(der) {
            Some(facts) => {
                let is_valid = facts.is_valid_at(now);
                Self { name: facts.subject.unwrap_or_else(|| "-".to_owned()).into(), is_valid }
            }
            None => Self { name: "-".into(), is_valid: true },
        }
    }
}

/// Whether the client asked for HTTP/2 in the handshake.
pub(crate) fn is_h2(connection: &rustls::ServerConnection) -> bool {
    connection.alpn_protocol() == Some(H2)
}

/// A certificate with its key, checked against each other.
fn certified_key(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    warnings: &mut Vec<String>,
) -> Result<(CertifiedKey, Facts), TlsError> {
    let chain = files::certificates(&files.chain_file).map_err(|fault| {
        fault.of(&files.chain_file, |file, why| TlsError::Certificate { file, why })
    })?;
    let unreadable = |why| TlsError::Certificate { file: files.chain_file.clone(), why };
    let facts = chain.first().and_then(|own| Facts::read(own));
    let facts = facts.ok_or_else(|| unreadable("its first certificate cannot be read"))?;
    let key = files::private_key(&files.key_file, warnings)
        .map_err(|fault| fault.of(&files.key_file, |file, why| TlsError::Key { file, why }))?;
    let unusable = |why| TlsError::Key { file: files.key_file.clone(), why };
    let signer = provider.key_provider.load_private_key(key);
    let signer = signer.map_err(|_| unusable("the key is of a kind that cannot be used"))?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        // Every key that ring loads knows its public half: nothing is left unknown.
        Ok(()) => Ok((certified, facts)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
            chain_file: files.chain_file.clone(),
            key_file: files.key_file.clone(),
        }),
        Err(_) => Err(unreadable("its first certificate cannot be used by a server")),
    }
}

/// What is doubtful about a certificate.
fn doubts(file: &Path, facts: &Facts, now: Timestamp) -> Vec<String> {
    let file = file.display();
    let mut doubts = Vec::new();
    if now > facts.not_after {
        doubts.push(format!("{file}: the certificate expired at {}; renew it", facts.not_after));
    }
    if now < facts.not_before {
        let from = facts.not_before;
        doubts.push(format!(
            "{file}: the certificate is not valid before {from}; is the clock right?"
        ));
    }
    if facts.dns_names.is_empty() {
        doubts.push(format!(
            "{file}: the certificate has no DNS name (subject alternative name); only clients \
             that ask for no other certificate get it"
        ));
    }
    doubts
}

fn client_verifier(
    config: &TlsConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if config.client_auth == ClientAuth::Off {
        return Ok(Arc::new(NoClientAuth));
    }
    let file = config.client_ca_file.as_deref().ok_or(TlsError::NoClientCa)?;
    let fault = |file, why| TlsError::ClientCa { file, why };
    let authorities = files::certificates(file).map_err(|why| why.of(file, fault))?;
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        let added = roots.add(authority);
        added.map_err(|_| fault(file.to_owned(), "one of its certificates cannot be used"))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match config.client_auth {
        ClientAuth::Off | ClientAuth::Optional => builder.allow_unauthenticated(),
        ClientAuth::Required => builder,
    };
    builder.build().map_err(|error: VerifierBuilderError| {
        tracing::debug!(%error, "no verifier of client certificates");
        fault(file.to_owned(), "it holds no authority")
    })
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
