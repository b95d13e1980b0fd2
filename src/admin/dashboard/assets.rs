//! Styles, scripts and pictures: built into the binary, addressed by their digest, cached forever.

use std::fmt::Write as _;

use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::Site;

/// A file of the dashboard.
struct File {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

macro_rules! files {
    ($($name:literal: $kind:expr),+ $(,)?) => {
        [$(File {
            name: $name,
            kind: $kind,
            bytes: include_bytes!(concat!("assets/", $name)),
        }),+]
    };
}

/// All of them.
static FILES: [File; 13] = files! {
    "app.css": CSS,
    "app.js": JS,
    "copy.js": JS,
    "import.js": JS,
    "key.svg": SVG,
    "live.js": JS,
    "overview.js": JS,
    "pages.css": CSS,
    "refusals.js": JS,
    "setup.js": JS,
    "vendor/uplot/uPlot.iife.min.js": JS,
    "vendor/uplot/uPlot.min.css": CSS,
    "vendor/uplot/LICENSE": TEXT,
};

/// The addresses of the files.
#[derive(Debug)]
pub(super) struct Assets {
    /// Half the digest of all files: another release, other addresses.
    digest: String,
}

impl Assets {
    pub(super) fn new() -> Self {
        let mut all = ring::digest::Context::new(&ring::digest::SHA256);
        for file in &FILES {
            all.update(file.name.as_bytes());
            all.update(&u64::try_from(file.bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            all.update(file.bytes);
        }
        let mut digest = String::with_capacity(32);
        for byte in all.finish().as_ref().iter().take(16) {
            // Writing to a String does not fail.
            let _ = write!(digest, "{byte:02x}");
        }
        Self { digest }
    }

    /// Where `name` is served.
    pub(super) fn url(&self, name: &str) -> String {
        debug_assert!(FILES.iter().any(|file| file.name == name), "no asset {name}");
        format!("/assets/{}/{name}", self.digest)
    }
}

/// A file, if it is asked for by the digest of this release.
pub(super) async fn serve(
    State(site): State<Site>,
    Path((digest, name)): Path<(String, String)>,
) -> Response {
    let known = digest == site.assets.digest;
    let Some(file) = FILES.iter().find(|file| known && file.name == name) else {
        let headers = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        return (StatusCode::NOT_FOUND, headers, "There is no such file.\n").into_response();
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.kind));
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(CACHE_CONTROL, forever);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    (headers, file.bytes).into_response()
}
