//! The table `train` of the configuration.

use std::path::PathBuf;

use anyhow::{Result, bail};
use jackfield_engine::TrainOptions;
use jackfield_engine::train::TooLong;
use plugin_api::{Config, Value};

use super::evaluation::Evaluation;
use super::start::Start;
use crate::args::Train;

/// What is read of the table `train`.
pub(super) struct Settings {
    pub(super) start: Start,
    pub(super) learnt: Learnt,
    pub(super) evaluation: Option<Evaluation>,
    pub(super) steps: u64,
    learning_rate: f64,
    pub(super) sequence_length: usize,
    pub(super) sequences: usize,
    pub(super) micro_batches: usize,
    pub(super) seed: u64,
    /// Of what the model answers to prompts.
    pub(super) temperature: f64,
    pub(super) folder: PathBuf,
    pub(super) checkpoint_every: u64,
    pub(super) keep_last: usize,
}

/// What a run learns.
pub(super) enum Learnt {
    /// The bytes of a file.
    Text(PathBuf),
    /// Lines of files.
    Examples(ExampleFiles),
}

/// Files of examples, and how they are read.
#[derive(Clone)]
pub(super) struct ExampleFiles {
    pub(super) files: Vec<PathBuf>,
    /// A model's folder or GGUF file; that of the model which the run starts from if it is not said.
    pub(super) tokenizer: Option<PathBuf>,
    pub(super) too_long: TooLong,
    pub(super) shuffle: usize,
    pub(super) line_bytes_max: u64,
}

impl Settings {
    pub(super) fn read(table: &Config, args: &Train) -> Result<Self> {
        let size = |key, default, max| table.count_or(key, default, 1..=max).map(|n| n as usize);
        let checkpoint_every = table.count_or("checkpoint_every", 200, 1..=1 << 24)?;
        let settings = Self {
            start: Start::read(table)?,
            learnt: Learnt::read(table)?,
            evaluation: Evaluation::read(table, checkpoint_every)?,
            steps: args.steps.unwrap_or(table.count_or("steps", 1000, 1..=1 << 24)?),
            learning_rate: table.number_or("learning_rate", 1e-3, 0.0..=1e3)?,
            sequence_length: size("sequence_length", 128, 1 << 20)?,
            sequences: size("sequences", 8, 1 << 16)?,
            micro_batches: size("micro_batches", 1, 1 << 16)?,
            temperature: table.number_or("temperature", 1.0, 0.01..=10.0)?,
            seed: table.count_or("seed", 0, 0..=u64::from(u32::MAX))?,
            folder: PathBuf::from(table.text_or("folder", "checkpoints")?),
            checkpoint_every,
            keep_last: size("keep_last", 2, 1 << 16)?,
        };
        match table.unread().next() {
            Some(key) => {
                bail!(
                    "train.{key}: no such key here; `jackfield train --help` shows those there are"
                )
            }
            None => Ok(settings),
        }
    }

    /// What names a run, but for the model and what it learns. Plugins and their tables may change between the
    /// parts of a run.
    pub(super) fn description(&self) -> String {
        let Self { sequence_length, sequences, micro_batches, seed, temperature, .. } = self;
        let sizes = format!("{sequence_length} {sequences} {micro_batches} {seed}");
        if *temperature == 1.0 { sizes } else { format!("{sizes} {temperature}") }
    }

    pub(super) fn options(&self) -> TrainOptions {
        let packed = match self.learnt {
            Learnt::Text(_) => 1,
            Learnt::Examples(_) => PACKED_MAX,
        };
        TrainOptions {
            learning_rate: self.learning_rate,
            num_steps: self.steps,
            tokens_max: self.sequences * self.sequence_length,
            num_seqs_max: self.sequences * packed.min(self.sequence_length),
        }
    }
}

impl Learnt {
    fn read(table: &Config) -> Result<Self> {
        match (table.has("text"), table.has("data")) {
            (true, false) => Ok(Self::Text(PathBuf::from(table.text("text")?))),
            (false, true) => ExampleFiles::read(table).map(Self::Examples),
            (true, true) => bail!("train: expected one of the keys `text` and `data`, found both"),
            (false, false) => bail!("train: expected the key `text` or `data`, found neither"),
        }
    }
}

impl ExampleFiles {
    fn read(table: &Config) -> Result<Self> {
        let tokenizer = table.has("tokenizer").then(|| table.text("tokenizer")).transpose()?;
        Ok(Self {
            files: paths(table, "data")?,
            tokenizer: tokenizer.map(PathBuf::from),
            too_long: match table.one_of("too_long", &["cut", "refuse"])? {
                "refuse" => TooLong::Refuse,
                _ => TooLong::Cut,
            },
            shuffle: table.count_or("shuffle", 1024, 1..=1 << 20)? as usize,
            line_bytes_max: table.count_or("line_bytes_max", 1 << 20, 1..=1 << 32)?,
        })
    }
}

/// A path, or a list of them.
fn paths(table: &Config, key: &str) -> Result<Vec<PathBuf>> {
    if let Some(Value::Text(path)) = table.get(key) {
        return Ok(vec![PathBuf::from(path)]);
    }
    let path = |value: &Value| match value {
        Value::Text(path) => Ok(PathBuf::from(path)),
        other => Err(table.wrong(key, "paths", Some(other))),
    };
    Ok(table.list(key)?.iter().map(path).collect::<Result<_, _>>()?)
}

/// Most sequences that are packed into the room of one.
const PACKED_MAX: usize = 32;
