//! Numbers, sizes, lengths of time and moments, as people read them. How long ago something was is
//! the frame's to say, which knows when its page was made.

use std::fmt::Display;

use crate::clock::Timestamp;

/// With a comma between thousands.
pub(super) fn count(number: impl Display + Copy) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// With as many places as tell something.
pub(super) fn decimal(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        n if n < 0.01 => "< 0.01".to_owned(),
        n if n < 10.0 => format!("{number:.2}"),
        n if n < 100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

/// A share of one.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        p if p < 0.1 => "< 0.1 %".to_owned(),
        p if p < 10.0 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

/// Seconds in the largest unit of which there is at least one, and the next.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds % 86_400 / 3600);
    let (minutes, rest) = (seconds % 3600 / 60, seconds % 60);
    let pair = |large: u64, unit: &str, small: u64, next: &str| {
        if small == 0 {
            format!("{large} {unit}")
        } else {
            format!("{large} {unit} {small} {next}")
        }
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => pair(minutes, "min", rest, "s"),
        (0, _, _) => pair(hours, "h", minutes, "min"),
        _ => pair(days, "d", hours, "h"),
    }
}

/// Of requests, shops and what else there are some or one of.
pub(super) fn counted(number: usize, one: &str) -> String {
    format!("{} {one}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A window of a limit, exactly: `1 minute`, `90 seconds`.
pub(super) fn exact_length(seconds: u64) -> String {
    let (count, name) = units(seconds);
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// How often something is: `day`, `6 hours`.
pub(super) fn every(seconds: u64) -> String {
    match units(seconds) {
        (1, name) => name.to_owned(),
        _ => exact_length(seconds),
    }
}

/// In the largest unit that fits exactly.
fn units(seconds: u64) -> (u64, &'static str) {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    let fits = |unit: u64| seconds > 0 && seconds.is_multiple_of(unit);
    let (unit, name) = units.into_iter().find(|(unit, _)| fits(*unit)).unwrap_or((1, "second"));
    (seconds / unit, name)
}

/// A number of bytes: `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| count >= *unit) else {
        return format!("{count} B");
    };
    let tenths = u128::from(count) * 10 / u128::from(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// When exactly, where that matters: `2027-01-31 12:30:05 UTC`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "templates pass references")]
pub(super) fn moment(at: &Timestamp) -> String {
    let text = at.to_string();
    match text.strip_suffix('Z').and_then(|text| text.split_once('T')) {
        Some((day, time)) => format!("{day} {time} UTC"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(number), expected);
        }
        for (number, expected) in
            [(0.0, "0"), (0.001, "< 0.01"), (0.5, "0.50"), (12.345, "12.3"), (12345.6, "12346")]
        {
            assert_eq!(decimal(number), expected);
        }
        for (share, expected) in
            [(0.0, "0 %"), (0.0001, "< 0.1 %"), (0.054, "5.4 %"), (0.99, "99 %"), (1.0, "100 %")]
        {
            assert_eq!(percent(share), expected);
        }
    }

    #[test]
    fn durations() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (90, "1 min 30 s"),
            (3600, "1 h"),
            (86_399, "23 h 59 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
        for (seconds, exact, often) in [
            (0, "0 seconds", "0 seconds"),
            (60, "1 minute", "minute"),
            (90, "90 seconds", "90 seconds"),
            (7200, "2 hours", "2 hours"),
            (86_400, "1 day", "day"),
        ] {
            assert_eq!((exact_length(seconds).as_str(), every(seconds).as_str()), (exact, often));
        }
    }

    #[test]
    fn things_and_sizes_and_moments() {
        assert_eq!(counted(1, "shop"), "1 shop");
        assert_eq!(counted(1200, "key"), "1,200 keys");
        assert_eq!(bytes(5), "5 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "17179869183.9 GiB");
        let at = Timestamp::parse_rfc3339("2027-01-31T12:30:05Z").unwrap();
        assert_eq!(moment(&at), "2027-01-31 12:30:05 UTC");
    }
}
