//! `[server.tls]` and `[admin.tls]`: a listener's certificates, and who has to show one.
//!
//! Names files and does not open them: who loads them says what is wrong with them.

use std::path::PathBuf;
use std::time::Duration;

use super::read::Section;
use super::report::{Noted, collect_all};
use super::validate::parse_path;
use super::value::Span;

/// The most certificates of a listener.
const CERTIFICATES_MAX: usize = 256;

/// A TLS listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates, found by the name the client asks for; never empty. The first is for clients
    /// that ask for none of them.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// The roots of clients' certificates; there unless `client_auth` is [`ClientAuth::Off`].
    pub client_ca_file: Option<PathBuf>,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
    /// A whole handshake.
    pub handshake_timeout: Duration,
    /// Between two looks at the files for changes.
    pub watch_interval: Duration,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The certificate, then the intermediate ones.
    pub chain_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    Off,
    /// One is asked for; a client without is served, one with a bad one is not.
    Optional,
    /// Without a good one there is no connection.
    Required,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Reads `[server.tls]`; `None` where it names no certificate.
pub(super) fn read(server: &mut Section<'_, '_>) -> Result<Option<TlsConfig>, Noted> {
    read_with(server, read_clients)
}

/// Reads `[admin.tls]`, which knows nothing of clients' certificates.
pub(super) fn read_without_clients(
    admin: &mut Section<'_, '_>,
) -> Result<Option<TlsConfig>, Noted> {
    read_with(admin, |_, _| Ok((ClientAuth::Off, None)))
}

/// Whether clients show a certificate, and its roots.
type Clients = (ClientAuth, Option<PathBuf>);

fn read_with(
    parent: &mut Section<'_, '_>,
    read_clients: impl FnOnce(
        &mut Section<'_, '_>,
        Option<&[CertificateFiles]>,
    ) -> Result<Clients, Noted>,
) -> Result<Option<TlsConfig>, Noted> {
    let mut t = parent.table("tls");
    if t.is_empty() {
        t.left_out("certificates", "the listener is plain");
        return Ok(None);
    }
    let certificates = read_certificates(&mut t);
    let clients = read_clients(&mut t, certificates.as_deref().ok());
    let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
    let min_version = t.choice("min_version", "1.2", &versions);
    let handshake_timeout = t.duration("handshake_timeout", "10s", Span::TIMEOUT);
    let watch_interval = t.duration("watch_interval", "10s", Span::TIMEOUT);
    t.finish();
    let (client_auth, client_ca_file) = clients?;
    let config = TlsConfig {
        certificates: certificates?,
        client_auth,
        client_ca_file,
        min_version: min_version?,
        handshake_timeout: handshake_timeout?,
        watch_interval: watch_interval?,
    };
    Ok((!config.certificates.is_empty()).then_some(config))
}

fn read_clients(
    t: &mut Section<'_, '_>,
    certificates: Option<&[CertificateFiles]>,
) -> Result<Clients, Noted> {
    let choices = [
        ("off", ClientAuth::Off),
        ("optional", ClientAuth::Optional),
        ("required", ClientAuth::Required),
    ];
    let client_auth = t.choice("client_auth", "off", &choices);
    let client_ca_file = t.text_optional("client_ca_file", "nobody's are asked for", parse_path);
    if let (Ok(client_auth), Ok(client_ca_file)) = (client_auth, &client_ca_file) {
        check_client_auth(t, client_auth, client_ca_file.is_some());
        if let Some([]) = certificates
            && client_auth != ClientAuth::Off
        {
            let message = "needs certificates: without them the listener is plain";
            t.error("client_auth", message.into());
        }
    }
    Ok((client_auth?, client_ca_file?))
}

fn read_certificates(t: &mut Section<'_, '_>) -> Result<Vec<CertificateFiles>, Noted> {
    // A table of TLS that leaves TLS off would be found out by who listens on the wire.
    if !t.has("certificates") {
        let hint = "write [{ chain_file = \"…\", key_file = \"…\" }], or [] for a plain listener";
        return Err(t.missing("certificates", hint));
    }
    let items = t.inline_items("certificates", CERTIFICATES_MAX)?;
    collect_all(items.iter().enumerate().map(|(i, item)| {
        let mut t = t.inline_item("certificates", i, item);
        let chain_file = t.text_required("chain_file", "write the path of a PEM file", parse_path);
        let key_file = t.text_required("key_file", "write the path of a PEM file", parse_path);
        t.finish();
        Ok(CertificateFiles { chain_file: chain_file?, key_file: key_file? })
    }))
}

fn check_client_auth(t: &mut Section<'_, '_>, client_auth: ClientAuth, has_roots: bool) {
    match (client_auth, has_roots) {
        (ClientAuth::Optional | ClientAuth::Required, false) => {
            let message = "is missing; client_auth needs the roots of clients' certificates";
            t.error("client_ca_file", message.into());
        }
        (ClientAuth::Off, true) => {
            let message = "is of no use while client_auth is \"off\"; write \"optional\" or \
                           \"required\" there, or leave this out";
            t.error("client_ca_file", message.into());
        }
        (ClientAuth::Off, false) | (ClientAuth::Optional | ClientAuth::Required, true) => {}
    }
}
