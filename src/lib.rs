//! latchkey
pub mod clock;
pub mod decision;
pub mod id;
pub mod limiter;
pub mod metrics;
pub mod secret;
