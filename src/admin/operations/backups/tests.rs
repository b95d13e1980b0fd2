use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::admin::testing::{Bench, START};
use crate::id::AdminTokenId;
use crate::store::Role;
use crate::store::backup::verify as read_backup;

const HOUR: Duration = Duration::from_secs(3600);

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn owner() -> Caller {
    Caller::socket()
}

fn caller(role: Role) -> Caller {
    Caller { role, via: Via::Token(AdminTokenId(1)), ..Caller::socket() }
}

fn text(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

fn folder(bench: &Bench) -> PathBuf {
    bench.node.config.load().backup.directory.clone()
}

fn names(bench: &Bench) -> Vec<String> {
    let mut names: Vec<String> = match fs::read_dir(folder(bench)) {
        Ok(entries) => {
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
        Err(_) => Vec::new(),
    };
    names.sort();
    names
}

/// What the audit log says was done to backups.
fn audited(bench: &Bench) -> Vec<String> {
    let mut actions = Vec::new();
    bench
        .node
        .store
        .read(|tx| {
            tx.visit_audit_back(None, |link| {
                let action = link.record().map(|record| record.action).unwrap_or_default();
                if action.starts_with("backup.") {
                    actions.push(action);
                }
                ControlFlow::Continue(())
            })
        })
        .unwrap();
    actions.reverse();
    actions
}

#[test]
fn names_do_not_lead_out_of_the_folder() {
    for good in ["a.lkbackup", "scheduled-20270101T000000Z-0f0f0f.lkbackup", "A_9.lkbackup"] {
        assert_eq!(BackupName::parse(good).unwrap().as_str(), good);
    }
    let long = format!("{}.lkbackup", "a".repeat(101));
    for bad in [
        "",
        ".lkbackup",
        "a",
        "a.lkbackup.gz",
        "../a.lkbackup",
        "a/b.lkbackup",
        "a\\b.lkbackup",
        "..lkbackup",
        "a..lkbackup",
        "-a.lkbackup",
        ".backup-a.lkbackup",
        "a\0.lkbackup",
        "ä.lkbackup",
        "a.lkbackup\n",
        "a%2fb.lkbackup",
        &long,
    ] {
        assert_eq!(BackupName::parse(bad), None, "{bad:?}");
    }
}

#[test]
fn made_listed_checked_handed_out_and_deleted() {
    let bench = Bench::new();
    let node = &bench.node;
    assert!(list(node, &owner()).unwrap().is_empty());
    let made = create(node, &owner(), &Wanted::default(), &mut go_on).unwrap();
    assert_eq!(made.created_at(), Some(START));
    assert_eq!(made.state, State::Good { at: START, opened: true });
    assert!(!made.header.as_ref().unwrap().is_encrypted());
    let mode = fs::metadata(folder(&bench).join(made.name.as_str())).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let listed = list(node, &owner()).unwrap();
    assert_eq!((listed.len(), &listed[0].name), (1, &made.name));
    let (file, described) = download(node, &owner(), &made.name).unwrap();
    assert_eq!(described.bytes, made.bytes);
    read_backup(file, made.bytes, None, &mut go_on).unwrap();
    // One byte on the disk changes.
    let path = folder(&bench).join(made.name.as_str());
    let mut bytes = fs::read(&path).unwrap();
    let near_the_end = bytes.len() - 100;
    bytes[near_the_end] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(list(node, &owner()).unwrap()[0].state, State::Unchecked);
    let checked = verify(node, &owner(), &made.name, None, &mut go_on).unwrap();
    assert!(matches!(&checked.state, State::Bad { problem } if problem.contains("damaged")));
    assert_eq!(list(node, &owner()).unwrap()[0].state, checked.state);
    delete(node, &owner(), &made.name).unwrap();
    assert!(matches!(
        delete(node, &owner(), &made.name),
        Err(OperationError::NotFound(Resource::Backup))
    ));
    assert_eq!(names(&bench), [""; 0]);
    assert_eq!(audited(&bench), ["backup.created", "backup.downloaded", "backup.deleted"]);
}

/// A list takes no file descriptors: they are the data plane's.
#[test]
fn a_full_folder_is_listed_whole() {
    let bench = Bench::new();
    let node = &bench.node;
    let made = create(node, &owner(), &Wanted::default(), &mut go_on).unwrap();
    let path = folder(&bench).join(made.name.as_str());
    for n in 0..1_100 {
        fs::hard_link(&path, folder(&bench).join(format!("copy-{n}.lkbackup"))).unwrap();
    }
    let listed = list(node, &owner()).unwrap();
    assert_eq!(listed.len(), 1_101);
    assert!(listed.iter().all(|backup| backup.header.is_some()));
}

/// Whoever may look may have a passphrase tried, each at the cost of a key.
#[test]
fn one_backup_is_verified_at_a_time() {
    let bench = Bench::new();
    let node = &bench.node;
    let made = create(node, &owner(), &Wanted::default(), &mut go_on).unwrap();
    let mut refused = 0;
    let mut meanwhile = |_: Progress| {
        let second = verify(node, &owner(), &made.name, None, &mut go_on);
        refused += u32::from(matches!(second, Err(OperationError::Conflict(_))));
        ControlFlow::Continue(())
    };
    verify(node, &owner(), &made.name, None, &mut meanwhile).unwrap();
    assert!(refused > 0);
    verify(node, &owner(), &made.name, None, &mut go_on).unwrap();
}

#[test]
fn who_may_do_what() {
    let bench = Bench::new();
    let node = &bench.node;
    let made = create(node, &owner(), &Wanted::default(), &mut go_on).unwrap();
    for (role, reads, writes) in [
        (Role::Member, false, false),
        (Role::Viewer, false, false),
        (Role::Operator, true, false),
        (Role::Owner, true, true),
    ] {
        let caller = caller(role);
        assert_eq!(list(node, &caller).is_ok(), reads, "{role}");
        assert_eq!(schedule(node, &caller).is_ok(), reads, "{role}");
        assert_eq!(verify(node, &caller, &made.name, None, &mut go_on).is_ok(), reads, "{role}");
        assert_eq!(download(node, &caller, &made.name).is_ok(), writes, "{role}");
        assert_eq!(create(node, &caller, &Wanted::default(), &mut go_on).is_ok(), writes);
        assert_eq!(stream(node, &caller, &Wanted::default(), &mut Vec::new()).is_ok(), writes);
    }
    let before = names(&bench).len();
    assert!(delete(node, &caller(Role::Operator), &made.name).is_err());
    assert_eq!(names(&bench).len(), before);
}

#[test]
fn the_master_key_does_not_leave_over_the_network() {
    let bench = Bench::new();
    let node = &bench.node;
    let wanted = |passphrase: Option<&str>| Wanted {
        passphrase: passphrase.map(text),
        include_master_key: true,
    };
    let long = Some("a long passphrase");
    let refused = |result: Result<Backup, OperationError>, field: &str| match result {
        Err(OperationError::Invalid(faults)) => assert_eq!(faults[0].field, field),
        other => panic!("{other:?}"),
    };
    let remote = caller(Role::Owner);
    refused(create(node, &remote, &wanted(long), &mut go_on), "include_master_key");
    refused(create(node, &owner(), &wanted(None), &mut go_on), "include_master_key");
    refused(create(node, &owner(), &wanted(Some("short")), &mut go_on), "passphrase");
    assert_eq!(names(&bench), [""; 0]);
    let made = create(node, &owner(), &wanted(long), &mut go_on).unwrap();
    assert!(made.header.unwrap().includes_master_key);
    let wrong = text("another passphrase");
    refused(verify(node, &owner(), &made.name, Some(&wrong), &mut go_on), "passphrase");
    let without = verify(node, &owner(), &made.name, None, &mut go_on).unwrap();
    assert_eq!(without.state, State::Good { at: START, opened: false });
    let right = long.map(text);
    let with = verify(node, &owner(), &made.name, right.as_ref(), &mut go_on).unwrap();
    assert_eq!(with.state, State::Good { at: START, opened: true });
    let bytes = fs::read(folder(&bench).join(made.name.as_str())).unwrap();
    let key = fs::read(bench.dir.path().join("master.key")).unwrap();
    let key = key.trim_ascii();
    assert!(!bytes.windows(key.len()).any(|window| window == key));
}

#[test]
fn one_at_a_time_and_what_was_stopped_leaves_nothing() {
    let bench = Bench::new();
    let node = &bench.node;
    let mut second = None;
    let mut within = |_| {
        second.get_or_insert_with(|| create(node, &owner(), &Wanted::default(), &mut go_on));
        ControlFlow::Continue(())
    };
    create(node, &owner(), &Wanted::default(), &mut within).unwrap();
    assert!(matches!(second, Some(Err(OperationError::Conflict(_)))));
    let stop = &mut |_| ControlFlow::Break(());
    create(node, &owner(), &Wanted::default(), stop).unwrap_err();
    node.set_draining();
    create(node, &owner(), &Wanted::default(), &mut go_on).unwrap_err();
    assert_eq!(names(&bench).len(), 1);
    assert_eq!(audited(&bench), ["backup.created"]);
}

#[test]
fn other_files_of_the_folder_are_left_alone() {
    let bench = Bench::new();
    let node = &bench.node;
    fs::create_dir(folder(&bench)).unwrap();
    let at = |name: &str| folder(&bench).join(name);
    fs::write(at("notes.txt"), "mine").unwrap();
    fs::write(at("other.lkbackup"), "no backup").unwrap();
    fs::write(at(".backup-abc"), "left by a killed process").unwrap();
    fs::create_dir(at("folder.lkbackup")).unwrap();
    let secret = bench.dir.path().join("secret");
    fs::write(&secret, "elsewhere").unwrap();
    symlink(&secret, at("link.lkbackup")).unwrap();
    let listed = list(node, &owner()).unwrap();
    assert_eq!(listed.len(), 1);
    assert!(matches!(&listed[0].state, State::Bad { problem } if problem.contains("not a backup")));
    for name in ["link.lkbackup", "folder.lkbackup", "missing.lkbackup"] {
        let name = BackupName::parse(name).unwrap();
        download(node, &owner(), &name).unwrap_err();
        delete(node, &owner(), &name).unwrap_err();
    }
    create(node, &owner(), &Wanted::default(), &mut go_on).unwrap();
    let left = names(&bench);
    assert_eq!(left.len(), 5);
    assert!(!left.contains(&".backup-abc".to_owned()));
}

#[test]
fn the_schedule_survives_restarts_and_deletes_only_its_own() {
    let mut bench = Bench::with("[backup]\ninterval = '1h'\nkeep = 2\n");
    let mine = create(&bench.node, &owner(), &Wanted::default(), &mut go_on).unwrap();
    // A file that only bears such a name.
    let impostor = "scheduled-20200101T000000Z-000000.lkbackup";
    fs::copy(folder(&bench).join(mine.name.as_str()), folder(&bench).join(impostor)).unwrap();
    assert!(maintain(&bench.node).unwrap());
    for _ in 0..5 {
        assert!(!maintain(&bench.node).unwrap(), "not due");
        bench.clock.advance(HOUR / 2);
        assert!(!maintain(&bench.node).unwrap(), "not due");
        bench = bench.restart();
        assert!(!maintain(&bench.node).unwrap(), "a restart makes nothing due");
        let planned = schedule(&bench.node, &owner()).unwrap().unwrap();
        assert_eq!(planned.next, bench.node.now().unix + HOUR / 2);
        bench.clock.advance(HOUR / 2);
        assert!(maintain(&bench.node).unwrap());
    }
    let scheduled: Vec<String> =
        names(&bench).into_iter().filter(|name| name.starts_with("scheduled-2027")).collect();
    assert_eq!(scheduled.len(), 2, "{scheduled:?}");
    assert_eq!(names(&bench).len(), 4);
    assert!(names(&bench).contains(&impostor.to_owned()));
    // However long it was off: one is due, not many.
    bench.clock.advance(HOUR * 100);
    assert!(maintain(&bench.node).unwrap());
    assert!(!maintain(&bench.node).unwrap());
    // A clock that is set back does not make one every time.
    bench.clock.step_to(START);
    let before = names(&bench).len();
    maintain(&bench.node).unwrap();
    maintain(&bench.node).unwrap();
    assert!(names(&bench).len() <= before + 1);
}

#[test]
fn a_failed_backup_is_told_and_tried_again_later() {
    let bench = Bench::with("[backup]\ninterval = '1h'\n");
    fs::write(folder(&bench), "in the way").unwrap();
    maintain(&bench.node).unwrap_err();
    assert!(!maintain(&bench.node).unwrap(), "not at once");
    let (at, problem) = lock(&bench.node.backups.schedule).failure_for_tests().unwrap();
    assert_eq!(at, START);
    assert!(problem.contains("backups"), "{problem}");
    fs::remove_file(folder(&bench)).unwrap();
    bench.clock.advance(Duration::from_secs(301));
    assert!(maintain(&bench.node).unwrap());
    let planned = schedule(&bench.node, &owner()).unwrap().unwrap();
    assert_eq!(planned.failure, None);
    assert_eq!(planned.last, Some(bench.node.now().unix));
    let metrics = bench.node.metrics.render();
    for (line, expected) in [
        ("latchkey_backups_total{kind=\"scheduled\",result=\"success\"} 1", true),
        ("latchkey_backups_total{kind=\"manual\",result=\"failure\"} 0", true),
    ] {
        assert_eq!(metrics.contains(line), expected, "{line}");
    }
}

#[test]
fn scheduled_backups_are_encrypted_as_configured() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("passphrase");
    fs::write(&file, "a passphrase of some length\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let bench = Bench::with(&format!(
        "[backup]\ninterval = '1h'\npassphrase_file = {file:?}\ninclude_master_key = true\n"
    ));
    assert!(maintain(&bench.node).unwrap());
    let listed = list(&bench.node, &owner()).unwrap();
    let header = listed[0].header.as_ref().unwrap();
    assert!(header.is_encrypted() && header.includes_master_key && header.scheduled);
    let checked = verify(&bench.node, &owner(), &listed[0].name, None, &mut go_on).unwrap();
    assert_eq!(checked.state, State::Good { at: START, opened: true });
    fs::remove_file(&file).unwrap();
    bench.clock.advance(HOUR);
    let error = maintain(&bench.node).unwrap_err().to_string();
    assert!(error.contains("backup.passphrase_file"), "{error}");
}
