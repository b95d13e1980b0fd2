//! The way in, and what it does not tell.

use std::time::Duration;

use super::*;
use crate::admin::operations::sign_in::{SetUpFailure, Vouched, set_up, set_up_is_open, vouched};
use crate::admin::operations::{Precondition, operators, set_up as link};
use crate::store::{OidcSubject, StoreError};

fn says(result: Result<SignedIn, SignInFailure>) -> &'static str {
    match result {
        Ok(_) => "in",
        Err(SignInFailure::Wrong) => "wrong",
        Err(SignInFailure::TotpNeeded) => "code",
        Err(SignInFailure::Throttled { .. }) => "throttled",
        Err(SignInFailure::Busy) => "busy",
        Err(SignInFailure::Disabled) => "disabled",
        Err(SignInFailure::Operation(error)) => panic!("{error}"),
    }
}

#[tokio::test]
async fn names_and_passwords() {
    let bench = bench();
    operator(&bench, "Ada@example.com", Role::Viewer);
    let long = "x".repeat(5000);
    for (name, text, expected) in [
        ("Ada@example.com", PASSWORD, "in"),
        ("ADA@EXAMPLE.COM", PASSWORD, "in"),
        (" ada@example.com ", PASSWORD, "in"),
        ("ada", PASSWORD, "wrong"),
        ("ada@example.com", "correct horse batterY", "wrong"),
        ("ada@example.com", "", "wrong"),
        ("ada@example.com", &long, "wrong"),
        ("", "", "wrong"),
        (&long, PASSWORD, "wrong"),
    ] {
        let result = try_in(&bench.node, name, text, None, HOME).await;
        assert_eq!(says(result), expected, "{name:?}");
    }
}

/// Whether a name exists shows neither in what is said nor in what is done: counted in hashes and
/// in commits, not in milliseconds.
#[tokio::test]
async fn a_name_that_nobody_has_is_as_good_as_any() {
    let bench = bench();
    operator(&bench, "ada", Role::Owner);
    let passwordless = fields("bob", Role::Viewer, &[]);
    create(&bench.node, &Caller::socket(), &passwordless, None, None).unwrap();
    let mut seen = Vec::new();
    for name in ["ada", "bob", "nobody"] {
        let (before, audited_before) =
            (bench.node.identity.passwords.computed(), audited(&bench).len());
        let failure = try_in(&bench.node, name, "wrong password", None, HOME).await.unwrap_err();
        let hashes = bench.node.identity.passwords.computed() - before;
        let entries = audited(&bench).len() - audited_before;
        seen.push((failure.to_string(), hashes, entries));
    }
    assert_eq!(seen[0].1, 1);
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
    // Nor is there a difference in when they are throttled.
    for name in ["ada", "bob", "nobody"] {
        let mut tries = 0;
        while says(try_in(&bench.node, name, "wrong", None, "198.51.100.1").await) == "wrong" {
            tries += 1;
        }
        assert_eq!(tries, 5, "{name}");
    }
}

#[tokio::test]
async fn what_is_throttled_never_reaches_argon2() {
    let bench = bench();
    operator(&bench, "ada", Role::Owner);
    for _ in 0..5 {
        assert_eq!(says(try_in(&bench.node, "ada", "wrong", None, HOME).await), "wrong");
    }
    let before = bench.node.identity.passwords.computed();
    for _ in 0..50 {
        let result = try_in(&bench.node, "ada", PASSWORD, None, HOME).await;
        let Err(SignInFailure::Throttled { retry_after_s }) = result else {
            panic!("{result:?}");
        };
        assert_eq!(retry_after_s, 1);
    }
    assert_eq!(bench.node.identity.passwords.computed(), before);
    // Others are not concerned, and the wait ends.
    assert_eq!(says(try_in(&bench.node, "ada", PASSWORD, None, "192.0.2.2").await), "in");
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(says(try_in(&bench.node, "ada", PASSWORD, None, HOME).await), "in");
}

#[tokio::test]
async fn an_attack_from_everywhere_does_not_keep_the_owner_out() {
    let bench = bench();
    operator(&bench, "ada", Role::Owner);
    signed_in(&bench, "ada").await;
    // A restart remembers from where she has signed in.
    let bench = bench.restart();
    for i in 0..100 {
        let from = format!("10.0.{i}.1");
        try_in(&bench.node, "ada", "guess", None, &from).await.unwrap_err();
        assert_eq!(says(try_in(&bench.node, "ada", PASSWORD, None, HOME).await), "in");
    }
    assert_eq!(says(try_in(&bench.node, "ada", PASSWORD, None, "203.0.113.9").await), "in");
}

