//! Nothing acknowledged is lost: SIGKILL in the middle of creations, rotations and revocations,
//! again and again on the same database; and each of them is in the audit log, which verifies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Site};
use crate::support::http::{get, request};
use crate::support::secrets;
use crate::support::upstream::{Behaviour, Upstream};

const ROUNDS: usize = 50;
/// Threads that change keys at the same time, so that a kill always finds some change half done.
const WRITERS: usize = 3;

/// What was acknowledged of a key: its secret must pass, or must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    Refused,
}

/// What one writer was told, by secret; changes without an answer are in neither state.
#[derive(Default)]
struct Ledger {
    fates: BTreeMap<String, Fate>,
    live: Vec<Key>,
    /// Each change, as the audit log has it: what was done to which key.
    changes: Vec<(&'static str, String)>,
}

/// A key that was handed out and not yet replaced or revoked.
struct Key {
    shop: String,
    id: String,
    secret: String,
}

#[test]
fn sigkill_loses_nothing_acknowledged() {
    let upstream = Upstream::start(Behaviour::Echo);
    let site = Site::new(
        Some(&upstream),
        "[failed_attempts]\nlimit = 200000\nwindow = \"1s\"\n[[limits]]\nname = \"any\"\n\
         paths = [\"/*\"]\nkey = \"shop\"\nlimit = 200000\nwindow = \"1s\"\n",
    );
    let mut ledgers: Vec<Ledger> = (0..WRITERS).map(|_| Ledger::default()).collect();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let gateway = site.start();
        // A shop holds a bounded number of keys, so each round has its own.
        let shop = format!("round-{round}");
        gateway.shop(&shop);
        // The last changes are checked at once, all of them at the end.
        for ledger in &ledgers {
            verify(&gateway, ledger, 40);
        }
        let target = 3 + (round * 7) % 17;
        acknowledged += kill_while_writing(gateway, &site.socket(), &shop, &mut ledgers, target);
    }
    let gateway = site.start();
    for ledger in &ledgers {
        verify(&gateway, ledger, usize::MAX);
    }
    drop(gateway);
    let recorded = recorded(&site);
    for change in ledgers.iter().flat_map(|ledger| &ledger.changes) {
        assert!(recorded.contains(change), "no entry of an acknowledged change: {change:?}");
    }
    let fates: Vec<Fate> = ledgers.iter().flat_map(|l| l.fates.values().copied()).collect();
    let refused = fates.iter().filter(|f| **f == Fate::Refused).count();
    assert!(acknowledged >= ROUNDS * 3 && refused > ROUNDS, "{acknowledged} changes, {refused}");
}

/// What the audit log holds: each action and what it was done to.
fn recorded(site: &Site) -> BTreeSet<(&'static str, String)> {
    site.cli_ok(&["audit", "verify"]);
    let exported = site.cli_ok(&["audit", "export"]);
    let entries = exported.lines().skip(1).map(|line| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |at: &str| line.pointer(at).and_then(Value::as_str).expect(at).to_owned();
        (text("/entry/action"), text("/entry/subject/id"))
    });
    let known = |action: String| {
        ["key.created", "key.rotated", "key.revoked"].into_iter().find(|known| **known == action)
    };
    entries.filter_map(|(action, id)| Some((known(action)?, id))).collect()
}

fn kill_while_writing(
    gateway: Gateway,
    socket: &Path,
    shop: &str,
    ledgers: &mut [Ledger],
    target: usize,
) -> usize {
    let (done, ended) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (n, ledger) in ledgers.iter_mut().enumerate() {
            scope.spawn(move || {
                let mut step = n;
                let _ended = CountOnDrop(ended);
                while change(socket, shop, ledger, step) {
                    done.fetch_add(1, Ordering::Relaxed);
                    step += 1;
                }
            });
        }
        scope.spawn(move || {
            // A writer that ends before the kill has failed; the scope will tell.
            while done.load(Ordering::Relaxed) < target && ended.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            gateway.kill();
        });
    });
    done.load(Ordering::Relaxed)
}

struct CountOnDrop<'a>(&'a AtomicUsize);

impl Drop for CountOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One change and its acknowledgement; `false` when the server is gone.
fn change(socket: &Path, shop: &str, ledger: &mut Ledger, step: usize) -> bool {
    let oldest = (ledger.live.len() > 4).then(|| ledger.live.remove(0));
    match (oldest, step % 3) {
        (Some(key), 0) => revoke(socket, ledger, &key),
        (Some(key), _) => rotate(socket, ledger, &key, step.is_multiple_of(2)),
        (None, _) => create(socket, ledger, shop),
    }
}

fn call(socket: &Path, method: &str, path: &str, body: &Value) -> Option<Value> {
    let call = request(method, &format!("/api/v1/shops/{path}"));
    let call = if body.is_null() { call } else { call.json(body) };
    let answer = call.try_send_unix(socket).ok()?;
    assert!(answer.status < 300, "{method} {path}: {}", answer.text());
    secrets::collect(&answer);
    Some(if answer.body.is_empty() { Value::Null } else { answer.json() })
}

fn create(socket: &Path, ledger: &mut Ledger, shop: &str) -> bool {
    let body = json!({"name": "crash"});
    let Some(created) = call(socket, "POST", &format!("{shop}/keys"), &body) else { return false };
    let id = ledger.take(shop, &created);
    ledger.changes.push(("key.created", id));
    true
}

fn revoke(socket: &Path, ledger: &mut Ledger, key: &Key) -> bool {
    // Until the answer comes, either outcome is right.
    ledger.fates.remove(&key.secret);
    let path = format!("{}/keys/{}", key.shop, key.id);
    if call(socket, "DELETE", &path, &Value::Null).is_none() {
        return false;
    }
    ledger.fates.insert(key.secret.clone(), Fate::Refused);
    ledger.changes.push(("key.revoked", key.id.clone()));
    true
}

fn rotate(socket: &Path, ledger: &mut Ledger, key: &Key, grace: bool) -> bool {
    ledger.fates.remove(&key.secret);
    let body = json!({"grace_seconds": if grace { 86_400 } else { 0 }});
    let path = format!("{}/keys/{}/rotate", key.shop, key.id);
    let Some(rotated) = call(socket, "POST", &path, &body) else { return false };
    let fate = if grace { Fate::Passes } else { Fate::Refused };
    ledger.fates.insert(key.secret.clone(), fate);
    ledger.take(&key.shop, &rotated);
    ledger.changes.push(("key.rotated", key.id.clone()));
    true
}

impl Ledger {
    /// Takes a key that was handed out; its id.
    fn take(&mut self, shop: &str, created: &Value) -> String {
        let text = |name: &str| created[name].as_str().expect("a string").to_owned();
        self.fates.insert(text("secret"), Fate::Passes);
        self.live.push(Key { shop: shop.to_owned(), id: text("id"), secret: text("secret") });
        text("id")
    }
}

fn verify(gateway: &Gateway, ledger: &Ledger, most: usize) {
    let live = ledger.live.iter().map(|key| &key.secret);
    let others = ledger.fates.keys().filter(|s| !ledger.live.iter().any(|key| key.secret == **s));
    for secret in live.chain(others).take(most) {
        let Some(fate) = ledger.fates.get(secret) else { continue };
        let answer = gateway.send(&get("/api/plugin/shops/me/x").key(secret));
        let expected = if *fate == Fate::Passes { 200 } else { 401 };
        assert_eq!(answer.status, expected, "an acknowledged change was lost: {fate:?}");
    }
}
