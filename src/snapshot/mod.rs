//! Compiled state, published atomically: what the request path reads instead of the store.
//!
//! A [`Snapshot`] is immutable. [`Published`] holds the current one; the admin plane replaces it
//! with a patched copy after the store has acknowledged the change, so that a key whose
//! revocation was answered is refused from then on. A copy shares everything that did not change:
//! the maps are split into shards, and a patch copies one shard.
//!
//! This module neither reads the store nor decides anything.

mod embedders;
mod sharded;

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use self::embedders::Embedders;
use self::sharded::ShardedMap;
use crate::assertion::{self, AssertionKey, Assertions};
use crate::clock::Timestamp;
use crate::decision::Facts;
use crate::decision::cors::WidgetPages;
use crate::decision::jwt::{KeySet, KeySets};
use crate::decision::origin::{Origin, OriginError, OriginPattern, OriginRef};
use crate::decision::policy::Policies;
use crate::decision::principal::{ApiKey, Shop};
use crate::decision::rate_limit::{Quota, QuotaOverride};
use crate::decision::widget_token::SigningKey;
use crate::id::{Name, ShopId, TokenId};
use crate::secret::{Digest, Pepper};
use crate::store::{
    AssertionKeyRecord, KeyRecord, LimitRecord, ShopRecord, SigningKeyRecord, TokenRecord,
};

/// The state decisions are made from.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Counts published snapshots.
    pub generation: u64,
    policies: Arc<Policies>,
    policies_generation: u64,
    pepper: Pepper,
    cell_hasher: RandomState,
    shops: ShardedMap<ShopId, Shop>,
    embedders: Embedders,
    api_keys: ShardedMap<Digest, ApiKey>,
    signing_keys: Arc<[SigningKey]>,
    revoked_tokens: ShardedMap<TokenId, Timestamp>,
    key_sets: Arc<BTreeMap<Name, KeySet>>,
    assertions: Assertions,
}

impl Snapshot {
    /// A snapshot that knows the configuration and no credentials.
    #[must_use]
    pub fn new(policies: Arc<Policies>, pepper: Pepper) -> Self {
        Self {
            generation: 0,
            policies,
            policies_generation: 0,
            pepper,
            cell_hasher: RandomState::new(),
            shops: ShardedMap::new(),
            embedders: Embedders::new(),
            api_keys: ShardedMap::new(),
            signing_keys: Arc::new([]),
            revoked_tokens: ShardedMap::new(),
            key_sets: Arc::default(),
            assertions: Assertions::default(),
        }
    }

    /// Adds or replaces a shop.
    pub fn put_shop(&mut self, shop: Shop) {
        if let Some(old) = self.shops.get(&shop.id) {
            self.embedders.remove(old);
        }
        self.embedders.add(&shop);
        self.shops.insert(shop.id, shop);
    }

    /// Removes a shop and its API keys.
    pub fn remove_shop(&mut self, id: &ShopId) {
        if let Some(old) = self.shops.get(id) {
            self.embedders.remove(old);
        }
        self.shops.remove(id);
        self.api_keys.retain(|key| key.shop != *id);
    }

    /// Adds or replaces an API key; a replaced one hands on its time of last use.
    pub fn put_api_key(&mut self, mut key: ApiKey) {
        if let Some(old) = self.api_keys.get(&key.digest) {
            key.last_used_ms = Arc::clone(&old.last_used_ms);
        }
        self.api_keys.insert(key.digest, key);
    }

    /// Removes an API key: from now on it is unknown.
    pub fn remove_api_key(&mut self, digest: &Digest) {
        self.api_keys.remove(digest);
    }

    /// Replaces the keys that sign and verify widget tokens.
    pub fn set_signing_keys<'r>(&mut self, keys: impl IntoIterator<Item = &'r SigningKeyRecord>) {
        self.signing_keys = keys.into_iter().map(|k| SigningKey::new(k.id, &k.key)).collect();
    }

    /// Replaces the keys that sign assertions.
    pub fn set_assertion_keys<'r>(
        &mut self,
        keys: impl IntoIterator<Item = &'r AssertionKeyRecord>,
    ) {
        // Every seed of this length is a key.
        let compiled = |key: &AssertionKeyRecord| AssertionKey::new(&key.seed, key.signs_from).ok();
        self.assertions.set_keys(keys.into_iter().filter_map(compiled));
    }

    /// Replaces what assertions say of themselves; `None`: no request carries one.
    pub fn set_assertion_settings(&mut self, settings: Option<assertion::Settings>) {
        self.assertions.set_settings(settings);
    }

    /// Who signs assertions, and the keys they verify by.
    #[must_use]
    pub fn assertions(&self) -> &Assertions {
        &self.assertions
    }

    /// Revokes a widget token; forgotten once the token has expired.
    pub fn revoke_token(&mut self, token: &TokenRecord) {
        self.revoked_tokens.insert(token.id, token.expires_at);
    }

    /// Forgets revoked tokens that expired at or before `before`.
    pub fn prune_revoked(&mut self, before: Timestamp) {
        self.revoked_tokens.retain(|expires_at| *expires_at > before);
    }

    /// Replaces an issuer's key set.
    pub fn put_key_set(&mut self, issuer: Name, set: KeySet) {
        Arc::make_mut(&mut self.key_sets).insert(issuer, set);
    }

    /// Forgets an issuer's key set.
    pub fn remove_key_set(&mut self, issuer: &Name) {
        Arc::make_mut(&mut self.key_sets).remove(issuer);
    }

    /// Replaces the configuration; key sets of issuers it no longer has are dropped, and JWTs
    /// verified under the old one are verified anew.
    pub fn set_policies(&mut self, policies: Arc<Policies>) {
        let kept = |name: &Name| policies.issuers.iter().any(|i| i.name == *name);
        Arc::make_mut(&mut self.key_sets).retain(|name, _| kept(name));
        self.policies = policies;
        self.policies_generation += 1;
    }

    /// The compiled configuration, shared.
    #[must_use]
    pub fn shared_policies(&self) -> Arc<Policies> {
        Arc::clone(&self.policies)
    }

    /// How many shops and API keys there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.shops.len(), self.api_keys.len())
    }

    /// All API keys, in no order.
    pub fn api_keys(&self) -> impl Iterator<Item = &ApiKey> {
        self.api_keys.values()
    }

    /// All shops, in no order.
    pub fn shops(&self) -> impl Iterator<Item = &Shop> {
        self.shops.values()
    }
}

