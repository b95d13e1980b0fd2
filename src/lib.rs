//! latchkey
pub mod clock;
pub mod config;
pub mod decision;
pub mod id;
pub mod jose;
pub mod jwks;
pub mod logging;
pub mod secret;
pub mod snapshot;
pub mod store;
pub mod verified_tokens;
