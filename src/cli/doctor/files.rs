//! The modes of files that hold secrets, and of the folders that new ones appear in.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::finding::{Check, Report};
use crate::config::{CertificateFiles, Config};

/// Every user may do something.
const OPEN_TO_OTHERS: u32 = 0o007;
/// Every user may write, and remove what is not theirs.
const WRITABLE_BY_OTHERS: u32 = 0o002;
/// In a folder that everybody may write: nobody may remove what is not theirs.
const STICKY: u32 = 0o1000;

/// Looks at all of them. The database and the master key are looked at where they are opened.
pub(super) fn check(config: &Config, report: &mut Report) {
    socket(&config.admin.socket, report);
    let folders = [config.store.path.parent(), Some(config.backup.directory.as_path())];
    for folder in folders.into_iter().flatten() {
        check_folder(folder, report);
    }
    let tls = [&config.server.tls, &config.admin.tls].into_iter().flatten();
    let upstreams = config.upstreams.values().filter_map(|u| u.tls.as_ref()?.client.as_ref());
    let certificates = tls.flat_map(|tls| &tls.certificates).chain(upstreams);
    for CertificateFiles { key_file, .. } in certificates {
        secret(key_file, report);
    }
    let oidc = config.admin.oidc.as_ref().and_then(|oidc| oidc.client_secret_file.as_ref());
    for file in oidc.into_iter().chain(&config.backup.passphrase_file) {
        secret(file, report);
    }
}

fn secret(path: &Path, report: &mut Report) {
    let shown = path.display().to_string();
    let Some(mode) = mode(path, report) else {
        return;
    };
    if mode & OPEN_TO_OTHERS == 0 {
        report.ok(Check::File, shown, format!("has mode {mode:04o}"));
    } else {
        let advice = format!("run `chmod o-rwx {shown}`");
        report.error(Check::File, shown, format!("is open to every user ({mode:04o})"), advice);
    }
}

fn socket(path: &Path, report: &mut Report) {
    let shown = path.display().to_string();
    // One that is not there is made by the server.
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return;
    };
    let mode = permissions(&metadata);
    if !metadata.file_type().is_socket() {
        let advice = "move it away, or name another place with admin.socket";
        report.error(Check::File, shown, "is not a socket", advice);
    } else if mode & OPEN_TO_OTHERS == 0 {
        report.ok(Check::File, shown, format!("has mode {mode:04o}"));
    } else {
        let advice = format!("run `chmod 660 {shown}`: who may open it owns everything");
        report.error(Check::File, shown, format!("is open to every user ({mode:04o})"), advice);
    }
}

fn check_folder(path: &Path, report: &mut Report) {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let shown = path.display().to_string();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            check_missing_folder(path, report);
            return;
        }
        Err(error) => {
            unreadable(&shown, &error, report);
            return;
        }
    };
    let mode = permissions(&metadata);
    if !metadata.is_dir() {
        let advice = "move it away, or name another place in the configuration";
        report.error(Check::File, shown, "is not a folder", advice);
    } else if mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0 {
        let advice = format!("run `chmod o-w {shown}`: every user may remove what is in it");
        report.error(Check::File, shown, format!("every user may write it ({mode:04o})"), advice);
    } else if !may_write(path) {
        let advice = "run this as the user latchkey runs as; if it is that, give the folder to it";
        report.warning(Check::File, shown, "this user may not write it", advice);
    } else {
        report.ok(Check::File, shown, format!("has mode {mode:04o}"));
    }
}

/// A folder that is made when it is first needed.
fn check_missing_folder(path: &Path, report: &mut Report) {
    let shown = path.display().to_string();
    let above = nearest(path);
    if may_write(&above) {
        report.ok(Check::File, shown, "is made when it is first needed");
    } else {
        let detail = format!("is not there, and this user may not make it in {}", above.display());
        let advice = "make it, and give it to the user latchkey runs as";
        report.warning(Check::File, shown, detail, advice);
    }
}

/// `path`, or the nearest folder above it that is there.
pub(super) fn nearest(path: &Path) -> PathBuf {
    let there = |p: &&Path| !p.as_os_str().is_empty() && p.exists();
    path.ancestors().find(there).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn may_write(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

fn mode(path: &Path, report: &mut Report) -> Option<u32> {
    match std::fs::metadata(path) {
        Ok(metadata) => Some(permissions(&metadata)),
        Err(error) => {
            unreadable(&path.display().to_string(), &error, report);
            None
        }
    }
}

fn unreadable(shown: &str, error: &io::Error, report: &mut Report) {
    let advice = "check the path; run this as the user latchkey runs as";
    report.error(Check::File, shown, format!("cannot be looked at: {error}"), advice);
}

fn permissions(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}