impl Facts for Snapshot {
    fn policies(&self) -> &Policies {
        &self.policies
    }

    fn policies_generation(&self) -> u64 {
        self.policies_generation
    }

    fn pepper(&self) -> &Pepper {
        &self.pepper
    }

    fn cell_hasher(&self) -> &RandomState {
        &self.cell_hasher
    }

    fn api_key(&self, digest: &Digest) -> Option<&ApiKey> {
        self.api_keys.get(digest)
    }

    fn shop(&self, id: &ShopId) -> Option<&Shop> {
        self.shops.get(id)
    }

    fn signing_key(&self, id: u32) -> Option<&SigningKey> {
        self.signing_keys.iter().find(|key| key.id == id)
    }

    fn is_token_revoked(&self, id: &TokenId) -> bool {
        self.revoked_tokens.get(id).is_some()
    }
}

impl WidgetPages for Snapshot {
    fn some_shop_embeds_on(&self, page: OriginRef<'_>) -> bool {
        self.embedders.allow(page, self.policies.origin)
    }
}

impl KeySets for Snapshot {
    fn key_set(&self, issuer: &Name) -> Option<&KeySet> {
        self.key_sets.get(issuer)
    }
}

/// The current snapshot. Readers never wait; writers take turns.
///
/// Nor do readers clean up: to let go of a snapshot's last reference is to look at all of its
/// shards, milliseconds after an import. A decision that still reads a snapshot when another takes
/// its place leaves that to the writer that comes next.
#[derive(Debug)]
pub struct Published {
    current: ArcSwap<Snapshot>,
    /// Replaced snapshots that somebody read when last looked at: a handful.
    turn: Mutex<Vec<Arc<Snapshot>>>,
}

impl Published {
    /// Publishes the first snapshot.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(first), turn: Mutex::default() }
    }

    /// The current snapshot, for the time of one decision.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The current snapshot, to keep.
    #[must_use]
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Publishes a changed copy. When this returns, every decision begun later sees the change.
    pub fn patch(&self, change: impl FnOnce(&mut Snapshot)) {
        // A panic under the lock leaves at worst one that is kept until the next patch.
        let mut replaced = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.current.load());
        next.generation += 1;
        change(&mut next);
        replaced.push(self.current.swap(Arc::new(next)));
        replaced.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}

/// A stored shop cannot be compiled: its URL or one of its origins does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("shop `{shop}`: `{text}` is not usable as an origin: {error}")]
pub struct CompileError {
    /// The shop.
    pub shop: ShopId,
    /// What does not parse.
    pub text: String,
    /// Why.
    pub error: OriginError,
}

/// Compiles a stored shop.
pub fn compile_shop(record: &ShopRecord) -> Result<Shop, CompileError> {
    let fault = |text: &str, error| CompileError { shop: record.id, text: text.to_owned(), error };
    let pattern = |text: &String| OriginPattern::parse(text).map_err(|e| fault(text, e));
    Ok(Shop {
        id: record.id,
        enabled: record.enabled,
        url: Origin::parse(&record.url).map_err(|e| fault(&record.url, e))?,
        widget_origins: record.widget_origins.iter().map(pattern).collect::<Result<_, _>>()?,
        tokens_valid_from: record.tokens_valid_from,
        limits: compile_limits(&record.limits),
    })
}

/// Compiles a stored API key.
#[must_use]
pub fn compile_key(record: &KeyRecord) -> ApiKey {
    let last_used_ms = record.last_used_at.map_or(0, Timestamp::unix_ms);
    ApiKey {
        id: record.id,
        digest: record.digest,
        shop: record.shop,
        expires_at: record.expires_at,
        grace_until: record.grace_until,
        networks: record.networks.clone(),
        limits: compile_limits(&record.limits),
        last_used_ms: Arc::new(last_used_ms.into()),
    }
}

/// Overrides were validated when they were written; one out of bounds all the same is left out,
/// so that the policy's own quota applies.
fn compile_limits(records: &[LimitRecord]) -> Vec<QuotaOverride> {
    let compile = |record: &LimitRecord| {
        let window = Duration::from_secs(record.window_s);
        let burst = record.burst.unwrap_or(record.limit);
        let quota = Quota::with_burst(record.limit, window, burst)?;
        Some(QuotaOverride { policy: record.policy.clone(), quota })
    };
    records.iter().filter_map(compile).collect()
}
