//! `[server]`: where callers connect, whom to believe about them, and every bound of a connection
//! and a request.
//!
//! Certificates are named in `tls`; nothing is opened or bound here.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;

use super::read::Section;
use super::report::Noted;
use super::tls::{self, TlsConfig};
use super::value::{Span, quote};

/// What a request's body may be, on the server or on one route.
pub(super) const BODY_BYTES: (u64, u64) = (1, 1 << 40);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The data plane: listener, bounds and timeouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where callers connect.
    pub listen: SocketAddr,
    /// Worker threads, each with a listener of its own.
    pub workers: NonZeroUsize,
    /// Peers whose word about the caller is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// The header field in which they say it.
    pub forwarding_header: ForwardingHeader,
    /// Whether connections of trusted proxies begin with a PROXY header (v1 or v2); the others
    /// are served directly.
    pub proxy_protocol: bool,
    /// Whether a plain listener takes HTTP/2 with prior knowledge.
    pub h2c: bool,
    /// Open connections, over all workers; further ones are answered 503.
    pub connections_max: NonZeroUsize,
    /// Open connections of one client address (IPv6: of one /64), over all workers. Trusted
    /// proxies are exempt.
    pub connections_per_address_max: NonZeroUsize,
    /// Requests in flight, over all workers; further ones are answered 503 at once.
    pub requests_max: NonZeroUsize,
    /// Bytes of a request's head; more is 431, or 414 if the request line alone has more.
    pub header_bytes_max: usize,
    /// Header fields of a request; more is 431.
    pub header_count_max: usize,
    /// Bytes of a request's body, where the route does not say; more is 413.
    pub body_bytes_max: u64,
    /// From accepting a connection (with TLS: from the end of the handshake) to the first byte of
    /// its first request; then it is closed silently.
    pub first_byte_timeout: Duration,
    /// From the first byte of a request's head to its last; longer is 408.
    pub head_timeout: Duration,
    /// Between the requests of a connection.
    pub idle_timeout: Duration,
    /// Without progress of a request's body; longer is 408. Also without progress of the client
    /// taking its response; then its connection is cut.
    pub body_timeout: Duration,
    /// From a request's first byte until its head and body are received whole; longer is 408.
    pub request_timeout: Duration,
    /// An upgraded connection on which neither side sends is closed after this.
    pub tunnel_idle_timeout: Duration,
    /// From SIGTERM until connections that are still busy are cut.
    pub drain_timeout: Duration,
    /// HTTP/2.
    pub h2: H2Config,
    /// TLS; `None`: the listener is plain.
    pub tls: Option<TlsConfig>,
}

/// The header field in which a trusted proxy names the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`, read from the right.
    XForwardedFor,
    /// `Forwarded` (RFC 7239), read from the right.
    Forwarded,
}

/// Bounds of an HTTP/2 connection; every limit is set by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct H2Config {
    /// Concurrent streams.
    pub streams_max: u32,
    /// Flow-control window of a stream, in bytes.
    pub stream_window_bytes: u32,
    /// Flow-control window of the connection, in bytes.
    pub connection_window_bytes: u32,
    /// Bytes of responses held for a stream that its peer does not take.
    pub send_buffer_bytes: usize,
    /// Streams that the peer reset before they were looked at; more ends the connection.
    pub pending_resets_max: usize,
    /// Streams that were reset because of the peer's errors; more ends the connection.
    pub local_resets_max: usize,
    /// Between two PINGs.
    pub keep_alive_interval: Duration,
    /// A PING that is not answered for this long ends the connection.
    pub keep_alive_timeout: Duration,
}

