//! The page at `/` as people use it: with keyboard and mouse, in a browser.

use plugin_api::Config;

use crate::browser::{Browser, ENTER, ESCAPE, UP, within};
use crate::service::{Service, completion};

const LAST: &str = ".message.assistant:last-child";

/// Asks, and waits for the whole answer.
fn ask(browser: &Browser, question: &str) -> String {
    let before = count(browser);
    browser.keys("#question", &format!("{question}{ENTER}"));
    within("an answer comes to its end", || {
        count(browser) >= before + 2 && browser.run(IS_IDLE) == true
    });
    browser.text(&format!("{LAST} .text"))
}

fn count(browser: &Browser) -> u64 {
    browser.run("return document.querySelectorAll('.message').length").as_u64().unwrap()
}

const IS_IDLE: &str = "return document.getElementById('stop').hidden";

/// What the server answers to the same question.
fn expected(service: &Service, question: &str) -> String {
    let messages = [serde_json::json!({ "role": "user", "content": question })];
    let body = serde_json::json!({
        "model": crate::service::MODEL, "messages": messages, "temperature": 0, "max_tokens": 16,
    });
    let answer = service.post("/v1/chat/completions", &body).json();
    answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn a_conversation_is_streamed_stopped_repeated_and_edited() {
    let service = Service::new();
    let Some(browser) = Browser::start() else { return };
    browser.open(&format!("http://{}/#settings", service.address));
    within("the server is seen to be ready", || browser.text("#health") == "ready");
    for (field, value) in [("temperature", "0"), ("max_tokens", "16")] {
        let clear = format!("document.querySelector('[name={field}]').value = ''");
        browser.run(&clear);
        browser.keys(&format!("[name={field}]"), value);
    }
    browser.click("[data-tab=chat]");

    let first = ask(&browser, "one two");
    assert_eq!(first.trim(), expected(&service, "one two").trim());
    assert!(browser.text(&format!("{LAST} .foot")).contains("tokens, first after"));

    browser.click(&format!("{LAST} .foot button"));
    within("the answer is made again", || {
        browser.run(IS_IDLE) == true && browser.text(&format!("{LAST} .text")) == first
    });
    assert_eq!(count(&browser), 2);

    // While no step happens, the answer stays unfinished until it is stopped.
    service.gate.set(false);
    browser.keys("#question", &format!("three{ENTER}"));
    within("an answer is awaited", || browser.run(IS_IDLE) == false);
    browser.keys("#question", &ESCAPE.to_string());
    within("it is stopped", || browser.run(IS_IDLE) == true);
    assert!(browser.text(&format!("{LAST} .foot")).contains("stopped"));
    service.gate.set(true);

    browser.keys("#question", &UP.to_string());
    assert_eq!(browser.run("return document.getElementById('question').value"), "three");
    assert_eq!(count(&browser), 2);

    // What was said is still there when the page is opened again.
    browser.open(&format!("http://{}/", service.address));
    within("the conversation is back", || count(&browser) == 2);
    browser.click("#new-chat");
    assert_eq!(count(&browser), 0);
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn mistakes_are_shown_where_they_happen() {
    let service = Service::with(Config::at("server").with("max_queued", 0), |setup| {
        setup.options.num_seqs_max = 1;
    });
    let Some(browser) = Browser::start() else { return };
    browser.open(&format!("http://{}/", service.address));
    within("the server is seen to be ready", || browser.text("#health") == "ready");
    service.gate.set(false);
    let other = service.open("/v1/completions", &completion("a", 4));
    service.wait_for("num_requests_waiting", 1.0);
    ask(&browser, "one");
    let told = browser.text(&format!("{LAST} .error"));
    assert!(told.contains("the queue is full"), "{told}");
    service.gate.set(true);
    drop(other);
}

#[test]
fn numbers_and_models_are_shown() {
    let service = Service::new();
    let Some(browser) = Browser::start() else { return };
    browser.open(&format!("http://{}/#models", service.address));
    within("the model is listed", || browser.text("#model-rows").contains("tiny"));
    browser.click("[data-tab=live]");
    within("requests are counted", || browser.text("#live").contains("0 / 0"));
    browser.click("[data-tab=settings]");
    for (theme, expected) in [("light", "rgb(245, 246, 248)"), ("dark", "rgb(20, 24, 29)")] {
        browser.click(&format!("[name=theme][value={theme}]"));
        let colour = browser.run("return getComputedStyle(document.body).backgroundColor");
        assert_eq!(colour, expected, "{theme}");
    }
    assert_eq!(browser.errors(), Vec::<String>::new());
}
