//! Over tokens that are bytes, with paths that say what a test wants.

use plugin_api::testing::decoding_strategy::{attach, suite};

use super::*;

/// What became of a request.
#[derive(Debug, Default, PartialEq)]
struct Told {
    text: String,
    reason: Option<FinishReason>,
    rounds: usize,
    forks: usize,
    advanced: usize,
}

/// Runs a request whose paths say these texts, each ending with the token 256. `chunk` paths are evaluated in a step.
fn run(paths: &[&str], params: &Config, chunk: usize) -> Told {
    let mut strategy = SelfConsistency::from_config(&Config::new()).unwrap();
    attach(&mut strategy);
    let params = params.clone().with("eos_token_ids", vec![Value::Int(256)]);
    let params = params.with("num_paths", paths.len() as i64);
    let (group, mut told) = (GroupId(0), Told::default());
    let request = RequestView { seq: SeqId(0), prompt: &[7, 8, 9], params: &params };
    strategy.open(group, &request).unwrap();
    let mut said = vec![0; paths.len()];
    let mut actions = Actions { next_seq: 1, ..Actions::default() };
    for round in 0..100 {
        let mut evals = Evals::default();
        strategy.plan(group, &mut evals).unwrap();
        let mut results = Vec::new();
        for eval in &evals.list {
            let tokens = &evals.tokens[eval.start..eval.start + eval.len];
            let path = eval.seq.0 as usize;
            let expected: &[u32] = match (round, said[path]) {
                (0, _) => &[7, 8],
                (_, 0) => &[9],
                (_, n) => &[u32::from(paths[path].as_bytes()[n - 1])],
            };
            assert_eq!(tokens, expected, "the prompt is evaluated once, but for its last token");
            let next = paths[path].as_bytes().get(said[path]).map_or(256, |byte| u32::from(*byte));
            let token = (eval.want == Want::Sample).then_some(next);
            said[path] += usize::from(token.is_some());
            results.push(Outcome { seq: eval.seq, token, logprob: -0.5, draft: None });
        }
        for part in results.rchunks(chunk) {
            actions.list.clear();
            strategy.observe(group, part, &mut actions).unwrap();
            for action in &actions.list {
                match *action {
                    Action::Say { token, .. } => told.text.push(token as u8 as char),
                    Action::Advance { .. } => told.advanced += 1,
                    Action::Fork { .. } => told.forks += 1,
                    Action::Finish { reason } => told.reason = Some(reason),
                    _ => {}
                }
            }
        }
        told.rounds = round;
        if told.reason.is_some() {
            return told;
        }
    }
    panic!("the request does not end: {told:?}");
}

#[test]
fn passes_the_contract_suite() {
    suite::<SelfConsistency>(&Config::new());
    suite::<SelfConsistency>(&Config::new().with("num_paths", 1));
}

#[test]
fn tells_the_path_whose_answer_most_agree_with() {
    #[rustfmt::skip]
    let cases: [(&str, &[&str], &str, usize); 6] = [
        // name                          paths                              told     rounds
        ("a majority",                   &["so 4", "= 5", "is 5"],          "= 5",   5),
        ("the same number",              &["4.0 a", "5", "4"],              "4",     6),
        ("the first of equals",          &["so 4", "=5"],                   "=5",    3),
        ("side by side, the first path", &["a4", "b5"],                     "a4",    3),
        ("no answers: the first to end", &["none", "no"],                   "no",    5),
        ("answers over none",            &["no", "none: 3"],                "none: 3", 8),
    ];
    for (name, paths, text, rounds) in cases {
        for chunk in 1..=paths.len() {
            let told = run(paths, &Config::new(), chunk);
            assert_eq!((&*told.text, told.reason), (text, Some(FinishReason::Stop)), "{name}");
            assert_eq!(told.rounds, rounds, "{name}");
            assert_eq!(told.forks, paths.len() - 1, "{name}");
        }
    }
}

#[test]
fn ends_when_the_rest_can_change_nothing() {
    let told = run(&["7", "7", "7", "8 or so", "9 or more"], &Config::new(), 5);
    assert_eq!((&*told.text, told.rounds, told.advanced), ("7", 2, 3 + 2 * 2));
}

#[test]
fn limits_and_patterns_are_those_of_the_request() {
    let told = run(&["ab1", "ab2", "xy3"], &Config::new().with("max_tokens", 2), 3);
    assert_eq!((&*told.text, told.reason), ("ab", Some(FinishReason::Length)));
    let pattern = Config::new().with("answer_pattern", "is ([a-z]+)");
    assert_eq!(run(&["is b 1", "is a", "is a 1"], &pattern, 2).text, "is a");
    let context = Config::new().with("context_tokens", 5);
    assert_eq!(run(&["abc", "abc"], &context, 2).text, "ab");
}

#[test]
fn without_chance_there_is_one_path() {
    let mut strategy = SelfConsistency::from_config(&Config::new()).unwrap();
    attach(&mut strategy);
    let params = &Config::new().with("temperature", 0);
    let request = RequestView { seq: SeqId(0), prompt: &[7, 8], params };
    strategy.open(GroupId(0), &request).unwrap();
    let mut evals = Evals::default();
    strategy.plan(GroupId(0), &mut evals).unwrap();
    assert_eq!((evals.list.len(), evals.list[0].want, evals.tokens), (1, Want::Argmax, vec![7, 8]));
}

#[test]
fn what_cannot_be_is_refused() {
    for (key, value) in [("num_paths", Value::Int(0)), ("answer_pattern", "(".into())] {
        let error = SelfConsistency::from_config(&Config::new().with(key, value)).unwrap_err();
        assert!(error.to_string().starts_with(key), "{error}");
    }
    let mut strategy = SelfConsistency::from_config(&Config::new()).unwrap();
    let (seq, prompt, params) = (SeqId(0), &[1][..], &Config::new());
    let error = strategy.open(GroupId(0), &RequestView { seq, prompt, params }).unwrap_err();
    assert!(error.to_string().contains("tokens of the model"), "{error}");
}
