//! Headless Chromium, driven over the `WebDriver` protocol (W3C Recommendation, §6 to §17).
//!
//! Only what the tests use: open a page, run a script in it, take a picture. Everything that
//! is started here ends with the [`Browser`], and nothing waits longer than [`PATIENCE`].

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::request;

/// How long a call of the driver may take: a browser starts slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The driver's program; another place: environment variable `CHROMEDRIVER`.
const DRIVER: &str = "chromedriver";
/// The browser's programs, as distributions name them; another place: `CHROMIUM`.
const BROWSERS: [&str; 4] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
    "/snap/bin/chromium",
];
const INSTALL: &str = "install Debian's packages `chromium` and `chromium-driver` \
    (`tests/run tools` does), or set CHROMIUM and CHROMEDRIVER to their programs";

/// A running browser with one window; ends when dropped.
pub(crate) struct Browser {
    driver: Driver,
    session: String,
    _profile: Profile,
}

impl Browser {
    /// Starts a browser with a profile of its own.
    pub(crate) fn start() -> Self {
        let profile = Profile(tempfile::tempdir().expect("a temporary directory"));
        let driver = Driver::start();
        let folder = profile.0.path().display();
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--no-proxy-server",
            "--window-size=1280,800",
            &format!("--user-data-dir={folder}"),
        ];
        let options = json!({"binary": binary(), "args": args});
        let seconds = PATIENCE.as_millis();
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "timeouts": {"script": seconds, "pageLoad": seconds},
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": options,
        }}});
        let made = driver.call("POST", "/session", &capabilities);
        let session = made["sessionId"].as_str().expect("a session id").to_owned();
        Self { driver, session, _profile: profile }
    }

    /// Opens a page and waits until it is loaded.
    pub(crate) fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({"url": url}));
    }

    /// Runs the body of an `async` function in the page; what it returns, or an object
    /// `{"threw": "TypeError: ..."}`.
    pub(crate) fn run(&self, script: &str, args: &[Value]) -> Value {
        self.try_run(script, args).unwrap_or_else(|error| panic!("{error} in {script}"))
    }

    /// The same, where the page may be left while the script runs.
    fn try_run(&self, script: &str, args: &[Value]) -> Result<Value, String> {
        let script = format!(
            "const done = arguments[arguments.length - 1];\
             (async function() {{ {script} }}).apply(null, arguments)\
             .then(done, error => done({{threw: String(error)}}));"
        );
        let call = json!({"script": script, "args": args});
        self.driver.try_call("POST", &format!("/session/{}/execute/async", self.session), &call)
    }

    /// What the page's developer tools complain of since they were asked last: errors of scripts,
    /// violations of the content security policy, assets that are missing. That a page itself was
    /// answered with an error's status is none.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let logged = self.command("POST", "/se/log", &json!({"type": "browser"}));
        let entries = logged.as_array().expect("a log").iter();
        // Below a warning there is advice.
        let entries = entries.filter(|entry| entry["level"] != "DEBUG");
        let entries = entries.map(|entry| entry["message"].as_str().unwrap_or("?").to_owned());
        let about_a_page = |line: &str| {
            line.contains("the server responded with a status of 4") && !line.contains("/assets/")
        };
        entries.filter(|line| !about_a_page(line)).collect()
    }

    /// Fills in fields of the page: pairs of id and value.
    pub(crate) fn fill(&self, fields: &[(&str, &str)]) {
        for (id, value) in fields {
            let script = "const field = document.getElementById(arguments[0]);\
                field.value = arguments[1];\
                field.dispatchEvent(new Event('input', {bubbles: true})); return field.value;";
            let filled = self.run(script, &[json!(id), json!(value)]);
            assert_eq!(filled, *value, "{id} of {}", self.address());
        }
    }

    /// Clicks what leads to another page, and waits for that page.
    pub(crate) fn press(&self, selector: &str) {
        self.run("window.left = true;", &[]);
        self.click(selector);
        let arrived = "return !window.left && document.readyState === 'complete';";
        super::until(|| (self.try_run(arrived, &[]) == Ok(json!(true))).then_some(()));
    }

    /// The text of the first element that a CSS selector finds.
    #[track_caller]
    pub(crate) fn text(&self, selector: &str) -> String {
        let script = "const found = document.querySelector(arguments[0]);\
            return found && found.textContent.trim();";
        let text = self.run(script, &[json!(selector)]);
        text.as_str().unwrap_or_else(|| panic!("no {selector} at {}", self.address())).to_owned()
    }

    /// Has the browser's developer tools do something that `WebDriver` has no words for.
    pub(crate) fn devtools(&self, command: &str, params: &Value) -> Value {
        self.command("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// The address of the page.
    pub(crate) fn address(&self) -> String {
        let address = self.command("GET", "/url", &Value::Null);
        address.as_str().expect("an address").to_owned()
    }

    /// Goes back, as the button does.
    pub(crate) fn back(&self) {
        self.command("POST", "/back", &json!({}));
    }

    /// Clicks the element that a CSS selector finds, as a person does.
    pub(crate) fn click(&self, selector: &str) {
        let by = json!({"using": "css selector", "value": selector});
        let found = self.command("POST", "/element", &by);
        let id = found.as_object().and_then(|found| found.values().next()?.as_str());
        let path = format!("/element/{}/click", id.expect("an element"));
        self.command("POST", &path, &json!({}));
    }

    /// A picture of the window, PNG.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        let picture = self.command("GET", "/screenshot", &Value::Null);
        STANDARD.decode(picture.as_str().expect("a picture")).expect("base64")
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.driver.call(method, &format!("/session/{}{path}", self.session), body)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The orderly end; what outlives it ends with the profile.
        let path = format!("/session/{}", self.session);
        let _ = self.driver.try_call("DELETE", &path, &Value::Null);
    }
}

