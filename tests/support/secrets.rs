//! Every secret that a test run mints, and every byte in which none may be found.
//!
//! Whatever the binary writes where secrets do not belong (logs, metrics, errors, the database)
//! is handed to [`saw`]; whatever it hands out as a secret is collected by [`collect`]. A secret
//! is looked for in all that was seen before and in all that is seen after.

use std::sync::{Mutex, PoisonError};

use super::http::Response;

struct Watch {
    secrets: Vec<String>,
    seen: Vec<Vec<u8>>,
    /// What was found; a reader thread that finds something cannot fail its test by itself.
    leaks: Vec<String>,
}

static WATCH: Mutex<Watch> =
    Mutex::new(Watch { secrets: Vec::new(), seen: Vec::new(), leaks: Vec::new() });

pub(crate) fn contains(haystack: &[u8], needle: &str) -> bool {
    memchr::memmem::find(haystack, needle.as_bytes()).is_some()
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(2000).collect()
}

/// Registers a secret.
pub(crate) fn minted(secret: &str) {
    assert!(secret.len() >= 16, "too short to look for: {secret}");
    let mut watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let leak = watch.seen.iter().find(|bytes| contains(bytes, secret)).map(|b| shown(b));
    watch.leaks.extend(leak);
    watch.secrets.push(secret.to_owned());
}

/// Registers what an answer hands out.
pub(crate) fn collect(response: &Response) {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(&response.body) else { return };
    for name in ["secret", "token"] {
        if let Some(secret) = body[name].as_str() {
            minted(secret);
        }
    }
}

/// Takes note of bytes in which no secret may stand.
pub(crate) fn saw(bytes: &[u8]) {
    let mut watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
    if watch.secrets.iter().any(|secret| contains(bytes, secret)) {
        watch.leaks.push(shown(bytes));
    }
    watch.seen.push(bytes.to_vec());
}

/// Fails if a secret was found anywhere so far.
pub(crate) fn assert_none_leaked() {
    let leaks = WATCH.lock().unwrap_or_else(PoisonError::into_inner).leaks.clone();
    assert!(leaks.is_empty(), "secrets stand in: {leaks:#?}");
}

/// How many secrets were minted and how many bytes were searched so far.
pub(crate) fn tally() -> (usize, usize) {
    let watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
    (watch.secrets.len(), watch.seen.iter().map(Vec::len).sum())
}
