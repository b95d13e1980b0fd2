//! From the socket to a request that hyper may parse.

pub(super) mod arrival;
pub mod framing;
pub(super) mod h2;
mod held;
pub(super) mod listen;
pub(super) mod proxied;
pub mod proxy_protocol;
pub(super) mod raw;
pub(super) mod stream;
pub(super) mod tunnel;
pub(super) mod wire;
