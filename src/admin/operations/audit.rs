//! The audit log: read, export, verify, prune.
//!
//! Entries are appended by the operations they tell of (`admin::audit`), and nothing here changes
//! one; pruning removes the oldest once they are older than the configuration says. Who reads the
//! log sees every shop: it is not for members of single shops.

use std::ops::ControlFlow;

use super::{OneAtATime, OperationError, now};
use crate::admin::audit::Action;
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::clock::Timestamp;
use crate::id::ShopId;
use crate::store::audit::{
    AuditActor, AuditLink, AuditRecord, AuditSubject, Mac, Point, Proven, Report,
};
use crate::store::{PRUNE_MAX, Role, StoreError};

/// Most entries looked at for one page, to bound the time it takes. A page may be empty and still
/// have a next one.
pub const SCANNED_MAX: usize = 20_000;

/// Entries of one [`Batch`] of an export.
const BATCH: usize = 500;

/// Most rounds of pruning at a time; the rest waits for the next.
const PRUNE_ROUNDS_MAX: usize = 20;

/// Which entries are wanted; what is `None` is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// What was done.
    pub action: Option<Action>,
    /// The caller's label or name.
    pub actor: Option<String>,
    /// The subject's kind, its id, or the two with a `:` between.
    pub subject: Option<String>,
    /// The shop that the subject is or belongs to.
    pub shop: Option<ShopId>,
    /// Not before this.
    pub from: Option<Timestamp>,
    /// Before this.
    pub to: Option<Timestamp>,
}

impl Filter {
    fn admits(&self, record: &AuditRecord) -> bool {
        let AuditRecord { at, actor, action, subject, .. } = record;
        let is_actor = |wanted: &String| *wanted == actor.label || *wanted == actor.name;
        let is_subject = |wanted: &String| {
            let both = wanted.split_once(':');
            *wanted == subject.kind
                || *wanted == subject.id
                || both.is_some_and(|(kind, id)| kind == subject.kind && id == subject.id)
        };
        self.action.is_none_or(|wanted| wanted.as_str() == action)
            && self.actor.as_ref().is_none_or(is_actor)
            && self.subject.as_ref().is_none_or(is_subject)
            && self.shop.is_none_or(|wanted| subject.shop == Some(wanted))
            && self.from.is_none_or(|from| *at >= from)
            && self.to.is_none_or(|to| *at < to)
    }
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub seq: u64,
    /// Its place in the chain.
    pub mac: Mac,
    /// What it says.
    pub record: AuditRecord,
}

impl Entry {
    /// One that cannot be read is shown as that: [`verify`] says what is wrong with it.
    fn of(link: &AuditLink) -> Self {
        let unreadable = || AuditRecord {
            at: Timestamp::default(),
            actor: AuditActor { label: String::new(), name: String::new(), role: Role::Viewer },
            address: None,
            action: "unreadable".to_owned(),
            subject: AuditSubject { kind: String::new(), id: String::new(), shop: None },
            before: None,
            after: None,
        };
        let record = link.record().unwrap_or_else(unreadable);
        Self { seq: link.seq, mac: link.mac, record }
    }
}

/// Up to `limit` entries that `filter` admits, the newest first, with numbers below `before`; and
/// the `before` of the next page, if there may be one.
pub fn list(
    node: &Node,
    caller: &Caller,
    filter: &Filter,
    before: Option<u64>,
    limit: usize,
) -> Result<(Vec<Entry>, Option<u64>), OperationError> {
    caller.require(Permission::AuditRead)?;
    let (mut found, mut scanned, mut next) = (Vec::new(), 0, None);
    node.store.read(|tx| {
        tx.visit_audit_back(before, |link| {
            if found.len() >= limit || scanned >= SCANNED_MAX {
                next = Some(link.seq.saturating_add(1));
                return ControlFlow::Break(());
            }
            scanned += 1;
            let entry = Entry::of(&link);
            if filter.admits(&entry.record) {
                found.push(entry);
            }
            ControlFlow::Continue(())
        })
    })?;
    Ok((found, next))
}

/// The last entry's place in the chain, to be kept elsewhere and compared with later; `None` if
/// there is none that can be trusted.
pub fn head(node: &Node, caller: &Caller) -> Result<Option<Point>, OperationError> {
    caller.require(Permission::AuditRead)?;
    Ok(node.store.read(crate::store::ReadTx::audit_head)?)
}

/// Walks the whole chain; see [`ReadTx::verify_audit`](crate::store::ReadTx::verify_audit). That
/// is gigabytes to digest for a log that is full, and whoever asked may be gone long before the
/// end: one walk at a time.
pub fn verify(
    node: &Node,
    caller: &Caller,
    expected: Option<Point>,
) -> Result<Report, OperationError> {
    caller.require(Permission::AuditRead)?;
    let message = "the log is being verified already; try again when that is done";
    let _turn = OneAtATime::take(&node.verifying_audit, message)?;
    Ok(node.store.read(|tx| tx.verify_audit(expected))?)
}

/// An export: what is in the log at its beginning, batch by batch, so that its memory is bounded.
#[derive(Debug)]
pub struct Export {
    /// The head when it began.
    pub head: Option<Proven>,
    /// What retention left off.
    pub anchor: Option<Proven>,
    /// The last number that was handed out.
    done: u64,
    end: u64,
}

/// Begins an export.
pub fn export(node: &Node, caller: &Caller) -> Result<Export, OperationError> {
    caller.require(Permission::AuditRead)?;
    let (head, anchor) = node.store.read(crate::store::ReadTx::audit_seals)?;
    let (head, anchor) = (head.authentic(), anchor.authentic());
    // Without a head there may be entries still, of a log that was tampered with: all of them.
    let end = head.map_or(u64::MAX, |head| head.point.seq);
    Ok(Export { head, anchor, done: 0, end })
}

impl Export {
    /// The next entries; none when it is done.
    pub fn next(&mut self, node: &Node) -> Result<Vec<AuditLink>, OperationError> {
        let mut links = node.store.read(|tx| tx.audit_links(self.done, BATCH))?;
        links.retain(|link| link.seq <= self.end);
        if let Some(last) = links.last() {
            self.done = last.seq;
        }
        Ok(links)
    }
}

/// Removes what is older than the configuration keeps, unless the clock is doubtful (`pruning`),
/// and what is too much; how many. Costs a read when there is nothing.
pub fn prune(node: &Node) -> Result<usize, OperationError> {
    let by_age = node.pruning.may_go_by_age(node.now());
    let now = now(node);
    // Nothing is older than that.
    let never = Timestamp::default();
    let before = if by_age { now - node.config.load().audit.retention } else { never };
    let mut pruned = 0;
    for _ in 0..PRUNE_ROUNDS_MAX {
        if !node.store.read(|tx| tx.audit_is_due(before))? {
            break;
        }
        let round = node.store.write::<_, StoreError>(|tx| tx.prune_audit(before, now))?;
        pruned += round;
        if round < PRUNE_MAX {
            break;
        }
    }
    Ok(pruned)
}
