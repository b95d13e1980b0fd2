//! One API key: change, rotate, revoke.

use std::time::Duration;

use askama::Template;

use super::super::once::Once;
use super::super::{Host, Segments, figures, parse, renamed, sent_again, unchanged_since};
use super::keys::{KeyForm, MadePage, Row};
use super::limits::Overrides;
use super::{Head, Meanwhile, Tab, find, may_in, meanwhile};
use crate::admin::caller::Permission;
use crate::admin::dashboard::failure::Failure;
use crate::admin::dashboard::form::{Errors, Form, invalid, invalid_fields};
use crate::admin::dashboard::frame::{Flash, Frame};
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::operations::keys::{self, KeyChanges};
use crate::admin::operations::{OperationError, Precondition};
use crate::id::{KeyId, ShopId};
use crate::store::KeyRecord;

/// How long the old key of a rotation stays good, as the form offers it.
const GRACES: [(&str, &str); 5] = [
    ("0s", "Refuse the old key at once"),
    ("1h", "Keep the old key for 1 hour"),
    ("24h", "Keep the old key for 24 hours"),
    ("7d", "Keep the old key for 7 days"),
    ("other", "Keep the old key for another time"),
];

/// What the rotation's form holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rotation {
    grace: String,
    /// Where `grace` is `other`.
    custom: String,
}

impl Rotation {
    fn sent(form: &Form) -> Self {
        Self { grace: form.text("grace").to_owned(), custom: form.text("custom").to_owned() }
    }

    /// For how long the old key stays good.
    fn length(&self) -> Result<Duration, Errors> {
        if self.grace == "other" {
            return parse::duration(&self.custom).map_err(|problem| Errors::of("custom", problem));
        }
        let known = GRACES.iter().any(|(value, _)| *value == self.grace);
        let length = parse::duration(&self.grace).ok().filter(|_| known);
        length.ok_or_else(|| Errors::of("grace", "has to be one of these"))
    }
}

#[derive(Template)]
#[template(path = "shop_key.html")]
pub(super) struct Page {
    frame: Frame,
    head: Head,
    row: Row,
    key: KeyForm,
    errors: Errors,
    /// What stands in the store where it differs from what was sent, after a change by others.
    meanwhile: Vec<Meanwhile>,
    is_outdated: bool,
    rotation: Rotation,
    graces: [(&'static str, &'static str); 5],
    rotation_errors: Errors,
    once: String,
    pub(super) limits: Overrides,
    may_write: bool,
    /// Whether there is anything left to rotate.
    may_rotate: bool,
}

/// The page of a key that the caller sees.
pub(super) async fn load(
    visit: &SignedIn,
    shop: ShopId,
    key: KeyId,
) -> Result<(Page, KeyRecord), Failure> {
    let record = visit.load(move |node, caller| keys::get(node, caller, &shop, key)).await?;
    let shop = find(visit, shop).await?;
    let now = visit.node().now().unix;
    let row = Row::of(&record, now);
    let title = if row.name.is_empty() { row.start.clone() } else { row.name.clone() };
    let may_limit = may_in(visit, Permission::LimitsWrite, &shop.id);
    let action = format!("{}/limits", row.href);
    let page = Page {
        frame: visit.frame(format!("Key {title}"), "/shops"),
        head: Head::of(&shop, Tab::Keys),
        key: KeyForm::of(&record),
        errors: Errors::default(),
        meanwhile: Vec::new(),
        is_outdated: false,
        rotation: Rotation { grace: "24h".to_owned(), custom: String::new() },
        graces: GRACES,
        rotation_errors: Errors::default(),
        once: Once::fresh(visit.node())?.to_string(),
        limits: Overrides::of(visit.node(), &record.limits, action, may_limit),
        may_write: may_in(visit, Permission::KeysWrite, &shop.id),
        may_rotate: record.replaced_by.is_none() && record.expires_at.is_none_or(|at| at > now),
        row,
    };
    Ok((page, record))
}

/// `GET /shops/{shop}/keys/{key}`
pub(in super::super) async fn show(
    visit: SignedIn,
    Segments((shop, key)): Segments<(ShopId, KeyId)>,
) -> Answer {
    page(&load(&visit, shop, key).await?.0)
}

