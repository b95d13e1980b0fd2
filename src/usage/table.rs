//! Where a worker counts: a hash table that never grows.
//!
//! Open addressing, and a slot is only ever filled until all are emptied together. It knows
//! neither time nor threads.

use std::hash::{BuildHasher as _, RandomState};

use super::{Counts, Outcome, Part};
use crate::id::ShopId;

/// Slots of a table; a power of two.
pub(super) const SLOTS: usize = 4096;

/// Most slots that are filled: beyond it, looking for one takes too long.
pub(super) const FILLED_MAX: usize = SLOTS / 4 * 3;

/// From this on, it is time for another table.
const HALF: usize = SLOTS / 2;

#[derive(Debug, Clone, Copy)]
struct Slot {
    shop: ShopId,
    part: Part,
    counts: Counts,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Option<Slot>>,
    /// Which slots are filled, so that emptying a table costs what is in it.
    filled: Vec<u16>,
    hasher: RandomState,
    /// When it was counted: a minute since the epoch.
    pub(super) minute: u64,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![None; SLOTS],
            filled: Vec::with_capacity(FILLED_MAX),
            hasher: RandomState::new(),
            minute: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    pub(super) fn is_half_full(&self) -> bool {
        self.filled.len() >= HALF
    }

    /// Counts one; `false` if there is no place for it.
    pub(super) fn count(&mut self, shop: &ShopId, part: Part, outcome: Outcome) -> bool {
        self.add(shop, part, Counts::one(outcome))
    }

    /// Counts several; `false` if there is no place for them.
    pub(super) fn add(&mut self, shop: &ShopId, part: Part, counts: Counts) -> bool {
        let hash = self.hasher.hash_one((shop, part));
        let mask = SLOTS - 1;
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are as good as any")]
        let mut at = hash as usize & mask;
        loop {
            match self.slots.get_mut(at) {
                Some(Some(slot)) if slot.part == part && slot.shop == *shop => {
                    slot.counts += counts;
                    return true;
                }
                // Never all are filled: an empty one is found.
                Some(Some(_)) => at = (at + 1) & mask,
                Some(empty @ None) => {
                    let has_room = self.filled.len() < FILLED_MAX;
                    let Some(place) = u16::try_from(at).ok().filter(|_| has_room) else {
                        return false;
                    };
                    *empty = Some(Slot { shop: *shop, part, counts });
                    self.filled.push(place);
                    return true;
                }
                None => return false,
            }
        }
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self, mut visit: impl FnMut(&ShopId, Part, Counts)) {
        for place in self.filled.drain(..) {
            let slot = self.slots.get_mut(usize::from(place)).and_then(Option::take);
            if let Some(Slot { shop, part, counts }) = slot {
                visit(&shop, part, counts);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::id::KeyId;

    fn shop(n: u64) -> ShopId {
        ShopId::parse(&format!("shop-{n}")).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_counted_comes_out(
            counts in prop::collection::vec((0u64..30, 0u64..4, 0u8..3), 0..2000)
        ) {
            let mut table = Table::new();
            let mut model: HashMap<(ShopId, Part), Counts> = HashMap::new();
            for round in 0..2 {
                for (n, key, outcome) in &counts {
                    let part = match key {
                        0 => Part::Jwt,
                        1 => Part::WidgetTokens,
                        key => Part::Key(KeyId(*key)),
                    };
                    let outcome = [Outcome::Allowed, Outcome::Refused, Outcome::Limited]
                        [usize::from(*outcome)];
                    prop_assert!(table.count(&shop(*n), part, outcome));
                    *model.entry((shop(*n), part)).or_default() += Counts::one(outcome);
                }
                prop_assert_eq!(table.is_empty(), model.is_empty(), "{}", round);
                table.drain(|shop, part, counts| {
                    assert_eq!(model.remove(&(*shop, part)), Some(counts));
                });
                prop_assert!(model.is_empty() && table.is_empty());
            }
        }
    }

    #[test]
    fn a_full_table_refuses_newcomers_and_goes_on_counting_the_rest() {
        let mut table = Table::new();
        for n in 0..FILLED_MAX as u64 {
            assert!(table.count(&shop(n), Part::Jwt, Outcome::Allowed));
        }
        assert!(!table.count(&shop(u64::MAX), Part::Jwt, Outcome::Allowed));
        assert!(table.count(&shop(7), Part::Jwt, Outcome::Limited));
        let mut total = Counts::default();
        table.drain(|_, _, counts| total += counts);
        let expected = Counts { allowed: FILLED_MAX as u64, refused: 0, limited: 1 };
        assert_eq!(total, expected);
        assert!(table.count(&shop(u64::MAX), Part::Jwt, Outcome::Allowed));
    }
}
