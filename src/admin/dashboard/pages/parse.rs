//! Single values of forms: days, lengths of time, numbers. Each refusal says what to write.
//!
//! Whether a value makes sense where it stands is the operation's to judge.

use std::time::Duration;

use time::{Date, Month};

use crate::clock::Timestamp;
use crate::config::parse_duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A day, `2027-01-31`, as the last one on which something is good: the first moment after it,
/// UTC. Nothing: never. An error says what to write.
pub(super) fn last_day(text: &str) -> Result<Option<Timestamp>, &'static str> {
    const WANTED: &str = "Write a day such as 2027-01-31, or leave it empty.";
    if text.is_empty() {
        return Ok(None);
    }
    let mut parts = text.split('-');
    let mut next = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits);
        part.filter(|part| part.bytes().all(|b| b.is_ascii_digit()))
    };
    let (year, month, day) = (next(4), next(2), next(2));
    let date = || {
        let month = Month::try_from(month?.parse::<u8>().ok()?).ok()?;
        Date::from_calendar_date(year?.parse().ok()?, month, day?.parse().ok()?).ok()
    };
    let date = date().filter(|_| parts.next().is_none()).ok_or(WANTED)?;
    let start = date.midnight().assume_utc().unix_timestamp();
    let start = u64::try_from(start).map_err(|_| "Write a day that lies ahead.")?;
    Ok(Some(Timestamp::from_unix_s(start) + DAY))
}

/// The inverse of [`last_day`]: the day that `at` ends, or the one in which it falls.
pub(super) fn day_of(at: Option<Timestamp>) -> String {
    let last = at.map(|at| at - Duration::from_millis(1));
    last.map(|at| at.to_string().chars().take(10).collect()).unwrap_or_default()
}

/// A length of time such as `90m` or `7d`. An error says what to write.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("Write a length of time such as 30m, 12h or 7d.")
}

/// A number of requests. An error says what to write.
pub(super) fn count(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "Write a whole number.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        for (text, at) in [
            ("", Some(None)),
            ("2027-01-31", Some(Some("2027-02-01T00:00:00Z"))),
            ("2028-02-29", Some(Some("2028-03-01T00:00:00Z"))),
            ("2027-02-29", None),
            ("2027-13-01", None),
            ("27-01-01", None),
            ("2027-1-1", None),
            ("2027-01-01-01", None),
            ("+027-01-01", None),
            ("1969-12-30", None),
            ("tomorrow", None),
            ("2027-01-01T00:00", None),
        ] {
            let read = last_day(text).ok().map(|at| at.map(|at| at.to_string()));
            assert_eq!(read, at.map(|at| at.map(str::to_owned)), "{text}");
            if let Ok(Some(at)) = last_day(text) {
                assert_eq!(day_of(Some(at)), text);
            }
        }
        assert_eq!(day_of(None), "");
    }

    #[test]
    fn lengths_and_counts() {
        assert_eq!(duration("90m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "90", "-1h", "1 week", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(count("12"), Ok(12));
        for wrong in ["", "1.5", "-1", "4294967296", "many"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
    }
}
