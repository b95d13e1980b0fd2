//! How much room the database takes, and how much there is.

use std::io;
use std::path::Path;

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The database file.
    pub database: u64,
    /// Free on its disk, for this process.
    pub free: u64,
    /// The disk.
    pub size: u64,
}

impl Space {
    /// That of the file at `path` and its disk.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let database = std::fs::metadata(path)?.len();
        let disk = rustix::fs::statvfs(path)?;
        Ok(Self {
            database,
            // Some of it is the administrator's alone.
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            size: disk.f_blocks.saturating_mul(disk.f_frsize),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_disk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(12_345).unwrap();
        let space = Space::of(file.path()).unwrap();
        assert_eq!(space.database, 12_345);
        assert!(space.free > 0 && space.free <= space.size, "{space:?}");
        assert!(Space::of(&file.path().join("nowhere")).is_err());
    }
}
