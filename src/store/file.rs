//! The database as a file: made whole or not at all, checked before it is trusted, copied before
//! it is migrated.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase as _, StorageBackend};
use subtle::ConstantTimeEq as _;

use super::StoreOptions;
use super::error::StoreError;
use super::schema::{self, META, META_CHECK, META_SCHEMA, Schema};
use super::write;
use crate::secret::{Purpose, SecretBytes};

/// Bits of a mode that let others do harm: the group may read (to back the file up; what is
/// secret in it is digested or sealed), nobody else may do anything.
const MODE_REFUSED: u32 = 0o027;

/// Opens a file as a database. Tests put a faulty disk here.
pub(super) type Opener =
    Arc<dyn Fn(&mut Builder, File) -> Result<Database, DatabaseError> + Send + Sync>;

/// How to open the database, the first time and after a failure.
pub(super) struct Files {
    path: PathBuf,
    cache_bytes_max: usize,
    check: SecretBytes<32>,
    schema: Schema,
    opener: Opener,
}

/// What a database says of itself.
struct Found {
    schema: u32,
    check: Option<Vec<u8>>,
}

impl Files {
    pub(super) fn new(options: &StoreOptions, schema: Schema) -> Self {
        Self {
            path: options.path.clone(),
            cache_bytes_max: options.cache_bytes_max,
            check: options.master_key.derive(Purpose::Check),
            schema,
            opener: Arc::new(|builder, file| builder.create_with_backend(FileBackend::new(file)?)),
        }
    }

    /// Puts `opener` in the place of the plain file.
    #[cfg(test)]
    pub(super) fn with_opener(mut self, opener: Opener) -> Self {
        self.opener = opener;
        self
    }

    /// Opens the database; makes it, with its directory, if there is none.
    pub(super) fn open_or_create(&self) -> Result<Database, StoreError> {
        match self.path.try_exists() {
            Ok(true) => {}
            Ok(false) => self.create()?,
            Err(error) => return Err(self.io_error("found", &error)),
        }
        self.open_existing()
    }

    /// Opens the database, which must exist, and migrates it if it is older.
    pub(super) fn open_existing(&self) -> Result<Database, StoreError> {
        let database = self.open_checked()?;
        let found = self.inspect(&database)?;
        if found.schema == self.schema.version {
            return Ok(database);
        }
        // The copy is taken of the closed file: an open one is no consistent copy.
        drop(database);
        self.back_up(found.schema)?;
        let database = self.open_checked()?;
        let found = self.inspect(&database)?;
        self.migrate(&database, found.schema)?;
        Ok(database)
    }

    /// Opens the file after a look at what it is and whom it lets in.
    fn open_checked(&self) -> Result<Database, StoreError> {
        let (file, _) = self.open_with(OpenOptions::new().read(true).write(true))?;
        self.open_file(file)
    }

    /// Opens the file for reading alone, after the same look at it; and how long it is.
    pub(super) fn open_to_look(&self) -> Result<(File, u64), StoreError> {
        self.open_with(OpenOptions::new().read(true))
    }

    fn open_with(&self, options: &OpenOptions) -> Result<(File, u64), StoreError> {
        let file = options.open(&self.path);
        let file = file.map_err(|error| self.io_error("opened", &error))?;
        let metadata = file.metadata();
        let metadata = metadata.map_err(|error| self.io_error("opened", &error))?;
        if !metadata.is_file() {
            return Err(self.not_a_database("it is not a regular file"));
        }
        // redb would make a new database of an empty file: and so turn a loss into a silent one.
        if metadata.len() == 0 {
            return Err(self.not_a_database("it is empty"));
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & MODE_REFUSED != 0 {
            return Err(StoreError::Mode { path: self.path.clone(), mode });
        }
        Ok((file, metadata.len()))
    }

    fn open_file(&self, file: File) -> Result<Database, StoreError> {
        (self.opener)(&mut self.builder(), file)
            .map_err(|error| StoreError::from_redb(&self.path, "opened", error.into()))
    }

    /// Opens what `backend` holds, checked as the file would be.
    pub(super) fn open_backend(
        &self,
        backend: impl StorageBackend,
    ) -> Result<Database, StoreError> {
        let opened = self.builder().create_with_backend(backend);
        opened.map_err(|error| StoreError::from_redb(&self.path, "opened", error.into()))
    }

    fn builder(&self) -> Builder {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes_max);
        // Walks the file once, and in return a damaged one is an error here, not a surprise later.
        builder.set_check_integrity_on_open(true);
        builder
    }

