//! A shop's API keys: which there are, and making one.
//!
//! A secret is on the page that answers its creation and nowhere else: not in an address, not in a
//! message for the next page, and not on that page again when it is reloaded.

use askama::Template;

use super::super::once::Once;
use super::super::parse;
use super::super::snippets::{self, Gateway, Snippet};
use super::super::{Host, Segments, seen, sent_again};
use super::{Head, Tab, find, may_in};
use crate::admin::api::dto::{Key, KeyStatus};
use crate::admin::caller::Permission;
use crate::admin::dashboard::failure::Failure;
use crate::admin::dashboard::form::{Errors, Form, invalid, invalid_fields};
use crate::admin::dashboard::frame::Frame;
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::operations::keys::{self, KEYS_PER_SHOP_MAX, KeyFields};
use crate::admin::operations::{Created, Version};
use crate::clock::Timestamp;
use crate::id::ShopId;
use crate::store::{KeyRecord, ShopRecord};

/// A key of the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) href: String,
    pub(super) name: String,
    /// The secret's first characters.
    pub(super) start: String,
    pub(super) created: Timestamp,
    pub(super) last_used: Option<Timestamp>,
    /// Until when it verifies, by its expiry or by its grace.
    pub(super) until: Option<Timestamp>,
    pub(super) status: &'static str,
    /// Which colour the status has: `good`, `warn` or `bad`.
    pub(super) tone: &'static str,
    /// From where it may be used; empty: anywhere.
    pub(super) networks: String,
    pub(super) replaced_by: Option<String>,
}

impl Row {
    pub(super) fn of(record: &KeyRecord, now: Timestamp) -> Self {
        let key = Key::at(record.clone(), now);
        let (status, tone) = match key.status {
            KeyStatus::Active => ("Active", "good"),
            KeyStatus::Grace => ("Rotated, in grace", "warn"),
            KeyStatus::Rotated => ("Rotated", "bad"),
            KeyStatus::Expired => ("Expired", "bad"),
        };
        let networks: Vec<String> = record.networks.iter().map(ToString::to_string).collect();
        let until = [record.grace_until, record.expires_at].into_iter().flatten().min();
        Self {
            id: record.id.to_string(),
            href: format!("/shops/{}/keys/{}", record.shop, record.id),
            name: record.name.trim().to_owned(),
            start: record.start.clone(),
            created: record.created_at,
            last_used: record.last_used_at,
            until,
            status,
            tone,
            networks: networks.join(", "),
            replaced_by: record.replaced_by.map(|id| id.to_string()),
        }
    }
}

/// What a key's form holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyForm {
    pub(super) name: String,
    /// The last day on which it verifies.
    pub(super) expires: String,
    /// One a line.
    pub(super) networks: String,
    pub(super) revision: String,
}

impl KeyForm {
    pub(super) fn of(key: &KeyRecord) -> Self {
        let networks: Vec<String> = key.networks.iter().map(ToString::to_string).collect();
        Self {
            name: key.name.clone(),
            expires: parse::day_of(key.expires_at),
            networks: networks.join("\n"),
            revision: seen(Version::from(key)),
        }
    }

    pub(super) fn sent(form: &Form) -> Self {
        Self {
            name: form.text("name").to_owned(),
            expires: form.text("expires_at").to_owned(),
            networks: form.lines("networks").join("\n"),
            revision: form.text("revision").to_owned(),
        }
    }

    fn fields(&self) -> Result<KeyFields, Errors> {
        let expires_at = parse::last_day(&self.expires).map_err(|e| Errors::of("expires_at", e))?;
        let networks = self.networks.lines().map(str::to_owned).collect();
        Ok(KeyFields { name: self.name.clone(), expires_at, networks })
    }
}

#[derive(Template)]
#[template(path = "shop_keys.html")]
struct Page {
    frame: Frame,
    head: Head,
    rows: Vec<Row>,
    key: KeyForm,
    errors: Errors,
    /// Makes a form good for one key.
    once: String,
    may_write: bool,
    /// Whether there can be another.
    is_full: bool,
}

async fn shown(visit: &SignedIn, shop: &ShopRecord) -> Result<Page, Failure> {
    let id = shop.id;
    let found = visit
        .load(move |node, caller| keys::list(node, caller, &id, None, KEYS_PER_SHOP_MAX))
        .await?;
    let now = visit.node().now().unix;
    let mut keys = found.items;
    keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
    Ok(Page {
        frame: visit.frame(&Head::of(shop, Tab::Keys).title, "/shops"),
        head: Head::of(shop, Tab::Keys),
        is_full: keys.len() >= KEYS_PER_SHOP_MAX,
        rows: keys.iter().map(|key| Row::of(key, now)).collect(),
        key: KeyForm::default(),
        errors: Errors::default(),
        once: Once::fresh(visit.node())?.to_string(),
        may_write: may_in(visit, Permission::KeysWrite, &shop.id),
    })
}

