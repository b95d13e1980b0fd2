//! What was written: the sources merged by figment into one tree that remembers, for every
//! value, where it stands.
//!
//! A file's values keep their TOML types. A variable or a flag is text, and becomes a number or a
//! boolean only when the key that is read wants one; `[…]` and `{…}` are lists and tables. This
//! module knows no key.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::credential::Credentials;
use super::{ConfigError, ConfigFile, Sources};

/// Tables that stand when no source gives them.
const DEFAULTS: &str = include_str!("defaults.toml");

/// Longest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Deepest nesting of a key or of a value given as text; no key is deeper than four.
const DEPTH_MAX: usize = 16;

/// Prefix of the variables that are configuration.
const PREFIX: &str = "LATCHKEY_";

/// Variables of the command line, not of the configuration, without their prefix.
const NOT_CONFIGURATION: [&str; 3] = ["CONFIG", "SOCKET", "ADMIN_TOKEN"];

/// Marks, in figment's metadata, a source whose values are text.
const TEXTUAL: &str = "text";

/// systemd's directory of credentials (`systemd.exec(5)`).
pub(super) const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Whether the environment variable `name` can matter here. The others are not kept: they may
/// hold secrets, and an admin token is one.
pub(super) fn is_read(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let ours = name.strip_prefix(PREFIX);
    ours.is_some_and(|rest| !NOT_CONFIGURATION.contains(&rest)) || name == CREDENTIALS
}

/// Where a value stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// A file, a variable or a flag; `None`: a default.
    pub(super) name: Option<String>,
    /// Whether it is text that may stand for a number or a boolean.
    pub(super) textual: bool,
}

/// All sources, merged.
#[derive(Debug)]
pub(super) struct Tree {
    figment: Figment,
    /// The merged values.
    pub(super) root: Dict,
    /// What values that name a credential stand for.
    pub(super) credentials: Credentials,
}

impl Tree {
    /// Merges `sources`, weakest first; every source that cannot be read is an error.
    pub(super) fn merge(sources: &Sources) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut layers = Vec::new();
        let mut add = |read: Result<Option<Layer>, ConfigError>| match read {
            Ok(layer) => layers.extend(layer),
            Err(error) => errors.push(error),
        };
        add(parse("", DEFAULTS).map(Some));
        add(read_file(&sources.file));
        for (name, value) in &sources.environment {
            add(read_variable(name, value));
        }
        for flag in &sources.overrides {
            let keys: Vec<&str> = flag.key.split('.').collect();
            add(Layer::textual(&flag.flag, &keys, &flag.value).map(Some));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let directory = sources.environment.get(OsStr::new(CREDENTIALS)).map(PathBuf::from);
        let credentials = Credentials::new(directory);
        let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
        match figment.find_value("").map(Value::into_dict) {
            Ok(root) => Ok(Self { figment, root: root.unwrap_or_default(), credentials }),
            Err(error) => Err(vec![ConfigError::of_source("", error.to_string())]),
        }
    }

    /// Where `value`, a part of this tree, stands.
    pub(super) fn place(&self, value: &Value) -> Place {
        match self.figment.get_metadata(value.tag()) {
            Some(meta) if !meta.name.is_empty() => {
                Place { name: Some(meta.name.to_string()), textual: meta.source.is_some() }
            }
            Some(_) | None => Place::default(),
        }
    }
}

/// One source.
struct Layer {
    name: String,
    textual: bool,
    data: Dict,
}

impl Layer {
    /// `value` at the path `keys`.
    fn textual(name: &str, keys: &[&str], value: &str) -> Result<Self, ConfigError> {
        if keys.len() > DEPTH_MAX {
            let message = "unknown key; no key has that many levels".to_owned();
            return Err(ConfigError::of_source(name, message));
        }
        let (first, below) = keys.split_first().unwrap_or((&"", &[]));
        let value = below.iter().rev().fold(from_text(value), |value, key| {
            Value::from(Map::from([((*key).to_owned(), value)]))
        });
        let data = Dict::from([((*first).to_owned(), value)]);
        Ok(Self { name: name.to_owned(), textual: true, data })
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let metadata = Metadata::named(self.name.clone());
        if self.textual { metadata.source(TEXTUAL) } else { metadata }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.data.clone())]))
    }
}

