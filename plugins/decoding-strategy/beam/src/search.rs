//! The search of one request: which beginnings are kept, and what is complete.

use plugin_api::prelude::*;

use crate::settings::{Settings, Stopping};

/// A token of a beginning, with its logarithm.
type Token = (u32, f32);

/// One beginning.
#[derive(Debug, Clone)]
struct Beam {
    seq: SeqId,
    tokens: Vec<Token>,
    /// Sum of the logarithms.
    sum: f64,
}

/// A token that may follow a beginning.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    beam: usize,
    token: Token,
    sum: f64,
}

/// A complete answer.
#[derive(Debug)]
struct Complete {
    score: f64,
    tokens: Vec<Token>,
    reason: FinishReason,
}

/// The search of one request.
#[derive(Debug)]
pub(crate) struct Search {
    settings: Settings,
    eos: Vec<u32>,
    prompt: Vec<u32>,
    beams: Vec<Beam>,
    /// Sequences without a beam, those of this step last.
    spare: Vec<SeqId>,
    /// Best first.
    complete: Vec<Complete>,
    /// What was found for the beams, as far as it has come.
    found: Vec<Candidate>,
    /// Beams whose candidates have come.
    heard: Vec<bool>,
}

impl Search {
    pub(crate) fn open(request: &RequestView<'_>, mut settings: Settings) -> Result<Self> {
        // What the request says of ends and limits is read, and checked, in one place.
        let answer = SingleAnswer::open(request, Want::Argmax, settings.max_tokens as u64)?;
        let context = request.params.count_or("context_tokens", u64::MAX, 1..=u64::MAX)?;
        let room = context.saturating_sub(request.prompt.len() as u64).max(1);
        settings.max_tokens = answer.tokens_left().min(room) as usize;
        let beams = vec![Beam { seq: request.seq, tokens: Vec::new(), sum: 0.0 }];
        Ok(Self {
            settings,
            eos: answer.eos().to_vec(),
            prompt: request.prompt.to_vec(),
            beams,
            spare: Vec::new(),
            complete: Vec::new(),
            found: Vec::new(),
            heard: Vec::new(),
        })
    }

    /// Candidates of a step: enough that `num_beams` are no ends.
    fn num_candidates(&self) -> usize {
        self.settings.num_beams * (1 + self.eos.len().max(1))
    }

    pub(crate) fn plan(&mut self, out: &mut Evals) {
        let want = Want::Top { k: self.num_candidates() as u32 };
        for beam in &self.beams {
            match beam.tokens.last() {
                Some((token, _)) => out.push(beam.seq, &[*token], want),
                None => out.push(beam.seq, &self.prompt, want),
            }
        }
        self.found.clear();
        self.heard.clear();
        self.heard.resize(self.beams.len(), false);
    }

    /// Takes candidates, of one beam or of several, and goes on once those of all are there.
    pub(crate) fn observe(&mut self, results: &[Outcome], out: &mut Actions) {
        for outcome in results {
            let found = self.beams.iter().position(|beam| beam.seq == outcome.seq);
            let Some(beam) = found.filter(|beam| *beam < self.heard.len()) else { continue };
            self.heard[beam] = true;
            if let Some(token) = outcome.token {
                let sum = self.beams[beam].sum + f64::from(outcome.logprob);
                self.found.push(Candidate { beam, token: (token, outcome.logprob), sum });
            }
        }
        if !self.heard.is_empty() && self.heard.iter().all(|heard| *heard) {
            self.advance(out);
        }
    }

