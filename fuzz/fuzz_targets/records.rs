//! Bytes that a database may hold are a record or an error that quotes none of them; and a record,
//! stored and read again, is the same.
//!
//! Input: a byte that chooses the kind, then the stored bytes.

#![no_main]

use latchkey::store::records::{
    AdminTokenRecord, DecodeError, IdempotencyRecord, KeyRecord, KeySetRecord, Record, ShopRecord,
    TokenRecord,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 6 {
        0 => check::<ShopRecord>(bytes),
        1 => check::<KeyRecord>(bytes),
        2 => check::<TokenRecord>(bytes),
        3 => check::<KeySetRecord>(bytes),
        4 => check::<AdminTokenRecord>(bytes),
        _ => check::<IdempotencyRecord>(bytes),
    }
});

fn check<R: Record>(bytes: &[u8]) {
    match R::decode(bytes) {
        Ok(record) => {
            let stored = record.encode().expect("a record can be stored");
            let again = R::decode(&stored).expect("what was stored can be read");
            assert_eq!(again.encode().expect("again"), stored);
        }
        Err(DecodeError::Empty) => assert!(bytes.is_empty()),
        Err(DecodeError::Version(version)) => assert_eq!(bytes.first(), Some(&version)),
        Err(DecodeError::Malformed { .. }) => {}
    }
}
