//! The values of flags: how they are written, and what to write instead.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use crate::config::parse_duration;
use crate::id::Name;

/// Seconds, written as `90s`, `15m`, `24h` or `30d`.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let duration = parse_duration(text).filter(|d| *d >= Duration::from_secs(1));
    let whole = duration.filter(|d| d.subsec_millis() == 0).map(|d| d.as_secs());
    whole.ok_or_else(|| "write a number and a unit, such as 90s, 15m, 24h or 30d".into())
}

/// A header, written as `Name: value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Header {
    /// Its name.
    pub(in crate::cli) name: String,
    /// Its value.
    pub(in crate::cli) value: String,
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
        match parts {
            Some((name, value)) if http::HeaderName::from_str(name).is_ok() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            Some(_) | None => Err("write it as 'Name: value'".into()),
        }
    }
}

/// A limit of a shop's or a key's own, written as `POLICY=LIMIT/WINDOW` or
/// `POLICY=LIMIT/WINDOW,burst=N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct LimitSetting {
    /// The policy it overrides.
    pub(in crate::cli) policy: Name,
    /// Units per window.
    pub(in crate::cli) limit: u32,
    /// The window, in seconds.
    pub(in crate::cli) window_s: u64,
    /// Units at once; `None`: as many as `limit`.
    pub(in crate::cli) burst: Option<u32>,
}

impl FromStr for LimitSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = || "write it as POLICY=LIMIT/WINDOW, such as widget-search=500/1m".to_owned();
        let (policy, rest) = text.split_once('=').ok_or_else(example)?;
        let (rest, burst) = match rest.split_once(",burst=") {
            Some((rest, burst)) => (rest, Some(units(burst)?)),
            None => (rest, None),
        };
        let (limit, window) = rest.split_once('/').ok_or_else(example)?;
        Ok(Self {
            policy: Name::parse(policy).map_err(|e| e.to_string())?,
            limit: units(limit)?,
            window_s: seconds(window)?,
            burst,
        })
    }
}

fn units(text: &str) -> Result<u32, String> {
    let number: Result<NonZeroU32, _> = text.parse();
    number.map(NonZeroU32::get).map_err(|_| "a limit is a whole number from 1 up".into())
}

/// What an operator or an admin token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum RoleName {
    /// Everything, operators included
    Owner,
    /// Shops, keys, tokens and limits
    Operator,
    /// Look, and change nothing
    Viewer,
    /// Some shops only: their keys, tokens and traffic
    Member,
}

impl RoleName {
    /// Its name in the admin API.
    pub(in crate::cli) fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Member => "member",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [("90s", 90), ("15m", 900), ("24h", 86_400), ("30d", 2_592_000)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for bad in ["", "0s", "1", "1w", "-1s", "1.5h", "s", "500ms", "1s1s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers() {
        let header: Header = "Origin:  https://a.example:8443 ".parse().unwrap();
        assert_eq!((&*header.name, &*header.value), ("Origin", "https://a.example:8443"));
        for bad in ["", ":x", "a b: c", "x"] {
            assert!(bad.parse::<Header>().is_err(), "{bad}");
        }
    }

    #[test]
    fn limits() {
        let limit: LimitSetting = "widget-search=500/1m,burst=50".parse().unwrap();
        assert_eq!((limit.limit, limit.window_s, limit.burst), (500, 60, Some(50)));
        assert_eq!("a=1/1s".parse::<LimitSetting>().unwrap().burst, None);
        for bad in ["", "a", "a=1", "a=/1s", "a=1/", "A=1/1s", "a=0/1s", "a=1/1s,burst=0"] {
            assert!(bad.parse::<LimitSetting>().is_err(), "{bad}");
        }
    }
}
