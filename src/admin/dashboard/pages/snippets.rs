//! What to paste into a program or a page to use what was just made.
//!
//! Addresses are the configuration's where it knows them and marked where they are a guess. Every
//! value is quoted for the language it stands in, although none of those that come from here
//! needs it: the next one may.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::decision::policy::{Policies, Target};
use crate::decision::principal::Mechanism;
use crate::id::ShopId;
use crate::secret::SecretText;

/// Where the data plane is said to be when nobody knows.
const PLACEHOLDER: &str = "https://gateway.example";

/// Code in one language.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Snippet {
    /// What it is called on its tab.
    pub(super) title: &'static str,
    /// What its elements are named by.
    pub(super) id: &'static str,
    pub(super) code: String,
}

/// Where callers reach the data plane, as far as the admin plane can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gateway {
    /// Scheme and authority.
    pub(super) origin: String,
    /// What to say about it.
    pub(super) remark: &'static str,
}

impl Gateway {
    /// The host by which the browser reached this page, with the port of the data listener;
    /// without either a placeholder.
    pub(super) fn guess(host: Option<&str>, listen: SocketAddr, tls: bool) -> Self {
        let name = host.and_then(host_name).filter(|_| listen.port() != 0);
        let Some(name) = name else {
            return Self {
                origin: PLACEHOLDER.to_owned(),
                remark: "gateway.example stands for the address at which callers reach this \
                     gateway: replace it.",
            };
        };
        let (scheme, usual) = if tls { ("https", 443) } else { ("http", 80) };
        let mut origin = format!("{scheme}://{name}");
        if listen.port() != usual {
            // Writing to a `String` cannot fail.
            let _ = write!(origin, ":{}", listen.port());
        }
        let remark = "The address is a guess: the name by which you reached this page and the port \
             of the data listener. Replace it if a proxy stands in front.";
        Self { origin, remark }
    }
}

/// The name in a `Host` field, without its port; `None` if it holds anything a name does not.
fn host_name(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (inside, _) = rest.split_once(']')?;
            host.split_at_checked(inside.len().checked_add(2)?)?
        }
        None => host.split_at_checked(host.find(':').unwrap_or(host.len()))?,
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let good = !name.is_empty() && name.len() < 256 && name.bytes().all(plain);
    (good && port.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}

/// A path that an API key of `shop` may ask for, by the route table; `None`: no route takes keys.
pub(super) fn path_for_key(policies: &Policies, shop: &ShopId) -> Option<String> {
    let upstream = |target: &Target| matches!(target, Target::Upstream(_));
    let takes = |accepted: Mechanism| {
        policies.routes.iter().filter(move |route| route.mechanisms.contains(accepted))
    };
    let route = takes(Mechanism::ShopApiKey).find(|route| upstream(&route.target))?;
    route.paths.first().map(|pattern| example_path(&pattern.to_string(), shop))
}

/// A path that `pattern` matches.
fn example_path(pattern: &str, shop: &ShopId) -> String {
    let fixed = pattern.strip_suffix("/*").or(pattern.strip_suffix('*')).unwrap_or(pattern);
    let segment = |segment: &str| match segment {
        "{shopId}" => shop.to_string(),
        any if any.starts_with('{') => "x".to_owned(),
        literal => literal.to_owned(),
    };
    let path = fixed.split('/').map(segment).collect::<Vec<_>>().join("/");
    if path.is_empty() { "/".to_owned() } else { path }
}

/// How to call `url` with an API key.
pub(super) fn api_key(url: &str, secret: &SecretText) -> Vec<Snippet> {
    let (secret, url) = (secret.expose(), url);
    vec![
        Snippet { title: "curl", id: "curl", code: curl(url, secret) },
        Snippet { title: ".NET", id: "dotnet", code: dotnet(url, secret) },
        Snippet { title: "Python", id: "python", code: python(url, secret) },
        Snippet { title: "Node", id: "node", code: node(url, secret) },
    ]
}

fn curl(url: &str, secret: &str) -> String {
    let header = format!("X-Shop-API-Key: {secret}");
    format!("curl --fail-with-body \\\n  -H {} \\\n  {}\n", shell(&header), shell(url))
}

fn dotnet(url: &str, secret: &str) -> String {
    let (url, secret) = (quoted(url), quoted(secret));
    format!(
        "using var http = new HttpClient();\n\
         http.DefaultRequestHeaders.Add(\"X-Shop-API-Key\", {secret});\n\
         using var answer = await http.GetAsync({url});\n\
         answer.EnsureSuccessStatusCode();\n\
         Console.WriteLine(await answer.Content.ReadAsStringAsync());\n"
    )
}

fn python(url: &str, secret: &str) -> String {
    let (url, secret) = (quoted(url), quoted(secret));
    format!(
        "import requests\n\n\
         answer = requests.get(\n    {url},\n    headers={{\"X-Shop-API-Key\": {secret}}},\n    \
         timeout=10,\n)\nanswer.raise_for_status()\nprint(answer.text)\n"
    )
}