    /// The schema of `database`, which is ours and belongs to the master key.
    pub(super) fn schema_of(&self, database: &Database) -> Result<u32, StoreError> {
        self.inspect(database).map(|found| found.schema)
    }

    /// Reads what the database says of itself and refuses one that is not for us.
    fn inspect(&self, database: &Database) -> Result<Found, StoreError> {
        let found = self.read_meta(database)?;
        if found.schema > self.schema.version {
            return Err(StoreError::SchemaNewer {
                path: self.path.clone(),
                found: found.schema,
                known: self.schema.version,
            });
        }
        let check = found.check.as_deref().unwrap_or_default();
        if !bool::from(check.ct_eq(self.check.expose().as_slice())) {
            return Err(StoreError::WrongMasterKey { path: self.path.clone() });
        }
        Ok(found)
    }

    fn read_meta(&self, database: &Database) -> Result<Found, StoreError> {
        let failed = |error| StoreError::from_redb(&self.path, "read", error);
        let tx = database.begin_read().map_err(|error| failed(error.into()))?;
        let meta = tx.open_table(META).map_err(|error| {
            if let redb::TableError::Storage(error) = error {
                return failed(error.into());
            }
            self.not_a_database(&error.to_string())
        })?;
        let value = |key| {
            let found = redb::ReadableTable::get(&meta, key);
            let found = found.map_err(|error| failed(error.into()))?;
            Ok(found.map(|bytes| bytes.value().to_vec()))
        };
        let schema = value(META_SCHEMA)?.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let schema = schema.ok_or_else(|| self.not_a_database("it has no schema version"))?;
        Ok(Found { schema: u32::from_be_bytes(schema), check: value(META_CHECK)? })
    }

    fn migrate(&self, database: &Database, from: u32) -> Result<(), StoreError> {
        let failed =
            |detail: String| StoreError::Migration { path: self.path.clone(), from, detail };
        let tx = write::begin_write(database).map_err(|error| failed(error.to_string()))?;
        let steps = self.schema.migrate(&tx, &self.path, from);
        steps.map_err(|error| failed(error.to_string()))?;
        tx.commit().map_err(|error| failed(error.to_string()))
    }

    /// Copies the closed file to `<path>.v<version>.bak`.
    fn back_up(&self, version: u32) -> Result<(), StoreError> {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".v{version}.bak"));
        let copied = write_whole(UNFINISHED, Path::new(&name), Replace::Yes, |to| {
            io::copy(&mut File::open(&self.path)?, to).map(drop)
        });
        copied.map_err(|error| StoreError::Migration {
            path: self.path.clone(),
            from: version,
            detail: format!("no copy could be made first: {error}"),
        })
    }

    /// Makes an empty database. If another process was first, its database is the database.
    fn create(&self) -> Result<(), StoreError> {
        let mut failure = None;
        let made = write_whole(UNFINISHED, &self.path, Replace::No, |file| {
            let database = self.open_file(file.try_clone()?);
            database.and_then(|database| self.initialize(&database)).map_err(|error| {
                failure = Some(error);
                io::Error::other("the empty database could not be written")
            })
        });
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failure.unwrap_or_else(|| self.io_error("made", &error)))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn initialize(&self, database: &Database) -> Result<(), StoreError> {
        let failed = |error| StoreError::from_redb(&self.path, "made", error);
        let tx = write::begin_write(database).map_err(failed)?;
        for table in schema::TABLES {
            drop(schema::open(&tx, table, &self.path)?);
        }
        let mut meta = schema::open(&tx, META, &self.path)?;
        let version = self.schema.version.to_be_bytes();
        for (key, value) in
            [(META_SCHEMA, version.as_slice()), (META_CHECK, self.check.expose().as_slice())]
        {
            meta.insert(key, value).map_err(|error| failed(error.into()))?;
        }
        drop(meta);
        tx.commit().map_err(|error| failed(error.into()))
    }

    fn io_error(&self, action: &'static str, error: &io::Error) -> StoreError {
        StoreError::from_io(&self.path, action, error)
    }

    fn not_a_database(&self, detail: &str) -> StoreError {
        StoreError::NotADatabase { path: self.path.clone(), detail: detail.to_owned() }
    }
}

