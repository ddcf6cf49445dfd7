//! `jackfield train`: a run as the table `train` of the configuration describes it.

mod evaluation;
mod loading;
mod rollouts;
mod said;
mod settings;
mod start;

use std::io::{Write, stderr, stdout};
use std::sync::Arc;

use anyhow::{Result, bail};
use jackfield_engine::Trainer;
use jackfield_engine::train::{
    BatchLoader, Checkpoint, Checkpoints, Column, Format, Parameters, StepReport, TokenBatch,
    Verdict,
};

use super::run_page;
use crate::args::Train;
use crate::board;
use crate::progress::Bar;
use crate::setup::Session;
use loading::Loaded;
use rollouts::{Answering, Rated};
use said::Said;
use settings::Settings;

/// Steps between two lines of output.
const STEPS_PER_LINE: u64 = 10;

/// Trains to the end, or goes on with what there is.
pub(crate) fn run(session: &Session, args: &Train) -> Result<()> {
    let Some(table) = session.config.table("train")? else {
        bail!(
            "train: expected a table `train` in the configuration; `jackfield train --help` shows one"
        );
    };
    let settings = Settings::read(table, args)?;
    session.wiring.check(&session.registry())?;
    session.subscribe_hooks()?;
    let mut run = Run::open(session, settings)?;
    session.plugins.attach(Arc::new(run.trainer.swapper(&session.bus)));
    let _orders = board::take_orders(session);
    let _page = args.listen.map(|address| run_page::serve(session, address)).transpose()?;
    if !args.fresh {
        run.resume()?;
    }
    run.trainer.begin();
    let ended = run.steps();
    run.trainer.end();
    session.bus.flush();
    ended
}

/// Reads the table `train`, if there is one.
pub(crate) fn check(session: &Session) -> Result<()> {
    let args = Train { steps: None, listen: None, fresh: false };
    session.config.table("train")?.map_or(Ok(()), |table| Settings::read(table, &args).map(drop))
}

/// A run that has begun.
struct Run<'a> {
    settings: Settings,
    trainer: Trainer,
    loader: BatchLoader,
    checkpoints: Checkpoints,
    /// `config.json` of the checkpoints.
    config: String,
    id: String,
    /// The parameters that it began with, where preferences are compared with theirs.
    start: Option<Parameters>,
    held_out: Vec<TokenBatch>,
    /// Where the model answers prompts itself.
    answering: Option<Answering<'a>>,
    said: Said,
}

impl<'a> Run<'a> {
    fn open(session: &'a Session, settings: Settings) -> Result<Self> {
        let begun = settings.start.begin(session, settings.seed)?;
        begun.check(&settings)?;
        let Loaded { loader, examples, id, said } = Loaded::open(session, &settings, &begun)?;
        let id = Checkpoint::run_of(&format!("{}\n{}\n{id}", begun.id, settings.description()));
        let checkpoints = begun.checkpoints(&settings)?;
        let format = examples.as_ref().map(|examples| examples.format);
        let (is_preference, is_rated) =
            (format == Some(Format::Preference), format == Some(Format::Prompt));
        let answering = match is_rated {
            true => Some(begun.answering(session, &settings)?),
            false => None,
        };
        let start = (is_preference || is_rated).then(|| begun.parameters.clone());
        let (config, num_elements) = (begun.config.clone(), begun.parameters.num_elements());
        let held_out = match &settings.evaluation {
            Some(evaluation) => evaluation.batches(&settings, examples.as_ref())?,
            None => Vec::new(),
        };
        let trainer = begun.trainer(session, &settings)?;
        if trainer.reads("partner") != is_preference {
            let (expected, found) = match is_preference {
                true => {
                    ("an objective that compares two answers, for preferences", "one that does not")
                }
                false => {
                    ("preferences, for an objective that compares two answers", "other examples")
                }
            };
            bail!("train: expected {expected}; found {found}");
        }
        if trainer.reads("rewards") != is_rated {
            let (expected, found) = match is_rated {
                true => ("an objective that learns from rewards, for prompts", "one that does not"),
                false => ("prompts, for an objective that learns from rewards", "other examples"),
            };
            bail!("train: expected {expected}; found {found}");
        }
        let peak = trainer.peak_flops()?;
        writeln!(stderr(), "run {id:.12}: {num_elements} parameters, {said}")?;
        writeln!(stderr(), "products run at {:.1} GFLOP/s", peak / 1e9)?;
        let said = Said { is_json: session.is_json, peak };
        let mut run = Self {
            settings,
            trainer,
            loader,
            checkpoints,
            config,
            id,
            start,
            held_out,
            answering,
            said,
        };
        // While the parameters are those that the run begins with.
        let mut held_out = std::mem::take(&mut run.held_out);
        held_out.iter_mut().try_for_each(|batch| run.refer(batch))?;
        run.held_out = held_out;
        Ok(run)
    }

