//! An `OpenID` provider on loopback for people: authorization code with PKCE, as strict as the
//! standard has it, and as wrong as a test wants it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest;
use serde_json::{Value, json};

use super::http::Response;
use super::idp::{Key, unix_now};
use super::secrets;

pub(crate) const CLIENT_ID: &str = "latch key&co";
pub(crate) const CLIENT_SECRET: &str = "s3cret of the client: +/%& and more";

/// Changes what would be right.
type Change = Box<dyn Fn(&mut Value) + Send>;

/// How a request to an endpoint is answered.
#[derive(Clone, Default)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// This status with this body.
    Says(u16, String),
    /// Not at all.
    Silent,
}

/// What tests may change while it runs.
pub(crate) struct Manners {
    /// The person at the browser.
    pub(crate) claims: Value,
    /// Last word on the claims of ID tokens.
    pub(crate) change: Change,
    /// Last word on the discovery document.
    pub(crate) document: Change,
    /// Last word on a finished ID token.
    pub(crate) tamper: fn(String) -> String,
    pub(crate) signer: Key,
    /// The keys of the key set, if they are others than the signer's.
    pub(crate) published: Option<Vec<Value>>,
    pub(crate) userinfo: Option<Value>,
    pub(crate) discovery: Mood,
    pub(crate) token: Mood,
    pub(crate) public_client: bool,
    /// Shows a page with a link back, as a provider that asks the person does.
    pub(crate) asks_first: bool,
    /// Codes that were given out, and what for.
    codes: BTreeMap<String, BTreeMap<String, String>>,
    discoveries: usize,
}

pub(crate) struct OpenId {
    pub(crate) address: SocketAddr,
    manners: Arc<Mutex<Manners>>,
}

impl OpenId {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        secrets::minted(CLIENT_SECRET);
        let manners = Manners {
            claims: json!({
                "sub": "ada-1", "preferred_username": "ada", "groups": ["staff", "owners"],
            }),
            change: Box::new(|_| {}),
            document: Box::new(|_| {}),
            tamper: |token| token,
            signer: Key::es256("one"),
            published: None,
            userinfo: None,
            discovery: Mood::Well,
            token: Mood::Well,
            public_client: false,
            asks_first: false,
            codes: BTreeMap::new(),
            discoveries: 0,
        };
        let manners = Arc::new(Mutex::new(manners));
        let shared = Arc::clone(&manners);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, address, &shared));
            }
        });
        Self { address, manners }
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn manners(&self) -> MutexGuard<'_, Manners> {
        self.manners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn discoveries(&self) -> usize {
        self.manners().discoveries
    }

    /// What the browser does at the provider: it is asked for at `location`, the person agrees,
    /// and the browser is sent to what this returns.
    pub(crate) fn agree(&self, location: &str) -> String {
        let base = format!("{}/authorize?", self.issuer());
        let query = location.strip_prefix(&base).expect("the authorization endpoint");
        authorize(query, &self.issuer(), &mut self.manners())
    }
}

/// Checks an authorization request and makes a code for it; where the browser goes.
fn authorize(query: &str, issuer: &str, manners: &mut Manners) -> String {
    let asked = parameters(query);
    let get = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(get("response_type"), "code");
    assert_eq!(get("client_id"), CLIENT_ID);
    assert_eq!(get("code_challenge_method"), "S256");
    assert!(get("scope").split(' ').any(|scope| scope == "openid"), "{query}");
    assert!(get("state").len() >= 43 && get("nonce").len() >= 43, "{query}");
    assert_ne!(get("state"), get("nonce"));
    let code = format!("code+{}/{}", manners.codes.len(), get("nonce"));
    secrets::minted(&code);
    let (to, state) = (get("redirect_uri").to_owned(), encoded(get("state")));
    let target = format!("{to}?code={}&state={state}&iss={}", encoded(&code), encoded(issuer));
    manners.codes.insert(code, asked);
    target
}

