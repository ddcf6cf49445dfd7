//! Objectives: what a training run makes small.

use super::{Traced, kind};
use crate::error::{Error, Result};
use crate::plan::{Attrs, Dim, OpSink, OpSinkExt, Spec, Val, fused, ops};

/// Traces `[logits f32 [rows, vocab_size]]` into the loss `[1]`.
///
/// Everything else is an input with a name; `rows` is the outermost extent of the logits, `seqs` is
/// [`Dim::SEQS`]. What the host knows of every batch:
///
/// | input              | shape            | what                                                     |
/// |--------------------|------------------|----------------------------------------------------------|
/// | `targets`          | `u32 [rows]`     | the token after each, below `vocab_size`                 |
/// | `loss_weights`     | `f32 [rows, 1]`  | share of the token in the loss; 0 where it does not count |
/// | `token_mask`       | `f32 [rows, 1]`  | the same before it became a share: mostly 1 or 0         |
/// | `row_sequence`     | `u32 [rows]`     | the sequence of each row, from 0                         |
/// | `last_row`         | `u32 [seqs]`     | the last row of each sequence                            |
/// | `sequence_weights` | `f32 [seqs, 1]`  | share of the sequence in the loss; 0 where it does not count |
///
/// Shares sum to 1 over all micro-batches of a step. The loss is a sum over rows or sequences, so that
/// losses and gradients of micro-batches add up to those of the step, however it is divided between
/// sequences that know nothing of each other.
///
/// Columns of the data, under any name; a batch without one that the objective asks for is an error. By
/// convention:
///
/// | input                | shape                    | what                                             |
/// |----------------------|--------------------------|--------------------------------------------------|
/// | `partner`            | `u32 [seqs]`             | the other sequence of a pair, in the same micro-batch |
/// | `margins`            | `f32 [seqs, 1]`          | by how much a sequence should be ahead           |
/// | `reference_logprobs` | `f32 [rows, 1]`          | of the targets, by a model that stays as it is   |
/// | `old_logprobs`       | `f32 [rows, 1]`          | of the targets, by the model that sampled them   |
/// | `rewards`            | `f32 [seqs, 1]`          | how good a sequence is                           |
/// | `group`              | `u32 [seqs]`             | which prompt it answers, below `seqs`            |
/// | `teacher_logits`     | `f32 [rows, vocab_size]` | of another model                                 |
///
/// Of a pair the one that is preferred has a weight and the other has none.
pub trait Objective: Traced {}

kind!(Objective, "objective", TrainingStep, traced: true);

/// The rows that an objective is given, with the inputs that most of them ask for.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// `[rows, vocab_size]`.
    pub logits: Val,
    rows: Dim,
}

impl Rows {
    /// What a trace is given.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] unless that is logits; whatever the sink returns elsewhere.
    pub fn of(g: &dyn OpSink, x: &[Val]) -> Result<Self> {
        let &[logits] = x else {
            return Err(Error::shape("objective", "logits", x.len()));
        };
        let &[rows, _] = &g.spec(logits).dims[..] else {
            return Err(Error::shape("objective", "[rows, vocab_size]", g.spec(logits)));
        };
        Ok(Self { logits, rows })
    }

    /// A number for each row, `[rows, 1]`.
    pub fn per_row(&self, g: &mut dyn OpSink, name: &str) -> Result<Val> {
        g.input(name, Spec::f32([self.rows, Dim::Fixed(1)]))
    }

    /// A number for each sequence, `[seqs, 1]`.
    pub fn per_sequence(&self, g: &mut dyn OpSink, name: &str) -> Result<Val> {
        g.input(name, Spec::f32([Dim::SEQS, Dim::Fixed(1)]))
    }

    /// An index for each sequence, `[seqs]`.
    pub fn index_of_sequence(&self, g: &mut dyn OpSink, name: &str) -> Result<Val> {
        g.input(name, Spec::u32([Dim::SEQS]))
    }

    /// Natural logarithms of the probabilities of the targets, `[rows, 1]`.
    pub fn logprobs(&self, g: &mut dyn OpSink) -> Result<Val> {
        let targets = g.input("targets", Spec::u32([self.rows]))?;
        let losses = fused::cross_entropy(g, self.logits, targets)?;
        g.unary(ops::NEG, losses)
    }

