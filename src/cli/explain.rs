//! `explain`: what would be decided about a request, stage by stage.

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
    let header = |h: &super::args::Header| json!([h.name, h.value]);
    let mut request = json!({
        "method": args.method,
        "path": args.path,
        "headers": args.headers.iter().map(header).collect::<Vec<_>>(),
    });
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
            .hint(r#"write e.g. {"method":"GET","path":"/api/search/items","headers":[]}"#)
    })
}

fn print(answer: &Value, output: &mut Output) -> Result<(), Failure> {
    if output.format() == Format::Json {
        return output.json(answer);
    }
    let stages = find(answer, "stages").as_array().cloned().unwrap_or_default();
    output.list(&STAGES, &stages, "No stage was reached.")?;
    let (status, code) = (show(find(answer, "status")), show(find(answer, "code")));
    let decision = show(find(answer, "decision"));
    let code = if code == "-" { String::new() } else { format!(" {code}") };
    output.line(&format!("\n{decision}: {status}{code}"))
}
