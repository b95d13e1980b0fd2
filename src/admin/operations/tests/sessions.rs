//! Sessions: how long they last, and what ends them.

use std::time::Duration;

use super::*;
use crate::admin::jobs::{self, Progress};
use crate::admin::operations::operators::{OperatorChange, change_password, delete};
use crate::admin::operations::sessions::{
    goes_on, list, list_all, prune, revoke, revoke_all, sign_out,
};
use crate::admin::operations::{OperationError, Precondition, Resource, operators};

/// Something that is done to an operator.
type Step = Box<dyn Fn(&Node, crate::id::OperatorId) -> Result<(), OperationError>>;

fn minutes(m: u64) -> Duration {
    Duration::from_secs(60 * m)
}

#[tokio::test]
async fn a_session_is_known_by_its_cookie_alone() {
    let bench = bench();
    let ada = operator(&bench, "ada", Role::Viewer);
    let in_now = signed_in(&bench, "ada").await;
    let session = who(&bench, &in_now.cookie).unwrap();
    assert_eq!((session.operator, session.id), (ada.id, in_now.session.id));
    assert_eq!(session.csrf.expose(), in_now.session.csrf.expose(), "the same for the session");
    assert_eq!(session.caller.label(), ada.id.to_string());
    assert_eq!(session.caller.role, Role::Viewer);
    let other = signed_in(&bench, "ada").await;
    assert_ne!(other.cookie.expose(), in_now.cookie.expose());
    assert_ne!(other.session.csrf.expose(), session.csrf.expose());
    let cookie = in_now.cookie.expose();
    for bad in [
        "",
        "x",
        cookie.split_at(1).1,
        &format!("{cookie}A"),
        &"A".repeat(43),
        &"\u{e9}".repeat(43),
    ] {
        assert!(authenticate(&bench.node, bad, ip(HOME)).is_none(), "{bad}");
    }
    assert!(!format!("{in_now:?}").contains(cookie));
}

#[tokio::test]
async fn a_session_ends_idle_and_ends_anyway() {
    let bench = bench();
    operator(&bench, "ada", Role::Viewer);
    let idle = signed_in(&bench, "ada").await;
    let busy = signed_in(&bench, "ada").await;
    bench.clock.advance(minutes(59));
    assert!(who(&bench, &busy.cookie).is_some());
    bench.clock.advance(minutes(1));
    assert!(who(&bench, &idle.cookie).is_none(), "an hour without a request");
    for _ in 0..12 {
        assert!(who(&bench, &busy.cookie).is_some());
        bench.clock.advance(minutes(55));
    }
    assert!(who(&bench, &busy.cookie).is_none(), "twelve hours, however busy");
    assert_eq!(prune(&bench.node).unwrap(), 2);
    assert!(bench.node.store.read(crate::store::ReadTx::sessions).unwrap().is_empty());
}

#[tokio::test]
async fn a_restart_keeps_people_signed_in_and_knows_how_idle_they_were() {
    let bench = bench();
    operator(&bench, "ada", Role::Viewer);
    let (used, unused) = (signed_in(&bench, "ada").await, signed_in(&bench, "ada").await);
    let commits = |bench: &Bench| bench.node.store.read(crate::store::ReadTx::sessions).unwrap();
    let stored = commits(&bench);
    bench.clock.advance(minutes(50));
    let session = who(&bench, &used.cookie).unwrap();
    assert_eq!(commits(&bench), stored, "a request writes nothing");
    jobs::tick(&bench.node, &Progress::default());
    let bench = bench.restart();
    bench.clock.advance(minutes(50));
    let again = who(&bench, &used.cookie).unwrap();
    assert_eq!(again.csrf.expose(), session.csrf.expose(), "forms that are open still work");
    assert!(who(&bench, &unused.cookie).is_none());
}

#[tokio::test]
async fn the_session_that_was_idle_longest_makes_room() {
    let bench = Bench::with(&format!("{CHEAP}[admin.sessions]\nper_operator_max = 3\n"));
    operator(&bench, "ada", Role::Viewer);
    operator(&bench, "bob", Role::Viewer);
    let bob = signed_in(&bench, "bob").await;
    let mut cookies = Vec::new();
    for _ in 0..3 {
        bench.clock.advance(minutes(1));
        cookies.push(signed_in(&bench, "ada").await.cookie);
    }
    bench.clock.advance(minutes(1));
    who(&bench, &cookies[0]).unwrap();
    cookies.push(signed_in(&bench, "ada").await.cookie);
    let alive: Vec<bool> = cookies.iter().map(|cookie| who(&bench, cookie).is_some()).collect();
    assert_eq!(alive, [true, false, true, true]);
    assert!(who(&bench, &bob.cookie).is_some());
}

