//! Whatever a caller says about its trace: it is taken exactly when a plain reader of the grammar
//! takes it, what is told on is well-formed, and a state that is passed on is within its bounds.
//!
//! Input: one `traceparent` field per line, then an empty line, then one `tracestate` per line.

#![no_main]

use latchkey::trace::context::{Parent, is_passable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').take(100).collect();
    let (parents, states) = match lines.iter().position(|line| line.is_empty()) {
        Some(at) => (&lines[..at], &lines[at + 1..]),
        None => (&lines[..], &[][..]),
    };
    let found = Parent::of(parents.iter().copied());
    let sound = parents.len() == 1 && reads(parents[0]);
    assert_eq!(found.is_some(), sound, "{parents:?}");
    if let Some(parent) = found {
        let value = parent.write();
        assert_eq!(Parent::parse(&value), Some(parent));
        let theirs = parents[0];
        assert_eq!(&value[..3], b"00-");
        assert_eq!(value[3..53], theirs[3..53], "ids are told on as they came");
        let digit = |byte: u8| char::from(byte).to_digit(16).expect("a digit");
        assert_eq!(digit(value[54]), digit(theirs[54]) & 3, "and no flag that nobody knows");
        assert_eq!(value[53], b'0');
    }
    if is_passable(states.iter().copied()) {
        let joined = states.join(&b',');
        assert!(joined.len() <= 512 + states.len(), "empty fields cost a comma here");
        assert!(joined.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')));
        let members = joined.split(|byte| *byte == b',');
        let members: Vec<&[u8]> =
            members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()).collect();
        assert!(members.len() <= 32);
        let mut keys: Vec<&[u8]> = Vec::new();
        for member in members {
            let mut halves = member.split(|byte| *byte == b'=');
            let (key, value) = (halves.next().expect("a key"), halves.next().expect("a value"));
            assert!(halves.next().is_none() && !key.is_empty() && !value.is_empty());
            assert!(!keys.contains(&key));
            keys.push(key);
        }
    }
});

/// The grammar, place by place.
fn reads(value: &[u8]) -> bool {
    let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let is_dash = |at: usize| value.get(at) == Some(&b'-');
    let is_hex = |from: usize, to: usize| value.get(from..to).is_some_and(|t| t.iter().all(lower));
    let not_zero = |from: usize, to: usize| value[from..to].iter().any(|byte| *byte != b'0');
    let version = value.get(..2);
    is_hex(0, 2)
        && version != Some(b"ff")
        && is_dash(2)
        && is_hex(3, 35)
        && not_zero(3, 35)
        && is_dash(35)
        && is_hex(36, 52)
        && not_zero(36, 52)
        && is_dash(52)
        && is_hex(53, 55)
        && (value.len() == 55 || (version != Some(b"00") && is_dash(55)))
}
