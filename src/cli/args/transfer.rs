//! The commands that bring the whole store, or many records, in and out.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `backup`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum BackupCommand {
    /// Make a backup, while everything else goes on
    ///
    /// Without FILE it is kept in the server's folder of backups (`backup.directory`). It holds
    /// everything but sessions. Whoever restores it needs the master key too, which is in it only
    /// if you say so.
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// Write it here, with mode 0600, and keep none on the server
        file: Option<PathBuf>,
        /// What it is encrypted to
        #[command(flatten)]
        passphrase: PassphraseArgs,
        /// Put the master key in it; it must be encrypted
        #[arg(long)]
        include_master_key: bool,
    },
    /// List the backups of the server's folder
    List,
    /// Say whether a backup is whole and unaltered; exits with 0 or 7
    Verify(VerifyArgs),
    /// Fetch a backup from the server's folder
    Fetch {
        /// Its name, as `backup list` shows it
        name: String,
        /// Where to write it [default: its name, here]
        file: Option<PathBuf>,
    },
    /// Delete a backup from the server's folder
    Delete {
        /// Its name, as `backup list` shows it
        name: String,
        /// Do it; there is no way back
        #[arg(long, required = true)]
        yes: bool,
    },
}

const CREATE_EXAMPLES: &str = "\
Examples:
  latchkey backup create
  latchkey backup create /mnt/usb/latchkey.lkbackup --passphrase --include-master-key";

/// What opens a backup, or is to open it.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct PassphraseArgs {
    /// The passphrase is the content of this file [default: `backup.passphrase_file`]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) passphrase_file: Option<PathBuf>,
    /// Ask for the passphrase
    #[arg(long, conflicts_with = "passphrase_file")]
    pub(in crate::cli) passphrase: bool,
}

/// `verify` and `backup verify`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct VerifyArgs {
    /// The backup
    pub(in crate::cli) file: PathBuf,
    /// What opens it; without it, an encrypted backup is held to its checksums alone
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
}

/// `restore`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct RestoreArgs {
    /// The backup
    pub(in crate::cli) file: PathBuf,
    /// What opens it
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    /// Put it in the place of the database that is there, which is kept beside it
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

/// `import`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ImportArgs {
    /// The file; `-` for standard input
    pub(in crate::cli) file: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Overwrite shops and keys that are here and differ
    #[arg(long)]
    pub(in crate::cli) replace: bool,
}

/// `export`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ExportArgs {
    /// Write it here, with mode 0600 [default: standard output]
    pub(in crate::cli) file: Option<PathBuf>,
    /// Shops, and no keys
    #[arg(long)]
    pub(in crate::cli) shops: bool,
    /// Keys, and no shops
    #[arg(long, conflicts_with = "shops")]
    pub(in crate::cli) keys: bool,
}

pub(super) const RESTORE_EXAMPLES: &str = "\
Examples:
  latchkey restore latchkey-20270131T120000Z-3f9a01.lkbackup
  latchkey restore /mnt/usb/latchkey.lkbackup --passphrase --force

Stop the server first. What was revoked since the backup was made verifies again: revoke it anew.
Sessions are not in a backup: everybody signs in again.";

pub(super) const IMPORT_EXAMPLES: &str = "\
The file holds a JSON object per line, of one of these types:
  {\"type\":\"shop/1\",\"id\":\"acme\",\"url\":\"https://acme.example\"}
  {\"type\":\"key/1\",\"shop\":\"acme\",\"name\":\"production\",\"secret\":\"sk_...\"}
  {\"type\":\"key/1\",\"shop\":\"acme\",\"sha256\":\"<64 hex digits: SHA-256 of the key>\"}
A shop may have name, widget_origins, enabled, limits, created_at; a key may have id, name, start,
expires_at, grace_until, replaced_by, networks, limits, created_at, last_used_at. limits are
{\"<policy>\":{\"limit\":5,\"window_seconds\":60,\"burst\":5}}.

The whole file is checked first; if any line has a fault, all are told and nothing is changed.
Importing it again skips what is in already, and finishes an import that was interrupted. Up to
1,000 records go in as one; longer files in batches of that many. A file has 64 MiB at most.

Examples:
  latchkey import keys.jsonl --dry-run
  latchkey import keys.jsonl";

pub(super) const EXPORT_EXAMPLES: &str = "\
Secrets are not exported: nobody has them. A key comes with the digest that is stored of it, which
only a latchkey with the same master key can import. To move everything, make a backup.

Examples:
  latchkey export > all.jsonl
  latchkey export --shops shops.jsonl";
