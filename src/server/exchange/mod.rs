//! From a request to its response: hygiene, preflight, decision, then forward, issue or refuse.
//!
//! Puts the stages in order and does the bookkeeping of their outcomes; whether a request may pass
//! is the decision core's to say, and how its bytes travel is the front's and the upstream's.

mod account;
mod ask;
mod assertion;
mod calling;
mod cors;
mod forward;
mod h2;
mod hygiene;
mod issue_route;
mod reply;

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, ORIGIN};
use http::{Method, Request, Response, request};
use hyper::body::Incoming;

use self::account::Account;
use self::calling::{caller, trace};
use self::forward::{Forward, Forwarded};
use self::issue_route::IssueJob;
use self::reply::{ReplyBody, Source};
use super::client_body::ClientBody;
use super::conn::Conn;
use super::failure::Failure;
use super::forward_auth::is_reserved;
use super::live;
use super::log::{self, Subject, Whose};
use super::message::problem::{LimitHeaders, Problem};
use super::request_id::RequestId;
use super::upstream::send::Tries;
use crate::client_address::Caller;
use crate::clock::Now;
use crate::decision::denial::{Code, Stage};
use crate::decision::policy::{Policies, Target};
use crate::decision::principal::Principal;
use crate::decision::request::RequestView;
use crate::decision::{
    Admitted, Context, Decision, Facts as _, LimitReport, Refusal, Round, evaluate, route,
};
use crate::id::Name;
use crate::metrics::Bound;
use crate::snapshot::Snapshot;
use crate::trace::Trace;

/// The least time between two notes of a key's last use.
const LAST_USED_STEP_MS: u64 = 1000;

/// Answers a request.
pub(super) async fn handle(
    conn: Rc<Conn>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Infallible> {
    let in_flight = conn.call();
    let (mut parts, body) = request.into_parts();
    // hyper drops the body of an answer to HEAD in HTTP/1.1, but not in HTTP/2.
    let is_headless = conn.streams().is_some() && parts.method == Method::HEAD;
    let body = if conn.streams().is_some() {
        ClientBody::timed(body, &conn.local.shared)
    } else {
        ClientBody::new(body)
    };
    let id = conn.local.ids.next();
    let caller = caller(&conn, &parts);
    let over = in_flight.is_over();
    let trace = trace(&conn, &parts);
    let account = RefCell::new(Account::open(in_flight, id, trace, &parts, caller.address));
    let exchange = Exchange { conn: &conn, id, trace, account, caller };
    let reader = exchange.reader(&parts);
    let mut response = if over {
        whole(exchange.turned_away(&parts))
    } else {
        exchange.answer(&mut parts, body).await
    };
    reader.tell(&conn.local.shared.settings.load().cors_fields, response.headers_mut());
    if is_headless {
        response = without_body(response);
    }
    let mut account = exchange.account.into_inner();
    account.answered(&response);
    Ok(response.map(|source| ReplyBody::new(source, account)))
}

/// What a decision leads to.
enum Verdict {
    Forward(Box<Forward>),
    Issue(IssueJob),
    Respond(Response<Bytes>),
    NeedsKey(Name),
}

/// A request, its names, and whose it is.
struct Exchange<'a> {
    conn: &'a Rc<Conn>,
    id: RequestId,
    trace: Option<Trace>,
    account: RefCell<Account>,
    caller: Caller,
}

