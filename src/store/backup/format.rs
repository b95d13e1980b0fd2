//! The bytes of a backup: what stands before, around and after its chunks, and what is in them.

use std::io::{self, Read, Write};

use ring::digest::{Context, SHA256};

use super::{BackupError, FORMAT, Header};

/// What a backup begins with.
pub(super) const MAGIC: &[u8; 8] = b"LKBACKUP";

/// Longest header.
const HEADER_BYTES_MAX: u32 = 64 * 1024;

/// A chunk of rows is closed once it is this long.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Longest key and value of a row. A key set is the longest value there is.
pub(super) const ROW_BYTES_MAX: usize = 16 << 20;

/// Longest chunk: one row that is as long as can be, after others, sealed.
const CHUNK_BYTES_MAX: usize = CHUNK_BYTES + ROW_BYTES_MAX + 1024;

/// How much of a digest guards a chunk; the whole file has a whole one.
const CHECK_BYTES: usize = 16;

/// What a chunk holds: its first byte.
pub(super) const ROWS: u8 = 1;
/// The master key, as text.
pub(super) const MASTER_KEY: u8 = 2;
/// The end, and how many rows there were.
pub(super) const END: u8 = 3;

/// Writes, counts and digests.
pub(super) struct Sink<'w> {
    to: &'w mut dyn Write,
    digest: Context,
    pub(super) bytes: u64,
}

impl<'w> Sink<'w> {
    pub(super) fn new(to: &'w mut dyn Write) -> Self {
        Self { to, digest: Context::new(&SHA256), bytes: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.to.write_all(bytes).map_err(BackupError::Write)?;
        self.digest.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn digest(&self) -> [u8; 32] {
        finish(self.digest.clone())
    }

    /// Writes all that stands before the chunks; its digest.
    pub(super) fn header(&mut self, header: &Header) -> Result<[u8; 32], BackupError> {
        let json = serde_json::to_vec(header).map_err(|error| BackupError::Write(error.into()))?;
        let len = u32::try_from(json.len()).ok().filter(|len| *len <= HEADER_BYTES_MAX);
        let len = len.ok_or(BackupError::RowTooLarge { table: "header" })?;
        self.put(MAGIC)?;
        self.put(&FORMAT.to_be_bytes())?;
        self.put(&len.to_be_bytes())?;
        self.put(&json)?;
        let digest = self.digest();
        self.put(&digest)?;
        Ok(digest)
    }

    /// Writes one chunk.
    pub(super) fn chunk(&mut self, last: bool, chunk: &[u8]) -> Result<(), BackupError> {
        let len = u32::try_from(chunk.len());
        let len = len.map_err(|_| BackupError::RowTooLarge { table: "backup" })?.to_be_bytes();
        let check = check(len, last, chunk);
        self.put(&len)?;
        self.put(&[u8::from(last)])?;
        self.put(chunk)?;
        self.put(&check)
    }

    /// Writes what stands after `chunks` chunks, and makes sure that all has gone out.
    pub(super) fn trailer(mut self, chunks: u64) -> Result<u64, BackupError> {
        let bytes = self.bytes;
        self.put(&chunks.to_be_bytes())?;
        self.put(&bytes.to_be_bytes())?;
        let digest = self.digest();
        self.put(&digest)?;
        self.to.flush().map_err(BackupError::Write)?;
        Ok(self.bytes)
    }
}

/// Reads, counts and digests.
pub(super) struct Source<'r> {
    from: &'r mut dyn Read,
    digest: Context,
    pub(super) bytes: u64,
}

impl<'r> Source<'r> {
    pub(super) fn new(from: &'r mut dyn Read) -> Self {
        Self { from, digest: Context::new(&SHA256), bytes: 0 }
    }

    pub(super) fn damaged(&self, what: &'static str) -> BackupError {
        BackupError::Damaged { at: self.bytes, what }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        let mut rest: &mut [u8] = bytes;
        while !rest.is_empty() {
            let n = self.read(rest)?;
            if n == 0 {
                return Err(BackupError::Truncated { at: self.bytes });
            }
            let (done, left) = rest.split_at_mut(n.min(rest.len()));
            self.digest.update(done);
            self.bytes = self.bytes.saturating_add(done.len() as u64);
            rest = left;
        }
        Ok(())
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, BackupError> {
        loop {
            match self.from.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(BackupError::Read),
            }
        }
    }

