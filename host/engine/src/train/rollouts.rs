//! Answers of the model in training, rated: what a run learns from where nobody wrote the answers.

use std::collections::BTreeMap;
use std::fmt;

use jackfield_runtime::Registry;
use plugin_api::Reward;
use plugin_api::kinds::decoding_strategy::FinishReason;
use plugin_api::kinds::reward::RatedAnswer;
use sha2::{Digest as _, Sha256};

use super::dataset::Question;
use super::loader::TokenBatch;
use crate::error::EngineError;
use crate::generate::{Engine, Output, Prompt, Request, RequestId};
use crate::model::Tokenizer;
use crate::wiring::Wiring;

/// How prompts are answered.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutOptions {
    /// Answers to each prompt.
    pub num_answers: usize,
    /// Most rows of prompt and answer together: tokens that predict one.
    pub length: usize,
    /// Of the draws; 1 draws from the model as it is.
    pub temperature: f64,
    /// Of the draws of the whole run.
    pub seed: u64,
}

/// The answers to one prompt, as a micro-batch with the columns `group` and `rewards`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// One sequence for each answer.
    pub batch: TokenBatch,
    /// The mean of what they are worth.
    pub reward: f64,
    /// The mean of their tokens.
    pub num_tokens: f64,
}

/// Lets an engine answer prompts and the plugins of the kind `reward` rate what it says.
pub struct Rollouts {
    /// With the names of their plugins; what they find is added up.
    rewards: Vec<(String, Box<dyn Reward>)>,
    options: RolloutOptions,
}

/// An answer as it comes in.
#[derive(Debug, Default)]
struct Answer {
    tokens: Vec<u32>,
    text: String,
    reason: Option<FinishReason>,
}

impl Rollouts {
    /// Rollouts with the rewards that `wiring` names.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names a plugin which cannot be made; if there is none.
    pub fn new(
        wiring: &Wiring,
        registry: &Registry,
        options: RolloutOptions,
    ) -> Result<Self, EngineError> {
        let rewards = wiring.make_all::<dyn Reward>(registry)?;
        if rewards.is_empty() {
            return Err(EngineError::inconsistent("plugins.reward", "at least one plugin", "none"));
        }
        Ok(Self { rewards, options })
    }

    /// Answers to each of the questions, drawn as `step` and the seed of the run decide: the same engine says the same
    /// again.
    ///
    /// # Errors
    ///
    /// [`EngineError::Request`] for a prompt that leaves no room for an answer or that a hook refuses;
    /// [`EngineError::Plugin`] if the engine or a reward fails, or what a reward finds is no number.
    pub fn answer(
        &mut self,
        engine: &mut Engine,
        questions: &[Question],
        step: u64,
    ) -> Result<Vec<Rollout>, EngineError> {
        let mut answers = BTreeMap::<RequestId, Answer>::new();
        let mut asked = Vec::with_capacity(questions.len());
        for (number, question) in questions.iter().enumerate() {
            let requests = (0..self.options.num_answers).map(|answer| {
                let request = self.request(question, self.seed_of(step, number, answer))?;
                engine.submit(request)
            });
            asked.push(requests.collect::<Result<Vec<_>, _>>()?);
        }
        let mut failed = None;
        engine.run_to_end(&mut |output| match output {
            Output::Token { request, token, .. } => {
                answers.entry(request).or_default().tokens.push(token);
            }
            Output::Finished { request, reason, answer, error, .. } => {
                let entry = answers.entry(request).or_default();
                (entry.text, entry.reason) = (answer.to_owned(), Some(reason));
                failed = failed.take().or_else(|| error.cloned());
            }
        })?;
        if let Some(error) = failed {
            return Err(EngineError::plugin("an answer of the model")(error));
        }
        let model = engine.shared_model();
        let rollout = |(question, requests): (&Question, Vec<RequestId>)| {
            let of = |id| answers.remove(&id).unwrap_or_default();
            let answers = requests.into_iter().map(of).collect();
            self.rated(question, answers, &model.tokenizer)
        };
        questions.iter().zip(asked).map(rollout).collect()
    }

