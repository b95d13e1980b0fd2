//! What links the entries, and what is wrong when they are not linked.
//!
//! Knows bytes and numbers, neither the database nor what an entry says; an export is verified by
//! the same code as the table.

use super::{ENCODING, Mac, Point};
use crate::secret::ChainKey;

/// Most faults a [`Report`] names.
pub const FAULTS_MAX: usize = 20;

/// The MAC of the entry `seq` that says `bytes` and comes after the one with the MAC `previous`.
pub(super) fn link(key: &ChainKey, previous: &Mac, seq: u64, bytes: &[u8]) -> Mac {
    let parts = [b"entry\0".as_slice(), previous.as_bytes(), &seq.to_be_bytes(), bytes];
    Mac::from_bytes(key.mac(&parts))
}

/// A place in the chain with what proves that latchkey noted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// The place.
    pub point: Point,
    /// Of an anchor: the first entry that was broken when it was removed.
    pub broken_at: Option<u64>,
    /// The proof.
    pub proof: Mac,
}

/// A head or an anchor, as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// There is none.
    Absent,
    /// Latchkey did not write this.
    Forged,
    /// Latchkey wrote this.
    Authentic(Proven),
}

impl Seal {
    /// What latchkey wrote.
    #[must_use]
    pub fn authentic(&self) -> Option<Proven> {
        match self {
            Self::Authentic(proven) => Some(*proven),
            Self::Absent | Self::Forged => None,
        }
    }

    /// `proven`, if its proof holds for a head, or else for an anchor.
    #[must_use]
    pub fn of_export(proven: Proven, is_head: bool, key: &ChainKey) -> Self {
        let which = if is_head { super::HEAD } else { super::ANCHOR };
        let proof = prove(key, which, proven.point, proven.broken_at);
        if proof == proven.proof { Self::Authentic(proven) } else { Self::Forged }
    }

    /// What `stored` is.
    pub(super) fn open(stored: Option<&[u8]>, which: &'static [u8], key: &ChainKey) -> Self {
        let Some(stored) = stored else { return Self::Absent };
        match parse(stored) {
            Some(proven) if seal(key, which, proven.point, proven.broken_at) == stored => {
                Self::Authentic(proven)
            }
            Some(_) | None => Self::Forged,
        }
    }
}

/// The stored form of a head or an anchor: encoding, number, MAC, fault, proof.
pub(super) fn seal(
    key: &ChainKey,
    which: &'static [u8],
    point: Point,
    broken_at: Option<u64>,
) -> Vec<u8> {
    let proof = prove(key, which, point, broken_at);
    let mut bytes = vec![ENCODING];
    bytes.extend(point.seq.to_be_bytes());
    bytes.extend(point.mac.as_bytes());
    bytes.extend(broken_at.unwrap_or(0).to_be_bytes());
    bytes.extend(proof.as_bytes());
    bytes
}

fn prove(key: &ChainKey, which: &'static [u8], point: Point, broken_at: Option<u64>) -> Mac {
    // Numbers begin at 1, so 0 is free to say that nothing was broken.
    let (seq, broken_at) = (point.seq.to_be_bytes(), broken_at.unwrap_or(0).to_be_bytes());
    let label: &[u8] = if which == super::HEAD { b"head\0" } else { b"anchor\0" };
    Mac::from_bytes(key.mac(&[label, &seq, point.mac.as_bytes(), &broken_at]))
}

fn parse(stored: &[u8]) -> Option<Proven> {
    let rest = stored.strip_prefix(&[ENCODING])?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (mac, rest) = rest.split_first_chunk::<32>()?;
    let (broken_at, rest) = rest.split_first_chunk::<8>()?;
    let proof = <[u8; 32]>::try_from(rest).ok()?;
    let point = Point { seq: u64::from_be_bytes(*seq), mac: Mac::from_bytes(*mac) };
    let broken_at = Some(u64::from_be_bytes(*broken_at)).filter(|seq| *seq != 0);
    Some(Proven { point, broken_at, proof: Mac::from_bytes(proof) })
}

