use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::id::{KeyId, ShopId};
use crate::secret::{MasterKey, SecretText, SystemEntropy};
use crate::store::testing::{
    self, Bench, Dump, KEY, admin_token, assertion_key, dump, key, key_set, made, master_key, shop,
    signing_key, token,
};
use crate::store::{Store, StoreError, WriteTx, master_key as key_file};

/// What a test can wait for.
const CHEAP: KdfCost = KdfCost { memory_kib: 8, iterations: 1, lanes: 1 };

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn text(passphrase: &str) -> SecretText {
    SecretText::new(passphrase.to_owned())
}

fn sealed(master_key: Option<MasterKey>) -> Encryption {
    Encryption { passphrase: text("correct horse"), cost: CHEAP, master_key }
}

fn options(encryption: Option<Encryption>) -> CreateOptions {
    CreateOptions { created_at: Timestamp::from_unix_ms(1_234), scheduled: false, encryption }
}

fn fill(tx: &mut WriteTx) -> Result<(), StoreError> {
    tx.put_shop(&shop("one"))?;
    tx.put_key(&key(7, "one"))?;
    tx.put_token(&token(2, "one", 5))?;
    tx.put_admin_token(&admin_token(3))?;
    tx.put_key_set(&key_set("main"))?;
    tx.put_idempotency(&[5; 32], &made(6))?;
    tx.put_signing_key(&signing_key(1))?;
    tx.put_assertion_key(&assertion_key(1))
}

fn filled() -> Bench {
    let bench = Bench::in_memory();
    bench.store.write(fill).unwrap();
    bench
}

fn bytes_of(store: &Store, encryption: Option<Encryption>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let made = store.back_up(&mut bytes, &options(encryption), &SystemEntropy::new(), &mut go_on);
    assert_eq!(made.unwrap().bytes, bytes.len() as u64);
    bytes
}

fn check(bytes: &[u8], passphrase: Option<&str>) -> Result<Verified, BackupError> {
    let passphrase = passphrase.map(text);
    verify(bytes, bytes.len() as u64, passphrase.as_ref(), &mut go_on)
}

/// A machine to restore on.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn with_key(byte: u8) -> Self {
        let machine = Self::new();
        key_file::write(&machine.at("master.key"), &master_key(byte)).unwrap();
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "backup").collect();
        names.sort();
        names
    }

    fn restore(
        &self,
        bytes: &[u8],
        passphrase: Option<&str>,
        force: bool,
    ) -> Result<Restored, BackupError> {
        fs::write(self.at("backup"), bytes).unwrap();
        let passphrase = passphrase.map(text);
        let options = RestoreOptions {
            backup: &self.at("backup"),
            passphrase: passphrase.as_ref(),
            store: &self.at("latchkey.redb"),
            master_key_file: &self.at("master.key"),
            force,
            clock: Arc::new(ManualClock::default()),
            entropy: Arc::new(SystemEntropy::new()),
        };
        restore(&options, &mut go_on)
    }

    fn open(&self) -> Store {
        let key = key_file::load(&self.at("master.key")).unwrap();
        testing::open_file(&self.at("latchkey.redb"), key).unwrap()
    }
}

