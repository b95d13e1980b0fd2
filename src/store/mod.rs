//! The store: one redb file that holds shops, keys, tokens and what else must survive a restart.
//!
//! Every write is one transaction, durable before [`Store::write`] returns. After a failed commit
//! (a full disk, an I/O error) the store closes the file and opens it again by itself, takes back
//! whatever of the failed write did reach the disk, and goes on: a write that returned an error
//! did not happen.
//!
//! Everything here blocks; asynchronous callers go through `spawn_blocking`. The request path
//! never comes here: it reads the snapshot. The store keeps no rules of the product, knows no
//! configuration, logs nothing and counts nothing: errors are returned, and commits are reported
//! to the observer it was given.

mod error;
mod file;
pub mod master_key;
mod records;
mod schema;
mod tx;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use redb::{Database, ReadableDatabase as _};

pub use self::error::StoreError;
pub use self::records::{
    AdminTokenRecord, IdempotencyRecord, KeyRecord, KeySetRecord, LimitRecord, Role, RoleError,
    ShopRecord, SigningKeyRecord, TokenRecord,
};
pub use self::tx::{PRUNE_MAX, ReadTx, WriteTx};

use self::file::Files;
use self::schema::CURRENT;
use self::tx::{Context, Undo};
use crate::clock::{Clock, Monotonic};
use crate::secret::{Entropy, MasterKey};

/// How one commit went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitObservation {
    /// From the start of the commit until the disk confirmed it, or refused it.
    pub duration: Duration,
    /// Whether the disk confirmed it.
    pub committed: bool,
}

/// Told of every commit, on the thread that made it; must be quick and must not use the store.
pub type CommitObserver = Arc<dyn Fn(CommitObservation) + Send + Sync>;

/// What [`Store::open`] needs to know.
#[derive(Clone)]
pub struct StoreOptions {
    /// The database file. Made, with its directory, if there is none.
    pub path: PathBuf,
    /// The master key the database belongs to.
    pub master_key: MasterKey,
    /// Memory that redb may use for cached pages, in bytes.
    pub cache_bytes_max: usize,
    /// Told of every commit.
    pub observer: Option<CommitObserver>,
}

impl StoreOptions {
    /// The cache of [`StoreOptions::new`]: the request path reads none of it.
    pub const CACHE_BYTES_MAX: usize = 8 << 20;

    /// Options with the default cache and no observer.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, master_key: MasterKey) -> Self {
        Self {
            path: path.into(),
            master_key,
            cache_bytes_max: Self::CACHE_BYTES_MAX,
            observer: None,
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("path", &self.path)
            .field("cache_bytes_max", &self.cache_bytes_max)
            .finish_non_exhaustive()
    }
}

/// The open database. Shared by reference; closed when dropped.
pub struct Store {
    context: Arc<Context>,
    files: Files,
    clock: Arc<dyn Clock>,
    observer: Option<CommitObserver>,
    /// Held by the one writer, and by whoever opens the database again.
    writer: Mutex<Writer>,
    /// `None` from a failed commit until the database is open again. Locked exclusively only by
    /// who holds `writer`, and never for the length of a transaction.
    database: RwLock<Option<Database>>,
}

/// What the next writer must know of the last one.
#[derive(Default)]
struct Writer {
    unsettled: Option<Unsettled>,
}

/// A commit that failed, until it is known not to stand in the file.
struct Unsettled {
    /// The number it had.
    commit: u64,
    /// How to take it back.
    undo: Undo,
}

impl Store {
    /// Opens the database of `options`, makes it if there is none, migrates it if it is older.
    ///
    /// Refused, with an error of its own each: a file that is no database, is damaged, is open
    /// elsewhere, lets others in, was written by a newer version, or belongs to another master
    /// key. A new database appears whole or not at all.
    pub fn open(
        options: StoreOptions,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StoreError> {
        let files = Files::new(&options, CURRENT);
        Self::open_files(options, files, clock, entropy)
    }

    fn open_files(
        options: StoreOptions,
        files: Files,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StoreError> {
        let database = files.open_or_create()?;
        let context = Context { path: options.path, sealer: options.master_key.sealer(), entropy };
        Ok(Self {
            context: Arc::new(context),
            files,
            clock,
            observer: options.observer,
            writer: Mutex::default(),
            database: RwLock::new(Some(database)),
        })
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.context.path
    }

    /// Runs `f` over a consistent view of the database. Never waits for a writer, except while the
    /// database is opened again after a failed commit; that ends a view early, with
    /// [`StoreError::Closed`].
    pub fn read<T>(
        &self,
        f: impl FnOnce(&ReadTx) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let tx = match self.begin_read()? {
            Some(tx) => tx,
            None => {
                self.ensure_open(&mut self.lock_writer())?;
                self.begin_read()?
                    .ok_or_else(|| StoreError::Closed { path: self.context.path.clone() })?
            }
        };
        f(&ReadTx::new(Arc::clone(&self.context), tx))
    }

    /// Runs `f` in one write transaction, after any other writer: committed, and on the disk, if
    /// `f` returns `Ok`; without a trace if it returns an error or panics, or the commit fails.
    ///
    /// A transaction that changed nothing costs no commit. `f` must not call the store.
    pub fn write<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&mut WriteTx) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut writer = self.lock_writer();
        self.ensure_open(&mut writer)?;
        let mut tx = WriteTx::new(Arc::clone(&self.context), self.begin_write(&mut writer)?);
        let value = f(&mut tx)?;
        self.commit(&mut writer, tx)?;
        Ok(value)
    }

