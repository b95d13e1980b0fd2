//! What is written into messages: header fields, problems and limit headers.

pub(super) mod cors;
pub(super) mod fields;
pub(super) mod problem;
pub(super) mod trailers;
