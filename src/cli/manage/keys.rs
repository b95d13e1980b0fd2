//! `key`.

use http::Method;
use serde_json::{Value, json};

use super::{created, limits, object};
use crate::cli::args::KeyCommand;
use crate::cli::client::Client;
use crate::cli::exit::Failure;
use crate::cli::output::{Column, Output, find, show};
use crate::clock::Timestamp;
use crate::id::{KeyId, ShopId};

const LIST: [Column; 6] = [
    Column("KEY", "id"),
    Column("NAME", "name"),
    Column("STATUS", "status"),
    Column("BEGINS", "start"),
    Column("EXPIRES", "expires_at"),
    Column("LAST USED", "last_used_at"),
];

const SHOW: [Column; 11] = [
    Column("Key", "id"),
    Column("Shop", "shop"),
    Column("Name", "name"),
    Column("Begins", "start"),
    Column("Status", "status"),
    Column("Networks", "networks"),
    Column("Created", "created_at"),
    Column("Expires", "expires_at"),
    Column("Last used", "last_used_at"),
    Column("Grace until", "grace_until"),
    Column("Replaced by", "replaced_by"),
];

const CREATED: [Column; 5] = [
    Column("Key", "id"),
    Column("Shop", "shop"),
    Column("Name", "name"),
    Column("Networks", "networks"),
    Column("Expires", "expires_at"),
];

/// Runs it.
pub(in crate::cli) async fn run(
    command: &KeyCommand,
    client: &Client,
    output: &mut Output,
    now: Timestamp,
) -> Result<(), Failure> {
    match command {
        KeyCommand::Create { shop, name, expires_in, networks } => {
            let expires_at = expires_in.map(|s| now + std::time::Duration::from_secs(s));
            let body = object([
                ("name", Some(json!(name))),
                ("expires_at", expires_at.map(|at| json!(at))),
                ("networks", Some(json!(networks))),
            ]);
            let answer =
                client.call(Method::POST, &format!("/shops/{shop}/keys"), Some(&body)).await?;
            print_secret(output, client, shop, &answer)
        }
        KeyCommand::List { shop } => {
            let items = client.list(&format!("/shops/{shop}/keys")).await?;
            let empty = format!(
                "Shop {shop} has no keys. Create one: latchkey key create {shop} --name production"
            );
            output.list(&LIST, &items, &empty)
        }
        KeyCommand::Show { shop, key } => output.item(&SHOW, &client.get(&path(shop, *key)).await?),
        KeyCommand::Update { .. } => update(command, client, output).await,
        KeyCommand::Rotate { shop, key, grace } => {
            let body = json!({"grace_seconds": grace.unwrap_or(0)});
            let rotate = format!("{}/rotate", path(shop, *key));
            let answer = client.call(Method::POST, &rotate, Some(&body)).await?;
            print_secret(output, client, shop, &answer)
        }
        KeyCommand::Revoke { shop, key } => {
            let answer = client.call(Method::DELETE, &path(shop, *key), None).await?;
            output.done(&format!("Revoked {key}: it is refused from now on."), &answer)
        }
        KeyCommand::Limits { shop, key, limits: args } => {
            limits(&path(shop, *key), args, client, output).await
        }
    }
}

async fn update(command: &KeyCommand, client: &Client, output: &mut Output) -> Result<(), Failure> {
    let KeyCommand::Update { shop, key, name, expires_at, no_expiry, networks, any_network } =
        command
    else {
        return Ok(());
    };
    let expiry = match expires_at {
        Some(at) => Some(json!(at)),
        None => no_expiry.then_some(Value::Null),
    };
    let body = object([
        ("name", name.as_ref().map(|name| json!(name))),
        ("expires_at", expiry),
        ("networks", (*any_network || !networks.is_empty()).then(|| json!(networks))),
    ]);
    let answer = client.call(Method::PATCH, &path(shop, *key), Some(&body)).await?;
    output.item(&SHOW, &answer)
}

fn print_secret(
    output: &mut Output,
    client: &Client,
    shop: &ShopId,
    answer: &Value,
) -> Result<(), Failure> {
    let usage = format!(
        "Try it:\n  curl -i -H 'X-Shop-API-Key: {}' \\\n    \
         http://{}/api/plugin/shops/{shop}/products",
        show(find(answer, "secret")),
        client.data_address()
    );
    created(output, &CREATED, answer, ("Secret", "secret"), &usage)
}

fn path(shop: &ShopId, key: KeyId) -> String {
    format!("/shops/{shop}/keys/{key}")
}
