//! The admin plane: what an operator can do, and everything a running latchkey holds.
//!
//! In layers, from the inside out: [`Node`] is the state (store, snapshot, limiter, …);
//! [`operations`] are what can be done to it, each one store transaction and one patch of the
//! snapshot; [`api`] speaks of them in JSON over HTTP; [`listener`] serves that on TCP and on a
//! unix socket; [`jobs`] is what has to happen without anybody asking.
//!
//! Decisions are not made here (`decision` is), nor are requests forwarded (`server` does).

pub mod api;
pub mod audit;
pub mod caller;
pub mod jobs;
mod key_sets;
mod ledger;
pub mod listener;
pub mod live;
pub mod node;
pub mod operations;
pub mod overview;
mod patch;

pub use self::api::router;
pub use self::caller::{Caller, Via};
pub use self::node::{Node, OpenError};
pub use self::operations::{Created, Idempotency, OperationError};

#[cfg(test)]
mod testing;
