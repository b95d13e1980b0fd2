//! The audit log: who changed what, each entry chained to the one before it.
//!
//! Every entry carries a MAC over the MAC before it, its number and its exact bytes, under a key
//! derived from the master key. A *head* (the last number and MAC) shows that entries were cut off
//! the end; an *anchor* (the same of the last entry that retention removed) lets what is left be
//! verified. Both are authenticated too. So whoever can write the file, but does not have the
//! master key, can neither alter, remove, reorder nor insert an entry without [`verify`] showing
//! where.
//!
//! What the chain cannot show: a whole file put back to an older state of itself. For that, keep a
//! head elsewhere ([`ReadTx::audit_head`]) and compare. Nor does it hold against who has the master
//! key.
//!
//! What is recorded is the caller's to say, as is when it may go. An entry is appended in the
//! transaction of the change it tells of, so that there is never one without the other.
//!
//! [`verify`]: ReadTx::verify_audit

mod chain;
pub mod export;

use std::fmt;
use std::net::IpAddr;
use std::ops::{Bound, ControlFlow};
use std::str::FromStr;

use redb::AccessGuard;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::error::StoreError;
use super::read::ReadTx;
use super::records::Role;
use super::schema;
use super::write::{PRUNE_MAX, WriteTx};
use crate::clock::Timestamp;
use crate::id::ShopId;

pub use self::chain::{Chain, FAULTS_MAX, Fault, Proven, Report, Seal};

/// Most entries that are kept, whatever their age: some gigabytes.
pub const ENTRIES_MAX: u64 = 4_000_000;

/// In the table: the head. No entry's key begins so: their numbers stay far below.
const HEAD: &[u8] = b"head";
/// In the table: the anchor.
const ANCHOR: &[u8] = b"anchor";
/// Where the keys of entries end.
const ENTRIES_END: &[u8] = b"a";
/// The first byte of every value.
const ENCODING: u8 = 1;

/// An entry's place in the chain: 32 bytes, written as lowercase hex. No secret.
#[derive(Clone, Copy)]
pub struct Mac([u8; 32]);

