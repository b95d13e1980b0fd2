//! The second factor: enrolled, asked for, used once, lost.

use std::time::Duration;

use super::*;
use crate::admin::identity::totp::code_at;
use crate::admin::operations::OperationError;
use crate::admin::operations::second_factor::{
    begin, begun, confirm, remove, renew_recovery_codes, reset,
};
use crate::secret::SecretBytes;

/// The app: what it shows at this moment.
struct App(SecretBytes<20>);

impl App {
    /// From the text that people type in: base32.
    fn of(text: &str) -> Self {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let digits = text.bytes().map(|c| alphabet.iter().position(|a| *a == c).unwrap());
        let (mut bits, mut bytes, mut held) = (0_usize, Vec::new(), 0);
        for digit in digits {
            (bits, held) = ((bits << 5 | digit) & 0xfff, held + 5);
            if held >= 8 {
                held -= 8;
                bytes.push(u8::try_from(bits >> held & 0xff).unwrap());
            }
        }
        Self(SecretBytes::new(bytes.try_into().unwrap()))
    }

    fn code(&self, bench: &Bench) -> String {
        code_at(&self.0, bench.node.now().unix.unix_s() / 30)
    }
}

async fn enrolled(bench: &Bench) -> (SignedIn, App, Vec<SecretText>) {
    operator(bench, "ada", Role::Owner);
    let in_now = signed_in(bench, "ada").await;
    let caller = &in_now.session.caller;
    let app = App::of(begin(&bench.node, caller, &secret(PASSWORD)).unwrap().secret.expose());
    let codes = confirm(&bench.node, caller, &app.code(bench)).unwrap();
    bench.clock.advance(Duration::from_secs(30));
    (in_now, app, codes)
}

#[tokio::test]
async fn it_is_enrolled_with_a_code_and_not_before() {
    let bench = bench();
    operator(&bench, "ada", Role::Owner);
    let in_now = signed_in(&bench, "ada").await;
    let (node, caller) = (&bench.node, &in_now.session.caller);
    assert!(matches!(confirm(node, caller, "000000"), Err(OperationError::Conflict(_))));
    // Whoever found an open browser does not know the password, and may not try many.
    let refused = begin(node, caller, &secret("not this one"));
    let Err(OperationError::Invalid(problems)) = refused else { panic!("{refused:?}") };
    assert_eq!(problems[0].field, "own_password");
    let mut guesses = (0..100).map(|_| begin(node, caller, &secret("not this one")));
    let wait = guesses.find_map(|answer| match answer {
        Err(OperationError::TooMany { wait }) => Some(wait),
        _ => None,
    });
    let wait = wait.expect("guessing is slowed down");
    assert!(begun(node, caller).unwrap().is_none(), "nothing was begun");
    // Long enough for the attempts of an honest owner.
    bench.clock.advance(wait + Duration::from_secs(60));
    let forgotten = App::of(begin(node, caller, &secret(PASSWORD)).unwrap().secret.expose());
    bench.clock.advance(Duration::from_secs(60));
    let enrolling = begin(node, caller, &secret(PASSWORD)).unwrap();
    bench.clock.advance(Duration::from_secs(60));
    assert!(enrolling.uri.expose().contains(&format!("secret={}", enrolling.secret.expose())));
    assert!(enrolling.qr.unwrap().expose().starts_with("<svg"));
    assert_eq!(begun(node, caller).unwrap().unwrap().secret.expose(), enrolling.secret.expose());
    let app = App::of(enrolling.secret.expose());
    for wrong in ["", "12345", &forgotten.code(&bench)] {
        assert!(matches!(confirm(node, caller, wrong), Err(OperationError::Invalid(_))));
    }
    // Nothing is asked for yet.
    signed_in(&bench, "ada").await;
    let code = app.code(&bench);
    let codes =
        confirm(node, caller, &format!("{} {}", code.split_at(3).0, code.split_at(3).1)).unwrap();
    assert_eq!(codes.len(), 10);
    assert!(who(&bench, &in_now.cookie).unwrap().has_second_factor);
    assert!(begin(node, caller, &secret(PASSWORD)).is_err(), "there is one");
    assert!(begun(node, caller).unwrap().is_none());
}

#[tokio::test]
async fn an_enrolment_waits_for_ten_minutes() {
    let bench = bench();
    operator(&bench, "ada", Role::Owner);
    let in_now = signed_in(&bench, "ada").await;
    let (node, caller) = (&bench.node, &in_now.session.caller);
    let app = App::of(begin(node, caller, &secret(PASSWORD)).unwrap().secret.expose());
    bench.clock.advance(Duration::from_secs(600));
    assert!(matches!(confirm(node, caller, &app.code(&bench)), Err(OperationError::Conflict(_))));
}

