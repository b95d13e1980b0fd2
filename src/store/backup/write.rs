//! Making a backup, from one view of the database.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use zeroize::Zeroizing;

use super::crypt::{KdfCost, Sealing, Stream};
use super::format::{self, CHUNK_BYTES, Sink};
use super::{BackupError, Header, LEFT_OUT, Progress, TableRows};
use crate::clock::Timestamp;
use crate::secret::{Entropy, MasterKey, SecretText};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::file::create_whole_as;
use crate::store::read::{Opened, ReadTx};
use crate::store::schema::{self, META, META_COMMIT, META_SCHEMA, Table};

/// To whom a backup is sealed, and what more is in it then.
#[derive(Debug, Clone)]
pub struct Encryption {
    /// What opens it.
    pub passphrase: SecretText,
    /// What deriving the key costs.
    pub cost: KdfCost,
    /// The master key, if it is to be in the backup.
    pub master_key: Option<MasterKey>,
}

/// What kind of backup is made.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// When.
    pub created_at: Timestamp,
    /// Whether the schedule makes it.
    pub scheduled: bool,
    /// `None`: it is not encrypted.
    pub encryption: Option<Encryption>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What it says of itself.
    pub header: Header,
    /// How long it is.
    pub bytes: u64,
}

/// Told how far it is, and says whether to go on.
pub type Report<'r> = &'r mut dyn FnMut(Progress) -> ControlFlow<()>;

/// What names of unfinished backups begin with.
pub const UNFINISHED: &str = ".backup-";

/// Makes the file `path`, mode 0600: whole and on the disk, or not at all. An error if it exists.
pub fn create(
    store: &Store,
    path: &Path,
    options: &CreateOptions,
    entropy: &dyn Entropy,
    report: Report<'_>,
) -> Result<Made, BackupError> {
    let mut failure = None;
    let mut made = None;
    let written = create_whole_as(UNFINISHED, path, |file: &mut File| {
        let mut to = BufWriter::with_capacity(CHUNK_BYTES, Evenly { file, unsynced: 0 });
        match store.back_up(&mut to, options, entropy, report) {
            Ok(done) => made = Some(done),
            Err(error) => failure = Some(error),
        }
        if failure.is_some() {
            return Err(io::Error::other("the backup was not written"));
        }
        to.flush()
    });
    match (written, made) {
        (Ok(()), Some(made)) => Ok(made),
        (Ok(()), None) => Err(BackupError::Write(io::ErrorKind::Other.into())),
        (Err(error), _) => Err(failure.unwrap_or(BackupError::Write(error))),
    }
}

/// Bytes that are written before they have to be on the disk.
const SYNC_BYTES: usize = 1 << 20;

/// Writes to a file so that the disk always has a little to do and never much: tens of megabytes
/// at once would keep commits waiting, and processors busy for them.
struct Evenly<'f> {
    file: &'f mut File,
    unsynced: usize,
}

impl Write for Evenly<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced = self.unsynced.saturating_add(written);
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Store {
    /// Writes a backup of this moment to `to`; writers go on meanwhile.
    pub fn back_up(
        &self,
        to: &mut dyn Write,
        options: &CreateOptions,
        entropy: &dyn Entropy,
        report: Report<'_>,
    ) -> Result<Made, BackupError> {
        self.read(|tx| Ok(write(tx, to, options, entropy, report)))?
    }
}

fn write(
    tx: &ReadTx,
    to: &mut dyn Write,
    options: &CreateOptions,
    entropy: &dyn Entropy,
    report: Report<'_>,
) -> Result<Made, BackupError> {
    let encryption = options.encryption.as_ref();
    let sealing = encryption.map(|e| Sealing::new(e.cost, entropy)).transpose()?;
    let header = header(tx, options, sealing.clone())?;
    let mut sink = Sink::new(to);
    let digest = sink.header(&header)?;
    let stream = match (encryption, &sealing) {
        (Some(encryption), Some(sealing)) => Some(sealing.stream(&encryption.passphrase, digest)?),
        _ => None,
    };
    let mut chunks = Chunks {
        sink,
        stream,
        chunk: Zeroizing::new(Vec::with_capacity(2 * CHUNK_BYTES)),
        count: 0,
        progress: Progress { done: 0, total: header.rows_total() },
        report,
    };
    if let Some(key) = encryption.and_then(|e| e.master_key.as_ref()) {
        chunks.chunk.push(format::MASTER_KEY);
        chunks.chunk.extend_from_slice(key.to_text().expose().as_bytes());
        chunks.flush(false)?;
    }
    for table in tables() {
        chunks.table(tx, table)?;
    }
    let bytes = chunks.end()?;
    Ok(Made { header, bytes })
}