/// `GET /shops/{shop}`
pub(in super::super) async fn list(visit: SignedIn, Segments(id): Segments<ShopId>) -> Answer {
    let shop = find(&visit, id).await?;
    page(&shown(&visit, &shop).await?)
}

/// `POST /shops/{shop}/keys`
pub(in super::super) async fn create(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    Host(host): Host,
    form: Form,
) -> Answer {
    let shop = find(&visit, id).await?;
    let sent = KeyForm::sent(&form);
    let fields = match sent.fields() {
        Ok(fields) => fields,
        Err(errors) => {
            let again = shown(&visit, &shop).await?;
            return invalid_fields(&Page { key: sent, errors, ..again });
        }
    };
    let once = Once::sent(&form);
    let made = visit.blocking(move |node, caller| {
        let asked = format!("key {id} {fields:?}");
        let idempotency = once.bind(node, caller, &asked);
        keys::create(node, caller, id, fields, idempotency.as_ref())
    });
    match made.await? {
        Ok(made) => page(&MadePage::of(&visit, &shop, made, host.as_deref(), None)),
        Err(error) => {
            let again = shown(&visit, &shop).await?;
            invalid(sent_again(error), |errors| Page { key: sent, errors, ..again })
        }
    }
}

/// What is said once of a new key.
#[derive(Template)]
#[template(path = "shop_key_made.html")]
pub(super) struct MadePage {
    frame: Frame,
    head: Head,
    key: Row,
    /// `None`: the form had been sent before, and the secret was shown then.
    secret: Option<String>,
    header: &'static str,
    snippets: Vec<Snippet>,
    remark: &'static str,
    /// Of a rotation: what becomes of the old key.
    old: Option<String>,
}

impl MadePage {
    pub(super) fn of(
        visit: &SignedIn,
        shop: &ShopRecord,
        made: Created<KeyRecord>,
        host: Option<&str>,
        old: Option<String>,
    ) -> Self {
        let node = visit.node();
        let config = node.config.load();
        let server = &config.server;
        let gateway = Gateway::guess(host, server.listen, server.tls.is_some());
        let path = snippets::path_for_key(&config.policies, &shop.id);
        let url = format!("{}{}", gateway.origin, path.unwrap_or_else(|| "/".to_owned()));
        let snippets = made.secret.as_ref().map(|secret| snippets::api_key(&url, secret));
        Self {
            frame: visit.frame("New API key", "/shops"),
            head: Head::of(shop, Tab::Keys),
            key: Row::of(&made.record, visit.node().now().unix),
            secret: made.secret.map(|secret| secret.expose().to_owned()),
            header: "X-Shop-API-Key",
            snippets: snippets.unwrap_or_default(),
            remark: gateway.remark,
            old,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::KeyId;
    use crate::secret::Digest;

    fn key() -> KeyRecord {
        KeyRecord {
            id: KeyId(0xab),
            shop: ShopId::parse("demo").unwrap(),
            name: String::new(),
            digest: Digest::from_bytes([7; 32]),
            start: "sk_3f9a".to_owned(),
            created_at: Timestamp::from_unix_s(1000),
            expires_at: None,
            grace_until: None,
            replaced_by: None,
            networks: Vec::new(),
            limits: Vec::new(),
            last_used_at: None,
            revision: 1,
        }
    }

    #[test]
    fn the_row_says_how_the_key_stands() {
        let at = Timestamp::from_unix_s;
        let now = at(5000);
        let standing = |expires, grace| {
            let key = KeyRecord { expires_at: expires, grace_until: grace, ..key() };
            let row = Row::of(&key, now);
            (row.status, row.until)
        };
        assert_eq!(standing(None, None), ("Active", None));
        assert_eq!(standing(Some(at(9000)), None), ("Active", Some(at(9000))));
        assert_eq!(standing(Some(at(5000)), None), ("Expired", Some(at(5000))));
        assert_eq!(standing(Some(at(9000)), Some(at(6000))), ("Rotated, in grace", Some(at(6000))));
        assert_eq!(standing(None, Some(at(4000))), ("Rotated", Some(at(4000))));
    }

    /// The form only speaks of days: a key that ends at noon still does after its name changed.
    #[test]
    fn forms_keep_what_they_do_not_change() {
        let noon = Timestamp::parse_rfc3339("2027-03-01T12:00:00Z").unwrap();
        let record = KeyRecord { expires_at: Some(noon), ..key() };
        assert_eq!(KeyForm::of(&record).expires, "2027-03-01");
        let midnight = KeyRecord { expires_at: parse::last_day("2027-03-01").unwrap(), ..key() };
        assert_eq!(KeyForm::of(&midnight).expires, "2027-03-01");
        let fields = KeyForm::of(&midnight).fields().unwrap();
        assert_eq!(fields.expires_at, Some(noon + Duration::from_secs(12 * 3600)));
        let wrong = KeyForm { expires: "soon".to_owned(), ..KeyForm::default() };
        assert!(wrong.fields().unwrap_err().get("expires_at").is_some());
    }
}
