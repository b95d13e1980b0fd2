//! What is written into messages: header fields, problems, limit headers, and who is calling.

pub(super) mod authority;
pub mod client_address;
pub(super) mod cors;
pub(super) mod fields;
pub(super) mod problem;
pub(super) mod trailers;