#[tokio::test]
async fn it_is_asked_for_after_the_password_and_a_code_is_good_once() {
    let bench = bench();
    let (_, app, _) = enrolled(&bench).await;
    let enter =
        async |text: &str, code: Option<&str>| try_in(&bench.node, "ada", text, code, HOME).await;
    assert!(matches!(enter("wrong", None).await, Err(SignInFailure::Wrong)));
    assert!(matches!(enter(PASSWORD, None).await, Err(SignInFailure::TotpNeeded)));
    assert!(matches!(enter(PASSWORD, Some("  ")).await, Err(SignInFailure::TotpNeeded)));
    let code = app.code(&bench);
    assert!(matches!(enter("wrong", Some(&code)).await, Err(SignInFailure::Wrong)));
    enter(PASSWORD, Some(&code)).await.unwrap();
    assert!(matches!(enter(PASSWORD, Some(&code)).await, Err(SignInFailure::Wrong)), "once");
    bench.clock.advance(Duration::from_secs(30));
    enter(PASSWORD, Some(&app.code(&bench))).await.unwrap();
    // Which code was used is kept over a restart.
    let used = app.code(&bench);
    let bench = bench.restart();
    let again = try_in(&bench.node, "ada", PASSWORD, Some(&used), HOME).await;
    assert!(matches!(again, Err(SignInFailure::Wrong)));
}

#[tokio::test]
async fn a_recovery_code_is_good_once_however_it_is_spelt() {
    let bench = bench();
    let (_, _, codes) = enrolled(&bench).await;
    let enter = async |code: &str| try_in(&bench.node, "ada", PASSWORD, Some(code), HOME).await;
    enter(codes[3].expose()).await.unwrap();
    assert!(enter(codes[3].expose()).await.is_err());
    enter(&codes[4].expose().to_uppercase().replace('-', " ")).await.unwrap();
    assert!(enter("0000-0000-0000-0000").await.is_err());
    let ada = bench.node.store.read(|tx| tx.operator_named("ada")).unwrap().unwrap();
    assert_eq!(ada.totp.unwrap().recovery.len(), 8);
}

#[tokio::test]
async fn whoever_knows_the_password_does_not_guess_codes_for_long() {
    let bench = bench();
    enrolled(&bench).await;
    let mut wrong = 0;
    for i in 0..100 {
        let from = format!("10.0.{i}.1");
        let result = try_in(&bench.node, "ada", PASSWORD, Some("000000"), &from).await;
        wrong += u32::from(matches!(result, Err(SignInFailure::Wrong)));
    }
    assert_eq!(wrong, 10, "from a hundred addresses");
}

#[tokio::test]
async fn it_is_taken_away_with_a_code_or_by_an_owner() {
    let bench = bench();
    let (in_now, app, _) = enrolled(&bench).await;
    let (node, caller) = (&bench.node, &in_now.session.caller);
    assert!(remove(node, caller, &secret("000000")).is_err());
    let codes = renew_recovery_codes(node, caller, &secret(&app.code(&bench))).unwrap();
    remove(node, caller, &codes[0]).unwrap();
    signed_in(&bench, "ada").await;
    assert!(remove(node, caller, &codes[1]).is_err());
    // Lost app, lost codes.
    let id = in_now.session.operator;
    begin(node, caller, &secret(PASSWORD)).unwrap();
    let app = App::of(begun(node, caller).unwrap().unwrap().secret.expose());
    confirm(node, caller, &app.code(&bench)).unwrap();
    reset(node, &Caller::socket(), id).unwrap();
    reset(node, &Caller::socket(), id).unwrap();
    signed_in(&bench, "ada").await;
    let viewer = operator(&bench, "bob", Role::Viewer);
    let bob = signed_in(&bench, "bob").await;
    assert!(reset(node, &bob.session.caller, viewer.id).is_err(), "not even its own");
    assert!(begin(node, &Caller::socket(), &secret(PASSWORD)).is_err(), "nobody's");
}

/// Neither the secret nor the codes are in the database in the clear.
#[tokio::test]
async fn the_database_gives_nothing_away() {
    let bench = bench();
    let (in_now, app, codes) = enrolled(&bench).await;
    let cookie = in_now.cookie.expose().to_owned();
    bench.node.store.read(|_| Ok(())).unwrap();
    let file = std::fs::read(bench.dir.path().join("latchkey.redb")).unwrap();
    let has = |needle: &[u8]| memchr::memmem::find(&file, needle).is_some();
    assert!(has(b"$argon2id$"), "the file was read");
    assert!(!has(app.0.expose()) && !has(cookie.as_bytes()) && !has(PASSWORD.as_bytes()));
    let text = crate::admin::identity::totp::base32(&app.0);
    assert!(!has(text.expose().as_bytes()));
    assert!(codes.iter().all(|code| !has(code.expose().as_bytes())));
}
