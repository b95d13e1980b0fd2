//! Keeps the key sets of issuers fresh: on a schedule, on an unknown `kid`, on request.
//!
//! Each issuer has a lane of its own, so that a slow provider delays no other; within a lane
//! there is never more than one fetch, and whoever asks meanwhile gets its result. A fetch that
//! fails changes nothing but the time of the next one: the last good set keeps serving until it
//! is past its stale bound, which is the decision's to judge.
//!
//! All fetching happens inside [`Jwks::run`], on whatever runtime runs it; [`Jwks::refresh`] may
//! be called from any other. This module verifies no token and stores nothing: what it fetched
//! it hands to a [`KeySink`].

mod fetch;
mod probe;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use self::probe::fetch_set;
use crate::clock::{Clock, Monotonic, Timestamp};
use crate::decision::jwt::{KeySet, KeySetError, SkipReason};
use crate::id::Name;

pub use self::probe::{Probe, probe};

/// How many callers may wait for one issuer's refresh at a time.
const WAITERS_MAX: usize = 1024;

/// The wait after a first failed fetch; each further one doubles it.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest wait after a failed fetch, unless the schedule comes first.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The URL of a JWK Set.
    JwksUrl(String),
    /// The issuer's URL; its `OpenID` discovery document says where the JWK Set is.
    Discovery(String),
    /// A file that holds a JWK Set, read again at every refresh.
    File(PathBuf),
}

/// An issuer, as far as fetching its keys goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSource {
    /// Its name in the configuration.
    pub issuer: Name,
    /// The exact value of `iss`; a discovery document must repeat it.
    pub iss: Box<str>,
    /// Where its keys come from.
    pub source: KeySource,
    /// Whom to trust by https, in PEM form; the system's authorities if there is none. Read anew
    /// for every fetch.
    pub ca_file: Option<PathBuf>,
    /// From one successful fetch to the next; at least one second.
    pub refresh_interval: Duration,
    /// At least this long from one fetch for an unknown `kid` to the next.
    pub cooldown: Duration,
    /// The longest a whole refresh may take.
    pub timeout: Duration,
}

/// Who is told of refreshes; called on the runtime of [`Jwks::run`], so it must not block long.
pub trait KeySink: Send + Sync {
    /// A key set was fetched that has usable keys; `source_json` is its text, worth keeping
    /// across restarts. Called before anyone who waits for the refresh learns of it.
    fn publish(&self, issuer: &Name, set: KeySet, source_json: &str);

    /// A refresh ended: how many keys are usable, or why it failed.
    fn refreshed(&self, issuer: &Name, result: Result<usize, &RefreshError>);
}

/// Why a refresh is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefreshReason {
    /// It is time, or the program has just started.
    Scheduled,
    /// A token names a key that the set does not have; subject to the cool-down.
    UnknownKid,
    /// An operator wants it.
    Operator,
}

/// How a refresh ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// The set was fetched and published.
    Fetched {
        /// Usable keys.
        keys: usize,
        /// Members that are not used.
        skipped: usize,
    },
    /// Nothing was fetched: an unknown `kid` had caused a fetch less than a cool-down ago.
    CoolingDown,
}

