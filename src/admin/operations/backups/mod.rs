//! Backups in the folder that the configuration names: make, list, check, hand out, delete, and
//! make by schedule.
//!
//! One is made at a time, from one view of the store, while everything else goes on. What was made
//! is read again before it is called good. How a backup is spelt is `store::backup`'s; restoring
//! one needs the store closed, and is the command line's.

mod folder;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::json;

pub use self::folder::BackupName;
pub use self::schedule::{Schedule, last_scheduled, maintain, schedule};

use self::folder::Found;
use super::{OneAtATime, OperationError, Resource, Taken, now};
use crate::admin::audit::{self, Action, Subject, SubjectKind};
use crate::admin::caller::{Caller, Permission, Via};
use crate::admin::node::Node;
use crate::clock::Timestamp;
use crate::config::read_secret_file;
use crate::metrics::BackupKind;
use crate::secret::SecretText;
use crate::store::backup::{
    BackupError, CreateOptions, Encryption, Header, KdfCost, Made, Progress, Report, Verified,
    create as write_file, verify as verify_file,
};
use crate::store::master_key;

/// Shortest and longest passphrase, in bytes.
pub const PASSPHRASE_BYTES: (usize, usize) = (12, 4096);

/// What a node remembers of its backups; lost with the process.
#[derive(Debug, Default)]
pub struct Memory {
    busy: Taken,
    verifying: Taken,
    /// What came of reading a file to its end, by its name.
    checked: Mutex<BTreeMap<String, Checked>>,
    schedule: Mutex<schedule::Attempts>,
}

/// That a file was read to its end, when it was this long and last changed then.
#[derive(Debug, Clone)]
struct Checked {
    bytes: u64,
    modified: Option<SystemTime>,
    state: State,
}

/// A file of the folder.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its name within the folder.
    pub name: BackupName,
    /// How long it is.
    pub bytes: u64,
    /// What it says of itself; `None` if that cannot be read.
    pub header: Option<Header>,
    /// Whether it is good.
    pub state: State,
}

impl Backup {
    /// When it was made.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        self.header.as_ref().map(Header::created_at)
    }
}

/// Whether a backup is good, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It was not read to its end since the start.
    Unchecked,
    /// It is as it was written.
    Good {
        /// When it was read.
        at: Timestamp,
        /// Whether what it holds was opened, or only its checksums compared.
        opened: bool,
    },
    /// It is of no use.
    Bad {
        /// Why.
        problem: String,
    },
}

/// What kind of backup is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What it is encrypted to; `None`: to the configured passphrase, or not at all.
    pub passphrase: Option<SecretText>,
    /// Whether the master key is to be in it.
    pub include_master_key: bool,
}

/// Makes a backup in the folder.
pub fn create(
    node: &Node,
    caller: &Caller,
    wanted: &Wanted,
    report: Report<'_>,
) -> Result<Backup, OperationError> {
    caller.require(Permission::BackupsWrite)?;
    let encryption = encryption(node, caller, wanted)?;
    make(node, caller, BackupKind::Manual, encryption, report)
}

/// Whether [`stream`] would begin: who asks may, and for what is asked.
pub fn may_stream(node: &Node, caller: &Caller, wanted: &Wanted) -> Result<(), OperationError> {
    caller.require(Permission::BackupsWrite)?;
    encryption(node, caller, wanted).map(drop)
}

/// Writes a backup to `to`, and to no file here.
pub fn stream(
    node: &Node,
    caller: &Caller,
    wanted: &Wanted,
    to: &mut dyn Write,
) -> Result<Made, OperationError> {
    caller.require(Permission::BackupsWrite)?;
    let encryption = encryption(node, caller, wanted)?;
    let _turn = take_turn(node)?;
    record(node, caller, Action::BackupDownloaded, "streamed", json!({}))?;
    let options = CreateOptions { created_at: now(node), scheduled: false, encryption };
    let made = node.store.back_up(to, &options, node.entropy.as_ref(), &mut |_| running(node));
    made.map_err(|error| failed("the backup that was asked for", error))
}

/// The backups of the folder, the newest first.
pub fn list(node: &Node, caller: &Caller) -> Result<Vec<Backup>, OperationError> {
    caller.require(Permission::BackupsRead)?;
    let mut backups: Vec<Backup> =
        folder::list(node)?.into_iter().map(|found| describe(node, found)).collect();
    let mut checked = lock(&node.backups.checked);
    checked.retain(|name, _| backups.iter().any(|backup| backup.name.as_str() == name));
    backups.sort_by_key(|backup| std::cmp::Reverse((backup.created_at(), backup.name.clone())));
    Ok(backups)
}

/// One backup of the folder.
pub fn get(node: &Node, caller: &Caller, name: &BackupName) -> Result<Backup, OperationError> {
    caller.require(Permission::BackupsRead)?;
    Ok(describe(node, folder::open(node, name)?.1))
}

