//! What browsers are told: preflights are answered here, and every other response of a request
//! that was read says whether the page that asked may read it (spec §6).
//!
//! Decides nothing; a refusal before a request is read (a malformed head, a connection too many)
//! names no page that could be told.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, ORIGIN};
use http::{Response, request};

use super::Exchange;
use crate::decision::Facts as _;
use crate::decision::cors::{Sharing, is_preflight, preflight, sharing};
use crate::server::forward_auth::is_reserved;
use crate::server::log;
use crate::server::message::cors::{CorsFields, vary_by_preflight};
use crate::server::message::problem::Problem;

/// The page that asked, kept until there is a response.
pub(super) struct Reader {
    sharing: Sharing,
    origin: Option<HeaderValue>,
}

impl Reader {
    /// Tells browsers and caches whether the page may read the response.
    pub(super) fn tell(self, fields: &CorsFields, headers: &mut HeaderMap) {
        fields.share(headers, self.sharing, self.origin);
    }
}

impl Exchange<'_> {
    /// Who may read the response to this request. A preflight's is for the browser alone.
    pub(super) fn reader(&self, parts: &request::Parts) -> Reader {
        let view = self.view(parts);
        // What a proxy asks about is known only once its question was read.
        if is_preflight(&view) || is_reserved(view.path) {
            return Reader { sharing: Sharing::Unshared, origin: None };
        }
        let snapshot = self.conn.local.shared.snapshot.load();
        let sharing = sharing(&view, snapshot.policies(), &**snapshot);
        Reader { sharing, origin: parts.headers.get(ORIGIN).cloned() }
    }

    /// The answer to a preflight; `None` if the request is none. It never reaches an upstream,
    /// costs nobody's quota, and no credential in it is looked at. A refusal is 403 rather than a
    /// 204 that says nothing: browsers treat both alike, and the operator of the page sees why.
    pub(super) fn preflight(&self, parts: &request::Parts) -> Option<Response<Bytes>> {
        let shared = &self.conn.local.shared;
        let snapshot = shared.snapshot.load();
        let judged = preflight(&self.view(parts), snapshot.policies(), &**snapshot)?;
        shared.metrics.decision(None, judged.as_ref().err().map(|refused| refused.denial.code()));
        let refused = match judged {
            Ok(offer) => {
                // Without one it were no preflight.
                let origin = parts.headers.get(ORIGIN)?.clone();
                return Some(
                    shared.settings.load().cors_fields.preflight(&offer, origin, &self.id),
                );
            }
            Err(refused) => refused,
        };
        log::rejected(&self.subject(parts), refused.denial.code(), &refused.denial.reason());
        let mut response = Problem::of(&refused.denial, None).into_response(&self.id);
        vary_by_preflight(response.headers_mut());
        Some(response)
    }
}
