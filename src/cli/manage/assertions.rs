//! `assertion`.

use http::Method;
use serde_json::json;

use crate::cli::args::AssertionCommand;
use crate::cli::client::Client;
use crate::cli::exit::Failure;
use crate::cli::output::{Column, Format, Output, find};

const KEYS: [Column; 4] = [
    Column("KID", "kid"),
    Column("TURN", "turn"),
    Column("CREATED", "created_at"),
    Column("SIGNS FROM", "signs_from"),
];

/// Runs it.
pub(in crate::cli) async fn run(
    command: &AssertionCommand,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        AssertionCommand::Keys => {
            let items = client.list("/assertion-keys").await?;
            let empty = "No key signs assertions. Set `assertion.enabled = true` in the \
                         configuration, then reload.";
            output.list(&KEYS, &items, empty)
        }
        AssertionCommand::RotateKey { at_once } => {
            let body = json!({"at_once": at_once});
            let answer = client.call(Method::POST, "/assertion-keys/rotate", Some(&body)).await?;
            if output.format() == Format::Json {
                return output.json(&answer);
            }
            let items = find(&answer, "items").as_array().cloned().unwrap_or_default();
            output.list(&KEYS, &items, "")
        }
    }
}
