//! Import and export of shops and keys as JSON lines.
//!
//! A file is checked whole before anything is changed, and every fault is told by its line. Then
//! it is applied, shops first, in batches that are one transaction each: a file of up to
//! [`BATCH`] records happens whole or not at all, and a longer one that is interrupted is finished
//! by importing it again, because what is here already is skipped. An import deletes nothing, and
//! overwrites only when it is told to.
//!
//! A key comes in by its secret, by the SHA-256 of its secret, or by the digest that an export of
//! a latchkey with the same master key holds. No secret goes out: there is none to give.

mod apply;
mod check;
mod export;
mod line;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;

pub use self::export::{Selection, export, may_export};

use super::{OneAtATime, OperationError};
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::decision::Facts as _;
use crate::pace::pace;
use crate::secret::Digest;

/// Longest file, in bytes.
pub const FILE_BYTES_MAX: usize = 64 << 20;

/// Longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Most faults that are told; all are counted.
pub const FAULTS_MAX: usize = 1_000;

/// Most records of one transaction: so many keep other writers waiting for some 50 ms.
pub const BATCH: usize = 1_000;

/// Lines that are read before other threads go first: some tens of microseconds.
const STEPS: u32 = 8;

/// What an import may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Check, and change nothing.
    pub dry_run: bool,
    /// Overwrite shops and keys that are here and differ.
    pub replace: bool,
}

/// What an import is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reads the file; what is done is bytes.
    Checking,
    /// Writes; what is done is records.
    Applying,
}

/// Told how far it is, and says whether to go on.
pub type Report<'r> = &'r mut dyn FnMut(Phase, u64, u64) -> ControlFlow<()>;

/// What became of the records of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// New.
    pub created: u64,
    /// Overwritten.
    pub replaced: u64,
    /// Here already, and the same.
    pub unchanged: u64,
}

impl Counts {
    fn count(&mut self, fate: Fate) {
        let counted = match fate {
            Fate::Create => &mut self.created,
            Fate::Replace => &mut self.replaced,
            Fate::Keep => &mut self.unchanged,
        };
        *counted += 1;
    }

    /// How many there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.created + self.replaced + self.unchanged
    }
}

/// What an import did, or, in a dry run, would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Of the shops.
    pub shops: Counts,
    /// Of the keys.
    pub keys: Counts,
}

/// A fault of one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineFault {
    /// Which, from 1 up.
    pub line: u64,
    /// What is wrong with it. Holds no secret.
    pub problem: String,
}

/// Every fault of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LineFaults {
    /// The first [`FAULTS_MAX`], in the order of their lines.
    pub shown: Vec<LineFault>,
    /// How many there are.
    pub total: u64,
}

impl LineFaults {
    fn add(&mut self, line: u64, problem: impl Into<String>) {
        self.total += 1;
        if self.shown.len() < FAULTS_MAX {
            self.shown.push(LineFault { line, problem: problem.into() });
        }
    }
}

/// How an import ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Import {
    /// It was done, or, in a dry run, could be.
    Done(Imported),
    /// Nothing was changed.
    Refused(LineFaults),
}

/// What is to be done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Create,
    Replace,
    Keep,
}

/// The right to import: one at a time, so that the memory for files is bounded.
#[derive(Debug)]
pub struct ImportTurn {
    node: Arc<Node>,
    _turn: OneAtATime,
}

/// Takes the turn to import, before the file is read.
pub fn take_turn(node: &Arc<Node>, caller: &Caller) -> Result<ImportTurn, OperationError> {
    require(caller)?;
    let message = "another import is going on; try again when it is done";
    let turn = OneAtATime::take(&node.importing, message)?;
    Ok(ImportTurn { node: Arc::clone(node), _turn: turn })
}

fn require(caller: &Caller) -> Result<(), OperationError> {
    caller.require(Permission::ShopsWrite)?;
    caller.require(Permission::KeysWrite)?;
    caller.require(Permission::LimitsWrite)
}

/// Imports the file `text`. [`Import::Refused`] if it has a fault; then nothing was changed.
///
/// # Errors
///
/// Whatever stops it once it is being applied; the message says how far it came.
pub fn import(
    turn: &ImportTurn,
    caller: &Caller,
    text: &[u8],
    options: ImportOptions,
    report: Report<'_>,
) -> Result<Import, OperationError> {
    let node = &turn.node;
    require(caller)?;
    let mut report = |phase, done, total| {
        if node.is_draining() {
            return ControlFlow::Break(());
        }
        report(phase, done, total)
    };
    let checked = check::check(node, text, options, &mut report)?;
    if checked.faults.total > 0 {
        return Ok(Import::Refused(checked.faults));
    }
    if options.dry_run {
        return Ok(Import::Done(checked.expected));
    }
    apply::apply(node, caller, text, options, checked.expected, &mut report).map(Import::Done)
}

/// What tells whether an export was made under the same master key, so that its digests mean
/// something here.
fn master_key_check(node: &Node) -> Digest {
    node.published.load().pepper().digest(b"latchkey export/1")
}

/// The lines of a file, numbered from 1; those that are blank are left out.
fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let lines = text.split(|byte| *byte == b'\n');
    let lines = (1..).zip(lines).filter(|(_, line)| !line.trim_ascii().is_empty());
    lines.inspect(pace(STEPS))
}
