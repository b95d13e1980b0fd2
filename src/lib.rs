//! latchkey
pub mod clock;
pub mod config;
pub mod decision;
pub mod id;
pub mod snapshot;
pub mod verified_tokens;
pub mod logging;
pub mod secret;
