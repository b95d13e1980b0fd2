//! What the store's tests share: sample records, and a disk that fails when told to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use redb::StorageBackend;

use super::audit::{AuditActor, AuditRecord, AuditSubject};
use super::file::Files;
use super::operators::{OidcSubject, OperatorRecord, PasswordHash, SessionRecord, TotpRecord};
use super::records::{
    AdminTokenRecord, AssertionKeyRecord, IdempotencyRecord, KeyRecord, KeySetRecord, LimitRecord,
    Role, ShopRecord, SigningKeyRecord, TokenRecord,
};
use super::schema::{self, CURRENT};
use super::{Store, StoreError, StoreOptions};
use crate::clock::{ManualClock, Timestamp};
use crate::id::{AdminTokenId, KeyId, Name, OperatorId, SessionId, ShopId, TokenId};
use crate::secret::{Digest, MasterKey, SecretBytes, SystemEntropy};

/// The signing key of the samples.
pub(super) const KEY: &[u8; 32] = b"never in the clear in any file!!";

/// The master key whose every byte is `byte`.
pub(super) fn master_key(byte: u8) -> MasterKey {
    struct Same(u8);
    impl crate::secret::Entropy for Same {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), crate::secret::EntropyError> {
            bytes.fill(self.0);
            Ok(())
        }
    }
    MasterKey::generate(&Same(byte)).unwrap()
}

pub(super) fn shop(id: &str) -> ShopRecord {
    ShopRecord {
        id: ShopId::parse(id).unwrap(),
        name: "Käse & Söhne \"GmbH\"".to_owned(),
        url: "https://shop.example".to_owned(),
        widget_origins: vec!["https://*.example.com".to_owned()],
        enabled: true,
        tokens_valid_from: Timestamp::from_unix_ms(1_700_000_000_123),
        limits: vec![limit()],
        created_at: Timestamp::from_unix_ms(1),
        updated_at: Timestamp::MAX,
        revision: u64::MAX,
    }
}

fn limit() -> LimitRecord {
    let policy = Name::parse("search").unwrap();
    LimitRecord { policy, limit: u32::MAX, window_s: 60, burst: None }
}

pub(super) fn key(id: u64, shop: &str) -> KeyRecord {
    KeyRecord {
        id: KeyId(id),
        shop: ShopId::parse(shop).unwrap(),
        name: format!("key {id}"),
        digest: Digest::from_bytes([u8::try_from(id % 256).unwrap(); 32]),
        start: "sk_3f9a".to_owned(),
        created_at: Timestamp::from_unix_ms(5),
        expires_at: Some(Timestamp::from_unix_ms(1_700_000_000_001)),
        grace_until: None,
        replaced_by: None,
        networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        limits: vec![limit()],
        last_used_at: None,
        revision: 1,
    }
}

pub(super) fn token(id: u128, shop: &str, expires_s: u64) -> TokenRecord {
    TokenRecord {
        id: TokenId(id),
        shop: ShopId::parse(shop).unwrap(),
        scopes: "search suggestions".to_owned(),
        issued_at: Timestamp::from_unix_ms(5),
        expires_at: Timestamp::from_unix_s(expires_s),
        revoked_at: Some(Timestamp::from_unix_ms(7)),
        issued_by: "key_0000000000000001".to_owned(),
    }
}

pub(super) fn signing_key(id: u32) -> SigningKeyRecord {
    SigningKeyRecord {
        id,
        key: SecretBytes::new(*KEY),
        created_at: Timestamp::from_unix_ms(5),
        retired_at: None,
        last_expiry: Timestamp::from_unix_ms(8),
    }
}

pub(super) fn assertion_key(id: u32) -> AssertionKeyRecord {
    AssertionKeyRecord {
        id,
        seed: SecretBytes::new(*KEY),
        created_at: Timestamp::from_unix_ms(5),
        signs_from: Timestamp::from_unix_ms(9),
    }
}

pub(super) fn admin_token(id: u64) -> AdminTokenRecord {
    AdminTokenRecord {
        id: AdminTokenId(id),
        name: "terraform".to_owned(),
        digest: Digest::from_bytes([3; 32]),
        role: Role::Operator,
        created_at: Timestamp::from_unix_ms(5),
        expires_at: None,
        last_used_at: Some(Timestamp::from_unix_ms(6)),
        scopes: None,
        shops: None,
    }
}