/// What is in a backup.
fn tables() -> impl Iterator<Item = Table> {
    let left_out = |table: &Table| LEFT_OUT.map(schema::name).contains(&schema::name(*table));
    schema::TABLES.into_iter().filter(move |table| !left_out(table))
}

fn header(
    tx: &ReadTx,
    options: &CreateOptions,
    sealing: Option<Sealing>,
) -> Result<Header, BackupError> {
    let mut rows = Vec::new();
    for table in tables() {
        rows.push(TableRows { name: schema::name(table).to_owned(), rows: tx.count(table)? });
    }
    let number = |key| -> Result<u64, StoreError> {
        let found = tx.raw(META, key)?.unwrap_or_default();
        Ok(found.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let encryption = options.encryption.as_ref();
    Ok(Header {
        created_at_ms: options.created_at.unix_ms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: u32::try_from(number(META_SCHEMA)?).unwrap_or(u32::MAX),
        commit: number(META_COMMIT)?,
        scheduled: options.scheduled,
        includes_master_key: encryption.is_some_and(|e| e.master_key.is_some()),
        tables: rows,
        encryption: sealing,
    })
}

/// Collects rows into chunks.
struct Chunks<'w, 'r> {
    sink: Sink<'w>,
    stream: Option<Stream>,
    chunk: Zeroizing<Vec<u8>>,
    count: u64,
    progress: Progress,
    report: Report<'r>,
}

impl Chunks<'_, '_> {
    fn table(&mut self, tx: &ReadTx, table: Table) -> Result<(), BackupError> {
        let name = schema::name(table);
        format::begin_rows(&mut self.chunk, name);
        let empty = self.chunk.len();
        tx.rows(table, |key, value| {
            format::add_row(&mut self.chunk, key, value)
                .ok_or(BackupError::RowTooLarge { table: name })?;
            self.progress.done += 1;
            if self.chunk.len() >= CHUNK_BYTES {
                self.flush(false)?;
                format::begin_rows(&mut self.chunk, name);
            }
            Ok(())
        })?;
        if self.chunk.len() > empty {
            self.flush(false)?;
        }
        self.chunk.clear();
        Ok(())
    }

    fn flush(&mut self, last: bool) -> Result<(), BackupError> {
        if let Some(stream) = &self.stream {
            stream.seal(self.count, last, &mut self.chunk)?;
        }
        self.sink.chunk(last, &self.chunk)?;
        self.chunk.clear();
        self.count += 1;
        BackupError::unless_stopped((self.report)(self.progress))
    }

    fn end(mut self) -> Result<u64, BackupError> {
        self.chunk.push(format::END);
        self.chunk.extend_from_slice(&self.progress.done.to_be_bytes());
        self.flush(true)?;
        self.sink.trailer(self.count)
    }
}

/// Rows as they are stored, whatever they mean.
impl ReadTx {
    fn count(&self, table: Table) -> Result<u64, StoreError> {
        let counted = match self.open(table)? {
            Opened::Read(table) => redb::ReadableTableMetadata::len(&table),
            Opened::Write(table) => redb::ReadableTableMetadata::len(&table),
        };
        counted.map_err(|error| self.context.failed("read", error))
    }

    fn raw(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let opened = self.open(table)?;
        let found = opened.get(key);
        let found = found.map_err(|error| self.context.failed("read", error))?;
        Ok(found.map(|bytes| bytes.value().to_vec()))
    }

    fn rows(
        &self,
        table: Table,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let failed = |error| self.context.failed("read", error);
        let opened = self.open(table)?;
        for entry in opened.range(Bound::Unbounded, Bound::Unbounded).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            visit(key.value(), value.value())?;
        }
        Ok(())
    }
}
