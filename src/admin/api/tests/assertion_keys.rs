//! The keys that sign assertions, from their making to their end.

use std::time::Duration;

use serde_json::Value;

use crate::admin::jobs::{Progress, tick};
use crate::admin::testing::{Bench, config};

const ON: &str = "[assertion]\nenabled = true\n";
const KEYS: &str = "/api/v1/assertion-keys";
const ROTATE: &str = "/api/v1/assertion-keys/rotate";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The turns of the keys, in their order, and their names.
fn turns(answer: &Value) -> Vec<(String, String)> {
    let text = |key: &Value, member: &str| key[member].as_str().unwrap().to_owned();
    let keys = answer["items"].as_array().unwrap().iter();
    keys.map(|key| (text(key, "turn"), text(key, "kid"))).collect()
}

/// The same by the API, which must be what is published.
async fn listed(bench: &Bench) -> Vec<(String, String)> {
    let keys = turns(&bench.get(KEYS).await.expect(200).json());
    let set = bench.node.published.load().assertions().key_set();
    let set: Value = serde_json::from_slice(&set).unwrap();
    let published: Vec<_> = set["keys"].as_array().unwrap().iter().map(|k| &k["kid"]).collect();
    assert_eq!(published, keys.iter().map(|key| &key.1).collect::<Vec<_>>());
    keys
}

fn names(keys: &[(String, String)]) -> Vec<&str> {
    keys.iter().map(|key| &*key.0).collect()
}

fn signs(bench: &Bench) -> bool {
    bench.node.published.load().assertions().signer(bench.node.now().unix).is_some()
}

#[tokio::test]
async fn nothing_is_made_until_it_is_asked_for() {
    let bench = Bench::new();
    tick(&bench.node, &Progress::default());
    assert!(listed(&bench).await.is_empty() && !signs(&bench));
    let refused = bench.post(ROTATE, "").await.problem(409, "conflict");
    assert!(refused.text.contains("assertion.enabled"), "{}", refused.text);
    assert_eq!(bench.node.reload(config(&bench.dir, ON)), Vec::<String>::new());
    assert!(signs(&bench), "from the first request under the new configuration");
    let first = listed(&bench).await;
    assert_eq!(names(&first), ["current"]);
    bench.node.reload(config(&bench.dir, ""));
    assert!(!signs(&bench));
    assert_eq!(listed(&bench).await, first, "what was signed before must verify");
    bench.node.reload(config(&bench.dir, ON));
    assert_eq!(listed(&bench).await, first);
}

#[tokio::test]
async fn keys_take_turns_by_themselves_and_survive_restarts() {
    let bench = Bench::with(ON);
    let progress = Progress::default();
    let first = listed(&bench).await;
    assert!(signs(&bench), "from the first request on");
    bench.clock.advance(DAY * 28 + Duration::from_secs(24 * 3600 - 1));
    tick(&bench.node, &progress);
    assert_eq!(listed(&bench).await, first);
    bench.clock.advance(Duration::from_secs(1));
    tick(&bench.node, &progress);
    let both = listed(&bench).await;
    assert_eq!(names(&both), ["current", "next"]);
    assert_eq!(both[0].1, first[0].1);
    let bench = bench.restart();
    assert_eq!(listed(&bench).await, both);
    // Nobody has to be there when the turn changes.
    bench.clock.advance(DAY);
    assert_eq!(names(&listed(&bench).await), ["over", "current"]);
    bench.clock.advance(Duration::from_secs(359));
    tick(&bench.node, &progress);
    assert_eq!(names(&listed(&bench).await), ["over", "current"]);
    bench.clock.advance(Duration::from_secs(1));
    tick(&bench.node, &progress);
    let last = listed(&bench).await;
    assert_eq!(names(&last), ["current"]);
    assert_eq!(last[0].1, both[1].1);
    assert_eq!(listed(&bench.restart()).await, last);
}

#[tokio::test]
async fn a_rotation_is_announced_unless_it_must_be_at_once() {
    let bench = Bench::with(ON);
    let first = listed(&bench).await;
    let announced = turns(&bench.post(ROTATE, "").await.expect(200).json());
    assert_eq!(names(&announced), ["current", "next"]);
    assert_eq!(announced[0], first[0]);
    let again = turns(&bench.post(ROTATE, r#"{"at_once":false}"#).await.expect(200).json());
    assert_eq!(again, announced, "the next key waits already");
    bench.clock.advance(Duration::from_secs(300));
    assert_eq!(names(&listed(&bench).await), ["over", "current"]);

    let fresh = turns(&bench.post(ROTATE, r#"{"at_once":true}"#).await.expect(200).json());
    assert_eq!(names(&fresh), ["current"]);
    assert!(announced.iter().all(|key| key.1 != fresh[0].1));
    assert_eq!(listed(&bench).await, fresh, "no other is published any more");
    assert_eq!(listed(&bench.restart()).await, fresh);
}

#[tokio::test]
async fn unknown_members_are_refused_and_no_seed_is_shown() {
    let bench = Bench::with(ON);
    bench.post(ROTATE, r#"{"now":true}"#).await.problem(422, "invalid");
    let seed = bench.node.store.read(crate::store::ReadTx::assertion_keys).unwrap();
    let shown = [
        bench.get(KEYS).await.text,
        String::from_utf8(bench.node.published.load().assertions().key_set().to_vec()).unwrap(),
        format!("{:?}", bench.node.published.load().assertions()),
        format!("{seed:?}"),
    ];
    let encoded = {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(seed[0].seed.expose())
    };
    let debug = format!("{:?}", seed[0].seed.expose());
    for text in shown {
        assert!(!text.contains(&encoded) && !text.contains(&debug), "{text}");
    }
}