    /// Reads what stands before the chunks; the header and the digest of it all.
    pub(super) fn header(&mut self) -> Result<(Header, [u8; 32]), BackupError> {
        let magic = self.take::<8>().map_err(|error| {
            if matches!(error, BackupError::Truncated { at: 0 }) {
                return BackupError::NotABackup;
            }
            error
        })?;
        if magic != *MAGIC {
            return Err(BackupError::NotABackup);
        }
        let format = u16::from_be_bytes(self.take()?);
        if format > FORMAT {
            return Err(BackupError::FormatNewer { found: format });
        }
        if format == 0 {
            return Err(self.damaged("its format has no number"));
        }
        let len = u32::from_be_bytes(self.take()?);
        if len > HEADER_BYTES_MAX {
            return Err(self.damaged("its header is too long"));
        }
        let mut json = vec![0; usize::try_from(len).unwrap_or_default()];
        self.fill(&mut json)?;
        let digest = finish(self.digest.clone());
        if self.take::<32>()? != digest {
            return Err(self.damaged("its header does not match its digest"));
        }
        let header = serde_json::from_slice(&json);
        let header = header.map_err(|_| self.damaged("its header does not parse"))?;
        Ok((header, digest))
    }

    /// Reads one chunk into `chunk`; whether it is the last.
    pub(super) fn chunk(&mut self, chunk: &mut Vec<u8>) -> Result<bool, BackupError> {
        let len_bytes = self.take::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(len_bytes)).unwrap_or(usize::MAX);
        if len == 0 || len > CHUNK_BYTES_MAX {
            return Err(self.damaged("a chunk has no possible length"));
        }
        let [flag] = self.take::<1>()?;
        if flag > 1 {
            return Err(self.damaged("a chunk is neither the last nor another"));
        }
        let last = flag == 1;
        chunk.clear();
        // Grown as bytes come: a length that was altered reserves nothing.
        while chunk.len() < len {
            let from = chunk.len();
            chunk.resize(len.min(from + CHUNK_BYTES), 0);
            let more = chunk.get_mut(from..).unwrap_or_default();
            self.fill(more)?;
        }
        let expected = check(len_bytes, last, chunk);
        if self.take::<CHECK_BYTES>()? != expected {
            return Err(self.damaged("a chunk does not match its checksum"));
        }
        Ok(last)
    }

    /// Reads what stands after `chunks` chunks, and that nothing follows.
    pub(super) fn trailer(&mut self, chunks: u64) -> Result<(), BackupError> {
        let before = self.bytes;
        if u64::from_be_bytes(self.take()?) != chunks {
            return Err(self.damaged("it has another number of chunks than it says"));
        }
        if u64::from_be_bytes(self.take()?) != before {
            return Err(self.damaged("it has another length than it says"));
        }
        let digest = finish(self.digest.clone());
        if self.take::<32>()? != digest {
            return Err(self.damaged("it does not match its digest"));
        }
        if self.read(&mut [0])? != 0 {
            return Err(self.damaged("something follows its end"));
        }
        Ok(())
    }
}

fn check(len: [u8; 4], last: bool, chunk: &[u8]) -> [u8; CHECK_BYTES] {
    let mut digest = Context::new(&SHA256);
    digest.update(&len);
    digest.update(&[u8::from(last)]);
    digest.update(chunk);
    let whole = finish(digest);
    let mut half = [0; CHECK_BYTES];
    half.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    half
}

fn finish(digest: Context) -> [u8; 32] {
    let digest = digest.finish();
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

/// Begins a chunk of rows of `table`.
pub(super) fn begin_rows(chunk: &mut Vec<u8>, table: &str) {
    chunk.clear();
    chunk.push(ROWS);
    // Names of tables are short words of this source.
    chunk.push(u8::try_from(table.len()).unwrap_or(u8::MAX));
    chunk.extend_from_slice(table.as_bytes());
}

/// Adds a row.
pub(super) fn add_row(chunk: &mut Vec<u8>, key: &[u8], value: &[u8]) -> Option<()> {
    if key.len().checked_add(value.len())? > ROW_BYTES_MAX {
        return None;
    }
    for bytes in [key, value] {
        chunk.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_be_bytes());
        chunk.extend_from_slice(bytes);
    }
    Some(())
}

/// Reads the fields of an opened chunk; `None` where they do not fit it.
pub(super) struct Fields<'c>(pub(super) &'c [u8]);

impl<'c> Fields<'c> {
    pub(super) fn bytes(&mut self, len: usize) -> Option<&'c [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// A name with its length in one byte.
    pub(super) fn name(&mut self) -> Option<&'c str> {
        let [len] = self.array()?;
        std::str::from_utf8(self.bytes(len.into())?).ok()
    }

    /// A row's key or value.
    pub(super) fn field(&mut self) -> Option<&'c [u8]> {
        let len = u32::from_be_bytes(self.array()?);
        self.bytes(usize::try_from(len).ok()?)
    }
}
