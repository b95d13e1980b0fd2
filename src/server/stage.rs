//! How far the end of a worker has got, and the connections that are told of it.
//!
//! No request is lost that a client could not know to be: as long as it can, a worker answers what
//! arrives and says with the answer that the connection ends. A connection that rests is closed
//! only after its client has had time to say something on it; one that has brought no request yet,
//! as the last. Who enters which stage when is the worker's to say.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// They are kept between requests.
    Serving,
    /// They end with the next answer.
    Parting,
    /// Those that rest between two requests end; so do tunnels.
    Leaving,
    /// All end that have no request under way.
    Closing,
}

/// The stage of one worker.
#[derive(Debug)]
pub(super) struct Stages {
    now: Cell<Stage>,
    /// To tell every connection that a stage begins.
    wakers: RefCell<HashMap<u64, Waker>>,
    /// Numbers the connections.
    count: Cell<u64>,
}

impl Default for Stages {
    fn default() -> Self {
        Self { now: Cell::new(Stage::Serving), wakers: RefCell::default(), count: Cell::new(0) }
    }
}

impl Stages {
    pub(super) fn now(&self) -> Stage {
        self.now.get()
    }

    /// Begins `stage`.
    pub(super) fn enter(&self, stage: Stage) {
        self.now.set(stage);
        self.wakers.borrow().values().for_each(Waker::wake_by_ref);
    }

    /// The entry of one more connection.
    pub(super) fn entry(&self) -> Entry<'_> {
        let number = self.count.replace(self.count.get().wrapping_add(1));
        Entry { stages: self, number, listed: Cell::new(false) }
    }
}

/// A connection's entry among those that are told.
pub(super) struct Entry<'a> {
    stages: &'a Stages,
    number: u64,
    listed: Cell<bool>,
}

impl Entry<'_> {
    /// The stage; the connection's task is woken when the next begins.
    pub(super) fn stage(&self, cx: &Context<'_>) -> Stage {
        if !self.listed.replace(true) {
            self.stages.wakers.borrow_mut().insert(self.number, cx.waker().clone());
        }
        self.stages.now()
    }

    /// The stage, to who need not be woken for the next.
    pub(super) fn now(&self) -> Stage {
        self.stages.now()
    }

    /// What `future` comes to; `None` when it has come to nothing as `last` begins.
    pub(super) async fn before<T>(
        &self,
        last: Stage,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = pin!(future);
        let outcome = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => self.ends(cx, last),
        });
        outcome.await
    }

    /// Ready, with nothing, when `last` begins.
    pub(super) fn ends<T>(&self, cx: &Context<'_>, last: Stage) -> Poll<Option<T>> {
        if self.stage(cx) >= last { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.stages.wakers.borrow_mut().remove(&self.number);
    }
}
