//! The paths of one request, from the prompt that they share to the vote.

use std::sync::Arc;

use plugin_api::prelude::*;

use crate::Settings;
use crate::pattern::Pattern;
use crate::votes::Votes;

/// One answer that is drawn.
#[derive(Debug)]
struct Path {
    seq: SeqId,
    /// Tokens with the logarithms of their probabilities.
    tokens: Vec<(u32, f32)>,
    /// Whether its token of this round has come.
    is_heard: bool,
    ended: Option<FinishReason>,
    has_voted: bool,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Poll {
    prompt: Vec<u32>,
    eos: Vec<u32>,
    want: Want,
    num_paths: usize,
    max_tokens: usize,
    pattern: Arc<Pattern>,
    vocabulary: Arc<Vocabulary>,
    /// The first alone, until the prompt is read.
    paths: Vec<Path>,
    is_read: bool,
    votes: Votes,
    /// The path that ended first.
    first: Option<usize>,
}

impl Poll {
    pub(crate) fn open(
        request: &RequestView<'_>,
        settings: &Settings,
        vocabulary: Arc<Vocabulary>,
    ) -> Result<Self> {
        let is_drawn = settings.temperature != 0.0;
        let want = if is_drawn { Want::Sample } else { Want::Argmax };
        // What the request says of ends and limits is read, and checked, in one place.
        let answer = SingleAnswer::open(request, want, settings.max_tokens)?;
        let context = request.params.count_or("context_tokens", u64::MAX, 1..=u64::MAX)?;
        let room = context.saturating_sub(request.prompt.len() as u64).max(1);
        let num_paths = if is_drawn { settings.num_paths as usize } else { 1 };
        Ok(Self {
            prompt: request.prompt.to_vec(),
            eos: answer.eos().to_vec(),
            want,
            num_paths,
            max_tokens: answer.tokens_left().min(room) as usize,
            pattern: Arc::clone(&settings.pattern),
            vocabulary,
            paths: vec![Path::new(request.seq)],
            is_read: num_paths == 1,
            votes: Votes::default(),
            first: None,
        })
    }

    /// The prompt's last token is left to each path: they all draw what follows it.
    fn last(&self) -> usize {
        match self.num_paths {
            1 => 0,
            _ => self.prompt.len() - 1,
        }
    }

    pub(crate) fn plan(&mut self, out: &mut Evals) {
        if !self.is_read {
            // A prompt of one token is read for the sake of a sequence to copy, and forgotten.
            let len = self.last().max(1);
            return out.push(self.paths[0].seq, &self.prompt[..len], Want::Nothing);
        }
        let last = &self.prompt[self.last()..];
        for path in self.paths.iter_mut().filter(|path| path.ended.is_none()) {
            path.is_heard = false;
            match path.tokens.last() {
                Some((token, _)) => out.push(path.seq, &[*token], self.want),
                None => out.push(path.seq, last, self.want),
            }
        }
    }

    pub(crate) fn observe(&mut self, results: &[Outcome], out: &mut Actions) {
        if !self.is_read {
            return self.branch(out);
        }
        for outcome in results {
            let mine = |path: &&mut Path| path.seq == outcome.seq && path.ended.is_none();
            let Some(path) = self.paths.iter_mut().find(mine) else { continue };
            path.is_heard = true;
            let Some(token) = outcome.token else { continue };
            if self.eos.contains(&token) {
                path.ended = Some(FinishReason::Stop);
                continue;
            }
            path.tokens.push((token, outcome.logprob));
            out.advance(path.seq, token);
            if path.tokens.len() >= self.max_tokens {
                path.ended = Some(FinishReason::Length);
            }
        }
        // Paths go on side by side, so that what is first does not depend on when each was evaluated.
        if self.paths.iter().all(|path| path.is_heard || path.ended.is_some()) {
            self.count(out);
        }
    }

    /// Everything that paths share is there.
    fn branch(&mut self, out: &mut Actions) {
        let root = self.paths[0].seq;
        self.paths.extend((1..self.num_paths).map(|_| Path::new(out.fork(root))));
        if self.prompt.len() == 1 {
            self.paths.iter().for_each(|path| out.release(path.seq, 0));
        }
        self.is_read = true;
    }

    /// Counts the paths that ended in this round, and ends if the others can change nothing.
    fn count(&mut self, out: &mut Actions) {
        for (place, path) in self.paths.iter_mut().enumerate() {
            if path.ended.is_none() || path.has_voted {
                continue;
            }
            path.has_voted = true;
            self.first.get_or_insert(place);
            if let Some(answer) = self.pattern.answer(&path.text(&self.vocabulary)) {
                self.votes.add(answer, place);
            }
            out.release(path.seq, 0);
        }
        let left = self.paths.iter().filter(|path| path.ended.is_none()).count();
        if left == 0 || self.votes.is_decided(left) {
            self.tell(out);
        }
    }

    /// Tells the path that won; where no path has an answer, the one that ended first.
    fn tell(&self, out: &mut Actions) {
        let winner = self.votes.winner().or(self.first).and_then(|place| self.paths.get(place));
        for (token, logprob) in winner.iter().flat_map(|path| &path.tokens) {
            out.say(*token, *logprob);
        }
        out.finish(winner.and_then(|path| path.ended).unwrap_or(FinishReason::Stop));
    }
}

impl Path {
    fn new(seq: SeqId) -> Self {
        Self { seq, tokens: Vec::new(), is_heard: false, ended: None, has_voted: false }
    }

    fn text(&self, vocabulary: &Vocabulary) -> String {
        let shown = self.tokens.iter().filter(|(token, _)| !vocabulary.is_special(*token));
        let bytes: Vec<u8> =
            shown.flat_map(|(token, _)| vocabulary.bytes(*token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
