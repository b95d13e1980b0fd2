//! Refusals, told to whoever looks at them as they happen.
//!
//! The same that the log is told, a bounded number of them in a second, and fewer while nobody
//! looks. Nothing is described before it is known that it is wanted.

use std::net::IpAddr;

use super::failure::Failure;
use super::log::{Subject, Whose, key_id};
use super::request_id::RequestId;
use super::shared::Shared;
use crate::decision::Refusal;
use crate::decision::denial::Code;
use crate::decision::policy::Route;
use crate::decision::principal::{Mechanism, Principal};
use crate::events::{self, bounded};
use crate::id::{KeyId, ShopId};

/// A refusal by the decision core.
pub(super) fn refusal(shared: &Shared, subject: &Subject<'_>, refusal: &Refusal<'_>) {
    tell(shared, subject, refusal.denial.code(), |event| {
        let principal = refusal.principal.as_ref();
        event.why = bounded(&refusal.denial.reason());
        event.route = refusal.route.map(|route| route.name.clone());
        event.mechanism = refusal.mechanism();
        event.shop = principal.and_then(Principal::shop).copied();
        event.key_id = principal.and_then(key_id).map(String::into_boxed_str);
    });
}

/// A refusal before any decision.
pub(super) fn rejected(shared: &Shared, subject: &Subject<'_>, code: Code, reason: &str) {
    tell(shared, subject, code, |event| event.why = bounded(reason));
}

/// A refusal by the route that issues widget tokens.
pub(super) fn issue(
    shared: &Shared,
    subject: &Subject<'_>,
    (shop, key): (&ShopId, KeyId),
    code: Code,
    reason: &str,
) {
    tell(shared, subject, code, |event| {
        event.why = bounded(reason);
        event.mechanism = Some(Mechanism::ShopApiKey);
        event.shop = Some(*shop);
        event.key_id = Some(key.to_string().into_boxed_str());
    });
}

/// An admitted request that got no response from its upstream.
pub(super) fn failed(
    shared: &Shared,
    subject: &Subject<'_>,
    (whose, route): (&Whose, Option<&Route>),
    failure: &Failure,
) {
    tell(shared, subject, failure.code, |event| {
        event.why = bounded(&failure.reason);
        event.route = route.map(|route| route.name.clone());
        event.mechanism = Some(whose.mechanism);
        event.shop = whose.shop;
        event.key_id = whose.key_id().map(String::into_boxed_str);
    });
}

/// A refusal of what never became a request: it has neither method nor path.
pub(super) fn unread(shared: &Shared, client: IpAddr, id: &RequestId, code: Code, reason: &str) {
    let subject =
        Subject { client, certificate: None, id, trace: None, method: "", path: "", origin: None };
    rejected(shared, &subject, code, reason);
}

fn tell(
    shared: &Shared,
    subject: &Subject<'_>,
    code: Code,
    describe: impl FnOnce(&mut events::Refusal),
) {
    let now = shared.clock.now();
    if !shared.events.wants(now.mono) {
        return;
    }
    let origin = subject.origin.map(|value| bounded(&String::from_utf8_lossy(value.as_bytes())));
    let mut event = events::Refusal {
        sequence: 0,
        skipped: 0,
        at: now.unix,
        request_id: subject.id.as_str().into(),
        trace_id: subject.trace.map(|trace| trace.id.to_string().into_boxed_str()),
        method: bounded(subject.method),
        path: bounded(subject.path),
        route: None,
        status: code.status(),
        code,
        why: "".into(),
        client: subject.client,
        shop: None,
        key_id: None,
        mechanism: None,
        origin,
    };
    describe(&mut event);
    shared.events.submit(event);
}
