use std::io::BufReader;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::testing::{Bench, audit_record as record, dump, master_key};
use super::*;
use crate::store::Store;

/// What somebody with the file does to it.
type Change = fn(&mut WriteTx) -> Result<(), StoreError>;

/// A store with the entries 1 to `entries`, of which retention has removed those up to `pruned`.
fn filled(entries: u64, pruned: u64) -> Bench {
    let bench = Bench::in_memory();
    let written = bench.store.write::<_, StoreError>(|tx| {
        for n in 1..=entries {
            assert_eq!(tx.append_audit(&record(n))?, n);
        }
        tx.prune_audit(record(pruned + 1).at, later())
    });
    assert_eq!(written.unwrap(), usize::try_from(pruned).unwrap());
    bench
}

/// After everything that happened, unless a clock was wrong.
fn later() -> Timestamp {
    record(100).at
}

fn verify(store: &Store) -> Report {
    store.read(|tx| tx.verify_audit(None)).unwrap()
}

fn head(store: &Store) -> Point {
    store.read(ReadTx::audit_head).unwrap().unwrap()
}

fn kinds(report: &Report) -> Vec<(&'static str, u64)> {
    report.faults.iter().map(|fault| (fault.kind(), fault.seq())).collect()
}

/// What the table holds, in the order of its keys.
fn table(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = dump(store).into_iter().filter(|((table, _), _)| *table == "audit");
    all.map(|((_, key), value)| (key, value)).collect()
}

/// Changes the table as somebody with the file would.
fn tamper(store: &Store, change: impl FnOnce(&mut WriteTx) -> Result<(), StoreError>) {
    store.write(change).unwrap();
}

fn key(seq: u64) -> [u8; 8] {
    seq.to_be_bytes()
}

fn value(store: &Store, key: &[u8]) -> Vec<u8> {
    table(store).into_iter().find(|(k, _)| k == key).unwrap().1
}

