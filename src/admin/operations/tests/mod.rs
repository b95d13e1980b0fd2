//! Operators, sessions and signing in, over a node on a temporary store.

mod operators;
mod second_factor;
mod sessions;
mod sign_in;

use std::net::IpAddr;
use std::sync::Arc;

use super::operators::{OperatorFields, create};
use super::sessions::{Session, authenticate};
use super::sign_in::{SignInFailure, SignedIn, password};
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::testing::Bench;
use crate::id::ShopId;
use crate::secret::SecretText;
use crate::store::audit::AuditRecord;
use crate::store::{OperatorRecord, Role};

const CHEAP: &str = "[admin.passwords]\nmemory = \"64KiB\"\niterations = 1\n";
const PASSWORD: &str = "correct horse battery";
const HOME: &str = "192.0.2.1";

fn bench() -> Bench {
    Bench::with(CHEAP)
}

fn secret(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn fields(name: &str, role: Role, shops: &[&str]) -> OperatorFields {
    let shops = shops.iter().map(|shop| ShopId::parse(shop).unwrap()).collect();
    OperatorFields { name: name.to_owned(), role, shops }
}

fn operator(bench: &Bench, name: &str, role: Role) -> OperatorRecord {
    let (fields, password) = (fields(name, role, &[]), secret(PASSWORD));
    create(&bench.node, &Caller::socket(), &fields, Some(&password), None).unwrap().record
}

async fn try_in(
    node: &Arc<Node>,
    name: &str,
    text: &str,
    code: Option<&str>,
    from: &str,
) -> Result<SignedIn, SignInFailure> {
    password(node, name, secret(text), code, ip(from), "Firefox/1").await
}

async fn signed_in(bench: &Bench, name: &str) -> SignedIn {
    try_in(&bench.node, name, PASSWORD, None, HOME).await.unwrap()
}

fn who(bench: &Bench, cookie: &SecretText) -> Option<Session> {
    authenticate(&bench.node, cookie.expose(), ip(HOME))
}

/// What the audit log holds, the oldest first.
fn entries(bench: &Bench) -> Vec<AuditRecord> {
    let links = bench.node.store.read(|tx| tx.audit_links(0, usize::MAX)).unwrap();
    links.iter().map(|link| link.record().unwrap()).collect()
}

/// What was done, by the audit log.
fn audited(bench: &Bench) -> Vec<String> {
    entries(bench).into_iter().map(|entry| entry.action).collect()
}