pub(super) fn operator(id: u64, name: &str) -> OperatorRecord {
    OperatorRecord {
        id: OperatorId(id),
        name: name.to_owned(),
        role: Role::Member,
        shops: [ShopId::parse("one").unwrap()].into(),
        password: Some(PasswordHash::new("$argon2id$v=19$m=64,t=1,p=1$AAAA$AAAA".to_owned())),
        password_changed_at: Timestamp::from_unix_ms(4),
        totp: Some(TotpRecord {
            sealed: vec![1, 2, 3],
            last_step: u64::MAX,
            confirmed_at: Timestamp::from_unix_ms(5),
            recovery: vec![Digest::from_bytes([6; 32]), Digest::from_bytes([7; 32])],
        }),
        oidc: Some(OidcSubject { issuer: "https://idp.example".into(), subject: "1".into() }),
        disabled: false,
        created_at: Timestamp::from_unix_ms(8),
        updated_at: Timestamp::from_unix_ms(9),
        revision: 10,
    }
}

pub(super) fn session(byte: u8, operator: u64) -> SessionRecord {
    SessionRecord {
        id: SessionId(u64::from(byte)),
        operator: OperatorId(operator),
        digest: Digest::from_bytes([byte; 32]),
        created_at: Timestamp::from_unix_ms(1),
        last_seen_at: Timestamp::from_unix_ms(2),
        expires_at: Timestamp::from_unix_ms(3),
        address: Some("2001:db8::1".parse().unwrap()),
        user_agent: "Mozilla/5.0 \"x\"".to_owned(),
    }
}

pub(super) fn key_set(issuer: &str) -> KeySetRecord {
    KeySetRecord {
        issuer: Name::parse(issuer).unwrap(),
        jwks: r#"{"keys":[]}"#.to_owned(),
        source: "https://id.example/jwks".to_owned(),
        fetched_at: Timestamp::from_unix_ms(9),
    }
}

pub(super) fn made(at_ms: u64) -> IdempotencyRecord {
    IdempotencyRecord {
        fingerprint: [9; 32],
        resource: "/api/v1/shops/one".to_owned(),
        created_at: Timestamp::from_unix_ms(at_ms),
    }
}

/// The entry of day `n`.
pub(super) fn audit_record(n: u64) -> AuditRecord {
    AuditRecord {
        at: Timestamp::from_unix_ms(1_700_000_000_123 + n * 24 * 3600 * 1000),
        actor: AuditActor {
            label: "socket".to_owned(),
            name: "Käthe \"K\"".to_owned(),
            role: Role::Owner,
        },
        address: (n.is_multiple_of(2)).then(|| "2001:db8::7".parse().unwrap()),
        action: "shop.created".to_owned(),
        subject: AuditSubject {
            kind: "shop".to_owned(),
            id: format!("shop-{n}"),
            shop: Some(ShopId::parse("one").unwrap()),
        },
        before: None,
        after: Some(serde_json::json!({ "name": format!("n{n}"), "limits": [1.5, null] })),
    }
}

/// Opens a real file.
pub(super) fn open_file(path: &Path, master_key: MasterKey) -> Result<Store, StoreError> {
    let options = StoreOptions::new(path, master_key);
    Store::open(options, clock(), Arc::new(SystemEntropy::new()))
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::default())
}

/// Every entry of every table but the commit number.
pub(super) type Dump = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

/// What the store holds.
pub(super) fn dump(store: &Store) -> Dump {
    store.read(dump_of).unwrap()
}

/// The same; `None` if it cannot be read now.
pub(super) fn try_dump(store: &Store) -> Option<Dump> {
    store.read(dump_of).ok()
}

fn dump_of(tx: &super::ReadTx) -> Result<Dump, StoreError> {
    let mut all = Dump::new();
    for table in schema::TABLES {
        tx.for_each_entry(table, |key, value| {
            all.insert((schema::name(table), key.to_vec()), value.to_vec());
        })?;
    }
    all.remove(&(schema::name(schema::META), schema::META_COMMIT.to_vec()));
    Ok(all)
}

/// A disk in memory: it keeps apart what was written and what was synced, and fails when told to.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    state: Arc<Mutex<State>>,
    /// Stands for the database where the store looks at the file itself.
    stand_in: Arc<tempfile::TempDir>,
}

#[derive(Debug, Default, Clone)]
struct State {
    /// What a read sees.
    written: Vec<u8>,
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    /// What was written since, in order.
    pending: Vec<Pending>,
    /// Writes, syncs and changes of length so far.
    operations: u64,
    /// Which of them fail.
    failing: std::ops::Range<u64>,
    fail_reads: bool,
}

