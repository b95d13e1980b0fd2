use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::admin::operations::Precondition;
use crate::admin::testing::Bench;
use crate::decision::Facts;
use crate::id::{AdminTokenId, ShopId};
use crate::store::Role;

fn go_on(_: Phase, _: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn owner() -> Caller {
    Caller::socket()
}

const PLAIN: ImportOptions = ImportOptions { dry_run: false, replace: false };
const REPLACE: ImportOptions = ImportOptions { dry_run: false, replace: true };

fn run(
    bench: &Bench,
    text: &str,
    options: ImportOptions,
    report: Report<'_>,
) -> Result<Import, OperationError> {
    let turn = take_turn(&bench.node, &owner())?;
    import(&turn, &owner(), text.as_bytes(), options, report)
}

#[track_caller]
fn done(bench: &Bench, text: &str, options: ImportOptions) -> Imported {
    match run(bench, text, options, &mut go_on).unwrap() {
        Import::Done(imported) => imported,
        Import::Refused(faults) => panic!("{faults:?}"),
    }
}

#[track_caller]
fn refused(bench: &Bench, text: &str, options: ImportOptions) -> Vec<(u64, String)> {
    let before = exported(bench);
    match run(bench, text, options, &mut go_on).unwrap() {
        Import::Done(imported) => panic!("{imported:?}"),
        Import::Refused(faults) => {
            assert_eq!(exported(bench), before, "nothing is changed");
            faults.shown.into_iter().map(|fault| (fault.line, fault.problem)).collect()
        }
    }
}

fn exported(bench: &Bench) -> String {
    let mut text = Vec::new();
    let selection = Selection { shops: true, keys: true };
    export(&bench.node, &owner(), selection, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn shop(id: &str) -> String {
    format!("{{\"type\":\"shop/1\",\"id\":\"{id}\",\"url\":\"https://{id}.example\"}}\n")
}

fn secret(n: u32) -> String {
    format!("sk_{n:032x}")
}

fn key(shop: &str, n: u32) -> String {
    let secret = secret(n);
    format!("{{\"type\":\"key/1\",\"shop\":\"{shop}\",\"name\":\"k\",\"secret\":\"{secret}\"}}\n")
}

fn counts(created: u64, replaced: u64, unchanged: u64) -> Counts {
    Counts { created, replaced, unchanged }
}

#[tokio::test]
async fn keys_come_in_by_secret_and_by_sha256_and_are_let_in() {
    let bench = Bench::new();
    let sha256 = ring::digest::digest(&ring::digest::SHA256, secret(2).as_bytes());
    let hex = sha256.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02X}").unwrap();
        hex
    });
    // Keys before their shop: the order of lines does not matter.
    let text = format!(
        "{}{{\"type\":\"key/1\",\"shop\":\"a\",\"sha256\":\"{hex}\",\"networks\":[\"127.0.0.0/8\"],\
         \"expires_at\":\"2040-01-01T00:00:00Z\"}}\n\n{}",
        key("a", 1),
        shop("a")
    );
    let dry = done(&bench, &text, ImportOptions { dry_run: true, ..PLAIN });
    assert_eq!((dry.shops, dry.keys), (counts(1, 0, 0), counts(2, 0, 0)));
    assert_eq!(bench.node.published.load().counts(), (0, 0), "it was a dry run");
    assert_eq!(done(&bench, &text, PLAIN), dry);
    for n in [1, 2] {
        assert_eq!(bench.decide_key(&secret(n)).await, "allow", "{n}");
    }
    assert_ne!(bench.decide_key(&secret(3)).await, "allow");
    let again = done(&bench, &text, PLAIN);
    assert_eq!((again.shops, again.keys), (counts(0, 0, 1), counts(0, 0, 2)));
    let bench = bench.restart();
    assert_eq!(bench.decide_key(&secret(2)).await, "allow");
}

