//! The file that holds the master key: made once, readable by its owner alone.
//!
//! The key never stands in the database or its backups. Where the file lies is the caller's to
//! say; this module reads, checks and makes it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{acl, file};
use crate::secret::{Entropy, MasterKey};

/// More than the key and the white space around it that an editor may leave.
const FILE_BYTES_MAX: usize = 128;

/// Whether [`load_or_create`] made the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It did.
    Yes,
    /// It was there.
    No,
}

/// Why there is no master key. Holds nothing of the file's content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// There is no file.
    #[error("there is no master key file {}: check the configured path", path.display())]
    Missing {
        /// The master key file.
        path: PathBuf,
    },
    /// There is no file, and none may be made: a database exists that belongs to a lost key.
    #[error(
        "there is no master key file {}, and a new key would not open the existing database: \
         put the file back from where it was backed up; if systemd hands it over, start latchkey \
         by systemd, or name it in LATCHKEY_MASTER_KEY_FILE",
        path.display()
    )]
    MissingForExistingStore {
        /// The master key file.
        path: PathBuf,
    },
    /// The file lets other users in.
    #[error(
        "the master key file {} has mode {mode:04o}, which lets others in: run `chmod 600 {}`",
        path.display(), path.display()
    )]
    Mode {
        /// The master key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "the master key file {} does not hold a master key (43 characters of base64url): put \
         the right file back",
        path.display()
    )]
    Malformed {
        /// The master key file.
        path: PathBuf,
    },
    /// The file could not be read or made.
    #[error("the master key file {} could not be {action}: {detail}", path.display())]
    Io {
        /// The master key file.
        path: PathBuf,
        /// What was being done to it, as a participle.
        action: &'static str,
        /// What the operating system said.
        detail: String,
    },
    /// The system's random number generator failed.
    #[error("no master key could be made for {}: no random numbers", path.display())]
    Entropy {
        /// The master key file.
        path: PathBuf,
    },
}

/// Reads the master key of `path`.
pub fn load(path: &Path) -> Result<MasterKey, MasterKeyError> {
    read(path)?.ok_or_else(|| MasterKeyError::Missing { path: path.to_path_buf() })
}

/// Reads the master key of `path`, or, if there is no file and `may_create`, makes one: whole,
/// on the disk, mode 0600, or not at all.
///
/// `may_create` must be false when the database exists: a new key would not open it.
pub fn load_or_create(
    path: &Path,
    may_create: bool,
    entropy: &dyn Entropy,
) -> Result<(MasterKey, Created), MasterKeyError> {
    if let Some(key) = read(path)? {
        return Ok((key, Created::No));
    }
    if !may_create {
        return Err(MasterKeyError::MissingForExistingStore { path: path.to_path_buf() });
    }
    create(path, entropy)
}

