//! Where a connection came from, when a proxy says so before its first byte.
//!
//! Reads exactly the PROXY header and not a byte of what follows, so that TLS and HTTP need not
//! know of it. How long to wait, and who may say such a thing, is the caller's to judge.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::proxy_protocol::{self, Malformed};

/// Bytes looked at before they are taken; real headers are shorter.
const PEEK_BYTES: usize = 512;

/// Why nobody knows where a connection came from.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum ProxiedFault {
    /// What it begins with is no header.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It ended or failed before that.
    #[error("the connection ended before its PROXY header was complete")]
    Ended(#[from] io::Error),
}

/// Takes the PROXY header off `tcp`; `None` when it names no address.
pub(in crate::server) async fn read_header(
    tcp: &mut TcpStream,
) -> Result<Option<SocketAddr>, ProxiedFault> {
    let mut header = Vec::new();
    loop {
        let taken = header.len();
        header.resize(taken + PEEK_BYTES, 0);
        let seen = tcp.peek(header.get_mut(taken..).unwrap_or_default()).await?;
        if seen == 0 {
            return Err(ProxiedFault::Ended(io::ErrorKind::UnexpectedEof.into()));
        }
        header.truncate(taken + seen);
        let complete = proxy_protocol::parse(&header)?;
        // All that was seen of an incomplete header belongs to it.
        let end = complete.map_or(header.len(), |header| header.len);
        tcp.read_exact(header.get_mut(taken..end).unwrap_or_default()).await?;
        if let Some(complete) = complete {
            return Ok(complete.source);
        }
    }
}
