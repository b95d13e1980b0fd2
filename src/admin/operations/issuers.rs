//! What the audit log holds of identity providers: that somebody had a key set fetched.
//!
//! Fetching is `jwks`'s; it happens by itself too, and then nobody did it.

use serde_json::json;

use super::{OperationError, now};
use crate::admin::audit::{self, Action, Subject, SubjectKind};
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::id::Name;

/// Records that `caller` had the key set of `issuer` fetched, which has `keys` usable keys.
pub fn record_refresh(
    node: &Node,
    caller: &Caller,
    issuer: &Name,
    keys: usize,
) -> Result<(), OperationError> {
    caller.require(Permission::IssuersWrite)?;
    let now = now(node);
    let (subject, after) =
        (Subject::new(SubjectKind::Issuer, issuer), Some(json!({ "keys": keys })));
    let action = Action::IssuerRefreshed;
    node.store.write(|tx| audit::record(tx, caller, now, action, subject, None, after))
}
