//! What strategies ask for: tokens into answers, forks, ends.

use std::marker::PhantomData;

use plugin_api::events::{AfterGenerate, AfterToken, Flow};
use plugin_api::kinds::decoding_strategy::{Action, FinishReason, Want};
use plugin_api::kinds::kv_cache::{BlockCopy, SeqId};
use plugin_api::kinds::logits_processor::{BatchChange, RowId};
use plugin_api::kinds::output_parser::AnswerId;
use plugin_api::{Error, Kind, KvCache};

use super::engine::Engine;
use super::fault::follow;
use super::group::Sequence;
use super::request::{Output, Stats};
use super::step::Sink;

impl Engine {
    /// Does what a strategy asked for, in order, until its request ends.
    pub(super) fn act(&mut self, index: usize, sink: Sink<'_>) {
        for i in 0..self.work.actions.list.len() {
            match self.work.actions.list[i] {
                Action::Finish { reason } => return self.finish(index, reason, None, sink),
                action => match self.act_once(index, action, sink) {
                    Ok(None) => {}
                    Ok(Some(reason)) => return self.finish(index, reason, None, sink),
                    Err(error) => return self.abort(index, &error, sink),
                },
            }
        }
    }

    /// Does one thing; the reason if the answer ends with it.
    fn act_once(
        &mut self,
        index: usize,
        action: Action,
        sink: Sink<'_>,
    ) -> Result<Option<FinishReason>, Error> {
        match action {
            Action::Emit { seq, token, logprob } => {
                self.advance(index, seq, token)?;
                let ended = self.say(index, Some(seq), token, logprob, sink)?;
                let is_full = self.is_context_full(seq).then_some(FinishReason::Length);
                return Ok(ended.or(is_full));
            }
            Action::Say { token, logprob } => return self.say(index, None, token, logprob, sink),
            Action::Advance { seq, token } => self.advance(index, seq, token)?,
            Action::Fork { parent, child } => self.fork(index, parent, child)?,
            Action::Copy { from, to } => self.copy(index, from, to)?,
            Action::Release { seq, upto } => self.release(index, seq, upto)?,
            Action::Finish { reason } => return Ok(Some(reason)),
        }
        Ok(None)
    }

    /// Tells processors of a token; an error if one of them cannot follow.
    fn advance(&mut self, index: usize, seq: SeqId, token: u32) -> Result<(), Error> {
        let Some(group) = self.groups.get(index) else { return Ok(()) };
        let (request, on_fault) = (group.request.0, &mut self.topics.on_fault);
        let change = BatchChange::Advanced { row: RowId(seq.0), token };
        follow(&mut self.processors, on_fault, request, &group.processors, &change)
    }

    /// Adds a token to an answer, chosen for a sequence in this step or earlier; the reason if it ends there.
    fn say(
        &mut self,
        index: usize,
        seq: Option<SeqId>,
        token: u32,
        logprob: f32,
        sink: Sink<'_>,
    ) -> Result<Option<FinishReason>, Error> {
        let Some(group) = self.groups.get_mut(index) else { return Ok(None) };
        let now = self.clock.now_us();
        group.first_token_us.get_or_insert(now);
        group.answer.push(token, &self.model.tokenizer);
        let mut event = AfterToken {
            request: group.request.0,
            index: group.answer.num_tokens - 1,
            token,
            logprob,
            text: &group.answer.text,
            keep_bytes: group.answer.text.len(),
            hold_bytes: 0,
            params: &group.params,
            lent: PhantomData,
        };
        let flow = self.topics.after_token.emit(&mut event);
        let (keep, hold) = (event.keep_bytes, event.hold_bytes);
        if flow != Flow::Continue {
            group.answer.cut(keep);
        }
        let is_first = group.answer.num_tokens == 1;
        let (request, text) = (group.request, group.answer.show(hold));
        self.work.read.pieces.clear();
        if let Some(parsers) = &group.parsers {
            let answer = AnswerId(group.id.0);
            let read = self.work.read.read(&mut self.parsers, parsers, answer, text, false);
            if let Err((place, error)) = read {
                self.parser_failed(place, request.0, &error);
                return Err(error);
            }
        }
        let pieces = &self.work.read.pieces[..];
        let top_logprobs = seq.map_or(&[][..], |seq| self.work.alternatives.of(seq, token));
        let digest = &group.digest;
        let prompt = group.scores.as_deref().filter(|_| is_first).unwrap_or_default();
        sink(Output::Token { request, token, logprob, top_logprobs, prompt, text, pieces, digest });
        self.load.tokens += 1;
        if seq.is_some() {
            self.tell_logits(index);
        }
        Ok(match flow {
            Flow::Finish(reason) => Some(reason),
            Flow::Refuse => Some(FinishReason::Refused),
            _ => None,
        })
    }

