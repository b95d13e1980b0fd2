//! How the node fared lately, for who may look at all of it.

use super::OperationError;
use crate::admin::caller::{Caller, Permission};
use crate::admin::key_sets;
use crate::admin::node::Node;
use crate::admin::overview::{Overview, Present, Span};

/// The metrics of `span`, and what holds at present.
pub fn read(node: &Node, caller: &Caller, span: Span) -> Result<Overview, OperationError> {
    caller.require(Permission::NodeRead)?;
    let (shops, api_keys) = node.published.load().counts();
    let issuers = key_sets::states(node);
    let present = |limiter_cells_live| Present {
        shops,
        api_keys,
        store_writable: node.is_writable(),
        limiter_cells: node.limiter.capacity(),
        limiter_cells_live,
        issuers,
    };
    Ok(node.overview.read(span, node.now(), present))
}
