//! The folder of backups: names that cannot lead out of it, and the files behind them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files;
use crate::admin::node::Node;
use crate::admin::operations::{OperationError, Resource};
use crate::clock::Timestamp;
use crate::secret::{Entropy, EntropyError, random_bytes};
use crate::store::backup::{Header, UNFINISHED, header_of};

/// What every backup's name ends with.
const EXTENSION: &str = ".lkbackup";

/// What the names of those begin with that the schedule made.
const SCHEDULED: &str = "scheduled-";

/// Longest name, less its extension.
const STEM_BYTES_MAX: usize = 100;

/// Most files that are looked at.
pub(super) const FILES_MAX: usize = 10_000;

/// The name of a backup in the folder: letters, digits, `-` and `_`, and `.lkbackup`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackupName(String);

impl BackupName {
    /// Parses `text`; `None` if it is no such name. A name holds no separator and no other dot.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let stem = text.strip_suffix(EXTENSION)?;
        let letter = |b: u8| b.is_ascii_alphanumeric();
        let word = |b: u8| letter(b) || b == b'-' || b == b'_';
        let fits = stem.bytes().next().is_some_and(letter)
            && stem.len() <= STEM_BYTES_MAX
            && stem.bytes().all(word);
        fits.then(|| Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that nobody has: when, and something random.
    pub(super) fn fresh(
        scheduled: bool,
        at: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Self, EntropyError> {
        let kind = if scheduled { SCHEDULED } else { "latchkey-" };
        let when: String = at.to_string().chars().filter(char::is_ascii_alphanumeric).collect();
        let [a, b, c] = random_bytes(entropy)?;
        Ok(Self(format!("{kind}{when}-{a:02x}{b:02x}{c:02x}{EXTENSION}")))
    }

    /// Whether it is one that the schedule gives.
    pub(super) fn is_scheduled(&self) -> bool {
        self.0.starts_with(SCHEDULED)
    }
}

/// A file of the folder. It is closed: a list of them takes no file descriptors, which the data
/// plane would lack.
pub(super) struct Found {
    pub(super) name: BackupName,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) modified: Option<SystemTime>,
    /// What it says of itself, or why it does not.
    pub(super) header: Result<Header, String>,
}

/// Where the backup `name` is, or would be.
pub(super) fn path(node: &Node, name: &BackupName) -> PathBuf {
    node.config.load().backup.directory.join(name.as_str())
}

/// Opens the backup `name`; the file stands at its beginning.
pub(super) fn open(node: &Node, name: &BackupName) -> Result<(File, Found), OperationError> {
    open_in(&node.config.load().backup.directory, name)
}

fn open_in(directory: &Path, name: &BackupName) -> Result<(File, Found), OperationError> {
    let path = directory.join(name.as_str());
    // A link would lead out of the folder.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
    let file = opened.map_err(|error| files(name.as_str(), "opened", &error))?;
    let metadata = file.metadata().map_err(|error| files(name.as_str(), "opened", &error))?;
    if !metadata.is_file() {
        return Err(OperationError::NotFound(Resource::Backup));
    }
    let header = header_of(BufReader::new(&file)).map_err(|error| error.to_string());
    io::Seek::rewind(&mut &file).map_err(|error| files(name.as_str(), "read", &error))?;
    let (bytes, modified) = (metadata.len(), metadata.modified().ok());
    Ok((file, Found { name: name.clone(), path, bytes, modified, header }))
}

/// Every backup of the folder, in no order; other files are none of ours.
pub(super) fn list(node: &Node) -> Result<Vec<Found>, OperationError> {
    list_where(&node.config.load().backup.directory, |_| true)
}

/// Those that the schedule made. Their name alone is not enough: somebody may have given it.
pub(super) fn list_scheduled(directory: &Path) -> Result<Vec<Found>, OperationError> {
    let mut found = list_where(directory, BackupName::is_scheduled)?;
    found.retain(|found| found.header.as_ref().is_ok_and(|header| header.scheduled));
    Ok(found)
}

fn list_where(
    directory: &Path,
    wanted: impl Fn(&BackupName) -> bool,
) -> Result<Vec<Found>, OperationError> {
    let unreadable = |error: &io::Error| {
        let folder = directory.display();
        OperationError::Files(format!("the folder of backups {folder} cannot be read ({error})"))
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&error)),
    };
    let mut found = Vec::new();
    for entry in entries.take(FILES_MAX) {
        let entry = entry.map_err(|error| unreadable(&error))?;
        let name = entry.file_name().to_str().and_then(BackupName::parse);
        let Some(name) = name.filter(&wanted) else { continue };
        // One that went meanwhile, or is no file, is no backup.
        found.extend(open_in(directory, &name).ok().map(|(_, found)| found));
    }
    Ok(found)
}

/// Takes away a backup that did not become one. What fails here shows in the list.
pub(super) fn discard(node: &Node, name: &BackupName) {
    drop(fs::remove_file(path(node, name)));
}

/// Takes away what was left of backups by a process that was killed. Called with the turn to make
/// one, so nobody is writing them.
pub(super) fn sweep(node: &Node) {
    let directory = node.config.load().backup.directory.clone();
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.take(FILES_MAX).flatten() {
        let left = entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED));
        if left && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            drop(fs::remove_file(entry.path()));
        }
    }
}
