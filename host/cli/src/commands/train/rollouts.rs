//! Prompts that the model in training answers itself, by an engine that reads the run's files.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use jackfield_engine::model::LoadOptions;
use jackfield_engine::train::{
    Checkpoints, Column, DatasetLoader, Rollout, RolloutOptions, Rollouts, TokenBatch,
};
use jackfield_engine::{Engine, Trainer};
use jackfield_runtime::SystemClock;

use super::settings::Settings;
use crate::setup::Session;

/// What answers and rates.
pub(super) struct Answering<'a> {
    session: &'a Session,
    rollouts: Rollouts,
    options: LoadOptions,
    /// Where the model lies as the last step left it.
    folder: PathBuf,
    /// The model beside an adapter.
    base: Option<PathBuf>,
    num_prompts: usize,
}

/// A mean over the answers of a step.
#[derive(Clone, Copy)]
pub(super) struct Rated {
    pub(super) reward: f64,
    pub(super) num_tokens: f64,
}

impl<'a> Answering<'a> {
    /// `base` is the model, where only an adapter beside it is trained.
    pub(super) fn new(
        session: &'a Session,
        settings: &Settings,
        base: Option<PathBuf>,
    ) -> Result<Self> {
        let Settings { sequences: num_answers, sequence_length: length, seed, .. } = *settings;
        let temperature = settings.temperature;
        let options = RolloutOptions { num_answers, length, temperature, seed };
        let rollouts = Rollouts::new(&session.wiring, &session.registry(), options)?;
        let options = LoadOptions {
            num_seqs_max: num_answers * settings.micro_batches,
            logit_rows_max: num_answers * settings.micro_batches,
            // A token more than there are rows is predicted, and not evaluated.
            context_length_max: length + 1,
            ..session.load_options()?
        };
        let (folder, num_prompts) = (settings.folder.join("rollouts"), settings.micro_batches);
        Ok(Self { session, rollouts, options, folder, base, num_prompts })
    }

    /// A micro-batch for each prompt, answered by the model as it stands.
    pub(super) fn batches(
        &mut self,
        trainer: &mut Trainer,
        loader: &mut DatasetLoader,
        checkpoints: &Checkpoints,
        config: &str,
    ) -> Result<(Vec<TokenBatch>, Rated)> {
        let questions = loader.questions(self.num_prompts)?;
        checkpoints.lay_out(&self.folder, trainer.parameters(), config)?;
        let mut engine = self.engine()?;
        let step = trainer.num_steps_done();
        let rollouts = self.rollouts.answer(&mut engine, &questions, step)?;
        let count = rollouts.len() as f64;
        let mean = |of: fn(&Rollout) -> f64| rollouts.iter().map(of).sum::<f64>() / count;
        let rated = Rated {
            reward: mean(|rollout| rollout.reward),
            num_tokens: mean(|rollout| rollout.num_tokens),
        };
        let mut batches = Vec::with_capacity(rollouts.len());
        for rollout in rollouts {
            let mut batch = rollout.batch;
            let logprobs = trainer.logprobs(&batch)?;
            batch.set_column("old_logprobs", Column::F32(logprobs));
            batches.push(batch);
        }
        Ok((batches, rated))
    }

    fn engine(&self) -> Result<Engine> {
        let (path, options) = match &self.base {
            Some(base) => {
                let adapter = Some(self.folder.clone());
                (base.clone(), LoadOptions { adapter, ..self.options.clone() })
            }
            None => (self.folder.clone(), self.options.clone()),
        };
        let Session { wiring, bus, .. } = self.session;
        let (registry, clock) = (self.session.registry(), Arc::new(SystemClock::new()));
        let engine = Engine::load(&path, wiring, &registry, bus, clock, &options, &mut |_, _| {})?;
        Ok(engine)
    }
}

/// Refuses what cannot be answered: without a tokenizer beside the model no engine reads it.
pub(super) fn check(settings: &Settings, is_adapter: bool, has_tokenizer: bool) -> Result<()> {
    if settings.evaluation.is_some() {
        bail!(
            "train.validation: expected none beside prompts, which have no answers to compare with"
        );
    }
    if !is_adapter && !has_tokenizer {
        bail!(
            "train.tokenizer: expected a folder with a `tokenizer.json`, which lies in each checkpoint, \
             for a model that answers prompts"
        );
    }
    Ok(())
}