/// Reads a backup to its end. That it is bad is a result, no error; that the passphrase does not
/// open it is one.
pub fn verify(
    node: &Node,
    caller: &Caller,
    name: &BackupName,
    passphrase: Option<&SecretText>,
    report: Report<'_>,
) -> Result<Backup, OperationError> {
    caller.require(Permission::BackupsRead)?;
    // Each may take as much memory as the key of its passphrase is made to cost.
    let message = "another backup is being verified; try again when it is done";
    let _turn = OneAtATime::take(&node.backups.verifying, message)?;
    let (file, found) = folder::open(node, name)?;
    let configured = configured_passphrase(node).unwrap_or(None);
    let result = match (passphrase, &configured) {
        (Some(given), _) => check(node, &file, &found, Some(given), report),
        // One that was made under an older passphrase, or another, is held to its checksums.
        (None, Some(ours)) => match check(node, &file, &found, Some(ours), report) {
            Err(BackupError::WrongPassphrase) => {
                let (file, again) = folder::open(node, name)?;
                check(node, &file, &again, None, report)
            }
            result => result,
        },
        (None, None) => check(node, &file, &found, None, report),
    };
    let state = match result {
        Ok(verified) => State::Good { at: now(node), opened: verified.opened },
        Err(error @ (BackupError::WrongPassphrase | BackupError::PassphraseNeeded)) => {
            return Err(OperationError::invalid("passphrase", error.to_string()));
        }
        Err(error @ BackupError::Stopped) => return Err(failed(name.as_str(), error)),
        Err(error) => State::Bad { problem: error.to_string() },
    };
    remember(node, &found, state);
    Ok(describe(node, found))
}

/// Opens a backup to hand it out.
pub fn download(
    node: &Node,
    caller: &Caller,
    name: &BackupName,
) -> Result<(File, Backup), OperationError> {
    // It holds what signs operators in: whoever has it can try passwords at leisure.
    caller.require(Permission::BackupsWrite)?;
    let (file, found) = folder::open(node, name)?;
    record(node, caller, Action::BackupDownloaded, name.as_str(), json!({"bytes": found.bytes}))?;
    Ok((file, describe(node, found)))
}

/// Deletes a backup.
pub fn delete(node: &Node, caller: &Caller, name: &BackupName) -> Result<(), OperationError> {
    caller.require(Permission::BackupsWrite)?;
    remove(node, caller, name)
}

/// Notes in the audit log of a store that was just restored where it came from.
pub fn note_restored(node: &Node, caller: &Caller, header: &Header) -> Result<(), OperationError> {
    caller.require(Permission::BackupsWrite)?;
    let after = json!({
        "created_at": header.created_at(),
        "version": header.version,
        "schema": header.schema,
    });
    record(node, caller, Action::BackupRestored, "restored", after)
}

fn remove(node: &Node, caller: &Caller, name: &BackupName) -> Result<(), OperationError> {
    let (_, found) = folder::open(node, name)?;
    let now = now(node);
    let subject = Subject::new(SubjectKind::Backup, name.as_str());
    let before = json!({"bytes": found.bytes});
    node.store.write(|tx| {
        audit::record(tx, caller, now, Action::BackupDeleted, subject, Some(before), None)?;
        // Last: an entry that cannot be written keeps the file.
        std::fs::remove_file(&found.path).map_err(|e| files(name.as_str(), "deleted", &e))
    })
}

/// Makes a backup in the folder; whoever may is settled.
fn make(
    node: &Node,
    caller: &Caller,
    kind: BackupKind,
    encryption: Option<Encryption>,
    report: Report<'_>,
) -> Result<Backup, OperationError> {
    let _turn = take_turn(node)?;
    let result = make_file(node, kind, encryption, report).and_then(|backup| {
        let after = json!({
            "bytes": backup.bytes,
            "encrypted": backup.header.as_ref().is_some_and(Header::is_encrypted),
            "includes_master_key": backup.header.as_ref().is_some_and(|h| h.includes_master_key),
        });
        let noted = record(node, caller, Action::BackupCreated, backup.name.as_str(), after);
        if noted.is_err() {
            folder::discard(node, &backup.name);
        }
        noted.map(|()| backup)
    });
    match &result {
        Ok(backup) => node.metrics.backup_made(kind, now(node), backup.bytes),
        Err(_) => node.metrics.backup_failed(kind),
    }
    result
}

fn make_file(
    node: &Node,
    kind: BackupKind,
    encryption: Option<Encryption>,
    report: Report<'_>,
) -> Result<Backup, OperationError> {
    let scheduled = kind == BackupKind::Scheduled;
    let created_at = now(node);
    let name = BackupName::fresh(scheduled, created_at, node.entropy.as_ref())?;
    let path = folder::path(node, &name);
    folder::sweep(node);
    let passphrase = encryption.as_ref().map(|encryption| encryption.passphrase.clone());
    let options = CreateOptions { created_at, scheduled, encryption };
    let mut report = |progress| match running(node) {
        ControlFlow::Continue(()) => report(progress),
        stop @ ControlFlow::Break(()) => stop,
    };
    let shown = path.display().to_string();
    write_file(&node.store, &path, &options, node.entropy.as_ref(), &mut report)
        .map_err(|error| failed(&shown, error))?;
    // What the disk gives back is what counts.
    let checked = folder::open(node, &name).and_then(|(file, found)| {
        let verified = check(node, &file, &found, passphrase.as_ref(), &mut |_| running(node));
        verified.map(|_| found).map_err(|error| failed(&shown, error))
    });
    let found = checked.inspect_err(|_| folder::discard(node, &name))?;
    remember(node, &found, State::Good { at: now(node), opened: true });
    Ok(describe(node, found))
}