#[test]
fn every_fault_is_told_by_its_line_and_nothing_is_changed() {
    let bench = Bench::new();
    done(&bench, &(shop("here") + &key("here", 1)), PLAIN);
    let text = [
        &shop("a"),
        "not json\n",
        "{\"type\":\"shop/2\",\"id\":\"b\"}\n",
        "{\"type\":\"shop/1\",\"id\":\"me\",\"url\":\"ftp://x\"}\n",
        &shop("a"),
        &key("a", 7),
        &key("a", 7),
        &key("nowhere", 8),
        "{\"type\":\"key/1\",\"shop\":\"a\",\"secret\":\"sk_short\"}\n",
        "{\"type\":\"key/1\",\"shop\":\"a\"}\n",
        "{\"type\":\"key/1\",\"shop\":\"a\",\"sha256\":\"00\"}\n",
        "{\"type\":\"key/1\",\"shop\":\"a\",\"digest\":\"AAAA\"}\n",
        &key("a", 1),
        "{\"type\":\"shop/1\",\"id\":\"here\",\"url\":\"https://other.example\"}\n",
        "{\"type\":\"shop/1\",\"id\":\"c\",\"url\":\"https://c.example\",\"colour\":1}\n",
        "{\"type\":\"shop/1\",\"id\":\"d\",\"url\":\"https://d.example\",\"limits\":{\"no\":\
         {\"limit\":1,\"window_seconds\":1}}}\n",
        "{\"type\":\"key/1\",\"shop\":[\"sk_00000000000000000000000000000009\"]}\n",
        "\u{ff}\n",
    ]
    .concat();
    let faults = refused(&bench, &text, PLAIN);
    let lines: Vec<u64> = faults.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18], "{faults:#?}");
    for (line, part) in [
        (2, "not JSON"),
        (3, "`type`"),
        (5, "line 1 already"),
        (7, "line 6 already"),
        (8, "no shop `nowhere`"),
        (12, "master key"),
        (13, "belongs to the shop `here`"),
        (14, "another url; --replace"),
        (15, "colour"),
        (16, "no limit of the configuration"),
    ] {
        let told = faults.iter().any(|(at, problem)| *at == line && problem.contains(part));
        assert!(told, "{line}: {part}: {faults:#?}");
    }
    let all = format!("{faults:?}");
    assert!(!all.contains("sk_0") && !all.contains("sk_short"), "{all}");
}

#[test]
fn faults_are_counted_beyond_those_that_are_shown() {
    let bench = Bench::new();
    let text = "{}\n".repeat(FAULTS_MAX + 234);
    let Import::Refused(faults) = run(&bench, &text, PLAIN, &mut go_on).unwrap() else {
        panic!("not refused");
    };
    assert_eq!((faults.shown.len(), faults.total), (FAULTS_MAX, FAULTS_MAX as u64 + 234));
    assert_eq!(faults.shown[FAULTS_MAX - 1].line, FAULTS_MAX as u64);
    let long = format!("{{\"type\":\"{}\"}}\n", "x".repeat(LINE_BYTES_MAX));
    assert_eq!(refused(&bench, &long, PLAIN).len(), 1);
}

#[tokio::test]
async fn what_differs_is_overwritten_only_when_told_to() {
    let bench = Bench::new();
    done(&bench, &(shop("a") + &key("a", 1) + &shop("b")), PLAIN);
    let changed =
        shop("a").replace("a.example", "z.example") + &key("a", 1).replace("\"k\"", "\"renamed\"");
    assert_eq!(refused(&bench, &changed, PLAIN).len(), 2);
    let replaced = done(&bench, &changed, REPLACE);
    assert_eq!((replaced.shops, replaced.keys), (counts(0, 1, 0), counts(0, 1, 0)));
    let text = exported(&bench);
    assert!(text.contains("https://z.example") && text.contains("renamed"), "{text}");
    // Never from one shop to another.
    assert_eq!(refused(&bench, &key("b", 1), REPLACE).len(), 1);
    // Another secret under the same id: the old one is refused from then on.
    let line = text.lines().find(|line| line.contains("\"key/1\"")).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
    let id = parsed["id"].as_str().unwrap();
    let other = key("a", 9).replace("\"name\"", &format!("\"id\":\"{id}\",\"name\""));
    assert_eq!(refused(&bench, &other, PLAIN).len(), 1);
    done(&bench, &other, REPLACE);
    assert_eq!(bench.decide_key(&secret(9)).await, "allow");
    assert_ne!(bench.decide_key(&secret(1)).await, "allow");
    // The same secret under another id.
    let moved = other.replace(id, "key_00000000000000aa");
    done(&bench, &moved, REPLACE);
    assert_eq!(bench.decide_key(&secret(9)).await, "allow");
    let bench = bench.restart();
    assert_eq!(bench.decide_key(&secret(9)).await, "allow");
    assert_ne!(bench.decide_key(&secret(1)).await, "allow");
    assert_eq!(bench.node.published.load().counts(), (2, 1));
}