    /// The sum over the tokens of each sequence that count, `[seqs, 1]`, of `x [rows, 1]`.
    pub fn sum_by_sequence(&self, g: &mut dyn OpSink, x: Val) -> Result<Val> {
        let mask = self.per_row(g, "token_mask")?;
        let counted = g.mul(x, mask)?;
        self.gathered(g, counted)
    }

    /// How many tokens of each sequence count, at least 1, `[seqs, 1]`.
    pub fn lengths(&self, g: &mut dyn OpSink) -> Result<Val> {
        let mask = self.per_row(g, "token_mask")?;
        let lengths = self.gathered(g, mask)?;
        let ones = g.full_like(lengths, 1.0)?;
        g.one(ops::MAX, &[lengths, ones], Attrs::new())
    }

    /// `x [seqs, 1]` at the row of each of its tokens, `[rows, 1]`.
    pub fn spread(&self, g: &mut dyn OpSink, x: Val) -> Result<Val> {
        let row_sequence = g.input("row_sequence", Spec::u32([self.rows]))?;
        g.gather(x, row_sequence)
    }

    /// `x [seqs, 1]` less that of the other sequence of each pair, `[seqs, 1]`.
    pub fn ahead_of_partner(&self, g: &mut dyn OpSink, x: Val) -> Result<Val> {
        let partner = self.index_of_sequence(g, "partner")?;
        let other = g.gather(x, partner)?;
        g.sub(x, other)
    }

    /// The loss: the sum over the sequences of `x [seqs, 1]`, by their shares.
    pub fn mean_of_sequences(&self, g: &mut dyn OpSink, x: Val) -> Result<Vec<Val>> {
        let shares = self.per_sequence(g, "sequence_weights")?;
        let weighed = g.mul(x, shares)?;
        Ok(vec![g.unary(ops::REDUCE_ROWS, weighed)?])
    }

    /// The loss: the sum over the rows of `x [rows, 1]`, by their shares.
    pub fn mean_of_rows(&self, g: &mut dyn OpSink, x: Val) -> Result<Vec<Val>> {
        let shares = self.per_row(g, "loss_weights")?;
        let weighed = g.mul(x, shares)?;
        Ok(vec![g.unary(ops::REDUCE_ROWS, weighed)?])
    }

    fn gathered(&self, g: &mut dyn OpSink, x: Val) -> Result<Val> {
        let row_sequence = g.input("row_sequence", Spec::u32([self.rows]))?;
        let some = self.per_sequence(g, "sequence_weights")?;
        let zeros = g.full_like(some, 0.0)?;
        g.one(ops::SCATTER_ADD, &[zeros, row_sequence, x], Attrs::new())
    }
}

/// `ln(1 + eˣ)`, which is `−ln σ(−x)`, without overflow: `max(x, 0) + ln(1 + e^−|x|)`.
///
/// Where two are equal `max` has the derivative of the second, so that at 0 the two parts have 0 and 1/2:
/// runs of preferences begin there.
///
/// # Errors
///
/// Whatever the sink returns; likewise the other here.
pub fn softplus(g: &mut dyn OpSink, x: Val) -> Result<Val> {
    let (zeros, negative) = (g.full_like(x, 0.0)?, g.unary(ops::NEG, x)?);
    let positive = g.one(ops::MAX, &[x, zeros], Attrs::new())?;
    let magnitude = g.one(ops::MAX, &[x, negative], Attrs::new())?;
    let negative = g.unary(ops::NEG, magnitude)?;
    let small = g.unary(ops::EXP, negative)?;
    let above = g.offset(small, 1.0)?;
    let rest = g.unary(ops::LOG, above)?;
    g.add(positive, rest)
}

/// Logarithms of the softmax over each row of `x [rows, width]`: `x − max − ln Σ e^(x − max)`.
pub fn log_softmax(g: &mut dyn OpSink, x: Val) -> Result<Val> {
    let greatest = g.unary(ops::REDUCE_MAX, x)?;
    let below = g.sub(x, greatest)?;
    let weights = g.unary(ops::EXP, below)?;
    let total = g.sum(weights)?;
    let log = g.unary(ops::LOG, total)?;
    g.sub(below, log)
}
