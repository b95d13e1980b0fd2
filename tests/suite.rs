//! The tests from outside: one binary, so that they link once.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod decision;
mod naive;
mod tidy;