    fn request(&self, question: &Question, seed: u64) -> Result<Request, EngineError> {
        let RolloutOptions { length, temperature, .. } = self.options;
        let num_tokens = question.tokens.len();
        let Some(room) = length.checked_sub(num_tokens).filter(|room| *room > 0) else {
            let expected = format!("at most {} tokens", length.saturating_sub(1));
            let found = num_tokens.to_string();
            return Err(EngineError::Request { what: "prompt", expected, found });
        };
        let request = Request::new(Prompt::Tokens(question.tokens.clone()));
        let request = request.with("max_tokens", room as i64).with("temperature", temperature);
        Ok(request.with("seed", seed as i64))
    }

    /// Says the same for a run that is resumed, and something else for each answer.
    fn seed_of(&self, step: u64, question: usize, answer: usize) -> u64 {
        let place = [self.options.seed, step, question as u64, answer as u64];
        let bytes: Vec<u8> = place.iter().flat_map(|number| number.to_le_bytes()).collect();
        let hash = Sha256::digest(bytes);
        let first = hash.first_chunk().copied().unwrap_or_default();
        // Parameters are signed.
        u64::from_le_bytes(first) >> 1
    }

    fn rated(
        &mut self,
        question: &Question,
        mut answers: Vec<Answer>,
        tokenizer: &Tokenizer,
    ) -> Result<Rollout, EngineError> {
        for answer in &mut answers {
            // What ended the answer is learnt like the rest of it.
            let end = tokenizer.eos().filter(|_| answer.reason == Some(FinishReason::Stop));
            answer.tokens.extend(end);
        }
        let prompt = tokenizer.decode(&question.tokens, true);
        let rewards = self.rewards_of(question, &prompt, &answers)?;
        let mut batch = TokenBatch::default();
        for (answer, reward) in answers.iter().zip(&rewards) {
            batch.push_rated(&question.tokens, &answer.tokens, 0, *reward as f32);
        }
        let count = answers.len().max(1) as f64;
        let num_tokens: usize = answers.iter().map(|answer| answer.tokens.len()).sum();
        let reward = rewards.iter().sum::<f64>() / count;
        Ok(Rollout { batch, reward, num_tokens: num_tokens as f64 / count })
    }

    fn rewards_of(
        &mut self,
        question: &Question,
        prompt: &str,
        answers: &[Answer],
    ) -> Result<Vec<f64>, EngineError> {
        let views = answers.iter().map(|answer| answer.view(prompt, question));
        let views: Vec<RatedAnswer<'_>> = views.collect();
        let mut sums = vec![0.0; views.len()];
        for (name, reward) in &mut self.rewards {
            let what = format!("reward `{name}`");
            let rated = reward.rate(&views).map_err(EngineError::plugin(what.clone()))?;
            if rated.len() != views.len() || rated.iter().any(|rated| !rated.is_finite()) {
                let expected = format!("{} finite numbers", views.len());
                return Err(EngineError::inconsistent(what, expected, format!("{rated:?}")));
            }
            sums.iter_mut().zip(rated).for_each(|(sum, rated)| *sum += rated);
        }
        Ok(sums)
    }
}

impl Answer {
    /// As rewards see it.
    fn view<'a>(&'a self, prompt: &'a str, question: &'a Question) -> RatedAnswer<'a> {
        RatedAnswer {
            prompt,
            text: &self.text,
            expected: question.expected.as_deref(),
            num_tokens: self.tokens.len() as u64,
            is_finished: self.reason == Some(FinishReason::Stop),
        }
    }
}

impl fmt::Debug for Rollouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rollouts").field("options", &self.options).finish_non_exhaustive()
    }
}
