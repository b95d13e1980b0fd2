//! Certificates made on the spot, and clients that trust them.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned,
    SupportedProtocolVersion,
};
use tempfile::TempDir;

use super::http::{self, Request, Response};
use super::secrets;

/// How many authorities there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// An authority, and a directory for what it issues.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    dir: TempDir,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) der: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Issued {
    /// A server with it, whoever the clients are.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], PrivateKeyDer::Pkcs8(self.key.clone().into()))
            .expect("a certificate and its key");
        Arc::new(config)
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Of two authorities with one name, a client would not say which it misses.
        let name = format!("Authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let der = params.self_signed(&key).expect("a certificate").der().clone();
        let dir = tempfile::tempdir().expect("a temporary directory");
        write(&dir.path().join("ca.pem"), &pem("CERTIFICATE", &der));
        Self { issuer: Issuer::new(params, key), der, dir }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// A certificate for these names.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    pub(crate) fn issue_with(
        &self,
        names: &[&str],
        alter: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        alter(&mut params);
        let key = KeyPair::generate().expect("a key");
        let der = params.signed_by(&key, &self.issuer).expect("a certificate").der().clone();
        Issued { der, key: key.serialize_der() }
    }

    /// Writes a certificate and its key as `<name>.pem` and `<name>.key`, by name and at once.
    pub(crate) fn install(&self, name: &str, issued: &Issued) {
        let key = pem("PRIVATE KEY", &issued.key);
        secrets::minted(key.lines().nth(1).expect("a line of the key"));
        for (file, text) in
            [(format!("{name}.pem"), pem("CERTIFICATE", &issued.der)), (format!("{name}.key"), key)]
        {
            let fresh = self.path("fresh");
            write(&fresh, &text);
            std::fs::rename(fresh, self.path(&file)).expect("a file of that name");
        }
    }

    /// `[server.tls]` with the certificates of these names, `extra` in it.
    pub(crate) fn section(&self, names: &[&str], extra: &str) -> String {
        self.section_of("server.tls", names, extra)
    }

    /// The same under another name.
    pub(crate) fn section_of(&self, section: &str, names: &[&str], extra: &str) -> String {
        let entry = |name: &&str| {
            let (chain, key) = (format!("{name}.pem"), format!("{name}.key"));
            let (chain, key) = (self.path(&chain), self.path(&key));
            format!("{{ chain_file = \"{}\", key_file = \"{}\" }}", chain.display(), key.display())
        };
        let entries: Vec<String> = names.iter().map(entry).collect();
        format!("[{section}]\ncertificates = [{}]\n{extra}\n", entries.join(", "))
    }

    /// A client that trusts this authority and asks for `name`.
    pub(crate) fn client(&self, name: &str) -> Client {
        Client {
            name: name.to_owned(),
            root: self.der.clone(),
            versions: rustls::ALL_VERSIONS,
            identity: None,
            alpn: Vec::new(),
        }
    }
}

fn write(file: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(file, text).expect("a file");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("a mode");
}

fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let lines: Vec<_> = encoded.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A client of TLS.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) identity: Option<Issued>,
    pub(crate) alpn: Vec<&'static str>,
}

pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(self.versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::Pkcs8(own.key.clone().into());
                builder.with_client_auth_cert(vec![own.der.clone()], key).expect("an identity")
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    pub(crate) fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.name.clone()).expect("a name")
    }

    /// Shakes hands, to the end.
    pub(crate) fn connect(&self, address: SocketAddr) -> std::io::Result<Secure> {
        let connection = ClientConnection::new(self.config(), self.server_name());
        let mut tls = StreamOwned::new(connection.expect("a client"), http::connect(address));
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(tls)
    }

    /// Shakes hands and waits for the server to say something or to close: with TLS 1.3 the
    /// client is done before the server has looked at its certificate.
    pub(crate) fn is_refused(&self, address: SocketAddr) -> bool {
        let Ok(mut tls) = self.connect(address) else { return true };
        let request = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
        let sent = std::io::Write::write_all(&mut tls, request.as_bytes());
        sent.is_err() || http::read_all(&mut tls).map_or(true, |answer| answer.is_empty())
    }

    /// The certificate that the server shows.
    pub(crate) fn certificate(&self, address: SocketAddr) -> CertificateDer<'static> {
        let tls = self.connect(address).expect("a handshake");
        tls.conn.peer_certificates().expect("a certificate")[0].clone()
    }

    /// Sends a request on a connection of its own.
    pub(crate) fn send(&self, address: SocketAddr, request: &Request) -> Response {
        let mut tls = self.connect(address).expect("a handshake");
        std::io::Write::write_all(&mut tls, &request.bytes(&self.name)).expect("a request");
        let answer = http::read_all(&mut tls).expect("an answer");
        http::parse(&answer).expect("a whole answer")
    }
}
