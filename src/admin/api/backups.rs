//! `/backups`.

use std::io::Read as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::body::{OptionalBody, Segments};
use super::dto_backups::{Backup, BackupCreate, BackupVerify, Backups};
use super::problem::{Code, Problem, ProblemBody};
use super::progress::{self, Listener};
use super::respond::{at_leisure, blocking, created};
use crate::admin::caller::Caller;
use crate::admin::node::Node;
use crate::admin::operations::backups::{self, BackupName, Wanted};
use crate::secret::SecretText;

const OCTETS: &str = "application/octet-stream";

/// Bytes that are read of a backup at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Lists the backups of the folder, and says how the schedule fares.
#[utoipa::path(get, path = "/backups", tag = "backups", operation_id = "listBackups",
    responses(
        (status = 200, description = "All of them, the newest first", body = Backups),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 503, description = "The folder cannot be read", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    caller: Caller,
    State(node): State<Arc<Node>>,
) -> Result<Json<Backups>, Problem> {
    let (items, schedule) = blocking(&node, move |node| {
        Ok((backups::list(node, &caller)?, backups::schedule(node, &caller)?))
    })
    .await?;
    let items = items.into_iter().map(Backup::from).collect();
    Ok(Json(Backups { items, schedule: schedule.map(Into::into), next_cursor: None }))
}

/// Makes a backup in the folder.
///
/// With `Accept: application/x-ndjson` the answer is 200 and lines of JSON: `progress`, and at the
/// end `done` or `failed`.
#[utoipa::path(post, path = "/backups", tag = "backups", operation_id = "createBackup",
    request_body = Option<BackupCreate>,
    responses(
        (status = 200, description = "Its progress, line by line", body = String,
            content_type = "application/x-ndjson"),
        (status = 201, description = "The backup", body = Backup),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 503, description = "It could not be written", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn create(
    caller: Caller,
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    OptionalBody { value, .. }: OptionalBody<BackupCreate>,
) -> Result<Response, Problem> {
    let wanted = Wanted::from(value);
    let work = {
        let node = Arc::clone(&node);
        move |listener: &mut Listener| {
            let report = &mut |p: crate::store::backup::Progress| {
                listener.progress("writing", p.done, p.total)
            };
            let made = backups::create(&node, &caller, &wanted, report);
            made.map(Backup::from).map_err(Problem::from)
        }
    };
    if progress::wanted(&headers) {
        return Ok(progress::follow(&node, work));
    }
    let mut nobody = Listener::nobody(&node);
    let made = at_leisure(&node, move |_| Ok(work(&mut nobody))).await??;
    Ok(created(&format!("/api/v1/backups/{}", made.name), false, &made))
}

/// Makes a backup and sends it, without keeping it here.
#[utoipa::path(post, path = "/backups/stream", tag = "backups", operation_id = "streamBackup",
    request_body = Option<BackupCreate>,
    responses(
        (status = 200, description = "The backup; one that is cut off is no good",
            body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn stream(
    caller: Caller,
    State(node): State<Arc<Node>>,
    OptionalBody { value, .. }: OptionalBody<BackupCreate>,
) -> Result<Response, Problem> {
    let wanted = Wanted::from(value);
    // What can be refused is refused before the answer begins.
    backups::may_stream(&node, &caller, &wanted)?;
    let owned = Arc::clone(&node);
    Ok(progress::stream(&node, OCTETS, move |to| {
        let made = backups::stream(&owned, &caller, &wanted, to).map_err(Problem::from);
        made.map(drop)
    }))
}

/// Sends a backup.
#[utoipa::path(get, path = "/backups/{name}", tag = "backups", operation_id = "downloadBackup",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The backup", body = Vec<u8>,
            content_type = "application/octet-stream"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn download(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(name): Segments<String>,
) -> Result<Response, Problem> {
    let name = parse(&name)?;
    let (file, backup) =
        blocking(&node, move |node| backups::download(node, &caller, &name)).await?;
    Ok(sent(&node, file, &backup))
}

/// A backup on its way out.
pub(in crate::admin) fn sent(
    node: &Node,
    file: std::fs::File,
    backup: &backups::Backup,
) -> Response {
    let bytes = backup.bytes;
    let mut response = progress::stream(node, OCTETS, move |to| {
        let mut from = std::io::BufReader::with_capacity(PIECE_BYTES, file).take(bytes);
        let sent = std::io::copy(&mut from, to);
        match sent {
            Ok(sent) if sent == bytes => Ok(()),
            Ok(_) | Err(_) => Err(Problem::new(Code::Internal, "The backup ended early.")),
        }
    });
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    let disposition = format!("attachment; filename=\"{}\"", backup.name.as_str());
    if let Ok(value) = HeaderValue::from_str(&disposition) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    response
}

/// Reads a backup to its end and says whether it is good.
///
/// That it is not is an answer, not a refusal. Without a passphrase, or with none that the server
/// is configured with, an encrypted one is held against its checksums only.
#[utoipa::path(post, path = "/backups/{name}/verify", tag = "backups",
    operation_id = "verifyBackup",
    params(("name" = String, Path, description = "Its name")),
    request_body = Option<BackupVerify>,
    responses(
        (status = 200, description = "The backup, and whether it is good", body = Backup),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn verify(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    OptionalBody { value, .. }: OptionalBody<BackupVerify>,
) -> Result<Response, Problem> {
    let name = parse(&name)?;
    let passphrase = value.passphrase.map(SecretText::new);
    let work = {
        let node = Arc::clone(&node);
        move |listener: &mut Listener| {
            let report = &mut |p: crate::store::backup::Progress| {
                listener.progress("reading", p.done, p.total)
            };
            let checked = backups::verify(&node, &caller, &name, passphrase.as_ref(), report);
            checked.map(Backup::from).map_err(Problem::from)
        }
    };
    if progress::wanted(&headers) {
        return Ok(progress::follow(&node, work));
    }
    let mut nobody = Listener::nobody(&node);
    let checked = at_leisure(&node, move |_| Ok(work(&mut nobody))).await??;
    Ok(Json(checked).into_response())
}

/// Deletes a backup.
#[utoipa::path(delete, path = "/backups/{name}", tag = "backups", operation_id = "deleteBackup",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", description = "Refused", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn delete(
    caller: Caller,
    State(node): State<Arc<Node>>,
    Segments(name): Segments<String>,
) -> Result<StatusCode, Problem> {
    let name = parse(&name)?;
    at_leisure(&node, move |node| backups::delete(node, &caller, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn parse(name: &str) -> Result<BackupName, Problem> {
    let none = || Problem::new(Code::NotFound, "There is no such backup.");
    BackupName::parse(name).ok_or_else(none)
}