#[test]
fn entries_are_read_as_written_and_the_chain_is_intact() {
    let bench = filled(5, 0);
    let report = verify(&bench.store);
    assert!(report.is_intact(), "{report:?}");
    assert_eq!((report.entries, report.first), (5, Some(1)));
    assert_eq!(report.head, Some(head(&bench.store)));
    let mut seen = Vec::new();
    let visited = bench.store.read(|tx| {
        tx.visit_audit_back(Some(5), |link| {
            assert_eq!(link.record(), Some(record(link.seq)));
            seen.push(link.seq);
            if link.seq == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    visited.unwrap();
    assert_eq!(seen, [4, 3, 2]);
    let links = bench.store.read(|tx| tx.audit_links(3, 9)).unwrap();
    assert_eq!(links.iter().map(|link| link.seq).collect::<Vec<_>>(), [4, 5]);
    let bench = bench.reopen();
    assert!(verify(&bench.store).is_intact());
}

#[test]
fn an_empty_log_is_intact_and_has_no_head() {
    let bench = Bench::in_memory();
    let report = verify(&bench.store);
    assert!(report.is_intact() && report.head.is_none() && report.entries == 0);
}

#[test]
fn times_keep_their_milliseconds_in_the_stored_text() {
    let bench = filled(1, 0);
    let text = String::from_utf8(value(&bench.store, &key(1))[33..].to_vec()).unwrap();
    assert!(text.starts_with("{\"at\":\"2023-11-15T22:13:20.123Z\",\"actor\":{"), "{text}");
}

/// Computed apart from this code (HKDF and HMAC of Python): this may never change, or no log of an
/// earlier build verifies any more.
#[test]
fn the_chain_of_encoding_1_is_verified() {
    let at = head(&filled(1, 0).store);
    let mac = "39a956f4411f05ae7e3ae038f2d65ed8b47e788593f30fdeff95b2506f9547ce";
    assert_eq!(at.to_string(), format!("1:{mac}"));
}

#[test]
fn an_entry_says_where_it_was_tampered_with() {
    for (what, change, expected) in [
        (
            "altered",
            (|tx| {
                let mut entry = tx.audit_links(2, 1)?.remove(0);
                let at = entry.bytes.iter().position(|b| *b == b'n').unwrap();
                entry.bytes[at] = b'm';
                let value = [&[ENCODING], entry.mac.as_bytes().as_slice(), &entry.bytes].concat();
                tx.insert(schema::AUDIT, &key(3), &value)
            }) as Change,
            vec![("altered", 3)],
        ),
        ("removed", |tx| tx.remove(schema::AUDIT, &key(3)).map(drop), vec![("missing", 3)]),
        ("first removed", |tx| tx.remove(schema::AUDIT, &key(1)).map(drop), vec![("missing", 1)]),
        ("last removed", |tx| tx.remove(schema::AUDIT, &key(6)).map(drop), vec![("missing", 6)]),
        ("head removed", |tx| tx.remove(schema::AUDIT, HEAD).map(drop), vec![("end", 6)]),
        ("stranger", |tx| tx.insert(schema::AUDIT, b"zz", b"x"), vec![("foreign", 6)]),
    ] {
        let bench = filled(6, 0);
        tamper(&bench.store, change);
        assert_eq!(kinds(&verify(&bench.store)), expected, "{what}");
    }
}

#[test]
fn swapped_entries_show() {
    let bench = filled(6, 2);
    let (four, five) = (value(&bench.store, &key(4)), value(&bench.store, &key(5)));
    tamper(&bench.store, |tx| {
        tx.insert(schema::AUDIT, &key(4), &five)?;
        tx.insert(schema::AUDIT, &key(5), &four)
    });
    assert_eq!(verify(&bench.store).faults.first().map(|fault| fault.seq()), Some(4));
}

#[test]
fn a_log_put_back_shows_only_against_a_head_from_elsewhere() {
    let old = filled(3, 0);
    let bench = filled(5, 0);
    let noted = head(&bench.store);
    // Everything of the older state, its head too.
    let older = table(&old.store);
    tamper(&bench.store, |tx| {
        tx.remove(schema::AUDIT, &key(4))?;
        tx.remove(schema::AUDIT, &key(5))?;
        older.iter().try_for_each(|(key, value)| tx.insert(schema::AUDIT, key, value))
    });
    assert!(verify(&bench.store).is_intact(), "this the chain cannot show");
    let against = |expected| bench.store.read(|tx| tx.verify_audit(Some(expected))).unwrap();
    assert_eq!(kinds(&against(noted)), [("put_back", 5)]);
    let past = Point { seq: 2, ..noted };
    assert_eq!(kinds(&against(past)), [("unexpected", 2)]);
    // Written anew over the same numbers.
    bench
        .store
        .write::<_, StoreError>(|tx| {
            (10..20).try_for_each(|n| tx.append_audit(&record(n)).map(drop))
        })
        .unwrap();
    assert!(verify(&bench.store).is_intact());
    assert_eq!(kinds(&against(noted)), [("unexpected", 5)]);
}

#[test]
fn an_expected_head_is_found_at_the_anchor_and_forgotten_before_it() {
    let bench = filled(9, 0);
    let links = bench.store.read(|tx| tx.audit_links(0, 9)).unwrap();
    let pruned =
        bench.store.write::<_, StoreError>(|tx| tx.prune_audit(record(5).at, later())).unwrap();
    assert_eq!(pruned, 4);
    for (link, expected) in links.iter().zip([
        vec![("forgotten", 1)],
        vec![("forgotten", 2)],
        vec![("forgotten", 3)],
        vec![],
        vec![],
        vec![],
        vec![],
        vec![],
        vec![],
    ]) {
        let point = Point { seq: link.seq, mac: link.mac };
        let report = bench.store.read(|tx| tx.verify_audit(Some(point))).unwrap();
        assert_eq!(kinds(&report), expected, "{}", link.seq);
    }
}

#[test]
fn what_is_appended_does_not_mend_a_log_that_was_cut() {
    let cuts: [Change; 4] = [
        |tx| tx.remove(schema::AUDIT, &key(6)).map(drop),
        |tx| tx.remove(schema::AUDIT, HEAD).map(drop),
        |tx| {
            tx.remove(schema::AUDIT, &key(6))?;
            tx.remove(schema::AUDIT, HEAD).map(drop)
        },
        |tx| tx.insert(schema::AUDIT, HEAD, &[1; 81]),
    ];
    for (n, cut) in cuts.into_iter().enumerate() {
        let bench = filled(6, 0);
        tamper(&bench.store, cut);
        for more in 7..10 {
            bench.store.write(|tx| tx.append_audit(&record(more)).map(drop)).unwrap();
        }
        let report = verify(&bench.store);
        assert_eq!(report.faults.len(), 1, "{n}: {report:?}");
        assert_eq!(report.faults[0].kind(), "missing", "{n}");
    }
    // An older head beside the newer entries: none of them is overwritten.
    let bench = filled(6, 0);
    let older = value(&filled(3, 0).store, HEAD);
    tamper(&bench.store, |tx| tx.insert(schema::AUDIT, HEAD, &older));
    assert_eq!(kinds(&verify(&bench.store)), [("after_end", 4)]);
    bench.store.write(|tx| tx.append_audit(&record(7)).map(drop)).unwrap();
    assert_eq!(kinds(&verify(&bench.store)), [("missing", 7)]);
    assert_eq!(verify(&bench.store).entries, 7);
}

#[test]
fn retention_keeps_the_rest_verifiable_down_to_nothing() {
    let bench = filled(10, 0);
    for kept_from in [3, 3, 7, 11] {
        let before = record(kept_from).at;
        bench.store.write::<_, StoreError>(|tx| tx.prune_audit(before, later())).unwrap();
        let report = verify(&bench.store);
        assert!(report.is_intact(), "{report:?}");
        assert_eq!(report.entries, 11 - kept_from);
        assert!(!bench.store.read(|tx| tx.audit_is_due(before)).unwrap());
    }
    let appended = bench.store.write::<_, StoreError>(|tx| tx.append_audit(&record(11))).unwrap();
    assert_eq!(appended, 11, "numbers go on");
    assert!(verify(&bench.reopen().store).is_intact());
}

#[test]
fn retention_does_not_sweep_away_that_something_was_broken() {
    let bench = filled(10, 0);
    tamper(&bench.store, |tx| tx.remove(schema::AUDIT, &key(3)).map(drop));
    bench.store.write::<_, StoreError>(|tx| tx.prune_audit(record(5).at, later())).unwrap();
    assert_eq!(kinds(&verify(&bench.store)), [("before_beginning", 3)]);
    bench.store.write::<_, StoreError>(|tx| tx.prune_audit(record(9).at, later())).unwrap();
    assert_eq!(kinds(&verify(&bench.store)), [("before_beginning", 3)]);
}

#[test]
fn what_is_no_entry_is_pruned_with_its_neighbours() {
    let bench = filled(6, 0);
    tamper(&bench.store, |tx| tx.insert(schema::AUDIT, &key(1), b"\x07"));
    assert!(bench.store.read(|tx| tx.audit_is_due(record(1).at)).unwrap());
    let pruned =
        bench.store.write::<_, StoreError>(|tx| tx.prune_audit(record(3).at, later())).unwrap();
    assert_eq!(pruned, 2);
    let report = verify(&bench.store);
    assert_eq!((kinds(&report), report.entries), (vec![("before_beginning", 1)], 4));
}

#[test]
fn clocks_that_jump_do_not_keep_old_entries() {
    let bench = Bench::in_memory();
    let days = [1, 2, 900, 3, 4];
    bench
        .store
        .write::<_, StoreError>(|tx| {
            days.iter().try_for_each(|n| tx.append_audit(&record(*n)).map(drop))
        })
        .unwrap();
    let pruned =
        bench.store.write::<_, StoreError>(|tx| tx.prune_audit(record(4).at, later())).unwrap();
    assert_eq!(pruned, 4, "the entry of day 900 was made before that of day 3");
    assert!(verify(&bench.store).is_intact());
}

/// A machine without a battery for its clock starts in 1970 each time.
#[test]
fn what_was_written_under_a_clock_set_back_takes_nothing_along() {
    let bench = Bench::in_memory();
    let days = [1, 2, 50, 51, 1, 52, 1];
    bench
        .store
        .write::<_, StoreError>(|tx| {
            days.iter().try_for_each(|n| tx.append_audit(&record(*n)).map(drop))
        })
        .unwrap();
    let prune = |tx: &mut WriteTx| tx.prune_audit(record(10).at, later());
    assert_eq!(bench.store.write::<_, StoreError>(prune).unwrap(), 2);
    assert_eq!(bench.store.write::<_, StoreError>(prune).unwrap(), 0);
    let report = verify(&bench.store);
    assert!(report.is_intact(), "{report:?}");
    assert_eq!((report.entries, report.first), (5, Some(3)));
}

#[test]
fn another_master_key_verifies_nothing() {
    let bench = filled(3, 0);
    let exported = exported(&bench.store);
    let key = master_key(2).chain_key();
    let report = export::verify(exported.as_slice(), &key, None).unwrap();
    assert!(!report.is_intact());
}

/// The log as an export has it.
fn exported(store: &Store) -> Vec<u8> {
    store
        .read(|tx| {
            let (head, anchor) = tx.audit_seals()?;
            let mut lines = export::first_line(anchor.authentic(), head.authentic());
            tx.audit_links(0, 999)?.iter().for_each(|link| lines.extend(export::line(link)));
            Ok(lines)
        })
        .unwrap()
}

#[test]
fn exports_are_verified_without_the_database() {
    let key = master_key(1).chain_key();
    let check = |lines: &[u8]| export::verify(BufReader::new(lines), &key, None);
    for (entries, pruned) in [(0, 0), (1, 0), (7, 0), (7, 3), (7, 7)] {
        let bench = filled(entries, pruned);
        let lines = exported(&bench.store);
        let report = check(&lines).unwrap();
        assert!(report.is_intact(), "{report:?}");
        assert_eq!(report, verify(&bench.store));
    }
    let bench = filled(7, 3);
    let whole = String::from_utf8(exported(&bench.store)).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let text = |lines: &[&str]| lines.join("\n") + "\n";
    for left_out in 1..lines.len() {
        let mut fewer = lines.clone();
        fewer.remove(left_out);
        assert!(!check(text(&fewer).as_bytes()).unwrap().is_intact(), "{left_out}");
    }
    let mut swapped = lines.clone();
    swapped.swap(2, 3);
    assert!(!check(text(&swapped).as_bytes()).unwrap().is_intact());
    let renamed = whole.replace("shop-5", "shop-6");
    assert_eq!(kinds(&check(renamed.as_bytes()).unwrap()), [("altered", 5)]);
    for bad in ["", "{}\n", "{\"format\":\"other\",\"anchor\":null,\"head\":null}\n", "x\n"] {
        assert!(check(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert!(check(whole.trim_end().as_bytes()).is_err(), "a line that is cut off");
}

#[test]
fn an_entry_that_breaks_its_line_is_left_out_of_an_export() {
    let link = AuditLink { seq: 1, mac: Mac::ZERO, bytes: b"{}\n{\"seq\":2}".to_vec() };
    let line = export::line(&link);
    let line = String::from_utf8(line).unwrap();
    assert_eq!(line.lines().count(), 1);
    assert!(line.contains("\"entry\":null"));
}

#[test]
fn points_are_spelt_one_way() {
    let mac = "0f".repeat(32);
    let point: Point = format!("7:{mac}").parse().unwrap();
    assert_eq!(point.to_string(), format!("7:{mac}"));
    for bad in ["", "7", ":", &format!("+7:{mac}"), &format!("7:{}", mac.to_uppercase()), "7:0f"] {
        assert_eq!(bad.parse::<Point>(), Err(PointError), "{bad:?}");
    }
}

/// One thing that somebody with the file may do to the table.
#[derive(Debug, Clone)]
enum Tampering {
    FlipValue {
        at: Index,
        byte: Index,
        bit: u8,
    },
    FlipKey {
        at: Index,
        byte: Index,
        bit: u8,
    },
    Shorten {
        at: Index,
        by: Index,
    },
    Lengthen {
        at: Index,
        byte: u8,
    },
    Remove {
        at: Index,
    },
    Swap {
        a: Index,
        b: Index,
    },
    /// A copy of one entry in the place of, or beside, the others.
    Copy {
        from: Index,
        to: u64,
    },
    Insert {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    /// Everything from an entry on is cut off.
    Truncate {
        from: Index,
    },
    /// The seal of another time, all else as it is.
    OlderSeal {
        head: bool,
    },
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let at = any::<Index>;
    prop_oneof![
        (at(), at(), 0..8_u8).prop_map(|(at, byte, bit)| Tampering::FlipValue { at, byte, bit }),
        (at(), at(), 0..8_u8).prop_map(|(at, byte, bit)| Tampering::FlipKey { at, byte, bit }),
        (at(), at()).prop_map(|(at, by)| Tampering::Shorten { at, by }),
        (at(), any::<u8>()).prop_map(|(at, byte)| Tampering::Lengthen { at, byte }),
        at().prop_map(|at| Tampering::Remove { at }),
        (at(), at()).prop_map(|(a, b)| Tampering::Swap { a, b }),
        (at(), 0..30_u64).prop_map(|(from, to)| Tampering::Copy { from, to }),
        (
            proptest::collection::vec(any::<u8>(), 1..10),
            proptest::collection::vec(any::<u8>(), 0..90)
        )
            .prop_map(|(key, value)| Tampering::Insert { key, value }),
        at().prop_map(|from| Tampering::Truncate { from }),
        any::<bool>().prop_map(|head| Tampering::OlderSeal { head }),
    ]
}

impl Tampering {
    fn run(&self, store: &Store, older: &[(Vec<u8>, Vec<u8>)]) {
        let rows = table(store);
        let row = |at: &Index| &rows[at.index(rows.len())];
        tamper(store, |tx| match self {
            Self::FlipValue { at, byte, bit } => {
                let (key, mut value) = row(at).clone();
                let byte = byte.index(value.len());
                value[byte] ^= 1 << bit;
                tx.insert(schema::AUDIT, &key, &value)
            }
            Self::FlipKey { at, byte, bit } => {
                let (mut key, value) = row(at).clone();
                tx.remove(schema::AUDIT, &key)?;
                let byte = byte.index(key.len());
                key[byte] ^= 1 << bit;
                tx.insert(schema::AUDIT, &key, &value)
            }
            Self::Shorten { at, by } => {
                let (key, value) = row(at);
                tx.insert(schema::AUDIT, key, &value[..by.index(value.len())])
            }
            Self::Lengthen { at, byte } => {
                let (key, mut value) = row(at).clone();
                value.push(*byte);
                tx.insert(schema::AUDIT, &key, &value)
            }
            Self::Remove { at } => tx.remove(schema::AUDIT, &row(at).0).map(drop),
            Self::Swap { a, b } => {
                let (a, b) = (row(a), row(b));
                tx.insert(schema::AUDIT, &a.0, &b.1)?;
                tx.insert(schema::AUDIT, &b.0, &a.1)
            }
            Self::Copy { from, to } => tx.insert(schema::AUDIT, &key(*to), &row(from).1),
            Self::Insert { key, value } => tx.insert(schema::AUDIT, key, value),
            Self::Truncate { from } => {
                let entries = rows.iter().filter(|(key, _)| seq_of(key).is_some());
                let from = from.index(rows.len() - 1);
                entries.skip(from).try_for_each(|(key, _)| tx.remove(schema::AUDIT, key).map(drop))
            }
            Self::OlderSeal { head } => {
                let which = if *head { HEAD } else { ANCHOR };
                match older.iter().find(|(key, _)| key == which) {
                    Some((key, value)) => tx.insert(schema::AUDIT, key, value),
                    None => tx.remove(schema::AUDIT, which).map(drop),
                }
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_single_change_of_the_table_is_found(
        entries in 1..12_u64,
        pruned in 0..12_u64,
        more in 0..3_u64,
        tampering in tampering(),
    ) {
        let bench = filled(entries, pruned.min(entries));
        let older = table(&bench.store);
        let grown = bench.store.write::<_, StoreError>(|tx| {
            (0..more).try_for_each(|n| tx.append_audit(&record(50 + n)).map(drop))
        });
        grown.unwrap();
        prop_assert!(verify(&bench.store).is_intact());
        let before = table(&bench.store);
        tampering.run(&bench.store, &older);
        let changed = table(&bench.store) != before;
        let report = verify(&bench.store);
        prop_assert_eq!(!report.is_intact(), changed, "{:?}", report);
        // And it stays found, whatever is appended.
        bench.store.write::<_, StoreError>(|tx| tx.append_audit(&record(60)).map(drop)).unwrap();
        prop_assert_eq!(!verify(&bench.store).is_intact(), changed);
    }
}
