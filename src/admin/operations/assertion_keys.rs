//! The keys that sign assertions: which there are, and how they take turns.
//!
//! A key is published first, signs later, and stays published for as long as anybody may hold
//! what it signed. Whose turn it is follows from the time alone ([`AssertionKeyRecord::signs_from`]
//! is the beginning of a turn, the next key's is its end), so that no worker is ever told to change
//! over. Nothing here signs, and nothing happens by itself: `jobs` calls [`maintain`].

use std::time::Duration;

use super::{OperationError, now};
use crate::admin::audit::{self, Action, Subject, SubjectKind};
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::admin::patch::Change;
use crate::assertion::{AssertionKey, KEY_SET_MAX_AGE, LIFETIME_MAX, Settings};
use crate::clock::Timestamp;
use crate::config::AssertionConfig;
use crate::secret::{EntropyError, SecretBytes, random_bytes};
use crate::store::{AssertionKeyRecord, ReadTx, WriteTx};

/// How long before its turn a key is published, unless half of the rotation is less: longer than
/// any verifier should go without looking, also one that does not heed `Cache-Control`.
const PUBLISHED_AHEAD: Duration = Duration::from_secs(24 * 3600);

/// Tolerated difference between our clock and a verifier's.
const LEEWAY: Duration = Duration::from_secs(60);

/// What a key is good for at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is published, and will sign.
    Next,
    /// It signs.
    Current,
    /// It signed; what it signed last may not have expired.
    Over,
}

/// A key that signs assertions, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionKeyInfo {
    /// Its name in the published key set.
    pub kid: String,
    /// What it is good for now.
    pub turn: Turn,
    /// When it was made, and so published.
    pub created_at: Timestamp,
    /// When its turn began or begins.
    pub signs_from: Timestamp,
}

/// All of them, in the order of their turns.
pub fn list(node: &Node, caller: &Caller) -> Result<Vec<AssertionKeyInfo>, OperationError> {
    caller.require(Permission::NodeRead)?;
    let keys = node.store.read(ReadTx::assertion_keys)?;
    Ok(infos(keys, now(node)))
}

/// How a key is replaced before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// As always: the next key signs once everybody can know it, after [`KEY_SET_MAX_AGE`] at the
    /// latest, and the present one stays published.
    Announced,
    /// For a key that may be in other hands: a new one signs now, and no other is published any
    /// more. Who holds an older key set refuses assertions until it fetches the new one.
    AtOnce,
}

/// Rotates now, whatever the age of the present key; the keys there are then.
pub fn rotate(
    node: &Node,
    caller: &Caller,
    rotation: Rotation,
) -> Result<Vec<AssertionKeyInfo>, OperationError> {
    caller.require(Permission::NodeWrite)?;
    if !node.config.load().assertion.enabled {
        let message = "assertions are off, and no key signs; set `assertion.enabled = true` first";
        return Err(OperationError::Conflict(message.to_owned()));
    }
    let now = now(node);
    let keys = change(node, caller, |keys| match rotation {
        Rotation::Announced => announced(keys, now),
        Rotation::AtOnce => at_once(keys, now),
    })?;
    Ok(infos(keys, now))
}

/// Makes the first key, or the next one when its time has come, and forgets keys whose last
/// assertion has expired. Costs a read when there is nothing to do.
pub fn maintain(node: &Node, config: &AssertionConfig) -> Result<(), OperationError> {
    let now = now(node);
    let rotation = config.enabled.then_some(config.key_rotation);
    let keys = node.store.read(ReadTx::assertion_keys)?;
    if due(&in_turn(keys), now, rotation).is_empty() {
        return Ok(());
    }
    change(node, &Caller::system(), |keys| due(keys, now, rotation)).map(drop)
}

/// What assertions say of themselves under `config`; `None` when they are off.
pub(in crate::admin) fn settings(config: &AssertionConfig) -> Option<Settings> {
    let settings = || Settings { issuer: config.issuer.clone(), lifetime: config.lifetime };
    config.enabled.then(settings)
}

/// One change of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A new key, whose turn begins then.
    Make { signs_from: Timestamp },
    /// The turn of a key that has not begun begins then.
    Move { id: u32, signs_from: Timestamp },
    /// A key goes.
    Forget { id: u32 },
}

