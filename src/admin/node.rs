//! Everything one latchkey is, running or offline: the store and the state derived from it.
//!
//! A change is written to the store first and patched into the snapshot after, both under one
//! lock, so that the snapshot sees changes in the order in which they were committed. Readers of
//! the snapshot never wait for any of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::audit::{self, Action, Subject, SubjectKind};
use super::caller::Caller;
use super::identity::Identity;
use super::key_sets;
use super::ledger::Ledger;
use super::oidc::Oidc;
use super::operations::events::Listening;
use super::operations::{OperationError, Pruning, Taken, assertion_keys, backups, configuration};
use super::overview::Sampler;
use super::patch::Patch;
use crate::clock::{Clock, Now, Timestamp};
use crate::config::{self, Config};
use crate::decision::jwt::KeySet;
use crate::decision::policy::Policies;
use crate::decision::rate_limit::POLICIES_MAX;
use crate::events::Events;
use crate::id::Name;
use crate::jwks::Jwks;
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::secret::{Digest, Entropy, EntropyError, Pepper, Purpose, SecretBytes, random_bytes};
use crate::snapshot::{CompileError, Published, Snapshot, compile_key, compile_shop};
use crate::store::master_key::{self, MasterKeyError};
use crate::store::{
    AdminTokenRecord, CommitObserver, ReadTx, SigningKeyRecord, Store, StoreError, StoreOptions,
    WriteTx,
};
use crate::usage;
use crate::verified_tokens::VerifiedTokenCache;

/// Why a node cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The master key cannot be read or made.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored shop is not usable any more.
    #[error("the database holds a shop that cannot be used: {0}")]
    Shop(#[from] CompileError),
    /// The first signing key could not be made.
    #[error("no signing key could be made: {0}")]
    Entropy(#[from] EntropyError),
    /// The first key that signs assertions could not be made.
    #[error("no key that signs assertions could be made: {0}")]
    AssertionKey(#[from] Box<OperationError>),
}

/// An admin token, as bearer tokens are held against it.
#[derive(Debug)]
pub(super) struct AdminToken {
    pub(super) record: AdminTokenRecord,
    /// When it last verified, Unix milliseconds; zero: never since the start.
    pub(super) last_used_ms: AtomicU64,
}

impl AdminToken {
    pub(super) fn new(record: AdminTokenRecord) -> Self {
        Self { record, last_used_ms: AtomicU64::new(0) }
    }
}

/// What writers share; locking it is taking one's turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The latest issue time of any widget token: "revoke all" must lie after it even when the
    /// wall clock was set back since.
    pub(super) last_issued: Timestamp,
}

impl Turn {
    /// The first time at which no widget token has been issued yet.
    pub(super) fn after_last_issued(&self) -> Timestamp {
        self.last_issued + Duration::from_millis(1)
    }
}

/// One latchkey.
pub struct Node {
    /// What must survive a restart.
    pub store: Arc<Store>,
    /// What decisions read.
    pub published: Arc<Published>,
    /// The state of all quotas.
    pub limiter: Arc<Limiter>,
    /// Verified JWTs.
    pub verified: Arc<VerifiedTokenCache>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What workers count of shops and keys.
    pub usage: Arc<usage::Recorder>,
    /// Refusals, for whoever looks.
    pub events: Arc<Events>,
    /// The metrics of the last hours.
    pub overview: Sampler,
    /// When this process began; names what is numbered from its start.
    pub begun: Timestamp,
    pub(super) ledger: Ledger,
    /// The configuration in force.
    pub config: ArcSwap<Config>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    pub(super) jwks: ArcSwapOption<Jwks>,
    pub(super) backups: backups::Memory,
    pub(super) importing: Taken,
    pub(super) verifying_audit: Taken,
    bulk: OnceLock<Handle>,
    /// What the audit log's retention knows of the clock.
    pub(super) pruning: Pruning,
    /// Who listens to refusals, and how often.
    pub(super) listening: Listening,
    pub(super) reloads: watch::Sender<u64>,
    pub(super) admin_tokens: ArcSwap<HashMap<Digest, Arc<AdminToken>>>,
    pub(super) identity: Identity,
    /// Sign-ins by the operators' identity provider.
    pub(super) oidc: Oidc,
    pepper: Pepper,
    turn: Mutex<Turn>,
    draining: AtomicBool,
    /// Whether the last commit succeeded.
    writable: Arc<AtomicBool>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("store", &self.store.path()).finish_non_exhaustive()
    }
}