/// The key of `path`; `None` if there is no file.
fn read(path: &Path) -> Result<Option<MasterKey>, MasterKeyError> {
    let failed = |error: &io::Error| io_error(path, "read", error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    // Of the open file, not of the path: the file checked is the file read.
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    let malformed = || MasterKeyError::Malformed { path: path.to_path_buf() };
    if !metadata.is_file() {
        return Err(malformed());
    }
    let mode = metadata.permissions().mode() & 0o7777;
    let by_group_only = mode & 0o077 == 0o040;
    if mode & 0o077 != 0 && !(by_group_only && acl::is_own(&file)) {
        return Err(MasterKeyError::Mode { path: path.to_path_buf(), mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
    match file.take(FILE_BYTES_MAX as u64).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(malformed()),
        Err(error) => return Err(failed(&error)),
    }
    MasterKey::parse(&text).map(Some).ok_or_else(malformed)
}

/// Makes a new key in `path`. If another process was first, its key is the key.
fn create(path: &Path, entropy: &dyn Entropy) -> Result<(MasterKey, Created), MasterKeyError> {
    let key = MasterKey::generate(entropy)
        .map_err(|_| MasterKeyError::Entropy { path: path.to_path_buf() })?;
    match put(path, &key) {
        Ok(()) => Ok((key, Created::Yes)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            load(path).map(|key| (key, Created::No))
        }
        Err(error) => Err(io_error(path, "made", &error)),
    }
}

/// Writes `key` to `path`, where there must be no file: whole, on the disk, mode 0600, or not at
/// all.
pub(super) fn write(path: &Path, key: &MasterKey) -> Result<(), MasterKeyError> {
    put(path, key).map_err(|error| io_error(path, "made", &error))
}

fn put(path: &Path, key: &MasterKey) -> io::Result<()> {
    file::create_whole(path, |file| {
        file.write_all(key.to_text().expose().as_bytes())?;
        file.write_all(b"\n")
    })
}

fn io_error(path: &Path, action: &'static str, error: &io::Error) -> MasterKeyError {
    MasterKeyError::Io { path: path.to_path_buf(), action, detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::secret::{EntropyError, Purpose, SystemEntropy};

    fn same(a: &MasterKey, b: &MasterKey) -> bool {
        a.derive(Purpose::Check).expose() == b.derive(Purpose::Check).expose()
    }

    fn write(path: &Path, text: &[u8], mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn made_once_privately_and_then_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/master.key");
        let entropy = SystemEntropy::new();
        let (key, created) = load_or_create(&path, true, &entropy).unwrap();
        assert_eq!(created, Created::Yes);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let (again, created) = load_or_create(&path, true, &entropy).unwrap();
        assert_eq!(created, Created::No);
        assert!(same(&key, &again) && same(&key, &load(&path).unwrap()));
    }

    #[test]
    fn never_made_where_a_database_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let error = load_or_create(&path, false, &SystemEntropy::new()).unwrap_err();
        assert_eq!(error, MasterKeyError::MissingForExistingStore { path: path.clone() });
        assert_eq!(load(&path).unwrap_err(), MasterKeyError::Missing { path: path.clone() });
        assert!(!path.exists());
    }

    #[test]
    fn refused_when_others_are_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let (key, _) = load_or_create(&path, true, &SystemEntropy::new()).unwrap();
        let text = fs::read(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601, 0o666, 0o610] {
            write(&path, &text, mode);
            let error = load_or_create(&path, true, &SystemEntropy::new()).unwrap_err();
            assert_eq!(error, MasterKeyError::Mode { path: path.clone(), mode });
            assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())));
        }
        for mode in [0o600, 0o400] {
            write(&path, &text, mode);
            assert!(same(&load(&path).unwrap(), &key), "{mode:o}");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// systemd hands a credential over so: 0400, with a list that lets the service's user read it.
    #[test]
    fn a_credential_is_not_taken_for_a_file_of_a_group() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let (key, _) = load_or_create(&path, true, &SystemEntropy::new()).unwrap();
        let own = rustix::process::geteuid().as_raw();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        acl::tests::set(&path, &acl::tests::of_systemd(own));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o440);
        assert!(same(&load(&path).unwrap(), &key));
        acl::tests::set(&path, &acl::tests::of_systemd(own + 1));
        assert!(matches!(load(&path), Err(MasterKeyError::Mode { mode: 0o440, .. })));
    }

    #[test]
    fn refused_when_it_is_something_else_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let long = [b'A'; 10_000];
        let files: [&[u8]; 6] = [b"", b"\n", b"hunter2-hunter2", &[b'A'; 44], &long, &[0xff; 43]];
        for text in files {
            write(&path, text, 0o600);
            let error = load_or_create(&path, true, &SystemEntropy::new()).unwrap_err();
            assert_eq!(error, MasterKeyError::Malformed { path: path.clone() });
            assert!(!error.to_string().contains("hunter2"));
            assert_eq!(fs::read(&path).unwrap(), text);
        }
        let error = load(directory.path()).unwrap_err();
        assert_eq!(error, MasterKeyError::Malformed { path: directory.path().to_path_buf() });
    }

    #[test]
    fn no_file_without_random_numbers() {
        struct Dry;
        impl Entropy for Dry {
            fn fill(&self, _: &mut [u8]) -> Result<(), EntropyError> {
                Err(EntropyError)
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let error = load_or_create(&path, true, &Dry).unwrap_err();
        assert_eq!(error, MasterKeyError::Entropy { path: path.clone() });
        assert!(!path.exists());
    }

    #[test]
    fn all_who_start_at_once_get_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let keys = std::thread::scope(|scope| {
            let start = || load_or_create(&path, true, &SystemEntropy::new()).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(keys.iter().filter(|(_, created)| *created == Created::Yes).count(), 1);
        assert!(keys.iter().all(|(key, _)| same(key, &keys[0].0)));
    }
}
