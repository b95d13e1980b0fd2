//! One line: how it is spelt, and what it means once every member has been looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::LINE_BYTES_MAX;
use crate::admin::operations::limits::{LimitFields, validate_with};
use crate::admin::operations::validate::Faults;
use crate::clock::Timestamp;
use crate::decision::api_key::{API_KEY_START_BYTES, is_well_formed};
use crate::decision::policy::Policies;
use crate::id::{KeyId, ShopId};
use crate::secret::{Digest, Pepper};
use crate::store::LimitRecord;

/// A line as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub(super) enum Line {
    /// What a file says of itself.
    #[serde(rename = "latchkey/1")]
    Head(Head),
    /// A shop.
    #[serde(rename = "shop/1")]
    Shop(ShopLine),
    /// A key.
    #[serde(rename = "key/1")]
    Key(KeyLine),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) exported_at: Timestamp,
    /// Tells the master key under which digests were made.
    pub(super) master_key_check: String,
    pub(super) version: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShopLine {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
    pub(super) url: String,
    #[serde(default)]
    pub(super) widget_origins: Vec<String>,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) limits: BTreeMap<String, LimitLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<Timestamp>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitLine {
    limit: u32,
    window_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyLine {
    pub(super) shop: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) name: String,
    /// The key itself.
    #[serde(default, skip_serializing)]
    pub(super) secret: Option<Hidden>,
    /// The SHA-256 of the key, in hex.
    #[serde(default, skip_serializing)]
    pub(super) sha256: Option<Hidden>,
    /// What a latchkey with the same master key keeps of the key, in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) start: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) grace_until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaced_by: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) networks: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) limits: BTreeMap<String, LimitLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_used_at: Option<Timestamp>,
}

/// A text that is not printed.
#[derive(Deserialize)]
#[serde(from = "String")]
pub(super) struct Hidden(Zeroizing<String>);

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

pub(super) fn limit_lines(records: &[LimitRecord]) -> BTreeMap<String, LimitLine> {
    let line = |record: &LimitRecord| {
        let LimitRecord { limit, window_s, burst, .. } = *record;
        (record.policy.to_string(), LimitLine { limit, window_seconds: window_s, burst })
    };
    records.iter().map(line).collect()
}

/// A digest as an export spells it.
pub(super) fn digest_text(digest: &Digest) -> String {
    URL_SAFE_NO_PAD.encode(digest.as_bytes())
}

/// A line that is what it should be.
pub(super) enum Entry {
    /// What the file says of itself.
    Head,
    Shop(ShopEntry),
    Key(KeyEntry),
}

/// A shop that is wanted.
#[derive(Debug)]
pub(super) struct ShopEntry {
    pub(super) id: ShopId,
    pub(super) name: String,
    pub(super) url: String,
    pub(super) widget_origins: Vec<String>,
    pub(super) enabled: bool,
    pub(super) limits: Vec<LimitRecord>,
    pub(super) created_at: Option<Timestamp>,
}

/// A key that is wanted.
#[derive(Debug)]
pub(super) struct KeyEntry {
    pub(super) shop: ShopId,
    pub(super) id: Option<KeyId>,
    pub(super) name: String,
    pub(super) digest: Digest,
    pub(super) start: Option<String>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) grace_until: Option<Timestamp>,
    pub(super) replaced_by: Option<KeyId>,
    pub(super) networks: Vec<IpNet>,
    pub(super) limits: Vec<LimitRecord>,
    pub(super) created_at: Option<Timestamp>,
    pub(super) last_used_at: Option<Timestamp>,
}

/// What lines are read against.
pub(super) struct Reader<'n> {
    pub(super) policies: &'n Policies,
    pub(super) pepper: &'n Pepper,
    pub(super) master_key_check: Digest,
    /// Whether a head was seen whose master key is ours.
    pub(super) digests_are_ours: bool,
}