    /// Goes on where the last checkpoint stands, if there is one.
    fn resume(&mut self) -> Result<()> {
        let mut passed_over = Vec::new();
        let latest = self.checkpoints.load_latest(&self.id, |path, error| {
            passed_over.push(format!("passed over {}: {error}", path.display()));
        })?;
        passed_over.iter().try_for_each(|line| writeln!(stderr(), "{line}"))?;
        if let Some(latest) = latest {
            writeln!(stderr(), "goes on after step {} (loss {:.4})", latest.step, latest.loss)?;
            self.loader.seek(latest.loader.clone())?;
            self.trainer.restore(latest)?;
        }
        Ok(())
    }

    fn steps(&mut self) -> Result<()> {
        let bar = Bar::steps(self.said.is_json);
        let steps = self.settings.steps;
        let mut is_over = self.trainer.num_steps_done() == 0
            && bar
                .suspend(|| self.evaluate())?
                .is_some_and(|(_, verdict)| verdict == Verdict::Stopped);
        while !is_over && self.trainer.num_steps_done() < steps {
            let (report, rated) = self.step()?;
            let done = report.step + 1;
            is_over = report.verdict == Verdict::Stopped;
            bar.say(done, steps, self.said.short(&report, rated));
            if is_over || done == steps || done.is_multiple_of(STEPS_PER_LINE) {
                bar.suspend(|| self.said.step(&mut stdout(), &report, rated))?;
            }
            let mut evaluation = None;
            let every = |settings: &Settings| settings.evaluation.as_ref().map(|e| e.every);
            if (is_over || self.is_due(done, every))
                && let Some((loss, verdict)) = bar.suspend(|| self.evaluate())?
            {
                (evaluation, is_over) = (Some(loss), is_over || verdict == Verdict::Stopped);
            }
            if is_over || self.is_due(done, |settings| Some(settings.checkpoint_every)) {
                bar.suspend(|| self.save(report.loss, evaluation))?;
            }
        }
        if is_over {
            bar.suspend(|| writeln!(stderr(), "a hook ended the run"))?;
        }
        bar.clear();
        self.said.passed(&self.loader, self.settings.sequence_length)?;
        Ok(())
    }

    /// Whether what happens every so many steps happens after `done`: it does after the last one.
    fn is_due(&self, done: u64, every: impl Fn(&Settings) -> Option<u64>) -> bool {
        let every = every(&self.settings);
        every.is_some_and(|every| done == self.settings.steps || done.is_multiple_of(every))
    }

    fn step(&mut self) -> Result<(StepReport, Option<Rated>)> {
        self.trainer.at_epoch(self.loader.epoch());
        let (mut batches, rated) = match (&mut self.answering, &mut self.loader) {
            (Some(answering), BatchLoader::Dataset(loader)) => {
                let (trainer, checkpoints) = (&mut self.trainer, &self.checkpoints);
                let (batches, rated) =
                    answering.batches(trainer, loader, checkpoints, &self.config)?;
                (batches, Some(rated))
            }
            (_, loader) => {
                let batches = (0..self.settings.micro_batches).map(|_| loader.batch());
                (batches.collect::<Result<Vec<_>, _>>()?, None)
            }
        };
        batches.iter_mut().try_for_each(|batch| self.refer(batch))?;
        Ok((self.trainer.step(&batches)?, rated))
    }

    /// Adds what the parameters at the start of the run make of a batch, if the objective asks for it.
    fn refer(&mut self, batch: &mut TokenBatch) -> Result<()> {
        const COLUMN: &str = "reference_logprobs";
        if let Some(start) = self.start.as_ref().filter(|_| self.trainer.reads(COLUMN)) {
            let logprobs = self.trainer.logprobs_of(batch, start)?;
            batch.set_column(COLUMN, Column::F32(logprobs));
        }
        Ok(())
    }

    /// The loss of held-out data and what hooks make of it, if any are held out.
    fn evaluate(&mut self) -> Result<Option<(f64, Verdict)>> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let (loss, verdict) = self.trainer.evaluate(&self.held_out)?;
        let tokens = self.held_out.iter().map(TokenBatch::num_counted).sum();
        self.said.evaluation(&mut stdout(), self.trainer.num_steps_done(), loss, tokens)?;
        Ok(Some((loss, verdict)))
    }

    fn save(&mut self, loss: f64, evaluation: Option<f64>) -> Result<()> {
        let checkpoint = self.trainer.checkpoint(self.loader.position()?, loss, &self.id);
        let checkpoint = Checkpoint { evaluation, ..checkpoint };
        let path = self.checkpoints.save(&checkpoint, &self.config)?;
        self.trainer.saved(checkpoint.step, &path.display().to_string());
        writeln!(stderr(), "saved {}", path.display())?;
        Ok(())
    }
}
