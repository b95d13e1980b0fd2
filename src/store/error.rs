//! What can go wrong with the store, said so that an operator knows what, where and what to do.
//!
//! Nothing here is meant for the outside: a client of the data plane never hears of the store.

use std::path::{Path, PathBuf};

use crate::id::ShopId;

/// Why the store could not be opened, read or written. No variant holds stored content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database's directory or file may not be read, written or created.
    #[error(
        "no permission to open the database {}: make it and its directory owned by the user \
         latchkey runs as ({detail})",
        path.display()
    )]
    Permission {
        /// The database file.
        path: PathBuf,
        /// What the operating system said.
        detail: String,
    },
    /// The file's mode lets every user of the machine in, or its group write.
    #[error(
        "the database {} has mode {mode:04o}, which lets others in: run `chmod 600 {}`",
        path.display(), path.display()
    )]
    Mode {
        /// The database file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process has the database open.
    #[error(
        "another latchkey runs on the database {}: stop it first, or talk to it through its \
         admin socket",
        path.display()
    )]
    Locked {
        /// The database file.
        path: PathBuf,
    },
    /// The file is not a redb database, or not one of latchkey.
    #[error(
        "{} is not a database of latchkey ({detail}): check the configured path; if this is \
         where the database was, restore a backup",
        path.display()
    )]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        detail: String,
    },
    /// The file is a database, and damaged.
    #[error(
        "the database {} is damaged ({detail}): keep a copy of it, and restore a backup",
        path.display()
    )]
    Corrupted {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The database was written by a newer latchkey.
    #[error(
        "the database {} has schema {found}, written by a newer latchkey; this one knows \
         schemas up to {known}: run the newer one, or restore a backup made before the upgrade",
        path.display()
    )]
    SchemaNewer {
        /// The database file.
        path: PathBuf,
        /// The schema it has.
        found: u32,
        /// The newest schema this build knows.
        known: u32,
    },
    /// The database belongs to another master key.
    #[error(
        "the master key does not belong to the database {}: start with the master key file it \
         was made with",
        path.display()
    )]
    WrongMasterKey {
        /// The database file.
        path: PathBuf,
    },
    /// A step from an older schema failed; the database is as it was.
    #[error(
        "the database {} could not be migrated from schema {from} and is unchanged ({detail})",
        path.display()
    )]
    Migration {
        /// The database file.
        path: PathBuf,
        /// The schema it has.
        from: u32,
        /// What failed.
        detail: String,
    },
    /// An operator was to get the name of another.
    #[error("another operator has this name")]
    NameTaken,
    /// A read, or a write before its commit, failed. Nothing was changed.
    #[error(
        "the database {} could not be {action} ({detail}): check the disk; nothing was changed",
        path.display()
    )]
    Io {
        /// The database file.
        path: PathBuf,
        /// What was being done to it, as a participle.
        action: &'static str,
        /// What failed.
        detail: String,
    },
    /// A commit failed and the database was opened again: nothing was changed.
    #[error(
        "the database {} could not be written ({detail}): check the disk and its free space; \
         nothing was changed",
        path.display()
    )]
    CommitFailed {
        /// The database file.
        path: PathBuf,
        /// What failed.
        detail: String,
    },
    /// A commit failed and the database could not yet be opened again. Whatever of the write
    /// reached the disk is taken back when it can; only a crash before that may leave it standing.
    #[error(
        "the database {} could not be written ({detail}), nor opened again ({reopen}): check \
         the disk; the change will be taken back as soon as it can be opened",
        path.display()
    )]
    CommitUnsettled {
        /// The database file.
        path: PathBuf,
        /// What failed.
        detail: String,
        /// Why it could not be opened again.
        reopen: String,
    },
    /// The database was closed while it was being read, to recover from a failed commit.
    #[error(
        "the database {} was closed while it was being read, to recover from a failed write: \
         try again",
        path.display()
    )]
    Closed {
        /// The database file.
        path: PathBuf,
    },
    /// One record does not decode.
    #[error(
        "the database {} holds a record in `{table}` that cannot be read ({detail}): restore a \
         backup, or run the latchkey that wrote it",
        path.display()
    )]
    Record {
        /// The database file.
        path: PathBuf,
        /// The record's table.
        table: &'static str,
        /// What is wrong with it. Holds no stored text.
        detail: String,
    },
    /// A key or a token was written for a shop that does not exist.
    #[error("there is no shop `{shop}`: create it first")]
    NoSuchShop {
        /// The shop's id.
        shop: ShopId,
    },
    /// The system's random number generator failed.
    #[error("a value for the database {} could not be sealed: no random numbers", path.display())]
    Entropy {
        /// The database file.
        path: PathBuf,
    },
}

impl StoreError {
    /// What redb said, in the store's words. `action` is a participle: "read", "written".
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "redb's enum is open, and its other errors differ only in their text"
    )]
    pub(super) fn from_redb(path: &Path, action: &'static str, error: redb::Error) -> Self {
        let path = path.to_path_buf();
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                Self::Locked { path }
            }
            redb::Error::UpgradeRequired(version) => {
                Self::NotADatabase { path, detail: format!("redb file format {version}") }
            }
            redb::Error::Corrupted(detail) => Self::Corrupted { path, detail },
            redb::Error::DatabaseClosed => Self::Closed { path },
            redb::Error::Io(error) => Self::from_io(&path, action, &error),
            other => Self::Io { path, action, detail: other.to_string() },
        }
    }

    /// What the operating system said, in the store's words.
    pub(super) fn from_io(path: &Path, action: &'static str, error: &std::io::Error) -> Self {
        let path = path.to_path_buf();
        let detail = error.to_string();
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            return Self::Permission { path, detail };
        }
        if error.kind() == std::io::ErrorKind::InvalidData {
            return Self::NotADatabase { path, detail };
        }
        Self::Io { path, action, detail }
    }
}
