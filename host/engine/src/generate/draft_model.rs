//! The draft model: a smaller one that guesses what comes next, for sequences whose strategies ask for guesses.
//!
//! It has a backend, a cache and memory of its own, and reads the tokens that the model has. Before each step it guesses the
//! tokens after those that wait, likeliest first, one run for all sequences after the other; the step evaluates
//! them as it does every draft. Whatever it guesses, answers are the same.

use std::path::Path;
use std::sync::Arc;

use jackfield_runtime::{Clock, Generation, Label, Registry};
use plugin_api::kinds::decoding_strategy::Want;
use plugin_api::kinds::kv_cache::{BlockCopy, SeqId};
use plugin_api::{Error, KvCache};

use super::batch::StepBatch;
use super::group::{Sequence, Slab};
use super::plans::CompiledPlan;
use super::rows::Rows;
use crate::error::EngineError;
use crate::model::memory::AlignedBytes;
use crate::model::{LoadOptions, LoadedModel, Tokenizer};
use crate::wiring::Wiring;

/// A model that guesses.
pub(super) struct DraftModel {
    model: LoadedModel,
    plan: CompiledPlan,
    cache: Box<dyn KvCache>,
    memory: Memory,
    rows: Rows,
    batch: StepBatch,
    /// By the number of the sequence, the tokens whose state is in the cache: its own, and guesses.
    held: Vec<Vec<u32>>,
    /// Sequences that are guessed for in this step.
    active: Vec<Guessing>,
    moves: Vec<BlockCopy>,
    tokens_max: usize,
    seqs_max: usize,
    /// Tokens below this are known to both models.
    num_tokens_known: u32,
}

/// What a plan writes to.
pub(super) struct Memory {
    pub(super) state: AlignedBytes,
    pub(super) scratch: AlignedBytes,
}

impl Memory {
    fn run(
        &mut self,
        plan: &CompiledPlan,
        batch: &StepBatch,
        rows: &mut Rows,
    ) -> Result<(), Error> {
        let logits = rows.front_mut(batch.logit_rows.len());
        let ran = plan.run(false, batch, logits, &mut self.state, &mut self.scratch, None);
        ran.map_err(|fault| fault.error)
    }
}

#[derive(Clone, Copy)]
struct Guessing {
    index: usize,
    /// How many more.
    left: usize,
    row: Option<usize>,
}

/// What a guess costs, measured when the models are loaded, over a step of the model for one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DraftCosts {
    /// Of the draft model for one token.
    pub(super) draft: f64,
    /// Of each token that is evaluated beside the first.
    pub(super) verify: f64,
}

