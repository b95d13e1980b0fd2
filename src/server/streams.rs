//! What the requests of one HTTP/2 connection tell it: how many there are, whether the client
//! takes their responses, how many it gave up.
//!
//! Counts only; what follows from it is the connection's to say.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: Cell<u32>,
    /// Responses of which the client is to take something before there is more to do.
    untaken: Cell<u32>,
    /// Requests begun, and things taken; wraps.
    steps: Cell<u32>,
    /// Requests given up by the client in excess of those completed.
    given_up: Cell<u32>,
    /// The connection's, woken when its last request ends.
    waker: RefCell<Option<Waker>>,
    /// Of the request whose task runs.
    current: RefCell<Option<Rc<Offer>>>,
}

/// What one request's response waits for.
#[derive(Debug, Default)]
pub(super) struct Offer {
    untaken: Cell<bool>,
    /// Changes with all that the client takes of it; wraps.
    steps: Cell<u32>,
}

impl Offer {
    /// Whether the client is to take something of it before there is more to do.
    pub(super) fn is_untaken(&self) -> bool {
        self.untaken.get()
    }

    /// Changes with all that the client takes of it.
    pub(super) fn steps(&self) -> u32 {
        self.steps.get()
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// With a whole response.
    Completed,
    /// The response broke off.
    Broken,
    /// The client gave it up, or its connection broke.
    GivenUp,
}

impl Streams {
    pub(super) fn begin(&self) {
        self.open.set(self.open.get() + 1);
        self.step();
    }

    pub(super) fn end(&self, ending: Ending) {
        let given_up = self.given_up.get();
        match ending {
            Ending::GivenUp => self.given_up.set(given_up.saturating_add(1)),
            Ending::Completed => self.given_up.set(given_up.saturating_sub(1)),
            Ending::Broken => {}
        }
        self.open.set(self.open.get().saturating_sub(1));
        self.step();
        if self.open.get() == 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Runs `task`, which is the request's whose response `offer` is.
    pub(super) fn within<T>(&self, offer: &Rc<Offer>, task: impl FnOnce() -> T) -> T {
        self.current.replace(Some(Rc::clone(offer)));
        let outcome = task();
        self.current.take();
        outcome
    }

    /// The response of the request whose task runs.
    pub(super) fn current(&self) -> Rc<Offer> {
        self.current.borrow().clone().unwrap_or_default()
    }

    /// A response begins to wait for the client.
    pub(super) fn offer(&self, offer: &Offer) {
        offer.untaken.set(true);
        self.untaken.set(self.untaken.get() + 1);
    }

    /// A response does not wait for the client any more.
    pub(super) fn take(&self, offer: &Offer) {
        offer.untaken.set(false);
        offer.steps.set(offer.steps.get().wrapping_add(1));
        self.untaken.set(self.untaken.get().saturating_sub(1));
        self.step();
    }

    fn step(&self) {
        self.steps.set(self.steps.get().wrapping_add(1));
    }

    /// Requests that are being answered.
    pub(super) fn open(&self) -> u32 {
        self.open.get()
    }

    /// Responses that wait for the client.
    pub(super) fn untaken(&self) -> u32 {
        self.untaken.get()
    }

    /// Changes with every request and with all that the client takes.
    pub(super) fn steps(&self) -> u32 {
        self.steps.get()
    }

    /// Requests given up by the client in excess of those completed.
    pub(super) fn given_up(&self) -> u32 {
        self.given_up.get()
    }

    /// Has `waker` woken when the last request ends.
    pub(super) fn watch(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if slot.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }
}
