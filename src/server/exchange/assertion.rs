//! What upstreams can prove a request's way by: its assertion, and the key set all of them verify
//! by.
//!
//! The key set is for everybody: it takes no credential, is charged to no limit and says nothing
//! that an assertion does not. It comes from the snapshot; nothing is signed or fetched for it.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, request};

use super::Exchange;
use crate::assertion::{KEY_SET_MAX_AGE, Statement};
use crate::decision::Admitted;
use crate::decision::denial::Code;
use crate::decision::policy::Target;
use crate::server::failure::Failure;
use crate::server::message::fields::{X_REQUEST_ID, owned};
use crate::server::message::problem;

/// Where the key set is.
const KEY_SET: &str = "/.latchkey/jwks.json";

/// RFC 7517 §8.5.
const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");

impl Exchange<'_> {
    /// The key set, if that is what is asked for.
    pub(super) fn key_set(&self, parts: &request::Parts) -> Option<Response<Bytes>> {
        let reads = parts.method == Method::GET || parts.method == Method::HEAD;
        if !reads || parts.uri.path() != KEY_SET {
            return None;
        }
        let mut response =
            Response::new(self.conn.local.shared.snapshot.load().assertions().key_set());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JWK_SET);
        let cacheable = format!("public, max-age={}", KEY_SET_MAX_AGE.as_secs());
        headers.insert(CACHE_CONTROL, owned(cacheable));
        headers.insert(X_REQUEST_ID, problem::request_id(&self.id));
        Some(response)
    }

    /// The assertion that the route's upstream gets of the request in `parts`; `None` when
    /// assertions are off.
    ///
    /// # Errors
    ///
    /// A defect: a request that must carry an assertion and cannot goes nowhere.
    pub(super) fn assertion_for_upstream(
        &self,
        admitted: &Admitted<'_>,
        parts: &request::Parts,
    ) -> Result<Option<HeaderValue>, Failure> {
        match &admitted.route().target {
            Target::Upstream(name) => self.assertion(admitted, parts, name.as_str()),
            Target::IssueWidgetToken => Ok(None),
        }
    }

    /// The same for whoever `audience` names: [`crate::assertion::FORWARD_AUTH`] is the proxy that
    /// asks about the request in `parts`.
    ///
    /// # Errors
    ///
    /// As above.
    pub(super) fn assertion(
        &self,
        admitted: &Admitted<'_>,
        parts: &request::Parts,
        audience: &str,
    ) -> Result<Option<HeaderValue>, Failure> {
        let shared = &self.conn.local.shared;
        let snapshot = shared.snapshot.load();
        let Some(signer) = snapshot.assertions().signer(shared.clock.now().unix) else {
            return Ok(None);
        };
        let statement = Statement {
            principal: admitted.principal(),
            audience,
            request_id: &self.id,
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query(),
            client: self.subject(parts).client,
        };
        let signed = signer.sign(&statement).map_err(|error| {
            let detail = "The request cannot be vouched for.";
            Failure::new(Code::Internal, detail, format!("no assertion: {error}"))
        })?;
        let mut value = owned(signed);
        // Over HTTP/2: none comes twice, so none is worth a place in the header table.
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
