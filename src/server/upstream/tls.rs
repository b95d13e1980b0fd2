//! What TLS to an upstream needs, read from the files that the configuration names.
//!
//! Reads files when it is asked to, which is when a configuration is put in force; watches none.

use std::path::Path;
use std::sync::Arc;

use ring::digest::{Context, Digest, SHA256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{UpstreamConfig, UpstreamTlsConfig};
use crate::secret::SecretText;

/// The most bytes of a file of certificates or a key; the system's own roots are a fifth of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why an upstream cannot be spoken to by TLS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UpstreamTlsError {
    /// A file cannot be read.
    #[error("{path}: {why}; name a PEM file that latchkey may read")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A file holds no certificate or no key.
    #[error("{path}: holds no {what} in PEM form")]
    Empty {
        /// The file.
        path: String,
        /// What was looked for.
        what: &'static str,
    },
    /// The system trusts nobody.
    #[error("the system has no trusted root certificates; install them, or set `ca_file`")]
    NoRoots,
    /// Certificate and key are no pair, or not usable.
    #[error("{path}: cannot be used: {why}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// The files of an upstream's TLS, as they are now.
#[derive(Default)]
pub(super) struct Material {
    roots: Option<(String, Vec<u8>)>,
    chain: Option<(String, Vec<u8>)>,
    key: Option<(String, SecretText)>,
}

impl Material {
    /// Reads them.
    pub(super) fn read(config: &UpstreamTlsConfig) -> Result<Self, UpstreamTlsError> {
        let mut material = Self::default();
        if let Some(path) = &config.ca_file {
            material.roots = Some((shown(path), read(path)?));
        }
        if let Some(files) = &config.client {
            material.chain = Some((shown(&files.chain_file), read(&files.chain_file)?));
            let text = String::from_utf8(read(&files.key_file)?).map_err(|_| {
                UpstreamTlsError::Empty { path: shown(&files.key_file), what: "private key" }
            })?;
            material.key = Some((shown(&files.key_file), SecretText::new(text)));
        }
        Ok(material)
    }

    /// What tells these files from others.
    pub(super) fn fingerprint(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        let key = self.key.as_ref().map(|(_, text)| text.expose().as_bytes());
        let files = [&self.roots, &self.chain].map(|f| f.as_ref().map(|(_, bytes)| &**bytes));
        for bytes in files.into_iter().chain([key]) {
            let bytes = bytes.unwrap_or_default();
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        }
        context.finish()
    }

    /// What rustls makes of them.
    pub(super) fn client_config(
        &self,
        config: &UpstreamConfig,
    ) -> Result<Arc<ClientConfig>, UpstreamTlsError> {
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("TLS", &error))?
            .with_root_certificates(self.root_store()?);
        let mut client = match (&self.chain, &self.key) {
            (Some((chain_path, chain)), Some((key_path, key))) => {
                let chain = certificates(chain_path, chain)?;
                let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes());
                let key = key.map_err(|_| UpstreamTlsError::Empty {
                    path: key_path.clone(),
                    what: "private key",
                })?;
                let client = builder.with_client_auth_cert(chain, key);
                client.map_err(|error| unusable(chain_path, &error))?
            }
            _ => builder.with_no_client_auth(),
        };
        let protocol: &[u8] = if config.http2 { b"h2" } else { b"http/1.1" };
        client.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(client))
    }

    fn root_store(&self) -> Result<RootCertStore, UpstreamTlsError> {
        let mut store = RootCertStore::empty();
        if let Some((path, bytes)) = &self.roots {
            for certificate in certificates(path, bytes)? {
                store.add(certificate).map_err(|error| unusable(path, &error))?;
            }
            return Ok(store);
        }
        // Some of the many may be odd; only none at all is a fault.
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() { Err(UpstreamTlsError::NoRoots) } else { Ok(store) }
    }
}

fn certificates(
    path: &str,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, UpstreamTlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(path, &error))?;
    if found.is_empty() {
        return Err(UpstreamTlsError::Empty { path: path.to_owned(), what: "certificate" });
    }
    Ok(found)
}

fn unusable(path: &str, error: &dyn std::error::Error) -> UpstreamTlsError {
    UpstreamTlsError::Unusable { path: path.to_owned(), why: error.to_string() }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn read(path: &Path) -> Result<Vec<u8>, UpstreamTlsError> {
    use std::io::Read as _;

    let failed = |why: &dyn std::fmt::Display| UpstreamTlsError::File {
        path: shown(path),
        why: why.to_string(),
    };
    // Opening a pipe would wait for a writer, for ever.
    if !std::fs::metadata(path).map_err(|e| failed(&e))?.is_file() {
        return Err(failed(&"not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|e| failed(&e))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(&"longer than 1 MiB"));
    }
    Ok(bytes)
}
