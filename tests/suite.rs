//! Everything that is tested through the running binary or the library's front door, in one test
//! binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod admin_plane;
mod api;
mod attack;
mod audit_log;
mod backup;
mod cli;
mod crash;
mod dashboard_frame;
mod dashboard_pages;
mod dashboard_walk;
mod decision;
mod demo;
mod doctor;
mod front_assertion;
mod front_attack;
mod front_bounds;
mod front_browser;
mod front_caller;
mod front_cors;
mod front_framing;
mod front_h2;
mod front_idle;
mod front_logs;
mod front_metrics;
mod front_reload;
mod front_tls;
mod front_trace;
mod front_upstream;
mod licences;
mod manual;
mod naive;
mod observability;
mod oidc_peer;
mod openapi;
mod operators;
mod operators_browser;
mod operators_listener;
mod operators_oidc;
mod proxies;
mod secrecy;
mod service;
mod spec_jwt;
mod spec_keys;
mod spec_outcomes;
mod spec_upstream;
mod spec_widget;
mod startup;
mod support;
mod tidy;
mod upgrade;
mod usage;
