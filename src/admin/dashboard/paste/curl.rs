//! The part of curl's command line that makes a request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Described, add_field};

/// Options without a value that do not change what is asked for.
const FLAGS: [&str; 34] = [
    "silent",
    "show-error",
    "fail",
    "fail-with-body",
    "verbose",
    "include",
    "location",
    "insecure",
    "compressed",
    "http1.0",
    "http1.1",
    "http2",
    "http2-prior-knowledge",
    "http3",
    "no-buffer",
    "no-progress-meter",
    "progress-bar",
    "globoff",
    "ipv4",
    "ipv6",
    "remote-name",
    "remote-header-name",
    "tlsv1.2",
    "tlsv1.3",
    "tcp-nodelay",
    "tcp-fastopen",
    "no-keepalive",
    "disable",
    "raw",
    "basic",
    "bearer",
    "parallel",
    "create-dirs",
    "junk-session-cookies",
];

/// Options with a value that do not change what is asked for.
const VALUED: [&str; 22] = [
    "output",
    "write-out",
    "max-time",
    "connect-timeout",
    "retry",
    "retry-delay",
    "retry-max-time",
    "cacert",
    "capath",
    "cert",
    "key",
    "proxy",
    "resolve",
    "connect-to",
    "cookie-jar",
    "dump-header",
    "interface",
    "limit-rate",
    "max-redirs",
    "stderr",
    "trace-ascii",
    "unix-socket",
];

/// The long names of the letters.
const LETTERS: [(char, &str); 35] = [
    ('X', "request"),
    ('H', "header"),
    ('d', "data"),
    ('F', "form"),
    ('b', "cookie"),
    ('u', "user"),
    ('A', "user-agent"),
    ('e', "referer"),
    ('I', "head"),
    ('G', "get"),
    ('T', "upload-file"),
    ('s', "silent"),
    ('S', "show-error"),
    ('f', "fail"),
    ('v', "verbose"),
    ('i', "include"),
    ('L', "location"),
    ('k', "insecure"),
    ('0', "http1.0"),
    ('N', "no-buffer"),
    ('#', "progress-bar"),
    ('g', "globoff"),
    ('4', "ipv4"),
    ('6', "ipv6"),
    ('O', "remote-name"),
    ('J', "remote-header-name"),
    ('q', "disable"),
    ('Z', "parallel"),
    ('o', "output"),
    ('w', "write-out"),
    ('m', "max-time"),
    ('x', "proxy"),
    ('c', "cookie-jar"),
    ('D', "dump-header"),
    ('E', "cert"),
];

/// What an option means here.
enum Meaning {
    /// Nothing.
    Flag,
    /// Nothing, and it has a value.
    Valued,
    Head,
    Get,
    PathAsIs,
    Request,
    Url,
    Header,
    Data,
    Json,
    Form,
    Upload,
    Cookie,
    User,
    Agent,
    Referer,
    Bearer,
}

impl Meaning {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "head" => Self::Head,
            "get" => Self::Get,
            "path-as-is" => Self::PathAsIs,
            "request" => Self::Request,
            "url" => Self::Url,
            "header" => Self::Header,
            "data" | "data-raw" | "data-binary" | "data-ascii" | "data-urlencode" => Self::Data,
            "json" => Self::Json,
            "form" | "form-string" => Self::Form,
            "upload-file" => Self::Upload,
            "cookie" => Self::Cookie,
            "user" => Self::User,
            "user-agent" => Self::Agent,
            "referer" => Self::Referer,
            "oauth2-bearer" => Self::Bearer,
            _ if FLAGS.contains(&name) => Self::Flag,
            _ if VALUED.contains(&name) => Self::Valued,
            _ => return None,
        })
    }

    fn has_value(&self) -> bool {
        !matches!(self, Self::Flag | Self::Head | Self::Get | Self::PathAsIs)
    }
}

/// What the command line says so far.
#[derive(Default)]
struct Command {
    described: Described,
    url: Option<String>,
    /// What the method is if nobody names one.
    implied: Option<&'static str>,
    content_type: Option<&'static str>,
    user: Option<String>,
    get: bool,
    path_as_is: bool,
}

/// Reads a command line that begins with `curl`.
pub(super) fn parse(text: &str) -> Result<Described, String> {
    // A line that goes on: the shell drops the break, and shlex would begin a word with it.
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let words = shlex::split(&text).ok_or("a quote is not closed")?;
    let mut words = words.into_iter().skip(1);
    let mut command = Command::default();
    let mut only_urls = false;
    while let Some(word) = words.next() {
        if only_urls || !word.starts_with('-') || word == "-" {
            command.set_url(&word)?;
        } else if word == "--" {
            only_urls = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let meaning = Meaning::of(name).ok_or_else(|| not_understood(&format!("--{name}")))?;
            let value = if meaning.has_value() { value.or_else(|| words.next()) } else { None };
            command.apply(&meaning, &format!("--{name}"), value)?;
        } else {
            letters(&mut command, &word, &mut words)?;
        }
    }
    command.finish()
}

