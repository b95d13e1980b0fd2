//! latchkey decides, for every HTTP request, whether this caller may do this.
//!
//! # The way of a request
//!
//! ```text
//! socket → server → RequestView → decision::evaluate ─┬─ Refuse → problem+json
//!                                                     └─ Admit  → forward to the upstream,
//!                                                                 or 200 to the proxy that asks
//! ```
//!
//! [`decision`] is the product: pure and synchronous, it knows no socket, file, clock or log.
//! Around it stand, in the order a request or a change meets them:
//!
//! * [`server`]: the data plane. One thread per core, each with a listener, a runtime and a pool
//!   of upstream connections of its own. It decides nothing and never opens the store.
//! * [`snapshot`]: the compiled shops, keys and policies that decisions read; replaced by a
//!   patched copy, never locked.
//! * [`limiter`], [`verified_tokens`]: what requests leave behind for the next ones, both of fixed
//!   size and lost with the process.
//! * [`usage`], [`events`]: what was let through and what was refused, told to whoever looks;
//!   neither ever makes a request wait.
//! * [`trace`]: which trace a request is of, and its spans on their way to a collector.
//! * [`jwks`]: keeps the key sets of identity providers fresh.
//! * [`admin`]: changes things. Every change is committed to the [`store`] before it is
//!   acknowledged, and published in the snapshot before the call returns. It serves no caller of
//!   the data plane.
//! * [`cli`]: puts it all together, and speaks to the admin plane for the operator.
//!
//! Below them: [`config`] turns what was written into what the program needs; [`metrics`] and
//! [`logging`] tell the operator what happened; [`id`] and [`secret`] are names that are valid and
//! secrets that cannot be printed; [`clock`] alone reads the time; `pace` has long
//! walks give way; `https` asks others on latchkey's own behalf; [`jose`] is the cryptography of
//! JWTs; [`assertion`] signs what upstreams are told; [`tls`] holds the certificates of listeners;
//! [`client_address`] finds out who is calling behind trusted proxies.
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
pub mod assertion;
pub mod cli;
pub mod client_address;
pub mod clock;
pub mod config;
pub mod decision;
pub mod events;
mod https;
pub mod id;
pub mod jose;
pub mod jwks;
pub mod limiter;
pub mod logging;
pub mod metrics;
mod pace;
pub mod secret;
pub mod server;
pub mod snapshot;
pub mod store;
pub mod tls;
pub mod trace;
pub mod usage;
pub mod verified_tokens;
