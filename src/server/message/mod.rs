//! What is written into messages: header fields, problems, limit headers.

pub(super) mod cors;
pub(super) mod fields;
pub(super) mod problem;
