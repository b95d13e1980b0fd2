//! `explain`: what would be decided about a request, stage by stage.

use std::collections::BTreeMap;
use std::io::Read as _;

use http::Method;
use serde_json::{Value, json};

use super::args::ExplainArgs;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::{Column, Format, Output, find, show};

/// Longest request read from standard input, in bytes.
const INPUT_BYTES_MAX: u64 = 1 << 20;

const STAGES: [Column; 3] =
    [Column("STAGE", "stage"), Column("VERDICT", "verdict"), Column("WHY", "why")];

/// Runs it.
pub(super) async fn run(
    args: &ExplainArgs,
    client: &Client,
    output: &mut Output,
) -> Result<(), Failure> {
    let request = match args.stdin {
        Some(_) => read(&mut std::io::stdin().lock())?,
        None => request(args),
    };
    let answer = client.call(Method::POST, "/explain", Some(&request)).await?;
    print(&answer, output)
}

fn request(args: &ExplainArgs) -> Value {
    let mut headers: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for header in &args.headers {
        headers.entry(header.name.to_ascii_lowercase()).or_default().push(&header.value);
    }
    let mut request = json!({"method": args.method, "path": args.path, "headers": headers});
    if let (Some(client), Some(members)) = (args.client, request.as_object_mut()) {
        members.insert("client".into(), json!(client));
    }
    request
}

fn read(input: &mut dyn std::io::Read) -> Result<Value, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let mut text = String::new();
    let read = input.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|e| usage(format!("standard input could not be read: {e}")))?;
    if u64::try_from(text.len()).is_ok_and(|n| n > INPUT_BYTES_MAX) {
        return Err(usage("the request on standard input is larger than 1 MiB".into()));
    }
    serde_json::from_str(&text).map_err(|error| {
        usage(format!("standard input is not a request in JSON: {error}"))
            .hint(r#"write e.g. {"method":"GET","path":"/api/search/items","headers":{}}"#)
    })
}

fn print(answer: &Value, output: &mut Output) -> Result<(), Failure> {
    if output.format() == Format::Json {
        return output.json(answer);
    }
    let stages = find(answer, "stages").as_array().cloned().unwrap_or_default();
    output.list(&STAGES, &stages, "No stage was reached.")?;
    output.line("")?;
    output.line(&verdict(answer))?;
    for (label, member) in DETAILS {
        let value = find(answer, member);
        if !value.is_null() && show(value) != "-" {
            output.line(&format!("{label}: {}", show(value)))?;
        }
    }
    Ok(())
}

/// The decision in a few words: `refused: 403 cross_tenant`.
fn verdict(answer: &Value) -> String {
    let word = match find(answer, "decision").as_str() {
        Some("allow") => "allowed",
        Some("deny") => "refused",
        Some(_) | None => "undecided: its issuer would be asked for the key first",
    };
    match (find(answer, "status"), find(answer, "code")) {
        (Value::Null, _) => word.to_owned(),
        (status, Value::Null) => format!("{word}: {}", show(status)),
        (status, code) => format!("{word}: {} {}", show(status), show(code)),
    }
}

/// What else there is to say, where it is known.
const DETAILS: [(&str, &str); 10] = [
    ("Route", "route"),
    ("Answered by", "target"),
    ("Mechanism", "mechanism"),
    ("Shop", "principal.shop"),
    ("Credential", "principal.credential_id"),
    ("Subject", "principal.subject"),
    ("Scopes", "principal.scopes"),
    ("Limit", "limit"),
    ("Told to the client", "detail"),
    ("For the operator", "reason"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::Printed;

    #[test]
    fn requests_are_spelt_as_the_api_takes_them() {
        let header = |text: &str| text.parse().unwrap();
        let args = ExplainArgs {
            method: "GET".into(),
            path: Some("/a".into()),
            headers: vec![header("Origin: a"), header("X-B: 1"), header("origin: b")],
            client: Some("192.0.2.1".parse().unwrap()),
            stdin: None,
        };
        assert_eq!(
            request(&args),
            json!({
                "method": "GET", "path": "/a", "client": "192.0.2.1",
                "headers": {"origin": ["a", "b"], "x-b": ["1"]},
            })
        );
    }

    #[test]
    fn requests_from_standard_input_are_json_of_bounded_size() {
        assert_eq!(read(&mut &b"{\"path\":\"/\"}"[..]).unwrap(), json!({"path": "/"}));
        assert_eq!(read(&mut &b"path"[..]).unwrap_err().exit, Exit::Usage);
        let long = vec![b' '; (1 << 20) + 1];
        assert_eq!(read(&mut &long[..]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn explanations_are_printed_stage_by_stage() {
        let answer = json!({
            "decision": "deny", "status": 403, "code": "cross_tenant", "route": "plugin",
            "principal": {"shop": "other", "scopes": []}, "detail": null,
            "stages": [
                {"stage": "classify", "verdict": "passed", "why": "route plugin"},
                {"stage": "authorize", "verdict": "refused", "why": "another shop"},
            ],
        });
        let printed = Printed::default();
        print(&answer, &mut printed.output(Format::Table)).unwrap();
        assert_eq!(
            printed.text(),
            "STAGE      VERDICT  WHY\n\
             classify   passed   route plugin\n\
             authorize  refused  another shop\n\
             \nrefused: 403 cross_tenant\nRoute: plugin\nShop: other\n"
        );
    }
}
