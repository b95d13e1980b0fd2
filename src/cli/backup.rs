//! `backup`, `restore` and `verify`.
//!
//! Backups are made by the admin API, with or without a server. Checking one needs neither, and
//! restoring one needs the database to be nobody's: both are done here, on files.

use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::args::{BackupCommand, PassphraseArgs, RestoreArgs, VerifyArgs};
use super::client::{Client, request, require_no_server};
use super::exit::{Exit, Failure};
use super::follow::{JSON, follow};
use super::output::{Column, Output};
use super::progress::{Bar, Unit};
use super::start;
use super::transfer::Partial;
use crate::admin::Caller;
use crate::admin::operations::backups::{PASSPHRASE_BYTES, note_restored};
use crate::clock::SystemClock;
use crate::config::{Config, Sources, read_secret_file};
use crate::secret::{SecretText, SystemEntropy};
use crate::store::backup::{
    self as store_backup, BackupError, Progress, RestoreOptions, Restored, Verified,
};
use crate::store::{StoreError, master_key};

const LIST: [Column; 6] = [
    Column("BACKUP", "name"),
    Column("MADE", "created_at"),
    Column("BYTES", "bytes"),
    Column("ENCRYPTED", "encrypted"),
    Column("SCHEDULED", "scheduled"),
    Column("STATE", "state"),
];

const SHOW: [Column; 9] = [
    Column("Backup", "name"),
    Column("Made", "created_at"),
    Column("Bytes", "bytes"),
    Column("Shops", "shops"),
    Column("Keys", "keys"),
    Column("Encrypted", "encrypted"),
    Column("Includes master key", "includes_master_key"),
    Column("Version", "version"),
    Column("State", "state"),
];

/// `backup`, but for what needs no server.
pub(super) async fn run(
    command: &BackupCommand,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        BackupCommand::Create { file, passphrase, include_master_key } => {
            let passphrase = passphrase.read(Asked::Twice)?;
            let body = json!({
                "passphrase": passphrase.as_ref().map(SecretText::expose),
                "include_master_key": include_master_key,
            });
            match file {
                None => create(client, output, &body).await,
                Some(file) => create_file(client, output, &body, file, passphrase.as_ref()).await,
            }
        }
        BackupCommand::List => {
            let answer = client.get("/backups").await?;
            let items = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            output.list(&LIST, &items, "No backups. Make one: latchkey backup create")
        }
        BackupCommand::Fetch { name, file } => {
            let file = file.as_deref().unwrap_or(Path::new(name));
            let (mut to, mut bar) = (Partial::new(file)?, Bar::stderr());
            let written = &mut |piece: &[u8]| {
                to.write(piece)?;
                bar.set("fetching", Unit::Bytes, to.bytes, 0);
                Ok(())
            };
            let path = format!("/backups/{name}");
            client.download(&path, written).await?;
            drop(bar);
            finish(to, file, None, output)
        }
        BackupCommand::Delete { name, yes: _ } => {
            let path = format!("/backups/{name}");
            let answer = client.call(Method::DELETE, &path, None).await?;
            output.done(&format!("Deleted {name}."), &answer)
        }
        // Dispatched before a client was made.
        BackupCommand::Verify(_) => Ok(()),
    }
}

async fn create(client: &Client, output: &mut Output, body: &Value) -> Result<(), Failure> {
    let mut bar = Bar::stderr();
    let told = &mut |phase: &str, done, total| bar.set(phase, Unit::Records, done, total);
    let body = (JSON, body.to_string().into());
    let answer = follow(client, "/backups", body, told).await;
    drop(bar);
    output.item(&SHOW, &answer?)
}

async fn create_file(
    client: &Client,
    output: &mut Output,
    body: &Value,
    file: &Path,
    passphrase: Option<&SecretText>,
) -> Result<(), Failure> {
    let (mut to, mut bar) = (Partial::new(file)?, Bar::stderr());
    let written = &mut |piece: &[u8]| {
        to.write(piece)?;
        bar.set("writing", Unit::Bytes, to.bytes, 0);
        Ok(())
    };
    let asked = request(Method::POST, "/backups/stream", Some(body))?;
    client.receive(asked, written).await?;
    drop(bar);
    finish(to, file, passphrase, output)
}

