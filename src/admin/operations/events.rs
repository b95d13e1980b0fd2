//! Refusals, as they happen: who may see which, and which are wanted.

use std::time::Duration;

use super::OperationError;
use crate::admin::caller::{Caller, Permission, Shops};
use crate::admin::node::Node;
use crate::decision::denial::Code;
use crate::events::{Item, Listener, Refusal, SharedRefusal};
use crate::id::ShopId;

/// Most of what a listener waits for what concerns it before it is told that all is well.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// Which refusals are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this code.
    pub code: Option<Code>,
    /// Of this shop's credentials.
    pub shop: Option<ShopId>,
}

/// Refusals as they happen, those that the caller sees.
#[derive(Debug)]
pub struct Subscription {
    listener: Listener,
    seen: Seen,
}

#[derive(Debug)]
struct Seen {
    shops: Shops,
    filter: Filter,
}

impl Seen {
    /// What the caller sees of what `filter` lets through. A member does not see refusals of
    /// which nobody knows whose they are.
    fn of(caller: &Caller, filter: Filter) -> Result<Self, OperationError> {
        match &filter.shop {
            Some(shop) => caller.require_in(Permission::EventsRead, shop)?,
            None => caller.require_any(Permission::EventsRead)?,
        }
        Ok(Self { shops: caller.shops.clone(), filter })
    }

    fn lets(&self, refusal: &Refusal) -> bool {
        let seen = match (&self.shops, &refusal.shop) {
            (Shops::All, _) => true,
            (Shops::Only(shops), Some(shop)) => shops.contains(shop),
            (Shops::Only(_), None) => false,
        };
        let Filter { code, shop } = &self.filter;
        seen && code.is_none_or(|code| refusal.code == code)
            && shop.is_none_or(|shop| refusal.shop == Some(shop))
    }
}

impl Subscription {
    /// What comes next; `None` at the end, which is the node's. To be dropped and called again as
    /// one likes.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            match self.listener.next().await? {
                Item::Refusal(refusal) if !self.seen.lets(&refusal) => {}
                item @ (Item::Refusal(_) | Item::Missed(_)) => return Some(item),
            }
        }
    }
}

/// Listens to refusals: to those after number `after` that are kept still (zero: all of them),
/// and to those to come.
pub fn subscribe(
    node: &Node,
    caller: &Caller,
    filter: Filter,
    after: Option<u64>,
) -> Result<Subscription, OperationError> {
    let seen = Seen::of(caller, filter)?;
    let listener = node.events.listen(after)?;
    Ok(Subscription { listener, seen })
}

/// The last refusals, the latest first.
pub fn recent(
    node: &Node,
    caller: &Caller,
    filter: Filter,
) -> Result<Vec<SharedRefusal>, OperationError> {
    let seen = Seen::of(caller, filter)?;
    let kept = node.events.recent().into_iter().rev();
    Ok(kept.filter(|refusal| seen.lets(refusal)).collect())
}
