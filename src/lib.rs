//! latchkey decides, for every HTTP request, whether this caller may do this.
//!
//! # The way of a request
//!
//! ```text
//! socket → server → RequestView → decision::evaluate ─┬─ Refuse → problem+json
//!                                                     └─ Admit  → proxy to the upstream
//! ```
//!
//! [`decision`] is the product: pure and synchronous, it knows no socket, file, clock or log.
//! Around it stand, in the order a request or a change meets them:
//!
//! * [`server`]: the data plane. One thread per core, each with a listener, a runtime and a pool
//!   of upstream connections of its own.
//! * [`snapshot`]: the compiled shops, keys and policies that decisions read; replaced as a whole,
//!   never locked.
//! * [`limiter`], [`verified_tokens`]: the only state a request changes, both of fixed size.
//! * [`jwks`]: keeps the key sets of identity providers fresh.
//! * [`admin`]: changes things. Every change is committed to the [`store`] before it is
//!   acknowledged, and published in the snapshot before the call returns.
//! * [`cli`]: puts it all together.
//!
//! # Invariants
//!
//! 1. No request reaches an upstream without a [`decision::Admitted`], which only
//!    [`decision::evaluate`] makes.
//! 2. Bad input is an error with a stable code; zero never means unlimited.
//! 3. Everything is bounded.
//! 4. Nothing acknowledged is lost; when the disk refuses, writes fail and decisions go on.
//! 5. Metric labels are closed sets.
//! 6. No `unsafe`; time, randomness and the disk are handed in.
//! 7. One crypto library: ring.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod decision;
pub mod id;
pub mod jose;
pub mod jwks;
pub mod limiter;
pub mod logging;
pub mod metrics;
pub mod secret;
pub mod server;
pub mod snapshot;
pub mod store;
pub mod verified_tokens;
