//! What a model answers is rated, and becomes likelier where it is worth more: answers of an engine, plugins of the kind
//! `reward`, the objective `grpo`.

use std::sync::Arc;

use jackfield_engine::Engine;
use jackfield_engine::model::{LoadOptions, Tokenizer};
use jackfield_engine::train::{
    Checkpoints, Column, DatasetLoader, DatasetOptions, ExampleEncoder, Parameters, Question,
    RolloutOptions, Rollouts, TooLong, Trainer,
};
use jackfield_tests::{Setup, golden, tiny_model};
use plugin_api::prelude::*;
use plugin_api::{Kind, Provided};
use tempfile::TempDir;

use crate::components::with_component;
use crate::{architecture, setup, trainer_with};

const NUM_ANSWERS: usize = 4;
const LENGTH: usize = 14;

/// A run that learns from what `reward` finds.
struct Learner {
    setup: Setup,
    trainer: Trainer,
    rollouts: Rollouts,
    checkpoints: Checkpoints,
    folder: TempDir,
    config: String,
}

fn rewarded(reward: &str) -> Setup {
    let words = ["w", "g", "y"].map(Value::from).to_vec();
    let setup = setup("cpu").with("objective", "grpo").with("lr-schedule", "constant");
    let mut setup = setup.with("reward", reward).set("keywords", "words", words);
    let sizes = (NUM_ANSWERS * 2, LENGTH + 1);
    setup.options = LoadOptions {
        num_seqs_max: sizes.0,
        logit_rows_max: sizes.0,
        context_length_max: sizes.1,
        ..LoadOptions::default()
    };
    setup
}

fn options(seed: u64) -> RolloutOptions {
    RolloutOptions { num_answers: NUM_ANSWERS, length: LENGTH, temperature: 1.0, seed }
}

impl Learner {
    fn new(setup: Setup, seed: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let tokenizer = std::fs::read(golden("tiny.tokenizer.json")).unwrap();
        let checkpoints = Checkpoints::open(folder.path(), 1).unwrap();
        let checkpoints = checkpoints.with_files(vec![("tokenizer.json".to_owned(), tokenizer)]);
        let parameters = Parameters::random(&architecture(), seed).unwrap();
        let trainer = trainer_with(&setup, parameters, 1e-2);
        let rollouts = Rollouts::new(&setup.wiring, &setup.registry, options(seed)).unwrap();
        let config = std::fs::read_to_string(golden("tiny.config.json")).unwrap();
        Self { setup, trainer, rollouts, checkpoints, folder, config }
    }

    /// The model as it stands.
    fn engine(&self) -> Engine {
        let folder = self.folder.path().join("rollouts");
        let parameters = self.trainer.parameters();
        self.checkpoints.lay_out(&folder, parameters, &self.config).unwrap();
        self.setup.load(&folder).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Answers, learns from them, and says what they were worth.
    fn step(&mut self) -> f64 {
        let mut engine = self.engine();
        let step = self.trainer.num_steps_done();
        let rollouts = self.rollouts.answer(&mut engine, &questions(), step).unwrap();
        let reward = rollouts.iter().map(|rollout| rollout.reward).sum::<f64>() / 2.0;
        let mut batches = Vec::new();
        for rollout in rollouts {
            let mut batch = rollout.batch;
            let old = self.trainer.logprobs(&batch).unwrap();
            batch.set_column("old_logprobs", Column::F32(old));
            batches.push(batch);
        }
        self.trainer.step(&batches).unwrap();
        reward
    }
}

fn questions() -> Vec<Question> {
    let question = |tokens: &[u32]| Question { tokens: tokens.to_vec(), expected: None };
    vec![question(&[5, 6, 7]), question(&[300, 2])]
}

#[test]
fn what_is_rewarded_becomes_likelier() {
    for seed in [1, 2, 3] {
        let mut learner = Learner::new(rewarded("keywords"), seed);
        let rewards: Vec<f64> = (0..30).map(|_| learner.step()).collect();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&rewards[..6]), mean(&rewards[24..]));
        assert!(last > first + 0.1, "seed {seed}: {first:.3} then {last:.3}: {rewards:?}");
    }
}

#[test]
fn answers_are_those_of_the_model_in_training() {
    let mut learner = Learner::new(rewarded("keywords"), 1);
    let ask = |learner: &mut Learner, step| {
        let mut engine = learner.engine();
        learner.rollouts.answer(&mut engine, &questions(), step).unwrap()
    };
    let first = ask(&mut learner, 0);
    assert_eq!(first, ask(&mut learner, 0), "a run that is resumed hears the same");
    assert_ne!(first, ask(&mut learner, 1), "another step, other draws");
    for (rollout, question) in first.iter().zip(questions()) {
        let prompt = question.tokens.len();
        assert_eq!(rollout.batch.num_seqs(), NUM_ANSWERS);
        assert_eq!(rollout.batch.tokens[..prompt], question.tokens[..]);
        assert_eq!(rollout.batch.weights[..prompt - 1], vec![0.0; prompt - 1][..]);
        assert!(rollout.batch.num_tokens() <= NUM_ANSWERS * LENGTH);
        // What is drawn with a temperature of 1 is as likely to the trainer as to the engine.
        let logprobs = learner.trainer.logprobs(&rollout.batch).unwrap();
        assert!(logprobs.iter().all(|logprob| *logprob < 0.0 && *logprob > -12.0));
    }
    learner.step();
    assert_ne!(first, ask(&mut learner, 0), "the parameters are others");
}

