//! `operator token`.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::{created, object};
use crate::cli::args::OperatorTokenCommand;
use crate::cli::client::Client;
use crate::cli::exit::Failure;
use crate::cli::output::{Column, Output, find, show};
use crate::clock::Timestamp;

const COLUMNS: [Column; 7] = [
    Column("TOKEN", "id"),
    Column("NAME", "name"),
    Column("ROLE", "role"),
    Column("SCOPES", "scopes"),
    Column("SHOPS", "shops"),
    Column("EXPIRES", "expires_at"),
    Column("LAST USED", "last_used_at"),
];

const CREATED: [Column; 6] = [
    Column("Token id", "id"),
    Column("Name", "name"),
    Column("Role", "role"),
    Column("Scopes", "scopes"),
    Column("Shops", "shops"),
    Column("Expires", "expires_at"),
];

const PATH: &str = "/admin-tokens";

/// Runs it.
pub(super) async fn run(
    command: &OperatorTokenCommand,
    client: &Client,
    output: &mut Output,
    now: Timestamp,
) -> Result<(), Failure> {
    match command {
        OperatorTokenCommand::Create { name, role, scopes, shops, expires_in } => {
            let expires_at = expires_in.map(|s| now + Duration::from_secs(s));
            let body = object([
                ("name", Some(json!(name))),
                ("role", Some(json!(role.as_str()))),
                ("scopes", (!scopes.is_empty()).then(|| json!(scopes))),
                ("shops", (!shops.is_empty()).then(|| json!(shops))),
                ("expires_at", expires_at.map(|at| json!(at))),
            ]);
            let answer = client.call(Method::POST, PATH, Some(&body)).await?;
            let usage = format!(
                "Try it:\n  curl -i -H 'Authorization: Bearer {}' \\\n    \
                 http://{}/api/v1/shops",
                show(find(&answer, "secret")),
                client.admin_address()
            );
            created(output, &CREATED, &answer, ("Token", "secret"), &usage)
        }
        OperatorTokenCommand::List => {
            let empty = "No admin tokens. Create one: latchkey operator token create --name ci \
                         --role operator";
            output.list(&COLUMNS, &client.list(PATH).await?, empty)
        }
        OperatorTokenCommand::Revoke { token } => {
            let answer = client.call(Method::DELETE, &format!("{PATH}/{token}"), None).await?;
            output.done(&format!("Revoked {token}: it is refused from now on."), &answer)
        }
    }
}
