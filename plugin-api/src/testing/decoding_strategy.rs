//! Contract suite of decoding strategies: a fake engine with a model that counts.
//!
//! The model's answer to a sequence depends on its last token only, so that the right answer is
//! known whatever the strategy evaluates on the way.

use std::collections::BTreeMap;

use super::logits_processor::bytes_and_end;
use super::machine::Machine;
use super::{Make, make};
use crate::config::{Config, Value};
use crate::kinds::Capability;
use crate::kinds::decoding_strategy::{
    Action, Actions, DecodingStrategy, Evals, FinishReason, GroupId, Outcome, RequestView, Want,
};
use crate::kinds::kv_cache::SeqId;

/// Runs the whole suite on strategies made from `config`.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + DecodingStrategy + 'static>(config: &Config) {
    suite_of(&make::<dyn DecodingStrategy, T>, config);
}

/// The same for strategies that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn DecodingStrategy>, config: &Config) {
    let open = || {
        let mut strategy = make(config).expect("the configuration is the suite's own");
        attach(&mut *strategy);
        strategy
    };
    for prompt_len in [1, 7, 8, 9, 63, 257] {
        let prompt: Vec<u32> = (0..prompt_len).collect();
        answers_up_to_the_limit(&mut *open(), &prompt);
        answers_up_to_eos(&mut *open(), &prompt);
        ignores_eos_if_asked(&mut *open(), &prompt);
    }
    keeps_requests_apart(&mut *open());
    refuses_wrong_parameters(&mut *open());
    for _ in 0..100 {
        drop(open());
    }
}

/// Lends a strategy a host beside a model whose tokens are bytes.
///
/// # Panics
///
/// If it does not take it.
pub fn attach(strategy: &mut dyn DecodingStrategy) {
    let machine = Machine::new();
    machine.speak(bytes_and_end());
    strategy.attach(&machine.host("suite")).expect("it takes what the host lends");
}

/// What became of one request.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// Emitted tokens.
    pub tokens: Vec<u32>,
    /// Everything that was evaluated, in order.
    pub evaluated: Vec<u32>,
    /// Guesses at tokens that were to be evaluated.
    pub drafts: usize,
    /// Those of them that came true.
    pub accepted: usize,
    /// What was asked of the model.
    pub wants: Vec<Want>,
    /// How it ended.
    pub reason: Option<FinishReason>,
}

/// The token that the model answers with after `token`.
pub fn next_token(token: u32) -> u32 {
    token + 1
}

/// Runs one request to its end and closes it.
///
/// # Panics
///
/// If the strategy returns an error or does not end.
pub fn answer(strategy: &mut dyn DecodingStrategy, prompt: &[u32], params: &Config) -> Answer {
    answers(strategy, &[(prompt, params)]).remove(0)
}

/// Runs requests together, one evaluation of each per step.
fn answers(strategy: &mut dyn DecodingStrategy, requests: &[(&[u32], &Config)]) -> Vec<Answer> {
    let mut answers: Vec<Answer> = requests.iter().map(|_| Answer::default()).collect();
    for (index, (prompt, params)) in requests.iter().enumerate() {
        let request = RequestView { seq: SeqId(index as u32), prompt, params };
        strategy.open(GroupId(index as u32), &request).expect("the parameters are the suite's own");
    }
    let mut last_tokens: BTreeMap<SeqId, u32> = BTreeMap::new();
    let mut actions = Actions { next_seq: requests.len() as u32, ..Actions::default() };
    for _ in 0..1_000 {
        let mut is_idle = true;
        for (index, answer) in answers.iter_mut().enumerate() {
            if answer.reason.is_none() {
                is_idle = false;
                step(strategy, GroupId(index as u32), answer, &mut last_tokens, &mut actions);
            }
        }
        if is_idle {
            return answers;
        }
    }
    panic!("a request does not end: {answers:?}");
}

fn step(
    strategy: &mut dyn DecodingStrategy,
    group: GroupId,
    answer: &mut Answer,
    last_tokens: &mut BTreeMap<SeqId, u32>,
    actions: &mut Actions,
) {
    let mut evals = Evals::default();
    strategy.plan(group, &mut evals).expect("a plan");
    assert!(!evals.list.is_empty(), "an open request plans nothing");
    let mut results = Vec::new();
    let mut drafts = BTreeMap::new();
    for eval in &evals.list {
        assert!(eval.drafts < eval.len, "at least one token is no draft: {eval:?}");
        let tokens = &evals.tokens[eval.start..eval.start + eval.len];
        let (tokens, guessed) = tokens.split_at(eval.len - eval.drafts);
        let last = *tokens.last().expect("an evaluation of at least one token");
        let guessed = with_guesses(last, guessed, eval.guesses);
        answer.evaluated.extend(tokens);
        answer.wants.push(eval.want);
        answer.drafts += guessed.len();
        last_tokens.insert(eval.seq, last);
        let draft = guessed.first().copied();
        drafts.insert(eval.seq, guessed);
        let token = (eval.want != Want::Nothing).then(|| next_token(last));
        results.push(Outcome { seq: eval.seq, token, logprob: -0.5, draft });
        if let Want::Top { k } = eval.want {
            assert!(eval.drafts + eval.guesses == 0, "drafts of what is not chosen: {eval:?}");
            results.extend((1..k).map(|rank| {
                let token = Some(last.wrapping_add(rank.wrapping_mul(100_000)));
                Outcome { seq: eval.seq, token, logprob: -1.5 - rank as f32, draft: None }
            }));
        }
    }
    while !results.is_empty() && answer.reason.is_none() {
        observe(strategy, group, answer, &results, last_tokens, actions);
        // What was drafted and came true is asked about in the same step.
        results.retain_mut(|outcome| {
            let Some(drafts) = drafts.get_mut(&outcome.seq) else { return false };
            let Some(&draft) = drafts.first().filter(|&&draft| outcome.token == Some(draft)) else {
                return false;
            };
            drafts.remove(0);
            last_tokens.insert(outcome.seq, draft);
            answer.evaluated.push(draft);
            answer.accepted += 1;
            (outcome.token, outcome.draft) = (Some(next_token(draft)), drafts.first().copied());
            true
        });
    }
    if answer.reason.is_some() {
        strategy.close(group);
    }
}

