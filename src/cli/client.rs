//! The command line's way to the admin API.
//!
//! When a server runs, requests go through its unix socket. When none does, the same API is served
//! in this process, over the store opened for the length of the command. Either way a command is
//! a request and a print; it does not know which it was.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tokio::net::UnixStream;
use tower::ServiceExt as _;

use super::exit::{Exit, Failure};
use super::http::{ExchangeError, TIMEOUT, exchange, exchange_with};
use super::output::{find, show};
use super::start::{self, reachable};
use crate::admin;
use crate::config::Config;

/// Where the admin API begins.
pub(super) const BASE: &str = "/api/v1";

/// Items asked for at once.
const PAGE: usize = 100;

/// Longest refusal that is read.
const PROBLEM_BYTES_MAX: usize = 1 << 16;

/// Whether a command may make the database if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It makes something, so it may.
    Create,
    /// There is nothing to look at or to change.
    Refuse,
}

/// The admin API of one latchkey.
pub(super) struct Client {
    way: Way,
    data: SocketAddr,
    admin: SocketAddr,
}

/// A way to the admin API.
enum Way {
    /// To a running server.
    Socket(PathBuf),
    /// To the store, opened here.
    Offline(Router),
    /// To nothing: no server, no store, and nothing that would make one. Lists are empty, the rest
    /// fails.
    Nothing(Failure),
}

impl Client {
    /// To the server that `config` names, or, if none runs, to its store.
    pub(super) async fn connect(config: Config, missing: Missing) -> Result<Self, Failure> {
        let socket = config.admin.socket.clone();
        let data = reachable(config.server.listen);
        let admin = reachable(config.admin.listen);
        let way = match UnixStream::connect(&socket).await {
            Ok(_) => Way::Socket(socket),
            Err(error) if is_nobody(&error) => Way::open(config, missing, &socket)?,
            Err(error) => return Err(socket_failure(&socket, &error)),
        };
        Ok(Self { way, data, admin })
    }

    /// Where callers connect, by the configuration.
    pub(super) fn data_address(&self) -> SocketAddr {
        self.data
    }

    /// Where the admin plane listens, by the configuration.
    pub(super) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// `GET` of one thing.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// All items of a list, page by page.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        if let (Way::Nothing(_), "/shops" | "/admin-tokens" | "/operators" | "/sessions") =
            (&self.way, path)
        {
            return Ok(items);
        }
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}?limit={PAGE}{cursor}")).await?;
            let members = find(&page, "items").as_array();
            items.extend(members.into_iter().flatten().cloned());
            match find(&page, "next_cursor").as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// One request; the answer's body as JSON, `null` if it has none. A refusal is a failure that
    /// says what the API said.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let response = self.send(request(method, path, body)?).await?;
        let broken = |error| {
            Failure::new(Exit::Refused, format!("the server's answer is not JSON: {error}"))
        };
        let bytes = response.body();
        let answer = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(bytes).map_err(broken)?
        };
        if response.status().is_success() {
            return Ok(answer);
        }
        Err(refusal(response.status().as_u16(), &answer))
    }

    /// `GET` of something long: `sink` is given its pieces as they come.
    pub(super) async fn download(
        &self,
        path: &str,
        sink: &mut (dyn FnMut(&[u8]) -> Result<(), Failure> + Send),
    ) -> Result<(), Failure> {
        self.receive(request(Method::GET, path, None)?, sink).await
    }

    /// Any request: `sink` is given the pieces of its answer as they come.
    pub(super) async fn receive(
        &self,
        request: Request<Full<Bytes>>,
        sink: &mut (dyn FnMut(&[u8]) -> Result<(), Failure> + Send),
    ) -> Result<(), Failure> {
        match &self.way {
            Way::Nothing(failure) => Err(failure.clone()),
            Way::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|error| socket_failure(path, &error))?;
                let answered =
                    exchange_with(stream, request, async |response| take(response, sink).await);
                answered.await.map_err(|error| no_answer(path, &error))?
            }
            Way::Offline(router) => {
                let response = in_process(router, request).await;
                take(response, sink).await
            }
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Failure> {
        match &self.way {
            Way::Nothing(failure) => Err(failure.clone()),
            Way::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|error| socket_failure(path, &error))?;
                exchange(stream, request).await.map_err(|error| no_answer(path, &error))
            }
            Way::Offline(router) => {
                let (head, body) = in_process(router, request).await.into_parts();
                let body = body.collect().await.map_err(|error| broke_off(&error))?;
                Ok(Response::from_parts(head, body.to_bytes()))
            }
        }
    }
}

