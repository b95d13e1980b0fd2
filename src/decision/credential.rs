//! Which credential a request presents: the header fields of the mechanisms its route takes, read
//! strictly. Credentials of other mechanisms are as good as absent (spec §1).
//!
//! This module does not look into a credential.

use http::header::{AUTHORIZATION, HeaderName};

use super::denial::{CredentialFault, Denial};
use super::policy::MechanismSet;
use super::principal::Mechanism;
use super::request::RequestView;

/// Field name of the widget token.
pub const X_WIDGET_TOKEN: HeaderName = HeaderName::from_static("x-widget-token");
/// Field name of the shop API key.
pub const X_SHOP_API_KEY: HeaderName = HeaderName::from_static("x-shop-api-key");

/// The unverified credential of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// The value of `X-Widget-Token`.
    WidgetToken(&'a str),
    /// The value of `X-Shop-API-Key`.
    ShopApiKey(&'a str),
    /// The value of `Authorization`.
    Authorization(&'a str),
    /// None, where the route takes anonymous requests.
    Nothing,
}

/// Finds the credential among those the route takes. Several at once are refused: which one spoke
/// would be a guess.
pub(super) fn extract<'a>(
    request: &RequestView<'a>,
    accepted: MechanismSet,
) -> Result<Presented<'a>, Denial<'static>> {
    let mut presented = Presented::Nothing;
    for mechanism in accepted.iter() {
        let Some(found) = presented_as(request, mechanism)? else {
            continue;
        };
        if presented != Presented::Nothing {
            return Err(Denial::AmbiguousCredentials);
        }
        presented = found;
    }
    if presented == Presented::Nothing && !accepted.contains(Mechanism::Anonymous) {
        return Err(Denial::MissingCredential { expected: accepted });
    }
    Ok(presented)
}

fn presented_as<'a>(
    request: &RequestView<'a>,
    mechanism: Mechanism,
) -> Result<Option<Presented<'a>>, Denial<'static>> {
    match mechanism {
        Mechanism::WidgetToken => {
            Ok(field(request, &X_WIDGET_TOKEN, "X-Widget-Token")?.map(Presented::WidgetToken))
        }
        Mechanism::ShopApiKey => {
            Ok(field(request, &X_SHOP_API_KEY, "X-Shop-API-Key")?.map(Presented::ShopApiKey))
        }
        Mechanism::Jwt => {
            Ok(field(request, &AUTHORIZATION, "Authorization")?.map(Presented::Authorization))
        }
        Mechanism::Anonymous => Ok(None),
    }
}

fn field<'a>(
    request: &RequestView<'a>,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'a str>, Denial<'static>> {
    let fault = |fault| Denial::BadCredentialField { field: shown, fault };
    let mut values = request.headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(fault(CredentialFault::Repeated));
    }
    // The space belongs to `Authorization: Bearer <token>`; elsewhere the parser refuses it.
    let visible = |b: &u8| matches!(b, b' '..=b'~');
    match value.to_str() {
        Ok(text) if text.as_bytes().iter().all(visible) => Ok(Some(text)),
        Ok(_) | Err(_) => Err(fault(CredentialFault::NotVisibleAscii)),
    }
}

/// The token of an `Authorization` value with the Bearer scheme (RFC 6750 §2.1, scheme names
/// without case by RFC 9110 §11.1); `None` for any other value.
#[must_use]
pub fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    (scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty() && !token.contains(' '))
        .then_some(token)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;

    fn check(fields: &[(&HeaderName, &[u8])], accepted: &[Mechanism]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let client = "192.0.2.1".parse().unwrap();
        let request = RequestView { method: &Method::GET, path: "/", headers: &headers, client };
        match extract(&request, accepted.iter().copied().collect()) {
            Ok(presented) => format!("{presented:?}"),
            Err(denial) => denial.code().as_str().to_owned(),
        }
    }

    #[test]
    fn extraction_table() {
        use Mechanism::{Anonymous, Jwt, ShopApiKey, WidgetToken};
        let (key, token, auth) = (&X_SHOP_API_KEY, &X_WIDGET_TOKEN, &AUTHORIZATION);
        for (fields, accepted, expected) in [
            (&[(key, &b"sk_1"[..])][..], &[ShopApiKey][..], "ShopApiKey(\"sk_1\")"),
            (&[], &[ShopApiKey], "missing_credential"),
            (&[(token, b"t")], &[ShopApiKey], "missing_credential"),
            (&[(token, b"t"), (key, b"k")], &[ShopApiKey], "ShopApiKey(\"k\")"),
            (&[(key, b"a"), (key, b"a")], &[ShopApiKey], "bad_request"),
            (&[(key, b"a"), (key, b"a")], &[WidgetToken], "missing_credential"),
            (&[(key, b"\xff")], &[ShopApiKey], "bad_request"),
            (&[(key, b"a\tb")], &[ShopApiKey], "bad_request"),
            (&[(key, b"")], &[ShopApiKey], "ShopApiKey(\"\")"),
            (&[(key, b"k"), (token, b"t")], &[ShopApiKey, WidgetToken], "bad_request"),
            (&[], &[Jwt, Anonymous], "Nothing"),
            (&[(auth, b"Basic x")], &[Jwt, Anonymous], "Authorization(\"Basic x\")"),
            (&[(auth, b"Basic x")], &[Anonymous], "Nothing"),
        ] {
            assert_eq!(check(fields, accepted), expected, "{fields:?} {accepted:?}");
        }
    }

    #[test]
    fn bearer_tokens() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("Bearer   abc", Some("abc")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearer a b", None),
            ("Basic abc", None),
            ("Bearerabc", None),
            ("", None),
        ] {
            assert_eq!(bearer_token(value), expected, "{value:?}");
        }
    }
}
