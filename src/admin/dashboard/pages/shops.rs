//! All shops: search, and making a new one.
//!
//! Which shops there are and who sees them is `operations::shops`' to say; this page holds no list
//! of its own.

use askama::Template;
use axum::extract::Query;
use serde::Deserialize;

use super::{figures, may, require, seen};
use crate::admin::caller::{Permission, Shops};
use crate::admin::dashboard::form::{Errors, Form, invalid, invalid_fields};
use crate::admin::dashboard::frame::{Flash, Frame};
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::operations::shops::{self, ShopFields};
use crate::admin::operations::{OperationError, Version};
use crate::admin::percent::encoded;
use crate::clock::Timestamp;
use crate::id::{NAME_BYTES_MAX, ShopId};
use crate::store::{ShopRecord, Words};

/// Shops on one page.
const PAGE: usize = 50;

/// What part of the list is wanted.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ListQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    after: String,
}

/// One shop of the list.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: String,
    name: String,
    url: String,
    enabled: bool,
    href: String,
    created: Timestamp,
}

impl Row {
    fn of(shop: &ShopRecord) -> Self {
        Self {
            id: shop.id.to_string(),
            name: shop.name.trim().to_owned(),
            url: shop.url.clone(),
            enabled: shop.enabled,
            href: format!("/shops/{}", shop.id),
            created: shop.created_at,
        }
    }
}

#[derive(Template)]
#[template(path = "shops.html")]
struct ListPage {
    frame: Frame,
    query: String,
    rows: Vec<Row>,
    /// Where the next page is.
    next: Option<String>,
    /// Where the first page is.
    first: String,
    /// Whether this page begins with the first shop there is.
    is_first: bool,
    may_create: bool,
    /// How many shops there are, for who sees them all.
    total: Option<String>,
}

/// `GET /shops`
pub(super) async fn list(visit: SignedIn, Query(query): Query<ListQuery>) -> Answer {
    let after = ShopId::parse(&query.after).ok();
    let wanted = query.q.trim().to_owned();
    let words = Words::parse(&wanted);
    let (found, next) = visit
        .at_leisure(move |node, caller| {
            if let Some(words) = words {
                let found = shops::search(node, caller, &words, after.as_ref(), PAGE)?;
                return Ok((found.shops, found.next));
            }
            let found = shops::list(node, caller, after.as_ref(), PAGE)?;
            let next = found.items.last().filter(|_| found.more).map(|last| last.id);
            Ok((found.items, next))
        })
        .await??;
    let sees_all = visit.caller().shops == Shops::All;
    let total = sees_all.then(|| figures::count(visit.node().published.load().counts().0));
    page(&ListPage {
        total: total.filter(|total| total != "0"),
        rows: found.iter().map(Row::of).collect(),
        next: next.map(|last| format!("/shops?q={}&after={last}", encoded(&wanted))),
        first: format!("/shops?q={}", encoded(&wanted)),
        is_first: after.is_none(),
        query: wanted,
        may_create: may(&visit, Permission::ShopsWrite),
        frame: visit.frame("Shops", "/shops"),
    })
}

/// What a shop's form holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ShopForm {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) url: String,
    /// One a line.
    pub(super) widget_origins: String,
    /// The shop's version when the form was made.
    pub(super) revision: String,
}

impl ShopForm {
    /// A shop as its form shows it.
    pub(super) fn of(shop: &ShopRecord) -> Self {
        Self {
            id: shop.id.to_string(),
            name: shop.name.clone(),
            url: shop.url.clone(),
            widget_origins: shop.widget_origins.join("\n"),
            revision: seen(Version::from(shop)),
        }
    }

    pub(super) fn sent(form: &Form) -> Self {
        let text = |name: &str| form.text(name).to_owned();
        Self {
            id: text("id"),
            name: text("name"),
            url: text("url"),
            widget_origins: form.lines("widget_origins").join("\n"),
            revision: text("revision"),
        }
    }

    /// A form as the operations take it.
    pub(super) fn fields(&self) -> ShopFields {
        ShopFields {
            name: self.name.clone(),
            url: self.url.clone(),
            widget_origins: self.widget_origins.lines().map(str::to_owned).collect(),
            enabled: true,
        }
    }
}

#[derive(Template)]
#[template(path = "shop_new.html")]
struct NewPage {
    frame: Frame,
    shop: ShopForm,
    errors: Errors,
}

fn new_page(visit: &SignedIn, shop: ShopForm, errors: Errors) -> NewPage {
    NewPage { frame: visit.frame("New shop", "/shops"), shop, errors }
}

/// `GET /new-shop`
pub(super) async fn new(visit: SignedIn) -> Answer {
    require(&visit, Permission::ShopsWrite)?;
    page(&new_page(&visit, ShopForm::default(), Errors::default()))
}

/// `POST /new-shop`
pub(super) async fn create(visit: SignedIn, form: Form) -> Answer {
    require(&visit, Permission::ShopsWrite)?;
    let mut sent = ShopForm::sent(&form);
    if sent.id.is_empty() {
        sent.id = suggested_id(&sent.name, &sent.url);
    }
    let fields = sent.fields();
    let Ok(id) = ShopId::parse(&sent.id) else {
        let mut errors = fields.validate().err().map(Errors::of_operation).transpose()?;
        errors.get_or_insert_default().add("id", ID_WANTED);
        return invalid_fields(&new_page(&visit, sent, errors.unwrap_or_default()));
    };
    let made = visit.blocking(move |node, caller| shops::create(node, caller, id, fields, None));
    match made.await? {
        Ok(_) => {
            let flash = Flash::good("The shop is there. Create its first API key.");
            Ok(visit.go(&format!("/shops/{id}"), flash))
        }
        Err(OperationError::Conflict(_)) => {
            let problem = "is taken by another shop; choose another";
            invalid_fields(&new_page(&visit, sent, Errors::of("id", problem)))
        }
        Err(error) => invalid(error, |errors| new_page(&visit, sent, errors)),
    }
}

const ID_WANTED: &str =
    "has to be 1 to 63 letters, digits, `-` or `_`, the first a letter or digit; not `me`";

/// An id made of a shop's name or, if that holds no letter we can use, of its site's host.
fn suggested_id(name: &str, url: &str) -> String {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    let from_name = slug(name);
    if from_name.is_empty() { slug(host.strip_prefix("www.").unwrap_or(host)) } else { from_name }
}

/// `text` in lower case with everything but letters and digits as single hyphens.
fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    let slug: String = slug.chars().take(NAME_BYTES_MAX).collect();
    if slug == "me" { "shop-me".to_owned() } else { slug.trim_end_matches('-').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggested_ids_are_ids() {
        for (name, url, id) in [
            ("Bob's Bikes", "https://bikes.example", "bob-s-bikes"),
            ("", "https://www.shop.example:8443/x", "shop-example"),
            ("自転車", "https://xn--x.example", "xn-x-example"),
            ("me", "", "shop-me"),
            ("--", "", ""),
        ] {
            assert_eq!(suggested_id(name, url), id);
            assert!(id.is_empty() || ShopId::parse(id).is_ok());
        }
        let long = suggested_id(&"ab ".repeat(60), "");
        assert!(ShopId::parse(&long).is_ok() && !long.ends_with('-'), "{long}");
    }
}
