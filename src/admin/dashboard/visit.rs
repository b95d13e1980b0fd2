//! Who asks, and how it is answered: what every handler starts from.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::FromRequestParts;
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::failure::Failure;
use super::frame::{Flash, Frame};
use super::{Site, cookies};
use crate::admin::caller::Caller;
use crate::admin::cookie;
use crate::admin::node::Node;
use crate::admin::oidc;
use crate::admin::operations::OperationError;
use crate::admin::operations::sessions::{self, Session};
use crate::admin::origin::Reached;
use crate::decision::origin::Origin;
use crate::secret::{SecretText, random_bytes};

/// Seconds that a message waits for its page.
const FLASH_AGE_S: u32 = 60;
/// Seconds that the form of who has no session may stay open.
const FORM_AGE_S: u32 = 12 * 3600;

/// A request, as far as every page looks at it.
#[derive(Debug)]
pub(super) struct Visit {
    site: Site,
    /// Who has signed in.
    pub(super) session: Option<Session>,
    /// Where it comes from.
    pub(super) client: IpAddr,
    /// The path and the query.
    pub(super) address: String,
    /// Whether it may be answered with a page and its address be returned to.
    is_get: bool,
    flash: Option<Flash>,
    /// Whether the message was put into a page, and need not wait any longer.
    flash_shown: AtomicBool,
    secure: bool,
    /// The origin of this site, as the browser sees it.
    origin: Option<Origin>,
    /// The value of the cookie that binds forms before there is a session.
    form_cookie: Option<String>,
    /// A new one, if there was none.
    form_fresh: Option<String>,
    form_used: AtomicBool,
}

impl Visit {
    /// Looks at a request.
    pub(super) fn new(
        site: &Site,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Self {
        let reached = extensions.get::<Reached>();
        let secure = reached.is_some_and(|reached| reached.https);
        let client = reached.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |reached| reached.client);
        let session = cookie::cookie(headers, &cookies::name(cookies::SESSION, secure))
            .and_then(|value| sessions::authenticate(&site.node, value, client));
        let form = cookie::cookie(headers, &cookies::name(cookies::FORM, secure))
            .filter(|value| value.len() == 43)
            .map(str::to_owned);
        let form_fresh = if form.is_none() && session.is_none() {
            let random = random_bytes::<32>(site.node.entropy.as_ref());
            random.ok().map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
        } else {
            None
        };
        let flash = cookie::cookie(headers, &cookies::name(cookies::FLASH, secure));
        Self {
            site: site.clone(),
            session,
            client,
            address: uri.path_and_query().map_or("/", |address| address.as_str()).to_owned(),
            is_get: matches!(*method, Method::GET | Method::HEAD),
            flash: flash.and_then(Flash::from_cookie),
            flash_shown: AtomicBool::new(false),
            secure,
            origin: reached.and_then(|reached| reached.origin.clone()),
            form_cookie: form,
            form_fresh,
            form_used: AtomicBool::new(false),
        }
    }

    /// What [`super::shell`] left in a request.
    pub(super) fn of(parts: &Parts) -> Result<Arc<Self>, Failure> {
        let found = parts.extensions.get::<Arc<Self>>().cloned();
        found.ok_or_else(|| Failure::internal(&"a page outside of the frame"))
    }

    /// One latchkey.
    pub(super) fn node(&self) -> &Arc<Node> {
        &self.site.node
    }

    /// Whether browsers reach the dashboard by https.
    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    /// This site's origin, as the browser sees it.
    pub(super) fn origin(&self) -> Option<String> {
        self.origin.as_ref().map(ToString::to_string)
    }

    /// Whether the browser is at `url`.
    pub(super) fn is_at(&self, url: &Origin) -> bool {
        self.origin.as_ref() == Some(url)
    }

    /// Whether `origin` is this site's own.
    pub(super) fn is_own_origin(&self, origin: &str) -> bool {
        self.origin.as_ref().is_some_and(|own| own.to_string() == origin)
    }

    /// What surrounds a page; `place` is the item of the navigation it belongs to.
    pub(super) fn frame(&self, title: impl Into<String>, place: &str) -> Frame {
        let csrf = if let Some(session) = &self.session {
            session.csrf.expose().to_owned()
        } else {
            self.form_used.store(true, Ordering::Relaxed);
            self.form_cookie.clone().or_else(|| self.form_fresh.clone()).unwrap_or_default()
        };
        let shown = self.flash_shown.swap(true, Ordering::Relaxed);
        let flash = self.flash.clone().filter(|_| !shown);
        let caller = self.session.as_ref().map(|session| &session.caller);
        let (assets, now) = (Arc::clone(&self.site.assets), self.node().now().unix);
        Frame::new(title.into(), place, caller, csrf, flash, assets, now)
    }

    /// What a form has to carry; `None` if nothing would do.
    pub(super) fn csrf_expected(&self) -> Option<&str> {
        match &self.session {
            Some(session) => Some(session.csrf.expose()),
            None => self.form_cookie.as_deref(),
        }
        .filter(|token| !token.is_empty())
    }

