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
use crate::decision::denial::Code;
use crate::metrics::Held;

/// A connection, as its wire, its requests and their replies share it.
pub(super) struct Conn {
    pub(super) local: Rc<Local>,
    /// The peer's address, never in its IPv4-mapped form.
    pub(super) client: IpAddr,
    /// [`Conn::client`] as `X-Forwarded-For`.
    pub(super) forwarded_for: HeaderValue,
    in_flight: Cell<bool>,
    unflushed: Cell<bool>,
    called: Cell<bool>,
    aborted: Cell<bool>,
}

impl Conn {
    pub(super) fn new(local: Rc<Local>, peer: IpAddr) -> Self {
        let client = peer.to_canonical();
        Self {
            local,
            client,
            forwarded_for: fields::forwarded_for(client),
            in_flight: Cell::new(false),
            unflushed: Cell::new(false),
            called: Cell::new(false),
            aborted: Cell::new(false),
        }
    }

    /// The service was called with the request handed over last.
    pub(super) fn call(self: &Rc<Self>) -> InFlight {
        self.called.set(true);
        let counted = self.local.shared.metrics.request();
        InFlight { conn: Rc::clone(self), _counted: counted }
    }

    /// The response cannot be completed: the connection must not end as if it were.
    pub(super) fn abort(&self) {
        self.aborted.set(true);
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

    /// Whether [`Conn::abort`] was called.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.get()
    }
}

/// A request is being answered; held by the reply's body until its end.
pub(super) struct InFlight {
    conn: Rc<Conn>,
    _counted: Held,
}

impl InFlight {
    pub(super) fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.conn.in_flight.set(false);
    }
}
