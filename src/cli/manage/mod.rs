//! The commands that manage shops, keys, tokens, operators and issuers: each is one request to
//! the admin API and a print.

mod admin_tokens;
mod assertions;
mod audit;
mod keys;
mod operators;
mod shops;
mod tokens;
mod usage;

use http::Method;
use serde_json::{Map, Value, json};

use super::args::{IssuerCommand, LimitArgs, LimitSetting};
use super::client::Client;
use super::exit::Failure;
use super::output::{Column, Format, Output, find, show};

pub(super) use assertions::run as assertion;
pub(super) use audit::{run as audit, verify_file as verify_audit_file};
pub(super) use keys::run as key;
pub(super) use operators::run as operator;
pub(super) use shops::run as shop;
pub(super) use tokens::run as token;
pub(super) use usage::run as usage;

/// Said under every secret.
const ONCE: &str = "This is shown once and cannot be shown again: keep it in a safe place now.";

/// `issuer`.
pub(super) async fn issuer(
    command: &IssuerCommand,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        IssuerCommand::List => {
            let items = client.list("/issuers").await?;
            let empty = "No identity provider is configured. Add an [[issuers]] to the \
                         configuration, then reload.";
            output.list(&ISSUER_COLUMNS, &items, empty)
        }
        IssuerCommand::Refresh { issuer } => {
            let path = format!("/issuers/{issuer}/refresh");
            let answer = client.call(Method::POST, &path, None).await?;
            if output.format() == Format::Json {
                return output.json(&answer);
            }
            output.item(&ISSUER_COLUMNS, find(&answer, "issuer"))?;
            match find(&answer, "fetched").as_bool() {
                Some(false) => output.line("\nNot fetched: it was a moment ago. Try again later."),
                Some(true) | None => Ok(()),
            }
        }
    }
}

const ISSUER_COLUMNS: [Column; 7] = [
    Column("NAME", "name"),
    Column("ISSUER", "iss"),
    Column("SOURCE", "source"),
    Column("USABLE", "usable"),
    Column("KEYS", "keys"),
    Column("FETCHED", "fetched_at"),
    Column("LAST ERROR", "last_error"),
];

const LIMIT_COLUMNS: [Column; 4] = [
    Column("POLICY", "policy"),
    Column("LIMIT", "limit"),
    Column("WINDOW (s)", "window_seconds"),
    Column("BURST", "burst"),
];

/// Shows or changes the limits of what stands at `path`.
async fn limits(
    path: &str,
    args: &LimitArgs,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    let limits = format!("{path}/limits");
    let owner = if args.clear {
        client.call(Method::DELETE, &limits, None).await?;
        client.get(path).await?
    } else if args.set.is_empty() {
        client.get(path).await?
    } else {
        let wanted: Map<String, Value> = args.set.iter().map(limit).collect();
        client.call(Method::PUT, &limits, Some(&Value::Object(wanted))).await?;
        client.get(path).await?
    };
    let empty = "No limits of its own: the configured ones apply. Set one with \
                 --set POLICY=LIMIT/WINDOW.";
    match output.format() {
        Format::Json => output.json(find(&owner, "limits")),
        Format::Table => output.list(&LIMIT_COLUMNS, &limit_rows(&owner), empty),
    }
}

/// The limits of a shop or a key, each with its policy's name.
fn limit_rows(owner: &Value) -> Vec<Value> {
    let limits = find(owner, "limits").as_object();
    let row = |(policy, limit): (&String, &Value)| {
        let mut row = limit.clone();
        if let Some(members) = row.as_object_mut() {
            members.insert("policy".into(), json!(policy));
        }
        row
    };
    limits.into_iter().flatten().map(row).collect()
}

/// A limit as the API takes it: by the name of its policy.
fn limit(setting: &LimitSetting) -> (String, Value) {
    let limit = object([
        ("limit", Some(json!(setting.limit))),
        ("window_seconds", Some(json!(setting.window_s))),
        ("burst", setting.burst.map(|burst| json!(burst))),
    ]);
    (setting.policy.to_string(), limit)
}

/// A JSON object of the members that have a value.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let given = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect::<Map<_, _>>())
}

/// Prints what was made, its secret under it, and how to use it.
fn created(
    output: &mut Output,
    columns: &[Column],
    answer: &Value,
    (name, member): (&str, &str),
    usage: &str,
) -> Result<(), Failure> {
    if output.format() == Format::Json {
        return output.json(answer);
    }
    output.item(columns, answer)?;
    let secret = find(answer, member);
    output.text(&format!("\n{name}: {}\n{ONCE}\n\n{usage}\n", show(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::Printed;

    #[test]
    fn objects_hold_what_was_given() {
        let object = object([("a", Some(1.into())), ("b", None)]);
        assert_eq!(object, json!({"a": 1}));
    }

    #[test]
    fn limits_are_spelt_as_the_api_takes_them() {
        let setting: LimitSetting = "widget-search=5/1m".parse().unwrap();
        let (policy, limit) = limit(&setting);
        assert_eq!(
            (policy.as_str(), &limit),
            ("widget-search", &json!({"limit": 5, "window_seconds": 60}))
        );
        let rows = limit_rows(&json!({"limits": {policy: limit}}));
        assert_eq!(rows, [json!({"policy": "widget-search", "limit": 5, "window_seconds": 60})]);
    }

    #[test]
    fn a_secret_is_printed_with_a_warning() {
        let answer = json!({"id": "key_1", "secret": "sk_x"});
        let printed = Printed::default();
        let columns = [Column("KEY", "id")];
        let mut output = printed.output(Format::Table);
        created(&mut output, &columns, &answer, ("Secret", "secret"), "curl …").unwrap();
        let text = printed.text();
        assert!(text.starts_with("KEY  key_1\n\nSecret: sk_x\nThis is shown once"), "{text}");
        let printed = Printed::default();
        let mut output = printed.output(Format::Json);
        created(&mut output, &columns, &answer, ("Secret", "secret"), "curl …").unwrap();
        assert_eq!(serde_json::from_str::<Value>(&printed.text()).unwrap(), answer);
    }
}