/// Takes the steps that `plan` asks for; the keys after them, in the order of their turns.
fn change(
    node: &Node,
    caller: &Caller,
    plan: impl FnOnce(&[AssertionKeyRecord]) -> Vec<Step>,
) -> Result<Vec<AssertionKeyRecord>, OperationError> {
    let now = now(node);
    node.mutate(|tx, patch, _| {
        let old = in_turn(tx.assertion_keys()?);
        let steps = plan(&old);
        let seed = || random_bytes(node.entropy.as_ref()).map(SecretBytes::new);
        let new = apply(&old, &steps, now, seed)?;
        write(tx, &old, &new, &steps)?;
        if !steps.is_empty() {
            let subject = Subject::new(SubjectKind::AssertionKey, "all");
            let (before, after) = (Some(view(&old)), Some(view(&new)));
            let action = Action::AssertionKeysChanged;
            audit::record(tx, caller, now, action, subject, before, after)?;
        }
        patch.push(Change::SetAssertionKeys(new.clone()));
        Ok(new)
    })
}

/// For the audit log: each key's turn, by its number.
fn view(keys: &[AssertionKeyRecord]) -> serde_json::Value {
    let turn = |key: &AssertionKeyRecord| {
        (key.id.to_string(), serde_json::json!({ "signs_from": key.signs_from }))
    };
    serde_json::Value::Object(keys.iter().map(turn).collect())
}

fn write(
    tx: &mut WriteTx,
    old: &[AssertionKeyRecord],
    new: &[AssertionKeyRecord],
    steps: &[Step],
) -> Result<(), OperationError> {
    for step in steps {
        if let Step::Forget { id } = step {
            tx.delete_assertion_key(*id)?;
        }
    }
    let unchanged = |key: &AssertionKeyRecord| {
        old.iter().any(|other| other.id == key.id && other.signs_from == key.signs_from)
    };
    for key in new.iter().filter(|key| !unchanged(key)) {
        tx.put_assertion_key(key)?;
    }
    Ok(())
}

/// The keys after `steps`.
fn apply(
    keys: &[AssertionKeyRecord],
    steps: &[Step],
    now: Timestamp,
    mut seed: impl FnMut() -> Result<SecretBytes<32>, EntropyError>,
) -> Result<Vec<AssertionKeyRecord>, OperationError> {
    let mut keys = keys.to_vec();
    let mut last = keys.iter().map(|key| key.id).max().unwrap_or(0);
    for step in steps {
        match *step {
            Step::Make { signs_from } => {
                last = last.checked_add(1).ok_or_else(|| {
                    let message = "there are no numbers left for keys that sign assertions";
                    OperationError::Conflict(message.to_owned())
                })?;
                let seed = seed()?;
                keys.push(AssertionKeyRecord { id: last, seed, created_at: now, signs_from });
            }
            Step::Move { id, signs_from } => {
                for key in keys.iter_mut().filter(|key| key.id == id) {
                    key.signs_from = signs_from;
                }
            }
            Step::Forget { id } => keys.retain(|key| key.id != id),
        }
    }
    Ok(in_turn(keys))
}

/// What has to happen by itself. `rotation`: `None` when assertions are off.
fn due(keys: &[AssertionKeyRecord], now: Timestamp, rotation: Option<Duration>) -> Vec<Step> {
    let mut steps: Vec<Step> = spent(keys, now).map(|key| Step::Forget { id: key.id }).collect();
    let Some(rotation) = rotation else { return steps };
    let Some(current) = current(keys, now).and_then(|at| keys.get(at)) else {
        steps.push(Step::Make { signs_from: now });
        return steps;
    };
    let ahead = PUBLISHED_AHEAD.min(rotation / 2);
    match next(keys, now) {
        // The clock had run ahead when it was made.
        Some(next) if next.signs_from > now + ahead.max(KEY_SET_MAX_AGE) => {
            steps.push(Step::Move { id: next.id, signs_from: now + ahead.max(KEY_SET_MAX_AGE) });
        }
        Some(_) => {}
        None => {
            let due = current.signs_from + rotation;
            if now + ahead >= due {
                steps.push(Step::Make { signs_from: due.max(now + KEY_SET_MAX_AGE) });
            }
        }
    }
    steps
}

