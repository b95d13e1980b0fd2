//! What a set of certificates accepts and refuses, without a socket: files in, handshakes made.

use std::io::Read as _;

use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConnection, SupportedProtocolVersion};
use tempfile::TempDir;

use super::testing::{Authority, Issued, config, pem, write, write_authority};
use super::*;

struct Bench {
    dir: TempDir,
    authority: Authority,
}

fn bench() -> Bench {
    Bench { dir: tempfile::tempdir().unwrap(), authority: Authority::new() }
}

fn now() -> Timestamp {
    Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").unwrap()
}

fn load(config: &TlsConfig, now: Timestamp) -> Result<Tls, TlsError> {
    Tls::load(config, Versions::Both, now)
}

/// A client that trusts `authority` and asks for `name`.
struct Client<'a> {
    name: &'a str,
    versions: &'a [&'static SupportedProtocolVersion],
    identity: Option<&'a Issued>,
    alpn: &'a [&'a [u8]],
}

impl Default for Client<'_> {
    fn default() -> Self {
        Self { name: "a.example", versions: rustls::ALL_VERSIONS, identity: None, alpn: &[] }
    }
}

impl Client<'_> {
    fn config(&self, authority: &Authority) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(own) => {
                builder.with_client_auth_cert(vec![own.der.clone()], own.private_key()).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|p| p.to_vec()).collect();
        config
    }

    fn connect(&self, bench: &Bench, tls: &Tls) -> Result<Met, rustls::Error> {
        meet(Arc::new(self.config(&bench.authority)), self.name, tls)
    }
}

/// What came of a handshake.
struct Met {
    client: ClientConnection,
    server: ServerConnection,
}

impl Met {
    fn certificate(&self) -> &CertificateDer<'static> {
        &self.client.peer_certificates().unwrap()[0]
    }
}

fn meet(config: Arc<ClientConfig>, name: &str, tls: &Tls) -> Result<Met, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(config, name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(&tls.rustls)).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut sent = wire.as_slice();
        while !sent.is_empty() {
            server.read_tls(&mut sent).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut sent = wire.as_slice();
        while !sent.is_empty() {
            client.read_tls(&mut sent).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Met { client, server })
}

#[test]
fn the_name_asked_for_picks_the_certificate() {
    let bench = bench();
    let issue = |names: &[&str], file: &str| {
        let issued = bench.authority.issue(names);
        (issued.der.clone(), issued.write(bench.dir.path(), file))
    };
    let (first, first_files) = issue(&["a.example", "*.wild.example"], "first");
    let (second, second_files) = issue(&["b.example", "exact.wild.example"], "second");
    let tls = load(&config(vec![first_files, second_files]), now()).unwrap();
    assert_eq!(tls.warnings(), [""; 0]);
    for (name, expected) in [
        ("a.example", &first),
        ("A.EXAMPLE", &first),
        ("b.example", &second),
        ("x.wild.example", &first),
        ("exact.wild.example", &second),
    ] {
        let met = Client { name, ..Client::default() }.connect(&bench, &tls).unwrap();
        assert_eq!(met.certificate(), expected, "{name}");
    }
    // These get the first, which is not for them, as the client then finds.
    for name in ["c.example", "wild.example", "x.y.wild.example", "127.0.0.1"] {
        let met = Client { name, ..Client::default() }.connect(&bench, &tls);
        let error = met.err().unwrap();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{name}: {error}");
    }
}

#[test]
fn one_name_may_have_certificates_of_several_kinds() {
    let bench = bench();
    let of_kind = |algorithm, file: &str| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let issued = bench.authority.issue_for(&["a.example"], &key);
        (issued.der.clone(), issued.write(bench.dir.path(), file))
    };
    let (ed25519, ed25519_files) = of_kind(&PKCS_ED25519, "ed25519");
    let (p384, p384_files) = of_kind(&PKCS_ECDSA_P384_SHA384, "p384");
    let tls = load(&config(vec![ed25519_files, p384_files]), now()).unwrap();
    let mut client = Client::default().config(&bench.authority);
    let meet = |client: &ClientConfig| meet(Arc::new(client.clone()), "a.example", &tls).unwrap();
    assert_eq!(meet(&client).certificate(), &ed25519);
    // A client that knows no Ed25519.
    let mut provider = ring::default_provider();
    let known = provider.signature_verification_algorithms;
    let without: Vec<_> = known
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme != rustls::SignatureScheme::ED25519)
        .copied()
        .collect();
    provider.signature_verification_algorithms.mapping = without.leak();
    let mut roots = RootCertStore::empty();
    roots.add(bench.authority.der.clone()).unwrap();
    client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert_eq!(meet(&client).certificate(), &p384);
}

