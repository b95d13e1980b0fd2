//! Reading a backup: from its first byte to its last, each thing checked before it is believed.

use std::io::Read;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::crypt::{Stream, TAG_BYTES};
use super::format::{self, Fields, Source};
use super::write::Report;
use super::{BackupError, Header, Progress};
use crate::secret::{MasterKey, Purpose, SecretText};
use crate::store::schema::{self, CURRENT, META, META_CHECK};

/// Something that a backup holds, in the order in which it comes.
pub(super) enum Item<'i> {
    Header(&'i Header),
    MasterKey(MasterKey),
    Row { table: &'static str, key: &'i [u8], value: &'i [u8] },
}

/// A backup that was read to its end and is as it was written.
#[derive(Debug, Clone)]
pub struct Verified {
    /// What it says of itself.
    pub header: Header,
    /// How long it is.
    pub bytes: u64,
    /// Whether what it holds was opened; without its passphrase only its checksums were compared.
    pub opened: bool,
    check: Vec<u8>,
}

impl Verified {
    /// Whether its rows belong to `master_key`; `None` if it was not opened.
    #[must_use]
    pub fn belongs_to(&self, master_key: &MasterKey) -> Option<bool> {
        self.opened.then(|| is_check_of(&self.check, master_key))
    }
}

/// Whether `check` is what a database of `master_key` holds as its check.
pub(super) fn is_check_of(check: &[u8], master_key: &MasterKey) -> bool {
    check.ct_eq(master_key.derive(Purpose::Check).expose().as_slice()).into()
}

/// What the backup says of itself; the rest of it is not looked at.
pub fn header_of(mut from: impl Read) -> Result<Header, BackupError> {
    Source::new(&mut from).header().map(|(header, _)| header)
}

/// Reads a backup of `total` bytes to its end. An encrypted one without `passphrase` is held
/// against its checksums alone.
pub fn verify(
    mut from: impl Read,
    total: u64,
    passphrase: Option<&SecretText>,
    report: Report<'_>,
) -> Result<Verified, BackupError> {
    let mut check = Vec::new();
    let (header, bytes) = read_all(&mut from, total, Key::of(passphrase), report, &mut |item| {
        if let Item::Row { table, key, value } = item
            && table == schema::name(META)
            && key == META_CHECK
        {
            check = value.to_vec();
        }
        Ok(())
    })?;
    let opened = passphrase.is_some() || !header.is_encrypted();
    Ok(Verified { header, bytes, opened, check })
}

/// What there is to open sealed chunks with.
#[derive(Clone, Copy)]
pub(super) enum Key<'k> {
    Passphrase(&'k SecretText),
    /// Nothing, and they may stay sealed.
    MayStaySealed,
    /// Nothing; an encrypted backup is an error.
    None,
}

impl<'k> Key<'k> {
    fn of(passphrase: Option<&'k SecretText>) -> Self {
        passphrase.map_or(Self::MayStaySealed, Self::Passphrase)
    }
}

/// Reads everything; what is visited may be believed only once this has returned.
pub(super) fn read_all(
    from: &mut dyn Read,
    total: u64,
    key: Key<'_>,
    report: Report<'_>,
    visit: &mut dyn FnMut(Item<'_>) -> Result<(), BackupError>,
) -> Result<(Header, u64), BackupError> {
    let mut source = Source::new(from);
    let (header, digest) = source.header()?;
    if header.schema > CURRENT.version {
        let (found, known) = (header.schema, CURRENT.version);
        return Err(BackupError::SchemaNewer { found, known });
    }
    visit(Item::Header(&header))?;
    let stream = match (&header.encryption, key) {
        (Some(sealing), Key::Passphrase(text)) => Some(sealing.stream(text, digest)?),
        (None, _) | (Some(_), Key::MayStaySealed) => None,
        (Some(_), Key::None) => return Err(BackupError::PassphraseNeeded),
    };
    let mut contents = Contents {
        sealed: header.is_encrypted() && stream.is_none(),
        stream,
        rows: vec![0; header.tables.len()],
        ended: false,
    };
    let mut chunk = Zeroizing::new(Vec::new());
    let mut count = 0;
    loop {
        let last = source.chunk(&mut chunk)?;
        contents.chunk(&source, &header, (count, last), &mut chunk, visit)?;
        count += 1;
        BackupError::unless_stopped(report(Progress { done: source.bytes, total }))?;
        if last {
            break;
        }
    }
    source.trailer(count)?;
    BackupError::unless_stopped(report(Progress { done: source.bytes, total }))?;
    if !contents.sealed {
        let told = header.tables.iter().map(|table| table.rows);
        if !contents.ended || !told.eq(contents.rows.iter().copied()) {
            return Err(source.damaged("it holds another number of rows than it says"));
        }
    }
    Ok((header, source.bytes))
}

/// What is known of the chunks so far.
struct Contents {
    stream: Option<Stream>,
    /// They are encrypted, and there is nothing to open them with.
    sealed: bool,
    /// Rows of each table of the header.
    rows: Vec<u64>,
    ended: bool,
}

impl Contents {
    fn chunk(
        &mut self,
        source: &Source<'_>,
        header: &Header,
        (number, last): (u64, bool),
        chunk: &mut Vec<u8>,
        visit: &mut dyn FnMut(Item<'_>) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        if self.sealed {
            if chunk.len() <= TAG_BYTES {
                return Err(source.damaged("a chunk is too short to be sealed"));
            }
            return Ok(());
        }
        if let Some(stream) = &self.stream {
            stream.open(number, last, chunk)?;
        }
        let mut fields = Fields(chunk);
        let broken = || source.damaged("a chunk does not parse");
        let [kind] = fields.array().ok_or_else(broken)?;
        if last != (kind == format::END) {
            return Err(source.damaged("its last chunk is not its end"));
        }
        match kind {
            format::ROWS => self.rows(source, header, fields, visit),
            format::MASTER_KEY => {
                let text = std::str::from_utf8(fields.0).ok();
                let key = text.and_then(MasterKey::parse).ok_or_else(broken)?;
                if !header.includes_master_key || self.stream.is_none() {
                    return Err(source.damaged("it holds a key that it does not speak of"));
                }
                visit(Item::MasterKey(key))
            }
            format::END => {
                let total: u64 = self.rows.iter().sum();
                let told = fields.array().map(u64::from_be_bytes);
                self.ended = told == Some(total) && fields.0.is_empty();
                Ok(())
            }
            _ => Err(source.damaged("a chunk is of no known kind")),
        }
    }

    fn rows(
        &mut self,
        source: &Source<'_>,
        header: &Header,
        mut fields: Fields<'_>,
        visit: &mut dyn FnMut(Item<'_>) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let broken = || source.damaged("a chunk does not parse");
        let name = fields.name().ok_or_else(broken)?;
        let told = header.tables.iter().position(|table| table.name == name);
        let counted = told.and_then(|at| self.rows.get_mut(at));
        let known = schema::TABLES.map(schema::name).into_iter().find(|known| *known == name);
        let (Some(counted), Some(table)) = (counted, known) else {
            return Err(source.damaged("it holds a table that it does not speak of"));
        };
        while !fields.0.is_empty() {
            let key = fields.field().ok_or_else(broken)?;
            let value = fields.field().ok_or_else(broken)?;
            visit(Item::Row { table, key, value })?;
            *counted += 1;
        }
        Ok(())
    }
}