#[tokio::test]
async fn an_export_comes_in_again_where_the_master_key_is_the_same() {
    let bench = Bench::new();
    done(&bench, &(shop("a") + &key("a", 1) + &shop("b") + &key("b", 2)), PLAIN);
    let (_, minted) = bench.key("a").await;
    let text = exported(&bench);
    for hidden in [&secret(1), &secret(2), &minted] {
        assert!(!text.contains(hidden.as_str()));
    }
    let same = done(&bench, &text, PLAIN);
    assert_eq!((same.shops, same.keys), (counts(0, 0, 2), counts(0, 0, 3)));
    // On a machine with another master key its keys mean nothing, its shops do.
    let other = Bench::new();
    assert_eq!(refused(&other, &text, PLAIN).len(), 3);
    let shops: String = text
        .lines()
        .filter(|line| !line.contains("\"key/1\""))
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(done(&other, &shops, PLAIN).shops, counts(2, 0, 0));
    // Without its first line nobody knows under which master key it was made.
    let headless = text.split_once('\n').unwrap().1;
    assert_eq!(refused(&bench, headless, PLAIN).len(), 3);
    // The same master key and an empty store.
    let fresh = Bench::new();
    std::fs::copy(bench.dir.path().join("master.key"), fresh.dir.path().join("master.key"))
        .unwrap();
    std::fs::remove_file(fresh.dir.path().join("latchkey.redb")).unwrap();
    let config = crate::config::Config::clone(&fresh.node.config.load());
    let node = crate::admin::testing::open(config, &fresh.clock).unwrap();
    let fresh = Bench { node, ..fresh };
    assert_eq!(done(&fresh, &text, PLAIN).keys, counts(3, 0, 0));
    assert_eq!(fresh.decide_key(&minted).await, "allow");
}

#[test]
fn a_shop_has_no_more_keys_than_it_may() {
    use crate::admin::operations::keys::KEYS_PER_SHOP_MAX;
    let bench = Bench::new();
    let most = u32::try_from(KEYS_PER_SHOP_MAX).unwrap();
    let keys = |range: std::ops::Range<u32>| range.map(|n| key("a", n)).collect::<String>();
    done(&bench, &(shop("a") + &keys(0..most - 1)), PLAIN);
    let faults = refused(&bench, &keys(0..most + 1), PLAIN);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].0, u64::from(most) + 1);
    assert_eq!(done(&bench, &keys(0..most), PLAIN).keys, counts(1, 0, u64::from(most) - 1));
}

