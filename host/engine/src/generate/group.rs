//! What the engine knows of running requests: groups of sequences and their tokens.

use plugin_api::Config;
use plugin_api::kinds::decoding_strategy::{GroupId, Want};
use plugin_api::kinds::kv_cache::{BlockKey, SeqId};

use super::answer::Answer;
use super::precise::Looked;
use super::prefix::Chain;
use super::request::{PromptToken, RequestId};
use crate::model::PlanDigest;

/// One request with its sequences.
pub(super) struct Group {
    pub(super) request: RequestId,
    pub(super) id: GroupId,
    pub(super) params: Config,
    /// Pinned plan generation.
    pub(super) plan: u32,
    /// What makes its tokens now.
    pub(super) digest: PlanDigest,
    pub(super) priority: i32,
    /// Index and pinned generation of the strategy.
    pub(super) strategy: (usize, u32),
    /// Pinned generation of each processor, in the order of the processors.
    pub(super) processors: Vec<u32>,
    /// Pinned generation of each parser, where the text of the answer is read.
    pub(super) parsers: Option<Vec<u32>>,
    /// In the order they began.
    pub(super) seqs: Vec<SeqId>,
    /// Evaluations that have not been observed.
    pub(super) outstanding: usize,
    pub(super) seed: u64,
    pub(super) wants_logprobs: bool,
    /// What is known of the prompt's tokens so far, if that is wanted: one for each, in order.
    pub(super) scores: Option<Vec<PromptToken>>,
    /// Alternatives to give with each token.
    pub(super) top_logprobs: usize,
    pub(super) prompt_tokens: usize,
    /// Tokens of the prompt that were in the cache when it was begun.
    pub(super) cached_tokens: Option<usize>,
    /// What the keys of its blocks begin with.
    pub(super) seed_key: BlockKey,
    pub(super) arrived_us: u64,
    /// When it ends, answered or not.
    pub(super) deadline_us: Option<u64>,
    pub(super) first_token_us: Option<u64>,
    pub(super) answer: Answer,
    /// What is told of its logits, if anybody listened when it came.
    pub(super) looked: Option<Box<Looked>>,
    /// Whether it goes on with precise weights.
    pub(super) is_precise: bool,
}

/// One growing list of tokens.
pub(super) struct Sequence {
    /// Index into the groups.
    pub(super) group: usize,
    /// Every token, evaluated or waiting.
    pub(super) tokens: Vec<u32>,
    /// Tokens whose state is in the cache.
    pub(super) num_evaluated: usize,
    /// Tokens that were known before those whose result the strategy waits for, while it does. What was known and
    /// has lost its state is computed again with the next of them.
    pub(super) known: Option<usize>,
    /// Guesses at the tokens after those.
    pub(super) drafts: Vec<u32>,
    /// How many the draft model may guess.
    pub(super) guesses: usize,
    /// Drafts in the cache, after the evaluated tokens, of which nobody knows yet.
    pub(super) num_unconfirmed: usize,
    /// What to give once all tokens are evaluated.
    pub(super) want: Want,
    pub(super) is_atomic: bool,
    /// Whether what is chosen is no part of the answer.
    pub(super) is_aside: bool,
    /// The keys of its blocks.
    pub(super) chain: Chain,
    /// From which token on it has precise weights.
    pub(super) precise_from: usize,
    /// How often what the cache held of it was lost.
    pub(super) losses: u32,
}

impl Sequence {
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.num_evaluated
    }

    /// Whether its strategy waits for a result.
    pub(super) fn is_awaited(&self) -> bool {
        self.known.is_some()
    }

    /// Tokens that another sequence can start with.
    pub(super) fn num_known(&self) -> usize {
        self.known.unwrap_or(self.tokens.len()).max(self.num_evaluated)
    }
}

/// Things in numbered places that are used again.
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// The place that [`insert`](Self::insert) would use.
    pub(super) fn next_free(&self) -> usize {
        self.places.iter().position(Option::is_none).unwrap_or(self.places.len())
    }

    /// A place that is free, as is every one after it.
    pub(super) fn end(&self) -> usize {
        self.places.iter().rposition(Option::is_some).map_or(0, |last| last + 1)
    }

    pub(super) fn insert(&mut self, thing: T) -> usize {
        let place = self.next_free();
        self.insert_at(place, thing);
        place
    }

    pub(super) fn insert_at(&mut self, place: usize, thing: T) {
        if place >= self.places.len() {
            self.places.resize_with(place + 1, || None);
        }
        assert!(self.places[place].is_none(), "a place holds one thing");
        self.places[place] = Some(thing);
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<T> {
        self.places.get_mut(place)?.take()
    }

    pub(super) fn get(&self, place: usize) -> Option<&T> {
        self.places.get(place)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.places.get_mut(place)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.places.iter().enumerate().filter_map(|(i, thing)| Some((i, thing.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.places.iter().flatten().count()
    }
}