fn check(
    node: &Node,
    file: &File,
    found: &Found,
    passphrase: Option<&SecretText>,
    report: Report<'_>,
) -> Result<Verified, BackupError> {
    let mut report = |progress: Progress| match running(node) {
        ControlFlow::Continue(()) => report(progress),
        stop @ ControlFlow::Break(()) => stop,
    };
    let from = io::BufReader::new(file);
    verify_file(from, found.bytes, passphrase, &mut report)
}

/// What a backup is sealed to, and whether it may hold what is asked for.
fn encryption(
    node: &Node,
    caller: &Caller,
    wanted: &Wanted,
) -> Result<Option<Encryption>, OperationError> {
    if let Some(given) = &wanted.passphrase {
        let (min, max) = PASSPHRASE_BYTES;
        if !(min..=max).contains(&given.expose().len()) {
            let problem = format!("is not from {min} to {max} bytes long");
            return Err(OperationError::invalid("passphrase", problem));
        }
    }
    let passphrase = match &wanted.passphrase {
        Some(given) => Some(given.clone()),
        None => configured_passphrase(node)?,
    };
    if !wanted.include_master_key {
        let seal = |passphrase| Encryption { passphrase, cost: cost(), master_key: None };
        return Ok(passphrase.map(seal));
    }
    let refused = |problem: &str| Err(OperationError::invalid("include_master_key", problem));
    match caller.via {
        Via::Socket | Via::InProcess | Via::System => {}
        Via::Token(_) | Via::Operator(_) => {
            return refused(
                "is not done over the network: use `latchkey backup create --include-master-key` \
                 on the machine itself, or `backup.include_master_key` for scheduled backups",
            );
        }
    }
    let Some(passphrase) = passphrase else {
        return refused("needs a passphrase: whoever had the backup would hold every key");
    };
    let path = node.config.load().store.master_key_file.clone();
    let key = master_key::load(&path);
    let key = key.map_err(|error| OperationError::Files(error.to_string()))?;
    Ok(Some(Encryption { passphrase, cost: cost(), master_key: Some(key) }))
}

fn cost() -> KdfCost {
    KdfCost::default()
}

fn configured_passphrase(node: &Node) -> Result<Option<SecretText>, OperationError> {
    let config = node.config.load();
    let file = config.backup.passphrase_file.as_deref();
    let read = |path: &Path| {
        let read = read_secret_file(path);
        read.map_err(|problem| {
            OperationError::Files(format!("`backup.passphrase_file`: {problem}"))
        })
    };
    file.map(read).transpose()
}

/// Goes on until the process stops.
fn running(node: &Node) -> ControlFlow<()> {
    if node.is_draining() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn record(
    node: &Node,
    caller: &Caller,
    action: Action,
    id: &str,
    after: serde_json::Value,
) -> Result<(), OperationError> {
    let subject = Subject::new(SubjectKind::Backup, id);
    let now = now(node);
    node.store.write(|tx| audit::record(tx, caller, now, action, subject, None, Some(after)))
}

fn describe(node: &Node, found: Found) -> Backup {
    let state = match &found.header {
        Err(problem) => State::Bad { problem: problem.clone() },
        Ok(_) => recall(node, &found).unwrap_or(State::Unchecked),
    };
    Backup { name: found.name, bytes: found.bytes, header: found.header.ok(), state }
}

fn remember(node: &Node, found: &Found, state: State) {
    let checked = Checked { bytes: found.bytes, modified: found.modified, state };
    let mut all = lock(&node.backups.checked);
    if all.len() < folder::FILES_MAX {
        all.insert(found.name.as_str().to_owned(), checked);
    }
}

/// What is known of a file that has not changed since.
fn recall(node: &Node, found: &Found) -> Option<State> {
    let all = lock(&node.backups.checked);
    let known = all.get(found.name.as_str())?;
    let same = known.bytes == found.bytes && known.modified == found.modified;
    same.then(|| known.state.clone())
}

/// Of a value that is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One backup is made at a time.
fn take_turn(node: &Node) -> Result<OneAtATime, OperationError> {
    OneAtATime::take(&node.backups.busy, "another backup is being made; try again when it is done")
}

fn failed(what: &str, error: BackupError) -> OperationError {
    if let BackupError::Store(error) = error {
        return error.into();
    }
    OperationError::Files(format!("{what} could not be made: {error}"))
}

fn files(what: &str, action: &str, error: &io::Error) -> OperationError {
    if error.kind() == io::ErrorKind::NotFound {
        return OperationError::NotFound(Resource::Backup);
    }
    OperationError::Files(format!("the backup {what} could not be {action} ({error})"))
}