    /// A panic in a writer's closure leaves nothing half done behind: its transaction is aborted
    /// when dropped, and [`Writer`] is changed only between transactions.
    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if the database is closed.
    fn begin_read(&self) -> Result<Option<redb::ReadTransaction>, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let tx = database.as_ref().map(Database::begin_read).transpose();
        tx.map_err(|error| self.context.failed("read", error))
    }

    /// Begins a write; opens the database again first if a failure outside a commit (an abort
    /// that could not read, say) made redb refuse further writes.
    fn begin_write(&self, writer: &mut Writer) -> Result<redb::WriteTransaction, StoreError> {
        if let Some(tx) = self.try_begin_write()? {
            return Ok(tx);
        }
        self.close();
        self.ensure_open(writer)?;
        self.try_begin_write()?
            .ok_or_else(|| StoreError::Closed { path: self.context.path.clone() })
    }

    /// `None` if redb wants the database to be opened again.
    fn try_begin_write(&self) -> Result<Option<redb::WriteTransaction>, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let tx = database.as_ref().map(tx::begin_write).transpose();
        match tx {
            Ok(tx) => Ok(tx),
            Err(redb::Error::PreviousIo | redb::Error::DatabaseClosed) => Ok(None),
            Err(error) => Err(self.context.failed("written", error)),
        }
    }

    /// Commits what `tx` changed, if anything; on failure opens the database again.
    fn commit(&self, writer: &mut Writer, tx: WriteTx) -> Result<(), StoreError> {
        let Some(ready) = tx.prepare_commit()? else {
            return Ok(());
        };
        let Err(error) = self.observed(|| ready.tx.commit()) else {
            return Ok(());
        };
        writer.unsettled = Some(Unsettled { commit: ready.commit, undo: ready.undo });
        self.close();
        let path = self.context.path.clone();
        let detail = error.to_string();
        Err(match self.ensure_open(writer) {
            Ok(()) => StoreError::CommitFailed { path, detail },
            Err(reopen) => StoreError::CommitUnsettled { path, detail, reopen: reopen.to_string() },
        })
    }

    /// Makes one commit and reports how it went.
    fn observed(
        &self,
        commit: impl FnOnce() -> Result<(), redb::CommitError>,
    ) -> Result<(), redb::CommitError> {
        let started = self.clock.now().mono;
        let result = commit();
        if let Some(observer) = &self.observer {
            observer(CommitObservation {
                duration: elapsed(started, self.clock.now().mono),
                committed: result.is_ok(),
            });
        }
        result
    }

    fn close(&self) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Its result says nothing new: the failure that led here is being reported.
        drop(database.take());
    }

    /// Opens the database if it is closed, and settles the failed commit before anyone sees it.
    fn ensure_open(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return Ok(());
        }
        let database = self.files.open_existing()?;
        if let Some(unsettled) = &writer.unsettled {
            self.settle(&database, unsettled)?;
            writer.unsettled = None;
        }
        *slot = Some(database);
        Ok(())
    }

    /// Makes sure that the failed commit does not stand in the file.
    ///
    /// A two-phase commit can fail in its first phase, and then the file still holds the state
    /// before it; or in the last write of the second, and then it may stand. The commit number
    /// tells. If it stands (or an earlier attempt to take it back does) a further commit is made,
    /// so that the disk has confirmed the state without it.
    fn settle(&self, database: &Database, unsettled: &Unsettled) -> Result<(), StoreError> {
        let failed = |error| self.context.failed("written", error);
        let tx = tx::begin_write(database).map_err(failed)?;
        let found = tx::commit_number(&tx, &self.context.path)?;
        if found < unsettled.commit {
            return tx.abort().map_err(|error| failed(error.into()));
        }
        if found == unsettled.commit {
            unsettled.undo.apply(&tx, &self.context)?;
        }
        tx::set_commit_number(&tx, found.saturating_add(1), &self.context.path)?;
        self.observed(|| tx.commit()).map_err(|error| failed(error.into()))
    }
}

fn elapsed(from: Monotonic, to: Monotonic) -> Duration {
    Duration::from_micros(to.us().saturating_sub(from.us()))
}
