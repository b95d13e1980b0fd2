//! Backups: what the database holds, in one file of our own format.
//!
//! ```text
//! magic "LKBACKUP", version u16, length u32, header (JSON), SHA-256 of all that
//! chunk …: length u32, last u8, bytes, the first half of the SHA-256 of all that
//! trailer: chunks u64, bytes u64, SHA-256 of everything before it
//! ```
//!
//! Numbers are big-endian. A chunk holds rows of one table, the master key, or the end. With a
//! passphrase every chunk is sealed, in its place and under the header; without one nothing is
//! secret in it that is not digested or sealed in the database itself.
//!
//! A backup is written from one read transaction, so it is one moment of the database, and no
//! writer waits for it. It holds every table but the sessions: whoever restores signs in again.
//! Scheduling, naming and keeping backups is the admin plane's.

mod crypt;
mod format;
mod read;
mod restore;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::crypt::KdfCost;
pub use self::read::{Verified, header_of, verify};
pub use self::restore::{RestoreOptions, Restored, restore};
pub use self::write::{CreateOptions, Encryption, Made, Report, UNFINISHED, create};

use super::error::StoreError;
use super::master_key::MasterKeyError;
use super::schema::{self, Table};
use crate::clock::Timestamp;
use crate::secret::EntropyError;

/// The format this build writes, and the newest it reads.
pub const FORMAT: u16 = 1;

/// Tables that are not part of a backup.
const LEFT_OUT: [Table; 1] = [schema::SESSIONS];

/// How far a backup, a check or a restoration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Rows, or bytes, that are done.
    pub done: u64,
    /// Out of so many.
    pub total: u64,
}

/// What a backup says of itself before it is opened. Not secret, also when the backup is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// When it was made, Unix milliseconds.
    created_at_ms: u64,
    /// The latchkey that made it.
    pub version: String,
    /// The schema of its rows.
    pub schema: u32,
    /// How many commits the database had seen.
    pub commit: u64,
    /// Whether the schedule made it, and may delete it again.
    pub scheduled: bool,
    /// Whether the master key is in it; only ever when it is encrypted.
    pub includes_master_key: bool,
    /// Its tables in their order, with the number of rows of each.
    tables: Vec<TableRows>,
    /// How its chunks are sealed; `None`: not at all.
    encryption: Option<crypt::Sealing>,
}

/// How many rows a table has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableRows {
    name: String,
    rows: u64,
}

impl Header {
    /// When it was made.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.created_at_ms)
    }

    /// Whether a passphrase is needed to open it.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.encryption.is_some()
    }

    /// How many rows the table `name` has; zero if there is no such table.
    #[must_use]
    pub fn rows(&self, name: &str) -> u64 {
        self.tables.iter().filter(|table| table.name == name).map(|table| table.rows).sum()
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows_total(&self) -> u64 {
        self.tables.iter().fold(0, |sum, table| sum.saturating_add(table.rows))
    }
}

/// Why a backup was not made, is not good, or was not restored. What was there is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It begins like something else.
    #[error("it is not a backup of latchkey")]
    NotABackup,
    /// Written by a newer latchkey.
    #[error(
        "it has format {found}, written by a newer latchkey; this one reads formats up to \
         {FORMAT}: use the newer one"
    )]
    FormatNewer {
        /// The format it has.
        found: u16,
    },
    /// Its rows were written by a newer latchkey.
    #[error(
        "its rows have schema {found}, written by a newer latchkey; this one knows schemas up to \
         {known}: use the newer one"
    )]
    SchemaNewer {
        /// The schema it has.
        found: u32,
        /// The newest schema this build knows.
        known: u32,
    },
    /// It ends before its end.
    #[error("it is cut off after {at} bytes: use another copy")]
    Truncated {
        /// How many bytes there are.
        at: u64,
    },
    /// Its bytes are not those that were written.
    #[error("it is damaged before byte {at} ({what}): use another copy")]
    Damaged {
        /// How far it was read.
        at: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// It is encrypted and no passphrase was given.
    #[error("it is encrypted: give the passphrase it was made with")]
    PassphraseNeeded,
    /// The passphrase does not open it.
    #[error("the passphrase does not open it: give the one it was made with")]
    WrongPassphrase,
    /// Its key derivation asks for more than this build is ready to spend.
    #[error("its key derivation would take too much memory or time: it was not made by latchkey")]
    KdfTooCostly,
    /// One row is larger than a backup can hold.
    #[error("a row of the table `{table}` is larger than a backup can hold")]
    RowTooLarge {
        /// The table.
        table: &'static str,
    },
    /// It could not be read.
    #[error("it could not be read ({0})")]
    Read(#[source] io::Error),
    /// It could not be written.
    #[error("it could not be written ({0}): check the disk and its free space")]
    Write(#[source] io::Error),
    /// Whoever wanted it wants it no more.
    #[error("it was stopped before it was done")]
    Stopped,
    /// No random numbers.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The database could not be read or made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is a database already.
    #[error(
        "there is a database at {} already: to put the backup in its place, and keep the old one \
         beside it, use --force",
        path.display()
    )]
    Exists {
        /// The database file.
        path: PathBuf,
    },
    /// The backup does not hold the master key, and there is none.
    #[error(
        "there is no master key file {}, and the backup does not hold the key: put the master key \
         of the latchkey that made the backup there first",
        path.display()
    )]
    NoMasterKey {
        /// The master key file.
        path: PathBuf,
    },
    /// The backup belongs to another master key.
    #[error(
        "the master key in {} is not the one of the backup: put the master key of the latchkey \
         that made the backup there first, or restore with another `store.master_key_file`",
        path.display()
    )]
    WrongMasterKey {
        /// The master key file.
        path: PathBuf,
    },
    /// The master key could not be read or written.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The new database could not be put in place.
    #[error("the database {} could not be put in place ({why})", path.display())]
    Place {
        /// The database file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

impl BackupError {
    fn unless_stopped(flow: ControlFlow<()>) -> Result<(), Self> {
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Self::Stopped),
        }
    }
}
