//! The JSON of backups, import and export.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::operations::backups::{self, State, Wanted};
use crate::admin::operations::transfer;
use crate::clock::Timestamp;
use crate::secret::SecretText;
use crate::store::backup::Header;

/// What kind of backup is wanted.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupCreate {
    /// What it is encrypted to, 12 to 4096 bytes; left out: to the configured passphrase, or not
    /// at all.
    #[serde(default)]
    #[schema(min_length = 12, max_length = 4096)]
    passphrase: Option<String>,
    /// Whether the master key is to be in it: on the machine itself only, and only with a
    /// passphrase.
    #[serde(default)]
    include_master_key: bool,
}

/// Without the passphrase.
impl fmt::Debug for BackupCreate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupCreate")
            .field("include_master_key", &self.include_master_key)
            .finish_non_exhaustive()
    }
}

impl From<BackupCreate> for Wanted {
    fn from(wanted: BackupCreate) -> Self {
        let BackupCreate { passphrase, include_master_key } = wanted;
        Self { passphrase: passphrase.map(SecretText::new), include_master_key }
    }
}

/// What opens a backup that is to be checked.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupVerify {
    /// What it was encrypted to.
    #[serde(default)]
    pub(super) passphrase: Option<String>,
}

/// Without the passphrase.
impl fmt::Debug for BackupVerify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupVerify").finish_non_exhaustive()
    }
}

/// Backups, and how the schedule fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Backups {
    /// All of them, the newest first.
    pub items: Vec<Backup>,
    /// The schedule; `null` if there is none.
    pub schedule: Option<BackupSchedule>,
    /// Always `null`: all are on this page.
    pub next_cursor: Option<String>,
}

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Backup {
    /// Its name.
    #[schema(example = "latchkey-20270131T120000Z-3f9a01.lkbackup")]
    pub name: String,
    /// How long it is.
    pub bytes: u64,
    /// When it was made; `null` if that cannot be read, as all up to `keys`.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    /// Whether a passphrase is needed to open it.
    pub encrypted: Option<bool>,
    /// Whether the master key is in it.
    pub includes_master_key: Option<bool>,
    /// Whether the schedule made it, and will delete it.
    pub scheduled: Option<bool>,
    /// The latchkey that made it.
    pub version: Option<String>,
    /// The schema of its rows.
    pub schema: Option<u32>,
    /// Shops in it.
    pub shops: Option<u64>,
    /// Keys in it.
    pub keys: Option<u64>,
    /// `unchecked`: not read since the start; `good`; `bad`.
    #[schema(example = "good")]
    pub state: String,
    /// When it was found good.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub verified_at: Option<Timestamp>,
    /// Whether what it holds was opened, or only its checksums compared.
    pub opened: Option<bool>,
    /// Why it is bad.
    pub problem: Option<String>,
}

impl From<backups::Backup> for Backup {
    fn from(backup: backups::Backup) -> Self {
        let header = backup.header.as_ref();
        let (state, verified_at, opened, problem) = match backup.state {
            State::Unchecked => ("unchecked", None, None, None),
            State::Good { at, opened } => ("good", Some(at), Some(opened), None),
            State::Bad { problem } => ("bad", None, None, Some(problem)),
        };
        Self {
            name: backup.name.as_str().to_owned(),
            bytes: backup.bytes,
            created_at: header.map(Header::created_at),
            encrypted: header.map(Header::is_encrypted),
            includes_master_key: header.map(|header| header.includes_master_key),
            scheduled: header.map(|header| header.scheduled),
            version: header.map(|header| header.version.clone()),
            schema: header.map(|header| header.schema),
            shops: header.map(|header| header.rows("shops")),
            keys: header.map(|header| header.rows("keys")),
            state: state.to_owned(),
            verified_at,
            opened,
            problem,
        }
    }
}

/// Backups by schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BackupSchedule {
    /// From one to the next.
    pub interval_seconds: u64,
    /// How many are kept.
    pub keep: usize,
    /// Whether they are encrypted.
    pub encrypted: bool,
    /// Whether the master key is in them.
    pub include_master_key: bool,
    /// When the newest was made.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_at: Option<Timestamp>,
    /// When the next is due.
    #[schema(value_type = String, format = DateTime)]
    pub next_at: Timestamp,
    /// When the last attempt failed, if none succeeded since.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failed_at: Option<Timestamp>,
    /// Why.
    pub problem: Option<String>,
}

impl From<backups::Schedule> for BackupSchedule {
    fn from(schedule: backups::Schedule) -> Self {
        let (failed_at, problem) = schedule.failure.unzip();
        Self {
            interval_seconds: schedule.interval.as_secs(),
            keep: schedule.keep,
            encrypted: schedule.encrypted,
            include_master_key: schedule.include_master_key,
            last_at: schedule.last,
            next_at: schedule.next,
            failed_at,
            problem,
        }
    }
}

/// What an import did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Imported {
    /// Whether nothing was changed because only that was asked.
    pub dry_run: bool,
    /// What became of the shops.
    pub shops: ImportCounts,
    /// What became of the keys.
    pub keys: ImportCounts,
}

/// What became of the records of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ImportCounts {
    /// New.
    pub created: u64,
    /// Overwritten.
    pub replaced: u64,
    /// Here already, and the same.
    pub unchanged: u64,
}

impl Imported {
    pub(super) fn new(dry_run: bool, imported: &transfer::Imported) -> Self {
        let counts = |counts: transfer::Counts| ImportCounts {
            created: counts.created,
            replaced: counts.replaced,
            unchanged: counts.unchanged,
        };
        Self { dry_run, shops: counts(imported.shops), keys: counts(imported.keys) }
    }
}
