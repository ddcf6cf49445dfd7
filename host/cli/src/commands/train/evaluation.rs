//! Held-out data: what is set aside, and the loss of it on a schedule.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jackfield_engine::TextLoader;
use jackfield_engine::train::TokenBatch;
use plugin_api::{Config, Value};

use super::loading::Examples;
use super::settings::{Learnt, Settings};

/// The keys of evaluation.
pub(super) struct Evaluation {
    validation: Validation,
    pub(super) every: u64,
    batches_max: usize,
}

enum Validation {
    File(PathBuf),
    /// The end of the text.
    Share(f64),
}

impl Evaluation {
    /// Nothing where nothing is held out.
    pub(super) fn read(table: &Config, checkpoint_every: u64) -> Result<Option<Self>> {
        let validation = match table.get("validation") {
            None => return Ok(None),
            Some(Value::Text(path)) => Validation::File(PathBuf::from(path)),
            Some(Value::Float(share)) if *share > 0.0 && *share < 1.0 => Validation::Share(*share),
            other => {
                let expected = "a path, or the share of the text that is held out, between 0 and 1";
                return Err(table.wrong("validation", expected, other).into());
            }
        };
        Ok(Some(Self {
            validation,
            every: table.count_or("evaluate_every", checkpoint_every, 1..=1 << 24)?,
            batches_max: table.count_or("validation_batches", 32, 1..=1 << 16)? as usize,
        }))
    }

    /// Where the text ends that is trained on.
    pub(super) fn text_end(&self, len: usize) -> usize {
        match self.validation {
            Validation::File(_) => len,
            Validation::Share(share) => len - (len as f64 * share) as usize,
        }
    }

    /// The batches that are held out.
    pub(super) fn batches(
        &self,
        settings: &Settings,
        examples: Option<&Examples>,
    ) -> Result<Vec<TokenBatch>> {
        match (&settings.learnt, &self.validation) {
            (Learnt::Text(path), Validation::Share(_)) => {
                let text = read(path)?;
                let end = self.text_end(text.len());
                self.of_text(settings, text[end..].to_vec(), path)
            }
            (Learnt::Text(_), Validation::File(path)) => self.of_text(settings, read(path)?, path),
            (Learnt::Examples(_), Validation::File(path)) => {
                let Some(examples) = examples else { return Ok(Vec::new()) };
                let mut loader = examples.open(settings, std::slice::from_ref(path), 1)?;
                if loader.format() != examples.format {
                    let (expected, found) = (examples.format, loader.format());
                    bail!("{}: expected {expected}, as in `data`, found {found}", path.display());
                }
                Ok(loader.first_epoch(self.batches_max)?)
            }
            (Learnt::Examples(_), Validation::Share(share)) => {
                bail!("train.validation: expected a path beside `data`, found {share}")
            }
        }
    }

    fn of_text(&self, settings: &Settings, text: Vec<u8>, path: &Path) -> Result<Vec<TokenBatch>> {
        let loader = TextLoader::new(text, settings.sequence_length, settings.seed);
        let mut loader = loader.with_context(|| format!("held out of {}", path.display()))?;
        let mut left = loader.num_sequences();
        let mut batches = Vec::new();
        while left > 0 && batches.len() < self.batches_max {
            let count = left.min(settings.sequences);
            batches.push(loader.batch(count));
            left -= count;
        }
        Ok(batches)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}