/// Why a refresh failed. Messages are for the operator; none repeats what a provider sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// No issuer of this name has a key source.
    #[error("no issuer of this name has a key set to refresh")]
    UnknownIssuer,
    /// [`Jwks::run`] has ended.
    #[error("key sets are no longer refreshed: latchkey is stopping")]
    Stopped,
    /// Too many callers wait already.
    #[error("too many requests wait for this issuer's key set already; try again later")]
    Busy,
    /// The whole refresh took too long.
    #[error("no key set within {} s; is the provider reachable?", .after.as_secs_f32())]
    Timeout {
        /// The bound.
        after: Duration,
    },
    /// Not an absolute http(s) URL without user information; not repeated, it may hold a password.
    #[error("the URL is not an absolute http:// or https:// URL without user name and password")]
    BadUrl,
    /// An `https` URL, and there is nobody to trust.
    #[error("{url}: {why}")]
    Roots {
        /// What was to be fetched.
        url: Box<str>,
        /// What is wrong with the roots.
        why: String,
    },
    /// No connection, or it broke.
    #[error("{url}: {why}")]
    Unreachable {
        /// What was to be fetched.
        url: Box<str>,
        /// What the network said.
        why: String,
    },
    /// An answer other than 200. Redirects are not followed.
    #[error("{url}: answered {status}; 200 was expected (redirects are not followed)")]
    Status {
        /// What was to be fetched.
        url: Box<str>,
        /// The status.
        status: u16,
    },
    /// An answer or a file over [`KeySet::BYTES_MAX`].
    #[error("{from}: longer than {} KiB", KeySet::BYTES_MAX / 1024)]
    TooLong {
        /// The URL or the path.
        from: Box<str>,
    },
    /// An answer or a file that is not UTF-8.
    #[error("{from}: not UTF-8")]
    NotUtf8 {
        /// The URL or the path.
        from: Box<str>,
    },
    /// The discovery document is not one, or not this issuer's.
    #[error("{url}: {why}")]
    Discovery {
        /// The document's URL.
        url: Box<str>,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file cannot be read.
    #[error("{}: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// What was fetched is no key set.
    #[error("{0}")]
    KeySet(#[from] KeySetError),
    /// A key set without a single usable key.
    #[error("none of the set's {skipped} keys can be used{}", first_reason(*.first))]
    NoUsableKeys {
        /// How many keys it has.
        skipped: usize,
        /// Why the first of them cannot be used.
        first: Option<SkipReason>,
    },
}

fn first_reason(first: Option<SkipReason>) -> String {
    first.map_or_else(String::new, |reason| format!("; the first: {reason}"))
}

/// How an issuer's key set fares, for the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerStatus {
    /// The issuer.
    pub issuer: Name,
    /// When its keys were last fetched by this process.
    pub last_success: Option<Timestamp>,
    /// Usable keys then.
    pub keys: usize,
    /// Unused members then.
    pub skipped: usize,
    /// Why the last fetch failed; `None` if it did not.
    pub last_error: Option<RefreshError>,
    /// Failed fetches since the last good one.
    pub failures: u32,
    /// When the next scheduled fetch is due; `None` before the first has ended.
    pub next_refresh: Option<Timestamp>,
}

type Outcome = Result<Refreshed, RefreshError>;

/// The keeper of all issuers' key sets.
pub struct Jwks {
    lanes: Vec<Arc<Lane>>,
    /// The runtime of [`Jwks::run`].
    home: OnceLock<Handle>,
    sink: Arc<dyn KeySink>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwks").finish_non_exhaustive()
    }
}

impl Jwks {
    /// A keeper for `sources`; nothing is fetched before [`Jwks::run`].
    #[must_use]
    pub fn new(sources: Vec<IssuerSource>, sink: Arc<dyn KeySink>, clock: Arc<dyn Clock>) -> Self {
        Self {
            lanes: sources.into_iter().map(|source| Arc::new(Lane::new(source))).collect(),
            home: OnceLock::new(),
            sink,
            clock,
        }
    }