    fn is_context_full(&self, seq: SeqId) -> bool {
        let sequence = self.sequences.get(seq.0 as usize);
        sequence.is_some_and(|s| s.tokens.len() + 1 >= self.tokens_per_seq_max())
    }

    fn fork(&mut self, index: usize, parent: SeqId, child: SeqId) -> Result<(), Error> {
        self.fork_into(index, parent, child, Vec::new())
    }

    /// The same in the room of a list that is not needed any more.
    fn fork_into(
        &mut self,
        index: usize,
        parent: SeqId,
        child: SeqId,
        mut tokens: Vec<u32>,
    ) -> Result<(), Error> {
        self.settle(parent);
        let Some(origin) = self.sequences.get(parent.0 as usize) else { return Ok(()) };
        tokens.clear();
        tokens.extend_from_slice(&origin.tokens[..origin.num_known()]);
        let mut copy = Sequence {
            group: origin.group,
            tokens,
            num_evaluated: origin.num_evaluated,
            precise_from: origin.precise_from,
            known: None,
            drafts: Vec::new(),
            guesses: 0,
            num_unconfirmed: 0,
            want: Want::Nothing,
            is_atomic: false,
            is_aside: false,
            chain: origin.chain.clone(),
            losses: 0,
        };
        // What has lost its state is computed again, in both.
        let shared = match origin.num_evaluated {
            0 => Ok(()),
            _ => self.cache.get_mut().fork(parent, child, &mut self.work.moves),
        };
        match shared {
            Ok(()) => {}
            // And what there is no room for now, when there is.
            Err(Error::NoSpace { .. }) => {
                copy.num_evaluated = 0;
                copy.chain.forget();
            }
            Err(error) => {
                let (name, request) = (self.cache.label().name.clone(), self.request_of(parent));
                self.tell_fault(<dyn KvCache>::NAME, &name, request, &error);
                return Err(error);
            }
        }
        self.copy_blocks();
        self.sequences.insert_at(child.0 as usize, copy);
        let Some(group) = self.groups.get_mut(index) else { return Ok(()) };
        if !group.seqs.contains(&child) {
            group.seqs.push(child);
        }
        let change = BatchChange::Forked { parent: RowId(parent.0), child: RowId(child.0) };
        let (request, on_fault) = (group.request.0, &mut self.topics.on_fault);
        follow(&mut self.processors, on_fault, request, &group.processors, &change)
    }

    /// Lets a sequence of a request start over with what another of its sequences holds.
    fn copy(&mut self, index: usize, from: SeqId, to: SeqId) -> Result<(), Error> {
        let Some(group) = self.groups.get(index) else { return Ok(()) };
        let foreign = [from, to].into_iter().find(|seq| !group.seqs.contains(seq));
        let is_waiting = self.sequences.get(to.0 as usize).is_some_and(Sequence::is_awaited);
        if from == to || is_waiting || foreign.is_some() {
            let expected = "two sequences of the request, of which the second waits for nothing";
            let found = format!("{} and {}", from.0, to.0);
            return Err(Error::malformed("copy", expected, found));
        }
        let Some(group) = self.groups.get_mut(index) else { return Ok(()) };
        let (request, generations) = (group.request.0, std::mem::take(&mut group.processors));
        // A search copies at every step: the list of tokens is used again.
        let room = self.sequences.get_mut(to.0 as usize).map(|s| std::mem::take(&mut s.tokens));
        self.forget_seq(to, request, &generations);
        if let Some(group) = self.groups.get_mut(index) {
            group.processors = generations;
        }
        self.fork_into(index, from, to, room.unwrap_or_default())
    }

    fn release(&mut self, index: usize, seq: SeqId, upto: usize) -> Result<(), Error> {
        let Some(sequence) = self.sequences.get_mut(seq.0 as usize) else { return Ok(()) };
        let (keep, evaluated) = (upto.min(sequence.num_known()), sequence.num_evaluated);
        let resumed = self.layout.resumable(keep.min(evaluated), evaluated);
        self.cache.get_mut().release(seq, resumed);
        sequence.tokens.truncate(keep);
        if sequence.precise_from != usize::MAX {
            sequence.precise_from = sequence.precise_from.min(keep);
        }
        (sequence.num_evaluated, sequence.num_unconfirmed) = (resumed, 0);
        sequence.want = Want::Nothing;
        let was_awaited = sequence.known.take().is_some();
        sequence.chain.cut(keep, self.layout.pool.block_size);
        let Some(group) = self.groups.get_mut(index) else { return Ok(()) };
        group.outstanding -= usize::from(was_awaited).min(group.outstanding);
        let change = BatchChange::RolledBack { row: RowId(seq.0), history: &sequence.tokens };
        let (request, on_fault) = (group.request.0, &mut self.topics.on_fault);
        follow(&mut self.processors, on_fault, request, &group.processors, &change)
    }

