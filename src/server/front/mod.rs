//! From the socket to a request that hyper may parse.

mod framing;
mod held;
pub(super) mod listen;
pub(super) mod wire;
