//! What a connection's wire, its requests and their replies know of each other.
//!
//! Only facts of one connection: no buffer, no timer, no decision.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;

use http::HeaderValue;

use super::local::Local;
use super::log;
use super::message::fields;
use super::request_id::RequestId;
use super::streams::{Ending, Streams};
use crate::decision::denial::Code;
use crate::metrics::{Held, StreamReset};

/// How the peer speaks to us.
#[derive(Debug, Default)]
pub(super) struct Transport {
    /// Through TLS.
    pub(super) is_tls: bool,
    /// In HTTP/2.
    pub(super) is_h2: bool,
    /// The name in the client's certificate, which was verified.
    pub(super) certificate: Option<Box<str>>,
}

/// A connection, as its wire, its requests and their replies share it.
pub(super) struct Conn {
    pub(super) local: Rc<Local>,
    /// The peer's address, never in its IPv4-mapped form.
    pub(super) client: IpAddr,
    /// [`Conn::client`] as `X-Forwarded-For`.
    pub(super) forwarded_for: HeaderValue,
    pub(super) is_tls: bool,
    /// The name in the client's certificate, which was verified.
    pub(super) certificate: Option<Box<str>>,
    /// Of HTTP/2; the rest is of HTTP/1.1, which has one request at a time.
    streams: Option<Box<Streams>>,
    in_flight: Cell<bool>,
    unflushed: Cell<bool>,
    called: Cell<bool>,
    aborted: Cell<bool>,
}

impl Conn {
    pub(super) fn new(local: Rc<Local>, peer: IpAddr, transport: Transport) -> Self {
        let client = peer.to_canonical();
        Self {
            local,
            client,
            forwarded_for: fields::forwarded_for(client),
            is_tls: transport.is_tls,
            certificate: transport.certificate,
            streams: transport.is_h2.then(Box::default),
            in_flight: Cell::new(false),
            unflushed: Cell::new(false),
            called: Cell::new(false),
            aborted: Cell::new(false),
        }
    }

    /// The requests of a connection of HTTP/2.
    pub(super) fn streams(&self) -> Option<&Streams> {
        self.streams.as_deref()
    }

    /// The service was called with the request handed over last.
    pub(super) fn call(self: &Rc<Self>) -> InFlight {
        match &self.streams {
            Some(streams) => streams.begin(),
            None => self.called.set(true),
        }
        let counted = self.local.shared.metrics.request();
        let ending = Ending::GivenUp;
        InFlight { conn: Rc::clone(self), offered: false, ending, _counted: counted }
    }

    /// What never became a request is refused: says so, and counts it.
    pub(super) fn unread(&self, id: &RequestId, code: Code, reason: &str) {
        log::unread(self.client, id, code, reason);
        self.local.shared.metrics.decision(None, Some(code));
    }

    /// A request is handed to hyper.
    pub(super) fn hand_over(&self) {
        self.in_flight.set(true);
        self.unflushed.set(true);
        self.called.set(false);
    }

    /// A response is not out yet.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.get() || self.unflushed.get()
    }

    /// Hyper answers what it never showed the service: a refusal of its own.
    pub(super) fn is_hypers_answer(&self) -> bool {
        self.in_flight.get() && !self.called.get()
    }

    /// Everything is written; whether that was the end of a response.
    pub(super) fn flushed(&self) -> bool {
        !self.in_flight.get() && self.unflushed.take()
    }

    /// Whether a response could not be completed: the connection must not end as if it were.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.get()
    }
}

/// A request is being answered; held by the reply's body until its end.
pub(super) struct InFlight {
    conn: Rc<Conn>,
    /// The response waits for the client.
    offered: bool,
    ending: Ending,
    _counted: Held,
}

impl InFlight {
    pub(super) fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// Whether the response waits for the client to take something of it.
    pub(super) fn offered(&mut self, offered: bool) {
        if let Some(streams) = self.conn.streams()
            && self.offered != offered
        {
            self.offered = offered;
            if offered { streams.offer() } else { streams.take() }
        }
    }

    /// The response is whole.
    pub(super) fn complete(&mut self) {
        self.ending = Ending::Completed;
    }

    /// The response cannot be completed: the request's stream is reset, or, where there are no
    /// streams, the connection.
    pub(super) fn abort(&mut self) {
        self.ending = Ending::Broken;
        self.conn.aborted.set(self.conn.streams.is_none());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.offered(false);
        let Some(streams) = self.conn.streams() else {
            self.conn.in_flight.set(false);
            return;
        };
        streams.end(self.ending);
        let metrics = &self.conn.local.shared.metrics;
        match self.ending {
            Ending::Completed => {}
            Ending::Broken => metrics.h2_reset(StreamReset::Upstream),
            Ending::GivenUp => metrics.h2_reset(StreamReset::Client),
        }
    }
}