#[tokio::test]
async fn changes_of_what_one_may_do_end_its_sessions() {
    let bench = bench();
    bench.shop("one").await;
    operator(&bench, "root", Role::Owner);
    let one = |change: OperatorChange| {
        move |node: &Node, id| {
            operators::change(node, &Caller::socket(), id, &change, &Precondition::none()).map(drop)
        }
    };
    let shops = vec![ShopId::parse("one").unwrap()];
    let member =
        OperatorChange { role: Some(Role::Member), shops: Some(shops), ..Default::default() };
    let role = OperatorChange { role: Some(Role::Operator), ..Default::default() };
    let disabled = OperatorChange { disabled: Some(true), ..Default::default() };
    let renamed = OperatorChange { name: Some("renamed".to_owned()), ..Default::default() };
    let steps: [(&str, Step, bool); 6] = [
        ("member", Box::new(one(member)), false),
        ("role", Box::new(one(role)), false),
        ("disabled", Box::new(one(disabled)), false),
        ("renamed", Box::new(one(renamed)), true),
        (
            "password",
            Box::new(|node, id| {
                let password = secret("another fine password");
                operators::reset_password(
                    node,
                    &Caller::socket(),
                    id,
                    &password,
                    &Precondition::none(),
                )
                .map(drop)
            }),
            false,
        ),
        (
            "deleted",
            Box::new(|node, id| delete(node, &Caller::socket(), id, &Precondition::none())),
            false,
        ),
    ];
    for (number, (what, step, stays)) in steps.iter().enumerate() {
        let name = format!("ada{number}");
        let id = operator(&bench, &name, Role::Viewer).id;
        let in_now = signed_in(&bench, &name).await;
        assert!(who(&bench, &in_now.cookie).is_some());
        step(&bench.node, id).unwrap();
        assert_eq!(who(&bench, &in_now.cookie).is_some(), *stays, "{what}");
        let left = bench.node.store.read(crate::store::ReadTx::sessions).unwrap();
        assert_eq!(left.iter().any(|s| s.operator == id), *stays, "{what}: in the store too");
    }
}

#[tokio::test]
async fn ones_own_password_changes_with_the_old_one_and_keeps_this_session() {
    let bench = bench();
    operator(&bench, "ada", Role::Viewer);
    let (here, there) = (signed_in(&bench, "ada").await, signed_in(&bench, "ada").await);
    let session = who(&bench, &here.cookie).unwrap();
    let to = |current: &str, new: &str| {
        let (current, new) = (secret(current), secret(new));
        change_password(&bench.node, &session.caller, &current, &new, session.id)
    };
    assert!(matches!(to("wrong", "another fine password"), Err(SignInFailure::Wrong)));
    assert!(matches!(to(PASSWORD, "short"), Err(SignInFailure::Operation(_))));
    assert!(who(&bench, &there.cookie).is_some());
    to(PASSWORD, "another fine password").unwrap();
    assert!(who(&bench, &here.cookie).is_some());
    assert!(who(&bench, &there.cookie).is_none());
    try_in(&bench.node, "ada", PASSWORD, None, HOME).await.unwrap_err();
    try_in(&bench.node, "ada", "another fine password", None, HOME).await.unwrap();
    // Whoever found the browser open does not get to try for ever.
    let guess = || to("guess", "another fine password");
    let refused =
        (0..50).filter(|_| matches!(guess(), Err(SignInFailure::Throttled { .. }))).count();
    assert!(refused > 35, "{refused}");
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_whose_they_are_and_by_owners() {
    let bench = bench();
    operator(&bench, "root", Role::Owner);
    let (ada, bob) = (operator(&bench, "ada", Role::Viewer), operator(&bench, "bob", Role::Viewer));
    let one = signed_in(&bench, "ada").await.session;
    bench.clock.advance(minutes(1));
    let two = signed_in(&bench, "ada").await.session;
    let other = signed_in(&bench, "bob").await.session;
    let node = &bench.node;
    let ids = |found: Vec<crate::store::SessionRecord>| {
        found.into_iter().map(|record| record.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(list(node, &one.caller, ada.id).unwrap()), [two.id, one.id]);
    assert_eq!(list(node, &one.caller, ada.id).unwrap()[0].user_agent, "Firefox/1");
    assert!(matches!(list(node, &one.caller, bob.id), Err(OperationError::Forbidden { .. })));
    assert!(list_all(node, &one.caller).is_err());
    assert_eq!(list_all(node, &Caller::socket()).unwrap().len(), 3);
    let missing = |result| matches!(result, Err(OperationError::NotFound(Resource::Session)));
    assert!(missing(sign_out(node, &one.caller, other.id)), "not one's own");
    assert!(missing(revoke(node, &one.caller, other.id)));
    assert!(missing(sign_out(node, &Caller::socket(), one.id)));
    sign_out(node, &one.caller, one.id).unwrap();
    assert!(missing(sign_out(node, &one.caller, one.id)), "gone");
    revoke(node, &Caller::socket(), other.id).unwrap();
    let third = signed_in(&bench, "ada").await.session;
    assert_eq!(revoke_all(node, &third.caller, ada.id, Some(third.id)).unwrap(), 1);
    assert_eq!(ids(list(node, &third.caller, ada.id).unwrap()), [third.id]);
    let change = OperatorChange { name: Some("eve".to_owned()), ..Default::default() };
    assert!(
        operators::change(node, &third.caller, ada.id, &change, &Precondition::none()).is_err()
    );
    let actions = audited(&bench);
    for action in ["operator.signed_in", "operator.signed_out", "session.revoked"] {
        assert!(actions.contains(&action.to_owned()), "{action}");
    }
}

/// A stream of events looks at this: it ends with the session, and does not keep it alive.
#[tokio::test]
async fn what_goes_on_ends_with_its_session() {
    let bench = bench();
    let ada = operator(&bench, "ada", Role::Owner);
    let first = signed_in(&bench, "ada").await.session;
    let second = signed_in(&bench, "ada").await.session;
    let good = |session: &Session| goes_on(&bench.node, session.id);
    assert!(good(&first) && good(&second));
    sign_out(&bench.node, &first.caller, first.id).unwrap();
    assert!(!good(&first) && good(&second));
    bench.clock.advance(Duration::from_secs(3599));
    assert!(good(&second));
    bench.clock.advance(Duration::from_secs(1));
    assert!(!good(&second), "it was not used meanwhile");
    let third = signed_in(&bench, "ada").await.session;
    revoke_all(&bench.node, &Caller::socket(), ada.id, None).unwrap();
    assert!(!good(&third));
}
