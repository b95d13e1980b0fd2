//! latchkey
pub mod clock;
pub mod config;
pub mod decision;
pub mod id;
pub mod limiter;
pub mod metrics;
pub mod secret;
pub mod snapshot;
pub mod store;
pub mod verified_tokens;