#[derive(Debug, Clone)]
enum Pending {
    Write { offset: usize, data: Vec<u8> },
    Len(usize),
}

impl Pending {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                let end = offset + data.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(data);
            }
            Self::Len(len) => to.resize(*len, 0),
        }
    }
}

impl Disk {
    /// A disk that holds a new, empty database of master key 1.
    pub(super) fn new() -> Self {
        // Made once: on a real disk that takes longer than most tests.
        static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
        let bytes = EMPTY.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("latchkey.redb");
            drop(open_file(&path, master_key(1)).unwrap());
            std::fs::read(&path).unwrap()
        });
        Self::holding(bytes.clone(), tempfile::tempdir().unwrap())
    }

    fn holding(bytes: Vec<u8>, directory: tempfile::TempDir) -> Self {
        let path = directory.path().join("latchkey.redb");
        std::fs::write(&path, b"stand-in").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let state = State { written: bytes.clone(), synced: bytes, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), stand_in: Arc::new(directory) }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.stand_in.path().join("latchkey.redb")
    }

    pub(super) fn open(&self, options: StoreOptions) -> Result<Store, StoreError> {
        let disk = self.clone();
        let files = Files::new(&options, CURRENT).with_opener(Arc::new(
            move |builder: &mut redb::Builder, _: File| builder.create_with_backend(disk.clone()),
        ));
        Store::open_files(options, files, clock(), Arc::new(SystemEntropy::new()))
    }

    /// Lets `length` operations fail, the first after `at` more from the first store's opening.
    pub(super) fn fail(&self, at: u64, length: u64) {
        self.lock().failing = at..at.saturating_add(length);
    }

    pub(super) fn fail_reads(&self, fail: bool) {
        self.lock().fail_reads = fail;
    }

    pub(super) fn heal(&self) {
        self.lock().failing = 0..0;
    }

    /// Writes, syncs and changes of length so far.
    pub(super) fn operations(&self) -> u64 {
        self.lock().operations
    }

    pub(super) fn len(&self) -> usize {
        self.lock().written.len()
    }

    /// The disk as a power cut might leave it: of what was not synced, any part may be there.
    pub(super) fn after_power_cut(&self, seed: u64) -> Self {
        let state = self.lock().clone();
        let mut left = state.synced;
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for pending in &state.pending {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let kept = match (random % 4, pending) {
                (0, _) => continue,
                // Torn at a sector's edge.
                (1, Pending::Write { offset, data }) => {
                    let sectors = data.len().div_ceil(512) as u64;
                    let keep = usize::try_from((random >> 8) % (sectors + 1)).unwrap() * 512;
                    let data = data[..keep.min(data.len())].to_vec();
                    Pending::Write { offset: *offset, data }
                }
                _ => pending.clone(),
            };
            kept.apply(&mut left);
        }
        Self::holding(left, tempfile::tempdir().unwrap())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Counts an operation; whether it fails.
    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        let failing = state.failing.contains(&state.operations);
        state.operations += 1;
        if failing {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        Ok(state)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        let offset = usize::try_from(offset).unwrap();
        let found = state.written.get(offset..offset + out.len());
        let found = found.filter(|_| !state.fail_reads);
        out.copy_from_slice(found.ok_or_else(|| io::Error::other("unreadable sector"))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.operate()?;
        let change = Pending::Len(usize::try_from(len).unwrap());
        change.apply(&mut state.written);
        state.pending.push(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.operate()?;
        let state = &mut *state;
        state.pending.drain(..).for_each(|change| change.apply(&mut state.synced));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let mut state = self.operate()?;
        let change = Pending::Write { offset, data: data.to_vec() };
        change.apply(&mut state.written);
        state.pending.push(change);
        Ok(())
    }
}

/// A store on a disk in memory.
pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) disk: Disk,
}

impl Bench {
    /// On a new, empty database.
    pub(super) fn in_memory() -> Self {
        let bench = Self::on(Disk::new());
        bench.disk.lock().operations = 0;
        bench
    }

    /// On the database that `disk` holds.
    pub(super) fn on(disk: Disk) -> Self {
        let options = StoreOptions::new(disk.path(), master_key(1));
        Self { store: disk.open(options).unwrap(), disk }
    }

    /// The same disk, opened by the next process.
    pub(super) fn reopen(self) -> Self {
        let Self { store, disk } = self;
        drop(store);
        Self::on(disk)
    }
}
