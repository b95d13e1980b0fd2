//! latchkey
pub mod clock;
pub mod decision;
pub mod id;
pub mod secret;
pub mod store;
