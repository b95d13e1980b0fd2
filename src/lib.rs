//! latchkey
pub mod clock;
pub mod config;
pub mod decision;
pub mod id;
pub mod jose;
pub mod logging;
pub mod secret;
pub mod verified_tokens;
