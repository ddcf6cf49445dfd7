//! The tensors of one step, filled from what the scheduler picked.

use std::ops::Range;

use plugin_api::TensorRef;
use plugin_api::kinds::decoding_strategy::Want;
use plugin_api::kinds::kv_cache::SeqId;
use plugin_api::plan::{Dim, Plan, Symbol};

use crate::error::EngineError;

/// Inputs of a step. Reused: nothing is allocated once it has grown to its working size.
#[derive(Debug, Default)]
pub(super) struct StepBatch {
    pub(super) token_ids: Vec<u32>,
    pub(super) positions: Vec<u32>,
    pub(super) sequence_index: Vec<u32>,
    /// `[seqs, blocks]`.
    pub(super) block_table: Vec<u32>,
    /// Tokens of the step whose logits are asked for.
    pub(super) logit_rows: Vec<u32>,
    /// The sequences, in the order of the table.
    pub(super) entries: Vec<Entry>,
    /// Columns of a block table.
    blocks: usize,
    sizes: Vec<usize>,
}

/// What a plan takes for a step, in its order.
#[derive(Debug)]
pub(crate) struct PlanInputs {
    order: Vec<Input>,
    symbols: Vec<Size>,
}

/// One sequence in a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) seq: SeqId,
    /// Certain tokens.
    pub(super) tokens: usize,
    /// Guesses after them.
    pub(super) drafts: usize,
    /// Row of logits and what to do with it, if the sequence has no tokens left to evaluate. The
    /// rows after drafts follow it.
    pub(super) row: Option<(usize, Want)>,
    /// Rows of logits that say what the model makes of the prompt.
    pub(super) scored: Scored,
}

/// Rows of logits for tokens of a prompt that lie side by side.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scored {
    pub(super) first_row: usize,
    /// Position in the sequence of the token that the first row is of.
    pub(super) first_position: usize,
    pub(super) num_rows: usize,
}

#[derive(Debug, Clone, Copy)]
enum Input {
    TokenIds,
    Positions,
    SequenceIndex,
    BlockTable,
    LogitRows,
}

#[derive(Debug, Clone, Copy)]
enum Size {
    Tokens,
    Seqs,
    Blocks,
    LogitRows,
}

/// Inputs that a plan may ask for.
const INPUTS: [(&str, Input); 5] = [
    ("token_ids", Input::TokenIds),
    ("positions", Input::Positions),
    ("sequence_index", Input::SequenceIndex),
    ("block_table", Input::BlockTable),
    ("logit_rows", Input::LogitRows),
];

/// Sizes that a plan may have.
const SIZES: [(Dim, Size); 4] = [
    (Dim::TOKENS, Size::Tokens),
    (Dim::SEQS, Size::Seqs),
    (Dim::BLOCKS, Size::Blocks),
    (Dim::LOGIT_ROWS, Size::LogitRows),
];

/// Most inputs that a plan has.
pub(super) const INPUTS_MAX: usize = INPUTS.len();

/// Most sizes that a plan has.
pub(super) const SIZES_MAX: usize = SIZES.len();

impl PlanInputs {
    /// What `plan` takes.
    pub(super) fn of(plan: &Plan) -> Result<Self, EngineError> {
        let mut inputs = Self { order: Vec::new(), symbols: Vec::new() };
        for port in &plan.inputs {
            let known = INPUTS.iter().find(|(name, _)| *name == port.name);
            let Some((_, input)) = known else {
                let known = INPUTS.map(|(name, _)| name).join(", ");
                return Err(EngineError::inconsistent("input of the plan", known, &port.name));
            };
            inputs.order.push(*input);
        }
        for symbol in plan.symbols() {
            inputs.symbols.push(size_of(symbol).ok_or_else(|| {
                let known = "tokens, seqs, blocks or logit_rows";
                EngineError::inconsistent("size in the plan", known, symbol)
            })?);
        }
        Ok(inputs)
    }
}

impl StepBatch {
    /// An empty batch with block tables of `blocks` columns.
    pub(super) fn new(blocks: usize) -> Self {
        Self { blocks, ..Self::default() }
    }

    /// Columns of its block tables.
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    pub(super) fn clear(&mut self) {
        self.token_ids.clear();
        self.positions.clear();
        self.sequence_index.clear();
        self.block_table.clear();
        self.logit_rows.clear();
        self.entries.clear();
    }

