//! Why an admitted request got no response to pass on.

use crate::decision::denial::Code;

/// What the client is told, and what the operator.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: Code,
    /// For the client.
    pub(super) detail: &'static str,
    /// For the log.
    pub(super) reason: String,
}

impl Failure {
    pub(super) fn new(code: Code, detail: &'static str, reason: impl Into<String>) -> Self {
        Self { code, detail, reason: reason.into() }
    }
}
