//! latchkey
pub mod clock;
pub mod config;
pub mod decision;
pub mod id;
pub mod logging;
pub mod secret;
