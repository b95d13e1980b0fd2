//! Paths are read as a plain reader reads them, or refused; what is accepted has one reading.
//!
//! Input: a path, then optionally a newline and a pattern.

#![no_main]

use latchkey::decision::route::{CanonicalPath, PATH_BYTES_MAX, PathPattern};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/naive/path.rs"]
mod naive;

fuzz_target!(|input: &str| {
    let (raw, pattern) = input.split_once('\n').unwrap_or((input, "/api/shops/{shopId}/*"));
    let parsed = CanonicalPath::parse(raw).ok();
    let segments = naive::segments(raw);
    assert_eq!(parsed.is_some(), segments.is_some(), "accepted by one reader only: {raw:?}");
    let (Some(path), Some(segments)) = (parsed, segments) else {
        return;
    };
    let text = path.as_str();
    assert_eq!(text, format!("/{}", segments.join("/")), "{raw:?}");
    assert!(text.len() <= PATH_BYTES_MAX && !text.contains(['%', '\\']));
    assert!(!text.chars().any(|c| c.is_ascii_control()), "{raw:?}");
    assert!(!text.contains("//") && !text.split('/').any(|s| s == "." || s == ".."), "{raw:?}");
    // Read again, as an upstream that decodes once more would, it is the same path.
    if let Ok(again) = CanonicalPath::parse(text) {
        assert_eq!(again, path, "{raw:?}");
    }
    let Ok(pattern) = PathPattern::parse(pattern) else {
        return;
    };
    if let Some(matched) = pattern.matches(&path) {
        assert_eq!(matched.shop.is_some(), pattern.names_shop());
        let shop = matched.shop.unwrap_or("x");
        assert!(!shop.is_empty() && segments.iter().any(|s| s == shop) || shop == "x");
    }
});
