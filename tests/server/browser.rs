//! A browser without a window, told what to do in the words of WebDriver.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Connection, bytes, json_bytes};

/// Chromium and its driver, until they are dropped.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts one; nothing, with the reason printed, if it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut driver = Command::new("chromedriver");
        driver.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(driver) = driver.spawn() else {
            eprintln!("SKIP the page in a browser: chromedriver is not installed: chromium-driver");
            return None;
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut browser = Self { driver, address, session: String::new() };
        within("the driver answers", || TcpStream::connect(address).is_ok());
        // Without a sandbox of its own, which needs rights that tests may not have.
        let args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,800"];
        let logs = json!({ "browser": "ALL" });
        let wanted = json!({ "goog:chromeOptions": { "args": args }, "goog:loggingPrefs": logs });
        let session =
            browser.call("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let request = match method {
            "POST" => json_bytes(path, body),
            _ => bytes(method, path, &[], ""),
        };
        let mut answer = Connection::send(self.address, &request).answer();
        let mut answer: Value = serde_json::from_str(&std::mem::take(&mut answer.body)).unwrap();
        let value = answer["value"].take();
        assert!(value["error"].is_null(), "{path} {body}: {value}");
        value
    }

    fn ask(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("{}{path}", self.session), body)
    }

    pub(crate) fn open(&self, url: &str) {
        self.ask("/url", &json!({ "url": url }));
    }

    /// What a piece of JavaScript returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.ask("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text that is shown of the first element that a selector names.
    pub(crate) fn text(&self, selector: &str) -> String {
        let text =
            self.run(&format!("return document.querySelector({selector:?})?.innerText ?? ''"));
        text.as_str().unwrap().to_owned()
    }

    fn element(&self, selector: &str) -> String {
        let query = json!({ "using": "css selector", "value": selector });
        let found = self.ask("/element", &query);
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    pub(crate) fn click(&self, selector: &str) {
        self.ask(&format!("/element/{}/click", self.element(selector)), &json!({}));
    }

    /// Types into an element.
    pub(crate) fn keys(&self, selector: &str, text: &str) {
        let path = format!("/element/{}/value", self.element(selector));
        self.ask(&path, &json!({ "text": text }));
    }

    /// What the page complained about.
    pub(crate) fn errors(&self) -> Vec<String> {
        let log = self.ask("/se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE");
        entries.map(|entry| entry["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.call("DELETE", &self.session, &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Waits until something is so.
pub(crate) fn within(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < until, "expected that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The Enter key.
pub(crate) const ENTER: char = '\u{e007}';
/// The Escape key.
pub(crate) const ESCAPE: char = '\u{e00c}';
/// The upward arrow.
pub(crate) const UP: char = '\u{e013}';
