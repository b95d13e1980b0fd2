//! A look at a database that no process has open: is it whole, is it ours, does the master key
//! belong to it. Changes nothing.
//!
//! Checking a redb file writes to it: what a crash left open is repaired, and the check itself
//! commits. So the file is opened for reading alone, and what redb would write to it is kept in
//! memory and forgotten ([`Overlay`]). While it is looked at the file is locked, so that it does
//! not change under the check; a server that starts meanwhile is told that it is in use.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{ReadableDatabase as _, StorageBackend};

use super::StoreOptions;
use super::error::StoreError;
use super::file::Files;
use super::read::{Context, ReadTx};
use super::schema::CURRENT;
use crate::secret::{MasterKey, SystemEntropy};

/// The most that is kept in memory of what a repair would write.
const OVERLAY_BYTES_MAX: usize = 256 << 20;

/// The unit in which it is kept.
const PAGE: usize = 4096;

/// What was found in a database that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Bytes of the file.
    pub bytes: u64,
    /// The schema it has; an older one is migrated when a server next opens it.
    pub schema: u32,
    /// The schema of this build.
    pub schema_current: u32,
    /// What is in it; `None` before it is migrated.
    pub contents: Option<Contents>,
}

/// How much is in a database, every record of it read and every sealed key opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    /// Shops.
    pub shops: usize,
    /// API keys.
    pub keys: usize,
    /// Widget tokens.
    pub tokens: usize,
}

/// Looks at the database `path`, which belongs to `master_key`.
///
/// # Errors
///
/// What [`Store::open`](super::Store::open) would refuse it for, [`StoreError::Locked`] while a
/// process has it open, and records that cannot be read.
pub fn inspect(path: &Path, master_key: &MasterKey) -> Result<Inspection, StoreError> {
    let options = StoreOptions::new(path, master_key.clone());
    let files = Files::new(&options, CURRENT);
    let (file, bytes) = files.open_to_look()?;
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::Locked { path: path.to_path_buf() });
        }
        Err(TryLockError::Error(error)) => return Err(StoreError::from_io(path, "locked", &error)),
    }
    let database = files.open_backend(Overlay::new(file, bytes))?;
    let schema = files.schema_of(&database)?;
    let found = Inspection { bytes, schema, schema_current: CURRENT.version, contents: None };
    if schema != CURRENT.version {
        return Ok(found);
    }
    let context = Arc::new(Context {
        path: path.to_path_buf(),
        sealer: master_key.sealer(),
        chain: master_key.chain_key(),
        entropy: Arc::new(SystemEntropy::new()),
        broken: AtomicBool::new(false),
    });
    let tx = database.begin_read().map_err(|error| context.failed("read", error))?;
    let contents = contents(&ReadTx::new(context, tx))?;
    Ok(Inspection { contents: Some(contents), ..found })
}

/// Reads every record and opens every sealed key.
fn contents(tx: &ReadTx) -> Result<Contents, StoreError> {
    let mut found = Contents::default();
    tx.for_each_shop(|_| found.shops += 1)?;
    tx.for_each_key(|_| found.keys += 1)?;
    tx.for_each_token(|_| found.tokens += 1)?;
    tx.admin_tokens(None, usize::MAX)?;
    tx.key_sets()?;
    tx.signing_keys()?;
    tx.assertion_keys()?;
    Ok(found)
}

/// A file that is read, and on top of it in memory what was written. Dropped, it never was.
struct Overlay {
    file: File,
    file_bytes: u64,
    written: Mutex<Written>,
}

/// What was written.
struct Written {
    /// Bytes of the whole.
    len: u64,
    /// Where the file ends: less than its length once the whole was shorter than it.
    file_end: u64,
    /// Whole pages, by their number.
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    fn new(file: File, file_bytes: u64) -> Self {
        let written = Written { len: file_bytes, file_end: file_bytes, pages: BTreeMap::new() };
        Self { file, file_bytes, written: Mutex::new(written) }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page `number` as the file has it, zeros where it has nothing.
    fn page_of_file(&self, number: u64, end: u64) -> io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE].into_boxed_slice();
        let start = number.saturating_mul(PAGE as u64);
        let held = usize::try_from(end.saturating_sub(start)).unwrap_or(PAGE).min(PAGE);
        if let Some(held) = page.get_mut(..held) {
            self.file.read_exact_at(held, start)?;
        }
        Ok(page)
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overlay").field("file_bytes", &self.file_bytes).finish_non_exhaustive()
    }
}

