//! One step: plan, schedule, reserve, run, process, choose, commit, observe, emit.

use std::marker::PhantomData;

use plugin_api::events::{AfterStep, BeforeStep};
use plugin_api::kinds::backend::StatePager;
use plugin_api::kinds::decoding_strategy::Want;
use plugin_api::kinds::kv_cache::SeqId;
use plugin_api::kinds::logits_processor::{LogitsRows, RowId};
use plugin_api::{Error, Kind, LogitsProcessor};

use super::drafts::Spare;
use super::engine::Engine;
use super::group::Sequence;
use super::plans::Turn;
use super::request::Output;
use super::stages::StepFault;
use super::tiers::{Pager, Step};
use crate::error::EngineError;

/// What a step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Tokens that were evaluated; 0 when there was nothing to do.
    pub tokens: usize,
    /// Sequences they belong to.
    pub seqs: usize,
    /// Time in the backend, in microseconds.
    pub model_us: u64,
}

/// Where a step gives its tokens.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Output<'_>);

impl Engine {
    /// Runs one step and gives its tokens to `sink`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] if the backend fails; requests stay as they were before the step.
    /// A plugin that fails for one request ends that request only, as [`Output::Finished`].
    pub fn step(&mut self, sink: Sink<'_>) -> Result<StepReport, EngineError> {
        self.boundary();
        self.end_overdue(sink);
        self.plan(sink);
        self.guess();
        // One plan generation runs in a step; those that live take turns.
        for _ in 0..self.plans.num_turns() {
            self.plans.next_turn();
            self.schedule();
            self.reserve(sink);
            if !self.work.batch.entries.is_empty() {
                break;
            }
        }
        if self.work.batch.entries.is_empty() {
            self.tell_load();
            return Ok(StepReport::default());
        }
        let (tokens, seqs) = (self.work.batch.token_ids.len(), self.work.batch.entries.len());
        let (step, lent) = (self.num_steps, PhantomData);
        let _ = self.topics.before_step.emit(&mut BeforeStep { step, tokens, seqs, lent });
        let model_us = match self.run() {
            Ok(model_us) => model_us,
            Err(error) => return self.after_tier_fault(error, sink),
        };
        self.score_prompts();
        self.look();
        self.process(sink);
        self.choose(true);
        self.commit();
        self.observe(sink);
        while self.confirm() {
            self.process(sink);
            self.choose(false);
            self.observe(sink);
        }
        self.publish_confirmed();
        self.num_steps += 1;
        self.load.steps += 1;
        self.load.evaluated_tokens += tokens as u64;
        self.tell_load();
        let blocks_used = self.load.blocks_used as usize;
        let mut event = AfterStep { step, tokens, seqs, model_us, blocks_used, lent };
        let _ = self.topics.after_step.emit(&mut event);
        Ok(StepReport { tokens, seqs, model_us })
    }

    /// Steps until no request is left.
    ///
    /// # Errors
    ///
    /// What [`step`](Self::step) returns.
    pub fn run_to_end(&mut self, sink: Sink<'_>) -> Result<(), EngineError> {
        while self.num_running() > 0 {
            self.step(sink)?;
        }
        Ok(())
    }

