//! The second reading of a file: shops, then keys, in batches of one transaction and one patch.

use std::ops::ControlFlow;

use serde_json::json;

use super::check::{key_fate, reader, shop_fate};
use super::line::{Entry, KeyEntry, ShopEntry};
use super::{BATCH, Counts, Fate, ImportOptions, Imported, Phase, Report, lines};
use crate::admin::audit::{self, Action, Subject, SubjectKind};
use crate::admin::caller::Caller;
use crate::admin::node::{Node, Turn};
use crate::admin::operations::{OperationError, keys, now, shops};
use crate::admin::patch::{Change, Patch};
use crate::clock::Timestamp;
use crate::id::KeyId;
use crate::snapshot::Snapshot;
use crate::store::{KeyRecord, ShopRecord, WriteTx};

/// Applies a file that was checked, of which `expected` is to come.
pub(super) fn apply(
    node: &Node,
    caller: &Caller,
    text: &[u8],
    options: ImportOptions,
    expected: Imported,
    report: Report<'_>,
) -> Result<Imported, OperationError> {
    let total = expected.shops.total() + expected.keys.total();
    let mut run = Run { node, caller, options, done: Imported::default(), total };
    let snapshot = node.published.load_full();
    for kind in [Kind::Shops, Kind::Keys] {
        let mut reader = reader(node, &snapshot);
        let mut batch = Vec::new();
        for (number, line) in lines(text) {
            let entry = reader.read(line).map_err(|problems| run.broken(number, &problems))?;
            if kind.takes(&entry) {
                batch.push((number, entry));
            }
            if batch.len() >= BATCH {
                run.batch(&std::mem::take(&mut batch), report)?;
            }
        }
        run.batch(&batch, report)?;
    }
    Ok(run.done)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shops,
    Keys,
}

impl Kind {
    fn takes(self, entry: &Entry) -> bool {
        match entry {
            Entry::Head => false,
            Entry::Shop(_) => self == Self::Shops,
            Entry::Key(_) => self == Self::Keys,
        }
    }
}

struct Run<'r> {
    node: &'r Node,
    caller: &'r Caller,
    options: ImportOptions,
    done: Imported,
    total: u64,
}

impl Run<'_> {
    /// One transaction and one patch.
    fn batch(
        &mut self,
        entries: &[(u64, Entry)],
        report: Report<'_>,
    ) -> Result<(), OperationError> {
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let (node, options) = (self.node, self.options);
        let now = now(node);
        let counts = node.mutate(|tx, patch, turn| {
            // Under the lock: this is what is stored.
            let snapshot = node.published.load_full();
            let mut counts = Imported::default();
            for (number, entry) in entries {
                let step = Step { node, snapshot: &snapshot, options, now };
                match entry {
                    Entry::Head => {}
                    Entry::Shop(shop) => {
                        let fate = step.shop(tx, patch, turn, shop);
                        counts.shops.count(fate.map_err(|error| self.stopped(*number, error))?);
                    }
                    Entry::Key(key) => {
                        let fate = step.key(tx, patch, key);
                        counts.keys.count(fate.map_err(|error| self.stopped(*number, error))?);
                    }
                }
            }
            if counts.shops.changed() + counts.keys.changed() > 0 {
                let subject = Subject::new(SubjectKind::Data, "import");
                let after = json!({
                    "shops": counts.shops, "keys": counts.keys,
                    "first_line": first, "last_line": last,
                });
                let action = Action::DataImported;
                audit::record(tx, self.caller, now, action, subject, None, Some(after))?;
            }
            Ok(counts)
        })?;
        self.done.shops.add(counts.shops);
        self.done.keys.add(counts.keys);
        let done = self.applied();
        if report(Phase::Applying, done, self.total) == ControlFlow::Break(()) && done < self.total
        {
            return Err(OperationError::Conflict(self.how_far("the import was stopped")));
        }
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.done.shops.total() + self.done.keys.total()
    }

    fn how_far(&self, what: &str) -> String {
        let (done, total) = (self.applied(), self.total);
        format!(
            "{what} when {done} of {total} records were in; import the same file again for the \
             rest"
        )
    }

    /// What somebody else changed since the check.
    fn stopped(&self, line: u64, error: OperationError) -> OperationError {
        let OperationError::Conflict(problem) = error else { return error };
        let what = format!("line {line}: {problem}: the import ended");
        OperationError::Conflict(self.how_far(&what))
    }

    fn broken(&self, line: u64, problems: &[String]) -> OperationError {
        let what = format!("line {line}: {}: the import ended", problems.join("; "));
        OperationError::Conflict(self.how_far(&what))
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.created += other.created;
        self.replaced += other.replaced;
        self.unchanged += other.unchanged;
    }

    fn changed(&self) -> u64 {
        self.created + self.replaced
    }
}

