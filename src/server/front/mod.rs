//! From a socket to a request: who is calling.

pub mod client_address;
pub mod proxy_protocol;
