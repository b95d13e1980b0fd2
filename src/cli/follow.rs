//! Requests whose work takes its time: the admin API tells how far it is, line by line.

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use serde_json::Value;

use super::client::{BASE, Client, refusal};
use super::exit::{Exit, Failure};
use super::output::find;

/// Lines of JSON.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// JSON.
pub(super) const JSON: &str = "application/json";

/// Longest line: a problem with a thousand faults.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Told the phase, what is done, and what there is to do.
pub(super) type Told<'t> = &'t mut (dyn FnMut(&str, u64, u64) + Send);

/// Sends a request with a body of some type; its result, once it is done.
pub(super) async fn follow(
    client: &Client,
    path: &str,
    (content_type, body): (&str, Bytes),
    told: Told<'_>,
) -> Result<Value, Failure> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{BASE}{path}"))
        .header(header::HOST, "latchkey")
        .header(header::ACCEPT, NDJSON)
        .header(header::CONTENT_TYPE, content_type)
        .body(Full::from(body));
    let request = request.map_err(|error| {
        Failure::new(Exit::Usage, format!("not a request that can be sent: {error}"))
    })?;
    let mut lines = Lines { rest: Vec::new(), end: None, told };
    client.receive(request, &mut |piece| lines.take(piece)).await?;
    lines.end.unwrap_or_else(|| {
        let message = "the server ended before it said how the work ended";
        Err(Failure::new(Exit::Refused, message).hint("look at its log, and try again"))
    })
}

/// The answer, line by line.
struct Lines<'t> {
    rest: Vec<u8>,
    end: Option<Result<Value, Failure>>,
    told: Told<'t>,
}

impl Lines<'_> {
    fn take(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.rest.extend_from_slice(piece);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.line(&line)?;
        }
        if self.rest.len() > LINE_BYTES_MAX {
            return Err(Failure::new(Exit::Refused, "the server's answer is too long"));
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let event: Value = serde_json::from_slice(line).map_err(|error| {
            Failure::new(Exit::Refused, format!("the server's answer is not JSON: {error}"))
        })?;
        let number = |member| find(&event, member).as_u64().unwrap_or_default();
        match find(&event, "event").as_str() {
            Some("progress") => {
                let phase = find(&event, "phase").as_str().unwrap_or_default();
                (self.told)(phase, number("done"), number("total"));
            }
            Some("done") => self.end = Some(Ok(find(&event, "result").clone())),
            Some("failed") => {
                let problem = find(&event, "problem");
                let status = find(problem, "status").as_u64().unwrap_or_default();
                let status = u16::try_from(status).unwrap_or_default();
                self.end = Some(Err(refusal(status, problem)));
            }
            Some(_) | None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_come_in_any_pieces() {
        let text = concat!(
            r#"{"event":"progress","phase":"writing","done":1,"total":2}"#,
            "\n",
            r#"{"event":"done","result":{"name":"b"}}"#,
            "\n"
        );
        for size in [1, 7, 1000] {
            let mut seen = Vec::new();
            let mut told = |phase: &str, done, total| seen.push((phase.to_owned(), done, total));
            let mut lines = Lines { rest: Vec::new(), end: None, told: &mut told };
            text.as_bytes().chunks(size).for_each(|piece| lines.take(piece).unwrap());
            assert_eq!(lines.end.unwrap().unwrap()["name"], "b");
            assert_eq!(seen, [("writing".to_owned(), 1, 2)]);
        }
    }

    #[test]
    fn a_failure_is_told_as_any_refusal() {
        let mut told = |_: &str, _, _| ();
        let mut lines = Lines { rest: Vec::new(), end: None, told: &mut told };
        let problem = r#"{"event":"failed","problem":{"status":422,"title":"No","detail":"d",
            "errors":[{"field":"line 7","detail":"bad"}]}}"#
            .replace('\n', " ");
        lines.take(format!("{problem}\n").as_bytes()).unwrap();
        let failure = lines.end.unwrap().unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Refused, "No\nline 7: bad"));
    }
}