    /// Fetches every set at once, then each on its schedule, until `shutdown` is ready. A fetch
    /// under way is broken off, those who wait for one get [`RefreshError::Stopped`].
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        // Also when this future is dropped: nobody may wait for ever.
        let _stop = StopOnDrop(&self);
        self.home.get_or_init(Handle::current);
        let mut lanes = JoinSet::new();
        for index in 0..self.lanes.len() {
            let jwks = Arc::clone(&self);
            lanes.spawn(async move {
                if let Some(lane) = jwks.lanes.get(index) {
                    jwks.keep_fresh(lane).await;
                }
            });
        }
        shutdown.await;
        lanes.shutdown().await;
    }

    /// Refreshes one issuer's key set and waits for the result; joins a fetch that is under way.
    ///
    /// # Errors
    ///
    /// Every [`RefreshError`]; the last good set is still in place.
    pub async fn refresh(&self, issuer: &Name, reason: RefreshReason) -> Outcome {
        let lane = self.lanes.iter().find(|l| l.source.issuer == *issuer);
        let lane = lane.ok_or(RefreshError::UnknownIssuer)?;
        let now = self.clock.now().mono;
        let joined = match (reason, self.home.get()) {
            // Requests wait for the lane's lock: whoever may be kept from running for a while,
            // as the admin plane's threads may, must not hold it.
            (RefreshReason::Operator, Some(home)) => {
                let lane = Arc::clone(lane);
                let joining = home.spawn(async move { lane.join(reason, now) });
                joining.await.unwrap_or(Err(RefreshError::Stopped))
            }
            _ => lane.join(reason, now),
        };
        match joined? {
            Some(waiting) => waiting.await.unwrap_or(Err(RefreshError::Stopped)),
            None => Ok(Refreshed::CoolingDown),
        }
    }

    /// How every issuer's key set fares, in the order of configuration. Takes no lock.
    #[must_use]
    pub fn status(&self) -> Vec<IssuerStatus> {
        self.lanes.iter().map(|lane| IssuerStatus::clone(&lane.status.load())).collect()
    }

    /// The life of a lane: fetch, tell, wait, again.
    async fn keep_fresh(&self, lane: &Lane) {
        loop {
            lane.state().busy = true;
            let outcome = self.fetch_once(lane).await;
            let delay = self.settle(lane, &outcome);
            lane.wait(delay).await;
        }
    }

    async fn fetch_once(&self, lane: &Lane) -> Outcome {
        let source = &lane.source;
        let (document, set) = fetch_set(source, &*self.clock).await?;
        let fetched = Refreshed::Fetched { keys: set.len(), skipped: set.skipped().len() };
        for key in set.skipped() {
            let (kid, reason) = (key.kid.as_deref(), key.reason);
            tracing::debug!(issuer = %source.issuer, kid, %reason, "a key is not used");
        }
        self.sink.publish(&source.issuer, set, &document.text);
        Ok(fetched)
    }

    /// Records an outcome, tells everyone, and says how long to wait until the next fetch.
    fn settle(&self, lane: &Lane, outcome: &Outcome) -> Duration {
        let issuer = &lane.source.issuer;
        let now = self.clock.now().unix;
        let (delay, waiters) = lane.settle(outcome, now);
        match outcome {
            Ok(Refreshed::Fetched { keys, skipped }) => {
                tracing::info!(%issuer, keys, skipped, "key set refreshed");
                self.sink.refreshed(issuer, Ok(*keys));
            }
            Ok(Refreshed::CoolingDown) => {}
            Err(error) => {
                let retry_s = delay.as_secs();
                tracing::warn!(%issuer, %error, retry_s, "key set not refreshed");
                self.sink.refreshed(issuer, Err(error));
            }
        }
        for waiter in waiters {
            // One who no longer waits needs no answer.
            drop(waiter.send(outcome.clone()));
        }
        delay
    }
}

/// Lets go of everyone who waits when [`Jwks::run`] ends, however it ends.
struct StopOnDrop<'a>(&'a Jwks);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        for lane in &self.0.lanes {
            let mut state = lane.state();
            state.stopped = true;
            state.waiters.clear();
        }
    }
}

/// One issuer and the state of its refreshes.
struct Lane {
    source: IssuerSource,
    state: Mutex<LaneState>,
    /// Apart from the state, so that whoever looks holds nobody up.
    status: ArcSwap<IssuerStatus>,
    wake: Notify,
}

