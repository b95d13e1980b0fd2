//! Scheduled backups: is there a recent one.
//!
//! Looks into the folder; whether a backup is good is `latchkey verify`'s to say.

use std::time::Duration;

use super::Running;
use super::finding::{Check, Report};
use crate::admin::operations::backups::last_scheduled;
use crate::clock::Timestamp;
use crate::config::Config;

/// How late the newest may be before that is doubtful: one was missed, and this is not the moment
/// in which the next is being made.
fn late(interval: Duration) -> Duration {
    interval.saturating_mul(2)
}

/// One line, if there is a schedule.
pub(super) fn check(config: &Config, server: Running<'_>, now: Timestamp, report: &mut Report) {
    let Some(interval) = config.backup.interval else { return };
    let key = "backup.interval";
    let folder = config.backup.directory.display();
    let advice = match server {
        Some(_) => "look into the server's log, or at the dashboard's page of backups, for why",
        None => "start the server: it makes one at once",
    };
    match last_scheduled(&config.backup.directory, now) {
        Err(error) => report.error(Check::Backup, key, error.to_string(), "check its mode"),
        Ok(Some(last)) if now.since(last) <= late(interval) => {
            report.ok(Check::Backup, key, format!("the newest is of {last}, in {folder}"));
        }
        Ok(Some(last)) => {
            let due = last + interval;
            let detail = format!("the newest is of {last}, and the next was due at {due}");
            report.warning(Check::Backup, key, detail, advice);
        }
        Ok(None) if server.is_none() => {
            report.ok(Check::Backup, key, "there is none yet; the server makes the first");
        }
        Ok(None) => {
            report.warning(Check::Backup, key, format!("there is none in {folder}"), advice);
        }
    }
}
