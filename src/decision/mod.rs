//! The decision core.
pub mod jwt;
pub mod origin;
pub mod policy;
pub mod principal;
pub mod rate_limit;
pub mod route;
pub mod widget_token;
