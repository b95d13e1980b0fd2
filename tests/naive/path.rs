//! A reader of request paths as plain as can be, to compare the real one with. Written from the
//! rules (RFC 3986 §3.3 and what no two servers may read differently), not from the code.

/// The decoded segments of `raw`; `None` where some server might read it another way.
pub(crate) fn segments(raw: &str) -> Option<Vec<String>> {
    let rest = raw.strip_prefix('/').filter(|_| raw.len() <= 4096)?;
    let encoded: Vec<&str> = rest.split('/').collect();
    let last = encoded.len() - 1;
    let mut segments = Vec::new();
    for (position, segment) in encoded.into_iter().enumerate() {
        if segment.is_empty() && position != last {
            return None;
        }
        let decoded = decode(segment)?;
        let (name, _parameters) = decoded.split_once(';').unwrap_or((&decoded, ""));
        if name == "." || name == ".." || (name.is_empty() && !decoded.is_empty()) {
            return None;
        }
        segments.push(decoded);
    }
    Some(segments)
}

fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                if !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                rest = rest.get(2..)?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
            }
            byte if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(byte) => {
                bytes.push(*byte);
            }
            _ => return None,
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let ambiguous = |c: char| matches!(c, '/' | '\\' | '%') || c.is_ascii_control();
    (!text.contains(ambiguous)).then_some(text)
}
