//! Distributed tracing: which trace a request belongs to, and how its spans get to a collector.
//!
//! ```text
//! traceparent ─ context::Parent ─ Ids::begin ─ Trace ─┬─ the log's trace_id, the upstream's field
//!                                                     └─ Finished ─ Spans ┄┄ exporter ─ collector
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | [`context`] | the two header fields of W3C Trace Context, as they are read and written |
//! | `begin` | whose word is taken, which trace a request is of, whether it is recorded |
//! | `span` | what is recorded of a request, and the bounded queue it waits in |
//! | `otlp` | the spans in the encoding of OTLP |
//! | `collector` | one exchange with a collector |
//! | `exporter` | batches, retries, and when to give up |
//!
//! A worker makes identifiers and puts records into the queue; it never waits, and what the queue
//! has no room for is dropped and counted. The exporter runs on the admin plane's runtime. Nothing
//! here decides about a request, and no record holds a credential, a query or a body.

mod begin;
mod collector;
pub mod context;
mod exporter;
mod otlp;
mod span;
#[cfg(test)]
mod testing;

pub use self::begin::{Ids, Policy, Trace};
pub use self::collector::{Collector, Fault};
pub use self::exporter::{Exporter, run};
pub use self::span::{Finished, Hop, Received, Spans, channel};
