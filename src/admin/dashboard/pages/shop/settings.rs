//! A shop's own fields: change, switch off and on, delete.

use askama::Template;

use super::super::shops::ShopForm;
use super::super::{Segments, may, require, unchanged_since};
use super::{Head, Meanwhile, Tab, find, may_in, meanwhile};
use crate::admin::caller::Permission;
use crate::admin::dashboard::form::{Errors, Form, invalid, invalid_fields};
use crate::admin::dashboard::frame::{Flash, Frame};
use crate::admin::dashboard::visit::SignedIn;
use crate::admin::dashboard::{Answer, page};
use crate::admin::operations::shops::{self, ShopChanges};
use crate::admin::operations::{OperationError, Precondition};
use crate::clock::Timestamp;
use crate::id::ShopId;
use crate::store::ShopRecord;

#[derive(Template)]
#[template(path = "shop_settings.html")]
struct Page {
    frame: Frame,
    head: Head,
    shop: ShopForm,
    errors: Errors,
    /// What stands in the store where it differs from what was sent, after a change by others.
    meanwhile: Vec<Meanwhile>,
    is_outdated: bool,
    farewell: Errors,
    created: Timestamp,
    updated: Timestamp,
    may_write: bool,
    may_delete: bool,
}

fn shown(visit: &SignedIn, shop: &ShopRecord) -> Page {
    Page {
        frame: visit.frame("Settings", "/shops"),
        head: Head::of(shop, Tab::Settings),
        shop: ShopForm::of(shop),
        errors: Errors::default(),
        meanwhile: Vec::new(),
        is_outdated: false,
        farewell: Errors::default(),
        created: shop.created_at,
        updated: shop.updated_at,
        may_write: may_in(visit, Permission::ShopsWrite, &shop.id),
        may_delete: may(visit, Permission::ShopsWrite),
    }
}

/// `GET /shops/{shop}/settings`
pub(in super::super) async fn show(visit: SignedIn, Segments(id): Segments<ShopId>) -> Answer {
    let shop = find(&visit, id).await?;
    page(&shown(&visit, &shop))
}

/// `POST /shops/{shop}/settings`
pub(in super::super) async fn change(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    form: Form,
) -> Answer {
    let sent = ShopForm::sent(&form);
    let condition = unchanged_since(&sent.revision)?;
    let fields = sent.fields();
    let changes = ShopChanges {
        name: Some(fields.name),
        url: Some(fields.url),
        widget_origins: Some(fields.widget_origins),
        enabled: None,
    };
    let changed = visit
        .blocking(move |node, caller| shops::patch(node, caller, id, changes, &condition))
        .await?;
    let Err(error) = changed else {
        let flash = Flash::good("Saved. Decisions see the change already.");
        return Ok(visit.go(&format!("/shops/{id}/settings"), flash));
    };
    let shop = find(&visit, id).await?;
    let again = shown(&visit, &shop);
    if let OperationError::PreconditionFailed = error {
        let meanwhile = differences(&sent, &again.shop);
        // The next attempt is made knowing what is stored now.
        let sent = ShopForm { revision: again.shop.revision.clone(), ..sent };
        return invalid_fields(&Page { shop: sent, meanwhile, is_outdated: true, ..again });
    }
    invalid(error, |errors| Page { shop: sent, errors, ..again })
}

/// Where what was sent differs from what is stored.
fn differences(sent: &ShopForm, stored: &ShopForm) -> Vec<Meanwhile> {
    meanwhile(&[
        ("Name", &sent.name, &stored.name),
        ("Site", &sent.url, &stored.url),
        ("Widget origins", &sent.widget_origins, &stored.widget_origins),
    ])
}

/// `POST /shops/{shop}/enable`
pub(in super::super) async fn enable(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    _form: Form,
) -> Answer {
    switch(visit, id, true).await
}

/// `POST /shops/{shop}/disable`
pub(in super::super) async fn disable(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    _form: Form,
) -> Answer {
    switch(visit, id, false).await
}

async fn switch(visit: SignedIn, id: ShopId, enabled: bool) -> Answer {
    let changes = ShopChanges { enabled: Some(enabled), ..ShopChanges::default() };
    visit
        .load(move |node, caller| shops::patch(node, caller, id, changes, &Precondition::none()))
        .await?;
    let flash = if enabled {
        Flash::good("The shop is on again: its keys and tokens are accepted.")
    } else {
        Flash::good("The shop is off: its keys and tokens are refused from now on.")
    };
    Ok(visit.go(&format!("/shops/{id}/settings"), flash))
}

/// `POST /shops/{shop}/delete`
pub(in super::super) async fn delete(
    visit: SignedIn,
    Segments(id): Segments<ShopId>,
    form: Form,
) -> Answer {
    let shop = find(&visit, id).await?;
    require(&visit, Permission::ShopsWrite)?;
    let typed = form.text("confirm");
    if !confirms(typed, &shop) {
        let problem = "does not match: write the shop's id exactly as it stands above";
        let farewell = Errors::of("confirm", problem);
        let again = shown(&visit, &shop);
        return invalid_fields(&Page { farewell, ..again });
    }
    visit.load(move |node, caller| shops::delete(node, caller, &id, &Precondition::none())).await?;
    let flash = Flash::good(format!("The shop {id} is deleted, with its keys and tokens."));
    Ok(visit.go("/shops", flash))
}

/// Whether what was typed names the shop: its id, or its name if it has one.
fn confirms(typed: &str, shop: &ShopRecord) -> bool {
    let name = shop.name.trim();
    typed == shop.id.as_str() || (!name.is_empty() && typed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(name: &str, origins: &str) -> ShopForm {
        ShopForm {
            name: name.to_owned(),
            widget_origins: origins.to_owned(),
            ..ShopForm::default()
        }
    }

    #[test]
    fn what_others_changed_is_told() {
        assert_eq!(differences(&form("a", "b"), &form("a", "b")), []);
        let told = differences(&form("mine", "x"), &form("theirs", ""));
        let told: Vec<_> = told.iter().map(|m| (m.label, m.stored.as_str())).collect();
        assert_eq!(told, [("Name", "theirs"), ("Widget origins", "(nothing)")]);
    }
}