/// `-sSXPOST`: letters, the last of which may have a value.
fn letters(
    command: &mut Command,
    word: &str,
    words: &mut impl Iterator<Item = String>,
) -> Result<(), String> {
    let mut rest = word.chars();
    rest.next();
    while let Some(letter) = rest.next() {
        let shown = format!("-{letter}");
        let name = LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, name)| *name);
        let meaning = name.and_then(Meaning::of).ok_or_else(|| not_understood(&shown))?;
        if meaning.has_value() {
            let value = Some(rest.as_str().to_owned()).filter(|value| !value.is_empty());
            return command.apply(&meaning, &shown, value.or_else(|| words.next()));
        }
        command.apply(&meaning, &shown, None)?;
    }
    Ok(())
}

fn not_understood(option: &str) -> String {
    format!("the option `{option}` is not understood here; leave it out")
}

impl Command {
    fn set_url(&mut self, url: &str) -> Result<(), String> {
        if self.url.replace(url.to_owned()).is_some() {
            return Err("it names two URLs; leave one".to_owned());
        }
        Ok(())
    }

    fn apply(
        &mut self,
        meaning: &Meaning,
        option: &str,
        value: Option<String>,
    ) -> Result<(), String> {
        if meaning.has_value() && value.is_none() {
            return Err(format!("`{option}` lacks its value"));
        }
        let value = value.unwrap_or_default();
        match meaning {
            Meaning::Flag | Meaning::Valued => {}
            Meaning::Head => self.implied = Some("HEAD"),
            Meaning::Get => self.get = true,
            Meaning::PathAsIs => self.path_as_is = true,
            Meaning::Request => self.described.method = Some(value),
            Meaning::Url => self.set_url(&value)?,
            Meaning::Header => self.header(option, &value)?,
            Meaning::Data => {
                self.implied = Some("POST");
                self.content_type = Some("application/x-www-form-urlencoded");
            }
            Meaning::Json => {
                self.implied = Some("POST");
                self.content_type = Some("application/json");
                self.described.add("accept", "application/json");
            }
            Meaning::Form => {
                self.implied = Some("POST");
                self.content_type = Some("multipart/form-data");
            }
            Meaning::Upload => self.implied = Some("PUT"),
            Meaning::Cookie => self.described.add("cookie", &value),
            Meaning::User => self.user = Some(value),
            Meaning::Agent => self.described.add("user-agent", &value),
            Meaning::Referer => self.described.add("referer", &value),
            Meaning::Bearer => self.described.add("authorization", &format!("Bearer {value}")),
        }
        Ok(())
    }

    /// `Name: value`; `Name;` is an empty one, and `Name:` takes one of curl's own away.
    fn header(&mut self, option: &str, value: &str) -> Result<(), String> {
        if value.starts_with('@') {
            return Err(format!("`{option}` names a file, which is not read here"));
        }
        if let Some(name) = value.strip_suffix(';').filter(|name| !name.contains(':')) {
            self.described.add(name, "");
            return Ok(());
        }
        if value.split_once(':').is_some_and(|(_, value)| value.trim().is_empty()) {
            return Ok(());
        }
        add_field(&mut self.described, value).map_err(|problem| format!("`{option}` {problem}"))
    }

    fn finish(self) -> Result<Described, String> {
        let Self { mut described, url, implied, content_type, user, get, path_as_is } = self;
        let url = url.ok_or("it names no URL")?;
        described.set_url(&url);
        if !path_as_is {
            described.path = without_dots(&described.path);
        }
        let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        let in_url = authority.rsplit_once('@').map(|(user, _)| user.to_owned());
        if let Some(user) = user.or(in_url).filter(|_| !described.has("authorization")) {
            described.add("authorization", &format!("Basic {}", STANDARD.encode(user)));
        }
        let implied = if get && implied == Some("POST") { None } else { implied };
        if let Some(kind) = content_type.filter(|_| !get && !described.has("content-type")) {
            described.add("content-type", kind);
        }
        if described.method.is_none() {
            described.method = implied.map(str::to_owned);
        }
        Ok(described)
    }
}

/// The path that curl asks for: `.` and `..` are followed (RFC 3986 §5.2.4), the query is kept.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let path = format!("/{}", kept.join("/"));
    query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"))
}
