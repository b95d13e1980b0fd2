//! `token`.

use http::Method;
use serde_json::json;

use super::{created, object};
use crate::cli::args::TokenCommand;
use crate::cli::client::Client;
use crate::cli::exit::Failure;
use crate::cli::output::{Column, Output, find, show};

const LIST: [Column; 4] = [
    Column("TOKEN", "id"),
    Column("SCOPES", "scopes"),
    Column("EXPIRES", "expires_at"),
    Column("REVOKED", "revoked_at"),
];

const ISSUED: [Column; 3] =
    [Column("Token id", "id"), Column("Scopes", "scopes"), Column("Expires", "expires_at")];

/// Runs it.
pub(in crate::cli) async fn run(
    command: &TokenCommand,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        TokenCommand::Issue { shop, scopes, lifetime } => {
            let body = object([
                ("scopes", (!scopes.is_empty()).then(|| json!(scopes))),
                ("lifetime_seconds", lifetime.map(|s| json!(s))),
            ]);
            let path = format!("/shops/{shop}/widget-tokens");
            let answer = client.call(Method::POST, &path, Some(&body)).await?;
            let usage = format!(
                "Try it:\n  curl -i -H 'X-Widget-Token: {}' \\\n    \
                 http://{}/api/widget/search",
                show(find(&answer, "token")),
                client.data_address()
            );
            created(output, &ISSUED, &answer, ("Token", "token"), &usage)
        }
        TokenCommand::List { shop } => {
            let items = client.list(&format!("/shops/{shop}/widget-tokens")).await?;
            let empty =
                format!("Shop {shop} has no widget tokens. Issue one: latchkey token issue {shop}");
            output.list(&LIST, &items, &empty)
        }
        TokenCommand::Revoke { shop, token } => {
            let path = format!("/shops/{shop}/widget-tokens/{token}");
            let answer = client.call(Method::DELETE, &path, None).await?;
            output.done(&format!("Revoked {token}: it is refused from now on."), &answer)
        }
        TokenCommand::RevokeAll { shop } => {
            let path = format!("/shops/{shop}/widget-tokens/revoke-all");
            let answer = client.call(Method::POST, &path, None).await?;
            let done = format!("Every widget token issued to shop {shop} until now is refused.");
            output.done(&done, &answer)
        }
        TokenCommand::RotateSigningKey => {
            let answer = client.call(Method::POST, "/signing-keys/rotate", None).await?;
            let done = "Widget tokens are signed with a new key from now on; those signed before \
                        stay good until they expire.";
            output.done(done, &answer)
        }
    }
}