/// The part of every page that the bytes `offset..offset + len` touch: its number, where in it they
/// begin, and where in them it begins and ends.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let (number, within) = (at / PAGE as u64, usize::try_from(at % PAGE as u64).unwrap_or(0));
        let end = len.min(done + PAGE - within);
        let range = done..end;
        done = end;
        Some((number, within, range))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > written.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, range) in parts(offset, out.len()) {
            let out = out.get_mut(range).unwrap_or_default();
            let fetched;
            let page = if let Some(page) = written.pages.get(&number) {
                page
            } else {
                fetched = self.page_of_file(number, written.file_end)?;
                &fetched
            };
            let from = page.get(within..within + out.len()).unwrap_or_default();
            out.copy_from_slice(from);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        written.len = len;
        written.file_end = written.file_end.min(len);
        let kept = len.div_ceil(PAGE as u64);
        written.pages.retain(|number, _| *number < kept);
        let within = usize::try_from(len % PAGE as u64).unwrap_or(0);
        if let Some(page) = written.pages.get_mut(&(len / PAGE as u64)) {
            page.get_mut(within..).unwrap_or_default().fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        for (number, within, range) in parts(offset, data.len()) {
            if !written.pages.contains_key(&number) {
                if written.pages.len() >= OVERLAY_BYTES_MAX / PAGE {
                    let why = "its repair is too large to be tried in memory";
                    return Err(io::Error::other(why));
                }
                let page = self.page_of_file(number, written.file_end)?;
                written.pages.insert(number, page);
            }
            let data = data.get(range).unwrap_or_default();
            let page = written.pages.get_mut(&number).map(|page| &mut **page);
            let to = page.and_then(|page| page.get_mut(within..within + data.len()));
            to.unwrap_or_default().copy_from_slice(data);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;
    use crate::store::testing::{self, master_key};

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What is done to a backend.
    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..30_000_u64, prop::collection::vec(any::<u8>(), 0..9000))
                .prop_map(|(at, data)| Step::Write(at, data)),
            (0..40_000_u64).prop_map(Step::SetLen),
        ]
    }

    proptest! {
        /// It reads as a file would to which the same was done, and the file stays as it is.
        #[test]
        fn an_overlay_is_a_file_that_forgets(
            content in prop::collection::vec(any::<u8>(), 0..20_000),
            steps in prop::collection::vec(step(), 0..12),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            let overlay = Overlay::new(file.try_clone().unwrap(), content.len() as u64);
            let mut model = content.clone();
            for step in steps {
                match step {
                    Step::SetLen(len) => {
                        model.resize(usize::try_from(len).unwrap(), 0);
                        overlay.set_len(len).unwrap();
                    }
                    Step::Write(at, data) => {
                        let start = usize::try_from(at).unwrap();
                        let end = start + data.len();
                        if end > model.len() {
                            continue;
                        }
                        model[start..end].copy_from_slice(&data);
                        overlay.write(at, &data).unwrap();
                    }
                }
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
                let mut read = vec![0; model.len()];
                overlay.read(0, &mut read).unwrap();
                prop_assert!(read == model);
                prop_assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
            }
            let mut kept = vec![0; content.len()];
            file.read_exact_at(&mut kept, 0).unwrap();
            prop_assert!(kept == content);
        }
    }

    #[test]
    fn a_look_finds_what_is_there_and_changes_no_byte() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.redb");
        let store = testing::open_file(&path, master_key(1)).unwrap();
        store
            .write(|tx| -> Result<(), StoreError> {
                tx.put_shop(&testing::shop("demo"))?;
                tx.put_key(&testing::key(1, "demo"))
            })
            .unwrap();
        assert_eq!(
            inspect(&path, &master_key(1)).unwrap_err(),
            StoreError::Locked { path: path.clone() }
        );
        drop(store);
        let before = std::fs::read(&path).unwrap();
        let found = inspect(&path, &master_key(1)).unwrap();
        assert_eq!(found.contents, Some(Contents { shops: 1, keys: 1, tokens: 0 }));
        assert_eq!((found.schema, found.bytes), (CURRENT.version, before.len() as u64));
        assert_eq!(
            inspect(&path, &master_key(8)).unwrap_err(),
            StoreError::WrongMasterKey { path: path.clone() }
        );
        assert!(std::fs::read(&path).unwrap() == before);

        // Damage anywhere is found, or is where nothing is.
        let damaged = directory.path().join("b.redb");
        let mut found = 0;
        for at in (0..before.len()).step_by(20_011) {
            let mut bytes = before.clone();
            bytes[at] ^= 0x40;
            std::fs::write(&damaged, &bytes).unwrap();
            set_mode(&damaged, 0o600);
            found += usize::from(inspect(&damaged, &master_key(1)).is_err());
            assert!(std::fs::read(&damaged).unwrap() == bytes, "{at}");
        }
        assert!(found > 0);
        set_mode(&path, 0o644);
        let open = inspect(&path, &master_key(1)).unwrap_err();
        assert!(matches!(open, StoreError::Mode { .. }), "{open}");
    }
}