/// Drafts with those of a draft model behind them, which is right but for each third.
fn with_guesses(last: u32, drafts: &[u32], guesses: usize) -> Vec<u32> {
    let mut all = drafts.to_vec();
    let mut before = drafts.last().copied().unwrap_or(last);
    for guess in 0..guesses {
        before = next_token(before).wrapping_add(u32::from(guess % 3 == 2));
        all.push(before);
    }
    all
}

/// Hands results over and notes what is asked for.
fn observe(
    strategy: &mut dyn DecodingStrategy,
    group: GroupId,
    answer: &mut Answer,
    results: &[Outcome],
    last_tokens: &mut BTreeMap<SeqId, u32>,
    actions: &mut Actions,
) {
    actions.list.clear();
    strategy.observe(group, results, actions).expect("the results are observed");
    for action in &actions.list {
        assert_eq!(answer.reason, None, "acts after the end: {action:?}");
        match *action {
            Action::Emit { token, logprob, .. } => {
                assert_eq!(logprob, -0.5, "passes the logarithm on");
                answer.tokens.push(token);
            }
            Action::Finish { reason } => answer.reason = Some(reason),
            Action::Fork { parent, child } => {
                last_tokens.insert(child, last_tokens[&parent]);
            }
            Action::Say { token, logprob } => {
                assert!(logprob == -0.5 || logprob == 0.0, "passes the logarithm on");
                answer.tokens.push(token);
            }
            Action::Copy { from, to } => {
                assert!(last_tokens.contains_key(&to), "starts over what is not there: {action:?}");
                last_tokens.insert(to, last_tokens[&from]);
            }
            Action::Release { .. } | Action::Advance { .. } => {}
        }
    }
}

fn with_eos(ids: &[i64]) -> Config {
    let ids: Vec<Value> = ids.iter().map(|&id| Value::Int(id)).collect();
    Config::new().with("eos_token_ids", ids)
}

/// `len` tokens after `prompt`.
fn chain(prompt: &[u32], len: u32) -> Vec<u32> {
    let last = prompt.last().copied().unwrap_or_default();
    (1..=len).map(|i| last + i).collect()
}

fn answers_up_to_the_limit(strategy: &mut dyn DecodingStrategy, prompt: &[u32]) {
    for limit in [1, 2, 9] {
        let answer = answer(strategy, prompt, &Config::new().with("max_tokens", limit));
        assert_eq!(answer.reason, Some(FinishReason::Length), "{limit} tokens");
        assert_eq!(answer.tokens, chain(prompt, limit), "{limit} tokens");
    }
}

fn answers_up_to_eos(strategy: &mut dyn DecodingStrategy, prompt: &[u32]) {
    let eos = i64::from(prompt[prompt.len() - 1]) + 4;
    let answer = answer(strategy, prompt, &with_eos(&[9_999, eos]));
    assert_eq!(answer.reason, Some(FinishReason::Stop));
    assert_eq!(answer.tokens, chain(prompt, 3), "the end-of-sequence token is not emitted");
}

fn ignores_eos_if_asked(strategy: &mut dyn DecodingStrategy, prompt: &[u32]) {
    let eos = i64::from(prompt[prompt.len() - 1]) + 4;
    let params = with_eos(&[eos]).with("ignore_eos", true).with("max_tokens", 6);
    let answer = answer(strategy, prompt, &params);
    assert_eq!(answer.reason, Some(FinishReason::Length));
    assert_eq!(answer.tokens, chain(prompt, 6));
}

fn keeps_requests_apart(strategy: &mut dyn DecodingStrategy) {
    let (two, five) = (Config::new().with("max_tokens", 2), Config::new().with("max_tokens", 5));
    // Twice, so that closed groups are opened anew.
    for _ in 0..2 {
        let together = answers(strategy, &[(&[100], &two), (&[1, 2], &five), (&[7], &two)]);
        let tokens: Vec<_> = together.iter().map(|answer| answer.tokens.clone()).collect();
        assert_eq!(tokens, [chain(&[100], 2), chain(&[2], 5), chain(&[7], 2)]);
    }
}

fn refuses_wrong_parameters(strategy: &mut dyn DecodingStrategy) {
    let params = Config::new().with("max_tokens", -1);
    let request = RequestView { seq: SeqId(0), prompt: &[1], params: &params };
    assert!(strategy.open(GroupId(0), &request).is_err(), "max_tokens = -1");
    let params = Config::new();
    let request = RequestView { seq: SeqId(0), prompt: &[], params: &params };
    assert!(strategy.open(GroupId(0), &request).is_err(), "an empty prompt");
    strategy.close(GroupId(0));
    let after = answer(strategy, &[1], &Config::new().with("max_tokens", 1));
    assert_eq!(after.tokens, [2], "a refused request leaves others alone");
}
