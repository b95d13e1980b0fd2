//! What was counted of each shop and its keys, by minutes, hours and days.
//!
//! A row holds many steps of one series: 60 minutes, 24 hours or 32 days. Its key is the
//! resolution, the number of the row since the epoch, and the series; so the oldest rows of a
//! resolution stand together and go together, and what one shop counted at a time stands together
//! too. A row without requests does not exist, nor does a step within it: a shop that is asked
//! once a day costs some twenty bytes a day. Adding to a minute adds to its hour and its day at
//! the same time, so nothing has ever to be summed up later.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::ReadableTableMetadata as _;

use super::error::StoreError;
use super::read::{Opened, ReadTx};
use super::schema;
use super::write::{PRUNE_MAX, WriteTx};
use crate::id::{KeyId, ShopId};
use crate::usage::{Counts, Part, Resolution};

/// The encoding of rows that this build writes.
const ROW_VERSION: u8 = 1;

/// Counts by step: its number since the epoch, in the resolution's unit.
pub type Steps = BTreeMap<u64, Counts>;

impl Resolution {
    /// Steps of one row.
    const fn steps(self) -> u64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 24,
            Self::Day => 32,
        }
    }

    /// The first byte of its rows' keys.
    const fn tag(self) -> u8 {
        match self {
            Self::Minute => 1,
            Self::Hour => 2,
            Self::Day => 3,
        }
    }
}

impl ReadTx {
    /// What was counted of `part` of `shop` from step `from` to before step `to`.
    pub fn usage(
        &self,
        shop: &ShopId,
        part: Part,
        resolution: Resolution,
        (from, to): (u64, u64),
    ) -> Result<Steps, StoreError> {
        let mut steps = Steps::new();
        let opened = self.open(schema::USAGE)?;
        for row in rows(resolution, from, to) {
            let found = opened.get(&key(resolution, row, shop, part));
            let found = found.map_err(|error| self.context.failed("read", error))?;
            if let Some(bytes) = found {
                self.steps_of(resolution, row, bytes.value(), (from, to), &mut steps)?;
            }
        }
        Ok(steps)
    }

    /// The same of every part of `shop`, in order.
    pub fn usage_by_part(
        &self,
        shop: &ShopId,
        resolution: Resolution,
        (from, to): (u64, u64),
    ) -> Result<BTreeMap<Part, Steps>, StoreError> {
        let mut parts: BTreeMap<Part, Steps> = BTreeMap::new();
        for row in rows(resolution, from, to) {
            let (start, end) = of_shop(resolution, row, shop);
            let bounds = (Bound::Included(&*start), Bound::Excluded(&*end));
            self.visit(schema::USAGE, bounds.0, bounds.1, usize::MAX, |key, value| {
                let part = part_of(key.get(start.len()..).unwrap_or_default());
                let bad = || self.context.bad_record(schema::USAGE, &"its key names no series");
                let steps = parts.entry(part.ok_or_else(bad)?).or_default();
                self.steps_of(resolution, row, value, (from, to), steps)
            })?;
        }
        Ok(parts)
    }

    /// How many rows there are.
    pub fn usage_rows(&self) -> Result<u64, StoreError> {
        let len = match &self.open(schema::USAGE)? {
            Opened::Read(table) => table.len(),
            Opened::Write(table) => table.len(),
        };
        len.map_err(|error| self.context.failed("read", error))
    }

    fn steps_of(
        &self,
        resolution: Resolution,
        row: u64,
        bytes: &[u8],
        (from, to): (u64, u64),
        steps: &mut Steps,
    ) -> Result<(), StoreError> {
        let slots = decode(bytes)
            .ok_or_else(|| self.context.bad_record(schema::USAGE, &"a row does not parse"))?;
        for (slot, counts) in slots {
            let step = row * resolution.steps() + u64::from(slot);
            if (from..to).contains(&step) {
                *steps.entry(step).or_default() += counts;
            }
        }
        Ok(())
    }
}

