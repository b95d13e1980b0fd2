//! latchkey
pub mod clock;
pub mod decision;
pub mod id;
pub mod jose;
pub mod jwks;
pub mod secret;