#[test]
fn what_is_restored_is_what_was_there() {
    let bench = filled();
    let before = dump(&bench.store);
    for (encryption, passphrase) in [(None, None), (Some(sealed(None)), Some("correct horse"))] {
        let bytes = bytes_of(&bench.store, encryption);
        let verified = check(&bytes, passphrase).unwrap();
        assert_eq!(verified.belongs_to(&master_key(1)), Some(true));
        assert_eq!(verified.belongs_to(&master_key(2)), Some(false));
        assert_eq!(verified.header.rows("shops"), 1);
        assert_eq!(verified.header.rows("sessions"), 0);
        assert_eq!(verified.header.created_at(), Timestamp::from_unix_ms(1_234));
        let machine = Machine::with_key(1);
        let restored = machine.restore(&bytes, passphrase, false).unwrap();
        assert_eq!((restored.replaced, restored.master_key_written), (None, false));
        assert_eq!(machine.names(), ["latchkey.redb", "master.key"]);
        let mode = fs::metadata(machine.at("latchkey.redb")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let store = machine.open();
        assert!(dump(&store) == before);
        assert_eq!(store.read(ReadKeys::keys).unwrap(), [*KEY, *KEY]);
        store.write(fill).unwrap();
    }
}

/// What is sealed in the database.
struct ReadKeys;

impl ReadKeys {
    fn keys(tx: &crate::store::ReadTx) -> Result<Vec<[u8; 32]>, StoreError> {
        let signing = tx.signing_keys()?.into_iter().map(|key| *key.key.expose());
        let asserting = tx.assertion_keys()?.into_iter().map(|key| *key.seed.expose());
        Ok(signing.chain(asserting).collect())
    }
}

#[test]
fn every_altered_byte_is_found() {
    let bench = filled();
    for (encryption, passphrase) in
        [(None, None), (Some(sealed(Some(master_key(1)))), Some("correct horse"))]
    {
        let good = bytes_of(&bench.store, encryption);
        check(&good, passphrase).unwrap();
        check(&good, None).unwrap();
        let mut bytes = good.clone();
        for at in 0..good.len() {
            for flip in [1, 0x80] {
                bytes[at] ^= flip;
                // Without the passphrase too: the checksums are over what is stored.
                assert!(check(&bytes, None).is_err(), "byte {at}");
                bytes[at] ^= flip;
            }
        }
        for at in (0..good.len()).step_by(97).chain(good.len() - 120..good.len()) {
            bytes[at] ^= 4;
            assert!(check(&bytes, passphrase).is_err(), "byte {at}");
            bytes[at] ^= 4;
        }
        for len in 0..good.len() {
            assert!(check(&good[..len], None).is_err(), "{len} bytes");
        }
        bytes.push(0);
        assert!(matches!(check(&bytes, None), Err(BackupError::Damaged { .. })));
    }
}

#[test]
fn a_damaged_backup_restores_nothing() {
    let bench = filled();
    let good = bytes_of(&bench.store, None);
    let machine = Machine::with_key(1);
    let old = machine.open();
    old.write(|tx| tx.put_shop(&shop("old"))).unwrap();
    let before = dump(&old);
    drop(old);
    let mut bytes = good.clone();
    for at in (0..good.len()).step_by(211).chain([good.len() - 1]) {
        bytes[at] ^= 1;
        machine.restore(&bytes, None, true).unwrap_err();
        bytes[at] ^= 1;
    }
    for len in (0..good.len()).step_by(389).chain([good.len() - 1]) {
        machine.restore(&good[..len], None, true).unwrap_err();
    }
    assert_eq!(machine.names(), ["latchkey.redb", "master.key"]);
    assert!(dump(&machine.open()) == before);
    let fresh = Machine::with_key(1);
    fresh.restore(&good[..good.len() - 1], None, false).unwrap_err();
    assert_eq!(fresh.names(), ["master.key"]);
}

#[test]
fn the_passphrase_opens_it_and_no_other() {
    let bench = filled();
    let bytes = bytes_of(&bench.store, Some(sealed(None)));
    assert!(!check(&bytes, None).unwrap().opened);
    for wrong in ["", "correct horsf", "correct horse "] {
        let error = check(&bytes, Some(wrong)).unwrap_err();
        assert!(matches!(error, BackupError::WrongPassphrase), "{error}");
    }
    let machine = Machine::with_key(1);
    let error = machine.restore(&bytes, None, false).unwrap_err();
    assert!(matches!(error, BackupError::PassphraseNeeded), "{error}");
    let error = machine.restore(&bytes, Some("other"), false).unwrap_err();
    assert!(matches!(error, BackupError::WrongPassphrase), "{error}");
    assert_eq!(machine.names(), ["master.key"]);
}

#[test]
fn the_master_key_comes_along_only_when_it_is_included() {
    let bench = filled();
    let without = bytes_of(&bench.store, Some(sealed(None)));
    let with = bytes_of(&bench.store, Some(sealed(Some(master_key(1)))));
    let pass = Some("correct horse");
    let machine = Machine::new();
    let error = machine.restore(&without, pass, false).unwrap_err();
    assert!(matches!(error, BackupError::NoMasterKey { .. }), "{error}");
    assert_eq!(machine.names(), [""; 0]);
    assert!(machine.restore(&with, pass, false).unwrap().master_key_written);
    assert!(dump(&machine.open()) == dump(&bench.store));
    // Another key that is there stays, and nothing is put beside it.
    for backup in [&without, &with] {
        let machine = Machine::with_key(2);
        let error = machine.restore(backup, pass, false).unwrap_err();
        assert!(matches!(error, BackupError::WrongMasterKey { .. }), "{error}");
        assert_eq!(machine.names(), ["master.key"]);
    }
}

#[test]
fn nothing_secret_is_in_it_in_the_clear() {
    let bench = filled();
    let key_text = master_key(1).to_text();
    let finds = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|w| w == part);
    for encryption in [None, Some(sealed(Some(master_key(1))))] {
        let is_sealed = encryption.is_some();
        let bytes = bytes_of(&bench.store, encryption);
        for secret in [key_text.expose().as_bytes(), &[1; 32], KEY, b"correct horse"] {
            assert!(!finds(&bytes, secret));
        }
        assert_eq!(finds(&bytes, b"https://shop.example"), !is_sealed);
    }
}