    /// Asks the strategy of every group without outstanding evaluations for its next ones.
    fn plan(&mut self, sink: Sink<'_>) {
        self.order_groups();
        let tokens_max = self.tokens_per_seq_max();
        for i in 0..self.work.order.len() {
            let (index, mut longest) = (self.work.order[i], 0);
            let Some(group) = self.groups.get_mut(index) else { continue };
            if group.outstanding > 0 {
                continue;
            }
            let (strategy, generation) = group.strategy;
            self.work.evals.clear();
            let plugin = self.strategies[strategy].1.get_mut(generation);
            if let Err(error) = plugin.plan(group.id, &mut self.work.evals) {
                self.strategy_failed(index, &error, sink);
                continue;
            }
            for eval in &self.work.evals.list {
                let tokens = &self.work.evals.tokens[eval.start..eval.start + eval.len];
                let (tokens, drafts) = tokens.split_at(eval.len - eval.drafts.min(eval.len));
                if let Some(sequence) = self.sequences.get_mut(eval.seq.0 as usize)
                    && !tokens.is_empty()
                {
                    longest = longest.max(sequence.tokens.len() + tokens.len());
                    group.outstanding += usize::from(!sequence.is_awaited());
                    sequence.known.get_or_insert(sequence.tokens.len());
                    sequence.tokens.extend_from_slice(tokens);
                    sequence.drafts.clear();
                    sequence.drafts.extend_from_slice(drafts);
                    sequence.guesses = eval.guesses;
                    (sequence.want, sequence.is_atomic) = (eval.want, eval.is_atomic);
                    sequence.is_aside = eval.is_aside;
                }
            }
            if group.outstanding == 0 {
                let error = Error::malformed("strategy", "something to evaluate", "nothing");
                self.strategy_failed(index, &error, sink);
            } else if longest > tokens_max {
                let expected = format!("at most {tokens_max} tokens in a sequence");
                let error = Error::malformed("strategy", expected, longest);
                self.strategy_failed(index, &error, sink);
            }
        }
    }

    /// Groups in order of arrival.
    fn order_groups(&mut self) {
        let work = &mut self.work;
        work.order.clear();
        work.order.extend(self.groups.iter().map(|(index, _)| index));
        let groups = &self.groups;
        work.order.sort_unstable_by_key(|&index| groups.get(index).map(|g| g.request));
    }

    /// Takes room in the cache for what was picked, and fills the batch with what has room.
    fn reserve(&mut self, sink: Sink<'_>) {
        self.work.batch.clear();
        if self.fill().is_some() && self.work.batch.entries.is_empty() {
            // A policy may put those first that have no room. By arrival, the oldest takes it.
            self.pick_by_arrival();
            if let Some((seq, error)) = self.fill()
                && self.work.batch.entries.is_empty()
                && !self.other_plans_hold_cache()
            {
                self.abort_seq(seq, &error, sink);
            }
        }
        self.copy_blocks();
        if !self.work.batch.entries.is_empty() {
            let plan = self.plans.get(self.plans.turn().generation);
            self.work.batch.update_sizes(&plan.inputs);
        }
    }

    /// Fills the batch with what was picked and has room; the first sequence that has none.
    fn fill(&mut self) -> Option<(SeqId, Error)> {
        let mut first = None;
        let picked = self.work.picked.iter().map(|picked| picked.tokens);
        self.work.spare = Spare::of((self.limits.tokens, self.logit_rows_max), picked);
        for i in 0..self.work.picked.len() {
            let picked = self.work.picked[i];
            let Some(waiting) = self.work.queue.get(picked.index).copied() else { continue };
            let batch = &self.work.batch;
            let room = self.limits.tokens - batch.token_ids.len().min(self.limits.tokens);
            let tokens = picked.tokens.min(waiting.pending).min(room);
            let is_full = batch.entries.len() >= self.limits.seqs
                || batch.logit_rows.len() >= self.logit_rows_max;
            if tokens == 0 || is_full || self.is_in_batch(waiting.seq) {
                continue;
            }
            while let Err(error) = self.push(waiting.seq, tokens) {
                // Whoever came last waits: its tokens are evaluated again later.
                if !self.preempt_last(waiting.seq) {
                    first.get_or_insert((waiting.seq, error));
                    break;
                }
            }
        }
        first
    }

    /// Whether sequences of a plan whose turn it is not hold tokens: room comes when they end.
    fn other_plans_hold_cache(&self) -> bool {
        let turn = self.plans.turn();
        let mut holders = self.sequences.iter().filter(|(_, s)| s.num_evaluated > 0);
        holders.any(|(_, s)| {
            let group = self.groups.get(s.group);
            group.is_some_and(|g| g.plan != turn.generation || s.is_precise() != turn.is_precise)
        })
    }

    fn is_in_batch(&self, seq: SeqId) -> bool {
        self.work.batch.entries.iter().any(|entry| entry.seq == seq)
    }

