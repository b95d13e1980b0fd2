//! Putting a backup in the place of the database: into a new file beside it, checked whole,
//! brought to this build's schema, and only then moved. Until then everything is as it was.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, WriteTransaction};

use super::read::{Item, Key, is_check_of, read_all};
use super::write::Report;
use super::{BackupError, Header, LEFT_OUT};
use crate::clock::{Clock, Timestamp};
use crate::secret::{Entropy, MasterKey, SecretText};
use crate::store::error::StoreError;
use crate::store::master_key::{self, MasterKeyError};
use crate::store::schema::{self, META, META_CHECK, META_SCHEMA};
use crate::store::{Store, StoreOptions, write};

/// What folders of unfinished restorations are called.
const UNFINISHED: &str = ".latchkey-restore-";

/// Most files beside the database that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// What is restored where.
pub struct RestoreOptions<'o> {
    /// The backup.
    pub backup: &'o Path,
    /// What opens it.
    pub passphrase: Option<&'o SecretText>,
    /// The database file.
    pub store: &'o Path,
    /// The master key file. Written if the backup holds the key and there is no file.
    pub master_key_file: &'o Path,
    /// Whether a database that is there may be replaced; it is kept beside.
    pub force: bool,
    /// For the new database's first opening.
    pub clock: Arc<dyn Clock>,
    /// The same.
    pub entropy: Arc<dyn Entropy>,
}

/// What was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What the backup says of itself; its schema is the one it was migrated from.
    pub header: Header,
    /// Where the database lies that was there before.
    pub replaced: Option<PathBuf>,
    /// Whether the master key file was written.
    pub master_key_written: bool,
}

/// Restores; see [`RestoreOptions`]. On any error everything is as it was.
pub fn restore(options: &RestoreOptions<'_>, report: Report<'_>) -> Result<Restored, BackupError> {
    // Held until the end: no server can start on the database meanwhile.
    let held = hold(options.store, options.force)?;
    let present = match master_key::load(options.master_key_file) {
        Ok(key) => Some(key),
        Err(MasterKeyError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let directory = parent(options.store);
    let placing = |why| BackupError::Place { path: options.store.to_path_buf(), why };
    fs::create_dir_all(directory).map_err(placing)?;
    sweep(directory);
    let temporary = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(directory);
    let temporary = temporary.map_err(placing)?;
    let path = temporary.path().join("latchkey.redb");
    let (header, included) = fill(options, &path, present.as_ref(), report)?;
    let Some(key) = present.as_ref().or(included.as_ref()) else {
        return Err(BackupError::NoMasterKey { path: options.master_key_file.to_path_buf() });
    };
    look_through(&path, key, options)?;
    let master_key_written = present.is_none();
    if master_key_written {
        master_key::write(options.master_key_file, key)?;
    }
    let now = options.clock.now().unix;
    match place(&path, options.store, held.exists, now) {
        Ok(replaced) => Ok(Restored { header, replaced, master_key_written }),
        Err(why) => {
            if master_key_written {
                // Nothing belongs to it. That it could not be placed is what has to be told.
                drop(fs::remove_file(options.master_key_file));
            }
            Err(placing(why))
        }
    }
}

/// What stands in the place of the new database.
struct Held {
    exists: bool,
    /// Open, so that nobody else can open it; `None` if it is no database or damaged: then nobody
    /// can anyway.
    _database: Option<Database>,
}

fn hold(path: &Path, force: bool) -> Result<Held, BackupError> {
    let failed = |error: &io::Error| StoreError::from_io(path, "opened", error);
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Held { exists: false, _database: None });
        }
        Err(error) => return Err(failed(&error).into()),
    };
    // redb would make a database of an empty file.
    let database = if metadata.is_file() && metadata.len() > 0 {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|error| failed(&error))?;
        match open(file) {
            Ok(database) => Some(database),
            Err(error @ DatabaseError::DatabaseAlreadyOpen) => {
                return Err(StoreError::from_redb(path, "opened", error.into()).into());
            }
            Err(_) => None,
        }
    } else {
        None
    };
    if !force {
        return Err(BackupError::Exists { path: path.to_path_buf() });
    }
    Ok(Held { exists: true, _database: database })
}

fn open(file: File) -> Result<Database, DatabaseError> {
    let mut builder = Builder::new();
    builder.set_cache_size(StoreOptions::CACHE_BYTES_MAX);
    builder.create_with_backend(FileBackend::new(file)?)
}