impl Way {
    fn open(config: Config, missing: Missing, socket: &Path) -> Result<Self, Failure> {
        let path = config.store.path.clone();
        if missing == Missing::Refuse && !path.exists() {
            let message = format!(
                "no server answers on {}, and there is no database at {}",
                socket.display(),
                path.display()
            );
            let hint = "start `latchkey serve`, or create a shop: latchkey shop create; or name \
                        what you mean with --config, --socket or --store";
            return Ok(Self::Nothing(Failure::new(Exit::Refused, message).hint(hint)));
        }
        check_owner(&path)?;
        let node = start::open_node(config)?;
        Ok(Self::Offline(admin::router(node)))
    }
}

/// Asks the API in this process.
async fn in_process(router: &Router, request: Request<Full<Bytes>>) -> Response<Body> {
    let mut request = request.map(Body::new);
    // Whoever can open the store owns it.
    request.extensions_mut().insert(admin::Caller::in_process());
    match router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Hands the pieces of an answer to `sink`; a refusal is a failure.
async fn take<B>(
    response: Response<B>,
    sink: &mut (dyn FnMut(&[u8]) -> Result<(), Failure> + Send),
) -> Result<(), Failure>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    let (head, mut body) = response.into_parts();
    let mut problem = Vec::new();
    while let Some(frame) =
        tokio::time::timeout(TIMEOUT, body.frame()).await.map_err(|error| broke_off(&error))?
    {
        let frame = frame.map_err(|error| broke_off(&error))?;
        let Ok(piece) = frame.into_data() else { continue };
        if head.status.is_success() {
            sink(&piece)?;
        } else if problem.len() < PROBLEM_BYTES_MAX {
            problem.extend_from_slice(&piece);
        }
    }
    if head.status.is_success() {
        return Ok(());
    }
    let problem = serde_json::from_slice(&problem).unwrap_or(Value::Null);
    Err(refusal(head.status.as_u16(), &problem))
}

fn broke_off(error: &dyn fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format!("the answer broke off: {error}"))
}

fn no_answer(socket: &Path, error: &ExchangeError) -> Failure {
    Failure::new(Exit::Refused, format!("no answer on {}: {error}", socket.display()))
}

pub(super) fn request(
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let builder = Request::builder()
        .method(method)
        .uri(format!("{BASE}{path}"))
        .header(header::HOST, "latchkey")
        .header(header::ACCEPT, "application/json");
    let built = match body {
        None => builder.body(Full::default()),
        Some(body) => builder
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string())),
    };
    built.map_err(|e| Failure::new(Exit::Usage, format!("not a request that can be sent: {e}")))
}

/// What a problem (RFC 9457) says, as a failure.
pub(super) fn refusal(status: u16, problem: &Value) -> Failure {
    let faults = find(problem, "errors").as_array().cloned().unwrap_or_default();
    // The faults say it all, one by one; the detail is their sum.
    let text = find(problem, if faults.is_empty() { "detail" } else { "title" });
    let mut lines = vec![if text.is_null() {
        format!("the server answered with status {status}")
    } else {
        show(text)
    }];
    let line = |fault| format!("{}: {}", show(find(fault, "field")), show(find(fault, "detail")));
    lines.extend(faults.iter().map(line));
    Failure::new(Exit::Refused, lines.join("\n"))
}

