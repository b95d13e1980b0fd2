//! Whatever a browser, or a page on a neighbouring name, sends as cookies: ours is found exactly
//! when a plain reader finds it exactly once.
//!
//! Input: the name, a newline, then one `Cookie` field per line.

#![no_main]

use http::header::{COOKIE, HeaderMap, HeaderValue};
use latchkey::admin::cookie::cookie;
use libfuzzer_sys::fuzz_target;

/// What is looked at at most; more is refused as a whole.
const BYTES_MAX: usize = 16 * 1024;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let Some(Ok(name)) = lines.next().map(std::str::from_utf8) else {
        return;
    };
    let mut headers = HeaderMap::new();
    let mut fields = Vec::new();
    for line in lines.take(1000) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, value);
            fields.push(line);
        }
    }
    let found = cookie(&headers, name);
    if fields.iter().map(|field| field.len()).sum::<usize>() > BYTES_MAX {
        assert_eq!(found, None);
        return;
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let trim = |bytes: &[u8]| {
        let start = bytes.iter().take_while(|byte| blank(byte)).count();
        let end = bytes[start..].iter().rev().take_while(|byte| blank(byte)).count();
        bytes[start..bytes.len() - end].to_vec()
    };
    let mut values = Vec::new();
    for field in fields {
        for pair in field.split(|byte| *byte == b';') {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            if let (Some(own), Some(value)) = (halves.next(), halves.next())
                && trim(own) == name.as_bytes()
            {
                values.push(trim(value));
            }
        }
    }
    match values.as_slice() {
        [value] if value.is_ascii() => assert_eq!(found.map(str::as_bytes), Some(&value[..])),
        _ => assert_eq!(found, None),
    }
});