/// `POST /shops/{shop}/keys/{key}`
pub(in super::super) async fn change(
    visit: SignedIn,
    Segments((shop, key)): Segments<(ShopId, KeyId)>,
    form: Form,
) -> Answer {
    let sent = KeyForm::sent(&form);
    let (again, stored) = load(&visit, shop, key).await?;
    let changes = match changes(&sent, &stored) {
        Ok(changes) => changes,
        Err(errors) => return invalid_fields(&Page { key: sent, errors, ..again }),
    };
    let condition = unchanged_since(&sent.revision)?;
    let changed = visit
        .blocking(move |node, caller| keys::patch(node, caller, &shop, key, changes, &condition))
        .await?;
    match changed {
        Ok(_) => {
            let flash = Flash::good("Saved. Decisions see the change already.");
            Ok(visit.go(&format!("/shops/{shop}/keys/{key}"), flash))
        }
        Err(OperationError::PreconditionFailed) => {
            let (again, _) = load(&visit, shop, key).await?;
            let meanwhile = differences(&sent, &again.key);
            // The next attempt is made knowing what is stored now.
            let sent = KeyForm { revision: again.key.revision.clone(), ..sent };
            invalid_fields(&Page { key: sent, meanwhile, is_outdated: true, ..again })
        }
        Err(error) => invalid(error, |errors| Page { key: sent, errors, ..again }),
    }
}

/// Where what was sent differs from what is stored.
fn differences(sent: &KeyForm, stored: &KeyForm) -> Vec<Meanwhile> {
    meanwhile(&[
        ("Name", &sent.name, &stored.name),
        ("Last day", &sent.expires, &stored.expires),
        ("Only from", &sent.networks, &stored.networks),
    ])
}

/// What is to be changed. The form speaks of days: one that stands as it was shown changes
/// nothing, whatever the hour at which the key ends.
fn changes(sent: &KeyForm, stored: &KeyRecord) -> Result<KeyChanges, Errors> {
    let expires_at = if sent.expires == parse::day_of(stored.expires_at) {
        None
    } else {
        let read = parse::last_day(&sent.expires);
        Some(read.map_err(|problem| Errors::of("expires_at", problem))?)
    };
    let networks = sent.networks.lines().map(str::to_owned).collect();
    Ok(KeyChanges { name: Some(sent.name.clone()), expires_at, networks: Some(networks) })
}

/// `POST /shops/{shop}/keys/{key}/rotate`
pub(in super::super) async fn rotate(
    visit: SignedIn,
    Segments((shop, key)): Segments<(ShopId, KeyId)>,
    Host(host): Host,
    form: Form,
) -> Answer {
    let (again, old) = load(&visit, shop, key).await?;
    let rotation = Rotation::sent(&form);
    let grace = match rotation.length() {
        Ok(grace) => grace,
        Err(rotation_errors) => {
            return invalid_fields(&Page { rotation, rotation_errors, ..again });
        }
    };
    let once = Once::sent(&form);
    let made = visit.blocking(move |node, caller| {
        let asked = format!("rotate {shop} {key} {grace:?}");
        let idempotency = once.bind(node, caller, &asked);
        keys::rotate(node, caller, &shop, key, grace, idempotency.as_ref())
    });
    match made.await? {
        Ok(made) => {
            let told = old_key(&old.start, grace);
            let shop = find(&visit, shop).await?;
            page(&MadePage::of(&visit, &shop, made, host.as_deref(), Some(told)))
        }
        Err(error) => {
            invalid(renamed(sent_again(error), |_| "custom".to_owned()), |rotation_errors| Page {
                rotation,
                rotation_errors,
                ..again
            })
        }
    }
}

/// What becomes of the old key.
fn old_key(start: &str, grace: Duration) -> String {
    if grace.is_zero() {
        return format!("The old key {start}… is refused from now on.");
    }
    let length = figures::exact_length(grace.as_secs());
    format!("The old key {start}… is accepted for another {length}, then refused.")
}

/// `POST /shops/{shop}/keys/{key}/revoke`
pub(in super::super) async fn revoke(
    visit: SignedIn,
    Segments((shop, key)): Segments<(ShopId, KeyId)>,
    _form: Form,
) -> Answer {
    let old = visit.load(move |node, caller| keys::get(node, caller, &shop, key)).await?;
    visit
        .load(move |node, caller| keys::delete(node, caller, &shop, key, &Precondition::none()))
        .await?;
    let flash =
        Flash::good(format!("The key {}… is revoked: it is refused from now on.", old.start));
    Ok(visit.go(&format!("/shops/{shop}"), flash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(grace: &str, custom: &str) -> Result<Duration, ()> {
        let rotation = Rotation { grace: grace.to_owned(), custom: custom.to_owned() };
        rotation.length().map_err(|_| ())
    }

    #[test]
    fn graces() {
        assert_eq!(rotation("0s", ""), Ok(Duration::ZERO));
        assert_eq!(rotation("7d", "1h"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(rotation("other", "36h"), Ok(Duration::from_secs(36 * 3600)));
        for (grace, custom) in [("other", ""), ("other", "soon"), ("", ""), ("2h", "")] {
            assert_eq!(rotation(grace, custom), Err(()), "{grace} {custom}");
        }
        assert!(old_key("sk_1", Duration::ZERO).contains("from now on"));
        assert!(old_key("sk_1", Duration::from_secs(3600)).contains("another 1 hour"));
    }
}
