//! The database as a file: made whole or not at all, checked before it is trusted, copied before
//! it is migrated.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase as _};
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
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
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
        self.open_file(file)
    }

    fn open_file(&self, file: File) -> Result<Database, StoreError> {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes_max);
        // Walks the file once, and in return a damaged one is an error here, not a surprise later.
        builder.set_check_integrity_on_open(true);
        (self.opener)(&mut builder, file)
            .map_err(|error| StoreError::from_redb(&self.path, "opened", error.into()))
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
        let copied = write_whole(Path::new(&name), Replace::Yes, |to| {
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
        let made = write_whole(&self.path, Replace::No, |file| {
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
    write_whole(path, Replace::No, fill)
}

fn write_whole(
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
    let mut made = tempfile::Builder::new().prefix(".latchkey-").tempfile_in(directory)?;
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
