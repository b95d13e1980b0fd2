//! The first reading of a file: every fault, and what would become of every record. Nothing is
//! changed.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use super::line::{Entry, KeyEntry, Reader, ShopEntry};
use super::{Fate, ImportOptions, Imported, LineFaults, Phase, Report, lines, master_key_check};
use crate::admin::node::Node;
use crate::admin::operations::OperationError;
use crate::admin::operations::keys::KEYS_PER_SHOP_MAX;
use crate::clock::Timestamp;
use crate::decision::Facts as _;
use crate::id::{KeyId, ShopId};
use crate::secret::Digest;
use crate::snapshot::Snapshot;
use crate::store::{KeyRecord, ReadTx, ShopRecord, StoreError};

/// From one report to the next, in lines.
const REPORT_LINES: u64 = 512;

/// What a file holds.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) faults: LineFaults,
    pub(super) expected: Imported,
}

/// Reads the file against what is here now.
pub(super) fn check(
    node: &Node,
    text: &[u8],
    options: ImportOptions,
    report: Report<'_>,
) -> Result<Checked, OperationError> {
    let snapshot = node.published.load_full();
    node.store.read(|tx| {
        let mut pass = Pass {
            tx,
            snapshot: &snapshot,
            options,
            seen: Seen::new(&snapshot),
            found: BTreeMap::new(),
            expected: Imported::default(),
        };
        let mut reader = reader(node, &snapshot);
        let total = text.len() as u64;
        for (number, line) in lines(text) {
            pass.line(number, line, &mut reader)?;
            if number % REPORT_LINES == 0 {
                let at = (line.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
                if report(Phase::Checking, at as u64, total) == ControlFlow::Break(()) {
                    return Ok(Err(stopped()));
                }
            }
        }
        let _ = report(Phase::Checking, total, total);
        Ok(Ok(pass.finish()))
    })?
}

fn stopped() -> OperationError {
    OperationError::Conflict("the import was stopped before anything was changed".to_owned())
}

/// What reads the lines of a file for `node`.
pub(super) fn reader<'n>(node: &Node, snapshot: &'n Snapshot) -> Reader<'n> {
    Reader {
        policies: snapshot.policies(),
        pepper: snapshot.pepper(),
        master_key_check: master_key_check(node),
        digests_are_ours: false,
    }
}

/// What the lines so far named.
struct Seen {
    shops: HashMap<ShopId, u64>,
    digests: HashMap<Digest, u64>,
    ids: HashMap<KeyId, u64>,
    /// Keys of each shop: those that are here, and those to come.
    keys: HashMap<ShopId, usize>,
    /// Lines of keys whose shop is not here: it may come later in the file.
    waiting: HashMap<ShopId, Vec<u64>>,
}

impl Seen {
    fn new(snapshot: &Snapshot) -> Self {
        let mut keys = HashMap::new();
        for key in snapshot.api_keys() {
            *keys.entry(key.shop).or_default() += 1;
        }
        Self {
            shops: HashMap::new(),
            digests: HashMap::new(),
            ids: HashMap::new(),
            keys,
            waiting: HashMap::new(),
        }
    }
}

struct Pass<'p> {
    tx: &'p ReadTx,
    snapshot: &'p Snapshot,
    options: ImportOptions,
    seen: Seen,
    /// Faults by line.
    found: BTreeMap<u64, Vec<String>>,
    expected: Imported,
}

impl Pass<'_> {
    fn line(
        &mut self,
        number: u64,
        line: &[u8],
        reader: &mut Reader<'_>,
    ) -> Result<(), StoreError> {
        match reader.read(line) {
            Err(faults) => self.found.entry(number).or_default().extend(faults),
            Ok(Entry::Head) => {}
            Ok(Entry::Shop(shop)) => self.shop(number, &shop)?,
            Ok(Entry::Key(key)) => self.key(number, &key)?,
        }
        Ok(())
    }

    fn fault(&mut self, number: u64, problem: String) {
        self.found.entry(number).or_default().push(problem);
    }

    fn shop(&mut self, number: u64, shop: &ShopEntry) -> Result<(), StoreError> {
        if let Some(first) = self.seen.shops.insert(shop.id, number) {
            self.fault(number, format!("the shop `{}` is on line {first} already", shop.id));
            return Ok(());
        }
        match shop_fate(self.tx, shop, self.options)? {
            Ok((fate, _)) => self.expected.shops.count(fate),
            Err(problem) => self.fault(number, problem),
        }
        Ok(())
    }

    fn key(&mut self, number: u64, key: &KeyEntry) -> Result<(), StoreError> {
        let same = self.seen.digests.insert(key.digest, number);
        if let Some(first) = same {
            self.fault(number, format!("the same key is on line {first} already"));
            return Ok(());
        }
        if let Some(id) = key.id
            && let Some(first) = self.seen.ids.insert(id, number)
        {
            self.fault(number, format!("the id {id} is on line {first} already"));
            return Ok(());
        }
        if self.snapshot.shop(&key.shop).is_none() {
            self.seen.waiting.entry(key.shop).or_default().push(number);
        }
        match key_fate(self.tx, self.snapshot, key, self.options)? {
            Ok((fate, _)) => {
                self.expected.keys.count(fate);
                if fate == Fate::Create {
                    self.make_room(number, key.shop);
                }
            }
            Err(problem) => self.fault(number, problem),
        }
        Ok(())
    }

    fn make_room(&mut self, number: u64, shop: ShopId) {
        let keys = self.seen.keys.entry(shop).or_default();
        *keys += 1;
        if *keys > KEYS_PER_SHOP_MAX {
            let problem =
                format!("the shop `{shop}` would have more than {KEYS_PER_SHOP_MAX} keys");
            self.fault(number, problem);
        }
    }

    fn finish(mut self) -> Checked {
        for (shop, lines) in std::mem::take(&mut self.seen.waiting) {
            if self.seen.shops.contains_key(&shop) {
                continue;
            }
            for line in lines {
                self.fault(line, format!("there is no shop `{shop}`, here or in the file"));
            }
        }
        let mut faults = LineFaults::default();
        for (line, problems) in self.found {
            for problem in problems {
                faults.add(line, problem);
            }
        }
        Checked { faults, expected: self.expected }
    }
}

