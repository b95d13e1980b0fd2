//! The API through its router, over a node on a temporary store.

mod access;
mod assertion_keys;
mod audit;
mod audit_log;
mod backups;
mod conditions;
mod explaining;
mod keys;
mod limits;
mod shops;
mod tokens;
mod usage;