impl Node {
    /// Opens the store that `config` names and publishes what it holds. On first start makes the
    /// master key, the database and the first signing key; a master key is never made for a
    /// database that exists, as it would not open it.
    ///
    /// # Errors
    ///
    /// Every [`OpenError`]; what was there is unchanged.
    pub fn open(
        config: Config,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, OpenError> {
        let may_create = config.store.master_key_creatable && !config.store.path.exists();
        let key_file = &config.store.master_key_file;
        let (master, _) = master_key::load_or_create(key_file, may_create, entropy.as_ref())?;
        let pepper = master.pepper();
        let password_key = master.derive(Purpose::Password);
        let writable = Arc::new(AtomicBool::new(true));
        let mut options = StoreOptions::new(&config.store.path, master);
        options.observer = Some(commit_observer(&writable, &metrics));
        let store = Store::open(options, Arc::clone(&clock), Arc::clone(&entropy))?;
        make_first_signing_key(&store, entropy.as_ref(), clock.now().unix)?;
        let policies = Arc::clone(&config.policies);
        announce(&metrics, &policies);
        metrics.config_loaded(clock.now().unix);
        let loaded = load(&store, &config, pepper.clone())?;
        let identity = store.read(|tx| Identity::load(tx, &config, password_key, clock.now()))?;
        let retention = config.audit.retention;
        let pruning = store.read(|tx| Pruning::begin(tx, retention, clock.now()))?;
        let node = Arc::new(Self {
            store: Arc::new(store),
            published: Arc::new(Published::new(loaded.snapshot)),
            limiter: Arc::new(Limiter::new(config.limiter_cells.get(), POLICIES_MAX + 1)),
            verified: Arc::new(VerifiedTokenCache::new(config.jwt_cache_entries)),
            metrics,
            usage: Arc::new(usage::Recorder::new(config.usage.enabled)),
            events: Arc::default(),
            overview: Sampler::default(),
            begun: clock.now().unix,
            ledger: Ledger::default(),
            config: ArcSwap::from_pointee(config),
            clock,
            entropy,
            jwks: ArcSwapOption::empty(),
            backups: backups::Memory::default(),
            importing: Taken::default(),
            verifying_audit: Taken::default(),
            bulk: OnceLock::new(),
            pruning,
            listening: Listening::default(),
            reloads: watch::Sender::new(0),
            admin_tokens: ArcSwap::from_pointee(loaded.admin_tokens),
            identity,
            oidc: Oidc::default(),
            pepper,
            turn: Mutex::new(Turn { last_issued: loaded.last_issued }),
            draining: AtomicBool::new(false),
            writable,
        });
        node.make_first_assertion_key()?;
        Ok(node)
    }

    /// Before the first request: the first tick would be too late. Only a node that has no key at
    /// all cannot do without.
    fn make_first_assertion_key(&self) -> Result<(), OpenError> {
        let config = self.config.load_full();
        let Err(error) = assertion_keys::maintain(self, &config.assertion) else {
            return Ok(());
        };
        let snapshot = self.published.load();
        if config.assertion.enabled && snapshot.assertions().signer(self.now().unix).is_none() {
            return Err(Box::new(error).into());
        }
        tracing::warn!(%error, "keys that sign assertions are not rotated");
        Ok(())
    }

    /// Puts a validated configuration in force. What it returns is worth telling the operator:
    /// keys that only a restart applies, overrides of limits that no longer exist, and assertions
    /// that nobody can sign yet.
    pub fn reload(&self, config: Config) -> Vec<String> {
        let assertion_key = assertion_keys::maintain(self, &config.assertion);
        let _turn = self.take_turn();
        let old = self.config.load_full();
        let mut warnings: Vec<String> = config::restart_needed(&old, &config)
            .into_iter()
            .map(|key| format!("`{key}` changed; it takes effect after a restart"))
            .collect();
        let policies = Arc::clone(&config.policies);
        warnings.extend(orphaned_overrides(&self.published.load(), &policies));
        if let Err(error) = assertion_key {
            warnings.push(format!("the keys that sign assertions are as they were: {error}"));
        }
        announce(&self.metrics, &policies);
        self.usage.enable(config.usage.enabled);
        let config = Arc::new(config);
        // Before the patch: see `publish_key_set`.
        self.config.store(Arc::clone(&config));
        self.published.patch(|snapshot| {
            for issuer in &policies.issuers {
                let source = |config| key_sets::source_of(config, &issuer.name);
                if source(&old) != source(&config) {
                    snapshot.remove_key_set(&issuer.name);
                }
            }
            snapshot.set_policies(policies);
            snapshot.set_assertion_settings(assertion_keys::settings(&config.assertion));
        });
        self.reloads.send_modify(|generation| *generation += 1);
        if let Err(error) = configuration::record_reload(self, &old, &config) {
            warnings.push(format!("the audit log does not hold this reload: {error}"));
        }
        warnings
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// The key under which secrets are digested.
    #[must_use]
    pub fn pepper(&self) -> &Pepper {
        &self.pepper
    }

    /// The keeper of key sets; `None` until [`super::jobs::serve_workers`] has
    /// started it.
    #[must_use]
    pub fn jwks(&self) -> Option<Arc<Jwks>> {
        self.jwks.load_full()
    }

    /// Whether the process is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on `handle` has the threads for what takes long and is in no hurry.
    pub fn set_bulk(&self, handle: Handle) {
        // The first stays: a node has one gateway.
        drop(self.bulk.set(handle));
    }

    /// Where what takes long is done: unless somebody said where, here.
    pub(super) fn bulk(&self) -> Handle {
        self.bulk.get().cloned().unwrap_or_else(Handle::current)
    }

    /// Notes that the process is about to stop: it is not ready for new work any more, and whoever
    /// listens to refusals is let go.
    pub fn set_draining(&self) {
        self.events.close();
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the store took the last write.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// Writes in one transaction and, once it is on the disk, patches the snapshot. When this
    /// returns, every decision begun later sees the change.
    pub(super) fn mutate<T>(
        &self,
        write: impl FnOnce(&mut WriteTx, &mut Patch, &mut Turn) -> Result<T, OperationError>,
    ) -> Result<T, OperationError> {
        let mut turn = self.take_turn();
        let mut patch = Patch::default();
        let value = self.store.write(|tx| write(tx, &mut patch, &mut turn))?;
        self.identity.apply(patch.take_identity());
        self.replace_admin_tokens(patch.take_admin_tokens());
        if !patch.is_empty() {
            self.published.patch(|snapshot| patch.apply(snapshot));
        }
        Ok(value)
    }

    /// The same for admin tokens, which are not part of the snapshot: `change` is applied to the
    /// index that bearer tokens are looked up in.
    pub(super) fn mutate_admin_tokens<T>(
        &self,
        write: impl FnOnce(&mut WriteTx) -> Result<T, OperationError>,
        change: impl FnOnce(&mut HashMap<Digest, Arc<AdminToken>>, &T),
    ) -> Result<T, OperationError> {
        let _turn = self.take_turn();
        let value = self.store.write(write)?;
        let mut next = HashMap::clone(&self.admin_tokens.load());
        change(&mut next, &value);
        self.admin_tokens.store(Arc::new(next));
        Ok(value)
    }

    /// Called under the writers' lock.
    fn replace_admin_tokens(&self, tokens: Vec<AdminTokenRecord>) {
        if tokens.is_empty() {
            return;
        }
        let mut next = HashMap::clone(&self.admin_tokens.load());
        for record in tokens {
            let used = next.get(&record.digest).map(|old| old.last_used_ms.load(Ordering::Relaxed));
            let token = AdminToken::new(record);
            token.last_used_ms.store(used.unwrap_or_default(), Ordering::Relaxed);
            next.insert(token.record.digest, Arc::new(token));
        }
        self.admin_tokens.store(Arc::new(next));
    }

    /// A panic under the lock leaves [`Turn`] whole: its one field is set in one step.
    fn take_turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn commit_observer(writable: &Arc<AtomicBool>, metrics: &Arc<Metrics>) -> CommitObserver {
    let (writable, metrics) = (Arc::clone(writable), Arc::clone(metrics));
    Arc::new(move |commit| {
        writable.store(commit.committed, Ordering::Relaxed);
        metrics.store_commit_duration(commit.duration);
        if !commit.committed {
            metrics.store_error();
        }
    })
}

/// Announces the names that may be label values.
fn announce(metrics: &Metrics, policies: &Policies) {
    let limits: Vec<Name> = policies.limits.iter().map(|limit| limit.name.clone()).collect();
    // One with a shared secret has no key set that could be missing or old.
    let issuers = policies.issuers.iter().filter(|issuer| issuer.secret.is_none());
    let key_sets: Vec<_> = issuers.map(|issuer| (issuer.name.clone(), issuer.stale_max)).collect();
    metrics.configure(&limits, &key_sets);
}

fn make_first_signing_key(
    store: &Store,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<(), OpenError> {
    store.write(|tx| {
        if tx.signing_keys()?.iter().any(|key| key.retired_at.is_none()) {
            return Ok(());
        }
        let last = tx.signing_keys()?.iter().map(|key| key.id).max().unwrap_or(0);
        let key = new_signing_key(last.saturating_add(1), entropy, now)?;
        tx.put_signing_key(&key)?;
        let subject = Subject::new(SubjectKind::SigningKey, key.id);
        let after = Some(serde_json::json!({ "signs": key.id }));
        let action = Action::SigningKeyRotated;
        let entry = audit::entry(&Caller::system(), now, action, subject, None, after);
        tx.append_audit(&entry)?;
        Ok(())
    })
}

/// A fresh key that signs widget tokens.
pub(super) fn new_signing_key(
    id: u32,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<SigningKeyRecord, EntropyError> {
    let key = SecretBytes::new(random_bytes(entropy)?);
    Ok(SigningKeyRecord { id, key, created_at: now, retired_at: None, last_expiry: now })
}

struct Loaded {
    snapshot: Snapshot,
    admin_tokens: HashMap<Digest, Arc<AdminToken>>,
    last_issued: Timestamp,
}

/// Compiles what the store holds.
fn load(store: &Store, config: &Config, pepper: Pepper) -> Result<Loaded, OpenError> {
    let mut snapshot = Snapshot::new(Arc::clone(&config.policies), pepper);
    snapshot.set_assertion_settings(assertion_keys::settings(&config.assertion));
    let mut admin_tokens = HashMap::new();
    let mut last_issued = Timestamp::default();
    let mut unusable = None;
    store.read(|tx| {
        tx.for_each_shop(|record| match compile_shop(&record) {
            Ok(shop) => snapshot.put_shop(shop),
            Err(error) => unusable = Some(error),
        })?;
        tx.for_each_key(|record| snapshot.put_api_key(compile_key(&record)))?;
        tx.for_each_token(|token| {
            last_issued = last_issued.max(token.issued_at);
            // Expired ones too: the clock may be set back.
            if token.revoked_at.is_some() {
                snapshot.revoke_token(&token);
            }
        })?;
        snapshot.set_signing_keys(&tx.signing_keys()?);
        snapshot.set_assertion_keys(&tx.assertion_keys()?);
        for record in tx.admin_tokens(None, usize::MAX)? {
            admin_tokens.insert(record.digest, Arc::new(AdminToken::new(record)));
        }
        load_key_sets(tx, config, &mut snapshot)
    })?;
    match unusable {
        Some(error) => Err(error.into()),
        None => Ok(Loaded { snapshot, admin_tokens, last_issued }),
    }
}

/// The last good key sets, as old as they are: JWTs verify before the first fetch. Those from
/// elsewhere than `config` says are another provider's.
fn load_key_sets(tx: &ReadTx, config: &Config, snapshot: &mut Snapshot) -> Result<(), StoreError> {
    for record in tx.key_sets()? {
        if key_sets::source_of(config, &record.issuer).as_ref() != Some(&record.source) {
            continue;
        }
        match KeySet::parse(&record.jwks, record.fetched_at) {
            Ok(set) => snapshot.put_key_set(record.issuer, set),
            Err(error) => {
                let issuer = record.issuer;
                tracing::warn!(%issuer, %error, "the stored key set is not used");
            }
        }
    }
    Ok(())
}

/// A line for each policy that overrides name and that is not configured.
fn orphaned_overrides(snapshot: &Snapshot, policies: &Policies) -> Vec<String> {
    let mut orphans: BTreeMap<&Name, usize> = BTreeMap::new();
    let overrides = snapshot
        .shops()
        .flat_map(|shop| &shop.limits)
        .chain(snapshot.api_keys().flat_map(|key| &key.limits));
    for own in overrides {
        if policies.limits.iter().all(|policy| policy.name != own.policy) {
            *orphans.entry(&own.policy).or_default() += 1;
        }
    }
    let line = |(policy, count)| {
        format!(
            "{count} shops or keys override the limit `{policy}`, which is no longer configured; \
             the overrides are kept and have no effect"
        )
    };
    orphans.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::{Bench, config, open};
    use crate::clock::ManualClock;
    use crate::decision::Facts as _;
    use crate::decision::jwt::KeySets as _;

    const ISSUER: &str = "[[issuers]]\nname = \"main\"\nissuer = \"https://id.example\"\n\
         audiences = [\"api\"]\nalgorithms = [\"EdDSA\"]\n\
         jwks_url = \"https://id.example/jwks\"\n";

    /// RFC 8037 appendix A.2.
    const JWKS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    #[test]
    fn a_lost_master_key_is_not_replaced() {
        let bench = Bench::new();
        let config = Config::clone(&bench.node.config.load());
        let Bench { node, clock, dir } = bench;
        drop(node);
        std::fs::remove_file(dir.path().join("master.key")).unwrap();
        let error = open(config, &clock).unwrap_err();
        assert!(matches!(
            error,
            OpenError::MasterKey(MasterKeyError::MissingForExistingStore { .. })
        ));
        assert!(!dir.path().join("master.key").exists());
    }

    #[test]
    fn a_second_node_on_the_same_store_is_refused() {
        let bench = Bench::new();
        let config = Config::clone(&bench.node.config.load());
        let error = open(config, &bench.clock).unwrap_err();
        assert!(matches!(error, OpenError::Store(StoreError::Locked { .. })), "{error}");
    }

    #[test]
    fn key_sets_survive_a_restart_with_their_age() {
        let bench = Bench::with(ISSUER);
        let issuer = Name::parse("main").unwrap();
        let at = bench.node.now().unix;
        let source = || "url https://id.example/jwks".to_owned();
        bench.node.publish_key_set(&issuer, KeySet::parse(JWKS, at).unwrap(), JWKS, source());
        assert_eq!(bench.node.published.load().key_set(&issuer).unwrap().len(), 1);
        // Stored late by a thread that was slow: the later set stays.
        let older = KeySet::parse(JWKS, at - Duration::from_secs(9)).unwrap();
        bench.node.publish_key_set(&issuer, older, "{\"keys\":[]}", source());
        bench.clock.advance(Duration::from_secs(60));
        let bench = bench.restart();
        let snapshot = bench.node.published.load();
        let set = snapshot.key_set(&issuer).unwrap();
        assert_eq!((set.len(), set.fetched_at()), (1, at));
    }

    /// The name of a provider may stay while the provider changes: its keys must not.
    #[test]
    fn keys_from_another_source_are_not_the_issuers() {
        let bench = Bench::with(ISSUER);
        let issuer = Name::parse("main").unwrap();
        let set = || KeySet::parse(JWKS, bench.node.now().unix).unwrap();
        let has_keys = |node: &Node| node.published.load().key_set(&issuer).is_some();
        let old = || "url https://id.example/jwks".to_owned();
        bench.node.publish_key_set(&issuer, set(), JWKS, old());
        assert!(has_keys(&bench.node));
        bench.node.reload(config(&bench.dir, ISSUER));
        assert!(has_keys(&bench.node), "nothing changed");

        let moved = ISSUER.replace("id.example", "other.example");
        bench.node.reload(config(&bench.dir, &moved));
        assert!(!has_keys(&bench.node), "reload");
        bench.node.publish_key_set(&issuer, set(), JWKS, old());
        assert!(!has_keys(&bench.node), "a fetch that was under way");
        let bench = bench.restart();
        assert!(!has_keys(&bench.node), "restart");
        bench.node.reload(config(&bench.dir, ISSUER));
        assert!(!has_keys(&bench.node), "what was dropped stays dropped");
    }

    #[tokio::test]
    async fn a_reload_applies_what_it_can_and_says_what_it_cannot() {
        let bench = Bench::with(ISSUER);
        bench.shop("demo").await;
        let own = r#"{"shop-me":{"limit":7,"window_seconds":60}}"#;
        bench.put("/api/v1/shops/demo/limits", own).await.expect(200);
        let before = bench.node.published.load().generation;
        let more = "[limiter]\ncells = 1024\n[[limits]]\nname = \"only\"\npaths = [\"/*\"]\n\
             key = \"shop\"\nlimit = 5\nwindow = \"1m\"\n";
        let warnings = bench.node.reload(config(&bench.dir, more));
        assert!(warnings.iter().any(|w| w.contains("limiter.cells")), "{warnings:?}");
        assert!(warnings.iter().any(|w| w.contains("`shop-me`")), "{warnings:?}");
        let snapshot = bench.node.published.load();
        assert!(snapshot.generation > before);
        assert_eq!(snapshot.policies().limits.len(), 1);
        assert!(snapshot.policies().issuers.is_empty());
    }

    #[test]
    fn a_fresh_node_has_a_signing_key_and_makes_no_second_one() {
        let bench = Bench::new();
        let keys = |bench: &Bench| bench.node.store.read(ReadTx::signing_keys).unwrap().len();
        assert_eq!(keys(&bench), 1);
        assert_eq!(keys(&bench.restart()), 1);
    }

    /// Opening does nothing per key but decode and compile it; this would time out if it did.
    #[test]
    fn many_keys_load() {
        let bench = Bench::new();
        let shop = crate::store::ShopRecord {
            id: crate::id::ShopId::parse("demo").unwrap(),
            name: String::new(),
            url: "https://demo.example".to_owned(),
            widget_origins: Vec::new(),
            enabled: true,
            tokens_valid_from: Timestamp::default(),
            limits: Vec::new(),
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
            revision: 1,
        };
        let stored = bench.node.store.write::<_, StoreError>(|tx| {
            tx.put_shop(&shop)?;
            (0..2_000u64).try_for_each(|i| {
                tx.put_key(&crate::store::KeyRecord {
                    id: crate::id::KeyId(i),
                    shop: shop.id,
                    name: String::new(),
                    digest: bench.node.pepper().digest(&i.to_be_bytes()),
                    start: "sk_0000".to_owned(),
                    created_at: Timestamp::default(),
                    expires_at: None,
                    grace_until: None,
                    replaced_by: None,
                    networks: Vec::new(),
                    limits: Vec::new(),
                    last_used_at: None,
                    revision: 1,
                })
            })
        });
        stored.unwrap();
        let bench = bench.restart();
        assert_eq!(bench.node.published.load().counts(), (1, 2_000));
    }

    #[test]
    fn a_clock_is_shared() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_s(7)));
        let dir = tempfile::TempDir::new().unwrap();
        let node = open(config(&dir, ""), &clock).unwrap();
        clock.advance(Duration::from_secs(1));
        assert_eq!(node.now().unix, Timestamp::from_unix_s(8));
    }
}