#[test]
fn versions_and_protocols() {
    let bench = bench();
    let files = bench.authority.issue(&["a.example"]).write(bench.dir.path(), "a");
    let mut settings = config(vec![files]);
    let tls = load(&settings, now()).unwrap();
    let old = Client { versions: &[&version::TLS12], ..Client::default() };
    old.connect(&bench, &tls).unwrap();
    for (alpn, h2) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], true),
        (&[b"http/1.1", b"h2"], true),
        (&[b"http/1.1"], false),
        (&[], false),
    ] {
        let met = Client { alpn, ..Client::default() }.connect(&bench, &tls).unwrap();
        assert_eq!(is_h2(&met.server), h2, "{alpn:?}");
    }
    let http1 = Tls::load(&settings, Versions::Http1, now()).unwrap();
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    let met = Client { alpn: both, ..Client::default() }.connect(&bench, &http1).unwrap();
    assert!(!is_h2(&met.server));
    let strange = Client { alpn: &[b"spdy/3"], ..Client::default() }.connect(&bench, &tls);
    assert_eq!(strange.err(), Some(rustls::Error::NoApplicationProtocol));
    settings.min_version = TlsVersion::Tls13;
    let tls = load(&settings, now()).unwrap();
    assert!(old.connect(&bench, &tls).is_err());
    Client::default().connect(&bench, &tls).unwrap();
}

#[test]
fn client_certificates() {
    let (bench, strangers) = (bench(), Authority::new());
    let files = bench.authority.issue(&["a.example"]).write(bench.dir.path(), "a");
    let good = bench.authority.issue(&["client.example"]);
    let strange = strangers.issue(&["client.example"]);
    let mut settings = config(vec![files]);
    settings.client_ca_file = Some(write_authority(bench.dir.path(), &bench.authority));
    for (auth, none, bad) in [
        (ClientAuth::Off, true, true),
        (ClientAuth::Optional, true, false),
        (ClientAuth::Required, false, false),
    ] {
        settings.client_auth = auth;
        let tls = load(&settings, now()).unwrap();
        for (identity, expected) in [(None, none), (Some(&strange), bad), (Some(&good), true)] {
            let met = Client { identity, ..Client::default() }.connect(&bench, &tls);
            assert_eq!(met.is_ok(), expected, "{auth:?}");
            let Ok(met) = met else { continue };
            let seen = met.server.peer_certificates().and_then(|chain| chain.first());
            let seen = seen.map(|der| ClientCertificate::read(der, now()).name);
            let shown = identity.filter(|_| auth != ClientAuth::Off);
            assert_eq!(seen.as_deref(), shown.map(|_| "dns:client.example"), "{auth:?}");
        }
    }
}

