//! `shop`.

use http::Method;
use serde_json::json;

use super::{limits, object};
use crate::cli::args::ShopCommand;
use crate::cli::client::Client;
use crate::cli::exit::Failure;
use crate::cli::output::{Column, Output, find};

const LIST: [Column; 4] = [
    Column("SHOP", "id"),
    Column("NAME", "name"),
    Column("URL", "url"),
    Column("ENABLED", "enabled"),
];

const SHOW: [Column; 8] = [
    Column("Shop", "id"),
    Column("Name", "name"),
    Column("URL", "url"),
    Column("Widget origins", "widget_origins"),
    Column("Enabled", "enabled"),
    Column("Tokens valid from", "tokens_valid_from"),
    Column("Created", "created_at"),
    Column("Updated", "updated_at"),
];

const STANDING: [Column; 6] = [
    Column("POLICY", "policy"),
    Column("LIMIT", "limit"),
    Column("WINDOW (s)", "window_seconds"),
    Column("OWN", "own"),
    Column("LEFT", "left"),
    Column("WHOLE IN (s)", "reset_seconds"),
];

const NO_STANDING: &str = "No limit counts the requests of a shop together.";

const EMPTY: &str = "No shops. Create one: latchkey shop create acme --url https://acme.example";

/// Runs it.
pub(in crate::cli) async fn run(
    command: &ShopCommand,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        ShopCommand::Create { shop, url, name, widget_origins } => {
            let name = name.clone().unwrap_or_else(|| shop.to_string());
            let body =
                json!({"id": shop, "url": url, "name": name, "widget_origins": widget_origins});
            let answer = client.call(Method::POST, "/shops", Some(&body)).await?;
            let next = format!(
                "Created shop {shop}. Next, a key for its server: latchkey key create {shop} \
                 --name production"
            );
            output.done(&next, &answer)
        }
        ShopCommand::List => output.list(&LIST, &client.list("/shops").await?, EMPTY),
        ShopCommand::Show { shop } => {
            output.item(&SHOW, &client.get(&format!("/shops/{shop}")).await?)
        }
        ShopCommand::Update { .. } => update(command, client, output).await,
        ShopCommand::Delete { shop, yes: _ } => {
            let answer = client.call(Method::DELETE, &format!("/shops/{shop}"), None).await?;
            let done = format!("Deleted shop {shop}, its keys and its tokens.");
            output.done(&done, &answer)
        }
        ShopCommand::Limits { shop, limits: args } => {
            limits(&format!("/shops/{shop}"), args, client, output).await
        }
        ShopCommand::Standing { shop } => {
            let answer = client.get(&format!("/shops/{shop}/standing")).await?;
            let items = find(&answer, "items").as_array().map_or(&[][..], Vec::as_slice);
            output.list(&STANDING, items, NO_STANDING)
        }
    }
}

async fn update(
    command: &ShopCommand,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    use ShopCommand::Update;

    let Update { shop, url, name, widget_origins, no_widget_origins, enable, disable } = command
    else {
        return Ok(());
    };
    let origins = (*no_widget_origins || !widget_origins.is_empty()).then(|| json!(widget_origins));
    let body = object([
        ("url", url.as_ref().map(|url| json!(url))),
        ("name", name.as_ref().map(|name| json!(name))),
        ("widget_origins", origins),
        ("enabled", (*enable || *disable).then(|| json!(enable))),
    ]);
    let answer = client.call(Method::PATCH, &format!("/shops/{shop}"), Some(&body)).await?;
    output.item(&SHOW, &answer)
}