#[test]
fn one_that_was_stopped_is_finished_by_the_next() {
    let bench = Bench::new();
    let shops: u32 = 30;
    let text: String = (0..shops)
        .map(|s| {
            let id = format!("s{s}");
            (0..80).fold(shop(&id), |text, k| text + &key(&id, s * 100 + k))
        })
        .collect();
    let mut batches = 0;
    let stop = &mut |phase, _, _| {
        batches += u32::from(phase == Phase::Applying);
        if batches == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let error = run(&bench, &text, PLAIN, stop).unwrap_err().to_string();
    assert!(error.contains("1030 of 2430"), "{error}");
    assert_eq!(bench.node.published.load().counts(), (30, 1000));
    let bench = bench.restart();
    assert_eq!(bench.node.published.load().counts(), (30, 1000), "whole batches are stored");
    let rest = done(&bench, &text, PLAIN);
    assert_eq!((rest.shops, rest.keys), (counts(0, 0, 30), counts(1400, 0, 1000)));
    assert_eq!(bench.node.published.load().counts(), (30, 2400));
}

#[test]
fn what_changed_since_the_check_ends_it() {
    let bench = Bench::new();
    let id = ShopId::parse("a").unwrap();
    done(&bench, &shop("a"), PLAIN);
    let node = Arc::clone(&bench.node);
    let mut deleted = false;
    let meddle = &mut |phase, done, total| {
        if phase == Phase::Checking && done == total && !deleted {
            deleted = true;
            crate::admin::operations::shops::delete(&node, &owner(), &id, &Precondition::none())
                .unwrap();
        }
        ControlFlow::Continue(())
    };
    let error = run(&bench, &(key("a", 1) + &key("a", 2)), PLAIN, meddle).unwrap_err().to_string();
    assert!(error.starts_with("line 1: there is no shop `a`"), "{error}");
    assert!(error.contains("0 of 2"), "{error}");
    assert_eq!(bench.node.published.load().counts(), (0, 0));
}

#[test]
fn one_at_a_time_and_only_by_who_may() {
    let bench = Bench::new();
    let turn = take_turn(&bench.node, &owner()).unwrap();
    assert!(matches!(take_turn(&bench.node, &owner()), Err(OperationError::Conflict(_))));
    drop(turn);
    for (role, imports, exports) in [
        (Role::Member, false, false),
        (Role::Viewer, false, false),
        (Role::Operator, true, false),
        (Role::Owner, true, true),
    ] {
        let via = crate::admin::caller::Via::Token(AdminTokenId(1));
        let caller = Caller { role, via, ..Caller::socket() };
        assert_eq!(take_turn(&bench.node, &caller).is_ok(), imports, "{role}");
        let all = Selection { shops: true, keys: true };
        assert_eq!(export(&bench.node, &caller, all, &mut Vec::new()).is_ok(), exports, "{role}");
    }
}

#[test]
fn decisions_read_a_whole_batch_or_none_of_it() {
    let bench = Bench::new();
    let text = (0..90).fold(shop("a"), |text, n| text + &key("a", n));
    let node = Arc::clone(&bench.node);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (_, keys) = node.published.load().counts();
                assert!(keys == 0 || keys == 90, "{keys}");
            }
        });
        done(&bench, &text, PLAIN);
        stop.store(true, Ordering::Relaxed);
    });
    let digest = bench.node.pepper().digest(secret(3).as_bytes());
    assert!(bench.node.published.load().api_key(&digest).is_some());
}

/// What has to go on meanwhile, on a thread of its own so that it fails, and does not hang, when
/// it waits for the one who calls.
fn meanwhile(bench: &Bench, secret: String) -> (u16, String, String) {
    let (node, clock) = (Arc::clone(&bench.node), Arc::clone(&bench.clock));
    let (to, from) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let dir = tempfile::TempDir::new().unwrap();
        let bench = Bench { node, clock, dir };
        let told = runtime.block_on(async {
            let ready = bench.get("/readyz").await;
            let decision = bench.decide_key(&secret).await;
            (ready.status.as_u16(), ready.get("/status"), decision)
        });
        to.send(told)
    });
    from.recv_timeout(std::time::Duration::from_secs(20)).expect("nobody waits for a writer")
}

#[test]
fn decisions_and_readiness_go_on_between_and_within_batches() {
    let bench = Bench::new();
    let batch = u32::try_from(BATCH).unwrap();
    let count = 2 * batch + 7;
    let ready = |decision: &str| (200, "ok".to_owned(), decision.to_owned());
    // No shop has more than it may.
    let shops = count.div_ceil(100);
    let mut text: String = (0..shops).map(|n| shop(&format!("s{n}"))).collect();
    text.extend((0..count).map(|n| key(&format!("s{}", n / 100), n)));
    let mut applied = Vec::new();
    let imported = run(&bench, &text, PLAIN, &mut |phase, done, _| {
        if phase == Phase::Applying {
            // The shops come first.
            let keys = u32::try_from(done).unwrap() - shops;
            applied.push(keys);
            if let Some(last) = keys.checked_sub(1) {
                assert_eq!(meanwhile(&bench, secret(last)), ready("allow"));
            }
            if keys < count {
                assert_eq!(meanwhile(&bench, secret(keys)), ready("invalid_credential"));
            }
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(imported, Ok(Import::Done(_))), "{imported:?}");
    assert_eq!(applied, [0, batch, 2 * batch, count]);
    let within = bench.node.mutate(|_, _, _| Ok(meanwhile(&bench, secret(0))));
    assert_eq!(within.unwrap(), ready("allow"));
}