#[test]
fn sessions_end_with_the_set_they_began_under() {
    let bench = bench();
    let files = bench.authority.issue(&["a.example"]).write(bench.dir.path(), "a");
    let settings = config(vec![files]);
    let tls = load(&settings, now()).unwrap();
    for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
        let client = Client { versions, ..Client::default() }.config(&bench.authority);
        let client = Arc::new(client);
        let kinds = |tls: &Tls| {
            let mut met = meet(Arc::clone(&client), "a.example", tls).unwrap();
            assert!(met.client.reader().read(&mut [0; 8]).is_err());
            met.client.handshake_kind()
        };
        assert_eq!(kinds(&tls), Some(rustls::HandshakeKind::Full));
        assert_eq!(kinds(&tls), Some(rustls::HandshakeKind::Resumed));
        let next = load(&settings, now()).unwrap();
        assert_eq!(kinds(&next), Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_its_file_and_a_remedy() {
    let bench = bench();
    let dir = bench.dir.path();
    let good = bench.authority.issue(&["a.example"]).write(dir, "good");
    let other = bench.authority.issue(&["a.example"]).write(dir, "other");
    let file = |name: &str, text: &str| {
        let file = dir.join(name);
        write(&file, text);
        file
    };
    let chain = |chain_file| CertificateFiles { chain_file, ..good.clone() };
    let key = |key_file| CertificateFiles { key_file, ..good.clone() };
    let pem_of = |path: &Path| std::fs::read_to_string(path).unwrap();
    let cut = pem_of(&good.chain_file).replace("-----END CERTIFICATE-----", "");
    let p521_or_garbage = pem("PRIVATE KEY", b"not a key");
    for (files, names, says) in [
        (chain(dir.join("absent.pem")), "absent.pem", "cannot be read"),
        (key(dir.join("absent.key")), "absent.key", "cannot be read"),
        (chain(dir.to_owned()), dir.to_str().unwrap(), "cannot be read"),
        (chain(file("empty.pem", "")), "empty.pem", "no certificate"),
        (chain(good.key_file.clone()), "good.key", "no certificate"),
        (chain(file("cut.pem", &cut)), "cut.pem", "PEM form is broken"),
        (chain(file("b.pem", &pem("CERTIFICATE", b"x"))), "b.pem", "cannot be read"),
        (key(good.chain_file.clone()), "good.pem", "no private key"),
        (key(file("p.key", &pem("ENCRYPTED PRIVATE KEY", b"x"))), "p.key", "passphrase"),
        (key(file("g.key", &p521_or_garbage)), "g.key", "cannot be used"),
        (key(other.key_file.clone()), "other.key", "not the key of"),
        (key(file("long.key", &"x".repeat(1 << 21))), "long.key", "longer than"),
    ] {
        let error = load(&config(vec![files]), now()).unwrap_err().to_string();
        assert!(error.contains(names) && error.contains(says), "{names}, {says}: {error}");
    }
    let mut settings = config(vec![good.clone()]);
    settings.client_auth = ClientAuth::Required;
    for (authorities, says) in [
        (None, "client_ca_file"),
        (Some(dir.join("absent")), "cannot be read"),
        (Some(file("none.pem", "")), "no certificate"),
        (Some(file("ca.pem", &pem("CERTIFICATE", b"x"))), "cannot be used"),
    ] {
        settings.client_ca_file = authorities;
        let error = load(&settings, now()).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
    assert!(matches!(load(&config(vec![]), now()), Err(TlsError::NoCertificate)));
}

#[test]
fn no_message_quotes_a_key() {
    let bench = bench();
    let files = bench.authority.issue(&["a.example"]).write(bench.dir.path(), "a");
    let key = std::fs::read_to_string(&files.key_file).unwrap();
    let secret = key.lines().nth(1).unwrap().to_owned();
    for damaged in [
        key.replace("-----END PRIVATE KEY-----", ""),
        key.replace("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY"),
        key.replace(&secret, &format!("!{secret}")),
        secret.clone(),
    ] {
        write(&files.key_file, &damaged);
        let swapped = CertificateFiles {
            chain_file: files.key_file.clone(),
            key_file: files.chain_file.clone(),
        };
        for files in [files.clone(), swapped] {
            let error = load(&config(vec![files]), now()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(&secret), "{error}");
        }
    }
}

#[test]
fn what_is_doubtful_is_told_and_served() {
    let bench = bench();
    let issued = bench.authority.issue_with(&[], |params| {
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(2025, 2, 1);
    });
    let files = issued.write(bench.dir.path(), "a");
    std::fs::set_permissions(&files.key_file, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    let settings = config(vec![files]);
    let tls = load(&settings, now()).unwrap();
    let told = tls.warnings().join("\n");
    for says in ["expired at 2025-02-01", "everybody may read", "no DNS name"] {
        assert!(told.contains(says), "{says}: {told}");
    }
    assert_eq!(tls.expiries(), [Timestamp::parse_rfc3339("2025-02-01T00:00:00Z").unwrap()]);
    let early = load(&settings, Timestamp::from_unix_s(0)).unwrap();
    assert!(early.warnings().join("\n").contains("not valid before 2025-01-01"));
}

#[test]
fn a_resumed_session_does_not_outlive_its_certificate() {
    let client = Authority::new().issue_with(&["client.example"], |params| {
        params.not_after = rcgen::date_time_ymd(2025, 2, 1);
    });
    assert!(!ClientCertificate::read(&client.der, now()).is_valid);
    assert!(ClientCertificate::read(&client.der, Timestamp::from_unix_s(1_700_000_000)).is_valid);
}

#[test]
fn fingerprints_see_every_change() {
    let bench = bench();
    let files = bench.authority.issue(&["a.example"]).write(bench.dir.path(), "a");
    let mut settings = config(vec![files.clone()]);
    let first = Fingerprint::of(&settings);
    assert_eq!(load(&settings, now()).unwrap().fingerprint(), first);
    let mut seen = vec![first];
    let mut differs = |settings: &TlsConfig| {
        let fingerprint = Fingerprint::of(settings);
        assert!(!seen.contains(&fingerprint));
        seen.push(fingerprint);
    };
    bench.authority.issue(&["a.example"]).write(bench.dir.path(), "a");
    differs(&settings);
    settings.client_ca_file = Some(write_authority(bench.dir.path(), &bench.authority));
    differs(&settings);
    // Bytes that move from one file to the next are a change.
    write(&files.chain_file, "ab");
    write(&files.key_file, "c");
    differs(&settings);
    write(&files.chain_file, "a");
    write(&files.key_file, "bc");
    differs(&settings);
    std::fs::remove_file(&files.key_file).unwrap();
    differs(&settings);
}
