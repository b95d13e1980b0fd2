//! A head is judged the same in whatever pieces it arrives; one that passes, the parser behind
//! reads with the same end, and a plain reader finds the same body. Chunked bodies likewise.
//!
//! Input: a byte that says where to cut, then a head, what follows it being its body.

#![no_main]

use latchkey::server::front::framing::{
    BodyFraming, ChunkScanner, Head, HeadBounds, HeadFault, HeadScanner,
};
use libfuzzer_sys::fuzz_target;

const BOUNDS: HeadBounds = HeadBounds { bytes: 512, fields: 16 };

fuzz_target!(|input: &[u8]| {
    let Some((step, bytes)) = input.split_first() else {
        return;
    };
    let step = usize::from(step % 32) + 1;
    let whole = HeadScanner::default().scan(bytes, BOUNDS);
    let judged = in_pieces(bytes, step);
    match (&whole, &judged) {
        // Too long may be seen before what is wrong further on.
        (Err(_), Err(_)) => {}
        _ => assert_eq!(whole, judged, "it depends on the pieces"),
    }
    let Ok(Some(head)) = whole else {
        return;
    };
    let mut fields = [httparse::EMPTY_HEADER; 17];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes).expect("the parser behind refuses it");
    assert_eq!(parsed, httparse::Status::Complete(head.len), "the parser sees another end");
    let named = |name: &'static str| {
        let is = move |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        request.headers.iter().filter(is).map(|field| field.value).collect::<Vec<_>>()
    };
    let (lengths, encodings) = (named("content-length"), named("transfer-encoding"));
    match head.body {
        BodyFraming::Chunked => {
            assert!(lengths.is_empty(), "a length beside chunks");
            assert_eq!(encodings.len(), 1);
            assert!(encodings[0].eq_ignore_ascii_case(b"chunked"));
            follow_chunks(&bytes[head.len..], step);
        }
        BodyFraming::Length(length) => {
            assert!(encodings.is_empty(), "chunks that were not seen");
            assert!(lengths.len() <= 1);
            let read = lengths.first().map_or(Some(0), |digits| {
                std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok())
            });
            assert_eq!(read, Some(length));
        }
    }
});

fn in_pieces(bytes: &[u8], step: usize) -> Result<Option<Head>, HeadFault> {
    let mut scanner = HeadScanner::default();
    let mut end = 0;
    loop {
        end = (end + step).min(bytes.len());
        match scanner.scan(&bytes[..end], BOUNDS) {
            Ok(None) if end < bytes.len() => {}
            judged => return judged,
        }
    }
}

/// The end of a chunked body does not depend on the pieces, and nothing after it counts.
fn follow_chunks(bytes: &[u8], step: usize) {
    let mut whole = ChunkScanner::new();
    let Ok(length) = whole.advance(bytes) else {
        return;
    };
    let mut pieces = ChunkScanner::new();
    let mut taken = 0;
    for piece in bytes.chunks(step) {
        taken += pieces.advance(piece).expect("whole, it was well-formed");
    }
    assert_eq!((length, whole), (taken, pieces));
    assert!(whole == ChunkScanner::Done || length == bytes.len());
}