#[test]
fn a_database_that_is_there_is_kept_or_stays() {
    let bench = filled();
    let bytes = bytes_of(&bench.store, None);
    let machine = Machine::with_key(1);
    let old = machine.open();
    let error = machine.restore(&bytes, None, true).unwrap_err();
    assert!(matches!(error, BackupError::Store(StoreError::Locked { .. })), "{error}");
    old.write(|tx| tx.put_shop(&shop("old"))).unwrap();
    drop(old);
    let error = machine.restore(&bytes, None, false).unwrap_err();
    assert!(matches!(error, BackupError::Exists { .. }), "{error}");
    let replaced = machine.restore(&bytes, None, true).unwrap().replaced.unwrap();
    assert!(dump(&machine.open()) == dump(&bench.store));
    let old = testing::open_file(&replaced, master_key(1)).unwrap();
    let found = old.read(|tx| tx.shop(&ShopId::parse("old").unwrap())).unwrap();
    assert!(found.is_some());
}

#[test]
fn a_damaged_database_can_be_replaced() {
    let bench = filled();
    let bytes = bytes_of(&bench.store, None);
    for rest in [&b""[..], b"no database at all"] {
        let machine = Machine::with_key(1);
        fs::write(machine.at("latchkey.redb"), rest).unwrap();
        let replaced = machine.restore(&bytes, None, true).unwrap().replaced.unwrap();
        assert_eq!(fs::read(replaced).unwrap(), rest);
        assert!(dump(&machine.open()) == dump(&bench.store));
    }
}

/// A backup whose header was changed and digested anew, as another latchkey would write it.
fn with_header(change: impl FnOnce(&mut Header), rows: &[(&str, &[u8], &[u8])]) -> Vec<u8> {
    let mut header = Header {
        created_at_ms: 1,
        version: "0.0.1".to_owned(),
        schema: schema::CURRENT.version,
        commit: 1,
        scheduled: false,
        includes_master_key: false,
        tables: Vec::new(),
        encryption: None,
    };
    for (table, _, _) in rows {
        match header.tables.iter_mut().find(|t| t.name == *table) {
            Some(known) => known.rows += 1,
            None => header.tables.push(TableRows { name: (*table).to_owned(), rows: 1 }),
        }
    }
    change(&mut header);
    let mut bytes = Vec::new();
    let mut sink = format::Sink::new(&mut bytes);
    sink.header(&header).unwrap();
    let mut chunk = Vec::new();
    for (table, key, value) in rows {
        format::begin_rows(&mut chunk, table);
        format::add_row(&mut chunk, key, value).unwrap();
        sink.chunk(false, &chunk).unwrap();
    }
    let mut end = vec![format::END];
    end.extend_from_slice(&(rows.len() as u64).to_be_bytes());
    sink.chunk(true, &end).unwrap();
    sink.trailer(rows.len() as u64 + 1).unwrap();
    bytes
}

fn meta(version: &[u8]) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let check = master_key(1).derive(crate::secret::Purpose::Check).expose().to_vec();
    vec![
        ("meta", schema::META_CHECK.to_vec(), check),
        ("meta", schema::META_SCHEMA.to_vec(), version.to_vec()),
    ]
}