/// Writes the rows of the backup into the new file `path`, and the header and the master key that
/// the backup holds. The rows belong to `present`, or else to that key.
fn fill(
    options: &RestoreOptions<'_>,
    path: &Path,
    present: Option<&MasterKey>,
    report: Report<'_>,
) -> Result<(Header, Option<MasterKey>), BackupError> {
    let failed = |error: redb::Error| StoreError::from_redb(path, "made", error);
    let mut from = File::open(options.backup).map_err(BackupError::Read)?;
    let total = from.metadata().map_err(BackupError::Read)?.len();
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|error| StoreError::from_io(path, "made", &error))?;
    let database = open(file).map_err(|error| failed(error.into()))?;
    let tx = write::begin_write(&database).map_err(failed)?;
    let mut included = None;
    let mut check = Vec::new();
    let key = options.passphrase.map_or(Key::None, Key::Passphrase);
    let mut row = |item: Item<'_>| {
        match item {
            Item::Header(header) => {
                if present.is_none() && !header.includes_master_key {
                    let path = options.master_key_file.to_path_buf();
                    return Err(BackupError::NoMasterKey { path });
                }
                make_tables(&tx, path, header)?;
            }
            Item::MasterKey(key) => included = Some(key),
            Item::Row { table, key, value } => {
                if table == schema::name(META) && key == META_CHECK {
                    check = value.to_vec();
                }
                insert(&tx, path, table, key, value)?;
            }
        }
        Ok(())
    };
    let (header, bytes) = read_all(&mut from, total, key, report, &mut row)?;
    let belongs = present.or(included.as_ref()).is_some_and(|key| is_check_of(&check, key));
    if !belongs {
        let path = options.master_key_file.to_path_buf();
        return Err(BackupError::WrongMasterKey { path });
    }
    if stored_schema(&tx, path)? != Some(header.schema) {
        let what = "its rows are of another schema than it says";
        return Err(BackupError::Damaged { at: bytes, what });
    }
    tx.commit().map_err(|error| failed(error.into()))?;
    Ok((header, included))
}

fn make_tables(tx: &WriteTransaction, path: &Path, header: &Header) -> Result<(), StoreError> {
    let told = |table: &schema::Table| {
        let name = schema::name(*table);
        header.tables.iter().any(|t| t.name == name) || LEFT_OUT.map(schema::name).contains(&name)
    };
    for table in schema::TABLES.into_iter().filter(told) {
        schema::open(tx, table, path)?;
    }
    Ok(())
}

fn insert(
    tx: &WriteTransaction,
    path: &Path,
    name: &'static str,
    key: &[u8],
    value: &[u8],
) -> Result<(), StoreError> {
    let mut table = schema::open(tx, schema::Table::new(name), path)?;
    let inserted = table.insert(key, value);
    inserted.map_err(|error| StoreError::from_redb(path, "made", error.into()))?;
    Ok(())
}

fn stored_schema(tx: &WriteTransaction, path: &Path) -> Result<Option<u32>, StoreError> {
    let meta = schema::open(tx, META, path)?;
    let found = redb::ReadableTable::get(&meta, META_SCHEMA);
    let found = found.map_err(|error| StoreError::from_redb(path, "read", error.into()))?;
    let bytes = found.and_then(|bytes| <[u8; 4]>::try_from(bytes.value()).ok());
    Ok(bytes.map(u32::from_be_bytes))
}

/// Opens the new database as the server will, which checks its pages and migrates it, and decodes
/// what decisions are made from.
fn look_through(
    path: &Path,
    key: &MasterKey,
    options: &RestoreOptions<'_>,
) -> Result<(), BackupError> {
    let opening = StoreOptions::new(path, key.clone());
    let (clock, entropy) = (Arc::clone(&options.clock), Arc::clone(&options.entropy));
    let store = Store::open(opening, clock, entropy)?;
    store.read(|tx| {
        tx.for_each_shop(drop)?;
        tx.for_each_key(drop)?;
        tx.for_each_token(drop)?;
        tx.signing_keys()?;
        tx.assertion_keys()?;
        tx.admin_tokens(None, usize::MAX)?;
        tx.key_sets()?;
        Ok(())
    })?;
    Ok(())
}

/// Moves the new database to `to`; one that is there gets a second name first, so that there is a
/// database at every moment.
fn place(from: &Path, to: &Path, exists: bool, now: Timestamp) -> io::Result<Option<PathBuf>> {
    File::open(from)?.sync_all()?;
    let mut replaced = None;
    if exists {
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".before-restore-{}", now.unix_ms()));
        let beside = PathBuf::from(name);
        fs::hard_link(to, &beside)?;
        fs::rename(from, to)?;
        replaced = Some(beside);
    } else {
        // A link takes nobody's place: a database that came to be meanwhile stays.
        fs::hard_link(from, to)?;
    }
    File::open(parent(to))?.sync_all()?;
    Ok(replaced)
}

/// Takes away what a restoration left that was killed. Another that is going on here ends with an
/// error, which is better than two.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.take(ENTRIES_MAX).flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED)) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