impl WriteTx {
    /// Adds what was counted of `part` of `shop` in the minutes of `minutes`, to them, their hours
    /// and their days. `false`, and nothing is kept, if the shop or the key does not exist any
    /// more.
    pub fn add_usage(
        &mut self,
        shop: &ShopId,
        part: Part,
        minutes: &Steps,
    ) -> Result<bool, StoreError> {
        let exists = match part {
            Part::Key(id) => self.has(schema::KEYS_BY_SHOP, &key_of_shop(shop, id))?,
            Part::Total | Part::WidgetTokens | Part::Jwt => {
                self.has(schema::SHOPS, &schema::shop_id(shop))?
            }
        };
        if !exists {
            return Ok(false);
        }
        for resolution in Resolution::ALL {
            let mut rows: BTreeMap<u64, BTreeMap<u8, Counts>> = BTreeMap::new();
            for (minute, counts) in minutes.iter().filter(|(_, counts)| !counts.is_zero()) {
                let step = minute / resolution.minutes();
                let slots = rows.entry(step / resolution.steps()).or_default();
                let slot = u8::try_from(step % resolution.steps()).unwrap_or_default();
                *slots.entry(slot).or_default() += *counts;
            }
            for (row, slots) in rows {
                self.add_slots(&key(resolution, row, shop, part), slots)?;
            }
        }
        Ok(true)
    }

    fn add_slots(&mut self, key: &[u8], slots: BTreeMap<u8, Counts>) -> Result<(), StoreError> {
        let found = {
            let opened = self.open(schema::USAGE)?;
            let found = opened.get(key).map_err(|error| self.context.failed("read", error))?;
            found.map(|bytes| decode(bytes.value()))
        };
        let mut sum = match found {
            None => BTreeMap::new(),
            Some(Some(slots)) => slots,
            Some(None) => {
                return Err(self.context.bad_record(schema::USAGE, &"a row does not parse"));
            }
        };
        for (slot, counts) in slots {
            *sum.entry(slot).or_default() += counts;
        }
        self.insert(schema::USAGE, key, &encode(&sum))
    }

    /// Removes up to [`PRUNE_MAX`] rows of `resolution` whose last step is before step `before`,
    /// the oldest first; how many. As many as that means there may be more.
    pub fn prune_usage(
        &mut self,
        resolution: Resolution,
        before: u64,
    ) -> Result<usize, StoreError> {
        let end = row_start(resolution, before / resolution.steps());
        self.remove_usage(&[resolution.tag()], &end, PRUNE_MAX)
    }

    /// Removes up to `count` rows, the finest first, and of those the oldest: of which resolutions
    /// how many.
    pub fn prune_usage_rows(
        &mut self,
        count: usize,
    ) -> Result<Vec<(Resolution, usize)>, StoreError> {
        let mut removed = Vec::new();
        let mut left = count;
        for resolution in Resolution::ALL {
            let (start, end) = ([resolution.tag()], [resolution.tag() + 1]);
            let gone = self.remove_usage(&start, &end, left)?;
            if gone > 0 {
                removed.push((resolution, gone));
            }
            left -= gone.min(left);
        }
        Ok(removed)
    }

    /// Removes everything that was counted of `shop`.
    pub(super) fn delete_usage_of_shop(&mut self, shop: &ShopId) -> Result<(), StoreError> {
        self.delete_usage(|resolution, row| of_shop(resolution, row, shop))
    }

    /// Removes what was counted of the key `id` by itself; the shop's total stays.
    pub(super) fn delete_usage_of_key(
        &mut self,
        shop: &ShopId,
        id: KeyId,
    ) -> Result<(), StoreError> {
        self.delete_usage(|resolution, row| {
            let start = key(resolution, row, shop, Part::Key(id));
            let end = [&*start, &[0]].concat();
            (start, end)
        })
    }

