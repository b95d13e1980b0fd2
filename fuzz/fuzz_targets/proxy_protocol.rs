//! A PROXY header is read the same in whatever pieces it arrives, and reads no byte beyond its end.
//!
//! Input: the first bytes of a connection; `V2` at the start stands for the signature of version 2.

#![no_main]

use latchkey::server::front::proxy_protocol::{V1_BYTES_MAX, V2_BYTES_MAX, parse};
use libfuzzer_sys::fuzz_target;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fuzz_target!(|input: &[u8]| {
    let whole = input.strip_prefix(b"V2").map(|rest| [V2, rest].concat());
    let bytes = whole.as_deref().unwrap_or(input);
    match parse(bytes) {
        Ok(Some(header)) => {
            assert!(header.len <= bytes.len() && header.len <= V1_BYTES_MAX.max(V2_BYTES_MAX));
            for end in 0..header.len {
                assert_eq!(parse(&bytes[..end]), Ok(None), "complete at {end}");
            }
            assert_eq!(parse(&bytes[..header.len]), Ok(Some(header)));
            if let Some(source) = header.source {
                assert_eq!(source.ip(), source.ip().to_canonical());
            }
        }
        Ok(None) => {
            assert!(bytes.len() < V1_BYTES_MAX.max(V2_BYTES_MAX), "it would wait for ever");
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(None), "more bytes know less");
            }
        }
        // What is wrong stays wrong.
        Err(_) => assert!(parse(&[bytes, b"\r\n"].concat()).is_err()),
    }
});
