//! A request as people have it at hand: a curl command, or the head of an HTTP/1 request.
//!
//! Nothing is sent and no file is read. Messages repeat the names of options and fields, never
//! their values: they may be credentials.

mod curl;

use std::collections::BTreeMap;

use crate::admin::operations::explanation::{ExplainRequest, HeaderValues};

/// Most bytes of what is pasted.
pub(super) const PASTE_BYTES_MAX: usize = 64 * 1024;

/// Reads what was pasted, whichever it is. The error is for people.
pub(super) fn parse(text: &str, client: Option<String>) -> Result<ExplainRequest, String> {
    if text.len() > PASTE_BYTES_MAX {
        return Err(format!("it is longer than {} KiB", PASTE_BYTES_MAX / 1024));
    }
    let text = text.trim();
    let command = text.strip_prefix("$ ").unwrap_or(text).trim_start();
    let word = command.split_whitespace().next().unwrap_or_default();
    let described = match word {
        "" => return Err("there is nothing; paste a curl command or a request's head".to_owned()),
        "curl" | "curl.exe" => curl::parse(command)?,
        _ => head(text)?,
    };
    Ok(described.request(client))
}

/// A request, field by field.
#[derive(Default)]
struct Described {
    method: Option<String>,
    path: String,
    headers: BTreeMap<String, Vec<String>>,
}

impl Described {
    fn add(&mut self, name: &str, value: &str) {
        let values = self.headers.entry(name.to_ascii_lowercase()).or_default();
        values.push(value.to_owned());
    }

    fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    /// Takes path, host and credentials from a URL; one without a scheme begins with its host.
    fn set_url(&mut self, url: &str) {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        self.set_target(target);
        if !host.is_empty() && !self.has("host") {
            self.add("host", host);
        }
    }

    fn set_target(&mut self, target: &str) {
        let target = target.split('#').next().unwrap_or_default();
        let path = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        self.path = path;
    }

    fn request(self, client: Option<String>) -> ExplainRequest {
        let values = |(name, values): (String, Vec<String>)| (name, HeaderValues::Many(values));
        ExplainRequest {
            method: self.method.unwrap_or_else(|| "GET".to_owned()),
            path: self.path,
            headers: self.headers.into_iter().map(values).collect(),
            client,
        }
    }
}

/// The head of an HTTP/1 request (RFC 9112 §3, §5); what follows the empty line is its body.
fn head(text: &str) -> Result<Described, String> {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut parts = first.split_whitespace();
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return Err(
            "it begins neither with `curl` nor with a line such as `GET /path HTTP/1.1`".to_owned()
        );
    };
    if parts.next().is_some_and(|version| !version.starts_with("HTTP/")) || parts.next().is_some() {
        return Err("its first line is not `GET /path HTTP/1.1`".to_owned());
    }
    let mut described = Described { method: Some(method.to_owned()), ..Described::default() };
    for (line, number) in lines.zip(2..) {
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        add_field(&mut described, line).map_err(|problem| format!("line {number} {problem}"))?;
    }
    if target.starts_with('/') {
        described.set_target(target);
    } else {
        described.set_url(target);
    }
    Ok(described)
}

/// `Name: value`.
fn add_field(described: &mut Described, line: &str) -> Result<(), String> {
    let Some((name, value)) = line.split_once(':') else {
        return Err("is not `Name: value`".to_owned());
    };
    if name.is_empty() || name.contains([' ', '\t']) {
        return Err("does not begin with a field's name".to_owned());
    }
    described.add(name, value.trim());
    Ok(())
}

