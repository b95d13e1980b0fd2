//! TLS and HTTP/2 to the upstream.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{ask, get, metric, serve};
use crate::support::http::connect;

/// A certification authority of the test's own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, in PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn server(&self, name: &str, asks_clients: bool, protocols: &[&str]) -> ServerConfig {
        let (chain, key) = self.issue(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks_clients {
            let mut roots = RootCertStore::empty();
            roots.add(self.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain = pem(&chain);
        let key = <PrivateKeyDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(
            key.as_bytes(),
        );
        let mut config = builder.with_single_cert(chain, key.unwrap()).unwrap();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    }
}

fn pem(text: &str) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::pem_slice_iter(text.as_bytes()).map(Result::unwrap).collect()
}

/// A server that answers with what it was asked, by HTTP/1.1 or HTTP/2.
struct Real {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Real {
    fn start(tls: Option<ServerConfig>, http2: bool) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                listener.set_nonblocking(true).unwrap();
                let listener = TcpListener::from_std(listener).unwrap();
                let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
                while let Ok((tcp, _)) = listener.accept().await {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        match acceptor {
                            None => answer(tcp, http2).await,
                            Some(acceptor) => {
                                if let Ok(tls) = acceptor.accept(tcp).await {
                                    answer(tls, http2).await;
                                }
                            }
                        }
                    });
                }
            });
        });
        Self { address, connections }
    }
}

async fn answer(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    http2: bool,
) {
    let io = TokioIo::new(stream);
    let service = service_fn(echo);
    // The client may go at any time.
    if http2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(io, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let mut text = format!("{:?} {} {}\n", request.version(), request.method(), request.uri());
    for (name, value) in request.headers() {
        writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
    }
    let body = request.into_body().collect().await?.to_bytes();
    write!(text, "{} bytes", body.len()).unwrap();
    Ok(Response::new(Full::from(text)))
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn an_upstream_proves_itself_by_its_own_roots_and_name() {
    let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
    let ca = write(files.path(), "ca.pem", &authority.0.pem());
    let other = write(files.path(), "other.pem", &Authority::new().0.pem());
    let real = Real::start(Some(authority.server("app.internal", false, &["http/1.1"])), false);
    let url = format!("url = \"https://{}\"", real.address);
    for (tls, status) in [
        (format!("ca_file = \"{ca}\"\nserver_name = \"app.internal\""), 200),
        (format!("ca_file = \"{ca}\"\nserver_name = \"app.other\""), 502),
        (format!("ca_file = \"{ca}\""), 502),
        (format!("ca_file = \"{other}\"\nserver_name = \"app.internal\""), 502),
    ] {
        let (_site, gateway) = serve(&format!("{url}\n{tls}"), "");
        let mut stream = connect(gateway.data);
        for _ in 0..3 {
            let got = ask(&mut stream, &get("/a?b"));
            assert_eq!(got.status, status, "{tls}");
            if status == 200 {
                assert!(got.text().starts_with("HTTP/1.1 GET /a?b\n"), "{}", got.text());
            } else {
                assert_eq!(got.json()["code"], "upstream_unreachable");
            }
        }
        if status != 200 {
            let errors = "latchkey_upstream_errors_total{cause=\"tls\",upstream=\"app\"}";
            assert!((metric(&gateway, errors) - 3.0).abs() < 0.1);
        }
    }
    assert_eq!(real.connections.load(Ordering::SeqCst), 1 + 3 * 3, "kept where it is good");
}

#[test]
fn latchkey_proves_itself_to_the_upstream() {
    let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
    let ca = write(files.path(), "ca.pem", &authority.0.pem());
    let (chain, key) = authority.issue("latchkey.internal");
    let chain = write(files.path(), "chain.pem", &chain);
    let key = write(files.path(), "key.pem", &key);
    let real = Real::start(Some(authority.server("127.0.0.1", true, &["http/1.1"])), false);
    let app = format!("url = \"https://{}\"\nca_file = \"{ca}\"\n", real.address);
    let shown = format!("{app}client_chain_file = \"{chain}\"\nclient_key_file = \"{key}\"\n");
    let (_site, gateway) = serve(&shown, "");
    assert_eq!(ask(&mut connect(gateway.data), &get("/")).status, 200);
    let (_site, gateway) = serve(&app, "");
    assert_eq!(ask(&mut connect(gateway.data), &get("/")).status, 502);
}

#[test]
fn many_requests_share_a_connection_of_http2() {
    let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
    let ca = write(files.path(), "ca.pem", &authority.0.pem());
    for tls in [false, true] {
        let config = tls.then(|| authority.server("127.0.0.1", false, &["h2"]));
        let real = Real::start(config, true);
        let scheme = if tls { "https" } else { "http" };
        let trust = if tls { format!("ca_file = \"{ca}\"") } else { String::new() };
        let app = format!("url = \"{scheme}://{}\"\nhttp2 = true\n{trust}", real.address);
        let (_site, gateway) = serve(&app, "");
        let data = gateway.data;
        let callers: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut stream = connect(data);
                    for n in 0..10 {
                        let request = format!(
                            "POST /a?b HTTP/1.1\r\nHost: front\r\nConnection: x\r\nX: 1\r\n\
                             Content-Length: {}\r\n\r\n{}",
                            n * 1000,
                            "x".repeat(n * 1000)
                        );
                        let got = ask(&mut stream, &request);
                        assert_eq!(got.status, 200);
                        let text = got.text();
                        let line = format!("HTTP/2.0 POST {scheme}://");
                        assert!(text.starts_with(&line), "{text}");
                        assert!(text.contains("/a?b\n") && !text.contains("\nx: 1"), "{text}");
                        assert!(text.ends_with(&format!("{} bytes", n * 1000)), "{text}");
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.join().unwrap();
        }
        assert_eq!(real.connections.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn an_upstream_that_does_not_agree_to_http2_is_not_asked() {
    let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
    let ca = write(files.path(), "ca.pem", &authority.0.pem());
    let real = Real::start(Some(authority.server("127.0.0.1", false, &[])), false);
    let app = format!("url = \"https://{}\"\nhttp2 = true\nca_file = \"{ca}\"", real.address);
    let (_site, gateway) = serve(&app, "");
    let got = ask(&mut connect(gateway.data), &get("/"));
    assert_eq!(got.outcome(), "502 upstream_unreachable");
}

#[test]
fn files_that_are_no_certificates_stop_a_start_and_leave_a_running_server_alone() {
    let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
    let ca = write(files.path(), "ca.pem", &authority.0.pem());
    let real = Real::start(Some(authority.server("127.0.0.1", false, &[])), false);
    let app = format!("url = \"https://{}\"\nca_file = \"{ca}\"", real.address);
    let (_site, gateway) = serve(&app, "");
    assert_eq!(ask(&mut connect(gateway.data), &get("/")).status, 200);
    write(files.path(), "ca.pem", "nothing");
    gateway.signal("HUP");
    let told = gateway.wait_for_log(|line| line["message"] == "the configuration was not reloaded");
    assert!(told["error"].as_str().unwrap().contains("ca.pem"), "{told}");
    assert_eq!(ask(&mut connect(gateway.data), &get("/")).status, 200);
    let site = crate::support::gateway::Site::new(None, &super::config(&app, ""));
    let output = site.cli(&["serve"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("ca.pem"));
}