impl DraftModel {
    /// Loads the model at `path` to guess for one with `tokenizer`.
    ///
    /// # Errors
    ///
    /// As for a model; [`EngineError::Inconsistent`] for one with other tokens.
    pub(super) fn load(
        path: &Path,
        wiring: &Wiring,
        registry: &Registry,
        options: &LoadOptions,
        tokenizer: &Tokenizer,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, EngineError> {
        let options = LoadOptions {
            adapter: None,
            precise: None,
            draft_model: None,
            logit_rows_max: options.num_seqs_max,
            state_bytes_max: options.state_bytes_max / STATE_SHARE,
            ..options.clone()
        };
        let (name, backend) = wiring.backend(registry)?;
        let (_, mut cache) = wiring.kv_cache(registry)?;
        if cache.tiering().is_some() {
            let missing = "both would need files: choose another cache";
            let error = Error::unsupported("a draft model beside a cache with tiers", missing);
            return Err(EngineError::plugin("draft model")(error));
        }
        let (model, first) =
            LoadedModel::load(path, wiring, registry, &*backend, &mut *cache, &options, progress)?;
        let num_tokens_known = common_tokens(tokenizer, &model.tokenizer)?;
        let backend = Arc::new(Generation::new(Label::first(&name), backend));
        let (layout, parts, companions) = (first.layout, first.traced, first.companions);
        if layout.is_recurrent {
            let expected = "a model whose guesses can be taken back";
            return Err(EngineError::inconsistent("draft model", expected, "a state per sequence"));
        }
        let plan = CompiledPlan::new(&model, &layout, 1, parts, first.plan, companions, backend)?;
        let memory = Memory {
            state: AlignedBytes::zeroed(layout.size_bytes),
            scratch: AlignedBytes::zeroed(plan.scratch_bytes()),
        };
        Ok(Self {
            rows: Rows::new(options.logit_rows_max, model.num_logits),
            batch: StepBatch::new(layout.pool.blocks_per_seq_max),
            held: Vec::new(),
            active: Vec::with_capacity(options.num_seqs_max),
            moves: Vec::new(),
            tokens_max: options.tokens_per_step_max,
            seqs_max: options.num_seqs_max,
            num_tokens_known,
            model,
            plan,
            cache,
            memory,
        })
    }

    /// Appends guesses to the drafts of all sequences that want some and have none.
    ///
    /// # Errors
    ///
    /// What the backend fails with: nothing is guessed any more, and nothing else is lost.
    pub(super) fn guess(&mut self, sequences: &mut Slab<Sequence>) -> Result<(), Error> {
        self.catch_up(sequences);
        while !self.batch.entries.is_empty() {
            self.run()?;
            self.take_guesses(sequences);
            self.go_on(sequences);
        }
        Ok(())
    }

    /// Forgets a sequence that has ended.
    pub(super) fn forget(&mut self, seq: SeqId) {
        let held = self.held.get_mut(seq.0 as usize);
        if let Some(held) = held.filter(|held| !held.is_empty()) {
            held.clear();
            self.cache.release(seq, 0);
        }
    }

    /// Fills a batch with the tokens that the draft model has not seen, as many as a step may have.
    fn catch_up(&mut self, sequences: &mut Slab<Sequence>) {
        self.batch.clear();
        self.active.clear();
        for (index, sequence) in sequences.iter() {
            let room = self.tokens_max - self.batch.num_tokens();
            let is_wanted = sequence.guesses > 0 && sequence.drafts.is_empty();
            let is_full = room == 0 || self.active.len() == self.seqs_max;
            let has_room = sequence.tokens.len() + sequence.guesses < self.model.context_length;
            if !is_wanted || is_full || !has_room || sequence.pending() == 0 {
                continue;
            }
            let seen = self.reconcile(index, &sequence.tokens);
            let unseen = &sequence.tokens[seen..];
            // The model may have tokens that mean nothing here.
            if unseen.iter().any(|token| *token >= self.num_tokens_known) {
                continue;
            }
            let taken = unseen.len().min(room);
            if !self.push(index, &unseen[..taken], seen) {
                continue;
            }
            // A prompt that is too long for one step is guessed about when all of it was seen.
            let is_through = taken == unseen.len();
            let left = if is_through { sequence.guesses } else { 0 };
            self.want(index, left);
        }
    }

    /// Lets go of tokens that the sequence does not have; how many it begins with are held, not all.
    fn reconcile(&mut self, index: usize, tokens: &[u32]) -> usize {
        if self.held.len() <= index {
            self.held.resize_with(index + 1, Vec::new);
        }
        let held = &mut self.held[index];
        if held.capacity() == 0 {
            // All that it may grow to: no step allocates.
            held.reserve(self.model.context_length);
        }
        let alike = held.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let keep = alike.min(tokens.len() - 1);
        if keep < held.len() {
            self.cache.release(SeqId(index as u32), keep);
            held.truncate(keep);
        }
        keep
    }

    /// Puts tokens into the batch; whether the cache has room for them.
    fn push(&mut self, index: usize, tokens: &[u32], position: usize) -> bool {
        let seq = SeqId(index as u32);
        match self.cache.reserve(seq, tokens.len(), &mut self.moves) {
            Ok(table) => {
                self.batch.push(seq, tokens, position, table);
                self.held[index].extend_from_slice(tokens);
                true
            }
            Err(_) => false,
        }
    }

    fn want(&mut self, index: usize, left: usize) {
        let row = (left > 0).then(|| {
            self.batch.want_last(Want::Argmax);
            self.batch.logit_rows.len() - 1
        });
        self.active.push(Guessing { index, left, row });
    }

    fn run(&mut self) -> Result<(), Error> {
        self.batch.update_sizes(&self.plan.inputs);
        let ran = self.memory.run(&self.plan, &self.batch, &mut self.rows);
        for entry in &self.batch.entries {
            let keep = if ran.is_ok() { entry.tokens } else { 0 };
            self.cache.commit(entry.seq, keep, &mut self.moves);
        }
        // Nothing is shared here, so nothing has to be copied.
        self.moves.clear();
        ran
    }

    /// Takes the likeliest token of each row.
    fn take_guesses(&mut self, sequences: &mut Slab<Sequence>) {
        for guessing in &mut self.active {
            let Some(row) = guessing.row.take() else {
                guessing.left = 0;
                continue;
            };
            let guess = self.rows.argmax(row);
            let sequence = sequences.get_mut(guessing.index);
            match sequence.filter(|_| guess < self.num_tokens_known) {
                Some(sequence) => {
                    sequence.drafts.push(guess);
                    guessing.left -= 1;
                }
                None => guessing.left = 0,
            }
        }
        self.active.retain(|guessing| guessing.left > 0);
    }

    /// Fills the batch with the last guess of each sequence that wants another.
    fn go_on(&mut self, sequences: &Slab<Sequence>) {
        self.batch.clear();
        let mut active = std::mem::take(&mut self.active);
        active.retain_mut(|guessing| {
            let index = guessing.index;
            let last = sequences.get(index).and_then(|sequence| sequence.drafts.last().copied());
            let position = self.held[index].len();
            let is_in = last.is_some_and(|last| self.push(index, &[last], position));
            if is_in {
                self.batch.want_last(Want::Argmax);
                guessing.row = Some(self.batch.logit_rows.len() - 1);
            }
            is_in
        });
        self.active = active;
    }

    /// Measures what guesses cost beside a step of the model for one token, and for one with `drafts_max` drafts, at most
    /// four.
    ///
    /// # Errors
    ///
    /// What a backend fails with.
    pub(super) fn costs(
        &mut self,
        model: &mut Timed<'_>,
        drafts_max: usize,
        clock: &dyn Clock,
    ) -> Result<DraftCosts, Error> {
        let drafts = drafts_max.min(TIMED_DRAFTS);
        let (one, several) = (time_of(model, 0, clock)?, time_of(model, drafts, clock)?);
        let blocks = self.batch.blocks();
        let (rows, memory) = (&mut self.rows, &mut self.memory);
        let guess = time_of(&mut Timed { plan: &self.plan, rows, memory, blocks }, 0, clock)?;
        let verify = (several - one).max(0.0) / (one * drafts.max(1) as f64);
        Ok(DraftCosts { draft: guess / one, verify })
    }
}

/// A model that is timed before anything else runs: what it writes, nobody reads.
pub(super) struct Timed<'a> {
    pub(super) plan: &'a CompiledPlan,
    pub(super) rows: &'a mut Rows,
    pub(super) memory: &'a mut Memory,
    /// Columns of a block table.
    pub(super) blocks: usize,
}

