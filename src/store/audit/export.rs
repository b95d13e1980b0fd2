//! The log as JSON lines, and the same verified again without the database.
//!
//! The first line tells where the log begins and ends, each further one is an entry with its
//! exact bytes and its MAC. With the master key that is all [`verify`] needs.

use std::io::{self, BufRead, Read as _};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chain::{Chain, Proven, Report, Seal};
use super::{AuditLink, Mac, Point};
use crate::secret::ChainKey;

/// Longest line, in bytes; an entry is far shorter.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// The format that the first line names.
const FORMAT: &str = "latchkey-audit/1";

/// Why an export cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It could not be read.
    #[error("line {line} could not be read: {detail}")]
    Io {
        /// The line.
        line: u64,
        /// What the operating system said.
        detail: io::Error,
    },
    /// A line is none of an export.
    #[error("line {line} is no line of an audit export: {detail}")]
    Line {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        detail: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct First {
    format: String,
    anchor: Option<Place>,
    head: Option<Place>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Place {
    seq: u64,
    mac: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broken_at: Option<u64>,
    proof: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line<'l> {
    seq: u64,
    mac: String,
    #[serde(borrow)]
    entry: Option<&'l RawValue>,
}

impl Place {
    fn of(proven: Proven) -> Self {
        Self {
            seq: proven.point.seq,
            mac: proven.point.mac.to_string(),
            broken_at: proven.broken_at,
            proof: proven.proof.to_string(),
        }
    }

    fn proven(&self) -> Option<Proven> {
        let point = Point { seq: self.seq, mac: Mac::parse(&self.mac)? };
        Some(Proven { point, broken_at: self.broken_at, proof: Mac::parse(&self.proof)? })
    }
}

/// The first line, with its line break.
#[must_use]
pub fn first_line(anchor: Option<Proven>, head: Option<Proven>) -> Vec<u8> {
    let line = First {
        format: FORMAT.to_owned(),
        anchor: anchor.map(Place::of),
        head: head.map(Place::of),
    };
    finished(serde_json::to_vec(&line))
}

/// The line of an entry, with its line break. Bytes that are no JSON, or break the line, are left
/// out: they are none that latchkey wrote.
#[must_use]
pub fn line(link: &AuditLink) -> Vec<u8> {
    let whole = std::str::from_utf8(&link.bytes).ok().filter(|text| !text.contains(['\n', '\r']));
    let entry = whole.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    // A raw value is without the white space around it, and what latchkey wrote has none.
    let entry = entry.filter(|entry| entry.get().len() == link.bytes.len());
    finished(serde_json::to_vec(&Line { seq: link.seq, mac: link.mac.to_string(), entry }))
}

fn finished(line: serde_json::Result<Vec<u8>>) -> Vec<u8> {
    // Numbers, texts and raw JSON: this does not fail.
    let mut line = line.unwrap_or_default();
    line.push(b'\n');
    line
}

/// Verifies an export, in bounded memory.
pub fn verify(
    export: impl BufRead,
    key: &ChainKey,
    expected: Option<Point>,
) -> Result<Report, ExportError> {
    let mut lines = Lines { export, number: 0, buffer: Vec::new() };
    let first = lines.next_line()?.map(serde_json::from_slice::<First>);
    let first = match first {
        Some(Ok(head)) if head.format == FORMAT => head,
        Some(Ok(head)) => return Err(lines.wrong(format!("its format is `{}`", head.format))),
        Some(Err(error)) => return Err(lines.wrong(error.to_string())),
        None => return Err(lines.wrong("it is empty".to_owned())),
    };
    let seal = |place: Option<&Place>, is_head| match place.map(Place::proven) {
        None => Seal::Absent,
        Some(None) => Seal::Forged,
        Some(Some(proven)) => Seal::of_export(proven, is_head, key),
    };
    let mut chain = Chain::new(key.clone(), seal(first.anchor.as_ref(), false), expected);
    while let Some(bytes) = lines.next_line()? {
        match serde_json::from_slice::<Line<'_>>(bytes) {
            Ok(line) => {
                let found = line.entry.map(|entry| entry.get().as_bytes());
                chain.entry(line.seq, Mac::parse(&line.mac).zip(found));
            }
            Err(error) => return Err(lines.wrong(error.to_string())),
        }
    }
    Ok(chain.finish(seal(first.head.as_ref(), true)))
}

/// Lines of bounded length.
struct Lines<R> {
    export: R,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its line break; `None` at the end.
    fn next_line(&mut self) -> Result<Option<&[u8]>, ExportError> {
        self.number += 1;
        self.buffer.clear();
        let mut bounded = (&mut self.export).take(LINE_BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|detail| ExportError::Io { line: self.number, detail })?;
        if read == 0 {
            return Ok(None);
        }
        match self.buffer.strip_suffix(b"\n") {
            Some(line) => Ok(Some(line)),
            None => Err(ExportError::Line {
                line: self.number,
                detail: "it is cut off or too long".to_owned(),
            }),
        }
    }

    fn wrong(&self, detail: String) -> ExportError {
        ExportError::Line { line: self.number, detail }
    }
}