fn serve(mut stream: TcpStream, address: SocketAddr, manners: &Mutex<Manners>) {
    let Some((head, body)) = read(&mut stream) else { return };
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let issuer = format!("http://{address}");
    let mut manners = manners.lock().unwrap_or_else(PoisonError::into_inner);
    let mood = match path {
        "/token" => manners.token.clone(),
        "/.well-known/openid-configuration" => {
            manners.discoveries += 1;
            manners.discovery.clone()
        }
        _ => Mood::Well,
    };
    let mut location = None;
    let (status, body) = match (mood, method, path) {
        (Mood::Says(status, body), ..) => (status, body),
        (Mood::Silent, ..) => {
            drop(manners);
            // Until the other side has had enough.
            let _ = stream.read(&mut [0]);
            return;
        }
        (Mood::Well, "GET", "/.well-known/openid-configuration") => {
            let mut document = json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token"),
                "userinfo_endpoint": format!("{issuer}/userinfo"),
                "jwks_uri": format!("{issuer}/jwks"),
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": true,
            });
            (manners.document)(&mut document);
            (200, document.to_string())
        }
        (Mood::Well, "GET", "/jwks") => {
            let keys = manners.published.clone();
            let keys = keys.unwrap_or_else(|| vec![manners.signer.jwk()]);
            (200, json!({ "keys": keys }).to_string())
        }
        (Mood::Well, "GET", "/authorize") => {
            let to = authorize(query, &issuer, &mut manners);
            if manners.asks_first {
                let to = to.replace('&', "&amp;");
                (200, format!("<!doctype html><a id=agree href=\"{to}\">Agree</a>"))
            } else {
                location = Some(to);
                (302, String::new())
            }
        }
        (Mood::Well, "GET", "/userinfo") => match &manners.userinfo {
            Some(said) if head.contains("\r\nauthorization: Bearer the access token") => {
                (200, said.to_string())
            }
            _ => (401, "{}".to_owned()),
        },
        (Mood::Well, "POST", "/token") => match token(&head, &body, &issuer, &mut manners) {
            Ok(answer) => (200, answer.to_string()),
            Err(error) => (400, json!({"error": error}).to_string()),
        },
        _ => (404, "{}".to_owned()),
    };
    drop(manners);
    let kind = if path == "/authorize" { "text/html" } else { "application/json" };
    let location = location.map_or_else(String::new, |to| format!("Location: {to}\r\n"));
    let _ = write!(
        stream,
        "HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\n{location}Content-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
}

/// A whole request: its head with field names in lower case, and its body.
fn read(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.to_ascii_lowercase();
            let length = length.split("\r\ncontent-length: ").nth(1);
            let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
            let length: usize = length.unwrap_or(0);
            if let Some(body) = bytes.get(end + 4..end + 4 + length) {
                return Some((head, String::from_utf8_lossy(body).into_owned()));
            }
        }
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            Ok(_) | Err(_) => return None,
        }
    }
}

/// Exchanges a code, once, for the client that it was given to, with the right verifier.
fn token(
    head: &str,
    body: &str,
    issuer: &str,
    manners: &mut Manners,
) -> Result<Value, &'static str> {
    let sent = parameters(body);
    let get = |name: &str| sent.get(name).map(String::as_str).unwrap_or_default();
    if manners.public_client {
        if get("client_id") != CLIENT_ID || head.contains("\r\nauthorization: ") {
            return Err("invalid_client");
        }
    } else {
        let basic = head.split("\r\nauthorization: Basic ").nth(1);
        let basic = basic.and_then(|rest| STANDARD.decode(rest.split("\r\n").next()?).ok());
        let basic = String::from_utf8(basic.ok_or("invalid_client")?).expect("a client's name");
        let (id, secret) = basic.split_once(':').ok_or("invalid_client")?;
        if decoded(id) != CLIENT_ID || decoded(secret) != CLIENT_SECRET {
            return Err("invalid_client");
        }
    }
    let asked = manners.codes.remove(get("code")).ok_or("invalid_grant")?;
    let challenge = digest::digest(&digest::SHA256, get("code_verifier").as_bytes());
    if get("grant_type") != "authorization_code"
        || get("redirect_uri") != asked["redirect_uri"]
        || URL_SAFE_NO_PAD.encode(challenge) != asked["code_challenge"]
    {
        return Err("invalid_grant");
    }
    let now = unix_now();
    let mut claims = manners.claims.clone();
    for (name, value) in [
        ("iss", json!(issuer)),
        ("aud", json!(CLIENT_ID)),
        ("nonce", json!(asked["nonce"])),
        ("iat", json!(now)),
        ("exp", json!(now + 300)),
    ] {
        claims[name] = value;
    }
    (manners.change)(&mut claims);
    if let Some(members) = claims.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    let id_token = (manners.tamper)(manners.signer.sign(&claims));
    Ok(json!({
        "access_token": "the access token", "token_type": "Bearer", "id_token": id_token,
    }))
}

/// A browser's cookies, as far as they matter here.
#[derive(Default, Clone)]
pub(crate) struct Jar(pub(crate) Vec<(String, String)>);

impl Jar {
    pub(crate) fn take(&mut self, response: &Response) {
        let fields = response.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie"));
        for (_, field) in fields {
            let (name, rest) = field.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            self.0.retain(|(known, _)| known != name);
            if !field.contains("Max-Age=0") && !field.contains("01 Jan 1970") {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn field(&self) -> String {
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }
}

pub(crate) fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().expect("a digit"), rest.next().expect("a digit")];
                let digits = std::str::from_utf8(&digits).expect("digits");
                u8::from_str_radix(digits, 16).expect("digits")
            }
            other => other,
        });
    }
    String::from_utf8(bytes).expect("UTF-8")
}

pub(crate) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02X}"))
}