/// What arrived is read again before it gets its name.
fn finish(
    mut to: Partial<'_>,
    path: &Path,
    passphrase: Option<&SecretText>,
    output: &mut Output,
) -> Result<(), Failure> {
    let (arrived, bytes) = (to.reopen()?, to.bytes);
    let verified = check(arrived, bytes, passphrase).map_err(|error| failure(path, &error))?;
    to.finish()?;
    output.item(&SHOW, &shown(path, &verified, "good"))
}

/// `verify`.
pub(super) fn verify(
    args: &VerifyArgs,
    sources: &Sources,
    output: &mut Output,
) -> Result<(), Failure> {
    let config = crate::config::load(sources).ok();
    let given = args.passphrase.read(Asked::Once)?;
    let configured = config.as_ref().and_then(configured_passphrase);
    let path = &args.file;
    let open = || File::open(path).map_err(BackupError::Read);
    let read = |passphrase: Option<&SecretText>| {
        let file = open()?;
        let bytes = file.metadata().map_err(BackupError::Read)?.len();
        check(file, bytes, passphrase)
    };
    let verified = match (&given, &configured) {
        (Some(_), _) => read(given.as_ref()),
        (None, Some(_)) => match read(configured.as_ref()) {
            // It was made under another one.
            Err(BackupError::WrongPassphrase) => read(None),
            result => result,
        },
        (None, None) => read(None),
    };
    let verified = verified.map_err(|error| failure(path, &error))?;
    let key = config.and_then(|config| master_key::load(&config.store.master_key_file).ok());
    let belongs = key.and_then(|key| verified.belongs_to(&key));
    let state = match (verified.opened, belongs) {
        (false, _) => "good by its checksums; it was not opened: give its passphrase for that",
        (true, None) => "good",
        (true, Some(true)) => "good, and belongs to the master key here",
        (true, Some(false)) => "good, and belongs to another master key than the one here",
    };
    output.item(&SHOW, &shown(path, &verified, state))
}

fn check(file: File, bytes: u64, passphrase: Option<&SecretText>) -> Result<Verified, BackupError> {
    let mut bar = Bar::stderr();
    store_backup::verify(BufReader::new(file), bytes, passphrase, &mut |progress: Progress| {
        bar.set("verifying", Unit::Bytes, progress.done, progress.total);
        ControlFlow::Continue(())
    })
}

fn shown(path: &Path, verified: &Verified, state: &str) -> Value {
    let header = &verified.header;
    json!({
        "name": path.display().to_string(),
        "created_at": header.created_at(),
        "bytes": verified.bytes,
        "shops": header.rows("shops"),
        "keys": header.rows("keys"),
        "encrypted": header.is_encrypted(),
        "includes_master_key": header.includes_master_key,
        "version": header.version,
        "schema": header.schema,
        "state": state,
        "opened": verified.opened,
    })
}

/// `restore`.
pub(super) fn restore(
    args: &RestoreArgs,
    sources: &Sources,
    output: &mut Output,
) -> Result<(), Failure> {
    let config = start::load(sources)?;
    start::runtime()?.block_on(require_no_server(&config))?;
    let given = args.passphrase.read(Asked::Once)?;
    let passphrase = given.or_else(|| configured_passphrase(&config));
    let options = RestoreOptions {
        backup: &args.file,
        passphrase: passphrase.as_ref(),
        store: &config.store.path,
        master_key_file: &config.store.master_key_file,
        force: args.force,
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy::new()),
    };
    let mut bar = Bar::stderr();
    let restored = store_backup::restore(&options, &mut |progress: Progress| {
        bar.set("restoring", Unit::Bytes, progress.done, progress.total);
        ControlFlow::Continue(())
    });
    drop(bar);
    let restored = restored.map_err(|error| failure(&args.file, &error))?;
    tell(&config, &restored, output)?;
    // As the server will open it, and with a word about it in the audit log.
    let node = start::open_node(config)?;
    note_restored(&node, &Caller::in_process(), &restored.header)
        .map_err(|error| Failure::new(Exit::Store, error.to_string()))
}

