//! What a connection's wire, its requests and their replies know of each other.
//!
//! Only facts of one connection: no buffer, no timer, no decision.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use http::HeaderValue;

use super::live;
use super::local::Local;
use super::log;
use super::message::fields;
use super::places::Place;
use super::request_id::RequestId;
use super::streams::{Ending, Offer, Streams};
use super::upstream::send::Upgraded;
use crate::client_address::Scheme;
use crate::decision::denial::Code;
use crate::metrics::{Held, StreamReset};

/// How the peer speaks to us.
#[derive(Debug)]
pub(super) struct Transport {
    /// Through TLS, or plainly.
    pub(super) scheme: Scheme,
    /// In HTTP/2.
    pub(super) is_h2: bool,
    /// The name in the client's certificate, which was verified.
    pub(super) certificate: Option<Box<str>>,
}

impl Transport {
    /// HTTP/1.1 on a plain connection.
    pub(super) const PLAIN: Self = Self { scheme: Scheme::Http, is_h2: false, certificate: None };
}

/// A connection, as its wire, its requests and their replies share it.
pub(super) struct Conn {
    pub(super) local: Rc<Local>,
    /// The peer's address, or the one a PROXY header names; never in its IPv4-mapped form. Who
    /// is calling is said of each request, since a trusted proxy may send those of many.
    pub(super) peer: IpAddr,
    /// [`Conn::peer`] as `X-Forwarded-For`.
    pub(super) forwarded_for: HeaderValue,
    /// How the peer speaks.
    pub(super) scheme: Scheme,
    /// The name in the client's certificate, which was verified.
    pub(super) certificate: Option<Box<str>>,
    /// Of HTTP/2; the rest is of HTTP/1.1, which has one request at a time.
    streams: Option<Box<Streams>>,
    in_flight: Cell<bool>,
    unflushed: Cell<bool>,
    called: Cell<bool>,
    aborted: Cell<bool>,
    /// Nothing is under way, and no whole head has arrived.
    resting: Cell<bool>,
    /// The upstream's side, once both sides have agreed to change the protocol.
    upgraded: RefCell<Option<Upgraded>>,
}

impl Conn {
    pub(super) fn new(local: Rc<Local>, peer: IpAddr, transport: Transport) -> Self {
        let peer = peer.to_canonical();
        Self {
            local,
            peer,
            forwarded_for: fields::forwarded_for(peer),
            scheme: transport.scheme,
            certificate: transport.certificate,
            streams: transport.is_h2.then(Box::default),
            in_flight: Cell::new(false),
            unflushed: Cell::new(false),
            called: Cell::new(false),
            aborted: Cell::new(false),
            resting: Cell::new(false),
            upgraded: RefCell::default(),
        }
    }

    /// Whether it is one of TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// The requests of a connection of HTTP/2.
    pub(super) fn streams(&self) -> Option<&Streams> {
        self.streams.as_deref()
    }

    /// The service was called with the request handed over last.
    pub(super) fn call(self: &Rc<Self>) -> InFlight {
        let offer = self.streams.as_ref().map(|streams| {
            streams.begin();
            streams.current()
        });
        self.called.set(true);
        let shared = &self.local.shared;
        let place = self.local.places.request(shared.settings.load().server.requests_max.get());
        InFlight {
            conn: Rc::clone(self),
            offer,
            ending: Ending::GivenUp,
            place,
            _counted: shared.metrics.request(),
        }
    }

    /// What never became a request is refused: says so, and counts it.
    pub(super) fn unread(&self, id: &RequestId, code: Code, reason: &str) {
        log::unread(self.peer, id, code, reason);
        live::unread(&self.local.shared, self.peer, id, code, reason);
        self.local.shared.metrics.decision(None, Some(code));
    }

    /// A request is handed to hyper.
    pub(super) fn hand_over(&self) {
        self.in_flight.set(true);
        self.unflushed.set(true);
        self.called.set(false);
        self.hold();
    }

    /// All requests are answered, and the next one's head is not whole.
    pub(super) fn rest(&self) {
        self.resting.set(true);
    }

    /// Something is under way, if only the connection's end.
    pub(super) fn hold(&self) {
        self.resting.set(false);
    }

    /// Whether nothing is under way.
    pub(super) fn is_resting(&self) -> bool {
        self.resting.get()
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

    /// A response cannot be completed. Where there are no streams to tell it by, the connection
    /// must not end as if it were.
    pub(super) fn abort(&self) {
        self.aborted.set(self.streams.is_none());
    }

    /// The response under way is the last of HTTP on this connection.
    pub(super) fn upgrade(&self, upgraded: Upgraded) {
        self.upgraded.replace(Some(upgraded));
    }

    /// Whether [`Conn::upgrade`] was called.
    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.borrow().is_some()
    }

    /// The upstream's side, after that response; `None` too if that is not out whole.
    pub(super) fn take_upgraded(&self) -> Option<Upgraded> {
        self.upgraded.take().filter(|_| !self.is_busy())
    }

    /// Whether a response could not be completed: the connection must not end as if it were.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.get()
    }
}

/// A request is being answered; held by the reply's body until its end.
pub(super) struct InFlight {
    conn: Rc<Conn>,
    /// What the response waits for; only where there are streams.
    offer: Option<Rc<Offer>>,
    ending: Ending,
    /// Unless all were taken.
    place: Option<Place>,
    _counted: Held,
}

impl InFlight {
    pub(super) fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// Whether it has no place among the requests in flight, and is to be refused at once.
    pub(super) fn is_over(&self) -> bool {
        self.place.is_none()
    }

    /// Whether the response waits for the client to take something of it.
    pub(super) fn offered(&self, offered: bool) {
        if let (Some(streams), Some(offer)) = (self.conn.streams(), &self.offer)
            && offer.is_untaken() != offered
        {
            if offered { streams.offer(offer) } else { streams.take(offer) }
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
        self.conn.abort();
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