    fn push(&mut self, seq: SeqId, tokens: usize) -> Result<(), Error> {
        self.adopt(seq);
        let Some(sequence) = self.sequences.get(seq.0 as usize) else { return Ok(()) };
        let start = sequence.num_evaluated;
        let unscored = self.groups.get(sequence.group).and_then(|group| group.unscored(seq, start));
        // A row for each token: fewer of them than a step takes, and one is left for every other
        // sequence.
        let rows_max = self.work.spare.rows_of_one();
        let tokens_max = if unscored.is_some() { rows_max } else { usize::MAX };
        let pending = sequence.pending_with(self.plans.turn().is_precise);
        let tokens = tokens.min(pending).min(tokens_max);
        let is_asked = tokens == sequence.pending() && sequence.want != Want::Nothing;
        let want = sequence.want;
        let mut drafts = if is_asked { self.drafts_allowed(seq) } else { 0 };
        let (cache, moves) = (self.cache.get_mut(), &mut self.work.moves);
        let table = if drafts == 0 {
            cache.reserve(seq, tokens, moves)?
        } else {
            cache.reserve(seq, tokens, moves)?;
            // Nobody makes room for a guess.
            if cache.reserve(seq, drafts, moves).is_err() {
                drafts = 0;
            }
            cache.reserve(seq, 0, moves)?
        };
        let Some(sequence) = self.sequences.get(seq.0 as usize) else { return Ok(()) };
        let batch = &mut self.work.batch;
        batch.push(seq, &sequence.tokens[start..start + tokens], start, table);
        if let Some(unscored) = unscored {
            let end = unscored.end.min(start + tokens);
            batch.score(start, unscored.start.min(end)..end);
            self.work.spare.take_rows(tokens);
        }
        if is_asked {
            batch.want_last(want);
            self.push_drafts(seq, drafts);
        }
        Ok(())
    }

    /// Takes the cache of the sequence that arrived last, after `seq` and outside the batch.
    fn preempt_last(&mut self, seq: SeqId) -> bool {
        let of = |sequence: &Sequence| self.groups.get(sequence.group).map(|g| g.request);
        let Some(mine) = self.sequences.get(seq.0 as usize) else { return false };
        let arrival = of(mine);
        let others = self.sequences.iter().filter(|(index, other)| {
            let id = SeqId(*index as u32);
            other.num_evaluated > 0 && !self.is_in_batch(id) && of(other) > arrival
        });
        let Some((index, _)) = others.max_by_key(|(_, other)| of(other)) else { return false };
        self.cache.get_mut().release(SeqId(index as u32), 0);
        if let Some(sequence) = self.sequences.get_mut(index) {
            sequence.num_evaluated = 0;
            sequence.chain.forget();
        }
        self.load.preemptions += 1;
        true
    }

    /// Runs the plan over the batch and returns the time it took, in microseconds.
    pub(super) fn run(&mut self) -> Result<u64, EngineError> {
        let batch = &self.work.batch;
        let Turn { generation, is_precise } = self.plans.turn();
        let plan = self.plans.get(generation);
        let logits = self.rows.front_mut(batch.logit_rows.len());
        if let Some(conversion) = &mut self.conversion {
            conversion.written(batch, self.layout.pool.block_size);
        }
        let before = self.clock.now_us();
        let (tiers, policy) = (self.tiers.as_deref_mut(), self.cache.get_mut().tiering());
        let mut pager = tiers.zip(policy).map(|(tiers, policy)| {
            let step = Step { batch, layout: &self.layout, states: &self.model.states };
            Pager { tiers, policy, step }
        });
        let pager = pager.as_mut().map(|pager| pager as &mut dyn StatePager);
        let result = plan.run(is_precise, batch, logits, &mut self.state, &mut self.scratch, pager);
        if let Err(StepFault { kind, plugin, error }) = result {
            self.tell_fault(&kind, &plugin, 0, &error);
            self.take_back();
            return Err(EngineError::plugin("step")(error));
        }
        Ok(self.clock.now_us() - before)
    }