    /// Appends tokens of a sequence at their positions, with its block table.
    pub(super) fn push(&mut self, seq: SeqId, tokens: &[u32], position: usize, table: &[u32]) {
        let index = self.entries.len() as u32;
        self.token_ids.extend_from_slice(tokens);
        self.positions.extend((position as u32..).take(tokens.len()));
        self.sequence_index.extend(std::iter::repeat_n(index, tokens.len()));
        let used = table.len().min(self.blocks);
        self.block_table.extend_from_slice(&table[..used]);
        self.block_table.extend(std::iter::repeat_n(0, self.blocks - used));
        let scored = Scored::default();
        self.entries.push(Entry { seq, tokens: tokens.len(), drafts: 0, row: None, scored });
    }

    /// Asks for the logits of tokens of the sequence pushed last, which began at `start`.
    pub(super) fn score(&mut self, start: usize, positions: Range<usize>) {
        let Some(entry) = self.entries.last_mut() else { return };
        let first = self.token_ids.len() - entry.tokens + (positions.start - start);
        let (first_row, num_rows) = (self.logit_rows.len(), positions.len());
        self.logit_rows.extend((first..first + num_rows).map(|token| token as u32));
        entry.scored = Scored { first_row, first_position: positions.start, num_rows };
    }

    /// Asks for the logits of the token pushed last, and returns their row.
    pub(super) fn want_last(&mut self, want: Want) {
        let row = self.logit_rows.len();
        self.logit_rows.push(self.token_ids.len() as u32 - 1);
        if let Some(entry) = self.entries.last_mut() {
            entry.row = Some((row, want));
        }
    }

    /// Appends drafts to the sequence pushed last, and asks for their logits.
    pub(super) fn push_drafts(&mut self, drafts: &[u32]) {
        let Some(entry) = self.entries.last_mut() else { return };
        entry.drafts = drafts.len();
        let index = self.entries.len() as u32 - 1;
        let next = self.positions.last().map_or(0, |last| last + 1);
        for (&draft, position) in drafts.iter().zip(next..) {
            self.logit_rows.push(self.token_ids.len() as u32);
            self.token_ids.push(draft);
            self.positions.push(position);
            self.sequence_index.push(index);
        }
    }

    /// The token after the one that a row of logits belongs to.
    pub(super) fn token_after(&self, row: usize) -> u32 {
        self.token_ids[self.logit_rows[row] as usize + 1]
    }

    /// Works out the value of each symbol, in the order of a plan.
    pub(super) fn update_sizes(&mut self, plan: &PlanInputs) {
        let (tokens, seqs) = (self.token_ids.len(), self.entries.len());
        let (blocks, rows) = (self.blocks, self.logit_rows.len());
        self.sizes.clear();
        self.sizes.extend(plan.symbols.iter().map(|size| match size {
            Size::Tokens => tokens,
            Size::Seqs => seqs,
            Size::Blocks => blocks,
            Size::LogitRows => rows,
        }));
    }

    pub(super) fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// Block and offset in it of every token.
    pub(super) fn places(&self, block_size: usize) -> impl Iterator<Item = (u32, usize)> {
        self.positions.iter().zip(&self.sequence_index).map(move |(&position, &index)| {
            let (column, offset) = (position as usize / block_size, position as usize % block_size);
            (self.block_table[index as usize * self.blocks + column], offset)
        })
    }

    /// Calls `each` with the positions and the block table of every sequence in the step.
    pub(super) fn each_row(&self, each: &mut dyn FnMut(Range<usize>, &[u32])) {
        let mut first = 0;
        for (row, entry) in self.entries.iter().enumerate() {
            let num = entry.tokens + entry.drafts;
            let start = self.positions.get(first).map_or(0, |&position| position as usize);
            each(start..start + num, &self.block_table[row * self.blocks..][..self.blocks]);
            first += num;
        }
    }

    pub(super) fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// The inputs in the order of a plan, in the front of an array.
    pub(super) fn inputs(&self, plan: &PlanInputs) -> ([TensorRef<'_>; INPUTS_MAX], usize) {
        let mut inputs = [TensorRef::U32(&[]); INPUTS_MAX];
        for (place, input) in inputs.iter_mut().zip(&plan.order) {
            *place = TensorRef::U32(match input {
                Input::TokenIds => &self.token_ids,
                Input::Positions => &self.positions,
                Input::SequenceIndex => &self.sequence_index,
                Input::BlockTable => &self.block_table,
                Input::LogitRows => &self.logit_rows,
            });
        }
        (inputs, plan.order.len())
    }
}

fn size_of(symbol: Symbol) -> Option<Size> {
    SIZES.into_iter().find_map(|(dim, size)| (dim == Dim::Symbol(symbol)).then_some(size))
}