/// Lines of `Name: value`, added to `headers`.
pub(super) fn fields(
    text: &str,
    headers: &mut BTreeMap<String, HeaderValues>,
) -> Result<(), String> {
    let mut described = Described::default();
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    for (line, number) in lines {
        let added = add_field(&mut described, line.trim());
        added.map_err(|problem| format!("line {number} {problem}"))?;
    }
    for (name, mut values) in described.headers {
        let before = headers.remove(&name);
        let mut all = before.map_or_else(Vec::new, |values| values.as_slice().to_vec());
        all.append(&mut values);
        headers.insert(name, HeaderValues::Many(all));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Method, path and fields, as `name=value|value`.
    fn shown(text: &str) -> String {
        match parse(text, None) {
            Err(error) => format!("error: {error}"),
            Ok(request) => {
                let fields: Vec<String> = request
                    .headers
                    .iter()
                    .map(|(name, values)| format!(" {name}={}", values.as_slice().join("|")))
                    .collect();
                format!("{} {}{}", request.method, request.path, fields.concat())
            }
        }
    }

    #[test]
    fn curl_is_understood() {
        for (command, expected) in [
            ("curl https://a.example/x", "GET /x host=a.example"),
            ("$ curl a.example:8443", "GET / host=a.example:8443"),
            ("curl 'http://a.example?q=1#f'", "GET /?q=1 host=a.example"),
            ("curl -XPUT a.example/x", "PUT /x host=a.example"),
            ("curl -sSfL -X POST --url a.example/x", "POST /x host=a.example"),
            ("curl --request=DELETE a.example/x", "DELETE /x host=a.example"),
            (
                "curl a.example/x -d a=1",
                "POST /x content-type=application/x-www-form-urlencoded host=a.example",
            ),
            (
                "curl a.example/x --json '{}'",
                "POST /x accept=application/json content-type=application/json host=a.example",
            ),
            ("curl -G a.example/x -d a=1", "GET /x host=a.example"),
            ("curl -I a.example/x", "HEAD /x host=a.example"),
            (
                "curl -H 'X-Shop-API-Key: sk_1' a.example/x",
                "GET /x host=a.example x-shop-api-key=sk_1",
            ),
            ("curl -H 'A: 1' -H 'a: 2' a.example/", "GET / a=1|2 host=a.example"),
            ("curl -H 'Host: b.example' a.example/", "GET / host=b.example"),
            ("curl -H 'Accept:' -H 'X-Empty;' a.example/", "GET / host=a.example x-empty="),
            (
                "curl -b k=v -A me -e https://c.example/ a.example/",
                "GET / cookie=k=v host=a.example referer=https://c.example/ user-agent=me",
            ),
            ("curl -u me:pw a.example/", "GET / authorization=Basic bWU6cHc= host=a.example"),
            ("curl https://me:pw@a.example/", "GET / authorization=Basic bWU6cHc= host=a.example"),
            (
                "curl --oauth2-bearer tok a.example/",
                "GET / authorization=Bearer tok host=a.example",
            ),
            ("curl \\\n  -H \"A: b\" \\\n  a.example/x", "GET /x a=b host=a.example"),
            ("curl a.example/a/../b/./c", "GET /b/c host=a.example"),
            ("curl --path-as-is a.example/a/../b", "GET /a/../b host=a.example"),
            (
                "curl -o /dev/null -w '%{http_code}' --max-time 3 a.example/x",
                "GET /x host=a.example",
            ),
        ] {
            assert_eq!(shown(command), expected, "{command}");
        }
    }

    #[test]
    fn raw_heads_are_understood() {
        for (text, expected) in [
            (
                "GET /x HTTP/1.1\nHost: a.example\nOrigin: null\n\nbody: no",
                "GET /x host=a.example origin=null",
            ),
            ("POST /x\r\nA: 1\r\nA: 2\r\n", "POST /x a=1|2"),
            ("GET http://a.example/x?y HTTP/1.1", "GET /x?y host=a.example"),
            ("OPTIONS / HTTP/2", "OPTIONS /"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said_without_its_values() {
        for (text, said) in [
            ("", "nothing"),
            ("wget", "neither"),
            ("GET /a b c", "first line"),
            ("GET / HTTP/1.1\nsk_secret", "line 2"),
            ("GET / HTTP/1.1\n folded: sk_secret", "line 2"),
            ("curl", "URL"),
            ("curl -H", "`-H` lacks"),
            ("curl --frobnicate sk_secret a.example", "`--frobnicate`"),
            ("curl -H @sk_secret a.example", "file"),
            ("curl -H sk_secret a.example", "`Name: value`"),
            ("curl 'sk_secret", "quote"),
            ("curl a.example b.example", "two URLs"),
            ("curl -Q sk_secret a.example", "`-Q`"),
        ] {
            let answer = shown(text);
            assert!(answer.starts_with("error: ") && answer.contains(said), "{text}: {answer}");
            assert!(!answer.contains("sk_secret"), "{answer}");
        }
        assert!(shown(&"x".repeat(PASTE_BYTES_MAX + 1)).contains("64 KiB"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fall_over(text in "(curl )?[ -~äß\n\"']{0,80}") {
            let _ = parse(&text, None);
        }

        #[test]
        fn what_is_quoted_arrives(value in "[!-&(-~][ -&(-~]{0,39}") {
            let command = format!("curl -H 'x-a: {value}' a.example/x");
            let request = parse(&command, None).unwrap();
            prop_assert_eq!(request.headers["x-a"].as_slice(), [value.trim().to_owned()]);
        }
    }
}
