//! Where sessions come from: the seam to the operations that keep them.

use std::net::IpAddr;

use axum::http::HeaderMap;

use crate::admin::caller::Caller;
use crate::admin::node::Node;

/// Who has signed in.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// As whom.
    pub(super) caller: Caller,
    /// What its forms have to carry.
    pub(super) csrf: String,
}

/// The session that a request's cookie names.
pub(super) fn of_request(_: &Node, _: &HeaderMap, _: bool, _: IpAddr) -> Option<Session> {
    None
}