/// Microseconds of a step for one token with drafts behind it.
fn time_of(timed: &mut Timed<'_>, drafts: usize, clock: &dyn Clock) -> Result<f64, Error> {
    let Timed { plan, rows, memory, blocks } = timed;
    let mut batch = StepBatch::new(*blocks);
    batch.push(SeqId(0), &[0], 0, &[0]);
    batch.want_last(Want::Argmax);
    batch.push_drafts(&[0; TIMED_DRAFTS][..drafts]);
    batch.update_sizes(&plan.inputs);
    let mut least = f64::INFINITY;
    for _ in 0..TIMED_RUNS {
        let before = clock.now_us();
        memory.run(plan, &batch, rows)?;
        least = least.min((clock.now_us() - before) as f64);
    }
    Ok(least.max(1.0))
}

/// How many tokens mean the same to both, from the first on.
fn common_tokens(model: &Tokenizer, draft: &Tokenizer) -> Result<u32, EngineError> {
    let count = model.vocab_size().min(draft.vocab_size()) as u32;
    let other = (0..count).find(|id| model.decode_bytes(*id) != draft.decode_bytes(*id));
    if let Some(id) = other {
        let shown = |tokenizer: &Tokenizer| format!("{:?}", tokenizer.decode(&[id], true));
        let what = format!("token {id} of the draft model");
        return Err(EngineError::inconsistent(what, shown(model), shown(draft)));
    }
    Ok(count)
}

/// Of the memory for states, the draft model takes this part.
const STATE_SHARE: u64 = 4;
const TIMED_DRAFTS: usize = 4;
const TIMED_RUNS: usize = 5;
