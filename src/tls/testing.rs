//! Certificates for tests, made on the spot, and the files they are in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{CertificateFiles, ClientAuth, TlsConfig, TlsVersion};

/// An authority that issues certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) der: CertificateDer<'static>,
}

/// A certificate with its key.
pub(super) struct Issued {
    pub(super) der: CertificateDer<'static>,
    pub(super) key: Vec<u8>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    /// A certificate for `names`.
    pub(super) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    pub(super) fn issue_with(
        &self,
        names: &[&str],
        alter: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        alter(&mut params);
        let key = KeyPair::generate().unwrap();
        self.sign(&params, &key)
    }

    /// A certificate for `names` with a key of the caller's.
    pub(super) fn issue_for(&self, names: &[&str], key: &KeyPair) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.sign(&CertificateParams::new(names).unwrap(), key)
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Issued {
        let der = params.signed_by(key, &self.issuer).unwrap().der().clone();
        Issued { der, key: key.serialize_der() }
    }
}

impl Issued {
    /// The key, for whoever shows the certificate.
    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone().into())
    }

    /// Writes `<name>.pem` and `<name>.key` into `dir`.
    pub(super) fn write(&self, dir: &Path, name: &str) -> CertificateFiles {
        let (chain_file, key_file) =
            (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        write(&chain_file, &pem("CERTIFICATE", &self.der));
        write(&key_file, &pem("PRIVATE KEY", &self.key));
        CertificateFiles { chain_file, key_file }
    }
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let lines: Vec<_> = encoded.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Writes a file that only its owner may read.
pub(super) fn write(file: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A listener with these certificates and the defaults.
pub(super) fn config(certificates: Vec<CertificateFiles>) -> TlsConfig {
    TlsConfig {
        certificates,
        client_auth: ClientAuth::Off,
        client_ca_file: None,
        min_version: TlsVersion::Tls12,
        handshake_timeout: Duration::from_secs(10),
        watch_interval: Duration::from_secs(10),
    }
}

/// Writes an authority's certificate into `dir`.
pub(super) fn write_authority(dir: &Path, authority: &Authority) -> PathBuf {
    let file = dir.join("clients.pem");
    write(&file, &pem("CERTIFICATE", &authority.der));
    file
}
