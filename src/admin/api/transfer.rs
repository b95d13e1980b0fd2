//! `/import` and `/export`.

use std::sync::Arc;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::body::Query;
use super::dto_backups::Imported;
use super::problem::{Code, FieldError, Problem, ProblemBody};
use super::progress::{self, Listener, NDJSON};
use super::respond::at_leisure;
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::transfer::{
    self, FILE_BYTES_MAX, Import, ImportOptions, LineFaults, Phase, Selection,
};

/// How an import is done.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportQuery {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    replace: bool,
}

/// Imports shops and keys.
///
/// The body is JSON lines of at most 64 MiB, each with a `type`: `shop/1` or `key/1`, as an export
/// has them; a key by `secret`, `sha256` (of the secret, in hex) or an export's `digest`. All of it
/// is checked first; one fault, and nothing is changed. Repeating an import changes nothing and
/// finishes one that was interrupted.
///
/// With `Accept: application/x-ndjson` the answer is 200 and lines of JSON: `progress`, and at the
/// end `done` or `failed`.
#[utoipa::path(post, path = "/import", tag = "import and export", operation_id = "import",
    params(
        ("dry_run" = Option<bool>, Query, description = "Check, and change nothing"),
        ("replace" = Option<bool>, Query, description = "Overwrite what is here and differs"),
    ),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses(
        (status = 200, description = "What was done", content(
            (Imported = "application/json"), (String = "application/x-ndjson"))),
        (status = 422, description = "Lines have faults: each is in `errors`, as `line 7`",
            body = ProblemBody, content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn import(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let turn = transfer::take_turn(&node, &caller)?;
    let (parts, body) = request.into_parts();
    let given = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.and_then(|text| text.split(';').next()).map(str::trim);
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case(NDJSON)) {
        let detail = "Send the file as JSON lines, with `Content-Type: application/x-ndjson`.";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    let text = to_bytes(body, FILE_BYTES_MAX).await.map_err(|error| unread(&error))?;
    let options = ImportOptions { dry_run: query.dry_run, replace: query.replace };
    let work = move |listener: &mut Listener| {
        let report = &mut |phase, done, total| listener.progress(phase_name(phase), done, total);
        match transfer::import(&turn, &caller, &text, options, report)? {
            Import::Done(imported) => Ok(Imported::new(options.dry_run, &imported)),
            Import::Refused(faults) => Err(refused(faults)),
        }
    };
    if progress::wanted(&parts.headers) {
        return Ok(progress::follow(&node, work));
    }
    let mut nobody = Listener::nobody(&node);
    let imported = at_leisure(&node, move |_| Ok(work(&mut nobody))).await??;
    Ok(Json(imported).into_response())
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Checking => "checking",
        Phase::Applying => "applying",
    }
}

fn unread(error: &axum::Error) -> Problem {
    let too_long = std::error::Error::source(error)
        .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>);
    if too_long {
        let detail = format!("A file may hold at most {FILE_BYTES_MAX} bytes; split it.");
        return Problem::new(Code::PayloadTooLarge, detail);
    }
    Problem::new(Code::BadRequest, "The body ended early.")
}

fn refused(faults: LineFaults) -> Problem {
    let LineFaults { shown, total } = faults;
    let detail = if total > shown.len() as u64 {
        format!("The file has {total} faults, of which these are the first {}.", shown.len())
    } else {
        format!("The file has {total} faults; nothing was changed.")
    };
    let error = |fault: transfer::LineFault| FieldError {
        field: format!("line {}", fault.line),
        detail: fault.problem,
    };
    Problem::new(Code::Invalid, detail).with_errors(shown.into_iter().map(error).collect())
}

/// What is exported.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportQuery {
    shops: Option<bool>,
    keys: Option<bool>,
}

/// Exports shops and keys as JSON lines, as an import takes them.
///
/// Keys come without their secrets, which nobody has: with a digest that means something only to
/// a latchkey with the same master key.
#[utoipa::path(get, path = "/export", tag = "import and export", operation_id = "export",
    params(
        ("shops" = Option<bool>, Query, description = "Whether shops are in it: true if left out"),
        ("keys" = Option<bool>, Query, description = "Whether keys are in it: true if left out"),
    ),
    responses(
        (status = 200, description = "A line each; one that is cut off is incomplete",
            body = String, content_type = "application/x-ndjson"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn export(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Problem> {
    let selection =
        Selection { shops: query.shops.unwrap_or(true), keys: query.keys.unwrap_or(true) };
    exported(&node, &caller, selection)
}

/// An export on its way out.
pub(in crate::admin) fn exported(
    node: &Arc<Node>,
    caller: &Caller,
    selection: Selection,
) -> Result<Response, Problem> {
    // What can be refused is refused before the answer begins.
    transfer::may_export(caller, selection)?;
    let (owned, caller) = (Arc::clone(node), caller.clone());
    Ok(progress::stream(node, NDJSON, move |to| {
        let exported = transfer::export(&owned, &caller, selection, to);
        exported.map(drop).map_err(Problem::from)
    }))
}
