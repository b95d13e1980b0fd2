//! What surrounds every page: navigation, who is signed in, a message, addresses of assets.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::assets::Assets;
use crate::admin::caller::{Caller, Permission};
use crate::clock::Timestamp;

/// An item of the navigation.
#[derive(Debug)]
struct Item {
    href: &'static str,
    label: &'static str,
    icon: &'static str,
    seen: Seen,
}

/// Groups of the navigation, and who sees their items. Leaving an item out is a courtesy: what a
/// caller may do is checked by the operations.
static NAV: [(&str, &[Item]); 3] = [
    (
        "Traffic",
        &[
            item("/", "Overview", "overview", Seen::ByAll),
            item("/refusals", "Live refusals", "refusals", Seen::With(Permission::EventsRead)),
            item("/explore", "Decision explorer", "explore", Seen::With(Permission::Explain)),
        ],
    ),
    (
        "Access",
        &[
            item("/shops", "Shops", "shops", Seen::With(Permission::ShopsRead)),
            item("/policies", "Policies", "policies", Seen::With(Permission::NodeRead)),
            item("/issuers", "Identity providers", "issuers", Seen::With(Permission::IssuersRead)),
        ],
    ),
    (
        "Node",
        &[
            item("/operators", "Operators", "operators", Seen::With(Permission::OperatorsRead)),
            item("/tokens", "Admin tokens", "tokens", Seen::With(Permission::AdminTokensRead)),
            item("/audit", "Audit log", "audit", Seen::With(Permission::AuditRead)),
            item("/backups", "Backups", "backups", Seen::With(Permission::BackupsRead)),
            item("/api", "API", "api", Seen::ByAll),
            item("/about", "About", "about", Seen::With(Permission::NodeRead)),
        ],
    ),
];

/// Who sees an item.
#[derive(Debug)]
enum Seen {
    ByAll,
    With(Permission),
}

const fn item(href: &'static str, label: &'static str, icon: &'static str, seen: Seen) -> Item {
    Item { href, label, icon, seen }
}

/// An item of a page's navigation.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) href: &'static str,
    pub(super) label: &'static str,
    pub(super) icon: &'static str,
    pub(super) current: bool,
}

/// Who is signed in, as pages show it.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pub(super) name: String,
    pub(super) role: &'static str,
}

/// What surrounds a page. Templates have it as `frame`.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) title: String,
    /// The item of the navigation it belongs to.
    pub(super) place: String,
    pub(super) who: Option<Who>,
    pub(super) nav: Vec<(&'static str, Vec<Link>)>,
    /// What its forms have to carry.
    pub(super) csrf: String,
    pub(super) flash: Option<Flash>,
    /// When the page was made.
    pub(super) now: Timestamp,
    assets: Arc<Assets>,
}

impl Frame {
    pub(super) fn new(
        title: String,
        place: &str,
        caller: Option<&Caller>,
        csrf: String,
        flash: Option<Flash>,
        assets: Arc<Assets>,
        now: Timestamp,
    ) -> Self {
        let who = caller.map(|c| Who { name: c.name.clone(), role: c.role.as_str() });
        let nav = caller.map_or_else(Vec::new, |caller| navigation(caller, place));
        let place = place.to_owned();
        Self { title, place, who, nav, csrf, flash, now, assets }
    }

    /// The address of an asset.
    pub(super) fn asset(&self, name: &str) -> String {
        self.assets.url(name)
    }

    /// How long ago or ahead `at` is, in words.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "templates pass references")]
    pub(super) fn ago(&self, at: &Timestamp) -> String {
        relative(self.now, *at)
    }
}

fn navigation(caller: &Caller, place: &str) -> Vec<(&'static str, Vec<Link>)> {
    let link = |item: &Item| Link {
        href: item.href,
        label: item.label,
        icon: item.icon,
        current: item.href == place,
    };
    NAV.iter()
        .map(|(group, items)| {
            let seen = items.iter().filter(|item| match item.seen {
                Seen::ByAll => true,
                Seen::With(permission) => caller.may(permission),
            });
            (*group, seen.map(link).collect::<Vec<_>>())
        })
        .filter(|(_, links)| !links.is_empty())
        .collect()
}

/// `3 minutes ago`, `in 2 hours`; from two months on the date says more.
fn relative(now: Timestamp, at: Timestamp) -> String {
    let ahead = at > now;
    let seconds = if ahead { at.since(now) } else { now.since(at) }.as_secs();
    let (count, unit) = match seconds {
        _ if !ahead && seconds < 10 => return "just now".to_owned(),
        0 => return "now".to_owned(),
        1..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..5_184_000 => (seconds / 86_400, "day"),
        _ => return at.to_string().split('T').next().unwrap_or_default().to_owned(),
    };
    let plural = if count == 1 { "" } else { "s" };
    if ahead { format!("in {count} {unit}{plural}") } else { format!("{count} {unit}{plural} ago") }
}

/// A message for the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flash {
    /// Whether it is good news.
    pub(super) good: bool,
    pub(super) text: String,
}

/// Longest message.
const FLASH_BYTES_MAX: usize = 600;

impl Flash {
    /// Something was done.
    pub(super) fn good(text: impl Into<String>) -> Self {
        Self { good: true, text: text.into() }
    }

    /// Something was not.
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self { good: false, text: text.into() }
    }

    /// As a cookie's value.
    pub(super) fn to_cookie(&self) -> String {
        let kind = if self.good { 'g' } else { 'b' };
        let mut text = String::from(kind);
        for c in self.text.chars().take_while({
            let mut bytes = 1;
            move |c: &char| {
                bytes += c.len_utf8();
                bytes <= FLASH_BYTES_MAX
            }
        }) {
            text.push(c);
        }
        URL_SAFE_NO_PAD.encode(text)
    }

    /// From a cookie's value.
    pub(super) fn from_cookie(value: &str) -> Option<Self> {
        if value.len() > FLASH_BYTES_MAX * 2 {
            return None;
        }
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
        let (good, text) = match text.strip_prefix('g') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('b')?),
        };
        Some(Self { good, text: text.to_owned() })
    }
}

/// Whether two texts are the same, whoever owns them.
pub(super) fn same<A: AsRef<str> + ?Sized, B: AsRef<str> + ?Sized>(a: &A, b: &B) -> bool {
    a.as_ref() == b.as_ref()
}

/// A text, parted at its backticks: what stands between two of them is code.
pub(super) fn spans(text: &str) -> Vec<(bool, &str)> {
    if text.matches('`').count() % 2 == 1 {
        return vec![(false, text)];
    }
    let parts = text.split('`').zip([false, true].into_iter().cycle());
    parts.filter(|(part, _)| !part.is_empty()).map(|(part, is_code)| (is_code, part)).collect()
}

/// Where to go after a sign-in: only a place of this site, told by its path.
pub(super) fn next_of(query: &str) -> Option<&str> {
    let local = query.starts_with('/') && !query.starts_with("//") && !query.starts_with("/\\");
    let plain = query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    (local && plain && query.len() <= 2000).then_some(query)
}

/// The value of `name` in a query; empty if it is not there or cannot be read.
pub(super) fn query_value(query: Option<&str>, name: &str) -> String {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    found.next().and_then(decoded).unwrap_or_default()
}

/// `%41` and `+` undone.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                // It would take a sign, too.
                if digits.starts_with('+') {
                    return None;
                }
                u8::from_str_radix(digits, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}