/// The value that `text` stands for: a list or a table where it is written as one, else itself.
fn from_text(text: &str) -> Value {
    let written_out = text.trim_start().starts_with(['[', '{']);
    let depth = text.chars().try_fold(0_usize, |depth, c| match c {
        '[' | '{' if depth == DEPTH_MAX => None,
        '[' | '{' => Some(depth + 1),
        ']' | '}' => Some(depth.saturating_sub(1)),
        _ => Some(depth),
    });
    if written_out
        && depth.is_some()
        && let Ok(value) = text.parse::<Value>()
        && (value.as_array().is_some() || value.as_dict().is_some())
    {
        return value;
    }
    Value::from(text)
}

fn read_file(file: &ConfigFile) -> Result<Option<Layer>, ConfigError> {
    match file {
        ConfigFile::Absent => Ok(None),
        ConfigFile::Inline { name, text } => parse(name, text).map(Some),
        ConfigFile::Required(path) => read_path(path),
        // Asked in one step: a file that vanishes between a question and an opening is absent.
        ConfigFile::Optional(path) => match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Ok(_) | Err(_) => read_path(path),
        },
    }
}

fn read_path(path: &Path) -> Result<Option<Layer>, ConfigError> {
    let name = path.display().to_string();
    let fail = |message: String| ConfigError::of_source(&name, message);
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|e| fail(format!("cannot be read: {e}; name another with --config")))?;
    if u64::try_from(bytes.len()).map_or(true, |n| n > FILE_BYTES_MAX) {
        return Err(fail("is larger than 1 MiB; this is not a configuration".into()));
    }
    let text = String::from_utf8(bytes).map_err(|_| fail("is not UTF-8 text".into()))?;
    parse(&name, &text).map(Some)
}

fn parse(name: &str, text: &str) -> Result<Layer, ConfigError> {
    // Editors of Windows put a byte order mark in front; TOML has none.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match Toml::from_str::<Dict>(text) {
        Ok(data) => Ok(Layer { name: name.to_owned(), textual: false, data }),
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let (line, column) = line_and_column(text, start);
            let message = match error.message().trim() {
                // The parser says nothing of some faults.
                "" => "this is no TOML".to_owned(),
                message => message.replace('\n', ", "),
            };
            let place = format!("{name}:{line}:{column}");
            Err(ConfigError::of_source(&place, message))
        }
    }
}

/// Line and column (in characters) of the byte at `offset`, both from one.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let last_line = before.rsplit('\n').next().unwrap_or_default();
    (line, last_line.chars().count() + 1)
}

/// The layer of one environment variable; `None` if it is not about the configuration.
fn read_variable(name: &OsStr, value: &OsStr) -> Result<Option<Layer>, ConfigError> {
    let name = name.to_string_lossy();
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return Ok(None);
    };
    let Some(value) = value.to_str() else {
        let message = "its value is not UTF-8 text".to_owned();
        return Err(ConfigError::of_source(&name, message));
    };
    if NOT_CONFIGURATION.contains(&rest) || is_service_link(rest, value) {
        return Ok(None);
    }
    let rest = match rest {
        "MASTER_KEY_FILE" => "STORE__MASTER_KEY_FILE".to_owned(),
        _ => rest.to_owned(),
    };
    let lower = rest.to_ascii_lowercase();
    let keys: Vec<&str> = lower.split("__").collect();
    Layer::textual(&name, &keys, value).map(Some)
}

/// Whether it is a variable that Kubernetes sets in every container near a service whose name
/// begins with `latchkey` (`LATCHKEY_SERVICE_HOST`, `LATCHKEY_PORT_8080_TCP_ADDR`, …). No key of
/// the configuration looks like one.
fn is_service_link(rest: &str, value: &str) -> bool {
    let ends = |tail: &str| rest == tail || rest.ends_with(&format!("_{tail}"));
    let holds = |part: &str| rest.starts_with(part) || rest.contains(&format!("_{part}"));
    let numbered_port = || {
        let mut words = rest.split('_').skip_while(|w| *w != "PORT").skip(1);
        words.next().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    let link = ["tcp://", "udp://", "sctp://"];
    ends("SERVICE_HOST")
        || ends("SERVICE_PORT")
        || holds("SERVICE_PORT_")
        || (ends("PORT") && link.iter().any(|scheme| value.starts_with(scheme)))
        || numbered_port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_the_parser_has_no_words_for_has_some() {
        let Err(error) = parse("a.toml", "[server]\nworkers = ") else {
            panic!("that is no TOML");
        };
        assert_eq!(error.to_string(), "a.toml:2:11: this is no TOML");
    }
}
