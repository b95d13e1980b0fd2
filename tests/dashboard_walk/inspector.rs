//! A browser that finds fault with every page it is shown: what axe-core objects to, errors of
//! scripts, violations of the content security policy, anything wider than the window, a secret
//! where none belongs.
//!
//! With the environment variable `LATCHKEY_SHOTS` set to a directory, a picture of each page is
//! left there, light and dark, wide and narrow.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::browser::Browser;
use crate::support::dashboard::{url, view, violations};
use crate::support::gateway::Gateway;
use crate::support::secrets;

const VIEWS: [(u32, bool); 4] = [(1280, false), (1280, true), (360, false), (360, true)];

/// A browser that finds fault with every page it is shown.
pub(super) struct Inspector<'g> {
    pub(super) browser: Browser,
    pub(super) gateway: &'g Gateway,
    /// What the pages hold: part of a picture's name.
    state: &'static str,
    pub(super) pictures: Option<PathBuf>,
    pub(super) faults: Vec<String>,
    /// How many pages were looked at.
    pub(super) seen: usize,
}

impl<'g> Inspector<'g> {
    pub(super) fn new(gateway: &'g Gateway, state: &'static str) -> Self {
        let pictures = std::env::var_os("LATCHKEY_SHOTS").map(PathBuf::from);
        let (browser, faults) = (Browser::start(), Vec::new());
        Self { browser, gateway, state, pictures, faults, seen: 0 }
    }

    /// Looks at an address.
    pub(super) fn open(&mut self, path: &str) {
        view(&self.browser, 1280, false);
        self.browser.open(&url(self.gateway, path));
        self.look(path);
    }

    /// Presses a button, even where the browser would not let it be, and looks at what comes.
    pub(super) fn press(&mut self, selector: &str, name: &str) {
        view(&self.browser, 1280, false);
        let script = "document.querySelectorAll('form').forEach(f => { f.noValidate = true; });\
            document.querySelectorAll('details').forEach(d => { d.open = true; });";
        self.browser.run(script, &[]);
        self.browser.press(selector);
        self.look(name);
    }

    /// Looks at an address, with all that the page folds away.
    pub(super) fn unfold(&mut self, path: &str, name: &str) {
        view(&self.browser, 1280, false);
        self.browser.open(&url(self.gateway, path));
        let script = "const all = document.querySelectorAll('main details');\
            [...all].slice(0, 4).forEach(d => { d.open = true; });";
        self.browser.run(script, &[]);
        self.look(name);
    }

    /// Fills in the form of an address, presses a button of it, and looks at what comes.
    pub(super) fn send(&mut self, path: &str, fields: &[(&str, &str)], button: &str, name: &str) {
        self.browser.open(&url(self.gateway, path));
        self.browser
            .run("document.querySelectorAll('details').forEach(d => { d.open = true; })", &[]);
        self.browser.fill(fields);
        self.press(button, name);
    }

    /// Looks at the page that is shown, on which no secret may stand.
    pub(super) fn look(&mut self, name: &str) {
        let html = self.browser.run("return document.documentElement.outerHTML", &[]);
        secrets::saw(html.as_str().expect("a page").as_bytes());
        self.look_at_secret(name);
    }

    /// Looks at a page that shows something this once.
    pub(super) fn look_at_secret(&mut self, name: &str) {
        self.seen += 1;
        let complaints = self.browser.complaints();
        self.faults.extend(complaints.iter().map(|said| format!("{name}: {said}")));
        if self.pictures.is_some() {
            for (width, dark) in VIEWS {
                self.picture(name, width, dark);
            }
        }
        // What is folded away counts too.
        let unfold = "document.querySelectorAll('details').forEach(d => { d.open = true; });";
        self.browser.run(unfold, &[]);
        for (width, dark) in VIEWS {
            view(&self.browser, width, dark);
            let found = violations(&self.browser);
            let scheme = if dark { "dark" } else { "light" };
            let state = self.state;
            let told = found.iter().map(|v| format!("{state} {name} {width} {scheme}: {v}"));
            self.faults.extend(told);
        }
        view(&self.browser, 1280, false);
    }

    pub(super) fn picture(&self, name: &str, width: u32, dark: bool) {
        let Some(folder) = &self.pictures else { return };
        view(&self.browser, width, dark);
        let height = "return document.documentElement.scrollHeight";
        let height = self.browser.run(height, &[]).as_u64().unwrap_or(900).clamp(900, 4000);
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let params = json!({"captureBeyondViewport": true, "clip": clip});
        let taken = self.browser.devtools("Page.captureScreenshot", &params);
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = name.trim_matches('/').chars().map(plain).take(60).collect();
        let scheme = if dark { "dark" } else { "light" };
        let file = format!("{}_{name}_{width}_{scheme}.png", self.state);
        let bytes = STANDARD.decode(taken["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(folder.join(file), bytes).expect("a file");
    }
}

impl Drop for Inspector<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.faults.is_empty(), "{:#?}", self.faults);
        }
    }
}
