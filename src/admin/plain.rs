//! A page of text, for what has to be said where the dashboard is not: to browsers under a name
//! that is not known, and on the way from a provider that operators sign in with.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

/// Nothing is loaded, run or framed.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'";

/// A page that says `title` and `text`.
pub(in crate::admin) fn page(status: StatusCode, title: &str, text: &str) -> Response {
    answer(status, title, "", &format!("<p>{}</p>", escaped(text)))
}

/// A page that goes on to `path`, a path of ours, by itself.
///
/// Not a redirect: a browser that was sent here by another site goes on counting as sent by it
/// through all redirects, and keeps cookies that are `SameSite=Strict` to itself. What this page
/// loads, our own page asks for.
pub(in crate::admin) fn onward(path: &str, title: &str) -> Response {
    let path = escaped(path);
    let refresh = format!("<meta http-equiv=\"refresh\" content=\"0;url={path}\">");
    answer(StatusCode::OK, title, &refresh, &format!("<p><a href=\"{path}\">Continue</a></p>"))
}

fn answer(status: StatusCode, title: &str, head: &str, body: &str) -> Response {
    let title = escaped(title);
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n{head}\n\
         <title>{title} · latchkey</title>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    );
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    (status, headers, page).into_response()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(escaped("a<b>&\"'é"), "a&lt;b&gt;&amp;&quot;&#39;é");
        assert_eq!(page(StatusCode::NOT_FOUND, "a", "b").status(), 404);
    }
}
