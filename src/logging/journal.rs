//! Levels as the journal knows them: `journalctl -p err` then finds errors.
//!
//! Where standard error is the journal, each event begins with its level as `sd-daemon(3)` has it,
//! which the journal takes away again. Anywhere else, nothing is added.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::queue::{Line, Queue};

/// The queue, to which events are handed with their level if the journal is to know it.
#[derive(Debug)]
pub(super) struct Levelled {
    queue: Queue,
    is_journal: bool,
}

impl Levelled {
    /// For a queue to standard error.
    pub(super) fn new(queue: Queue) -> Self {
        let named = std::env::var("JOURNAL_STREAM").ok();
        let is_journal = named.zip(standard_error()).is_some_and(|(named, own)| named == own);
        Self { queue, is_journal }
    }
}

/// Device and inode of standard error, as `JOURNAL_STREAM` has them: a program that this one was
/// started by may have sent it elsewhere.
fn standard_error() -> Option<String> {
    let metadata = std::fs::metadata("/proc/self/fd/2").ok()?;
    Some(format!("{}:{}", metadata.dev(), metadata.ino()))
}

impl<'a> MakeWriter<'a> for Levelled {
    type Writer = Prefixed<'a>;

    fn make_writer(&'a self) -> Prefixed<'a> {
        Prefixed { line: self.queue.make_writer(), prefix: "" }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Prefixed<'a> {
        let prefix = if self.is_journal { prefix(*event.level()) } else { "" };
        Prefixed { line: self.queue.make_writer(), prefix }
    }
}

fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Takes one event, which comes in one piece.
#[derive(Debug)]
pub(super) struct Prefixed<'a> {
    line: Line<'a>,
    prefix: &'static str,
}

impl io::Write for Prefixed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.prefix.is_empty() {
            return self.line.write(bytes);
        }
        let whole = [self.prefix.as_bytes(), bytes].concat();
        self.line.write_all(&whole)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.line.flush()
    }
}
