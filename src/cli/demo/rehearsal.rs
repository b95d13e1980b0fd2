//! `demo --check`: makes every call of the list and compares the answers with the printed ones.

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::calls::{self, Call};
use super::world::World;
use crate::cli::exit::{Exit, Failure};
use crate::cli::http::exchange;
use crate::cli::output::{Format, Output, find};

/// Makes every call; fails if an answer differs from what is printed.
pub(super) async fn run(world: &World, output: &mut Output) -> Result<(), Failure> {
    let calls = calls::all(&world.cast);
    let mut results = Vec::with_capacity(calls.len());
    let mut differing = 0_usize;
    for call in &calls {
        let difference = match make(world, call).await {
            Ok(response) => difference(call, &response),
            Err(error) => Some(error),
        };
        differing += usize::from(difference.is_some());
        results.push(json!({
            "call": call.expectation().trim_start_matches("# "),
            "ok": difference.is_none(),
            "difference": difference,
        }));
        if output.format() == Format::Table {
            output.line(&result_line(call, difference.as_deref()))?;
        }
    }
    if output.format() == Format::Json {
        output.json(&Value::Array(results))?;
    }
    if differing > 0 {
        let message =
            format!("{differing} of {} calls did not get the printed answer", calls.len());
        return Err(Failure::new(Exit::CheckFailed, message));
    }
    if output.format() == Format::Table {
        output.line(&format!("All {} calls got the printed answer.", calls.len()))?;
    }
    Ok(())
}

fn result_line(call: &Call, difference: Option<&str>) -> String {
    let expectation = call.expectation();
    let expectation = expectation.trim_start_matches("# ");
    match difference {
        None => format!("ok      {expectation}"),
        Some(difference) => format!("FAILED  {expectation}\n        {difference}"),
    }
}

/// Makes `call`, as its curl line does.
pub(super) async fn make(world: &World, call: &Call) -> Result<Response<Bytes>, String> {
    let address = world.data_address();
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let mut request = Request::builder()
        .method(&call.method)
        .uri(call.target)
        .header(header::HOST, address.to_string());
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    let body = Full::from(call.body.unwrap_or_default());
    let request = request.body(body).map_err(|e| e.to_string())?;
    exchange(stream, request).await.map_err(|e| e.to_string())
}

/// How the answer differs from what is printed.
fn difference(call: &Call, response: &Response<Bytes>) -> Option<String> {
    let status = response.status().as_u16();
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let code = find(&body, "code").as_str().unwrap_or("ok");
    let differs = status != call.status || code != call.code;
    differs.then(|| format!("the answer was {status} {code}"))
}