/// What becomes of a shop, and what is here under its id; or why it cannot be.
pub(super) fn shop_fate(
    tx: &ReadTx,
    shop: &ShopEntry,
    options: ImportOptions,
) -> Result<Result<(Fate, Option<ShopRecord>), String>, StoreError> {
    let Some(old) = tx.shop(&shop.id)? else { return Ok(Ok((Fate::Create, None))) };
    let differing = differing([
        ("name", old.name != shop.name),
        ("url", old.url != shop.url),
        ("widget_origins", old.widget_origins != shop.widget_origins),
        ("enabled", old.enabled != shop.enabled),
        ("limits", !same_limits(&old.limits, &shop.limits)),
    ]);
    Ok(match differing {
        None => Ok((Fate::Keep, Some(old))),
        Some(_) if options.replace => Ok((Fate::Replace, Some(old))),
        Some(members) => Err(format!(
            "the shop `{}` is here already, with another {members}; --replace overwrites it",
            shop.id
        )),
    })
}

/// What becomes of a key, and the record that it takes the place of; or why it cannot be.
pub(super) fn key_fate(
    tx: &ReadTx,
    snapshot: &Snapshot,
    key: &KeyEntry,
    options: ImportOptions,
) -> Result<Result<(Fate, Option<KeyRecord>), String>, StoreError> {
    let here = match snapshot.api_key(&key.digest) {
        Some(live) => tx.key(live.id)?,
        None => None,
    };
    let of_id = match key.id {
        Some(id) => tx.key(id)?,
        None => None,
    };
    for record in [&here, &of_id].into_iter().flatten() {
        if record.shop != key.shop {
            return Ok(Err(format!(
                "{} belongs to the shop `{}`, and a key cannot change shops",
                record.id, record.shop
            )));
        }
    }
    let Some(old) = here else {
        return Ok(match of_id {
            None => Ok((Fate::Create, None)),
            Some(old) if options.replace => Ok((Fate::Replace, Some(old))),
            Some(old) => {
                Err(format!("{} is here already, another key; --replace overwrites it", old.id))
            }
        });
    };
    if of_id.as_ref().is_some_and(|other| other.id != old.id) {
        return Ok(Err(format!("this key is here as {}, and the id is another key's", old.id)));
    }
    let differing = differing([
        ("id", key.id.is_some_and(|id| id != old.id)),
        ("name", old.name != key.name),
        ("expires_at", !same_time(old.expires_at, key.expires_at)),
        ("grace_until", !same_time(old.grace_until, key.grace_until)),
        ("replaced_by", old.replaced_by != key.replaced_by),
        ("networks", old.networks != key.networks),
        ("limits", !same_limits(&old.limits, &key.limits)),
    ]);
    Ok(match differing {
        None => Ok((Fate::Keep, Some(old))),
        Some(_) if options.replace => Ok((Fate::Replace, Some(old))),
        Some(members) => Err(format!(
            "{} is here already, with another {members}; --replace overwrites it",
            old.id
        )),
    })
}

/// The members that differ, as text.
fn differing<const N: usize>(members: [(&str, bool); N]) -> Option<String> {
    let names: Vec<&str> =
        members.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// To the second: a file holds no more.
fn same_time(a: Option<Timestamp>, b: Option<Timestamp>) -> bool {
    a.map(Timestamp::unix_s) == b.map(Timestamp::unix_s)
}

/// In any order: an older build may have stored them in another.
fn same_limits(a: &[crate::store::LimitRecord], b: &[crate::store::LimitRecord]) -> bool {
    a.len() == b.len() && a.iter().all(|limit| b.contains(limit))
}