fn borrowed<'b>(rows: &'b [(&'b str, Vec<u8>, Vec<u8>)]) -> Vec<(&'b str, &'b [u8], &'b [u8])> {
    rows.iter().map(|(t, k, v)| (*t, k.as_slice(), v.as_slice())).collect()
}

#[test]
fn an_older_schema_is_brought_forward_and_a_newer_one_refused() {
    // As a latchkey of schema 0 would have written it: primary tables alone.
    let bench = filled();
    let mut rows = meta(&[0; 4]);
    for ((table, key), value) in dump(&bench.store)
        .into_iter()
        .filter(|((table, _), _)| ["shops", "keys", "tokens", "idempotency"].contains(table))
    {
        rows.push((table, key, value));
    }
    let bytes = with_header(|header| header.schema = 0, &borrowed(&rows));
    let machine = Machine::with_key(1);
    assert_eq!(machine.restore(&bytes, None, false).unwrap().header.schema, 0);
    assert_eq!(machine.names(), ["latchkey.redb", "master.key"]);
    let store = machine.open();
    let one = ShopId::parse("one").unwrap();
    let keys = store.read(|tx| tx.keys_of_shop(&one, None, 9)).unwrap();
    assert_eq!(keys, [key(7, "one")]);

    let newer = schema::CURRENT.version + 1;
    let rows = meta(&newer.to_be_bytes());
    let bytes = with_header(|header| header.schema = newer, &borrowed(&rows));
    for error in [
        check(&bytes, None).unwrap_err(),
        Machine::with_key(1).restore(&bytes, None, false).unwrap_err(),
    ] {
        assert!(matches!(error, BackupError::SchemaNewer { .. }), "{error}");
    }
    // It says one schema and holds another.
    let rows = meta(&[0; 4]);
    let error = Machine::with_key(1).restore(&with_header(|_| (), &borrowed(&rows)), None, false);
    assert!(matches!(error, Err(BackupError::Damaged { .. })));
}

#[test]
fn what_no_latchkey_wrote_is_refused() {
    let mut future = bytes_of(&filled().store, None);
    future[9] = 2;
    assert!(matches!(check(&future, None), Err(BackupError::FormatNewer { found: 2 })));
    assert!(matches!(check(b"", None), Err(BackupError::NotABackup)));
    assert!(matches!(check(b"PK\x03\x04and more", None), Err(BackupError::NotABackup)));
    let shape = schema::CURRENT.version.to_be_bytes();
    let rows = meta(&shape);
    let rows = borrowed(&rows);
    check(&with_header(|_| (), &rows), None).unwrap();
    for change in [
        (|header: &mut Header| header.tables[0].rows += 1) as fn(&mut Header),
        |header| header.tables[0].name = "meat".to_owned(),
        |header| header.tables.push(TableRows { name: "shops".to_owned(), rows: 1 }),
        |header| header.tables.clear(),
    ] {
        let error = check(&with_header(change, &rows), None).unwrap_err();
        assert!(matches!(error, BackupError::Damaged { .. }), "{error}");
    }
    let error = check(&with_header(|_| (), &[("strange", b"k", b"v")]), None).unwrap_err();
    assert!(matches!(error, BackupError::Damaged { .. }), "{error}");
    // Nobody makes us spend more than we are ready to.
    let dear = KdfCost { memory_kib: u32::MAX, iterations: 1, lanes: 1 };
    let dear = crypt::Sealing::new(dear, &SystemEntropy::new()).unwrap();
    let bytes = with_header(|header| header.encryption = Some(dear), &rows);
    assert!(matches!(check(&bytes, Some("x")), Err(BackupError::KdfTooCostly)));
}

#[test]
fn a_full_disk_leaves_no_file() {
    /// Takes so many bytes.
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.0);
            self.0 -= n;
            match n {
                0 => Err(io::ErrorKind::StorageFull.into()),
                n => Ok(n),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let bench = filled();
    let len = bytes_of(&bench.store, None).len();
    for room in 0..len {
        let entropy = SystemEntropy::new();
        let made = bench.store.back_up(&mut Full(room), &options(None), &entropy, &mut go_on);
        assert!(matches!(made, Err(BackupError::Write(_))), "{room}");
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("b");
    let entropy = SystemEntropy::new();
    create(&bench.store, &path, &options(None), &entropy, &mut go_on).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = create(&bench.store, &path, &options(None), &entropy, &mut go_on);
    assert!(matches!(again, Err(BackupError::Write(_))), "what is there stays");
    bench.disk.fail_reads(true);
    let other = directory.path().join("c");
    let failed = create(&bench.store, &other, &options(None), &entropy, &mut go_on);
    if failed.is_err() {
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

/// Each writer adds a key and a token at once; a backup of any moment has as many of both.
#[test]
fn a_backup_is_one_moment_while_others_write() {
    let bench = Bench::in_memory();
    bench.store.write(|tx| tx.put_shop(&shop("one"))).unwrap();
    let store = &bench.store;
    std::thread::scope(|scope| {
        for writer in 0..3_u64 {
            scope.spawn(move || {
                for n in 0..60 {
                    let id = writer * 1_000 + n;
                    let written: Result<(), StoreError> = store.write(|tx| {
                        tx.put_key(&key(id, "one"))?;
                        tx.put_token(&token(id.into(), "one", 9))
                    });
                    written.unwrap();
                }
            });
        }
        for _ in 0..20 {
            let header = check(&bytes_of(store, None), None).unwrap().header;
            assert_eq!(header.rows("keys"), header.rows("tokens"));
            assert_eq!(header.rows("keys"), header.rows("keys_by_shop"));
            assert_eq!(header.commit, 1 + header.rows("keys"));
        }
    });
    assert_eq!(check(&bytes_of(store, None), None).unwrap().header.rows("keys"), 180);
}

#[test]
fn whoever_wants_it_no_more_is_heard() {
    let bench = filled();
    let entropy = SystemEntropy::new();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("b");
    let stop = &mut |_| ControlFlow::Break(());
    let made = create(&bench.store, &path, &options(None), &entropy, stop);
    assert!(matches!(made, Err(BackupError::Stopped)));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn progress_only_moves_on_and_ends() {
    let bench = Bench::in_memory();
    let put: Result<(), StoreError> = bench.store.write(|tx| {
        tx.put_shop(&shop("one"))?;
        (0..2_000).try_for_each(|n| tx.put_key(&key(n, "one")))
    });
    put.unwrap();
    let last = Cell::new(Progress { done: 0, total: 0 });
    let follow = |progress: Progress| {
        assert!(progress.done >= last.get().done && progress.done <= progress.total);
        last.set(progress);
        ControlFlow::Continue(())
    };
    let mut bytes = Vec::new();
    let entropy = SystemEntropy::new();
    bench.store.back_up(&mut bytes, &options(None), &entropy, &mut { follow }).unwrap();
    assert!(last.get().done > 4_000 && last.get().done == last.get().total);
    last.set(Progress { done: 0, total: 0 });
    verify(&*bytes, bytes.len() as u64, None, &mut { follow }).unwrap();
    assert_eq!(last.get().done, bytes.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_store_survives_the_way_out_and_in(
        shops in prop::collection::btree_set("[a-z][a-z0-9_-]{0,20}", 0..5),
        keys in prop::collection::btree_map(any::<u64>(), (0..5_usize, 0..3_000_usize), 0..40),
        encrypted in any::<bool>(),
    ) {
        let shops: Vec<String> = shops.into_iter().filter(|id| id != "me").collect();
        let bench = Bench::in_memory();
        let filled: Result<(), StoreError> = bench.store.write(|tx| {
            for id in &shops {
                tx.put_shop(&shop(id))?;
            }
            for (id, (of, len)) in &keys {
                let Some(of) = shops.get(*of) else { continue };
                let mut record = key(*id, of);
                record.id = KeyId(*id);
                record.name = "n".repeat(*len);
                tx.put_key(&record)?;
            }
            Ok(())
        });
        filled.unwrap();
        let before: Dump = dump(&bench.store);
        let bytes = bytes_of(&bench.store, encrypted.then(|| sealed(None)));
        let machine = Machine::with_key(1);
        machine.restore(&bytes, encrypted.then_some("correct horse"), false).unwrap();
        prop_assert!(dump(&machine.open()) == before);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut file = format::MAGIC.to_vec();
        file.extend_from_slice(&FORMAT.to_be_bytes());
        file.extend_from_slice(&bytes);
        prop_assert!(check(&bytes, None).is_err());
        prop_assert!(check(&file, None).is_err());
    }
}
