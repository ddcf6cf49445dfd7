//! Text comes out as it can be shown.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jackfield_engine::{Output, Request};
use jackfield_tests::{Setup, answer, tiny_model};
use plugin_api::testing::machine::Machine;

fn request(max_tokens: i64) -> Request {
    let request = Request::new(vec![510, 3, 7, 31]).with("max_tokens", max_tokens);
    request.with("ignore_eos", true).with("temperature", 0.8).with("seed", 5)
}

#[test]
fn what_is_streamed_is_the_answer_and_stop_texts_are_never_shown() {
    let folder = tiny_model("tiny");
    let setup = Setup::new("cpu");
    setup.subscribe_hooks(|plugin| Machine::new().host(plugin));
    let mut engine = setup.load(folder.path()).unwrap();
    let (whole, _) = answer(&mut engine, request(40));
    let characters: Vec<char> = whole.chars().collect();
    for (from, len) in [(3, 1), (5, 3), (9, 2), (12, 6)] {
        let stop: String = characters[from..from + len].iter().collect();
        let (mut shown, mut finished) = (String::new(), String::new());
        engine.submit(request(40).with("stop", stop.as_str())).unwrap();
        engine
            .run_to_end(&mut |output| match output {
                Output::Token { text, .. } => shown.push_str(text),
                Output::Finished { text, answer, .. } => {
                    shown.push_str(text);
                    answer.clone_into(&mut finished);
                }
            })
            .unwrap();
        let expected = &whole[..whole.find(&stop).unwrap()];
        assert_eq!((shown.as_str(), finished.as_str()), (expected, expected), "stop {stop:?}");
    }
}