/// Fails if a server runs, as far as its socket tells.
pub(super) async fn require_no_server(config: &Config) -> Result<(), Failure> {
    let socket = &config.admin.socket;
    if UnixStream::connect(socket).await.is_err() {
        return check_owner(&config.store.path);
    }
    let message = format!("a latchkey answers on {}", socket.display());
    Err(Failure::new(Exit::Refused, message).hint("stop it first"))
}

/// Whether there is no server at all; a socket file left behind by a killed one refuses.
fn is_nobody(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused, io::ErrorKind::NotADirectory]
        .contains(&error.kind())
}

fn socket_failure(path: &Path, error: &io::Error) -> Failure {
    let failure =
        Failure::new(Exit::Refused, format!("cannot connect to {}: {error}", path.display()));
    if error.kind() == io::ErrorKind::PermissionDenied {
        return failure.hint("run it as the user latchkey runs as, or as a member of its group");
    }
    failure
}

/// Root opening another user's store would leave files behind that this user cannot open.
fn check_owner(store: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt as _;

    let directory = store.parent().filter(|d| !d.as_os_str().is_empty());
    let found = std::fs::metadata(store)
        .or_else(|_| std::fs::metadata(directory.unwrap_or_else(|| Path::new("."))));
    // What cannot be looked at will be complained about by the store.
    let Ok(found) = found else { return Ok(()) };
    let me = rustix::process::geteuid();
    if me.is_root() && found.uid() != me.as_raw() {
        let message = format!(
            "no server runs, and {} belongs to the user with id {}, not to root",
            store.display(),
            found.uid()
        );
        return Err(Failure::new(Exit::Store, message)
            .hint(format!("run it as that user: sudo -u '#{}' latchkey …", found.uid())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Override, Sources};

    fn config_in(directory: &Path) -> Config {
        let path = directory.join("latchkey.redb").display().to_string();
        let store = Override { flag: "test".into(), key: "store.path".into(), value: path };
        start::load(&Sources { overrides: vec![store], ..Sources::default() }).unwrap()
    }

    #[tokio::test]
    async fn without_server_and_store_lists_are_empty_and_nothing_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let client = Client::connect(config_in(directory.path()), Missing::Refuse).await.unwrap();
        assert_eq!(client.list("/shops").await, Ok(Vec::new()));
        let failure = client.get("/shops/acme").await.unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.message.contains("admin.sock") && failure.hint.is_some(), "{failure}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn without_server_the_store_answers_page_by_page() {
        let directory = tempfile::tempdir().unwrap();
        let client = Client::connect(config_in(directory.path()), Missing::Create).await.unwrap();
        for i in 0..=PAGE {
            let shop = json!({"id": format!("s{i:03}"), "url": "https://a.example"});
            client.call(Method::POST, "/shops", Some(&shop)).await.unwrap();
        }
        assert_eq!(client.list("/shops").await.unwrap().len(), PAGE + 1);
        let again = json!({"id": "s000", "url": "https://a.example"});
        let failure = client.call(Method::POST, "/shops", Some(&again)).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_nobody() {
        let directory = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(directory.path().join("admin.sock")));
        let client = Client::connect(config_in(directory.path()), Missing::Create).await.unwrap();
        assert_eq!(client.list("/shops").await, Ok(Vec::new()));
    }

    #[test]
    fn refusals_say_what_the_api_said() {
        let problem = json!({
            "title": "Input not acceptable", "status": 422, "detail": "url: is not a URL",
            "errors": [{"field": "url", "detail": "is not a URL"}],
        });
        let failure = refusal(422, &problem);
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.message, "Input not acceptable\nurl: is not a URL");
        let unknown = json!({"title": "Not found", "detail": "There is no such shop."});
        assert_eq!(refusal(404, &unknown).message, "There is no such shop.");
        assert_eq!(refusal(500, &Value::Null).message, "the server answered with status 500");
    }
}