/// Something that latchkey did not do to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An entry says something else than when it was written, or stands where another stood.
    #[error("entry {seq} was altered, moved or inserted")]
    Altered {
        /// Its number.
        seq: u64,
    },
    /// Entries are gone.
    #[error("entries {from} to {to} are missing")]
    Missing {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// There is an entry after the last one that was written.
    #[error("entry {seq} comes after the end of the log: its end was put back or taken away")]
    AfterEnd {
        /// Its number.
        seq: u64,
    },
    /// What says where the log ends is not latchkey's, or gone.
    #[error("the mark of the log's end was altered or removed (after entry {seq})")]
    End {
        /// The last entry found.
        seq: u64,
    },
    /// What says where the log begins is not latchkey's.
    #[error("the mark of the log's beginning was altered (before entry {seq})")]
    Beginning {
        /// The first entry found, or 0.
        seq: u64,
    },
    /// Something was broken before retention removed it.
    #[error("entry {seq}, removed since by retention, had been altered or was missing")]
    BeforeBeginning {
        /// Its number.
        seq: u64,
    },
    /// The log holds something that is no entry.
    #[error("after entry {seq}: the log holds something that is no entry of latchkey")]
    Foreign {
        /// The last entry found before.
        seq: u64,
    },
    /// The log does not hold the expected head.
    #[error(
        "entry {seq} is not the expected one: the log was put back to an older state and written \
         anew, or is another log"
    )]
    Unexpected {
        /// Its number.
        seq: u64,
    },
    /// The log ends before the expected head.
    #[error(
        "the log ends before entry {seq}, which is expected: it was put back to an older state"
    )]
    PutBack {
        /// The expected entry.
        seq: u64,
    },
    /// The expected head is older than what retention keeps.
    #[error("entry {seq}, which is expected, was removed by retention: expect a newer one")]
    Forgotten {
        /// The expected entry.
        seq: u64,
    },
}

impl Fault {
    /// Where it is: the number of an entry.
    #[must_use]
    pub const fn seq(self) -> u64 {
        match self {
            Self::Altered { seq }
            | Self::AfterEnd { seq }
            | Self::End { seq }
            | Self::Beginning { seq }
            | Self::BeforeBeginning { seq }
            | Self::Foreign { seq }
            | Self::Unexpected { seq }
            | Self::PutBack { seq }
            | Self::Forgotten { seq } => seq,
            Self::Missing { from, .. } => from,
        }
    }

    /// Its kind, in one word.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Altered { .. } => "altered",
            Self::Missing { .. } => "missing",
            Self::AfterEnd { .. } => "after_end",
            Self::End { .. } => "end",
            Self::Beginning { .. } => "beginning",
            Self::BeforeBeginning { .. } => "before_beginning",
            Self::Foreign { .. } => "foreign",
            Self::Unexpected { .. } => "unexpected",
            Self::PutBack { .. } => "put_back",
            Self::Forgotten { .. } => "forgotten",
        }
    }
}

/// What a walk along the chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many entries there are.
    pub entries: u64,
    /// The number of the first one.
    pub first: Option<u64>,
    /// The last one's place in the chain, if that is proven.
    pub head: Option<Point>,
    /// What is wrong, up to [`FAULTS_MAX`] of it; empty: nothing is.
    pub faults: Vec<Fault>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Walks along the chain, from the anchor over the entries to the head.
pub struct Chain {
    key: ChainKey,
    expected: Option<Point>,
    /// The number that comes next.
    next: u64,
    /// The MAC that the next entry is chained to; `None` after a gap.
    previous: Option<Mac>,
    last: Option<Point>,
    first: Option<u64>,
    entries: u64,
    faults: Vec<Fault>,
}