    pub(super) fn abort_seq(&mut self, seq: SeqId, error: &Error, sink: Sink<'_>) {
        if let Some(sequence) = self.sequences.get(seq.0 as usize) {
            self.abort(sequence.group, error, sink);
        }
    }

    pub(super) fn abort(&mut self, index: usize, error: &Error, sink: Sink<'_>) {
        self.finish(index, FinishReason::Aborted, Some(error), sink);
    }

    fn finish(
        &mut self,
        index: usize,
        reason: FinishReason,
        error: Option<&Error>,
        sink: Sink<'_>,
    ) {
        let failed = self.read_end(index, reason, error.is_none());
        let (reason, error) = match &failed {
            Some(failed) => (FinishReason::Aborted, Some(failed)),
            None => (reason, error),
        };
        let Some(mut group) = self.remove_group(index) else { return };
        let now = self.clock.now_us();
        let stats = Stats {
            prompt_tokens: group.prompt_tokens,
            cached_tokens: group.cached_tokens.unwrap_or(0).min(group.prompt_tokens),
            tokens: group.answer.num_tokens,
            ttft_us: group.first_token_us.unwrap_or(now) - group.arrived_us,
            total_us: now - group.arrived_us,
        };
        let mut event = AfterGenerate {
            request: group.request.0,
            prompt_tokens: stats.prompt_tokens,
            tokens: stats.tokens,
            text: &group.answer.text,
            reason,
            seconds: stats.total_us as f64 / 1e6,
            lent: PhantomData,
        };
        let _ = self.topics.after_generate.emit(&mut event);
        let answer = group.answer.text.clone();
        let text = group.answer.show(0);
        let request = group.request;
        let pieces = &self.work.read.pieces[..];
        sink(Output::Finished { request, reason, text, pieces, answer: &answer, stats, error });
    }

    /// Completes the text of an answer and lets parsers read the rest of it, if nothing has failed; what
    /// fails now.
    fn read_end(&mut self, index: usize, reason: FinishReason, is_fair: bool) -> Option<Error> {
        self.work.read.pieces.clear();
        let group = self.groups.get_mut(index)?;
        if reason != FinishReason::Stop {
            group.answer.finish();
        }
        let (parsers, request) = (group.parsers.as_ref().filter(|_| is_fair)?, group.request.0);
        let (answer, rest) = (AnswerId(group.id.0), group.answer.rest());
        let read = self.work.read.read(&mut self.parsers, parsers, answer, rest, true);
        let (place, error) = read.err()?;
        self.work.read.pieces.clear();
        self.parser_failed(place, request, &error);
        Some(error)
    }

    /// Ends requests whose time is over. The clock is read if anybody has a deadline.
    pub(super) fn end_overdue(&mut self, sink: Sink<'_>) {
        if self.groups.iter().all(|(_, group)| group.deadline_us.is_none()) {
            return;
        }
        let now = self.clock.now_us();
        for place in 0..self.groups.end() {
            let group = self.groups.get(place);
            if let Some(group) = group.filter(|group| group.deadline_us.is_some_and(|at| at <= now))
            {
                let waited = now - group.arrived_us;
                let error = Error::outside("request", format!("not answered within {waited} us"));
                self.abort(place, &error, sink);
            }
        }
    }

    /// Copies blocks that the cache has moved, in every state.
    pub(super) fn copy_blocks(&mut self) {
        if self.work.moves.is_empty() {
            return;
        }
        if let Some(conversion) = &mut self.conversion {
            conversion.moved(&self.work.moves);
        }
        let moves = std::mem::take(&mut self.work.moves);
        for state in 0..self.model.states.len() {
            for &copy in &moves {
                // Both are in memory until something else is brought in.
                if self.bring_in_move(state, copy) {
                    self.copy_block(state, copy);
                }
            }
        }
        // What a fault appended is of sequences that hold nothing any more.
        self.work.moves = moves;
        self.work.moves.clear();
    }

    fn copy_block(&mut self, state: usize, copy: BlockCopy) {
        let (spec, place) = (&self.model.states[state], &self.layout.places[state]);
        let rows = spec.per.rows_of_block(self.layout.pool.block_size);
        let bytes = self.state.as_mut_slice();
        for (part, &offset) in spec.parts.iter().zip(&place.offsets) {
            let size = place.storage.block_bytes(part, rows);
            let from = offset + copy.from as usize * size;
            bytes.copy_within(from..from + size, offset + copy.to as usize * size);
        }
    }
}