fn tell(config: &Config, restored: &Restored, output: &mut Output) -> Result<(), Failure> {
    let mut lines = vec![format!(
        "Restored {} as it was at {}. Start the server: latchkey serve",
        config.store.path.display(),
        restored.header.created_at()
    )];
    if let Some(replaced) = &restored.replaced {
        lines.push(format!("The database that was there is {} now.", replaced.display()));
    }
    if restored.master_key_written {
        let path = config.store.master_key_file.display();
        lines.push(format!("The master key was in the backup, and is in {path} now."));
    }
    let answer = json!({
        "store": config.store.path.display().to_string(),
        "created_at": restored.header.created_at(),
        "schema": restored.header.schema,
        "replaced": restored.replaced.as_ref().map(|path| path.display().to_string()),
        "master_key_written": restored.master_key_written,
    });
    output.done(&lines.join("\n"), &answer)
}

fn configured_passphrase(config: &Config) -> Option<SecretText> {
    let file = config.backup.passphrase_file.as_deref()?;
    read_secret_file(file).ok()
}

/// How often a passphrase is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    /// For a new one: a slip would lock everybody out.
    Twice,
}

impl PassphraseArgs {
    fn read(&self, asked: Asked) -> Result<Option<SecretText>, Failure> {
        let passphrase = match &self.passphrase_file {
            Some(file) => {
                let read = read_secret_file(file);
                read.map_err(|problem| Failure::new(Exit::Usage, problem))?
            }
            None if self.passphrase => ask("Passphrase: ")?,
            None => return Ok(None),
        };
        if asked == Asked::Once {
            return Ok(Some(passphrase));
        }
        let (min, max) = PASSPHRASE_BYTES;
        if !(min..=max).contains(&passphrase.expose().len()) {
            let message = format!("the passphrase is not from {min} to {max} bytes long");
            return Err(Failure::new(Exit::Usage, message));
        }
        if self.passphrase && ask("Once more: ")?.expose() != passphrase.expose() {
            return Err(Failure::new(Exit::Usage, "the two passphrases differ"));
        }
        Ok(Some(passphrase))
    }
}

fn ask(prompt: &str) -> Result<SecretText, Failure> {
    let typed = rpassword::prompt_password(prompt);
    typed.map(SecretText::new).map_err(|error| {
        let message = format!("no passphrase could be asked for: {error}");
        Failure::new(Exit::Usage, message).hint("without a terminal, use --passphrase-file")
    })
}

fn failure(path: &Path, error: &BackupError) -> Failure {
    let exit = match error {
        BackupError::NotABackup
        | BackupError::FormatNewer { .. }
        | BackupError::SchemaNewer { .. }
        | BackupError::Truncated { .. }
        | BackupError::Damaged { .. }
        | BackupError::KdfTooCostly
        | BackupError::WrongPassphrase
        | BackupError::PassphraseNeeded => Exit::CheckFailed,
        BackupError::Store(StoreError::Locked { .. }) => Exit::Refused,
        BackupError::Store(_)
        | BackupError::Exists { .. }
        | BackupError::NoMasterKey { .. }
        | BackupError::WrongMasterKey { .. }
        | BackupError::MasterKey(_)
        | BackupError::Place { .. } => Exit::Store,
        BackupError::RowTooLarge { .. }
        | BackupError::Read(_)
        | BackupError::Write(_)
        | BackupError::Stopped
        | BackupError::Entropy(_) => Exit::Failure,
    };
    Failure::new(exit, format!("{}: {error}", path.display()))
}