/// [`Rotation::Announced`].
fn announced(keys: &[AssertionKeyRecord], now: Timestamp) -> Vec<Step> {
    if keys.is_empty() {
        return vec![Step::Make { signs_from: now }];
    }
    let known_to_all = now + KEY_SET_MAX_AGE;
    let Some(next) = next(keys, now) else {
        return vec![Step::Make { signs_from: known_to_all }];
    };
    let earliest = (next.created_at + KEY_SET_MAX_AGE).max(now).min(known_to_all);
    if earliest < next.signs_from {
        return vec![Step::Move { id: next.id, signs_from: earliest }];
    }
    Vec::new()
}

/// [`Rotation::AtOnce`].
fn at_once(keys: &[AssertionKeyRecord], now: Timestamp) -> Vec<Step> {
    let forget = keys.iter().map(|key| Step::Forget { id: key.id });
    // Made first: its number is nobody's that was used before.
    std::iter::once(Step::Make { signs_from: now }).chain(forget).collect()
}

fn in_turn(mut keys: Vec<AssertionKeyRecord>) -> Vec<AssertionKeyRecord> {
    keys.sort_by_key(|key| (key.signs_from, key.id));
    keys
}

/// Where the key that signs at `now` stands: as [`crate::assertion::Assertions::signer`] has it.
fn current(keys: &[AssertionKeyRecord], now: Timestamp) -> Option<usize> {
    let begun = keys.iter().rposition(|key| key.signs_from <= now);
    begun.or_else(|| (!keys.is_empty()).then_some(0))
}

fn next(keys: &[AssertionKeyRecord], now: Timestamp) -> Option<&AssertionKeyRecord> {
    keys.get(current(keys, now)? + 1)
}

/// The keys of which no assertion is good any more: by their turn's end, every assertion's
/// longest life and everybody's clock.
fn spent(keys: &[AssertionKeyRecord], now: Timestamp) -> impl Iterator<Item = &AssertionKeyRecord> {
    let turns = keys.iter().zip(keys.iter().skip(1));
    let over = move |end: Timestamp| end + LIFETIME_MAX + LEEWAY <= now;
    turns.filter(move |(_, next)| over(next.signs_from)).map(|(key, _)| key)
}

