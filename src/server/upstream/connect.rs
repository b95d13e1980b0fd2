//! From an endpoint's name to a connection: resolution, TCP, TLS, all within one bound.
//!
//! Of several addresses the first that answers wins: each gets a head start over the next, so
//! that one that does not answer costs a moment and not the whole bound (RFC 8305). Keeps
//! nothing; connections are the pool's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::stream::Stream;
use crate::metrics::UpstreamCause;

/// How long an address is tried before the next one is too (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);
/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Where to connect, and as whom the other side has to prove itself.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// A name or an address, IPv6 without brackets.
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) tls: Option<Tls>,
    /// Whether HTTP/2 is spoken.
    pub(super) http2: bool,
}

/// How the other side has to prove itself.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    /// Roots, own certificate, protocols.
    pub(super) config: Arc<ClientConfig>,
    /// Its name.
    pub(super) name: ServerName<'static>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Its name means nothing.
    #[error("cannot resolve `{host}`: {source}")]
    Resolve {
        /// The name.
        host: Box<str>,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("cannot connect to `{host}`, port {port}: {source}")]
    Tcp {
        /// The name.
        host: Box<str>,
        /// The port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// It is not who it should be, or does not speak TLS.
    #[error("TLS with `{host}`: {source}")]
    Tls {
        /// The name.
        host: Box<str>,
        /// What rustls said.
        source: io::Error,
    },
    /// It does not speak the protocol that was agreed on by configuration.
    #[error("`{host}` does not speak HTTP/2; set `http2 = false`, or switch it on there")]
    NoHttp2 {
        /// The name.
        host: Box<str>,
    },
    /// The files that TLS needs could not be read.
    #[error("{0}")]
    Unusable(Arc<str>),
    /// All of it took too long.
    #[error("no connection to `{host}`, port {port}, within {ms} ms")]
    TimedOut {
        /// The name.
        host: Box<str>,
        /// The port.
        port: u16,
        /// The bound.
        ms: u128,
    },
    /// Another request's attempt failed, which this one waited for.
    #[error("the connection that others wait for too was not made: {0}")]
    Shared(Arc<str>),
}

impl ConnectError {
    /// What it counts as.
    pub(super) fn cause(&self) -> UpstreamCause {
        match self {
            Self::Resolve { .. } | Self::Tcp { .. } | Self::Shared(_) => UpstreamCause::Connect,
            Self::Tls { .. } | Self::NoHttp2 { .. } | Self::Unusable(_) => UpstreamCause::Tls,
            Self::TimedOut { .. } => UpstreamCause::ConnectTimeout,
        }
    }
}

/// Connects within `bound`.
pub(super) async fn connect(target: &Target, bound: Duration) -> Result<Stream, ConnectError> {
    match tokio::time::timeout(bound, connect_unbounded(target)).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::TimedOut {
            host: target.host.clone(),
            port: target.port,
            ms: bound.as_millis(),
        }),
    }
}

async fn connect_unbounded(target: &Target) -> Result<Stream, ConnectError> {
    let host = || target.host.clone();
    let found = lookup_host((&*target.host, target.port)).await;
    let found = found.map_err(|source| ConnectError::Resolve { host: host(), source })?;
    let addresses = interleaved(found.collect());
    let tcp = first_to_answer(addresses).await;
    let tcp =
        tcp.map_err(|source| ConnectError::Tcp { host: host(), port: target.port, source })?;
    // Requests are written whole: nothing is gained by waiting for more.
    let _ = tcp.set_nodelay(true);
    let Some(tls) = &target.tls else {
        return Ok(Stream::plain(tcp));
    };
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let secured = connector.connect(tls.name.clone(), tcp).await;
    let secured =
        secured.map_err(|error| ConnectError::Tls { host: host(), source: plain(error) })?;
    // Without ALPN nobody knows what the other side would make of a preface.
    if target.http2 && secured.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(ConnectError::NoHttp2 { host: host() });
    }
    Ok(Stream::tls(secured))
}

/// What rustls says, in words that mean something to who has mistaken http for https.
fn plain(error: io::Error) -> io::Error {
    let rustls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    if matches!(rustls, Some(rustls::Error::InvalidMessage(_))) {
        let said = "what it says is no TLS; if it speaks plain HTTP, its url begins with http://";
        return io::Error::new(error.kind(), said);
    }
    error
}

/// The addresses of both families in turn, in the order that the system gave them.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::new();
    loop {
        let turn = [first.next(), second.next()];
        if turn == [None, None] || turns.len() >= ADDRESSES_MAX {
            return turns;
        }
        turns.extend(turn.into_iter().flatten());
    }
}

async fn first_to_answer(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    if let [only] = *addresses {
        return TcpStream::connect(only).await;
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut rest = addresses.into_iter();
    let mut attempts = JoinSet::new();
    loop {
        let mut more = true;
        match rest.next() {
            Some(address) => {
                attempts.spawn(TcpStream::connect(address));
            }
            None if attempts.is_empty() => return Err(last),
            None => more = false,
        }
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => last = error,
                Err(error) => last = io::Error::other(error),
            },
            () = tokio::time::sleep(HEAD_START), if more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.into(), port, tls: None, http2: false }
    }

    #[test]
    fn both_families_get_their_turn() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let given = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]);
        let turns = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(interleaved(given), turns);
        assert_eq!(interleaved(Vec::new()), []);
    }

    #[tokio::test]
    async fn the_address_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let tcp = first_to_answer(vec![closed, closed, good]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), good);
        assert!(first_to_answer(vec![closed, closed]).await.is_err());
        assert!(first_to_answer(Vec::new()).await.is_err());
    }

    #[tokio::test]
    async fn failures_say_what_they_are() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let second = Duration::from_secs(5);
        let error = connect(&target("127.0.0.1", closed.port()), second).await.unwrap_err();
        assert_eq!(error.cause(), UpstreamCause::Connect, "{error}");
        let error = connect(&target("no-such-host.invalid", 1), second).await.unwrap_err();
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }
}
