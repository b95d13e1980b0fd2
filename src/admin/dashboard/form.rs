//! What a page's form sent, and what was wrong with it.

use std::collections::BTreeMap;
use std::fmt;

use axum::body::to_bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts as _, Request};
use axum::http::header::{CONTENT_TYPE, HeaderName, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use subtle::ConstantTimeEq as _;

use super::failure::Failure;
use super::visit::{SignedIn, Visit};
use super::{Answer, Site, page_with};
use crate::admin::operations::OperationError;

/// Most bytes of a form.
const FORM_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of a form that holds a file: one of 4 MiB, whose quotes and braces take three bytes.
const FILE_FORM_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most fields of a form.
const FIELDS_MAX: usize = 500;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A form that one of our own pages sent, with the token of its session.
pub(super) struct Form(Vec<(String, String)>);

/// Says how many fields, not which: they may be secrets.
impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Form[{} fields]", self.0.len())
    }
}

impl Form {
    /// A field as it was sent; empty if it was not.
    pub(super) fn raw(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// A field without the spaces around it; empty if it was not sent.
    pub(super) fn text(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// The same, unless it is empty.
    pub(super) fn optional(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Whether a box is ticked.
    pub(super) fn checked(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Every value of a field that may be sent several times.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(key, _)| key == name);
        values.map(|(_, value)| value.trim().to_owned()).filter(|v| !v.is_empty()).collect()
    }

    /// The lines of a text area, and what commas part within them.
    pub(super) fn lines(&self, name: &str) -> Vec<String> {
        let parts = self.raw(name).split(['\n', ',']).map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
}

/// A form that may hold a file's text, for who has signed in.
#[derive(Debug)]
pub(super) struct FileForm(pub(super) Form);

impl FromRequest<Site> for FileForm {
    type Rejection = Failure;

    async fn from_request(mut request: Request, site: &Site) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        SignedIn::from_request_parts(&mut parts, site).await?;
        request = Request::from_parts(parts, body);
        Form::read(request, site, FILE_FORM_BYTES_MAX).await.map(Self)
    }
}

impl FromRequest<Site> for Form {
    type Rejection = Failure;

    async fn from_request(request: Request, site: &Site) -> Result<Self, Failure> {
        Self::read(request, site, FORM_BYTES_MAX).await
    }
}

impl Form {
    async fn read(request: Request, site: &Site, bytes_max: usize) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let visit = Visit::of(&parts)?;
        if !is_same_site(&parts.headers, &visit) {
            tracing::warn!(path = parts.uri.path(), "a form of another site was refused");
            return Err(Failure::cross_site());
        }
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Failure::bad_form("It is not what a browser sends for a form."));
        }
        let bytes = to_bytes(body, bytes_max).await.map_err(|_| Failure::too_large(bytes_max))?;
        let mut again = Request::post("/")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(bytes.into())
            .map_err(|error| Failure::internal(&error))?;
        // Its size was looked at above.
        DefaultBodyLimit::disable().apply(&mut again);
        let fields = axum::Form::<Vec<(String, String)>>::from_request(again, site).await;
        let axum::Form(fields) = fields.map_err(|_| Failure::bad_form("It is not UTF-8."))?;
        if fields.len() > FIELDS_MAX {
            return Err(Failure::bad_form(format!("It has more than {FIELDS_MAX} fields.")));
        }
        let form = Self(fields);
        let expected = visit.csrf_expected().ok_or_else(Failure::stale_form)?;
        if !bool::from(form.raw("csrf").as_bytes().ct_eq(expected.as_bytes())) {
            return Err(Failure::stale_form());
        }
        Ok(form)
    }
}

/// Whether what the browser says of where the request comes from allows it. A client that says
/// nothing is not a browser of this decade, and still has to know the token.
fn is_same_site(headers: &HeaderMap, visit: &Visit) -> bool {
    let single = |name: HeaderName| {
        let mut values = headers.get_all(name).iter();
        let first = values.next().map(|value| value.to_str().unwrap_or("?"));
        if values.next().is_some() { Some("?") } else { first }
    };
    if single(SEC_FETCH_SITE).is_some_and(|from| from != "same-origin") {
        return false;
    }
    single(ORIGIN).is_none_or(|origin| visit.is_own_origin(origin))
}

/// What was wrong with a form, by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Errors {
    fields: BTreeMap<String, String>,
}

impl Errors {
    /// One error.
    pub(super) fn of(field: &str, problem: impl Into<String>) -> Self {
        let mut this = Self::default();
        this.add(field, problem);
        this
    }

    /// What a person can mend in the form, or else a failure.
    pub(super) fn of_operation(error: OperationError) -> Result<Self, Failure> {
        if let OperationError::Conflict(text) = error {
            return Ok(Self::of("", text));
        }
        let OperationError::Invalid(problems) = error else { return Err(error.into()) };
        let mut errors = Self::default();
        for problem in problems {
            errors.add(&problem.field, problem.problem);
        }
        Ok(errors)
    }

    /// Another one; a field keeps its first.
    pub(super) fn add(&mut self, field: &str, problem: impl Into<String>) {
        let problem = super::failure::sentence(&problem.into());
        self.fields.entry(field.to_owned()).or_insert(problem);
    }

    /// What is wrong with a field: `networks` has the errors of `networks[2]`, too.
    pub(super) fn get(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| belongs(key, field)).map(|(_, text)| text.as_str())
    }

    /// What belongs to none of `shown`: it is said above the form.
    pub(super) fn others<'a>(&self, shown: impl AsRef<[&'a str]>) -> Vec<String> {
        let stray = |key: &String| !shown.as_ref().iter().any(|field| belongs(key, field));
        let errors = self.fields.iter().filter(|(key, _)| stray(key));
        let said = |(key, text): (&String, &String)| {
            if key.is_empty() { text.clone() } else { format!("{key}: {text}") }
        };
        errors.map(said).collect()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

fn belongs(key: &str, field: &str) -> bool {
    key.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
}

/// The form again, with what was wrong beside its fields and status 422; other errors are pages.
pub(super) fn invalid<T: askama::Template>(
    error: OperationError,
    again: impl FnOnce(Errors) -> T,
) -> Answer {
    let errors = Errors::of_operation(error)?;
    invalid_fields(&again(errors))
}

/// A form that was not taken.
pub(super) fn invalid_fields(again: &impl askama::Template) -> Result<Response, Failure> {
    page_with(StatusCode::UNPROCESSABLE_ENTITY, again)
}
