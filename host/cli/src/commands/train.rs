//! `jackfield train`: a run as the table `train` of the configuration describes it.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use jackfield_engine::model::Architecture;
use jackfield_engine::train::{Checkpoint, Checkpoints, Parameters, StepReport, Verdict};
use jackfield_engine::{TextLoader, TrainOptions, Trainer};
use jackfield_runtime::SystemClock;
use plugin_api::Config;
use serde_json::json;

use crate::args::Train;
use crate::board;
use crate::progress::Bar;
use crate::setup::Session;

/// Steps between two lines of output.
const STEPS_PER_LINE: u64 = 10;

/// The table `train`.
struct Run {
    config: String,
    text: PathBuf,
    steps: u64,
    learning_rate: f64,
    sequence_length: usize,
    sequences: usize,
    micro_batches: usize,
    seed: u64,
    folder: PathBuf,
    checkpoint_every: u64,
    keep_last: usize,
}

/// Trains to the end, or goes on with what there is.
pub(crate) fn run(session: &Session, args: &Train) -> Result<()> {
    let Some(table) = session.config.table("train")? else {
        bail!(
            "train: expected a table `train` in the configuration; `jackfield train --help` shows one"
        );
    };
    let run = Run::read(table, args)?;
    session.wiring.check(&session.registry())?;
    session.subscribe_hooks()?;
    let architecture = Architecture::from_json(&serde_json::from_str(&run.config)?)?;
    let text = std::fs::read(&run.text).with_context(|| run.text.display().to_string())?;
    let vocab_size = architecture.config.count("vocab_size", 256..=1 << 24);
    vocab_size.context("a token is a byte of the text")?;
    let id = run.id(&text);
    let loader = TextLoader::new(text, run.sequence_length, run.seed);
    let mut loader = loader.with_context(|| run.text.display().to_string())?;
    let parameters = Parameters::random(&architecture, run.seed)?;
    let num_elements = parameters.num_elements();
    let (registry, bus, clock) = (session.registry(), &session.bus, Arc::new(SystemClock::new()));
    let (wiring, options) = (&session.wiring, run.options());
    let mut trainer =
        Trainer::new(architecture, parameters, wiring, &registry, bus, clock, options)?;
    session.plugins.attach(Arc::new(trainer.swapper(bus)));
    let _orders = board::take_orders(session);
    let checkpoints = Checkpoints::open(&run.folder, run.keep_last)?;
    let mut err = std::io::stderr();
    writeln!(err, "run {id:.12}: {num_elements} parameters, {} sequences", loader.num_sequences())?;
    if !args.fresh {
        let mut said = Vec::new();
        let latest = checkpoints.load_latest(&id, |path, error| {
            said.push(format!("passed over {}: {error}", path.display()));
        })?;
        said.iter().try_for_each(|line| writeln!(err, "{line}"))?;
        if let Some(latest) = latest {
            writeln!(err, "goes on after step {} (loss {:.4})", latest.step, latest.loss)?;
            loader.seek(latest.loader)?;
            trainer.restore(latest)?;
        }
    }
    trainer.begin();
    let ended = run.steps(session, &mut trainer, &mut loader, &checkpoints, &id);
    trainer.end();
    session.bus.flush();
    ended
}

impl Run {
    fn read(table: &Config, args: &Train) -> Result<Self> {
        let path = PathBuf::from(table.text("config")?);
        let size = |key, default, max| table.count_or(key, default, 1..=max).map(|n| n as usize);
        let run = Self {
            config: std::fs::read_to_string(&path).with_context(|| path.display().to_string())?,
            text: PathBuf::from(table.text("text")?),
            steps: args.steps.unwrap_or(table.count_or("steps", 1000, 1..=1 << 24)?),
            learning_rate: table.number_or("learning_rate", 1e-3, 0.0..=1e3)?,
            sequence_length: size("sequence_length", 128, 1 << 20)?,
            sequences: size("sequences", 8, 1 << 16)?,
            micro_batches: size("micro_batches", 1, 1 << 16)?,
            seed: table.count_or("seed", 0, 0..=u64::from(u32::MAX))?,
            folder: PathBuf::from(table.text_or("folder", "checkpoints")?),
            checkpoint_every: table.count_or("checkpoint_every", 200, 1..=1 << 24)?,
            keep_last: size("keep_last", 2, 1 << 16)?,
        };
        match table.unread().next() {
            Some(key) => {
                bail!("train.{key}: no such key; `jackfield train --help` shows those there are")
            }
            None => Ok(run),
        }
    }

    /// Names what a checkpoint has to fit: model, text and its order. Plugins and their tables may change
    /// between the parts of a run.
    fn id(&self, text: &[u8]) -> String {
        let Self { config, sequence_length, sequences, micro_batches, seed, .. } = self;
        let text = Checkpoint::run_of(&String::from_utf8_lossy(text));
        Checkpoint::run_of(&format!(
            "{config}\n{text}\n{sequence_length} {sequences} {micro_batches} {seed}"
        ))
    }

    fn options(&self) -> TrainOptions {
        TrainOptions {
            learning_rate: self.learning_rate,
            num_steps: self.steps,
            tokens_max: self.sequences * self.sequence_length,
            num_seqs_max: self.sequences,
        }
    }

    fn steps(
        &self,
        session: &Session,
        trainer: &mut Trainer,
        loader: &mut TextLoader,
        checkpoints: &Checkpoints,
        id: &str,
    ) -> Result<()> {
        let bar = Bar::steps(session.is_json);
        let mut out = std::io::stdout();
        while trainer.num_steps_done() < self.steps {
            trainer.at_epoch(loader.epoch());
            let batches: Vec<_> =
                (0..self.micro_batches).map(|_| loader.batch(self.sequences)).collect();
            let report = trainer.step(&batches)?;
            let (done, is_over) = (report.step + 1, report.verdict == Verdict::Stopped);
            bar.say(done, self.steps, said(&report));
            let is_last = is_over || done == self.steps;
            if is_last || done.is_multiple_of(STEPS_PER_LINE) {
                bar.suspend(|| line(&mut out, session.is_json, &report))?;
            }
            if is_last || done.is_multiple_of(self.checkpoint_every) {
                let checkpoint = trainer.checkpoint(loader.position(), report.loss, id);
                let path = checkpoints.save(&checkpoint, &self.config)?;
                trainer.saved(checkpoint.step, &path.display().to_string());
                bar.suspend(|| writeln!(std::io::stderr(), "saved {}", path.display()))?;
            }
            if is_over {
                bar.suspend(|| writeln!(std::io::stderr(), "a hook ended the run"))?;
                break;
            }
        }
        bar.clear();
        Ok(())
    }
}

fn said(report: &StepReport) -> String {
    format!("loss {:.4}, {:.0} tokens/s", report.loss, tokens_per_second(report))
}

fn line(out: &mut impl Write, is_json: bool, report: &StepReport) -> std::io::Result<()> {
    if is_json {
        let line = json!({
            "step": report.step,
            "loss": report.loss,
            "grad_norm": report.grad_norm,
            "learning_rate": report.learning_rate,
            "tokens_per_second": tokens_per_second(report),
        });
        return writeln!(out, "{line}");
    }
    let StepReport { step, grad_norm, learning_rate, .. } = report;
    let said = said(report);
    writeln!(out, "step {:>6}  {said}, gradient {grad_norm:.3}, rate {learning_rate:.2e}", step + 1)
}

fn tokens_per_second(report: &StepReport) -> f64 {
    report.tokens as f64 * 1e6 / report.step_us.max(1) as f64
}