/// One record within a transaction.
struct Step<'s> {
    node: &'s Node,
    snapshot: &'s Snapshot,
    options: ImportOptions,
    now: Timestamp,
}

impl Step<'_> {
    fn shop(
        &self,
        tx: &mut WriteTx,
        patch: &mut Patch,
        turn: &Turn,
        shop: &ShopEntry,
    ) -> Result<Fate, OperationError> {
        let (fate, old) = shop_fate(tx, shop, self.options)?.map_err(OperationError::Conflict)?;
        if fate == Fate::Keep {
            return Ok(fate);
        }
        let revision = old.as_ref().map_or(0, |old| old.revision).saturating_add(1);
        let record = ShopRecord {
            id: shop.id,
            name: shop.name.clone(),
            url: shop.url.clone(),
            widget_origins: shop.widget_origins.clone(),
            enabled: shop.enabled,
            tokens_valid_from: match &old {
                Some(old) => old.tokens_valid_from,
                None => self.now.max(turn.after_last_issued()),
            },
            limits: shop.limits.clone(),
            created_at: old.map(|old| old.created_at).or(shop.created_at).unwrap_or(self.now),
            updated_at: self.now,
            revision,
        };
        shops::put_shop(tx, patch, &record)?;
        Ok(fate)
    }

    fn key(
        &self,
        tx: &mut WriteTx,
        patch: &mut Patch,
        key: &KeyEntry,
    ) -> Result<Fate, OperationError> {
        let fate = key_fate(tx, self.snapshot, key, self.options)?;
        let (fate, old) = fate.map_err(OperationError::Conflict)?;
        if fate == Fate::Keep {
            return Ok(fate);
        }
        // Another administrator may have deleted it since the check.
        if tx.shop(&key.shop)?.is_none() {
            return Err(OperationError::Conflict(format!("there is no shop `{}`", key.shop)));
        }
        let id = match (key.id, &old) {
            (Some(id), _) => id,
            (None, Some(old)) => old.id,
            (None, None) => keys::free_id(self.node, tx)?,
        };
        if let Some(old) = &old {
            if old.id != id {
                tx.delete_key(old.id)?;
            }
            if old.digest != key.digest || old.id != id {
                patch.push(Change::RemoveKey(old.digest));
            }
        }
        keys::put_key(tx, patch, &record(key, id, old, self.now))?;
        Ok(fate)
    }
}

fn record(key: &KeyEntry, id: KeyId, old: Option<KeyRecord>, now: Timestamp) -> KeyRecord {
    // Another secret was used by others.
    let same = old.as_ref().filter(|old| old.digest == key.digest);
    let start = key.start.clone().or_else(|| same.map(|old| old.start.clone()));
    KeyRecord {
        id,
        shop: key.shop,
        name: key.name.clone(),
        digest: key.digest,
        start: start.unwrap_or_default(),
        created_at: same.map(|old| old.created_at).or(key.created_at).unwrap_or(now),
        expires_at: key.expires_at,
        grace_until: key.grace_until,
        replaced_by: key.replaced_by,
        networks: key.networks.clone(),
        limits: key.limits.clone(),
        last_used_at: same.and_then(|old| old.last_used_at).or(key.last_used_at),
        revision: old.map_or(0, |old| old.revision).saturating_add(1),
    }
}
