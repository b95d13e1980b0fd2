//! `import` and `export`: JSON lines between a file and the admin API.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use super::args::{ExportArgs, ImportArgs};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::follow::{NDJSON, follow};
use super::output::{Output, find, show};
use super::progress::{Bar, Unit};
use crate::admin::operations::transfer::FILE_BYTES_MAX;

/// `import`.
pub(super) async fn import(
    args: &ImportArgs,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    let text = read(&args.file)?;
    let mut bar = Bar::stderr();
    let path = format!("/import?dry_run={}&replace={}", args.dry_run, args.replace);
    let told = &mut |phase: &str, done, total| {
        let unit = if phase == "checking" { Unit::Bytes } else { Unit::Records };
        bar.set(phase, unit, done, total);
    };
    let answer = follow(client, &path, (NDJSON, text), told).await;
    drop(bar);
    let answer = answer?;
    let line = |kind: &str| {
        let count = |what: &str| show(find(&answer, &format!("{kind}.{what}")));
        let (created, replaced, unchanged) =
            (count("created"), count("replaced"), count("unchanged"));
        format!("{kind}: {created} new, {replaced} overwritten, {unchanged} here already")
    };
    let done = if args.dry_run { "Nothing was changed. It would be:" } else { "Imported." };
    output.done(&format!("{done}\n{}\n{}", line("shops"), line("keys")), &answer)
}

fn read(path: &Path) -> Result<Bytes, Failure> {
    let unread = |error: io::Error| {
        let message = format!("{} cannot be read: {error}", path.display());
        Failure::new(Exit::Failure, message)
    };
    let limit = FILE_BYTES_MAX as u64 + 1;
    let mut text = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut text).map_err(unread)?;
    } else {
        File::open(path).map_err(unread)?.take(limit).read_to_end(&mut text).map_err(unread)?;
    }
    if text.len() > FILE_BYTES_MAX {
        let message = format!("{} is longer than {} MiB", path.display(), FILE_BYTES_MAX >> 20);
        return Err(Failure::new(Exit::Usage, message).hint("split it: lines may come in any file"));
    }
    Ok(text.into())
}

/// `export`.
pub(super) async fn export(
    args: &ExportArgs,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    let path = format!("/export?shops={}&keys={}", !args.keys, !args.shops);
    let Some(file) = &args.file else {
        return client.download(&path, &mut |piece| output.bytes(piece)).await;
    };
    let mut bar = Bar::stderr();
    let mut to = Partial::new(file)?;
    let written = &mut |piece: &[u8]| {
        to.write(piece)?;
        bar.set("exporting", Unit::Bytes, to.bytes, 0);
        Ok(())
    };
    client.download(&path, written).await?;
    drop(bar);
    to.finish()?;
    output.done(&format!("Exported to {}.", file.display()), &Value::Null)
}

/// A file of mode 0600 that appears once it is whole.
pub(super) struct Partial<'p> {
    path: &'p Path,
    file: tempfile::NamedTempFile,
    pub(super) bytes: u64,
}

impl<'p> Partial<'p> {
    /// It must not exist.
    pub(super) fn new(path: &'p Path) -> Result<Self, Failure> {
        if path.exists() {
            let message = format!("{} is there already", path.display());
            return Err(Failure::new(Exit::Failure, message).hint("choose another name"));
        }
        let directory = path.parent().filter(|d| !d.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(".latchkey-").tempfile_in(directory);
        let file = file.map_err(|error| unwritten(path, &error))?;
        Ok(Self { path, file, bytes: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.file.write_all(bytes).map_err(|error| unwritten(self.path, &error))
    }

    /// What was written, to be read again.
    pub(super) fn reopen(&mut self) -> Result<File, Failure> {
        self.file.flush().and_then(|()| self.file.reopen()).map_err(|e| unwritten(self.path, &e))
    }

    /// Gives it its name.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let Self { path, file, .. } = self;
        let failed = |error: &io::Error| unwritten(path, error);
        file.as_file().sync_all().map_err(|error| failed(&error))?;
        file.persist_noclobber(path).map_err(|error| failed(&error.error))?;
        let directory = path.parent().filter(|d| !d.as_os_str().is_empty());
        let directory = File::open(directory.unwrap_or(Path::new(".")));
        directory.and_then(|directory| directory.sync_all()).map_err(|error| failed(&error))
    }
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    let message = format!("{} cannot be written: {error}", path.display());
    Failure::new(Exit::Failure, message).hint("check the disk and its free space")
}