    /// Removes what lies in the ranges that `range` names, one in each row number there is.
    fn delete_usage(
        &mut self,
        range: impl Fn(Resolution, u64) -> (Vec<u8>, Vec<u8>),
    ) -> Result<(), StoreError> {
        for resolution in Resolution::ALL {
            let mut row = self.usage_row_from(resolution, 0)?;
            while let Some(found) = row {
                let (start, end) = range(resolution, found);
                self.remove_usage(&start, &end, usize::MAX)?;
                row = self.usage_row_from(resolution, found.saturating_add(1))?;
            }
        }
        Ok(())
    }

    /// The first row number from `row` on that any series has.
    fn usage_row_from(&self, resolution: Resolution, row: u64) -> Result<Option<u64>, StoreError> {
        let (start, end) = (row_start(resolution, row), [resolution.tag() + 1]);
        let mut found = None;
        let bounds = (Bound::Included(&*start), Bound::Excluded(&end[..]));
        self.visit(schema::USAGE, bounds.0, bounds.1, 1, |key, _| {
            let number = key.get(1..5).and_then(|bytes| bytes.first_chunk::<4>());
            found = number.map(|bytes| u64::from(u32::from_be_bytes(*bytes)));
            Ok(())
        })?;
        Ok(found)
    }

    fn remove_usage(&mut self, from: &[u8], to: &[u8], max: usize) -> Result<usize, StoreError> {
        let mut keys = Vec::new();
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        self.visit(schema::USAGE, bounds.0, bounds.1, max, |key, _| {
            keys.push(key.to_vec());
            Ok(())
        })?;
        for key in &keys {
            self.remove(schema::USAGE, key)?;
        }
        Ok(keys.len())
    }
}

/// The numbers of the rows that hold the steps from `from` to before `to`.
fn rows(resolution: Resolution, from: u64, to: u64) -> std::ops::Range<u64> {
    let per_row = resolution.steps();
    from / per_row..to.div_ceil(per_row).max(from / per_row)
}

fn row_start(resolution: Resolution, row: u64) -> Vec<u8> {
    // Of minutes, the last one that fits lies in the year 490,000.
    let row = u32::try_from(row).unwrap_or(u32::MAX);
    [&[resolution.tag()][..], &row.to_be_bytes()].concat()
}

/// Where the rows of `shop` begin, and what comes after them.
fn of_shop(resolution: Resolution, row: u64, shop: &ShopId) -> (Vec<u8>, Vec<u8>) {
    let start = row_start(resolution, row);
    let of_shop = |last: u8| [&start, shop.as_str().as_bytes(), &[last]].concat();
    (of_shop(0), of_shop(1))
}

fn key(resolution: Resolution, row: u64, shop: &ShopId, part: Part) -> Vec<u8> {
    let (mut key, _) = of_shop(resolution, row, shop);
    match part {
        Part::Total => key.push(0),
        Part::WidgetTokens => key.push(1),
        Part::Jwt => key.push(2),
        Part::Key(id) => {
            key.push(3);
            key.extend(schema::key_id(id));
        }
    }
    key
}

/// The end of a key.
fn part_of(bytes: &[u8]) -> Option<Part> {
    match bytes {
        [0] => Some(Part::Total),
        [1] => Some(Part::WidgetTokens),
        [2] => Some(Part::Jwt),
        [3, id @ ..] => {
            let id = <[u8; 8]>::try_from(id).ok()?;
            Some(Part::Key(KeyId(u64::from_be_bytes(id))))
        }
        _ => None,
    }
}

fn key_of_shop(shop: &ShopId, id: KeyId) -> Vec<u8> {
    schema::of_shop(shop, &schema::key_id(id))
}

