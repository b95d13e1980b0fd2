//! Operators: what may be one, and the rules that hold whoever asks.

use std::collections::BTreeSet;

use axum::http::Method;

use super::*;
use crate::admin::caller::{Permission, Scopes};
use crate::admin::operations::operators::{
    OperatorChange, change, delete, generate_password, list, reset_password,
};
use crate::admin::operations::{OperationError, Precondition, admin_tokens, shops};

fn is_conflict<T>(result: &Result<T, OperationError>) -> bool {
    matches!(result, Err(OperationError::Conflict(_)))
}

#[tokio::test]
async fn what_may_be_an_operator() {
    let bench = bench();
    bench.shop("one").await;
    let long = "x".repeat(65);
    for (name, role, shops, text, faults) in [
        ("ada", Role::Owner, &[][..], PASSWORD, &[][..]),
        ("a.b+c@example.com", Role::Viewer, &[], PASSWORD, &[]),
        ("m", Role::Member, &["one"], PASSWORD, &[]),
        ("ADA2", Role::Member, &[], PASSWORD, &["shops"]),
        ("n", Role::Member, &["two"], PASSWORD, &["shops[0]"]),
        ("o", Role::Viewer, &["one"], PASSWORD, &["shops"]),
        ("", Role::Viewer, &[], PASSWORD, &["name"]),
        ("a b", Role::Viewer, &[], PASSWORD, &["name"]),
        ("-a", Role::Viewer, &[], PASSWORD, &["name"]),
        ("ad\u{430}", Role::Viewer, &[], PASSWORD, &["name"]),
        (&long, Role::Viewer, &[], PASSWORD, &["name"]),
        ("p", Role::Viewer, &[], "elevenchars", &["password"]),
        ("p", Role::Viewer, &[], "aaaaaaaaaaaa", &["password"]),
        ("pppppqrstuvw", Role::Viewer, &[], "PPPPPqrstuvw", &["password"]),
        ("p", Role::Viewer, &[], &"xyz0".repeat(300), &["password"]),
        ("", Role::Member, &[], "short", &["name", "shops", "password"]),
        ("u", Role::Viewer, &[], "ünïcödé pässwörd", &[]),
    ] {
        let (fields, password) = (fields(name, role, shops), secret(text));
        let made = create(&bench.node, &Caller::socket(), &fields, Some(&password), None);
        let found: Vec<String> = match made {
            Ok(_) => Vec::new(),
            Err(OperationError::Invalid(problems)) => {
                problems.into_iter().map(|problem| problem.field).collect()
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(found, faults, "{name:?} {text:?}");
    }
    let again =
        create(&bench.node, &Caller::socket(), &fields("Ada", Role::Viewer, &[]), None, None);
    assert!(is_conflict(&again), "names are one without regard to case");
    let generated = generate_password(bench.node.entropy.as_ref()).unwrap();
    assert_eq!((generated.expose().len(), generated.expose().matches('-').count()), (29, 5));
}

#[test]
fn the_last_owner_who_can_sign_in_stays() {
    let bench = bench();
    let (node, socket) = (&bench.node, Caller::socket());
    let ada = operator(&bench, "ada", Role::Owner).id;
    // An owner who cannot sign in does not count.
    create(node, &socket, &fields("nopassword", Role::Owner, &[]), None, None).unwrap();
    let viewer = OperatorChange { role: Some(Role::Viewer), ..Default::default() };
    let disabled = OperatorChange { disabled: Some(true), ..Default::default() };
    assert!(is_conflict(&change(node, &socket, ada, &viewer, &Precondition::none())));
    assert!(is_conflict(&change(node, &socket, ada, &disabled, &Precondition::none())));
    assert!(is_conflict(&delete(node, &socket, ada, &Precondition::none())));
    let bob = operator(&bench, "bob", Role::Owner).id;
    change(node, &socket, ada, &disabled, &Precondition::none()).unwrap();
    assert!(is_conflict(&delete(node, &socket, bob, &Precondition::none())));
    let enabled = OperatorChange { disabled: Some(false), ..Default::default() };
    change(node, &socket, ada, &enabled, &Precondition::none()).unwrap();
    delete(node, &socket, bob, &Precondition::none()).unwrap();
    assert!(is_conflict(&delete(node, &socket, ada, &Precondition::none())));
    let all = list(node, &socket, None, 10).unwrap();
    assert_eq!(all.items.len(), 2);
}

/// Nobody grants, or takes over, more than it has.
#[test]
fn a_token_of_few_scopes_makes_nobody_mightier_than_itself() {
    let bench = bench();
    let id = operator(&bench, "ada", Role::Owner).id;
    let few = |scopes: &[Permission]| Caller {
        scopes: Scopes::Only(scopes.iter().copied().collect()),
        ..Caller::socket()
    };
    let people = few(&[Permission::OperatorsWrite, Permission::OperatorsRead]);
    let (node, password) = (&bench.node, secret(PASSWORD));
    let forbidden = |error: OperationError| matches!(error, OperationError::Forbidden { .. });
    for role in Role::ALL {
        let fields = fields("eve", role, &[]);
        let refused = create(node, &people, &fields, Some(&password), None).unwrap_err();
        assert!(forbidden(refused), "{role}");
    }
    assert!(forbidden(
        reset_password(node, &people, id, &password, &Precondition::none()).unwrap_err()
    ));
    assert!(forbidden(delete(node, &people, id, &Precondition::none()).unwrap_err()));
    let token = |scopes: Option<Vec<&str>>| admin_tokens::AdminTokenFields {
        name: "t".to_owned(),
        role: Role::Owner,
        expires_at: None,
        scopes: scopes.map(|names| names.into_iter().map(str::to_owned).collect()),
        shops: None,
    };
    let tokens = few(&[Permission::AdminTokensWrite, Permission::KeysRead]);
    let make = |scopes| admin_tokens::create(node, &tokens, token(scopes), None);
    assert!(forbidden(make(None).unwrap_err()));
    assert!(forbidden(make(Some(vec!["keys:read", "keys:write"])).unwrap_err()));
    make(Some(vec!["keys:read"])).unwrap();
}

#[tokio::test]
async fn a_deleted_shop_is_nobodys_any_more() {
    let bench = bench();
    bench.shop("one").await;
    bench.shop("two").await;
    let (node, socket) = (&bench.node, Caller::socket());
    let member = fields("m", Role::Member, &["one"]);
    let id = create(node, &socket, &member, Some(&secret(PASSWORD)), None).unwrap().record.id;
    let in_now = signed_in(&bench, "m").await;
    let body = r#"{"name":"t","role":"operator","shops":["one","two"]}"#;
    let token = bench.post("/api/v1/admin-tokens", body).await.expect(201).get("/secret");
    let one = ShopId::parse("one").unwrap();
    assert!(who(&bench, &in_now.cookie).unwrap().caller.sees(&one));
    shops::delete(node, &socket, &one, &Precondition::none()).unwrap();
    bench.shop("one").await;
    assert!(!who(&bench, &in_now.cookie).unwrap().caller.sees(&one));
    let get = async |path: &str| {
        let mut request = Bench::request(Method::GET, path, "");
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        bench.answer(request).await
    };
    get("/api/v1/shops/one").await.problem(404, "not_found");
    get("/api/v1/shops/two").await.expect(200);
    // The member is bare now; what else of it changes needs no shop, a new list does.
    let rename = OperatorChange { name: Some("n".to_owned()), ..Default::default() };
    let renamed = change(node, &socket, id, &rename, &Precondition::none()).unwrap();
    assert_eq!(renamed.shops, BTreeSet::new());
    let none =
        OperatorChange { shops: Some(Vec::new()), name: Some("o".into()), ..Default::default() };
    assert!(change(node, &socket, id, &none, &Precondition::none()).is_err());
}

#[tokio::test]
async fn tokens_have_scopes_and_shops() {
    let bench = bench();
    bench.shop("one").await;
    bench.shop("two").await;
    let make = async |more: &str| {
        let body = format!(r#"{{"name":"t","role":"operator"{more}}}"#);
        bench.post("/api/v1/admin-tokens", &body).await
    };
    for (more, field) in [
        (r#","scopes":["keys"]"#, "scopes[0]"),
        (r#","scopes":["shops:read","operators:write"]"#, "scopes[1]"),
        (r#","scopes":[]"#, "scopes"),
        (r#","shops":[]"#, "shops"),
        (r#","shops":["me"]"#, "shops[0]"),
    ] {
        assert_eq!(make(more).await.problem(422, "invalid").fields(), [field], "{more}");
    }
    let bare = bench.post("/api/v1/admin-tokens", r#"{"name":"t","role":"member"}"#).await;
    assert_eq!(bare.problem(422, "invalid").fields(), ["shops"]);
    make(r#","shops":["three"]"#).await.problem(404, "not_found");
    let made = make(r#","scopes":["keys:read"],"shops":["one"]"#).await.expect(201);
    assert_eq!(made.get("/scopes"), r#"["keys:read"]"#);
    let listed = bench.get("/api/v1/admin-tokens").await;
    assert_eq!(listed.get("/items/0/shops"), r#"["one"]"#);
    let bench = bench.restart();
    for (path, status) in [
        ("/api/v1/shops/one/keys", 200),
        ("/api/v1/shops/two/keys", 404),
        ("/api/v1/shops/one", 403),
        ("/api/v1/admin-tokens", 403),
    ] {
        let mut request = Bench::request(Method::GET, path, "");
        let value = format!("Bearer {}", made.get("/secret")).parse().unwrap();
        request.headers_mut().insert("authorization", value);
        bench.answer(request).await.expect(status);
    }
}

#[tokio::test]
async fn the_api_manages_operators_and_tells_no_secret() {
    let bench = bench();
    let body = r#"{"name":"ada","role":"owner","password":"correct horse battery"}"#;
    let made = bench.post("/api/v1/operators", body).await.expect(201);
    let path = format!("/api/v1/operators/{}", made.get("/id"));
    assert_eq!(made.headers["location"], *path);
    let got = bench.get(&path).await.expect(200);
    assert_eq!(got.json(), made.json());
    assert_eq!((got.get("/name"), got.get("/password_set")), ("ada".into(), "true".into()));
    let session = signed_in(&bench, "ada").await;
    let listed = bench.get(&format!("{path}/sessions")).await.expect(200);
    assert_eq!(listed.get("/items/0/id"), session.session.id.to_string());
    let all = bench.get("/api/v1/sessions?limit=1").await.expect(200);
    for text in [&got.text, &listed.text, &all.text] {
        assert!(!text.contains("argon2") && !text.contains(session.cookie.expose()), "{text}");
        assert!(!text.contains("digest") && !text.contains("hash"), "{text}");
    }
    bench.patch(&path, r#"{"role":"viewer"}"#).await.problem(409, "conflict");
    bench.patch(&path, r#"{"role":"king"}"#).await.problem(422, "invalid");
    bench.patch(&path, r#"{"name":"ada lovelace"}"#).await.problem(422, "invalid");
    assert_eq!(bench.patch(&path, r#"{"name":"Ada"}"#).await.expect(200).get("/revision"), "2");
    bench.put(&format!("{path}/password"), r#"{"password":"short"}"#).await.problem(422, "invalid");
    let password = r#"{"password":"another fine password"}"#;
    bench.put(&format!("{path}/password"), password).await.expect(200);
    assert!(who(&bench, &session.cookie).is_none());
    bench.delete(&format!("{path}/second-factor")).await.expect(204);
    let ended = bench.delete(&format!("{path}/sessions")).await.expect(200);
    assert_eq!(ended.get("/ended"), "0");
    bench.delete(&path).await.problem(409, "conflict");
    bench.delete("/api/v1/sessions/ses_0000000000000001").await.problem(404, "not_found");
    bench.get("/api/v1/operators/op_0000000000000001").await.problem(404, "not_found");
    let entries = entries(&bench);
    let all = format!("{entries:?}");
    assert!(!all.contains("argon2") && !all.contains("fine password") && !all.contains("battery"));
}