/// A site for a browser to be on: an empty page at every path, and under every name that leads
/// to this machine. Its thread ends with the process.
pub(crate) struct Pages {
    port: u16,
}

impl Pages {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || listener.incoming().flatten().for_each(serve_page));
        Self { port }
    }

    /// The origin of the site under the name `host`.
    pub(crate) fn origin(&self, host: &str) -> String {
        format!("http://{host}:{}", self.port)
    }
}

fn serve_page(mut stream: TcpStream) {
    // A browser opens connections ahead of need: none may keep the others waiting.
    std::thread::spawn(move || {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
            head.push(byte[0]);
        }
        let page = "<!doctype html><title>A page</title>";
        let length = page.len();
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{page}"
        );
    });
}

/// Where a browser keeps its files. When dropped, so is every process that was told of it: a
/// browser whose driver failed is nobody's child.
struct Profile(TempDir);

impl Drop for Profile {
    fn drop(&mut self) {
        let folder = self.0.path().to_string_lossy().into_owned();
        let told = |pid: &str| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&folder)
        };
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.parse::<u32>().is_ok() && told(&name) {
                let _ = Command::new("kill").args(["-KILL", &name]).status();
            }
        }
    }
}

/// A running chromedriver; killed when dropped.
struct Driver {
    child: Child,
    address: SocketAddr,
}

impl Driver {
    fn start() -> Self {
        let program = std::env::var("CHROMEDRIVER").unwrap_or_else(|_| DRIVER.to_owned());
        let mut child = Command::new(&program)
            .args(["--port=0", "--allowed-ips=127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; {INSTALL}"));
        let stdout = child.stdout.take().expect("a pipe");
        let (found, port) = mpsc::sync_channel(1);
        // Reads on to the end, so that the driver never waits for a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(port) = announced_port(&line) {
                    let _ = found.try_send(port);
                }
            }
        });
        let Ok(port) = port.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{program} did not say on which port it listens; {INSTALL}");
        };
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let call = request(method, path);
        let call = if body.is_null() { call } else { call.json(body) };
        let answer = call.try_send(self.address, PATIENCE).map_err(|error| error.to_string())?;
        let mut value = answer.json()["value"].take();
        if answer.status == 200 {
            return Ok(value);
        }
        Err(format!("{} {}", value["error"].take(), value["message"].take()))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port in `ChromeDriver was started successfully on port 40123.`
fn announced_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("started successfully on port ")?;
    rest.trim_end_matches('.').parse().ok()
}

fn binary() -> String {
    if let Ok(program) = std::env::var("CHROMIUM") {
        return program;
    }
    let found = BROWSERS.into_iter().find(|program| std::path::Path::new(program).exists());
    found.unwrap_or_else(|| panic!("there is no Chromium in {BROWSERS:?}; {INSTALL}")).to_owned()
}
