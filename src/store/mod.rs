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

mod acl;
pub mod audit;
pub mod backup;
mod error;
mod file;
mod group;
mod inspect;
pub mod master_key;
pub mod operators;
mod read;
pub mod records;
mod schema;
mod search;
mod space;
#[cfg(test)]
mod testing;
mod usage;
mod write;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use redb::{Database, ReadableDatabase as _};

pub use self::error::StoreError;
pub use self::inspect::{Contents, Inspection, inspect};
pub use self::operators::{OidcSubject, OperatorRecord, PasswordHash, SessionRecord, TotpRecord};
pub use self::read::ReadTx;
pub use self::records::{
    AdminTokenRecord, AssertionKeyRecord, IdempotencyRecord, KeyRecord, KeySetRecord, LimitRecord,
    Role, RoleError, ShopRecord, SigningKeyRecord, TokenRecord,
};
pub use self::search::{FoundShops, SearchBudget, Words};
pub use self::space::Space;
pub use self::usage::Steps;
pub use self::write::{PRUNE_MAX, WriteTx};

use self::file::Files;
use self::group::Job;
use self::read::Context;
use self::schema::CURRENT;
use self::write::Undo;
use crate::clock::Clock;
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
    /// Writes that wait to share a commit; bounded by the threads that wait for them.
    queue: Mutex<VecDeque<Job>>,
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
        let context = Context {
            path: options.path,
            sealer: options.master_key.sealer(),
            chain: options.master_key.chain_key(),
            entropy,
            broken: AtomicBool::new(false),
        };
        Ok(Self {
            context: Arc::new(context),
            files,
            clock,
            observer: options.observer,
            queue: Mutex::default(),
            writer: Mutex::default(),
            database: RwLock::new(Some(database)),
        })
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.context.path
    }

    /// How much room the database takes, and how much there is.
    ///
    /// # Errors
    ///
    /// If the system cannot say.
    pub fn space(&self) -> io::Result<Space> {
        Space::of(self.path())
    }

    /// Runs `f` over a consistent view of the database. Never waits for a writer, except while the
    /// database is opened again after a failed commit; that ends a view early, with
    /// [`StoreError::Closed`].
    pub fn read<T>(
        &self,
        f: impl FnOnce(&ReadTx) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.context.broken.load(Ordering::Relaxed) || !self.is_open() {
            self.recover(&mut self.lock_writer())?;
        }
        let tx = self.begin_read()?;
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
        self.recover(&mut writer)?;
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

    fn is_open(&self) -> bool {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.is_some()
    }

    fn begin_read(&self) -> Result<redb::ReadTransaction, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| self.closed())?;
        let tx = database.begin_read();
        tx.map_err(|error| self.context.failed("read", error))
    }

    /// Begins a write; once more on a database opened again, if redb refuses the first time
    /// because of a failure that was not noticed here.
    fn begin_write(&self, writer: &mut Writer) -> Result<redb::WriteTransaction, StoreError> {
        self.try_begin_write().or_else(|_| {
            self.close();
            self.ensure_open(writer)?;
            self.try_begin_write()
        })
    }

    fn try_begin_write(&self) -> Result<redb::WriteTransaction, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| self.closed())?;
        let tx = write::begin_write(database);
        tx.map_err(|error| self.context.failed("written", error))
    }

    fn closed(&self) -> StoreError {
        StoreError::Closed { path: self.context.path.clone() }
    }

    /// Makes sure that the database is open and answers.
    fn recover(&self, writer: &mut Writer) -> Result<(), StoreError> {
        if self.context.broken.swap(false, Ordering::Relaxed) {
            self.close();
        }
        self.ensure_open(writer)
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
                duration: self.clock.now().mono.since(started),
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
        self.context.broken.store(false, Ordering::Relaxed);
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
        let tx = write::begin_write(database).map_err(failed)?;
        let found = write::commit_number(&tx, &self.context.path)?;
        if found < unsettled.commit {
            return tx.abort().map_err(|error| failed(error.into()));
        }
        if found == unsettled.commit {
            unsettled.undo.apply(&tx, &self.context)?;
        }
        write::set_commit_number(&tx, found.saturating_add(1), &self.context.path)?;
        self.observed(|| tx.commit()).map_err(|error| failed(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::testing::{self, Bench, Disk, KEY, audit_record, key, shop, token};
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{KeyId, ShopId};

    fn id(text: &str) -> ShopId {
        ShopId::parse(text).unwrap()
    }

    /// A change of the workload that the fault tests run.
    type Change = fn(&mut WriteTx) -> Result<(), StoreError>;

    /// Creation, rotation, revocation, deletion: every kind of write that is acknowledged.
    const WORKLOAD: [Change; 6] = [
        |tx| {
            tx.put_shop(&shop("one"))?;
            tx.put_shop(&shop("two"))?;
            tx.append_audit(&audit_record(1)).map(drop)
        },
        |tx| {
            (0..30).try_for_each(|n| tx.put_key(&key(n, "one")))?;
            tx.put_key(&key(100, "two"))?;
            tx.append_audit(&audit_record(2)).map(drop)
        },
        |tx| {
            (0..10).try_for_each(|n| tx.put_token(&token(n.into(), "one", 5_000 + n)))?;
            tx.append_audit(&audit_record(3)).map(drop)
        },
        |tx| {
            let mut old = tx.key(KeyId(7))?.unwrap();
            old.replaced_by = Some(KeyId(40));
            tx.put_key(&old)?;
            tx.put_key(&key(40, "one"))?;
            tx.append_audit(&audit_record(4))?;
            tx.delete_key(KeyId(8)).map(drop)
        },
        |tx| {
            tx.prune_tokens(Timestamp::from_unix_s(5_003))?;
            tx.prune_audit(audit_record(3).at, audit_record(9).at)?;
            tx.touch_keys(&[(KeyId(3), Timestamp::from_unix_s(9))])
        },
        |tx| {
            tx.append_audit(&audit_record(5))?;
            tx.delete_shop(&id("one")).map(drop)
        },
    ];

    /// The state after each number of changes of the workload.
    fn states() -> Vec<testing::Dump> {
        let bench = Bench::in_memory();
        let mut states = vec![testing::dump(&bench.store)];
        for change in WORKLOAD {
            bench.store.write(change).unwrap();
            states.push(testing::dump(&bench.store));
        }
        states
    }

    #[test]
    fn a_disk_that_fails_at_any_operation_loses_nothing_acknowledged() {
        let states = states();
        let operations = {
            let bench = Bench::in_memory();
            for change in WORKLOAD {
                bench.store.write(change).unwrap();
            }
            bench.disk.operations()
        };
        assert!(operations > 50, "{operations}");
        let (mut settled, mut unsettled) = (0, 0);
        for at in 0..operations {
            for length in [1, 4, 40] {
                let bench = Bench::in_memory();
                bench.disk.fail(at, length);
                for (n, change) in WORKLOAD.iter().enumerate() {
                    let mut failures = 0;
                    while let Err(error) = bench.store.write(change) {
                        let commit = matches!(error, StoreError::CommitFailed { .. });
                        let reopen = matches!(error, StoreError::CommitUnsettled { .. });
                        let other = matches!(error, StoreError::Io { .. });
                        assert!(commit || reopen || other, "at {at}, {length} long: {error}");
                        settled += u32::from(commit);
                        unsettled += u32::from(reopen);
                        failures += 1;
                        assert!(failures < 200, "at {at}, {length} long: never again writable");
                        // Whatever the disk does, who can read sees the state before the write.
                        if let Some(seen) = testing::try_dump(&bench.store) {
                            assert!(seen == states[n], "at {at}, {length} long, change {n}");
                        }
                    }
                    let seen = testing::try_dump(&bench.store);
                    assert!(seen.is_none_or(|seen| seen == states[n + 1]), "at {at}: {n}");
                }
                bench.disk.heal();
                assert!(testing::dump(&bench.store) == states[WORKLOAD.len()]);
                let again = bench.reopen();
                assert!(testing::dump(&again.store) == states[WORKLOAD.len()]);
            }
        }
        assert!(settled > 0 && unsettled > 0, "{settled} {unsettled}");
    }

    #[test]
    fn a_power_cut_at_any_operation_loses_nothing_acknowledged_and_leaves_nothing_half() {
        let states = states();
        let mut at = 0;
        loop {
            let bench = Bench::in_memory();
            bench.disk.fail(at, u64::MAX);
            let mut acknowledged = 0;
            while acknowledged < WORKLOAD.len() {
                if bench.store.write(WORKLOAD[acknowledged]).is_err() {
                    break;
                }
                acknowledged += 1;
            }
            for seed in 0..3 {
                let again = Bench::on(bench.disk.after_power_cut(at * 3 + seed));
                let seen = testing::dump(&again.store);
                let whole = seen == states[acknowledged]
                    || states.get(acknowledged + 1).is_some_and(|next| seen == *next);
                assert!(whole, "cut at {at}, {acknowledged} acknowledged");
            }
            if acknowledged == WORKLOAD.len() {
                break;
            }
            at += 1;
        }
        assert!(at > 50, "{at}");
    }

    #[test]
    fn a_read_error_is_an_error_once_and_no_more_when_the_disk_is_well() {
        let bench = Bench::in_memory();
        bench.store.write(WORKLOAD[0]).unwrap();
        let bench = bench.reopen();
        bench.disk.fail_reads(true);
        assert!(bench.store.read(|tx| tx.shop(&id("one"))).is_err());
        assert!(bench.store.write(WORKLOAD[1]).is_err());
        bench.disk.fail_reads(false);
        assert!(bench.store.read(|tx| tx.shop(&id("one"))).unwrap().is_some());
        bench.store.write(WORKLOAD[1]).unwrap();
        assert!(bench.store.read(|tx| tx.key(KeyId(1))).unwrap().is_some());
    }

    #[test]
    fn an_error_or_a_panic_in_a_write_leaves_no_trace() {
        let bench = Bench::in_memory();
        let before = testing::dump(&bench.store);
        let result: Result<(), StoreError> = bench.store.write(|tx| {
            tx.put_shop(&shop("one"))?;
            tx.put_key(&key(1, "missing"))
        });
        assert_eq!(result, Err(StoreError::NoSuchShop { shop: id("missing") }));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            bench.store.write(|tx| -> Result<(), StoreError> {
                tx.put_shop(&shop("one"))?;
                panic!("a defect");
            })
        }));
        assert!(panicked.is_err());
        assert!(testing::dump(&bench.store) == before);
        bench.store.write(WORKLOAD[0]).unwrap();
        assert_eq!(bench.store.read(|tx| tx.shops(None, 9)).unwrap().len(), 2);
    }

    #[test]
    fn a_write_that_changes_nothing_costs_no_commit_and_others_are_observed() {
        let disk = Disk::new();
        let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let seen = Arc::clone(&counts);
        let mut options = StoreOptions::new(disk.path(), testing::master_key(1));
        options.observer = Some(Arc::new(move |commit: CommitObservation| {
            seen[usize::from(commit.committed)].fetch_add(1, Ordering::Relaxed);
        }));
        let store = disk.open(options).unwrap();
        assert_eq!(store.write(|tx| tx.delete_shop(&id("none"))), Ok(false));
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 0));
        store.write(WORKLOAD[0]).unwrap();
        assert_eq!(counts[1].load(Ordering::Relaxed), 1);
        let commit_failed = (0..100).any(|at| {
            disk.fail(disk.operations() + at, 1);
            matches!(store.write(WORKLOAD[0]), Err(StoreError::CommitFailed { .. }))
        });
        assert!(commit_failed);
        assert_eq!(counts[0].load(Ordering::Relaxed), 1);
    }

    #[test]
    fn many_writers_and_readers_at_once() {
        let bench = Bench::in_memory();
        bench.store.write(|tx| tx.put_shop(&shop("one"))).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let store = &bench.store;
                scope.spawn(move || {
                    for n in 0..25 {
                        store.write(|tx| tx.put_key(&key(thread * 100 + n, "one"))).unwrap();
                        let mine = store.read(|tx| tx.key(KeyId(thread * 100 + n))).unwrap();
                        assert!(mine.is_some());
                    }
                });
            }
        });
        let keys = bench.store.read(|tx| tx.keys_of_shop(&id("one"), None, 1_000)).unwrap();
        assert_eq!(keys.len(), 100);
    }

    #[test]
    fn small_writes_do_not_grow_the_file_without_bound() {
        let bench = Bench::in_memory();
        bench.store.write(WORKLOAD[0]).unwrap();
        bench.store.write(|tx| (0..100).try_for_each(|n| tx.put_key(&key(n, "one")))).unwrap();
        for round in 0..2_000 {
            let used = [(KeyId(round % 100), Timestamp::from_unix_s(round))];
            bench.store.write(|tx| tx.touch_keys(&used)).unwrap();
        }
        let bytes = bench.disk.len();
        assert!(bytes < 4 << 20, "{bytes} bytes");
    }

    #[test]
    fn real_files_keep_what_was_written_and_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/also made/latchkey.redb");
        let open = || testing::open_file(&path, testing::master_key(1));
        let store = open().unwrap();
        for change in WORKLOAD.iter().take(3) {
            store.write(change).unwrap();
        }
        let before = testing::dump(&store);
        assert_eq!(open().err(), Some(StoreError::Locked { path: path.clone() }));
        drop(store);
        assert!(testing::dump(&open().unwrap()) == before);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(KEY.len()).any(|window| window == KEY));
    }

    #[derive(Debug, Clone)]
    enum Op {
        Shop(u8),
        DeleteShop(u8),
        Key(u64, u8),
        DeleteKey(u64),
        Token(u128, u8, u64),
        Prune(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            (0..4_u8).prop_map(Op::Shop),
            (0..4_u8).prop_map(Op::DeleteShop),
            (0..20_u64, 0..4_u8).prop_map(|(key, shop)| Op::Key(key, shop)),
            (0..20_u64).prop_map(Op::DeleteKey),
            (0..20_u128, 0..4_u8, 0..50_u64).prop_map(|(id, shop, at)| Op::Token(id, shop, at)),
            (0..50_u64).prop_map(Op::Prune),
        ];
        proptest::collection::vec(op, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a naive model: two maps, searched from end to end.
        #[test]
        fn indexes_agree_with_a_naive_model(ops in ops()) {
            use std::collections::{BTreeMap, BTreeSet};
            // Of such names one begins another: an index must not mix them up.
            let name = |n: u8| ["a", "a-", "a0", "aa"][usize::from(n)];
            let mut shops = BTreeSet::new();
            let mut keys: BTreeMap<u64, u8> = BTreeMap::new();
            let mut tokens: BTreeMap<u128, (u8, u64)> = BTreeMap::new();
            let bench = Bench::in_memory();
            bench.store.write(|tx| {
                for op in ops {
                    match op {
                        Op::Shop(n) => {
                            tx.put_shop(&shop(name(n)))?;
                            shops.insert(n);
                        }
                        Op::DeleteShop(n) => {
                            assert_eq!(tx.delete_shop(&id(name(n)))?, shops.remove(&n));
                            keys.retain(|_, of| *of != n);
                            tokens.retain(|_, of| of.0 != n);
                        }
                        Op::Key(k, n) => {
                            let put = tx.put_key(&key(k, name(n)));
                            assert_eq!(put.is_ok(), shops.contains(&n));
                            put.is_ok().then(|| keys.insert(k, n));
                        }
                        Op::DeleteKey(k) => {
                            assert_eq!(tx.delete_key(KeyId(k))?, keys.remove(&k).is_some());
                        }
                        Op::Token(t, n, at) => {
                            let put = tx.put_token(&token(t, name(n), at));
                            assert_eq!(put.is_ok(), shops.contains(&n));
                            put.is_ok().then(|| tokens.insert(t, (n, at)));
                        }
                        Op::Prune(now) => {
                            let before = tokens.len();
                            tokens.retain(|_, (_, at)| *at > now);
                            let pruned = tx.prune_tokens(Timestamp::from_unix_s(now))?;
                            assert_eq!(pruned, before - tokens.len());
                        }
                    }
                }
                Ok::<(), StoreError>(())
            }).unwrap();
            bench.store.read(|tx| {
                for n in 0..4 {
                    let (mut found, mut after) = (Vec::new(), None);
                    loop {
                        let page = tx.keys_of_shop(&id(name(n)), after, 2)?;
                        let Some(last) = page.last() else { break };
                        after = Some(last.id);
                        found.extend(page.iter().map(|key| key.id.0));
                    }
                    let want: Vec<u64> =
                        keys.iter().filter(|(_, of)| **of == n).map(|(k, _)| *k).collect();
                    assert_eq!(found, want);
                    let found = tx.tokens_of_shop(&id(name(n)), None, 1_000)?;
                    let found: Vec<u128> = found.iter().map(|token| token.id.0).collect();
                    let want: Vec<u128> =
                        tokens.iter().filter(|(_, of)| of.0 == n).map(|(t, _)| *t).collect();
                    assert_eq!(found, want);
                }
                let first = keys.keys().next().copied();
                let mut visited = Vec::new();
                tx.for_each_key(|key| visited.push(key.id.0))?;
                assert_eq!(visited.first().copied(), first);
                assert_eq!(visited.len(), keys.len());
                let mut visited = 0;
                tx.for_each_token(|token| {
                    assert!(tokens.contains_key(&token.id.0));
                    visited += 1;
                })?;
                assert_eq!(visited, tokens.len());
                Ok(())
            }).unwrap();
        }
    }
}