    /// Keeps the best candidates, and ends if nothing better can come.
    fn advance(&mut self, out: &mut Actions) {
        let mut found = std::mem::take(&mut self.found);
        // Ties: the earlier beam, then the lower id.
        let place = |it: &Candidate| (it.beam, it.token.0);
        found.sort_by(|a, b| b.sum.total_cmp(&a.sum).then(place(a).cmp(&place(b))));
        found.truncate(self.num_candidates());
        let best = found.first().map_or(f64::NEG_INFINITY, |candidate| candidate.sum);
        let len = self.beams.first().map_or(0, |beam| beam.tokens.len()) + 1;
        let mut kept: Vec<Candidate> = Vec::with_capacity(self.settings.num_beams);
        for (rank, candidate) in found.iter().enumerate() {
            if self.eos.contains(&candidate.token.0) {
                if rank < self.settings.num_beams {
                    let tokens = self.beams[candidate.beam].tokens.clone();
                    self.complete_with(candidate.sum, len, tokens, FinishReason::Stop);
                }
            } else if kept.len() < self.settings.num_beams {
                kept.push(*candidate);
            }
        }
        self.found = found;
        if kept.is_empty() || self.is_over(best, len) {
            return self.tell(out);
        }
        if len < self.settings.max_tokens {
            return self.grow(&kept, out);
        }
        for candidate in &kept {
            let tokens = self.extended(candidate);
            self.complete_with(candidate.sum, len, tokens, FinishReason::Length);
        }
        self.tell(out);
    }

    /// Whether nothing better can come.
    fn is_over(&self, best: f64, len: usize) -> bool {
        let Some(worst) = self.complete.last() else { return false };
        if self.complete.len() < self.settings.num_beams {
            return false;
        }
        let longest = match self.settings.early_stopping {
            Stopping::AtOnce => return true,
            Stopping::Never if self.settings.length_penalty > 0.0 => self.settings.max_tokens,
            Stopping::Never | Stopping::Guess => len,
        };
        worst.score >= self.score(best, longest)
    }

    fn score(&self, sum: f64, len: usize) -> f64 {
        sum / (len as f64).powf(self.settings.length_penalty)
    }

    /// Keeps an answer if it is among the best.
    fn complete_with(&mut self, sum: f64, len: usize, tokens: Vec<Token>, reason: FinishReason) {
        let score = self.score(sum, len);
        self.complete.push(Complete { score, tokens, reason });
        self.complete.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.complete.truncate(self.settings.num_beams);
    }

    /// The tokens of a beginning with the one that follows.
    fn extended(&self, candidate: &Candidate) -> Vec<Token> {
        let before = &self.beams[candidate.beam].tokens;
        before.iter().copied().chain([candidate.token]).collect()
    }

    /// Lets the kept candidates take the places of the beams: each beam goes on with its first candidate,
    /// copies of it with the others, in the sequences of beams that have none.
    fn grow(&mut self, kept: &[Candidate], out: &mut Actions) {
        let goes_on = |beam: usize| kept.iter().any(|candidate| candidate.beam == beam);
        let num_released = self.spare.len();
        let dropped = self.beams.iter().enumerate().filter(|(beam, _)| !goes_on(*beam));
        self.spare.extend(dropped.map(|(_, beam)| beam.seq));
        let mut next = Vec::with_capacity(kept.len());
        for (rank, candidate) in kept.iter().enumerate() {
            let parent = self.beams[candidate.beam].seq;
            let is_first = kept[..rank].iter().all(|before| before.beam != candidate.beam);
            let seq = if is_first { parent } else { self.copy_of(parent, out) };
            next.push(Beam { seq, tokens: self.extended(candidate), sum: candidate.sum });
        }
        for seq in self.spare.iter().skip(num_released) {
            out.release(*seq, 0);
        }
        // Only when every copy is made.
        for (beam, candidate) in next.iter().zip(kept) {
            out.advance(beam.seq, candidate.token.0);
        }
        self.beams = next;
    }

    /// A sequence that holds what another does.
    fn copy_of(&mut self, parent: SeqId, out: &mut Actions) -> SeqId {
        let Some(spare) = self.spare.pop() else { return out.fork(parent) };
        out.copy(parent, spare);
        spare
    }

    /// Tells the answer that was asked for.
    fn tell(&self, out: &mut Actions) {
        let answer = self.complete.get(self.settings.choice).or(self.complete.last());
        for (token, logprob) in answer.into_iter().flat_map(|answer| &answer.tokens) {
            out.say(*token, *logprob);
        }
        out.finish(answer.map_or(FinishReason::Stop, |answer| answer.reason));
    }
}