impl Exchange<'_> {
    async fn answer(&self, parts: &mut request::Parts, body: ClientBody) -> Response<Source> {
        if let Some(response) = self.malformed(parts) {
            return whole(response);
        }
        if is_reserved(parts.uri.path()) {
            return whole(self.reserved(parts, body).await);
        }
        if let Some(response) = self.too_long(parts) {
            return whole(response);
        }
        if let Some(response) = self.preflight(parts) {
            return whole(response);
        }
        let mut body = Some(body);
        let mut verdict = self.decide(parts, &mut body, Round::First);
        if let Verdict::NeedsKey(issuer) = verdict {
            // Bounded by the issuer's fetch timeout.
            self.conn.local.shared.keys.refresh(&issuer).await;
            verdict = self.decide(parts, &mut body, Round::AfterRefresh);
        }
        match verdict {
            Verdict::Forward(forward) => {
                let whose = forward.whose();
                let clock = &self.conn.local.shared.clock;
                let (sent, tries, recorded) =
                    (clock.now().mono, Tries::default(), forward.recorded());
                let answer = forward.send(&tries).await;
                let took = clock.now().mono.since(sent);
                let hop = recorded.map(|(span, upstream)| upstream.hop(span, &tries));
                self.account.borrow_mut().upstream(sent, took, hop);
                match answer {
                    Ok(forwarded) => {
                        self.conn.local.shared.metrics.decision(Some(whose.mechanism), None);
                        self.forwarded(forwarded)
                    }
                    Err(failure) => whole(self.failed(parts, &whose, &failure)),
                }
            }
            Verdict::Issue(job) => whole(
                issue_route::answer(job, body, &self.conn.local.shared, &self.subject(parts)).await,
            ),
            Verdict::Respond(response) => whole(response),
            Verdict::NeedsKey(_) => {
                let problem =
                    Problem::new(Code::KeysUnavailable, "The token cannot be checked now.");
                whole(problem.into_response(&self.id))
            }
        }
    }

    fn forwarded(&self, forwarded: Forwarded) -> Response<Source> {
        match forwarded {
            Forwarded::Response(response) => response,
            Forwarded::Upgraded(response, upgraded) => {
                self.conn.upgrade(upgraded);
                response
            }
        }
    }

    /// The answer to a request over the bound, before any of its body is read.
    fn overloaded(&self, parts: &request::Parts) -> Response<Bytes> {
        let metrics = &self.conn.local.shared.metrics;
        metrics.bound_hit(Bound::Requests);
        metrics.decision(None, Some(Code::Overloaded));
        let detail = "Too many requests are under way; try again in a moment.";
        log::rejected(&self.subject(parts), Code::Overloaded, detail);
        live::rejected(&self.conn.local.shared, &self.subject(parts), Code::Overloaded, detail);
        Problem::new(Code::Overloaded, detail).into_response(&self.id)
    }

    /// What is wrong with the form of the request. Makes one of HTTP/2 look like one of HTTP/1.1.
    fn malformed(&self, parts: &mut request::Parts) -> Option<Response<Bytes>> {
        let shared = &self.conn.local.shared;
        let is_tls = self.conn.is_tls();
        let settled = if self.conn.streams().is_some() {
            let fields_max = shared.settings.load().server.header_count_max;
            h2::settle(parts, is_tls, fields_max)
        } else {
            Ok(())
        };
        let checked = settled
            .and_then(|()| hygiene::check(parts, is_tls).map_err(|why| (Code::BadRequest, why)));
        let (code, why) = checked.err()?;
        if code == Code::HeadersTooLarge {
            shared.metrics.bound_hit(Bound::HeaderCount);
        }
        let detail = format!("The request is refused because {why}.");
        Some(self.reject(parts, code, &detail, &detail))
    }

    /// Whether the body is announced to be longer than the route takes. Costs no shop its quota.
    fn too_long(&self, parts: &request::Parts) -> Option<Response<Bytes>> {
        let length = hygiene::announced_length(&parts.headers).filter(|length| *length > 0)?;
        let shared = &self.conn.local.shared;
        let snapshot = shared.snapshot.load();
        let route = route(&parts.method, parts.uri.path(), snapshot.policies());
        let own = route.and_then(|route| route.body_bytes_max);
        let max = own.unwrap_or(shared.settings.load().server.body_bytes_max);
        if length <= max {
            return None;
        }
        shared.metrics.bound_hit(Bound::BodyBytes);
        let detail = format!("The body is longer than {max} bytes.");
        Some(self.reject(parts, Code::PayloadTooLarge, &detail, &detail))
    }

    /// Evaluates the request and turns what borrows from the snapshot into what does not.
    fn decide(
        &self,
        parts: &mut request::Parts,
        body: &mut Option<ClientBody>,
        round: Round,
    ) -> Verdict {
        let shared = &self.conn.local.shared;
        let snapshot = shared.snapshot.load();
        let now = shared.clock.now();
        match self.evaluate(parts, &snapshot, now, round) {
            Decision::NeedsKey { issuer, .. } => Verdict::NeedsKey(issuer),
            Decision::Refuse(refusal) => Verdict::Respond(self.refuse(parts, &refusal, now)),
            Decision::Admit(admitted) => {
                self.note(admitted.principal(), now);
                self.count_shadow(&admitted, snapshot.policies());
                self.admit(admitted, parts, body, now)
            }
        }
    }

    fn evaluate<'s>(
        &'s self,
        parts: &request::Parts,
        facts: &'s Snapshot,
        now: Now,
        round: Round,
    ) -> Decision<'s> {
        let shared = &self.conn.local.shared;
        let context = Context { facts, limits: &*shared.limiter, verified: &*shared.verified };
        let decision = evaluate(&self.view(parts), &context, now, round);
        let took = shared.clock.now().mono.since(now.mono);
        shared.metrics.decision_duration(took);
        self.account.borrow_mut().decided(took, &decision, now);
        decision
    }

    fn admit(
        &self,
        admitted: Admitted<'_>,
        parts: &mut request::Parts,
        body: &mut Option<ClientBody>,
        now: Now,
    ) -> Verdict {
        let limit = admitted.limit().map(|report| self.limit_headers(&report, now));
        let whose = Whose::of(admitted.principal());
        if admitted.route().target == Target::IssueWidgetToken {
            let policies = self.conn.local.shared.snapshot.load().shared_policies();
            return match IssueJob::new(&admitted, limit, policies) {
                Ok(job) => Verdict::Issue(job),
                Err(failure) => Verdict::Respond(self.failed(parts, &whose, &failure)),
            };
        }
        let forward = Forward::new(admitted, limit, parts, body.take(), self);
        match forward {
            Ok(forward) => Verdict::Forward(Box::new(forward)),
            Err(failure) => Verdict::Respond(self.failed(parts, &whose, &failure)),
        }
    }

    fn refuse(&self, parts: &request::Parts, refusal: &Refusal<'_>, now: Now) -> Response<Bytes> {
        if let Some(principal) = &refusal.principal {
            self.note(principal, now);
        }
        let metrics = &self.conn.local.shared.metrics;
        metrics.decision(refusal.mechanism(), Some(refusal.denial.code()));
        if let Some(report) = &refusal.limit {
            metrics.limited(report.policy.as_str());
        }
        if refusal.denial.stage() == Stage::Throttle {
            metrics.throttled();
        }
        log::refusal(&self.subject(parts), refusal);
        live::refusal(&self.conn.local.shared, &self.subject(parts), refusal);
        let limit = refusal.limit.as_ref().map(|report| self.limit_headers(report, now));
        Problem::of(&refusal.denial, limit).into_response(&self.id)
    }

    fn failed(&self, parts: &request::Parts, whose: &Whose, failure: &Failure) -> Response<Bytes> {
        let shared = &self.conn.local.shared;
        let metrics = &shared.metrics;
        if failure.code == Code::PayloadTooLarge {
            metrics.bound_hit(Bound::BodyBytes);
        }
        metrics.decision(Some(whose.mechanism), Some(failure.code));
        log::failed(&self.subject(parts), whose, failure);
        let snapshot = shared.snapshot.load();
        let route = route(&parts.method, parts.uri.path(), snapshot.policies());
        live::failed(shared, &self.subject(parts), (whose, route), failure);
        Problem::new(failure.code, failure.detail).into_response(&self.id)
    }

    /// Notes what an authentication leaves behind: a verified token, a key's last use.
    fn note(&self, principal: &Principal<'_>, now: Now) {
        match principal {
            Principal::Jwt { token, fresh: true, .. } => {
                self.conn.local.shared.verified.insert(token);
            }
            Principal::ShopApiKey { key, .. } => {
                let (last, now) = (key.last_used_ms.load(Ordering::Relaxed), now.unix.unix_ms());
                if now >= last.saturating_add(LAST_USED_STEP_MS) {
                    key.last_used_ms.store(now, Ordering::Relaxed);
                }
            }
            Principal::Jwt { .. } | Principal::WidgetToken { .. } | Principal::Anonymous => {}
        }
    }

    fn count_shadow(&self, admitted: &Admitted<'_>, policies: &Policies) {
        let metrics = &self.conn.local.shared.metrics;
        let exceeded = admitted.shadow_exceeded();
        if exceeded == 0 {
            return;
        }
        for (i, policy) in policies.limits.iter().enumerate().take(64) {
            if exceeded >> i & 1 == 1 {
                metrics.shadow_exceeded(policy.name.as_str());
            }
        }
    }

    fn limit_headers(&self, report: &LimitReport<'_>, now: Now) -> LimitHeaders {
        let x_ratelimit = self.conn.local.shared.settings.load().x_ratelimit;
        LimitHeaders::new(report, now.unix, x_ratelimit)
    }

    fn view<'s>(&self, parts: &'s request::Parts) -> RequestView<'s> {
        RequestView {
            method: &parts.method,
            path: parts.uri.path(),
            headers: &parts.headers,
            client: self.caller.address,
        }
    }

    fn subject<'s>(&'s self, parts: &'s request::Parts) -> Subject<'s> {
        Subject {
            client: self.caller.address,
            certificate: self.conn.certificate.as_deref(),
            id: &self.id,
            trace: self.trace.as_ref(),
            method: parts.method.as_str(),
            path: parts.uri.path(),
            origin: parts.headers.get(ORIGIN),
        }
    }
}

/// The response to HEAD: what it would be to GET, but for the body.
fn without_body(mut response: Response<Source>) -> Response<Source> {
    if let Source::Whole(bytes) = response.body_mut() {
        let length = std::mem::take(bytes).len();
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    response
}

fn whole(response: Response<Bytes>) -> Response<Source> {
    response.map(Source::Whole)
}
