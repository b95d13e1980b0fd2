//! `[upstreams.NAME]`: a protected service, where its instances are and how they are reached.
//!
//! Names files and does not open them; resolves no name.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use rustls::pki_types::ServerName;

use super::read::Section;
use super::report::{Noted, collect_all};
use super::tls::CertificateFiles;
use super::validate::{parse_name, parse_path};
use super::value::{self, Span, quote};
use crate::decision::origin::Scheme;
use crate::id::Name;

/// The most endpoints of an upstream.
const ENDPOINTS_MAX: usize = 64;

/// A protected service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where its instances are; never empty, and all of one scheme.
    pub endpoints: Vec<Endpoint>,
    /// Whether it is spoken to by HTTP/2: over https agreed on by ALPN, which is required; over
    /// http with prior knowledge.
    pub http2: bool,
    /// How https endpoints are verified; `None` for http.
    pub tls: Option<UpstreamTlsConfig>,
    /// Whether it gets the client's `Host` instead of its own.
    pub preserve_host: bool,
    /// Name resolution and TCP handshake, with https the TLS handshake too.
    pub connect_timeout: Duration,
    /// Until the head of the response, the wait for a connection included; begins anew while the
    /// request's body makes progress.
    pub response_timeout: Duration,
    /// Without progress of a response's body.
    pub body_timeout: Duration,
    /// Until the response's end.
    pub total_timeout: Duration,
    /// A pooled connection that is not used for this long is closed.
    pub idle_timeout: Duration,
    /// Idle connections kept, per worker.
    pub idle_connections_max: NonZeroUsize,
    /// Further endpoints tried when connecting fails; a count, so zero is none.
    pub connect_retries_max: u32,
    /// When an endpoint is left out for its failures.
    pub ejection: EjectionConfig,
    /// How endpoints are asked whether they are well; `None`: they are not.
    pub probe: Option<ProbeConfig>,
}

/// An instance of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// http or https.
    pub scheme: Scheme,
    /// Host and optional port.
    pub authority: Authority,
}

impl Endpoint {
    /// The host, an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// The port; the scheme's own unless written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(self.scheme.default_port())
    }
}

/// How https endpoints are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTlsConfig {
    /// The roots trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The name verified and sent as SNI instead of the endpoint's host.
    pub server_name: Option<ServerName<'static>>,
    /// The certificate that latchkey shows.
    pub client: Option<CertificateFiles>,
}

/// When an endpoint is left out for its failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EjectionConfig {
    /// Failures in a row: to connect, to answer in time, or with an answer that is 502, 503 or
    /// 504 downstream.
    pub failures: NonZeroU32,
    /// For how long; doubles with every repeat, up to ten times this.
    pub time: Duration,
}

/// How endpoints are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeConfig {
    /// What is asked for.
    pub path: PathAndQuery,
    /// Between two probes of an endpoint.
    pub interval: Duration,
    /// A whole probe.
    pub timeout: Duration,
    /// Failures in a row after which an endpoint is left out.
    pub failures: NonZeroU32,
    /// Successes in a row after which it is taken back.
    pub successes: NonZeroU32,
}

/// Reads `[upstreams]`.
pub(super) fn read(root: &mut Section<'_, '_>) -> Result<BTreeMap<Name, UpstreamConfig>, Noted> {
    let names = root.table_names("upstreams")?;
    let upstreams = names.iter().map(|name| read_upstream(root, name));
    Ok(collect_all(upstreams)?.into_iter().collect())
}

fn read_upstream(root: &mut Section<'_, '_>, name: &str) -> Result<(Name, UpstreamConfig), Noted> {
    let mut t = root.named_table("upstreams", name);
    let name = parse_name(name).map_err(|message| t.error_here(message));
    let endpoints = read_endpoints(&mut t);
    let http2 = t.boolean("http2", false);
    let tls = read_tls(&mut t, endpoints.as_deref().ok());
    let preserve_host = t.boolean("preserve_host", false);
    let connect_timeout = t.duration("connect_timeout", "2s", Span::TIMEOUT);
    let response_timeout = t.duration("response_timeout", "30s", Span::TIMEOUT);
    let body_timeout = t.duration("body_timeout", "30s", Span::TIMEOUT);
    let total_timeout = t.duration("total_timeout", "1h", Span::EXCHANGE);
    let idle_timeout = t.duration("idle_timeout", "60s", Span::TIMEOUT);
    let idle_connections_max = t.count("idle_connections_max", 64, (1, 65_536));
    let connect_retries_max = t.number("connect_retries_max", 1, (0, 10));
    let ejection = read_ejection(&mut t);
    let probe = read_probe(&mut t);
    t.finish();
    let upstream = UpstreamConfig {
        endpoints: endpoints?,
        http2: http2?,
        tls: tls?,
        preserve_host: preserve_host?,
        connect_timeout: connect_timeout?,
        response_timeout: response_timeout?,
        body_timeout: body_timeout?,
        total_timeout: total_timeout?,
        idle_timeout: idle_timeout?,
        idle_connections_max: idle_connections_max?,
        connect_retries_max: connect_retries_max?,
        ejection: ejection?,
        probe: probe?,
    };
    Ok((name?, upstream))
}

