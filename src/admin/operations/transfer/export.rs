//! Writing shops and keys as JSON lines, from one view of the store.

use std::io::{self, Write};

use super::line::{Head, KeyLine, Line, ShopLine, digest_text, limit_lines};
use super::master_key_check;
use crate::admin::audit::{self, Action, Subject, SubjectKind};
use crate::admin::caller::{Caller, Permission};
use crate::admin::node::Node;
use crate::admin::operations::{OperationError, now};
use crate::id::{KeyId, ShopId};
use crate::store::{KeyRecord, ReadTx, ShopRecord, StoreError};

/// Records that are in memory at once.
const PAGE: usize = 200;

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// Shops.
    pub shops: bool,
    /// Keys.
    pub keys: bool,
}

/// Whether `caller` may.
pub fn may_export(caller: &Caller, selection: Selection) -> Result<(), OperationError> {
    caller.require(Permission::ShopsRead)?;
    if selection.keys {
        // With the master key, digests are as good as keys.
        caller.require(Permission::BackupsWrite)?;
    }
    Ok(())
}

/// Writes what was selected to `to`: each shop, then its keys. How many records that were.
pub fn export(
    node: &Node,
    caller: &Caller,
    selection: Selection,
    to: &mut dyn Write,
) -> Result<u64, OperationError> {
    may_export(caller, selection)?;
    let now = now(node);
    let after = serde_json::json!({"shops": selection.shops, "keys": selection.keys});
    let subject = Subject::new(SubjectKind::Data, "export");
    node.store.write(|tx| {
        audit::record(tx, caller, now, Action::DataExported, subject, None, Some(after))
    })?;
    let head = Line::Head(Head {
        exported_at: now,
        master_key_check: digest_text(&master_key_check(node)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    node.store.read(|tx| {
        Ok(put(to, &head).and_then(|()| {
            let mut count = 0;
            write_all(tx, selection, to, &mut count)?;
            to.flush().map_err(|error| unwritten(&error))?;
            Ok(count)
        }))
    })?
}

fn write_all(
    tx: &ReadTx,
    selection: Selection,
    to: &mut dyn Write,
    count: &mut u64,
) -> Result<(), OperationError> {
    pages(
        |after: Option<&ShopRecord>| tx.shops(after.map(|shop| &shop.id), PAGE),
        |shop| {
            let id = shop.id;
            if selection.shops {
                put(to, &Line::Shop(shop_line(shop)))?;
                *count += 1;
            }
            if selection.keys {
                write_keys(tx, &id, to, count)?;
            }
            Ok(())
        },
    )
}

fn write_keys(
    tx: &ReadTx,
    shop: &ShopId,
    to: &mut dyn Write,
    count: &mut u64,
) -> Result<(), OperationError> {
    let page = |after: Option<&KeyRecord>| {
        let after: Option<KeyId> = after.map(|key| key.id);
        tx.keys_of_shop(shop, after, PAGE)
    };
    pages(page, |key| {
        *count += 1;
        put(to, &Line::Key(key_line(key)))
    })
}

/// Visits every record, page by page.
fn pages<R: Clone>(
    mut page: impl FnMut(Option<&R>) -> Result<Vec<R>, StoreError>,
    mut visit: impl FnMut(&R) -> Result<(), OperationError>,
) -> Result<(), OperationError> {
    let mut last: Option<R> = None;
    loop {
        let records = page(last.as_ref())?;
        for record in &records {
            visit(record)?;
        }
        if records.len() < PAGE {
            return Ok(());
        }
        last = records.last().cloned();
    }
}

fn put(to: &mut dyn Write, line: &Line) -> Result<(), OperationError> {
    serde_json::to_writer(&mut *to, line).map_err(|error| unwritten(&error.into()))?;
    to.write_all(b"\n").map_err(|error| unwritten(&error))
}

fn unwritten(error: &io::Error) -> OperationError {
    OperationError::Files(format!("the export could not be written ({error})"))
}

fn shop_line(shop: &ShopRecord) -> ShopLine {
    ShopLine {
        id: shop.id.to_string(),
        name: shop.name.clone(),
        url: shop.url.clone(),
        widget_origins: shop.widget_origins.clone(),
        enabled: shop.enabled,
        limits: limit_lines(&shop.limits),
        created_at: Some(shop.created_at),
    }
}

fn key_line(key: &KeyRecord) -> KeyLine {
    KeyLine {
        shop: key.shop.to_string(),
        id: Some(key.id.to_string()),
        name: key.name.clone(),
        digest: Some(digest_text(&key.digest)),
        start: Some(key.start.clone()).filter(|start| !start.is_empty()),
        expires_at: key.expires_at,
        grace_until: key.grace_until,
        replaced_by: key.replaced_by,
        networks: key.networks.iter().map(ToString::to_string).collect(),
        limits: limit_lines(&key.limits),
        created_at: Some(key.created_at),
        last_used_at: key.last_used_at,
        ..KeyLine::default()
    }
}