/// What names of unfinished files begin with.
const UNFINISHED: &str = ".latchkey-";

/// Whether a file made whole may take the place of one that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replace {
    Yes,
    No,
}

/// Makes `path` with what `fill` writes, mode 0600; an error if it exists. It appears whole, and
/// on the disk, or not at all.
pub(super) fn create_whole(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    write_whole(UNFINISHED, path, Replace::No, fill)
}

/// The same; what is not whole yet has a name that begins with `prefix`.
pub(super) fn create_whole_as(
    prefix: &str,
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    write_whole(prefix, path, Replace::No, fill)
}

fn write_whole(
    prefix: &str,
    path: &Path,
    replace: Replace,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Made with O_EXCL and mode 0600, removed again when anything below fails.
    let mut made = tempfile::Builder::new().prefix(prefix).tempfile_in(directory)?;
    fill(made.as_file_mut())?;
    made.as_file().sync_all()?;
    match replace {
        Replace::Yes => made.persist(path),
        Replace::No => made.persist_noclobber(path),
    }
    .map_err(|error| error.error)?;
    // Without this the name may be gone after a power failure, though the content is there.
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use redb::TableHandle as _;

    use super::super::schema::{CURRENT, Step, Table};
    use super::super::testing::{self, key, made, master_key, shop, token};
    use super::super::{ReadTx, Store, StoreOptions};
    use super::*;
    use crate::clock::ManualClock;
    use crate::id::ShopId;
    use crate::secret::SystemEntropy;

    struct Place {
        _directory: tempfile::TempDir,
        path: PathBuf,
    }

    impl Place {
        fn empty() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("latchkey.redb");
            Self { _directory: directory, path }
        }

        /// A database with something in it.
        fn filled() -> (Self, testing::Dump) {
            let place = Self::empty();
            let store = place.open().unwrap();
            let filled: Result<(), StoreError> = store.write(|tx| {
                tx.put_shop(&shop("one"))?;
                (0..200).try_for_each(|n| tx.put_key(&key(n, "one")))?;
                (0..50).try_for_each(|n| tx.put_token(&token(n, "one", 9)))?;
                tx.put_idempotency(&[5; 32], &made(6))
            });
            filled.unwrap();
            let dump = testing::dump(&store);
            (place, dump)
        }

        fn open(&self) -> Result<Store, StoreError> {
            testing::open_file(&self.path, master_key(1))
        }

        /// Opens it as a build whose schema is `schema` would.
        fn open_as(&self, schema: Schema) -> Result<Store, StoreError> {
            let options = StoreOptions::new(&self.path, master_key(1));
            let files = Files::new(&options, schema);
            let clock = Arc::new(ManualClock::default());
            Store::open_files(options, files, clock, Arc::new(SystemEntropy::new()))
        }

        /// Changes the file behind the store's back.
        fn tamper(&self, change: impl FnOnce(&redb::WriteTransaction)) {
            let database = Database::open(&self.path).unwrap();
            let tx = database.begin_write().unwrap();
            change(&tx);
            tx.commit().unwrap();
        }

        fn set_schema(&self, version: u32) {
            self.tamper(|tx| {
                let mut meta = tx.open_table(META).unwrap();
                meta.insert(META_SCHEMA, version.to_be_bytes().as_slice()).unwrap();
            });
        }

        /// Makes of a current database one of schema 0.
        fn make_schema_0(&self) {
            let derived = [
                schema::KEYS_BY_SHOP,
                schema::TOKENS_BY_SHOP,
                schema::TOKENS_BY_EXPIRY,
                schema::IDEMPOTENCY_BY_AGE,
            ];
            self.make_schema_1();
            self.tamper(|tx| {
                assert!(derived.iter().all(|table| tx.delete_table(*table).unwrap()));
            });
            self.set_schema(0);
        }

        /// Makes of a current database one of schema 1.
        fn make_schema_1(&self) {
            self.tamper(|tx| {
                assert!(tx.delete_table(schema::ASSERTION_KEYS).unwrap());
            });
            self.set_schema(1);
        }

        fn backup(&self, version: u32) -> PathBuf {
            PathBuf::from(format!("{}.v{version}.bak", self.path.display()))
        }

        fn write(&self, bytes: &[u8]) {
            fs::write(&self.path, bytes).unwrap();
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).unwrap();
        }

        fn refused(&self) -> StoreError {
            let before = fs::read(&self.path).unwrap();
            let error = self.open().err().unwrap();
            let text = error.to_string();
            assert!(text.contains(&*self.path.to_string_lossy()), "{text}");
            assert_eq!(fs::read(&self.path).unwrap(), before, "{text}");
            error
        }
    }

    #[test]
    fn what_is_no_database_is_refused_and_left_alone() {
        let place = Place::empty();
        let zeroes = vec![0; 100_000];
        let files: [&[u8]; 4] = [b"", b"SQLite format 3\0", b"x", &zeroes];
        for bytes in files {
            place.write(bytes);
            let error = place.refused();
            assert!(matches!(error, StoreError::NotADatabase { .. }), "{error}");
        }
        fs::remove_file(&place.path).unwrap();
        fs::create_dir(&place.path).unwrap();
        assert!(place.open().is_err());
    }

    #[test]
    fn a_redb_file_of_another_program_is_refused() {
        let place = Place::empty();
        place.write(b"");
        let database = Database::create(&place.path).unwrap();
        let tx = database.begin_write().unwrap();
        drop(tx.open_table(Table::new("theirs")).unwrap());
        tx.commit().unwrap();
        drop(database);
        let error = place.open().err().unwrap();
        assert!(matches!(error, StoreError::NotADatabase { .. }), "{error}");
    }

    #[test]
    fn a_damaged_file_is_an_error_never_a_panic_or_other_content() {
        let (place, dump) = Place::filled();
        let whole = fs::read(&place.path).unwrap();
        let step = whole.len() / 61;
        let mut refused = 0;
        for at in (0..whole.len()).step_by(step).chain(0..320) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            place.write(&bytes);
            match place.open() {
                Ok(store) => assert!(testing::dump(&store) == dump, "byte {at}"),
                Err(StoreError::Corrupted { .. } | StoreError::NotADatabase { .. }) => refused += 1,
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
        assert!(refused > 10, "{refused}");
    }

    #[test]
    fn another_master_key_is_refused() {
        let (place, dump) = Place::filled();
        let error = testing::open_file(&place.path, master_key(2)).err().unwrap();
        assert_eq!(error, StoreError::WrongMasterKey { path: place.path.clone() });
        assert!(testing::dump(&place.open().unwrap()) == dump);
        place.tamper(|tx| {
            tx.open_table(META).unwrap().remove(META_CHECK).unwrap();
        });
        assert!(matches!(place.open(), Err(StoreError::WrongMasterKey { .. })));
    }

    #[test]
    fn a_file_that_lets_others_in_is_refused() {
        let (place, _) = Place::filled();
        for (mode, refused) in
            [(0o604, true), (0o620, true), (0o666, true), (0o640, false), (0o600, false)]
        {
            fs::set_permissions(&place.path, fs::Permissions::from_mode(mode)).unwrap();
            let error = place.open().err();
            let path = place.path.clone();
            assert_eq!(error, refused.then_some(StoreError::Mode { path, mode }), "{mode:o}");
        }
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let (place, _) = Place::filled();
        place.set_schema(CURRENT.version + 1);
        let error = place.open().err().unwrap();
        let path = place.path.clone();
        let known = CURRENT.version;
        assert_eq!(error, StoreError::SchemaNewer { path, found: known + 1, known });
    }

    #[test]
    fn schema_1_is_migrated_after_a_copy_and_takes_assertion_keys() {
        let (place, dump) = Place::filled();
        place.make_schema_1();
        let store = place.open().unwrap();
        assert!(testing::dump(&store) == dump);
        assert!(store.read(ReadTx::assertion_keys).unwrap().is_empty());
        store.write(|tx| tx.put_assertion_key(&testing::assertion_key(1))).unwrap();
        drop(store);
        let store = place.open().unwrap();
        assert_eq!(store.read(ReadTx::assertion_keys).unwrap().len(), 1);
        drop(store);
        fs::copy(place.backup(1), &place.path).unwrap();
        assert!(testing::dump(&place.open().unwrap()) == dump);
    }

    #[test]
    fn schema_2_is_migrated_after_a_copy_and_takes_audit_entries() {
        let (place, dump) = Place::filled();
        place.tamper(|tx| {
            let tables = [
                schema::OPERATORS,
                schema::OPERATORS_BY_NAME,
                schema::SESSIONS,
                schema::AUDIT,
                schema::USAGE,
            ];
            for table in tables {
                assert!(tx.delete_table(table).unwrap());
            }
        });
        place.set_schema(2);
        let store = place.open().unwrap();
        assert!(testing::dump(&store) == dump);
        assert!(place.backup(2).exists());
        store.write(|tx| tx.append_audit(&testing::audit_record(1)).map(drop)).unwrap();
        let report = store.read(|tx| tx.verify_audit(None)).unwrap();
        assert!(report.is_intact() && report.entries == 1, "{report:?}");
    }

    #[test]
    fn schema_0_is_migrated_after_a_copy() {
        let (place, dump) = Place::filled();
        place.make_schema_0();
        let old = fs::read(&place.path).unwrap();
        let store = place.open().unwrap();
        assert!(testing::dump(&store) == dump);
        let one = ShopId::parse("one").unwrap();
        assert_eq!(store.read(|tx| tx.keys_of_shop(&one, None, 999)).unwrap().len(), 200);
        drop(store);
        let backup = place.backup(0);
        assert_eq!(backup.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        // The copy is a database of its own, and can take the place of the migrated one.
        assert_eq!(fs::read(&backup).unwrap().len(), old.len());
        fs::copy(&backup, &place.path).unwrap();
        assert!(testing::dump(&place.open().unwrap()) == dump);
        assert!(testing::dump(&place.open().unwrap()) == dump);
    }

    #[test]
    fn a_step_that_fails_leaves_the_older_database() {
        const NOW: u32 = CURRENT.version;
        const HALF: Schema = Schema {
            version: NOW + 2,
            steps: &[
                Step { from: NOW, run: |tx, path| schema::open(tx, schema::SHOPS, path).map(drop) },
                Step {
                    from: NOW + 1,
                    run: |tx, path| {
                        assert!(tx.delete_table(schema::SHOPS).unwrap());
                        Err(StoreError::Closed { path: path.to_path_buf() })
                    },
                },
            ],
        };
        let (place, dump) = Place::filled();
        let error = place.open_as(HALF).err().unwrap();
        assert!(matches!(error, StoreError::Migration { from: NOW, .. }), "{error}");
        assert!(place.backup(NOW).exists());
        assert!(testing::dump(&place.open().unwrap()) == dump);
        let error = place.open_as(Schema { version: NOW + 1, steps: &[] }).err().unwrap();
        assert!(matches!(error, StoreError::Migration { from: NOW, .. }), "{error}");
    }

    #[test]
    fn every_older_version_has_its_step_and_every_table_its_name() {
        let from: Vec<u32> = CURRENT.steps.iter().map(|step| step.from).collect();
        assert_eq!(from, (0..CURRENT.version).collect::<Vec<_>>());
        for table in schema::TABLES {
            assert_eq!(schema::name(table), table.name());
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let place = Place::empty();
        place.write(b"a file");
        let below = place.path.join("latchkey.redb");
        let error = testing::open_file(&below, master_key(1)).err().unwrap();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
    }

    #[test]
    fn all_who_start_at_once_share_one_database_and_one_of_them_runs() {
        let place = Place::empty();
        let opened = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| place.open())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(opened.iter().filter(|store| store.is_ok()).count(), 1);
        for error in opened.iter().filter_map(|store| store.as_ref().err()) {
            assert_eq!(*error, StoreError::Locked { path: place.path.clone() });
        }
    }
}
