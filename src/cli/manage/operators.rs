//! `operator`, but for its tokens.

use http::Method;
use serde_json::{Value, json};

use super::{ONCE, admin_tokens, object};
use crate::admin::operations::operators::generate_password;
use crate::cli::args::{OperatorCommand, PasswordArgs, SessionsCommand};
use crate::cli::client::Client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{Column, Format, Output, find, show};
use crate::cli::password;
use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::secret::{SecretText, SystemEntropy};

const COLUMNS: [Column; 7] = [
    Column("NAME", "name"),
    Column("ROLE", "role"),
    Column("SHOPS", "shops"),
    Column("DISABLED", "disabled"),
    Column("PASSWORD", "password_set"),
    Column("SECOND FACTOR", "second_factor"),
    Column("ID", "id"),
];

const ITEM: [Column; 7] = [
    Column("Operator id", "id"),
    Column("Name", "name"),
    Column("Role", "role"),
    Column("Shops", "shops"),
    Column("Disabled", "disabled"),
    Column("Password set", "password_set"),
    Column("Second factor", "second_factor"),
];

const SESSIONS: [Column; 6] = [
    Column("SESSION", "id"),
    Column("OPERATOR", "operator"),
    Column("BEGAN", "created_at"),
    Column("LAST USED", "last_seen_at"),
    Column("FROM", "address"),
    Column("BROWSER", "user_agent"),
];

const PATH: &str = "/operators";

/// Runs it.
pub(in crate::cli) async fn run(
    command: &OperatorCommand,
    client: &Client,
    output: &mut Output,
    now: Timestamp,
) -> Result<(), Failure> {
    match command {
        OperatorCommand::Create { name, role, shops, password } => {
            let password = chosen(*password)?;
            let body = object([
                ("name", Some(json!(name))),
                ("role", Some(json!(role.as_str()))),
                ("shops", (!shops.is_empty()).then(|| json!(shops))),
                ("password", Some(json!(password.text.expose()))),
            ]);
            let answer = client.call(Method::POST, PATH, Some(&body)).await?;
            done(output, &answer, &password)
        }
        OperatorCommand::List => {
            let empty = "No operators. Create one: latchkey operator create ada --role owner";
            output.list(&COLUMNS, &client.list(PATH).await?, empty)
        }
        OperatorCommand::ResetPassword { operator, password } => {
            let path = format!("{}/password", path_of(client, operator).await?);
            let password = chosen(*password)?;
            let body = json!({ "password": password.text.expose() });
            let answer = client.call(Method::PUT, &path, Some(&body)).await?;
            done(output, &answer, &password)
        }
        OperatorCommand::ResetTotp { operator } => {
            let path = format!("{}/second-factor", path_of(client, operator).await?);
            let answer = client.call(Method::DELETE, &path, None).await?;
            output.done(&format!("{operator} signs in without a second factor now."), &answer)
        }
        OperatorCommand::SetRole { operator, role, shops } => {
            let shops = (!shops.is_empty()).then(|| json!(shops));
            let body = object([("role", Some(json!(role.as_str()))), ("shops", shops)]);
            change(client, output, operator, &body).await
        }
        OperatorCommand::Disable { operator } => {
            change(client, output, operator, &json!({ "disabled": true })).await
        }
        OperatorCommand::Enable { operator } => {
            change(client, output, operator, &json!({ "disabled": false })).await
        }
        OperatorCommand::Delete { operator, yes: _ } => {
            let path = path_of(client, operator).await?;
            let answer = client.call(Method::DELETE, &path, None).await?;
            output.done(&format!("Deleted {operator}; its sessions are over."), &answer)
        }
        OperatorCommand::Sessions { operator, command } => {
            sessions(operator.as_deref(), command.as_ref(), client, output).await
        }
        OperatorCommand::Token(command) => admin_tokens::run(command, client, output, now).await,
    }
}

async fn sessions(
    operator: Option<&str>,
    command: Option<&SessionsCommand>,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        None => {
            let path = match operator {
                Some(operator) => format!("{}/sessions", path_of(client, operator).await?),
                None => "/sessions".to_owned(),
            };
            output.list(&SESSIONS, &client.list(&path).await?, "Nobody is signed in.")
        }
        Some(SessionsCommand::Revoke { session: Some(session), .. }) => {
            let path = format!("/sessions/{session}");
            let answer = client.call(Method::DELETE, &path, None).await?;
            output.done(&format!("Ended {session}."), &answer)
        }
        Some(SessionsCommand::Revoke { session: None, all_of }) => {
            let operator = all_of.as_deref().unwrap_or_default();
            let path = format!("{}/sessions", path_of(client, operator).await?);
            let answer = client.call(Method::DELETE, &path, None).await?;
            let ended = show(find(&answer, "ended"));
            output.done(&format!("Ended {ended} sessions of {operator}."), &answer)
        }
    }
}

async fn change(
    client: &Client,
    output: &mut Output,
    operator: &str,
    body: &Value,
) -> Result<(), Failure> {
    let path = path_of(client, operator).await?;
    let answer = client.call(Method::PATCH, &path, Some(body)).await?;
    output.item(&ITEM, &answer)
}

/// Where the API has the operator of this id or name.
async fn path_of(client: &Client, operator: &str) -> Result<String, Failure> {
    if let Ok(id) = OperatorId::parse(operator) {
        return Ok(format!("{PATH}/{id}"));
    }
    let all = client.list(PATH).await?;
    let named = |one: &&Value| {
        find(one, "name").as_str().is_some_and(|name| name.eq_ignore_ascii_case(operator))
    };
    let found = all.iter().find(named).and_then(|one| find(one, "id").as_str());
    let found = found.map(|id| format!("{PATH}/{id}"));
    found.ok_or_else(|| {
        let failure = Failure::new(Exit::Refused, "there is no operator of this name or id");
        failure.hint("latchkey operator list shows them all")
    })
}

/// A password, and whether nobody knows it yet.
struct Chosen {
    text: SecretText,
    generated: bool,
}

fn chosen(args: PasswordArgs) -> Result<Chosen, Failure> {
    if args.generate {
        let text = generate_password(&SystemEntropy::new())
            .map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
        return Ok(Chosen { text, generated: true });
    }
    let text = if args.password_stdin { password::from_stdin() } else { password::asked_for() };
    Ok(Chosen { text: text?, generated: false })
}

/// Prints the operator, and its password if nobody has seen it yet.
fn done(output: &mut Output, answer: &Value, password: &Chosen) -> Result<(), Failure> {
    if !password.generated {
        return output.item(&ITEM, answer);
    }
    if output.format() == Format::Json {
        let mut answer = answer.clone();
        if let Some(members) = answer.as_object_mut() {
            members.insert("password".to_owned(), json!(password.text.expose()));
        }
        return output.json(&answer);
    }
    output.item(&ITEM, answer)?;
    output.text(&format!("\nPassword: {}\n{ONCE}\n", password.text.expose()))
}
