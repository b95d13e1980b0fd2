//! One shop: what all its pages have in common.

pub(super) mod key;
pub(super) mod keys;
pub(super) mod limits;
pub(super) mod settings;
pub(super) mod tokens;
pub(super) mod traffic;

use crate::admin::caller::Permission;
use crate::admin::dashboard::failure::Failure;
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::operations::shops;
use crate::id::ShopId;
use crate::store::ShopRecord;

/// A page of a shop, as its tab is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tab {
    Keys,
    Tokens,
    Limits,
    Traffic,
    Settings,
}

impl Tab {
    const ALL: [Self; 5] = [Self::Keys, Self::Tokens, Self::Limits, Self::Traffic, Self::Settings];

    const fn title(self) -> &'static str {
        match self {
            Self::Keys => "API keys",
            Self::Tokens => "Widget tokens",
            Self::Limits => "Limits",
            Self::Traffic => "Traffic",
            Self::Settings => "Settings",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Keys => "",
            Self::Tokens => "/tokens",
            Self::Limits => "/limits",
            Self::Traffic => "/traffic",
            Self::Settings => "/settings",
        }
    }
}

/// A link to one of a shop's pages.
#[derive(Debug, PartialEq, Eq)]
struct TabLink {
    title: &'static str,
    href: String,
    current: bool,
}

/// The head of a shop's page.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    id: String,
    /// Its name or, without one, its id.
    title: String,
    url: String,
    enabled: bool,
    /// Where all its pages are.
    base: String,
    tabs: Vec<TabLink>,
}

impl Head {
    fn of(shop: &ShopRecord, current: Tab) -> Self {
        let base = format!("/shops/{}", shop.id);
        let link = |tab: Tab| TabLink {
            title: tab.title(),
            href: format!("{base}{}", tab.path()),
            current: tab == current,
        };
        let name = shop.name.trim();
        Self {
            id: shop.id.to_string(),
            title: if name.is_empty() { shop.id.to_string() } else { name.to_owned() },
            url: shop.url.clone(),
            enabled: shop.enabled,
            tabs: Tab::ALL.into_iter().map(link).collect(),
            base,
        }
    }
}

/// The shop that a page is about, if the caller sees it.
async fn find(visit: &SignedIn, shop: ShopId) -> Result<ShopRecord, Failure> {
    visit.load(move |node, caller| shops::get(node, caller, &shop)).await
}

/// Whether the caller may do this in `shop`.
fn may_in(visit: &SignedIn, permission: Permission, shop: &ShopId) -> bool {
    visit.caller().require_in(permission, shop).is_ok()
}

/// A field that somebody else has changed since a form was opened.
#[derive(Debug, PartialEq, Eq)]
struct Meanwhile {
    label: &'static str,
    stored: String,
}

/// Of fields with what was sent and what is stored, those that differ.
fn meanwhile(fields: &[(&'static str, &str, &str)]) -> Vec<Meanwhile> {
    let differs = fields.iter().filter(|(_, sent, stored)| sent != stored);
    let note = |(label, _, stored): &(&'static str, &str, &str)| Meanwhile {
        label,
        stored: if stored.is_empty() { "(nothing)".to_owned() } else { (*stored).to_owned() },
    };
    differs.map(note).collect()
}
