//! Plugins as components in an engine that runs: what they change is what they change builtin.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jackfield_engine::Request;
use jackfield_loader::{Grants, Services};
use jackfield_tests::{Setup, answer, component, tiny_model};

#[test]
fn a_hook_ends_an_answer_where_it_ends_builtin() {
    let (state, folder) = (tempfile::tempdir().unwrap(), tiny_model("tiny"));
    let request = || {
        let request = Request::new(vec![510, 3, 7]).strategy("greedy");
        request.with("max_tokens", 24).with("ignore_eos", true)
    };
    let (whole, _) = answer(&mut Setup::new("cpu").load(folder.path()).unwrap(), request());
    let length = whole.chars().count();
    let stop: String = whole.chars().skip(length / 2).take(2).collect();
    let stopped = |setup: &Setup| {
        setup.subscribe_hooks(|name| Services::new().host(name, Grants::none()));
        let mut engine = setup.load(folder.path()).unwrap();
        answer(&mut engine, request().with("stop", stop.as_str()))
    };
    let mut setup = Setup::new("cpu").with("hook", "stop-words");
    let builtin = stopped(&setup);
    assert!(builtin.0.len() < whole.len() && whole.starts_with(&builtin.0), "{builtin:?}");

    let hook = component(state.path(), "hook/stop-words");
    setup = Setup::new("cpu").with("hook", "stop-words");
    setup.registry.replace(hook.info(), hook.provided.clone()).unwrap();
    assert_eq!(stopped(&setup), builtin);
    let calls = hook.generation.unwrap().calls();
    assert!(calls >= builtin.1.len() as u64, "{calls} calls");
}

#[test]
fn routers_choose_the_experts_that_they_choose_builtin() {
    let (state, folder) = (tempfile::tempdir().unwrap(), tiny_model("tiny_mixtral"));
    let request = || {
        let request = Request::new(vec![510, 3, 7, 42, 99]).strategy("greedy");
        request.with("max_tokens", 24).with("ignore_eos", true)
    };
    let mut answers = Vec::new();
    for router in ["mixtral", "deepseek-v3", "switch"] {
        let mut setup = Setup::new("cpu").with("moe-router", router);
        let builtin = answer(&mut setup.load(folder.path()).unwrap(), request());
        let plugin = component(state.path(), &format!("moe-router/{router}"));
        setup.registry.replace(plugin.info(), plugin.provided.clone()).unwrap();
        let mut engine = setup.load(folder.path()).unwrap();
        let traced = plugin.generation.as_ref().unwrap().calls();
        assert!(traced > 0, "{router}: it is asked what it does");
        assert_eq!(answer(&mut engine, request()), builtin, "{router}");
        // It has said what it does: tokens cost no call.
        assert_eq!(plugin.generation.unwrap().calls(), traced, "{router}");
        assert_eq!(builtin.1.len(), 24);
        answers.push(builtin.1);
    }
    assert!(answers[0] != answers[1] && answers[0] != answers[2], "routers differ: {answers:?}");
}