/// Rates with what a test says.
#[derive(Debug)]
struct Odd(Vec<f64>);

impl Reward for Odd {
    fn rate(&mut self, _answers: &[RatedAnswer<'_>]) -> Result<Vec<f64>> {
        Ok(self.0.clone())
    }
}

#[test]
fn what_cannot_be_rated_or_answered_says_why() {
    let ask = |setup: &Setup, questions: &[Question]| {
        let mut rollouts = Rollouts::new(&setup.wiring, &setup.registry, options(1)).unwrap();
        let mut engine = setup.load(tiny_model("tiny").path()).unwrap();
        rollouts.answer(&mut engine, questions, 0).unwrap_err().to_string()
    };
    let none = setup("cpu");
    let error = Rollouts::new(&none.wiring, &none.registry, options(1)).unwrap_err().to_string();
    assert!(error.contains("plugins.reward") && error.contains("at least one"), "{error}");
    let error = ask(&rewarded("expected-answer"), &questions());
    assert!(error.contains("`expected-answer`") && error.contains("column `expected`"), "{error}");
    let long = Question { tokens: vec![5; LENGTH], expected: None };
    let error = ask(&rewarded("length"), &[long]);
    assert!(error.contains("expected at most 13 tokens, found 14"), "{error}");
    for odd in [vec![1.0; NUM_ANSWERS - 1], vec![f64::NAN; NUM_ANSWERS]] {
        let mut setup = rewarded("length");
        let (plugin, provided) = setup.registry.remove(<dyn Reward>::NAME, "length").unwrap();
        let make = Arc::new(move |_: &Config| {
            let instance: Box<dyn Reward> = Box::new(Odd(odd.clone()));
            Ok(Box::new(instance) as _)
        });
        let provided = provided.iter().map(|it| Provided { make: make.clone(), ..it.clone() });
        let provided = provided.collect();
        setup.registry.add(plugin, provided).unwrap();
        let error = ask(&setup, &questions());
        assert!(error.contains("reward `length`: expected 4 finite numbers"), "{error}");
    }
}

#[test]
fn a_reward_in_a_component_rates_alike() {
    let state = TempDir::new().unwrap();
    let rate = |setup: &Setup| {
        let mut rollouts = Rollouts::new(&setup.wiring, &setup.registry, options(3)).unwrap();
        let mut engine = setup.load(tiny_model("tiny").path()).unwrap();
        rollouts.answer(&mut engine, &questions(), 0).unwrap()
    };
    let linked = rate(&rewarded("keywords"));
    let loaded = rate(&with_component(state.path(), "reward/keywords", rewarded("keywords")));
    assert_eq!(linked, loaded);
}

#[test]
fn prompts_are_read_from_lines() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("prompts.jsonl");
    let lines = "{\"prompt\": \"ab\", \"expected\": 42}\n{\"prompt\": \"a very long prompt of many words\"}\n\
                 {\"prompt\": \"b\", \"expected\": \"x\", \"source\": 1}\n";
    std::fs::write(&path, lines).unwrap();
    let open = |too_long| {
        let tokenizer = Tokenizer::from_folder(tiny_model("tiny").path()).unwrap();
        let encoder = ExampleEncoder::new(tokenizer, None, 4, too_long);
        let (tokens_max, num_seqs_max, shuffle) = (16, 4, 1);
        let options =
            DatasetOptions { tokens_max, num_seqs_max, shuffle, seed: 1, line_bytes_max: 99 };
        DatasetLoader::open(std::slice::from_ref(&path), encoder, options).unwrap()
    };
    let mut loader = open(TooLong::Cut);
    let questions = loader.questions(3).unwrap();
    let expected: Vec<Option<&str>> =
        questions.iter().map(|question| question.expected.as_deref()).collect();
    assert_eq!(expected, [Some("42"), Some("x"), Some("42")]);
    assert_eq!((loader.passed().empty, loader.epoch()), (1, 1));
    assert!(questions.iter().all(|question| (1..4).contains(&question.tokens.len())));
    let error = open(TooLong::Refuse).questions(2).unwrap_err().to_string();
    assert!(error.contains("prompts.jsonl:2") && error.contains("of 1 to 3 tokens"), "{error}");
    let error = loader.batch().unwrap_err().to_string();
    assert!(error.contains("an answer to learn beside the prompt"), "{error}");
}
