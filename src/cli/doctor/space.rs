//! What can run out: disk space, inodes, open files.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::Running;
use super::files::nearest;
use super::finding::{Check, Report, Status};
use crate::cli::serve::files_needed;
use crate::config::Config;

const MIB: u64 = 1 << 20;

/// Less is an error: a few commits more, and none succeeds.
const FREE_BYTES_MIN: u64 = 32 * MIB;

/// Less than this beside two copies of the database is doubtful: one is made before a migration,
/// one by a backup.
const FREE_BYTES_SOUND: u64 = 256 * MIB;

/// Fewer free inodes are doubtful.
const FREE_INODES_SOUND: u64 = 1000;

/// Looks at all of them.
pub(super) fn check(config: &Config, server: Running<'_>, report: &mut Report) {
    let database = std::fs::metadata(&config.store.path).map_or(0, |metadata| metadata.len());
    let store = nearest(&config.store.path);
    let store = if store.is_dir() { store } else { nearest(store.parent().unwrap_or(&store)) };
    check_disk("store.path", &store, database, report);
    check_disk("backup.directory", &nearest(&config.backup.directory), database, report);
    check_open_files(config, server, report);
}

fn check_disk(key: &str, folder: &Path, database: u64, report: &mut Report) {
    let shown = folder.display();
    let found = match rustix::fs::statvfs(folder) {
        Ok(found) => found,
        Err(error) => {
            let detail = format!("the free space of {shown} is not known: {error}");
            report.warning(Check::Disk, key, detail, "check the path");
            return;
        }
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let sound = database.saturating_mul(2).saturating_add(FREE_BYTES_SOUND);
    let detail = format!("{} MiB are free in {shown}", free / MIB);
    // File systems without a fixed number of inodes say 0 of both.
    let inodes_low = found.f_files > 0 && found.f_favail < FREE_INODES_SOUND;
    if free < FREE_BYTES_MIN {
        let advice = "free some now: soon nothing can be changed any more";
        report.error(Check::Disk, key, detail, advice);
    } else if free < sound {
        let advice = format!("have {} MiB free: room for two copies of the database", sound / MIB);
        report.warning(Check::Disk, key, detail, advice);
    } else if inodes_low {
        let detail = format!("{} inodes are free in {shown}", found.f_favail);
        report.warning(Check::Disk, key, detail, "remove files: soon none can be made");
    } else {
        report.ok(Check::Disk, key, detail);
    }
}

fn check_open_files(config: &Config, server: Running<'_>, report: &mut Report) {
    let needed = files_needed(config.server.connections_max.get());
    let (whose, granted) = match server.and_then(|server| server.open_files_max) {
        Some(granted) => ("the server", Some(granted)),
        // A server raises its own limit to the hard one.
        None => ("a server started from here", getrlimit(Resource::Nofile).maximum),
    };
    let detail = match granted {
        Some(granted) => format!("{whose} may open {granted} files, and may need {needed}"),
        None => format!("{whose} may open any number of files"),
    };
    let status =
        if granted.is_some_and(|granted| granted < needed) { Status::Warning } else { Status::Ok };
    if status == Status::Ok {
        report.ok(Check::OpenFiles, "server.connections_max", detail);
    } else {
        let advice = "raise the limit (LimitNOFILE=, ulimit -Hn), or lower server.connections_max";
        report.add(status, Check::OpenFiles, "server.connections_max", detail, advice);
    }
}