impl Chain {
    /// At the beginning of a log, which `anchor` tells.
    #[must_use]
    pub fn new(key: ChainKey, anchor: Seal, expected: Option<Point>) -> Self {
        let mut chain = Self {
            key,
            expected,
            next: 1,
            previous: Some(Mac::ZERO),
            last: None,
            first: None,
            entries: 0,
            faults: Vec::new(),
        };
        match anchor {
            Seal::Absent => {}
            Seal::Forged => {
                chain.faults.push(Fault::Beginning { seq: 0 });
                chain.previous = None;
            }
            Seal::Authentic(Proven { point, broken_at, .. }) => {
                chain.faults.extend(broken_at.map(|seq| Fault::BeforeBeginning { seq }));
                chain.next = point.seq.saturating_add(1);
                chain.previous = Some(point.mac);
                chain.meet(point);
            }
        }
        chain
    }

    /// The next entry: its MAC and bytes, `None` if there are none where they should be.
    pub fn entry(&mut self, seq: u64, found: Option<(Mac, &[u8])>) {
        self.entries = self.entries.saturating_add(1);
        if self.first.is_none() {
            self.first = Some(seq);
        }
        self.follow(seq);
        let Some((mac, bytes)) = found else {
            self.fault(Fault::Altered { seq });
            self.previous = None;
            self.last = Some(Point { seq, mac: Mac::ZERO });
            return;
        };
        if let Some(previous) = self.previous
            && link(&self.key, &previous, seq, bytes) != mac
        {
            self.fault(Fault::Altered { seq });
        }
        self.previous = Some(mac);
        let point = Point { seq, mac };
        self.last = Some(point);
        self.meet(point);
    }

    /// Something that is no entry.
    pub fn foreign(&mut self) {
        let seq = self.next.saturating_sub(1);
        self.fault(Fault::Foreign { seq });
    }

    /// At the end of the log, which `head` tells.
    #[must_use]
    pub fn finish(mut self, head: Seal) -> Report {
        let end = self.next.saturating_sub(1);
        match head {
            Seal::Absent if end == 0 && self.faults.is_empty() => {}
            Seal::Absent | Seal::Forged => self.fault(Fault::End { seq: end }),
            Seal::Authentic(Proven { point, .. }) => {
                if point.seq > end {
                    self.fault(Fault::Missing { from: self.next, to: point.seq });
                } else if point.seq < end {
                    self.fault(Fault::AfterEnd { seq: point.seq.saturating_add(1) });
                } else if self.previous.is_some_and(|mac| mac != point.mac) {
                    self.fault(Fault::Altered { seq: end });
                }
            }
        }
        self.compare(end);
        let head = head.authentic().map(|proven| proven.point);
        Report { entries: self.entries, first: self.first, head, faults: self.faults }
    }

    /// The entry of the first fault.
    pub(super) fn first_fault(&self) -> Option<u64> {
        self.faults.first().map(|fault| fault.seq().max(1))
    }

    /// Moves on to `seq`; numbers that were skipped are missing.
    fn follow(&mut self, seq: u64) {
        if seq < self.next {
            // Only an export can be out of order.
            self.fault(Fault::Altered { seq });
        } else if seq > self.next {
            let unknown_beginning = self.faults.contains(&Fault::Beginning { seq: 0 });
            if !unknown_beginning || self.last.is_some() {
                self.fault(Fault::Missing { from: self.next, to: seq.saturating_sub(1) });
            }
            self.previous = None;
        }
        self.next = seq.saturating_add(1);
    }

    /// Holds a proven place against the expected one.
    fn meet(&mut self, point: Point) {
        if let Some(expected) = self.expected.filter(|expected| expected.seq == point.seq) {
            self.expected = None;
            if expected.mac != point.mac {
                self.fault(Fault::Unexpected { seq: point.seq });
            }
        }
    }

    /// An expected place that was not met.
    fn compare(&mut self, end: u64) {
        let Some(Point { seq, .. }) = self.expected.take() else { return };
        if seq > end {
            self.fault(Fault::PutBack { seq });
        } else if self.first.is_none_or(|first| seq < first) {
            self.fault(Fault::Forgotten { seq });
        } else {
            self.fault(Fault::Unexpected { seq });
        }
    }

    fn fault(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}
