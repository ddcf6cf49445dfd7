//! Curricula: which example a training run learns next.

use super::{Handover, kind};
use crate::error::Result;

/// Chooses one example after the other.
pub trait Curriculum: Send {
    /// What comes next. [training thread, while a batch is put together]
    ///
    /// `sources` are the run's, at least one and always the same, each with at least one example. An example that is
    /// chosen is learnt or passed over, and never asked about again.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from choosing: it ends the run.
    fn next(&mut self, sources: &[SourceView]) -> Result<Choice>;

    /// How this curriculum carries what decides its choices through checkpoints and into another generation of
    /// the plugin of its name. One without it chooses by what sources tell alone. [boundary]
    ///
    /// What [`save`](Handover::save) writes and [`restore`](Handover::restore) reads is exact: afterwards both choose
    /// alike.
    fn handover(&mut self) -> Option<&mut dyn Handover> {
        None
    }
}

kind!(Curriculum, "curriculum", TrainingStep, traced: false);

/// One source of examples, most often a file, before a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceView {
    /// Examples that it has.
    pub num_examples: u64,
    /// Examples that were chosen of it as new ones, over all epochs.
    pub given: u64,
    /// Which example comes if a new one is chosen: a number that names it for as long as the run lasts.
    pub next: u64,
}

/// What is learnt next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Index of the source.
    pub source: usize,
    /// Nothing for its next new example; the number of one that was its next before, to learn it once more.
    pub again: Option<u64>,
}

impl Choice {
    /// The next new example of a source.
    pub fn new_of(source: usize) -> Self {
        Self { source, again: None }
    }
}