    /// On to another page, after a form was taken.
    pub(super) fn go(&self, to: &str, flash: impl Into<Option<Flash>>) -> Response {
        let mut response = StatusCode::SEE_OTHER.into_response();
        let headers = response.headers_mut();
        let location = HeaderValue::try_from(to).unwrap_or(HeaderValue::from_static("/"));
        headers.insert(LOCATION, location);
        if let Some(flash) = flash.into() {
            self.add_cookie(headers, cookies::FLASH, &flash.to_cookie(), FLASH_AGE_S);
        }
        response
    }

    /// Begins a session in the browser that asks; it ends with the browser, at the latest.
    pub(super) fn enter(&self, response: &mut Response, cookie: &SecretText) {
        let name = cookies::name(cookies::SESSION, self.secure);
        if let Some(cookie) = cookies::set(&name, cookie.expose(), self.secure, None) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }

    /// Has the browser keep what a sign-in by the identity provider needs when it comes back, or
    /// forget it. That cookie alone is sent when another site leads here.
    pub(super) fn remember_attempt(&self, response: &mut Response, attempt: Option<&SecretText>) {
        let name = cookies::name(oidc::COOKIE, self.secure);
        let (value, age_s) = match attempt {
            Some(value) => (value.expose(), oidc::COOKIE_AGE_S),
            None => ("", 0),
        };
        if let Some(cookie) = cookies::set_for_return(&name, value, self.secure, age_s) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }

    /// Takes the session's cookie away.
    pub(super) fn leave(&self, response: &mut Response) {
        self.add_cookie(response.headers_mut(), cookies::SESSION, "", 0);
    }

    /// Adds what the answer owes to the cookies: a message that was shown goes, the value that
    /// binds a form comes.
    pub(super) fn finish(&self, headers: &mut HeaderMap) {
        if self.flash.is_some() && self.flash_shown.load(Ordering::Relaxed) {
            self.add_cookie(headers, cookies::FLASH, "", 0);
        }
        if let Some(fresh) = self.form_fresh.as_deref().filter(|_| self.form_used()) {
            self.add_cookie(headers, cookies::FORM, fresh, FORM_AGE_S);
        }
    }

    fn form_used(&self) -> bool {
        self.form_used.load(Ordering::Relaxed)
    }

    fn add_cookie(&self, headers: &mut HeaderMap, base: &str, value: &str, age_s: u32) {
        let name = cookies::name(base, self.secure);
        if let Some(cookie) = cookies::set(&name, value, self.secure, Some(age_s)) {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

/// Anyone: the pages before a sign-in.
#[derive(Debug)]
pub(super) struct Visitor(Arc<Visit>);

impl Deref for Visitor {
    type Target = Visit;

    fn deref(&self) -> &Visit {
        &self.0
    }
}

impl FromRequestParts<Site> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Site) -> Result<Self, Failure> {
        Visit::of(parts).map(Self)
    }
}

/// Somebody who has signed in.
#[derive(Debug)]
pub(super) struct SignedIn {
    visit: Arc<Visit>,
    /// The session.
    pub(super) session: Session,
}

impl Deref for SignedIn {
    type Target = Visit;

    fn deref(&self) -> &Visit {
        &self.visit
    }
}

impl FromRequestParts<Site> for SignedIn {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Site) -> Result<Self, Failure> {
        let visit = Visit::of(parts)?;
        let back = if visit.is_get { visit.address.as_str() } else { "/" };
        let session = visit.session.clone().ok_or_else(|| Failure::signed_out(back))?;
        Ok(Self { visit, session })
    }
}

impl SignedIn {
    /// Who calls.
    pub(super) fn caller(&self) -> &Caller {
        &self.session.caller
    }

    /// Does `work` as this caller on a thread that may block.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Node, &Caller) -> Result<T, OperationError> + Send + 'static,
    ) -> Result<Result<T, OperationError>, Failure> {
        let (node, caller) = (Arc::clone(self.node()), self.caller().clone());
        let done = tokio::task::spawn_blocking(move || work(&node, &caller)).await;
        done.map_err(|error| Failure::internal(&error))
    }

    /// The same for what takes long, where it holds nobody up.
    pub(super) async fn at_leisure<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Node, &Caller) -> Result<T, OperationError> + Send + 'static,
    ) -> Result<Result<T, OperationError>, Failure> {
        let (node, caller) = (Arc::clone(self.node()), self.caller().clone());
        let done = self.node().bulk().spawn_blocking(move || work(&node, &caller)).await;
        done.map_err(|error| Failure::internal(&error))
    }

    /// As [`Self::blocking`], where an error is nothing a form could mend.
    pub(super) async fn load<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Node, &Caller) -> Result<T, OperationError> + Send + 'static,
    ) -> Result<T, Failure> {
        Ok(self.blocking(work).await??)
    }
}