impl Mac {
    /// What the first entry is chained to.
    const ZERO: Self = Self([0; 32]);

    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses 64 lowercase hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut bytes = [0; 32];
        for (to, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *to = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl PartialEq for Mac {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Mac {}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in the chain, written as `<number>:<mac>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The entry's number, from 1.
    pub seq: u64,
    /// Its MAC.
    pub mac: Mac,
}

/// Not a [`Point`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a place in the audit log: write it as `<number>:<64 hex digits>`")]
pub struct PointError;

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.mac)
    }
}

impl FromStr for Point {
    type Err = PointError;

    fn from_str(text: &str) -> Result<Self, PointError> {
        let (seq, mac) = text.split_once(':').ok_or(PointError)?;
        let digits = !seq.is_empty() && seq.bytes().all(|b| b.is_ascii_digit());
        let seq = digits.then(|| seq.parse().ok()).flatten().ok_or(PointError)?;
        Ok(Self { seq, mac: Mac::parse(mac).ok_or(PointError)? })
    }
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditActor {
    /// In one word, such as `op_00000000000000ab`, `socket` or `system`.
    pub label: String,
    /// What people call it.
    pub name: String,
    /// What it might do at that time.
    pub role: Role,
}

/// What it was done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSubject {
    /// Its kind, such as `shop`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// The shop it belongs to, if it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shop: Option<ShopId>,
}

/// One entry. Holds no secret, nor what is kept of one: that is the caller's to see to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When.
    #[serde(with = "to_the_millisecond")]
    pub at: Timestamp,
    /// Who.
    pub actor: AuditActor,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// What was done, such as `shop.created`.
    pub action: String,
    /// To what.
    pub subject: AuditSubject,
    /// What it was, as far as that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is, as far as that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLink {
    /// Its number.
    pub seq: u64,
    /// Its place in the chain.
    pub mac: Mac,
    /// Its exact bytes, JSON.
    pub bytes: Vec<u8>,
}

impl AuditLink {
    /// What the bytes say; `None` if they are no entry (of this version of latchkey).
    #[must_use]
    pub fn record(&self) -> Option<AuditRecord> {
        serde_json::from_slice(&self.bytes).ok()
    }

    fn decode(seq: u64, value: &[u8]) -> Option<Self> {
        let (mac, bytes) = split(value)?;
        Some(Self { seq, mac, bytes: bytes.to_vec() })
    }
}

/// Splits the value of an entry into its MAC and its bytes.
fn split(value: &[u8]) -> Option<(Mac, &[u8])> {
    let rest = value.strip_prefix(&[ENCODING])?;
    let (mac, bytes) = rest.split_first_chunk::<32>()?;
    Some((Mac(*mac), bytes))
}

fn seq_of(key: &[u8]) -> Option<u64> {
    <[u8; 8]>::try_from(key).ok().filter(|_| key < ENTRIES_END).map(u64::from_be_bytes)
}

impl ReadTx {
    /// The last entry's place in the chain; `None` if there has been no entry yet, or what says so
    /// was tampered with ([`ReadTx::verify_audit`] tells).
    pub fn audit_head(&self) -> Result<Option<Point>, StoreError> {
        Ok(self.audit_seal(HEAD)?.authentic().map(|proven| proven.point))
    }

    /// The head and the anchor, with what proves them.
    pub fn audit_seals(&self) -> Result<(Seal, Seal), StoreError> {
        Ok((self.audit_seal(HEAD)?, self.audit_seal(ANCHOR)?))
    }

    /// Calls `visit` with the entries whose numbers are below `before`, the newest first, until it
    /// breaks. What was stored under an entry's number and is none is skipped.
    pub fn visit_audit_back(
        &self,
        before: Option<u64>,
        mut visit: impl FnMut(AuditLink) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let key = before.map(u64::to_be_bytes);
        let end = key.as_ref().map_or(ENTRIES_END, <[u8; 8]>::as_slice).min(ENTRIES_END);
        let failed = |error| self.context.failed("read", error);
        let opened = self.open(schema::AUDIT)?;
        let range = opened.range(Bound::Unbounded, Bound::Excluded(end)).map_err(failed)?;
        for entry in range.rev() {
            let (key, value) = entry.map_err(failed)?;
            let link = seq_of(key.value()).and_then(|seq| AuditLink::decode(seq, value.value()));
            if link.is_some_and(|link| visit(link).is_break()) {
                break;
            }
        }
        Ok(())
    }

    /// Up to `limit` entries in the order of their numbers, from the first after `after`.
    pub fn audit_links(&self, after: u64, limit: usize) -> Result<Vec<AuditLink>, StoreError> {
        let mut links = Vec::new();
        self.visit_audit(Some(after), |key, value| {
            let link = seq_of(key).and_then(|seq| AuditLink::decode(seq, value));
            links.extend(link);
            if links.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(links)
    }

    /// Whether [`WriteTx::prune_audit`] may find something to remove.
    pub fn audit_is_due(&self, before: Timestamp) -> Result<bool, StoreError> {
        let oldest = self.oldest_audit(1)?;
        let last = self.audit_last()?;
        Ok(oldest.first().is_some_and(|(seq, link)| {
            let record = link.as_ref().and_then(AuditLink::record);
            // What cannot be read may be old.
            let young = record.is_some_and(|record| record.at >= before);
            !young || last.saturating_sub(*seq) >= ENTRIES_MAX
        }))
    }

    /// Walks the whole chain. With `expected`, a head noted earlier, also says whether the log
    /// still holds it: a file that was put back to an older state does not.
    pub fn verify_audit(&self, expected: Option<Point>) -> Result<Report, StoreError> {
        let (head, anchor) = self.audit_seals()?;
        let mut chain = Chain::new(self.context.chain.clone(), anchor, expected);
        self.visit_audit(None, |key, value| {
            match seq_of(key) {
                Some(seq) => chain.entry(seq, split(value)),
                None if key == HEAD || key == ANCHOR => {}
                None => chain.foreign(),
            }
            ControlFlow::Continue(())
        })?;
        Ok(chain.finish(head))
    }

    /// Calls `visit` with everything in the table, or what comes after the entry `after`.
    fn visit_audit(
        &self,
        after: Option<u64>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let key = after.map(u64::to_be_bytes);
        let from = key.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
        let failed = |error| self.context.failed("read", error);
        let opened = self.open(schema::AUDIT)?;
        for entry in opened.range(from, Bound::Unbounded).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            if visit(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Up to `limit` entries, the oldest first; no link where what is stored is none.
    fn oldest_audit(&self, limit: usize) -> Result<Vec<(u64, Option<AuditLink>)>, StoreError> {
        let mut found = Vec::new();
        self.visit_audit(None, |key, value| {
            found.extend(seq_of(key).map(|seq| (seq, AuditLink::decode(seq, value))));
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(found)
    }

    fn audit_seal(&self, which: &'static [u8]) -> Result<Seal, StoreError> {
        let opened = self.open(schema::AUDIT)?;
        let found = opened.get(which).map_err(|error| self.context.failed("read", error))?;
        Ok(Seal::open(found.as_ref().map(AccessGuard::value), which, &self.context.chain))
    }

    /// The last entry's number; zero if there is none.
    fn audit_last(&self) -> Result<u64, StoreError> {
        let failed = |error| self.context.failed("read", error);
        let opened = self.open(schema::AUDIT)?;
        let mut range =
            opened.range(Bound::Unbounded, Bound::Excluded(ENTRIES_END)).map_err(failed)?;
        let last = range.next_back().transpose().map_err(failed)?;
        Ok(last.and_then(|(key, _)| seq_of(key.value())).unwrap_or(0))
    }
}

impl WriteTx {
    /// Appends an entry; its number.
    ///
    /// A log whose end was tampered with is not mended by what is appended: it goes on after a
    /// gap, which [`ReadTx::verify_audit`] reports.
    pub fn append_audit(&mut self, record: &AuditRecord) -> Result<u64, StoreError> {
        let bytes = serde_json::to_vec(record);
        let bytes = bytes.map_err(|error| self.context.bad_record(schema::AUDIT, &error))?;
        let (head, anchor) = self.audit_seals()?;
        let last = self.audit_last()?;
        let (seq, previous) = match head {
            Seal::Authentic(Proven { point, .. }) if point.seq >= last => {
                (point.seq.saturating_add(1), point.mac)
            }
            Seal::Absent if last == 0 && matches!(anchor, Seal::Absent) => (1, Mac::ZERO),
            Seal::Authentic(_) | Seal::Absent | Seal::Forged => {
                let end = anchor.authentic().map_or(last, |anchor| last.max(anchor.point.seq));
                (end.saturating_add(2), Mac::ZERO)
            }
        };
        let mac = chain::link(&self.context.chain, &previous, seq, &bytes);
        let value = [&[ENCODING], mac.as_bytes().as_slice(), &bytes].concat();
        self.insert(schema::AUDIT, &seq.to_be_bytes(), &value)?;
        self.put_seal(HEAD, Point { seq, mac }, None)?;
        Ok(seq)
    }

    /// Removes up to [`PRUNE_MAX`] entries made before `before` or too many, the oldest first, and
    /// moves the anchor to the last of them; how many. As many as that means there may be more.
    ///
    /// Clocks jump. An entry from ahead of `now` goes when one after it is old enough; one that
    /// was made while the clock stood too far back takes none along that is younger. What was
    /// broken among them stays reported, at the anchor.
    pub fn prune_audit(&mut self, before: Timestamp, now: Timestamp) -> Result<usize, StoreError> {
        let found = self.oldest_audit(PRUNE_MAX)?;
        let last = self.audit_last()?;
        let due = |(seq, link): &(u64, Option<AuditLink>)| {
            let record = link.as_ref().and_then(AuditLink::record);
            let old = record.is_some_and(|record| record.at < before);
            old || last.saturating_sub(*seq) >= ENTRIES_MAX
        };
        let young = |entry: &&(u64, Option<AuditLink>)| {
            let record = entry.1.as_ref().and_then(AuditLink::record);
            !due(entry) && record.is_some_and(|record| record.at <= now)
        };
        let old = found.iter().take_while(|entry| !young(entry)).count();
        let Some(at) = found.iter().take(old).rposition(due) else {
            return Ok(0);
        };
        let anchor = self.audit_seal(ANCHOR)?;
        let mut chain = Chain::new(self.context.chain.clone(), anchor, None);
        let mut end = None;
        for (seq, link) in found.iter().take(at.saturating_add(1)) {
            chain.entry(*seq, link.as_ref().map(|link| (link.mac, link.bytes.as_slice())));
            self.remove(schema::AUDIT, &seq.to_be_bytes())?;
            end = Some(Point { seq: *seq, mac: link.as_ref().map_or(Mac::ZERO, |link| link.mac) });
        }
        if let Some(end) = end {
            self.put_seal(ANCHOR, end, chain.first_fault())?;
        }
        Ok(at.saturating_add(1))
    }

    fn put_seal(
        &mut self,
        which: &'static [u8],
        point: Point,
        broken_at: Option<u64>,
    ) -> Result<(), StoreError> {
        let sealed = chain::seal(&self.context.chain, which, point, broken_at);
        self.insert(schema::AUDIT, which, &sealed)
    }
}

/// RFC 3339 with milliseconds: an entry's bytes are read by people and other programs.
mod to_the_millisecond {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::clock::Timestamp;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` passes a reference")]
    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        let seconds = at.to_string();
        let seconds = seconds.trim_end_matches('Z');
        to.collect_str(&format_args!("{seconds}.{:03}Z", at.unix_ms() % 1000))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(from)
    }
}

#[cfg(test)]
mod tests;