impl Reader<'_> {
    /// What a line means; or what is wrong with it, each fault by itself.
    pub(super) fn read(&mut self, line: &[u8]) -> Result<Entry, Vec<String>> {
        if line.len() > LINE_BYTES_MAX {
            return Err(vec![format!("the line is longer than {LINE_BYTES_MAX} bytes")]);
        }
        let line = serde_json::from_slice(line).map_err(|error| vec![spelling(&error)])?;
        let entry = match line {
            Line::Head(head) => {
                let ours = decode(&head.master_key_check);
                self.digests_are_ours = ours == Some(self.master_key_check);
                return Ok(Entry::Head);
            }
            Line::Shop(shop) => self.shop(shop).map(Entry::Shop),
            Line::Key(key) => self.key(key).map(Entry::Key),
        };
        entry.map_err(Faults::lines)
    }

    fn shop(&self, line: ShopLine) -> Result<ShopEntry, Faults> {
        let mut faults = Faults::default();
        let id = ShopId::parse(&line.id).map_err(|error| faults.add("id", error.to_string()));
        faults.name("name", &line.name, true);
        faults.url("url", &line.url);
        faults.widget_origins("widget_origins", &line.widget_origins);
        let limits = self.limits(&line.limits, &mut faults);
        let ShopLine { name, url, widget_origins, enabled, created_at, .. } = line;
        match id {
            Ok(id) if faults.is_empty() => {
                Ok(ShopEntry { id, name, url, widget_origins, enabled, limits, created_at })
            }
            Ok(_) | Err(()) => Err(faults),
        }
    }

    fn key(&self, line: KeyLine) -> Result<KeyEntry, Faults> {
        let mut faults = Faults::default();
        let shop = ShopId::parse(&line.shop).map_err(|e| faults.add("shop", e.to_string()));
        let id = line.id.as_deref().map(KeyId::parse).transpose();
        let id = id.map_err(|error| faults.add("id", error.to_string()));
        faults.name("name", &line.name, true);
        let digest = self.digest(&line, &mut faults);
        let networks = faults.networks("networks", &line.networks);
        let limits = self.limits(&line.limits, &mut faults);
        let start = match &line.secret {
            Some(secret) => Some(secret.0.chars().take(API_KEY_START_BYTES).collect()),
            None => line.start,
        };
        if let Some(start) = &start
            && (start.len() > API_KEY_START_BYTES || !start.bytes().all(|b| b.is_ascii_graphic()))
        {
            let problem = format!("is not up to {API_KEY_START_BYTES} characters of a key");
            faults.add("start", problem);
        }
        match (shop, id, digest) {
            (Ok(shop), Ok(id), Some(digest)) if faults.is_empty() => Ok(KeyEntry {
                shop,
                id,
                name: line.name,
                digest,
                start,
                expires_at: line.expires_at,
                grace_until: line.grace_until,
                replaced_by: line.replaced_by,
                networks,
                limits,
                created_at: line.created_at,
                last_used_at: line.last_used_at,
            }),
            _ => Err(faults),
        }
    }

    fn digest(&self, line: &KeyLine, faults: &mut Faults) -> Option<Digest> {
        match (&line.secret, &line.sha256, &line.digest) {
            (Some(secret), None, None) if is_well_formed(&secret.0) => {
                Some(self.pepper.digest(secret.0.as_bytes()))
            }
            (Some(_), None, None) => {
                faults.add("secret", "is no key: `sk_` and 32 lowercase hex digits");
                None
            }
            (None, Some(hex), None) => {
                let bytes = from_hex(&hex.0);
                if bytes.is_none() {
                    faults.add("sha256", "is not a SHA-256: 64 hex digits");
                }
                bytes.map(|bytes| self.pepper.digest_of_sha256(&*bytes))
            }
            (None, None, Some(_)) if !self.digests_are_ours => {
                let problem = "means nothing here: it was made under another master key, or the \
                               first line of the export is missing";
                faults.add("digest", problem);
                None
            }
            (None, None, Some(text)) => {
                let digest = decode(text);
                if digest.is_none() {
                    faults.add("digest", "is not a digest of an export");
                }
                digest
            }
            _ => {
                faults.add("secret", "give one of `secret`, `sha256` and `digest`");
                None
            }
        }
    }

    fn limits(&self, lines: &BTreeMap<String, LimitLine>, faults: &mut Faults) -> Vec<LimitRecord> {
        let fields: Vec<LimitFields> = lines
            .iter()
            .map(|(policy, line)| LimitFields {
                policy: policy.clone(),
                limit: line.limit,
                window: Duration::from_secs(line.window_seconds),
                burst: line.burst,
            })
            .collect();
        validate_with(self.policies, &fields, faults)
    }
}

fn decode(text: &str) -> Option<Digest> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    <[u8; 32]>::try_from(bytes).ok().map(Digest::from_bytes)
}

fn from_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    let mut digits = text.chars().map(|digit| digit.to_digit(16));
    for byte in bytes.iter_mut() {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}

/// What serde says, without the values it repeats: one may be a secret in the wrong place.
fn spelling(error: &serde_json::Error) -> String {
    if !error.is_data() {
        return format!("is not JSON (column {})", error.column());
    }
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    let names = ["missing field", "unknown field", "duplicate field"];
    if names.iter().any(|known| text.starts_with(known)) && !text.contains("sk_") {
        return text.to_owned();
    }
    if text.starts_with("unknown variant") || text.contains("tag") {
        return "its `type` is none of `latchkey/1`, `shop/1` and `key/1`".to_owned();
    }
    let expected = text.rsplit_once("expected ").map_or("something else", |(_, expected)| expected);
    format!("a member is of the wrong kind (expected {expected})")
}