struct LaneState {
    waiters: Vec<oneshot::Sender<Outcome>>,
    /// A fetch is under way; it starts busy because the first fetch starts by itself.
    busy: bool,
    stopped: bool,
    last_unknown_kid: Option<Monotonic>,
}

impl Lane {
    fn new(source: IssuerSource) -> Self {
        let status = IssuerStatus {
            issuer: source.issuer.clone(),
            last_success: None,
            keys: 0,
            skipped: 0,
            last_error: None,
            failures: 0,
            next_refresh: None,
        };
        Self {
            source,
            state: Mutex::new(LaneState {
                waiters: Vec::new(),
                busy: true,
                stopped: false,
                last_unknown_kid: None,
            }),
            status: ArcSwap::from_pointee(status),
            wake: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, LaneState> {
        // The state is consistent between any two statements, so a poisoned lock is as good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the fetch under way or asks for one; `None` during the cool-down.
    fn join(
        &self,
        reason: RefreshReason,
        now: Monotonic,
    ) -> Result<Option<oneshot::Receiver<Outcome>>, RefreshError> {
        let mut state = self.state();
        if state.stopped {
            return Err(RefreshError::Stopped);
        }
        if state.waiters.len() >= WAITERS_MAX {
            return Err(RefreshError::Busy);
        }
        let under_way = state.busy || !state.waiters.is_empty();
        if !under_way && reason == RefreshReason::UnknownKid {
            if state.is_cooling_down(self.source.cooldown, now) {
                return Ok(None);
            }
            state.last_unknown_kid = Some(now);
        }
        let (sender, receiver) = oneshot::channel();
        state.waiters.push(sender);
        drop(state);
        if !under_way {
            self.wake.notify_one();
        }
        Ok(Some(receiver))
    }

    /// Ends a fetch: how long until the next, and who waits for it.
    fn settle(
        &self,
        outcome: &Outcome,
        now: Timestamp,
    ) -> (Duration, Vec<oneshot::Sender<Outcome>>) {
        let mut status = IssuerStatus::clone(&self.status.load());
        match outcome {
            Ok(Refreshed::Fetched { keys, skipped }) => {
                status.last_success = Some(now);
                status.last_error = None;
                status.failures = 0;
                (status.keys, status.skipped) = (*keys, *skipped);
            }
            Ok(Refreshed::CoolingDown) => {}
            Err(error) => {
                status.last_error = Some(error.clone());
                status.failures = status.failures.saturating_add(1);
            }
        }
        let delay = next_delay(status.failures, self.source.refresh_interval);
        status.next_refresh = Some(now + delay);
        self.status.store(Arc::new(status));
        let mut state = self.state();
        state.busy = false;
        (delay, std::mem::take(&mut state.waiters))
    }

    /// Waits until the schedule or a caller wants a fetch.
    async fn wait(&self, delay: Duration) {
        let due = tokio::time::sleep(delay);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => return,
                // A wake-up whose callers were served by the schedule's fetch is spent.
                () = self.wake.notified() => if !self.state().waiters.is_empty() {
                    return;
                },
            }
        }
    }
}

impl LaneState {
    fn is_cooling_down(&self, cooldown: Duration, now: Monotonic) -> bool {
        let cooldown_us = u64::try_from(cooldown.as_micros()).unwrap_or(u64::MAX);
        self.last_unknown_kid.is_some_and(|last| now.us().saturating_sub(last.us()) < cooldown_us)
    }
}

/// The interval after a success; after `failures` in a row 1, 2, 4, … 60 s, or the interval if
/// that is shorter.
fn next_delay(failures: u32, interval: Duration) -> Duration {
    let interval = interval.max(RETRY_MIN);
    let Some(doublings) = failures.checked_sub(1) else {
        return interval;
    };
    RETRY_MIN
        .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
        .min(RETRY_MAX)
        .min(interval)
}

#[cfg(test)]
mod tests;
