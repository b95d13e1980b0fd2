//! `[audit]`, `[usage]` and `[backup]`: what is kept of what happened, for how long, and where
//! copies of the store go.
//!
//! Reads the tables; who records, prunes and copies is in `admin`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::StoreConfig;
use super::read::Section;
use super::report::Noted;
use super::secret_file::{PASSPHRASE_BYTES_MIN, parse_secret_file};
use super::validate::{beside, parse_path};
use super::value::{self, Span};

const DAY: Duration = Duration::from_secs(86_400);

/// The audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// How long entries are kept.
    pub retention: Duration,
}

/// The defaults of `[audit]`.
impl Default for AuditConfig {
    fn default() -> Self {
        Self { retention: DAY * 400 }
    }
}

/// Counts of requests per shop and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageConfig {
    /// Whether they are kept.
    pub enabled: bool,
    /// Between two writes to the store; a crash loses what was counted since the last.
    pub flush_interval: Duration,
    /// How long counts per minute are kept.
    pub minutes_kept: Duration,
    /// How long counts per hour are kept.
    pub hours_kept: Duration,
    /// How long counts per day are kept.
    pub days_kept: Duration,
    /// Rows in the store; beyond, the oldest and finest go first.
    pub rows_max: NonZeroUsize,
}

/// The defaults of `[usage]`.
impl Default for UsageConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            flush_interval: Duration::from_secs(60),
            minutes_kept: DAY,
            hours_kept: DAY * 60,
            days_kept: DAY * 800,
            rows_max: NonZeroUsize::MIN.saturating_add(4_999_999),
        }
    }
}

/// Copies of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupConfig {
    /// Where they are written.
    pub directory: PathBuf,
    /// Between two scheduled ones; `None`: none is scheduled.
    pub interval: Option<Duration>,
    /// Scheduled ones kept.
    pub keep: NonZeroUsize,
    /// The file that holds the passphrase of scheduled ones, for [`super::read_secret_file`];
    /// `None`: they are not encrypted.
    pub passphrase_file: Option<PathBuf>,
    /// Whether scheduled ones hold the master key; only encrypted ones may.
    pub include_master_key: bool,
}

impl BackupConfig {
    /// Backups in `directory`, everything else as it is by default: none is scheduled.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            interval: None,
            keep: NonZeroUsize::MIN.saturating_add(6),
            passphrase_file: None,
            include_master_key: false,
        }
    }
}

/// Reads `[audit]`.
pub(super) fn read_audit(root: &mut Section<'_, '_>) -> Result<AuditConfig, Noted> {
    let mut t = root.table("audit");
    let retention = t.duration("retention", "400d", Span::RETENTION);
    t.finish();
    Ok(AuditConfig { retention: retention? })
}

/// Reads `[usage]`.
pub(super) fn read_usage(root: &mut Section<'_, '_>) -> Result<UsageConfig, Noted> {
    let mut t = root.table("usage");
    let enabled = t.boolean("enabled", true);
    let flush_interval = t.duration("flush_interval", "1m", Span::FLUSH);
    let minutes_kept = t.duration("minutes_kept", "1d", Span::RETENTION);
    let hours_kept = t.duration("hours_kept", "60d", Span::RETENTION);
    let days_kept = t.duration("days_kept", "800d", Span::RETENTION);
    // A coarser count that goes before the finer one would leave a hole in between.
    check_not_longer(&mut t, ("minutes_kept", minutes_kept), ("hours_kept", hours_kept));
    check_not_longer(&mut t, ("hours_kept", hours_kept), ("days_kept", days_kept));
    let rows_max = t.count("rows_max", 5_000_000, (10_000, 1_000_000_000));
    t.finish();
    Ok(UsageConfig {
        enabled: enabled?,
        flush_interval: flush_interval?,
        minutes_kept: minutes_kept?,
        hours_kept: hours_kept?,
        days_kept: days_kept?,
        rows_max: rows_max?,
    })
}

fn check_not_longer(
    t: &mut Section<'_, '_>,
    (finer, finer_kept): (&'static str, Result<Duration, Noted>),
    (coarser, coarser_kept): (&'static str, Result<Duration, Noted>),
) {
    if let (Ok(finer_kept), Ok(coarser_kept)) = (finer_kept, coarser_kept)
        && finer_kept > coarser_kept
    {
        let finer_kept = value::show_duration(finer_kept);
        let coarser_kept = value::show_duration(coarser_kept);
        let message =
            format!("\"{finer_kept}\" is longer than usage.{coarser}, \"{coarser_kept}\"");
        t.error(finer, message);
    }
}

/// Reads `[backup]`; where nothing is said, backups are beside the database.
pub(super) fn read_backup(
    root: &mut Section<'_, '_>,
    store: Result<&StoreConfig, Noted>,
) -> Result<BackupConfig, Noted> {
    let mut t = root.table("backup");
    let directory = t.text_optional("directory", "backups beside the database", parse_path);
    let interval = t.duration_optional("interval", "none is scheduled", Span::SCHEDULE);
    let keep = t.count("keep", 7, (1, 10_000));
    let passphrase_file = t.text_optional("passphrase_file", "not encrypted", |text| {
        parse_secret_file(text, PASSPHRASE_BYTES_MIN)
    });
    let include_master_key = t.boolean("include_master_key", false);
    if let (Ok(true), Ok(None)) = (include_master_key, &passphrase_file) {
        let message = "needs passphrase_file: whoever had such a backup in the clear would hold \
                       every key";
        t.error("include_master_key", message.into());
    }
    t.finish();
    let directory = match directory? {
        Some(written) => written,
        None => beside(&store?.path, "backups"),
    };
    Ok(BackupConfig {
        directory,
        interval: interval?,
        keep: keep?,
        passphrase_file: passphrase_file?,
        include_master_key: include_master_key?,
    })
}