/// A flood of failures is counted, not written down one by one.
#[tokio::test]
async fn a_flood_of_failures_does_not_flood_the_audit_log() {
    let bench = bench();
    operator(&bench, "ada", Role::Owner);
    for i in 0..200 {
        let (name, from) = (format!("secret-typed-as-name-{i}"), format!("10.1.{i}.1"));
        try_in(&bench.node, &name, "guess", None, &from).await.unwrap_err();
    }
    let refused = |bench: &Bench| {
        let actions = audited(bench);
        actions.iter().filter(|action| *action == "operator.sign_in_refused").count()
    };
    assert_eq!(refused(&bench), 30);
    bench.clock.advance(Duration::from_secs(60));
    try_in(&bench.node, "ada", "guess", None, "10.2.0.1").await.unwrap_err();
    let entries = entries(&bench);
    let last = serde_json::to_value(entries.last().unwrap()).unwrap();
    assert_eq!(last["after"]["unrecorded_before"], 170);
    let all = format!("{entries:?}");
    assert!(!all.contains("typed-as-name") && !all.contains("guess"), "nothing that was typed");
}

#[tokio::test]
async fn a_disabled_operator_is_told_only_with_the_right_password() {
    let bench = bench();
    operator(&bench, "root", Role::Owner);
    let id = operator(&bench, "ada", Role::Owner).id;
    let change = operators::OperatorChange { disabled: Some(true), ..Default::default() };
    operators::change(&bench.node, &Caller::socket(), id, &change, &Precondition::none()).unwrap();
    assert_eq!(says(try_in(&bench.node, "ada", "wrong", None, HOME).await), "wrong");
    assert_eq!(says(try_in(&bench.node, "ada", PASSWORD, None, HOME).await), "disabled");
}

#[tokio::test]
async fn raised_parameters_reach_a_password_when_it_is_next_seen() {
    let bench = bench();
    operator(&bench, "ada", Role::Owner);
    let kept = |bench: &Bench| {
        let ada = bench.node.store.read(|tx| tx.operator_named("ada")).unwrap().unwrap();
        (ada.password.unwrap().as_str().split('$').nth(3).unwrap().to_owned(), ada.revision)
    };
    assert_eq!(kept(&bench), ("m=64,t=1,p=1".to_owned(), 1));
    let raised = "[admin.passwords]\nmemory = \"128KiB\"\niterations = 2\n";
    bench.node.reload(crate::admin::testing::config(&bench.dir, raised));
    // An unknown name costs what the only known one still does.
    let hashes = bench.node.identity.passwords.computed();
    assert_eq!(says(try_in(&bench.node, "nobody", PASSWORD, None, HOME).await), "wrong");
    assert_eq!(bench.node.identity.passwords.computed(), hashes + 1);
    assert_eq!(says(try_in(&bench.node, "ada", "wrong", None, HOME).await), "wrong");
    assert_eq!(kept(&bench).0, "m=64,t=1,p=1");
    signed_in(&bench, "ada").await;
    assert_eq!(kept(&bench), ("m=128,t=2,p=1".to_owned(), 1), "it is no change");
    signed_in(&bench, "ada").await;
}

#[tokio::test]
async fn set_up_is_once_and_for_an_hour() {
    let bench = bench();
    let from = ip(HOME);
    let first = link::open(&bench.node).unwrap().unwrap();
    let token = link::open(&bench.node).unwrap().unwrap();
    assert!(set_up_is_open(&bench.node));
    let attempt = async |token: &SecretText, name: &str, text: &str| {
        set_up(&bench.node, token, name, secret(text), from, "Firefox").await
    };
    for wrong in [first.expose(), "", "x", token.expose().split_at(1).1] {
        let refused = attempt(&secret(wrong), "ada", PASSWORD).await;
        assert!(matches!(refused, Err(SetUpFailure::WrongToken)), "{wrong}");
    }
    assert_eq!(bench.node.identity.passwords.computed(), 0, "no token, no hash");
    for (name, text) in [("ada", "short"), ("", PASSWORD), ("ada", "aaaaaaaaaaaaaaaa")] {
        let refused = attempt(&token, name, text).await;
        let invalid = matches!(
            refused,
            Err(SetUpFailure::Operation(crate::admin::OperationError::Invalid(_)))
        );
        assert!(invalid, "{name:?} {text}");
    }
    let made = attempt(&token, "ada", PASSWORD).await.unwrap();
    assert_eq!(made.session.caller.role, Role::Owner);
    assert_eq!(who(&bench, &made.cookie).unwrap().id, made.session.id);
    assert!(!set_up_is_open(&bench.node));
    assert!(matches!(attempt(&token, "eve", PASSWORD).await, Err(SetUpFailure::Closed)));
    assert!(link::open(&bench.node).unwrap().is_none());
    assert!(audited(&bench).contains(&"operator.set_up".to_owned()));
}