fn infos(keys: Vec<AssertionKeyRecord>, now: Timestamp) -> Vec<AssertionKeyInfo> {
    let keys = in_turn(keys);
    let current = current(&keys, now);
    let info = |(at, key): (usize, &AssertionKeyRecord)| {
        // Every seed of this length is a key.
        let kid = AssertionKey::new(&key.seed, key.signs_from).ok()?.kid().to_owned();
        let turn = match Some(at).cmp(&current) {
            std::cmp::Ordering::Less => Turn::Over,
            std::cmp::Ordering::Equal => Turn::Current,
            std::cmp::Ordering::Greater => Turn::Next,
        };
        Some(AssertionKeyInfo { kid, turn, created_at: key.created_at, signs_from: key.signs_from })
    };
    keys.iter().enumerate().filter_map(info).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_s(1_800_000_000 + seconds)
    }

    fn key(id: u32, created_s: u64, signs_s: u64) -> AssertionKeyRecord {
        let seed = SecretBytes::new([u8::try_from(id).unwrap(); 32]);
        AssertionKeyRecord { id, seed, created_at: at(created_s), signs_from: at(signs_s) }
    }

    #[test]
    fn what_is_due() {
        const MONTH_S: u64 = 30 * 24 * 3600;
        const DAY_S: u64 = 24 * 3600;
        let make = |s| Step::Make { signs_from: at(s) };
        let moved = |s| Step::Move { id: 2, signs_from: at(s) };
        let one = || vec![key(1, 0, 0)];
        let two = |signs| vec![key(1, 0, 0), key(2, signs - 300, signs)];
        let rows = [
            ("the first", vec![], 7, vec![make(7)]),
            ("young", one(), MONTH_S - DAY_S - 1, vec![]),
            ("a day ahead", one(), MONTH_S - DAY_S, vec![make(MONTH_S)]),
            ("overslept", one(), 9 * MONTH_S, vec![make(9 * MONTH_S + 300)]),
            ("published", two(MONTH_S), MONTH_S - 9, vec![]),
            ("just over", two(MONTH_S), MONTH_S + 359, vec![]),
            ("spent", two(MONTH_S), MONTH_S + 360, vec![Step::Forget { id: 1 }]),
            ("a clock set back", two(9 * MONTH_S), 5, vec![moved(5 + DAY_S)]),
            ("set back before all", vec![key(1, 500, 500)], 5, vec![]),
        ];
        for (name, keys, now, want) in rows {
            assert_eq!(due(&keys, at(now), Some(30 * DAY)), want, "{name}");
            let forgets = |step: &&Step| matches!(step, Step::Forget { .. });
            let off: Vec<Step> = want.iter().filter(forgets).copied().collect();
            assert_eq!(due(&keys, at(now), None), off, "{name}, off");
        }
    }

    #[test]
    fn an_announced_rotation_waits_until_everybody_can_know() {
        let make = |s| Step::Make { signs_from: at(s) };
        let moved = |s| Step::Move { id: 2, signs_from: at(s) };
        let rows = [
            ("none yet", vec![], 7, vec![make(7)]),
            ("none waits", vec![key(1, 0, 0)], 50, vec![make(350)]),
            ("one waits", vec![key(1, 0, 0), key(2, 100, 9999)], 150, vec![moved(400)]),
            ("one waited", vec![key(1, 0, 0), key(2, 100, 9999)], 5000, vec![moved(5000)]),
            ("again", vec![key(1, 0, 0), key(2, 100, 400)], 150, vec![]),
            ("clock set back", vec![key(1, 0, 0), key(2, 9000, 9999)], 5, vec![moved(305)]),
        ];
        for (name, keys, now, want) in rows {
            assert_eq!(announced(&keys, at(now)), want, "{name}");
        }
    }

    #[test]
    fn at_once_leaves_no_key_but_a_new_one() {
        let keys = [key(1, 0, 0), key(2, 100, 9999)];
        let seed = || Ok(SecretBytes::new([9; 32]));
        let after = apply(&keys, &at_once(&keys, at(150)), at(150), seed).unwrap();
        assert_eq!(after.len(), 1);
        assert_eq!((after[0].id, after[0].signs_from), (3, at(150)));
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Wait(u64),
        Announced,
        Off(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            6 => (1..90_000_u64).prop_map(Event::Wait),
            2 => (1..600_u64).prop_map(Event::Wait),
            1 => Just(Event::Announced),
            1 => (1..9_000_000_u64).prop_map(Event::Off),
        ];
        proptest::collection::vec(event, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Minute by minute through rotations, asked for or not, and times when nothing runs: who
        /// fetched the key set within its `max-age` knows the key that signs, and the key set
        /// holds every key for as long as what it signed is good.
        #[test]
        fn every_signature_verifies_by_every_fresh_key_set(
            events in events(),
            days in 1..40_u32,
        ) {
            let rotation = DAY * days;
            let mut now = at(0);
            let mut number = 0;
            let mut keys: Vec<AssertionKeyRecord> = Vec::new();
            // Key sets as they were published, and who signed, for as long as it matters.
            let mut published: Vec<(Timestamp, Vec<u32>)> = Vec::new();
            let mut signed: Vec<(Timestamp, u32)> = Vec::new();
            let mut step = |keys: &mut Vec<_>, now, steps: Vec<Step>| {
                let seed = || {
                    number += 1;
                    Ok(SecretBytes::new([number; 32]))
                };
                *keys = apply(keys, &steps, now, seed).unwrap();
            };
            for event in events {
                let minutes = match event {
                    Event::Wait(s) => s / 60 + 1,
                    Event::Announced => {
                        let steps = announced(&keys, now);
                        step(&mut keys, now, steps);
                        1
                    }
                    Event::Off(s) => {
                        now = now + Duration::from_secs(s);
                        published.clear();
                        1
                    }
                };
                for _ in 0..minutes {
                    let steps = due(&keys, now, Some(rotation));
                    step(&mut keys, now, steps);
                    let signer = keys[current(&keys, now).unwrap()].id;
                    published.push((now, keys.iter().map(|key| key.id).collect()));
                    signed.push((now, signer));
                    let fresh = |t: Timestamp| now.since(t) < KEY_SET_MAX_AGE;
                    published.retain(|(t, _)| fresh(*t));
                    let known = published.iter().all(|(_, ids)| ids.contains(&signer));
                    prop_assert!(known, "{signer} signs: {published:?}");
                    signed.retain(|(t, _)| now.since(*t) + MINUTE <= LIFETIME_MAX + LEEWAY);
                    let held = signed.iter().all(|(_, id)| keys.iter().any(|key| key.id == *id));
                    prop_assert!(held, "{signed:?}");
                    prop_assert!(keys.len() <= 3);
                    now = now + MINUTE;
                }
            }
        }
    }
}