/// The version; then for each step that is not zero its number within the row and its counts.
fn encode(slots: &BTreeMap<u8, Counts>) -> Vec<u8> {
    let mut bytes = vec![ROW_VERSION];
    for (slot, counts) in slots {
        bytes.push(*slot);
        for count in [counts.allowed, counts.refused, counts.limited] {
            put_varint(&mut bytes, count);
        }
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<u8, Counts>> {
    let (&ROW_VERSION, mut rest) = bytes.split_first()? else {
        return None;
    };
    let mut slots = BTreeMap::new();
    while let Some((slot, after)) = rest.split_first() {
        rest = after;
        let mut next = || take_varint(&mut rest);
        let counts = Counts { allowed: next()?, refused: next()?, limited: next()? };
        slots.insert(*slot, counts);
    }
    Some(slots)
}

/// Seven bits a byte, the lowest first; the high bit says that more follow (LEB128).
fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Bench, key as key_record, shop as shop_record};
    use super::*;
    use crate::store::Store;

    const DAY: u64 = 24 * 60;

    fn shop(id: &str) -> ShopId {
        ShopId::parse(id).unwrap()
    }

    fn allowed(n: u64) -> Counts {
        Counts { allowed: n, ..Counts::default() }
    }

    /// Two shops whose ids begin alike, one with two keys.
    fn bench() -> Bench {
        let bench = Bench::in_memory();
        let made: Result<(), StoreError> = bench.store.write(|tx| {
            tx.put_shop(&shop_record("one"))?;
            tx.put_shop(&shop_record("one-b"))?;
            tx.put_key(&key_record(1, "one"))?;
            tx.put_key(&key_record(2, "one"))
        });
        made.unwrap();
        bench
    }

    fn add(store: &Store, id: &str, part: Part, minute: u64, counts: Counts) -> bool {
        store
            .write::<_, StoreError>(|tx| tx.add_usage(&shop(id), part, &[(minute, counts)].into()))
            .unwrap()
    }

    fn all(store: &Store, id: &str, part: Part, resolution: Resolution) -> Vec<(u64, u64)> {
        let steps = store.read(|tx| tx.usage(&shop(id), part, resolution, (0, 4_000_000)));
        steps.unwrap().into_iter().map(|(step, counts)| (step, counts.total())).collect()
    }

    #[test]
    fn a_minute_is_part_of_its_hour_and_its_day() {
        let bench = bench();
        let store = &bench.store;
        let minute = 1000 * DAY + 61;
        for (minute, n) in [(minute, 1), (minute, 2), (minute + 1, 4), (minute + DAY, 8)] {
            assert!(add(store, "one", Part::Total, minute, allowed(n)));
        }
        let of = |resolution| all(store, "one", Part::Total, resolution);
        assert_eq!(of(Resolution::Minute), [(minute, 3), (minute + 1, 4), (minute + DAY, 8)]);
        assert_eq!(of(Resolution::Hour), [(24_001, 7), (24_025, 8)]);
        assert_eq!(of(Resolution::Day), [(1000, 7), (1001, 8)]);
        assert_eq!(all(store, "one-b", Part::Total, Resolution::Day), []);
        assert_eq!(all(store, "one", Part::Jwt, Resolution::Day), []);
        // The end is not included.
        let range = (minute, minute + 1);
        let steps = store.read(|tx| tx.usage(&shop("one"), Part::Total, Resolution::Minute, range));
        assert_eq!(steps.unwrap(), [(minute, allowed(3))].into());
        let none = store.read(|tx| tx.usage(&shop("one"), Part::Total, Resolution::Day, (9, 3)));
        assert_eq!(none.unwrap(), Steps::new());
    }

    #[test]
    fn parts_are_kept_apart_and_named() {
        let bench = bench();
        let store = &bench.store;
        let parts = [Part::Total, Part::WidgetTokens, Part::Jwt, Part::Key(KeyId(2))];
        for (part, n) in parts.into_iter().zip(1..) {
            assert!(add(store, "one", part, 77, allowed(n)));
        }
        add(store, "one-b", Part::Total, 77, allowed(100));
        for resolution in Resolution::ALL {
            let found = store.read(|tx| tx.usage_by_part(&shop("one"), resolution, (0, 999)));
            let found: Vec<(Part, u64)> = found
                .unwrap()
                .into_iter()
                .map(|(part, steps)| (part, steps.values().map(Counts::total).sum()))
                .collect();
            assert_eq!(found, parts.into_iter().zip(1..).collect::<Vec<_>>());
        }
        assert_eq!(store.read(ReadTx::usage_rows).unwrap(), 5 * 3);
    }

    #[test]
    fn what_is_deleted_takes_its_counts_along_and_gets_no_more() {
        let bench = bench();
        let store = &bench.store;
        for minute in [5, 3 * DAY, 400 * DAY] {
            for part in [Part::Total, Part::Key(KeyId(1)), Part::Key(KeyId(2))] {
                assert!(add(store, "one", part, minute, allowed(1)));
            }
            assert!(add(store, "one-b", Part::Total, minute, allowed(1)));
        }
        store.write::<_, StoreError>(|tx| tx.delete_key(KeyId(1))).unwrap();
        for resolution in Resolution::ALL {
            assert_eq!(all(store, "one", Part::Key(KeyId(1)), resolution), []);
            assert_eq!(all(store, "one", Part::Key(KeyId(2)), resolution).len(), 3);
            assert_eq!(all(store, "one", Part::Total, resolution).len(), 3);
        }
        assert!(!add(store, "one", Part::Key(KeyId(1)), 5, allowed(1)));
        assert!(!add(store, "one-b", Part::Key(KeyId(2)), 5, allowed(1)), "of another shop");
        store.write::<_, StoreError>(|tx| tx.delete_shop(&shop("one"))).unwrap();
        assert!(!add(store, "one", Part::Total, 5, allowed(1)));
        let left = store.read(ReadTx::usage_rows).unwrap();
        // Days 0 and 3 share a row.
        assert_eq!(left, 3 + 3 + 2);
        assert_eq!(all(store, "one-b", Part::Total, Resolution::Minute).len(), 3);
    }

    #[test]
    fn whole_rows_go_when_they_are_old() {
        let bench = bench();
        let store = &bench.store;
        for hour in 0..10 {
            add(store, "one", Part::Total, hour * 60 + 59, allowed(1));
        }
        let prune = |before| {
            store.write::<_, StoreError>(|tx| tx.prune_usage(Resolution::Minute, before)).unwrap()
        };
        assert_eq!((prune(59), prune(119), prune(120), prune(120)), (0, 1, 1, 0));
        let left = all(store, "one", Part::Total, Resolution::Minute);
        assert_eq!((left.len(), left[0].0), (8, 179));
        assert_eq!(all(store, "one", Part::Total, Resolution::Hour).len(), 10);
    }

    #[test]
    fn when_there_are_too_many_the_finest_and_oldest_go_first() {
        let bench = bench();
        let store = &bench.store;
        for hour in 0..30 {
            add(store, "one", Part::Total, hour * 60, allowed(1));
        }
        let prune = |count| store.write::<_, StoreError>(|tx| tx.prune_usage_rows(count)).unwrap();
        assert_eq!(prune(3), [(Resolution::Minute, 3)]);
        assert_eq!(all(store, "one", Part::Total, Resolution::Minute)[0].0, 180);
        assert_eq!(prune(28), [(Resolution::Minute, 27), (Resolution::Hour, 1)]);
        assert_eq!(prune(9), [(Resolution::Hour, 1), (Resolution::Day, 1)]);
        assert_eq!(store.read(ReadTx::usage_rows).unwrap(), 0);
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_were(
            slots in prop::collection::btree_map(0u8..60, (any::<u64>(), 0u64..200, 0u64..2), 0..60)
        ) {
            let slots: BTreeMap<u8, Counts> = slots
                .into_iter()
                .map(|(slot, (allowed, refused, limited))| {
                    (slot, Counts { allowed, refused, limited })
                })
                .collect();
            let bytes = encode(&slots);
            prop_assert_eq!(decode(&bytes), Some(slots));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes);
        }
    }
}
