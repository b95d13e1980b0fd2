//! From the socket to a request that hyper may parse.

pub mod framing;
mod held;
pub(super) mod listen;
pub(super) mod proxied;
pub mod proxy_protocol;
pub(super) mod raw;
pub(super) mod tunnel;
pub(super) mod wire;