/// The endpoints, said by `url` or by `urls`.
fn read_endpoints(t: &mut Section<'_, '_>) -> Result<Vec<Endpoint>, Noted> {
    if !t.has("urls") {
        let hint = "write e.g. url = \"http://127.0.0.1:9000\"";
        let one = t.text_required("url", hint, value::parse_upstream)?;
        t.left_out("urls", "there is one url");
        return Ok(vec![one]);
    }
    // The default upstream's own default gives way.
    if t.is_written("url") {
        let message = "stands beside `url`; an upstream has one or the other";
        return Err(t.error("urls", message.into()));
    }
    let hint = "write e.g. [\"http://10.0.0.1:9000\", \"http://10.0.0.2:9000\"]";
    let endpoints = t.list_required("urls", hint, value::parse_upstream)?;
    check_endpoints(t, &endpoints)?;
    Ok(endpoints)
}

fn check_endpoints(t: &mut Section<'_, '_>, endpoints: &[Endpoint]) -> Result<(), Noted> {
    if endpoints.len() > ENDPOINTS_MAX {
        let message = format!("holds {} URLs; {ENDPOINTS_MAX} is the most", endpoints.len());
        return Err(t.error("urls", message));
    }
    let first = endpoints.first().map(|e| e.scheme);
    let mut seen = BTreeSet::new();
    let mut sound = Ok(());
    for (i, endpoint) in endpoints.iter().enumerate() {
        let member = format!("urls[{i}]");
        if Some(endpoint.scheme) != first {
            let message = "has another scheme than the first; the endpoints of an upstream are \
                           all http or all https";
            sound = Err(t.error(&member, message.into()));
        }
        if !seen.insert((endpoint.host().to_ascii_lowercase(), endpoint.port())) {
            let message = format!("{} stands twice", quote(endpoint.authority.as_str()));
            sound = Err(t.error(&member, message));
        }
    }
    sound
}

/// How https endpoints are verified; the keys are mistakes with http.
fn read_tls(
    t: &mut Section<'_, '_>,
    endpoints: Option<&[Endpoint]>,
) -> Result<Option<UpstreamTlsConfig>, Noted> {
    const KEYS: [&str; 4] = ["ca_file", "server_name", "client_chain_file", "client_key_file"];
    let scheme = endpoints.and_then(|e| e.first()).map(|e| e.scheme);
    let ca_file = t.text_optional("ca_file", "the system's roots", parse_path);
    let server_name = t.text_optional("server_name", "the url's host", parse_server_name);
    let chain = t.text_optional("client_chain_file", "no client certificate", parse_path);
    let key = t.text_optional("client_key_file", "no client certificate", parse_path);
    if scheme == Some(Scheme::Http) {
        for name in KEYS {
            if t.has(name) {
                t.error(name, "is for https; this upstream is reached by http".into());
            }
        }
        return Ok(None);
    }
    if let (Some(endpoints), Ok(None)) = (endpoints, &server_name) {
        check_hosts(t, endpoints)?;
    }
    let client = match (chain?, key?) {
        (Some(chain_file), Some(key_file)) => Some(CertificateFiles { chain_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            let message = "is missing; client_chain_file needs its key";
            return Err(t.error("client_key_file", message.into()));
        }
        (None, Some(_)) => {
            let message = "is missing; client_key_file needs its certificate";
            return Err(t.error("client_chain_file", message.into()));
        }
    };
    Ok(Some(UpstreamTlsConfig { ca_file: ca_file?, server_name: server_name?, client }))
}

/// That every host can be the name in a certificate.
fn check_hosts(t: &mut Section<'_, '_>, endpoints: &[Endpoint]) -> Result<(), Noted> {
    for (i, endpoint) in endpoints.iter().enumerate() {
        if parse_server_name(endpoint.host()).is_err() {
            let key = if t.has("urls") { format!("urls[{i}]") } else { "url".into() };
            let message = format!(
                "{} cannot be the name in a certificate; write that name as server_name",
                quote(endpoint.host())
            );
            return Err(t.error(&key, message));
        }
    }
    Ok(())
}

fn read_ejection(upstream: &mut Section<'_, '_>) -> Result<EjectionConfig, Noted> {
    let mut t = upstream.table("ejection");
    let failures = t.integer("failures", 5, (1, 10_000));
    let time = t.duration("time", "10s", Span::TIMEOUT);
    t.finish();
    Ok(EjectionConfig { failures: failures?, time: time? })
}

fn read_probe(upstream: &mut Section<'_, '_>) -> Result<Option<ProbeConfig>, Noted> {
    let mut t = upstream.table("probe");
    if t.is_empty() {
        t.left_out("path", "endpoints are not probed");
        return Ok(None);
    }
    let path = t.text_required("path", "write e.g. path = \"/health\"", parse_probe_path);
    let interval = t.duration("interval", "10s", Span::TIMEOUT);
    let timeout = t.duration("timeout", "2s", Span::TIMEOUT);
    let failures = t.integer("failures", 3, (1, 1000));
    let successes = t.integer("successes", 2, (1, 1000));
    t.finish();
    Ok(Some(ProbeConfig {
        path: path?,
        interval: interval?,
        timeout: timeout?,
        failures: failures?,
        successes: successes?,
    }))
}

/// A name that can be in a certificate: a host name or an address.
fn parse_server_name(text: &str) -> Result<ServerName<'static>, String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    ServerName::try_from(bare.to_owned()).map_err(|_| {
        format!("{} is not a host name or an address; write e.g. \"api.internal\"", quote(text))
    })
}

fn parse_probe_path(text: &str) -> Result<PathAndQuery, String> {
    let not_path = || format!("{} is not a path; write e.g. \"/health\"", quote(text));
    if !text.starts_with('/') || text.contains('#') {
        return Err(not_path());
    }
    text.parse().map_err(|_| not_path())
}
