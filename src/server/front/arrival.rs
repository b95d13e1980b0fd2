//! What a connection is, found out before it is served: its handshake if it is to have one, and
//! the version of HTTP that is spoken on it.
//!
//! Everything in time, and nothing of it holds up the next connection. Serves nothing.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::{AlertDescription, Error};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::stream::Stream;
use crate::client_address::Scheme;
use crate::config::ServerConfig;
use crate::metrics::{Bound, Handshake};
use crate::server::conn::Transport;
use crate::server::log;
use crate::server::shared::Shared;
use crate::tls::{self, ClientCertificate, Tls};

/// What a client of HTTP/2 says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that is ready to be served.
pub(in crate::server) struct Arrival {
    pub(in crate::server) stream: Stream,
    /// What was read of it already.
    pub(in crate::server) begun: Vec<u8>,
    pub(in crate::server) transport: Transport,
}

/// Finds out what a connection is; `None` if it is none worth serving.
pub(in crate::server) async fn arrive(
    tcp: TcpStream,
    peer: IpAddr,
    shared: &Shared,
    config: &ServerConfig,
) -> Option<Arrival> {
    if let Some(tls) = &shared.tls {
        // Boxed: its state is large, and is gone when the handshake is over.
        return Box::pin(handshake(tcp, peer, &tls.load_full(), shared)).await;
    }
    if config.h2c {
        return Box::pin(prior_knowledge(tcp, shared, config)).await;
    }
    let transport = Transport::PLAIN;
    Some(Arrival { stream: Stream::Plain(tcp), begun: Vec::new(), transport })
}

async fn handshake(tcp: TcpStream, peer: IpAddr, tls: &Tls, shared: &Shared) -> Option<Arrival> {
    let accepting = TlsAcceptor::from(Arc::clone(&tls.rustls)).accept(tcp);
    let accepted = tokio::time::timeout(tls.handshake_timeout, accepting).await;
    let failed = |outcome, error: &dyn std::error::Error| {
        shared.metrics.handshake(outcome);
        log::handshake_failed(peer, outcome, error);
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            failed(fault(&error), &error);
            return None;
        }
        Err(late) => {
            failed(Handshake::TimedOut, &late);
            return None;
        }
    };
    let connection = stream.get_ref().1;
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    let now = shared.clock.now().unix;
    let certificate = certificate.map(|der| ClientCertificate::read(der, now));
    if certificate.as_ref().is_some_and(|certificate| !certificate.is_valid) {
        let expired = Error::InvalidCertificate(rustls::CertificateError::Expired);
        failed(Handshake::ClientCertificate, &expired);
        return None;
    }
    shared.metrics.handshake(Handshake::Completed);
    let transport = Transport {
        scheme: Scheme::Https,
        is_h2: tls::is_h2(connection),
        certificate: certificate.map(|certificate| certificate.name),
    };
    Some(Arrival { stream: Stream::Tls(Box::new(stream)), begun: Vec::new(), transport })
}

/// What ended a handshake.
fn fault(error: &io::Error) -> Handshake {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        None => Handshake::Closed,
        Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => {
            Handshake::ClientCertificate
        }
        Some(Error::InvalidMessage(_)) => Handshake::NotTls,
        Some(Error::AlertReceived(alert)) if is_about_certificate(*alert) => Handshake::Refused,
        Some(_) => Handshake::Incompatible,
    }
}

/// Whether a client that says so does not like the certificate it was shown.
fn is_about_certificate(alert: AlertDescription) -> bool {
    [
        AlertDescription::BadCertificate,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateUnknown,
        AlertDescription::UnknownCA,
        AlertDescription::AccessDenied,
    ]
    .contains(&alert)
}

/// Waits for as much as it takes to tell HTTP/2 from HTTP/1.1.
async fn prior_knowledge(
    mut tcp: TcpStream,
    shared: &Shared,
    config: &ServerConfig,
) -> Option<Arrival> {
    let mut begun = Vec::with_capacity(PREFACE.len());
    let telling = async {
        let mut bytes = [0; PREFACE.len()];
        while begun.len() < PREFACE.len() && PREFACE.starts_with(&begun) {
            let left = bytes.get_mut(begun.len()..).unwrap_or_default();
            match tcp.read(left).await {
                Ok(n @ 1..) => begun.extend(left.iter().take(n)),
                Ok(0) | Err(_) => return,
            }
        }
    };
    // What has not told itself in time is left to the wire, which has times of its own.
    let told = tokio::time::timeout(config.first_byte_timeout, telling).await;
    if begun.is_empty() {
        if told.is_err() {
            shared.metrics.bound_hit(Bound::FirstByteTimeout);
        }
        return None;
    }
    let transport = Transport { is_h2: begun == PREFACE, ..Transport::PLAIN };
    Some(Arrival { stream: Stream::Plain(tcp), begun, transport })
}
