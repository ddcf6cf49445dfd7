//! Answers that are looked at from time to time, and go on with precise weights where a hook asks for it.

use std::marker::PhantomData;

use plugin_api::events::{AfterLogits, LOGIT_BINS, LOGITS_EVERY, spread};
use plugin_api::kinds::decoding_strategy::Want;

use super::engine::Engine;
use super::group::Sequence;

/// How the logits of one token of an answer lie.
pub(super) struct Looked {
    /// How many tokens of the answer came before.
    index: Option<usize>,
    counts: Vec<u32>,
    deviation: f64,
    skewness: f64,
}

impl Looked {
    pub(super) fn new() -> Box<Self> {
        let (counts, deviation, skewness) = (vec![0; LOGIT_BINS], f64::NAN, f64::NAN);
        Box::new(Self { index: None, counts, deviation, skewness })
    }
}

/// Tokens up to and with the one whose logits are looked at next, of an answer that has so many.
pub(super) fn tokens_to_look(num_tokens: usize) -> usize {
    LOGITS_EVERY - num_tokens % LOGITS_EVERY
}

impl Sequence {
    /// Whether its next token is evaluated with precise weights.
    pub(super) fn is_precise(&self) -> bool {
        self.num_evaluated >= self.precise_from
    }

    /// Tokens to evaluate next, with precise weights or with the others.
    pub(super) fn pending_with(&self, is_precise: bool) -> usize {
        match self.is_precise() {
            now if now != is_precise => 0,
            true => self.pending(),
            false => self.pending().min(self.precise_from - self.num_evaluated),
        }
    }
}

impl Engine {
    /// Looks at the rows of tokens whose turn it is, before processors edit them. Of drafts nobody knows yet whether they
    /// come true: what is seen counts if the answer comes to this token.
    pub(super) fn look(&mut self) {
        if self.topics.after_logits.is_empty() {
            return;
        }
        for entry in &self.work.batch.entries {
            let Some((row, want)) = entry.row.filter(|(_, want)| *want != Want::Nothing) else {
                continue;
            };
            let Some(sequence) = self.sequences.get(entry.seq.0 as usize) else { continue };
            let is_last = entry.tokens >= sequence.pending();
            let Some(group) = self.groups.get_mut(sequence.group).filter(|_| is_last) else {
                continue;
            };
            let is_alone = group.seqs.len() == 1 && !sequence.is_aside;
            let Some(looked) =
                group.looked.as_mut().filter(|_| is_alone && !matches!(want, Want::Top { .. }))
            else {
                continue;
            };
            let ahead = tokens_to_look(group.answer.num_tokens) - 1;
            if ahead <= entry.drafts {
                looked.index = Some(group.answer.num_tokens + ahead);
                let row = self.rows.row(row + ahead);
                (looked.deviation, looked.skewness) = spread(row, &mut looked.counts);
            }
        }
    }

    /// Tells hooks what was seen of the token that an answer has got last.
    pub(super) fn tell_logits(&mut self, index: usize) {
        let Some(group) = self.groups.get_mut(index) else { return };
        let Some(looked) = &group.looked else { return };
        let last = group.answer.num_tokens.checked_sub(1);
        if looked.index != last {
            return;
        }
        let mut event = AfterLogits {
            request: group.request.0,
            index: last.unwrap_or_default(),
            counts: &looked.counts,
            deviation: looked.deviation,
            skewness: looked.skewness,
            is_precise: group.is_precise,
            params: &group.params,
            lent: PhantomData,
        };
        let _ = self.topics.after_logits.emit(&mut event);
        if event.is_precise && !group.is_precise {
            self.make_precise(index);
        }
    }

    /// Lets the rest of an answer have precise weights, if there are any.
    fn make_precise(&mut self, index: usize) {
        let Some(group) = self.groups.get_mut(index) else { return };
        let of_group = |sequence: &&mut Sequence| sequence.group == index;
        // What runs whole or not at all has one sort of weights.
        if !self.plans.get(group.plan).has_precise()
            || self.sequences.iter_mut().filter(of_group).any(|sequence| sequence.is_atomic)
        {
            return;
        }
        group.is_precise = true;
        for sequence in self.sequences.iter_mut().filter(of_group) {
            sequence.precise_from = sequence.num_evaluated;
        }
        self.load.precise_requests += 1;
        self.update_digest(index);
    }
}