/// Reads `[server]` with the tables in it.
pub(super) fn read(root: &mut Section<'_, '_>) -> Result<ServerConfig, Noted> {
    let mut t = root.table("server");
    let listen = t.text("listen", "0.0.0.0:8080", parse_address);
    let workers = t.integer_optional("workers", "as many as there are cores", (1, 1024));
    let peers = read_peers(&mut t);
    let h2c = t.boolean("h2c", false);
    let connections_max = t.count("connections_max", 10_000, (1, 1_000_000));
    let per_address_max = t.count("connections_per_address_max", 1000, (1, 1_000_000));
    let requests_max = t.count("requests_max", 10_000, (1, 10_000_000));
    // hyper's read buffer is no smaller than 8 KiB.
    let header_bytes_max = t.bytes("header_bytes_max", "16KiB", (8 * KIB, MIB));
    let header_count_max = t.count("header_count_max", 100, (8, 1000));
    let body_bytes_max = t.bytes("body_bytes_max", "64MiB", BODY_BYTES);
    let first_byte_timeout = t.duration("first_byte_timeout", "10s", Span::TIMEOUT);
    let head_timeout = t.duration("head_timeout", "10s", Span::TIMEOUT);
    let idle_timeout = t.duration("idle_timeout", "75s", Span::TIMEOUT);
    let body_timeout = t.duration("body_timeout", "30s", Span::TIMEOUT);
    let request_timeout = t.duration("request_timeout", "10m", Span::EXCHANGE);
    let tunnel_idle_timeout = t.duration("tunnel_idle_timeout", "5m", Span::EXCHANGE);
    let drain_timeout = t.duration("drain_timeout", "30s", Span::TIMEOUT);
    let h2 = read_h2(&mut t);
    let tls = tls::read(&mut t);
    if let (Ok(true), Ok(Some(_))) = (h2c, &tls) {
        let message = "is for plain connections; with certificates callers agree on HTTP/2 in \
                       the TLS handshake; leave it out";
        t.error("h2c", message.into());
    }
    t.finish();
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let (trusted_proxies, forwarding_header, proxy_protocol) = peers?;
    Ok(ServerConfig {
        listen: listen?,
        workers: workers?.map_or(Ok(cores), NonZeroUsize::try_from).unwrap_or(cores),
        trusted_proxies,
        forwarding_header,
        proxy_protocol,
        h2c: h2c?,
        connections_max: connections_max?,
        connections_per_address_max: per_address_max?,
        requests_max: requests_max?,
        header_bytes_max: usize::try_from(header_bytes_max?).unwrap_or(usize::MAX),
        header_count_max: header_count_max?.get(),
        body_bytes_max: body_bytes_max?,
        first_byte_timeout: first_byte_timeout?,
        head_timeout: head_timeout?,
        idle_timeout: idle_timeout?,
        body_timeout: body_timeout?,
        request_timeout: request_timeout?,
        tunnel_idle_timeout: tunnel_idle_timeout?,
        drain_timeout: drain_timeout?,
        h2: h2?,
        tls: tls?,
    })
}

/// Whose word about the caller is taken, and how they say it.
fn read_peers(t: &mut Section<'_, '_>) -> Result<(Vec<IpNet>, ForwardingHeader, bool), Noted> {
    let trusted = t.list("trusted_proxies", &[], parse_network);
    let choices = [
        ("x-forwarded-for", ForwardingHeader::XForwardedFor),
        ("forwarded", ForwardingHeader::Forwarded),
    ];
    let header = t.choice("forwarding_header", "x-forwarded-for", &choices);
    let proxy_protocol = t.boolean("proxy_protocol", false);
    if let (Ok(trusted), Ok(true)) = (&trusted, proxy_protocol)
        && trusted.is_empty()
    {
        let message = "needs trusted_proxies: a PROXY header is taken from them alone";
        t.error("proxy_protocol", message.into());
    }
    Ok((trusted?, header?, proxy_protocol?))
}

fn read_h2(server: &mut Section<'_, '_>) -> Result<H2Config, Noted> {
    let mut t = server.table("h2");
    let streams_max = t.integer("streams_max", 100, (1, 10_000));
    let stream_window = t.bytes("stream_window_bytes", "256KiB", (16 * KIB, GIB));
    // RFC 9113 §6.9.2: a connection begins with 65,535 bytes, and no setting takes them back.
    let connection_window = t.bytes("connection_window_bytes", "1MiB", (64 * KIB, GIB));
    let send_buffer = t.bytes("send_buffer_bytes", "256KiB", (16 * KIB, 64 * MIB));
    let pending_resets_max = t.count("pending_resets_max", 20, (1, 10_000));
    let local_resets_max = t.count("local_resets_max", 100, (1, 10_000));
    let keep_alive_interval = t.duration("keep_alive_interval", "30s", Span::TIMEOUT);
    let keep_alive_timeout = t.duration("keep_alive_timeout", "10s", Span::TIMEOUT);
    t.finish();
    Ok(H2Config {
        streams_max: streams_max?.get(),
        stream_window_bytes: u32::try_from(stream_window?).unwrap_or(u32::MAX),
        connection_window_bytes: u32::try_from(connection_window?).unwrap_or(u32::MAX),
        send_buffer_bytes: usize::try_from(send_buffer?).unwrap_or(usize::MAX),
        pending_resets_max: pending_resets_max?.get(),
        local_resets_max: local_resets_max?.get(),
        keep_alive_interval: keep_alive_interval?,
        keep_alive_timeout: keep_alive_timeout?,
    })
}

/// The address of a listener.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "{} is not an address; write IP:PORT, e.g. \"127.0.0.1:8080\" or \"[::]:8080\"",
            quote(text)
        )
    })
}

/// A network of trusted proxies, or the address of one.
pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    let shown = quote(text);
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().or_else(address).ok_or_else(|| {
        format!("{shown} is not a network; write e.g. \"10.0.0.0/8\", \"fd00::/8\" or \"::1\"")
    })?;
    if network.trunc() != network {
        let network = network.trunc();
        return Err(format!("{shown} has an address within the network; write \"{network}\""));
    }
    if network.prefix_len() == 0 {
        return Err(format!(
            "{shown} is everybody: every caller could say who they are; name the proxies' own \
             networks"
        ));
    }
    // Peers are compared as IPv4 where they are IPv4, so this would never match.
    if let IpNet::V6(v6) = network
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(format!("{shown} is IPv4 written as IPv6; write the IPv4 network"));
    }
    Ok(network)
}
