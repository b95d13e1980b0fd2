//! Answering a proxy that asks whether a request may pass (forward-auth).
//!
//! A question goes the way of every other request, hygiene and decision, once it has become the
//! request it asks about; nothing is forwarded. It is read only if its contract is switched on and
//! its peer is a trusted proxy: to anybody else these endpoints would tell what a made-up client
//! may do.

use bytes::Bytes;
use http::{Response, request};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::{Exchange, hygiene};
use crate::assertion::FORWARD_AUTH;
use crate::client_address::is_trusted;
use crate::clock::Now;
use crate::config::Contract;
use crate::decision::denial::Code;
use crate::decision::policy::Target;
use crate::decision::{Admitted, Decision, Facts as _, Round, cors};
use crate::id::Name;
use crate::server::client_body::ClientBody;
use crate::server::forward_auth::{self, answer, original};
use crate::server::live;
use crate::server::log::{self, Whose};
use crate::server::message::problem::Problem;
use crate::server::shared::Settings;

/// A body that is sent along is read so far, to keep the connection; behind a longer one the
/// connection is closed.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What a question comes to.
enum Verdict {
    Allow(Response<Bytes>),
    Deny(Response<Bytes>),
    NeedsKey(Name),
}

impl Exchange<'_> {
    /// Answers a request for a path of latchkey's own.
    pub(super) async fn reserved(
        &self,
        parts: &mut request::Parts,
        body: ClientBody,
    ) -> Response<Bytes> {
        if let Some(response) = self.key_set(parts) {
            return response;
        }
        let settings = self.conn.local.shared.settings.load_full();
        let contracts = &settings.forward_auth.contracts;
        let endpoint = forward_auth::endpoint(parts.uri.path());
        let Some(contract) = endpoint.filter(|contract| contracts.contains(contract)) else {
            return self.reject(
                parts,
                Code::NotFound,
                "No route takes this method and path.",
                "there is nothing at this path; if it is meant to answer a proxy, \
                 forward_auth.contracts does not name its contract",
            );
        };
        let peer = self.conn.peer;
        if !is_trusted(peer, &settings.server.trusted_proxies) {
            let reason = format!("{peer} asks, and is not in server.trusted_proxies");
            let detail = "Questions are answered to trusted proxies only.";
            return self.reject(parts, Code::NetworkNotAllowed, detail, &reason);
        }
        let response = self.question(contract, parts, &settings).await;
        // Nobody else's body is waited for: that would keep a place for who has no permit.
        discard(body).await;
        response
    }

    /// A refusal for want of a place, to whoever asks.
    pub(super) fn turned_away(&self, parts: &request::Parts) -> Response<Bytes> {
        let response = self.overloaded(parts);
        match forward_auth::endpoint(parts.uri.path()) {
            Some(contract) => answer::deny(contract, response),
            None => response,
        }
    }

    /// Answers a trusted proxy.
    async fn question(
        &self,
        contract: Contract,
        parts: &mut request::Parts,
        settings: &Settings,
    ) -> Response<Bytes> {
        let scheme = match original::restore(contract, parts, &self.caller) {
            Ok(scheme) => scheme,
            Err(fault) => {
                let detail = "The proxy in front does not say which request it asks about.";
                let response = self.reject(parts, Code::BadRequest, detail, &fault.to_string());
                return answer::deny(contract, response);
            }
        };
        self.account.borrow_mut().about(parts);
        log::asked(&self.subject(parts), contract, scheme);
        let reader = self.reader(parts);
        let answered = self.ask(contract, parts).await;
        let mut response = answered.unwrap_or_else(|response| answer::deny(contract, response));
        reader.tell(&settings.cors_fields, response.headers_mut());
        response
    }

    /// Decides about the request that is asked about; a refusal as the client would get it here.
    async fn ask(
        &self,
        contract: Contract,
        parts: &request::Parts,
    ) -> Result<Response<Bytes>, Response<Bytes>> {
        if let Err(why) = hygiene::check(parts, false) {
            let detail = format!("The request is refused because {why}.");
            return Err(self.reject(parts, Code::BadRequest, &detail, &detail));
        }
        if forward_auth::is_reserved(parts.uri.path()) {
            return Err(self.own(contract, parts, "requests under /.latchkey/"));
        }
        if cors::is_preflight(&self.view(parts)) {
            return Err(self.own(contract, parts, "preflights"));
        }
        let mut verdict = self.verdict(contract, parts, Round::First);
        if let Verdict::NeedsKey(issuer) = verdict {
            // Bounded by the issuer's fetch timeout.
            self.conn.local.shared.keys.refresh(&issuer).await;
            verdict = self.verdict(contract, parts, Round::AfterRefresh);
        }
        match verdict {
            Verdict::Allow(response) => Ok(response),
            Verdict::Deny(response) => Err(response),
            Verdict::NeedsKey(_) => {
                let detail = "The token cannot be checked now.";
                Err(Problem::new(Code::KeysUnavailable, detail).into_response(&self.id))
            }
        }
    }

    fn verdict(&self, contract: Contract, parts: &request::Parts, round: Round) -> Verdict {
        let shared = &self.conn.local.shared;
        let snapshot = shared.snapshot.load();
        let now = shared.clock.now();
        match self.evaluate(parts, &snapshot, now, round) {
            Decision::NeedsKey { issuer, .. } => Verdict::NeedsKey(issuer),
            Decision::Refuse(refusal) => Verdict::Deny(self.refuse(parts, &refusal, now)),
            Decision::Admit(admitted) => {
                self.note(admitted.principal(), now);
                self.count_shadow(&admitted, snapshot.policies());
                self.allow(contract, parts, &admitted, now)
            }
        }
    }

    fn allow(
        &self,
        contract: Contract,
        parts: &request::Parts,
        admitted: &Admitted<'_>,
        now: Now,
    ) -> Verdict {
        if admitted.route().target == Target::IssueWidgetToken {
            return Verdict::Deny(self.own(contract, parts, "requests for widget tokens"));
        }
        let whose = Whose::of(admitted.principal());
        let assertion = match self.assertion(admitted, parts, FORWARD_AUTH) {
            Ok(assertion) => assertion,
            Err(failure) => return Verdict::Deny(self.failed(parts, &whose, &failure)),
        };
        let limit = admitted.limit().map(|report| self.limit_headers(&report, now));
        self.conn.local.shared.metrics.decision(Some(whose.mechanism), None);
        Verdict::Allow(answer::allow(admitted, limit, assertion, &self.id))
    }

    /// A proxy asks about what it has to send here. To forward what only latchkey answers would
    /// lead nowhere, and an answer of 2xx is a yes to some.
    fn own(&self, contract: Contract, parts: &request::Parts, what: &str) -> Response<Bytes> {
        let reason = format!(
            "latchkey answers {what} itself: the proxy has to send them here instead of asking \
             about them, as {} does",
            original::snippet(contract)
        );
        let detail = "The proxy in front has to send this request to latchkey itself.";
        self.reject(parts, Code::NotFound, detail, &reason)
    }

    /// A refusal that is not the decision core's.
    pub(super) fn reject(
        &self,
        parts: &request::Parts,
        code: Code,
        detail: &str,
        reason: &str,
    ) -> Response<Bytes> {
        log::rejected(&self.subject(parts), code, reason);
        live::rejected(&self.conn.local.shared, &self.subject(parts), code, reason);
        self.conn.local.shared.metrics.decision(None, Some(code));
        Problem::new(code, detail).into_response(&self.id)
    }
}

/// Reads what a proxy sent along with its question; how long that may take is the wire's to say.
async fn discard(mut body: ClientBody) {
    let mut read = 0;
    while !body.is_end_stream() && read <= BODY_BYTES_MAX {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => return,
        }
    }
}
