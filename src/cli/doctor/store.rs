//! The master key and the database: present, whole, belonging together.
//!
//! The database is read whole when no server has it open; of one that is open, the server is asked.

use std::path::Path;

use super::Running;
use super::finding::{Check, Report};
use crate::config::Config;
use crate::secret::MasterKey;
use crate::store::{self, Contents, Inspection, StoreError, master_key};

/// Looks at both.
pub(super) fn check(config: &Config, server: Running<'_>, report: &mut Report) {
    let path = config.store.path.as_path();
    let Some(key) = check_master_key(config, path, report) else {
        return;
    };
    if let Some(server) = server {
        let shown = path.display().to_string();
        if server.is_writable {
            report.ok(Check::Store, shown, "the server that runs reads and writes it");
        } else {
            let advice = "free space on its disk, or mend the disk; the server's log says more";
            report.error(Check::Store, shown, "the server cannot write to it", advice);
        }
        return;
    }
    if path.exists() {
        check_database(path, &key, report);
    } else {
        report.ok(Check::Store, path.display().to_string(), "is made at the first start");
    }
}

/// The master key, if there is a good one.
fn check_master_key(config: &Config, database: &Path, report: &mut Report) -> Option<MasterKey> {
    let path = config.store.master_key_file.as_path();
    let shown = path.display().to_string();
    if !path.exists() && !database.exists() && config.store.master_key_creatable {
        report.ok(Check::MasterKey, shown, "is made at the first start");
        report.ok(Check::Store, database.display().to_string(), "is made at the first start");
        return None;
    }
    match master_key::load(path) {
        Ok(key) => {
            report.ok(Check::MasterKey, shown, "is a master key, closed to others");
            Some(key)
        }
        Err(error) => {
            let advice = "put back the file the database was made with, owned by the user latchkey \
                          runs as, mode 0600; one that systemd hands to the service as a \
                          credential is named with LATCHKEY_MASTER_KEY_FILE";
            report.error(Check::MasterKey, shown, error.to_string(), advice);
            None
        }
    }
}

fn check_database(path: &Path, key: &MasterKey, report: &mut Report) {
    let shown = path.display().to_string();
    match store::inspect(path, key) {
        Ok(found) => sound(&shown, &found, report),
        Err(error @ StoreError::Locked { .. }) => {
            let advice = "if a server runs on it, name its socket with --socket; else try again";
            report.warning(Check::Store, shown, error.to_string(), advice);
        }
        Err(error) => {
            let advice = "keep a copy of the file as it is, then do what the message says";
            report.error(Check::Store, shown, error.to_string(), advice);
        }
    }
}

fn sound(shown: &str, found: &Inspection, report: &mut Report) {
    let Inspection { bytes, schema, schema_current, contents } = *found;
    let Some(Contents { shops, keys, tokens }) = contents else {
        let detail = format!(
            "is whole ({bytes} bytes); its schema is {schema}, this version's is {schema_current}"
        );
        let advice = "nothing: the next start of the server copies it and takes it over";
        report.warning(Check::Store, shown, detail, advice);
        return;
    };
    report.ok(
        Check::Store,
        shown,
        format!("is whole: {shops} shops, {keys} keys, {tokens} widget tokens in {bytes} bytes"),
    );
    report.ok(Check::MasterKey, shown, "the database belongs to the master key");
}