    /// Gives back what a step that failed reserved. States per sequence may have taken its tokens in: those
    /// sequences go on from the end of a block.
    fn take_back(&mut self) {
        let block_size = self.layout.pool.block_size;
        for entry in &self.work.batch.entries {
            let cache = self.cache.get_mut();
            cache.commit(entry.seq, 0, &mut self.work.moves);
            let Some(sequence) = self.sequences.get_mut(entry.seq.0 as usize) else { continue };
            let known = self.layout.resumable(sequence.num_evaluated, usize::MAX);
            if known < sequence.num_evaluated {
                cache.release(entry.seq, known);
                sequence.num_evaluated = known;
                sequence.chain.cut(known, block_size);
            }
        }
    }

    /// Lets every processor edit the rows of the requests that hold its generation.
    fn process(&mut self, sink: Sink<'_>) {
        for entry in &self.work.batch.entries {
            if let Some((row, _)) = entry.row {
                self.rows.begin(row, RowId(entry.seq.0));
            }
        }
        let mut failed: Vec<(usize, SeqId, Error)> = Vec::new();
        for (place, (_, slot)) in self.processors.iter_mut().enumerate() {
            for (generation, processor) in slot.iter_mut() {
                let invariant = processor.is_argmax_invariant();
                self.work.active.clear();
                for entry in &self.work.batch.entries {
                    let Some((row, want)) = entry.row else { continue };
                    let sequence = self.sequences.get(entry.seq.0 as usize);
                    let group = sequence.and_then(|s| self.groups.get(s.group));
                    let is_pinned = group.is_some_and(|g| g.processors[place] == generation);
                    let is_aside = sequence.is_some_and(|s| s.is_aside);
                    // What leaves the largest the largest says how to draw.
                    let has_effect = if invariant { want == Want::Sample } else { !is_aside };
                    if is_pinned && has_effect {
                        self.work.active.push(row);
                    }
                }
                if self.work.active.is_empty() {
                    continue;
                }
                let mut view = self.rows.view(&self.work.active);
                if let Err(error) = processor.apply(&mut LogitsRows::new(&mut view)) {
                    let rows = &self.work.active;
                    let entries = self.work.batch.entries.iter();
                    let hit = entries.filter(|e| e.row.is_some_and(|(row, _)| rows.contains(&row)));
                    failed.extend(hit.map(|entry| (place, entry.seq, error.clone())));
                }
            }
        }
        for (place, seq, error) in failed {
            let name = self.processors[place].0.clone();
            let request = self.request_of(seq);
            self.tell_fault(<dyn LogitsProcessor>::NAME, &name, request, &error);
            self.abort_seq(seq, &error, sink);
        }
    }

    /// Keeps the state of everything that was evaluated.
    fn commit(&mut self) {
        for i in 0..self.work.batch.entries.len() {
            let entry = self.work.batch.entries[i];
            if let Some(sequence) = self.sequences.get_mut(entry.seq.0 as usize) {
                let cache = self.cache.get_mut();
                cache.commit(entry.seq, entry.tokens + entry.drafts, &mut self.work.moves);
                sequence.num_evaluated += entry.tokens;
                sequence.num_unconfirmed = entry.drafts;
                self.publish(entry.seq);
            }
        }
        self.copy_blocks();
    }

    /// Hands results to the strategies and does what they ask for.
    fn observe(&mut self, sink: Sink<'_>) {
        for i in 0..self.work.order.len() {
            let index = self.work.order[i];
            self.work.of_group.clear();
            let mine = self.work.outcomes.iter().filter(|(group, _)| *group == index);
            self.work.of_group.extend(mine.map(|(_, outcome)| *outcome));
            if self.work.of_group.is_empty() {
                continue;
            }
            let Some(group) = self.groups.get_mut(index) else { continue };
            // Outcomes of one evaluation stand side by side.
            let evals = self.work.of_group.chunk_by(|a, b| a.seq == b.seq).count();
            group.outstanding -= evals.min(group.outstanding);
            let (strategy, generation) = group.strategy;
            let plugin = self.strategies[strategy].1.get_mut(generation);
            let actions = &mut self.work.actions;
            actions.list.clear();
            actions.next_seq = self.sequences.end() as u32;
            match plugin.observe(group.id, &self.work.of_group, actions) {
                Ok(()) => self.act(index, sink),
                Err(error) => self.strategy_failed(index, &error, sink),
            }
        }
    }
}
