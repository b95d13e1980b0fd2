//! A form that makes something once, however often it is sent.
//!
//! A secret is on the page that answers a form, so a reload sends the form again. It finds what
//! the first one made, and no second key comes into being that nobody knows of.

use std::fmt;

use crate::admin::caller::Caller;
use crate::admin::dashboard::form::Form;
use crate::admin::node::Node;
use crate::admin::operations::{Idempotency, OperationError};
use crate::secret::random_bytes;

/// What is said to whoever sends a form again that was good for one secret.
const HEX_DIGITS: usize = 32;

/// A random value in a form's field `once`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Once(String);

impl Once {
    /// For a form that is about to be shown.
    pub(super) fn fresh(node: &Node) -> Result<Self, OperationError> {
        let bytes: [u8; HEX_DIGITS / 2] = random_bytes(node.entropy.as_ref())?;
        Ok(Self(format!("{:0width$x}", u128::from_be_bytes(bytes), width = HEX_DIGITS)))
    }

    /// Of a form that was sent.
    pub(super) fn sent(form: &Form) -> Self {
        Self(form.text("once").to_owned())
    }

    /// Bound to who asks, and for what; `None` if the form carries no value of ours, and then
    /// every sending counts.
    pub(super) fn bind(&self, node: &Node, caller: &Caller, asked: &str) -> Option<Idempotency> {
        let hex = |b: u8| b.is_ascii_hexdigit();
        if self.0.len() != HEX_DIGITS || !self.0.bytes().all(hex) {
            return None;
        }
        let digest = |text: String| *node.pepper().digest(text.as_bytes()).as_bytes();
        Some(Idempotency {
            key: digest(format!("form\0{}\0{}", caller.label(), self.0)),
            fingerprint: digest(format!("form\0{asked}")),
        })
    }
}

impl fmt::Display for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
