//! Refusals, as they happen: who may see which, and which are wanted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::OperationError;
use crate::admin::caller::{Caller, Permission, Shops};
use crate::admin::node::Node;
use crate::decision::denial::Code;
use crate::events::{Item, Listener, Refusal, SharedRefusal, TooManyListeners};
use crate::id::ShopId;

/// Most of what a listener waits for what concerns it before it is told that all is well.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// Most listeners of one caller, so that nobody takes the places of all.
pub const LISTENERS_PER_CALLER_MAX: usize = 8;

/// Why a caller may not listen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// All places are taken.
    #[error(transparent)]
    Everyones(#[from] TooManyListeners),
    /// All places that the caller may take are.
    #[error(
        "you listen {LISTENERS_PER_CALLER_MAX} times already, which is the most for one; close one \
         and try again"
    )]
    Yours,
}

/// How often each caller listens, by its label.
pub type Listening = Arc<Mutex<HashMap<String, usize>>>;

/// One of a caller's places.
#[derive(Debug)]
struct Place {
    listening: Listening,
    caller: String,
}

impl Place {
    fn take(listening: &Listening, caller: &Caller) -> Result<Self, NoPlace> {
        let mut all = listening.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry(caller.label()).or_default();
        if *own >= LISTENERS_PER_CALLER_MAX {
            return Err(NoPlace::Yours);
        }
        *own += 1;
        Ok(Self { listening: Arc::clone(listening), caller: caller.label() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get_mut(&self.caller) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                all.remove(&self.caller);
            }
        }
    }
}

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
    _place: Place,
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

    /// `refusal` as the caller sees it. Why a service behind this gateway failed may say where it
    /// is, which is nothing to a shop's people: they see what failed, as the client did.
    fn shown(&self, refusal: SharedRefusal) -> SharedRefusal {
        let is_ours = refusal.status >= 500;
        match &self.shops {
            Shops::Only(_) if is_ours => {
                let why = refusal.code.title().into();
                SharedRefusal::new(Refusal { why, ..Refusal::clone(&refusal) })
            }
            Shops::All | Shops::Only(_) => refusal,
        }
    }
}

impl Subscription {
    /// What comes next; `None` at the end, which is the node's. To be dropped and called again as
    /// one likes.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            match self.listener.next().await? {
                Item::Refusal(refusal) if !self.seen.lets(&refusal) => {}
                Item::Refusal(refusal) => return Some(Item::Refusal(self.seen.shown(refusal))),
                item @ Item::Missed(_) => return Some(item),
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
    let place = Place::take(&node.listening, caller)?;
    let listener = node.events.listen(after).map_err(NoPlace::from)?;
    Ok(Subscription { listener, seen, _place: place })
}

/// The last refusals, the latest first.
pub fn recent(
    node: &Node,
    caller: &Caller,
    filter: Filter,
) -> Result<Vec<SharedRefusal>, OperationError> {
    let seen = Seen::of(caller, filter)?;
    let kept = node.events.recent().into_iter().rev();
    Ok(kept.filter(|refusal| seen.lets(refusal)).map(|refusal| seen.shown(refusal)).collect())
}
