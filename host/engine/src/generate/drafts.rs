//! Drafts: guesses at the next tokens of a sequence, evaluated in the same step as the last certain
//! one. Those that come true save a step each; the others are taken back.
//!
//! A draft is kept if it is what was chosen before it: by the same logits, processors and random
//! numbers as without drafts. So an answer does not depend on whether anybody guessed, and with
//! drafts that are certain tokens themselves this is the rejection sampling of Leviathan et al.,
//! arXiv:2211.17192.

use plugin_api::kinds::kv_cache::SeqId;
use plugin_api::{Backend, Config, Kind};

use super::engine::Engine;
use super::precise::tokens_to_look;

/// What is left of a step for drafts and for scores of prompts, after everything that has to run.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Spare {
    tokens: usize,
    rows: usize,
}

impl Spare {
    /// What `picked` tokens of so many sequences leave.
    pub(super) fn of(limits: (usize, usize), picked: impl Iterator<Item = usize>) -> Self {
        let (tokens, rows) = limits;
        picked.fold(Self { tokens, rows }, |left, picked| Self {
            tokens: left.tokens.saturating_sub(picked),
            rows: left.rows.saturating_sub(1),
        })
    }

    fn room(self) -> usize {
        self.tokens.min(self.rows)
    }

    fn take(&mut self, drafts: usize) {
        self.tokens -= drafts;
        self.rows -= drafts;
    }

    /// Rows of logits that one sequence may have: its own, and those that nobody needs.
    pub(super) fn rows_of_one(self) -> usize {
        self.rows + 1
    }

    /// Takes the rows of one sequence.
    pub(super) fn take_rows(&mut self, rows: usize) {
        self.rows -= rows.saturating_sub(1);
    }
}

impl Engine {
    /// Lets the draft model guess where a strategy asked for it. One that fails guesses no more: nobody counts on it.
    pub(super) fn guess(&mut self) {
        let Some((draft, _)) = &mut self.draft else { return };
        if !self.sequences.iter().any(|(_, sequence)| sequence.guesses > 0) {
            return;
        }
        if let Err(error) = draft.guess(&mut self.sequences) {
            self.draft = None;
            self.tell_fault(<dyn Backend>::NAME, "draft model", 0, &error);
        }
        self.sequences.iter_mut().for_each(|sequence| sequence.guesses = 0);
    }

    /// What a guess of the draft model and the evaluation of a draft cost, over a step for one token; nothing without
    /// a draft model.
    pub fn draft_costs(&self) -> Option<(f64, f64)> {
        self.draft.as_ref().map(|(_, costs)| (costs.draft, costs.verify))
    }

    /// Tells strategies of a request what guesses cost, if there is anybody to guess.
    pub(super) fn tell_costs(&self, params: &mut Config) {
        if let Some((_, costs)) = &self.draft {
            params.set("draft_cost", costs.draft);
            params.set("verify_cost", costs.verify);
        }
    }

    /// How many drafts of a sequence there is room for, if its certain tokens run to the end.
    pub(super) fn drafts_allowed(&self, seq: SeqId) -> usize {
        let Some(sequence) = self.sequences.get(seq.0 as usize) else { return 0 };
        // What a state has taken in cannot be taken back.
        if self.layout.is_recurrent {
            return 0;
        }
        let in_context = self.tokens_per_seq_max().saturating_sub(sequence.tokens.len() + 1);
        // Those after the token that is looked at would have its weights, whatever is said of them.
        let group = self.groups.get(sequence.group).filter(|group| group.looked.is_some());
        let to_look = group.map_or(usize::MAX, |g| tokens_to_look(g.answer.num_tokens) - 1);
        sequence.drafts.len().min(self.work.spare.room()).min(in_context).min(to_look)
    }

    /// Appends drafts to the sequence that was put into the batch last, which wants a token.
    pub(super) fn push_drafts(&mut self, seq: SeqId, drafts: usize) {
        let Some(sequence) = self.sequences.get(seq.0 as usize) else { return };
        self.work.batch.push_drafts(&sequence.drafts[..drafts]);
        self.work.spare.take(drafts);
        self.load.draft_tokens += drafts as u64;
    }

    /// Keeps drafts that were chosen and turns to the rows after them; whether there are any.
    pub(super) fn confirm(&mut self) -> bool {
        let mut any = false;
        for i in 0..self.work.batch.entries.len() {
            let entry = &mut self.work.batch.entries[i];
            let (seq, Some((row, want))) = (entry.seq, entry.row.take()) else { continue };
            let Some(sequence) = self.sequences.get_mut(seq.0 as usize) else { continue };
            if sequence.num_unconfirmed == 0 {
                continue;
            }
            let outcome = self.work.outcomes.iter().find(|(_, outcome)| outcome.seq == seq);
            let chosen = outcome.and_then(|(_, outcome)| outcome.token);
            let draft = self.work.batch.token_after(row);
            if chosen == Some(draft) {
                sequence.tokens.push(draft);
                sequence.num_evaluated += 1;
                sequence.num_unconfirmed -= 1;
                self.work.batch.entries[i].row = Some((row + 1, want));
                self.load.accepted_tokens += 1;
                any = true;
            } else {
                self.settle(seq);
            }
        }
        any
    }

    /// Takes back drafts that nobody confirmed.
    pub(super) fn settle(&mut self, seq: SeqId) {
        let Some(sequence) = self.sequences.get_mut(seq.0 as usize) else { return };
        if sequence.num_unconfirmed > 0 {
            sequence.num_unconfirmed = 0;
            self.cache.get_mut().release(seq, sequence.num_evaluated);
        }
    }

    /// Tells the cache about blocks that drafts have filled.
    pub(super) fn publish_confirmed(&mut self) {
        for i in 0..self.work.batch.entries.len() {
            let entry = self.work.batch.entries[i];
            if entry.drafts > 0 {
                self.publish(entry.seq);
            }
        }
    }
}