#[tokio::test]
async fn set_up_ends_by_time_and_by_the_first_operator() {
    let bench = bench();
    let token = link::open(&bench.node).unwrap().unwrap();
    bench.clock.advance(Duration::from_secs(3599));
    assert!(set_up_is_open(&bench.node));
    bench.clock.advance(Duration::from_secs(1));
    assert!(!set_up_is_open(&bench.node));
    let late = set_up(&bench.node, &token, "ada", secret(PASSWORD), ip(HOME), "").await;
    assert!(matches!(late, Err(SetUpFailure::Closed)));
    let token = link::open(&bench.node).unwrap().unwrap();
    operator(&bench, "root", Role::Owner);
    let late = set_up(&bench.node, &token, "ada", secret(PASSWORD), ip(HOME), "").await;
    assert!(matches!(late, Err(SetUpFailure::Closed)));
}

/// Whoever comes by an identity provider first is no owner, and must not shut out the one to come.
#[tokio::test]
async fn set_up_is_open_while_there_is_no_owner() {
    let bench = bench();
    let token = link::open(&bench.node).unwrap().unwrap();
    operator(&bench, "first", Role::Viewer);
    let locked = fields("locked", Role::Owner, &[]);
    create(&bench.node, &Caller::socket(), &locked, None, None).unwrap();
    assert!(set_up_is_open(&bench.node), "an owner without a password cannot sign in");
    let attempt =
        async |name: &str| set_up(&bench.node, &token, name, secret(PASSWORD), ip(HOME), "").await;
    let taken = attempt("First").await;
    assert!(
        matches!(taken, Err(SetUpFailure::Operation(crate::admin::OperationError::Conflict(_)))),
        "{taken:?}"
    );
    // Two at once: one of them.
    let (one, two) = tokio::join!(attempt("ada"), attempt("eve"));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert!(!set_up_is_open(&bench.node));
    assert!(link::open(&bench.node).unwrap().is_none());
}

#[tokio::test]
async fn a_provider_vouches_for_its_own_and_nobody_else() {
    let bench = bench();
    bench.shop("one").await;
    let local = operator(&bench, "ada", Role::Owner);
    let word = |sub: &str, name: &str, role: Role, shops: &[&str]| Vouched {
        subject: OidcSubject { issuer: "https://idp.example".to_owned(), subject: sub.to_owned() },
        name: name.to_owned(),
        role,
        shops: shops.iter().map(|shop| ShopId::parse(shop).unwrap()).collect(),
    };
    let enter = async |word| vouched(&bench.node, word, ip(HOME), "Firefox").await.unwrap();
    // Of the same name as a local operator: another.
    let first = enter(word("1", "ada", Role::Member, &["one", "gone"])).await;
    assert_ne!(first.session.operator, local.id);
    assert_eq!(first.session.caller.name, "ada-2");
    assert!(first.session.caller.sees(&ShopId::parse("one").unwrap()));
    // The same subject again, with other groups: the same operator, its other sessions over.
    let again = enter(word("1", "renamed", Role::Viewer, &[])).await;
    assert_eq!(again.session.operator, first.session.operator);
    assert_eq!(again.session.caller.role, Role::Viewer);
    assert!(who(&bench, &first.cookie).is_none());
    let same = enter(word("1", "ada", Role::Viewer, &[])).await;
    assert!(who(&bench, &again.cookie).is_some() && who(&bench, &same.cookie).is_some());
    for (sub, name, expected) in
        [("2", "Zoë K.", "ZoK."), ("3", "…", "operator"), ("4", "", "operator-2")]
    {
        assert_eq!(enter(word(sub, name, Role::Viewer, &[])).await.session.caller.name, expected);
    }
    // It has no password, and a disabled one stays out.
    assert_eq!(says(try_in(&bench.node, "ada-2", "", None, HOME).await), "wrong");
    let change = operators::OperatorChange { disabled: Some(true), ..Default::default() };
    let id = same.session.operator;
    operators::change(&bench.node, &Caller::socket(), id, &change, &Precondition::none()).unwrap();
    let refused = vouched(&bench.node, word("1", "ada", Role::Viewer, &[]), ip(HOME), "").await;
    assert_eq!(says(refused), "disabled");
}

#[test]
fn two_operators_never_share_a_name() {
    let bench = bench();
    let ada = operator(&bench, "ada", Role::Owner);
    let mut other = OperatorRecord { id: crate::id::OperatorId(7), ..ada };
    other.name = "ADA".to_owned();
    let written = bench.node.store.write(|tx| tx.put_operator(&other));
    assert_eq!(written, Err(StoreError::NameTaken));
}