fn node(url: &str, secret: &str) -> String {
    let (url, secret) = (quoted(url), quoted(secret));
    format!(
        "const answer = await fetch({url}, {{\n  headers: {{ \"X-Shop-API-Key\": {secret} }},\n\
         }});\nif (!answer.ok) throw new Error(`${{answer.status}} ${{await answer.text()}}`);\n\
         console.log(await answer.text());\n"
    )
}

/// The element that loads a widget with its token. Where the widget's script lies is not ours to
/// know.
pub(super) fn widget(token: &SecretText) -> String {
    let token = token.expose();
    format!(
        "<script\n  src=\"https://cdn.example/widget.js\"\n  data-token=\"{}\"\n  \
         async></script>\n",
        attribute(token)
    )
}

/// How a program calls the admin API at `origin` with an admin token.
pub(super) fn admin(origin: &str, token: &SecretText) -> String {
    let header = format!("Authorization: Bearer {}", token.expose());
    let (header, url) = (shell(&header), shell(&format!("{origin}/api/v1/info")));
    format!("curl --fail-with-body \\\n  -H {header} \\\n  {url}\n")
}

/// As one word of a POSIX shell.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// As a literal of C#, Python and JavaScript alike: only escapes that all three know.
fn quoted(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => literal.extend(['\\', c]),
            c if c.is_control() || u32::from(c) > 0x7e => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    // Writing to a `String` cannot fail.
                    let _ = write!(literal, "\\u{unit:04x}");
                }
            }
            c => literal.push(c),
        }
    }
    literal.push('"');
    literal
}

/// As the value of an attribute in double quotes.
fn attribute(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(host: Option<&str>, listen: &str, tls: bool) -> String {
        Gateway::guess(host, listen.parse().unwrap(), tls).origin
    }

    #[test]
    fn the_gateway_is_guessed_from_a_plain_host_only() {
        assert_eq!(gateway(Some("lk.example:8081"), "0.0.0.0:443", true), "https://lk.example");
        assert_eq!(gateway(Some("lk.example"), "0.0.0.0:8080", false), "http://lk.example:8080");
        assert_eq!(gateway(Some("[::1]:8081"), "[::]:8080", false), "http://[::1]:8080");
        for host in ["", ":80", "a b", "a\"b", "x/y", "a:b", "[::1", "a'", "<b>", "é.example"] {
            assert_eq!(gateway(Some(host), "0.0.0.0:80", false), PLACEHOLDER, "{host}");
        }
        assert_eq!(gateway(Some("lk.example"), "0.0.0.0:0", false), PLACEHOLDER);
        assert_eq!(gateway(None, "0.0.0.0:80", false), PLACEHOLDER);
    }

    #[test]
    fn paths_of_routes() {
        let shop = ShopId::parse("demo").unwrap();
        for (pattern, path) in [
            ("/api/plugin/shops/{shopId}/*", "/api/plugin/shops/demo"),
            ("/shops/{shopId}/things", "/shops/demo/things"),
            ("/a/{any}/b*", "/a/x/b"),
            ("/*", "/"),
        ] {
            assert_eq!(example_path(pattern, &shop), path);
        }
    }

    #[test]
    fn hostile_values_stay_values() {
        let hostile = "a'b\"c\\d</script>\n$(id)`x`é\u{1f511}";
        let secret = SecretText::new(hostile.to_owned());
        let made = api_key("https://x.example/'\"", &secret);
        let code = |id| &made.iter().find(|s: &&Snippet| s.id == id).unwrap().code;
        assert_eq!(
            shlex::split(code("curl").replace("\\\n", "").trim()).unwrap(),
            [
                "curl",
                "--fail-with-body",
                "-H",
                &*format!("X-Shop-API-Key: {hostile}"),
                "https://x.example/'\""
            ],
        );
        let literal = quoted(hostile);
        assert!(literal.is_ascii());
        assert_eq!(serde_json::from_str::<String>(&literal).unwrap(), hostile);
        for id in ["dotnet", "python", "node"] {
            assert!(code(id).contains(&literal), "{id}");
        }
        assert!(widget(&secret).contains("data-token=\"a'b&quot;c\\d&lt;/script>"));
    }

    #[test]
    fn the_admin_api_is_called_where_the_browser_reached_it() {
        let code = admin("https://lk.example:8081", &SecretText::new("lka_1".to_owned()));
        let words = shlex::split(&code.replace("\\\n", "")).unwrap();
        let last = words.last().unwrap();
        assert_eq!(last.trim(), "https://lk.example:8081/api/v1/info");
        assert!(words.contains(&"Authorization: Bearer lka_1".to_owned()));
    }

    #[test]
    fn snippets_name_header_and_url() {
        let made = api_key("https://x.example/p", &SecretText::new("sk_1".to_owned()));
        assert_eq!(made.iter().map(|s| s.title).collect::<Vec<_>>().len(), 4);
        for snippet in made {
            let code = snippet.code;
            for wanted in ["X-Shop-API-Key", "sk_1", "https://x.example/p"] {
                assert!(code.contains(wanted), "{code}");
            }
        }
    }
}
