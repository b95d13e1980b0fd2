//! Everything that is tested through the running binary or the library's front door, in one test
//! binary.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod api;
mod cli;
mod crash;
mod decision;
mod demo;
mod naive;
mod tidy;
