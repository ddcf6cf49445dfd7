//! How a request enters the engine, and how it leaves before its time.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use plugin_api::events::{BeforeGenerate, Flow, OnCancel};
use plugin_api::kinds::decoding_strategy::{GroupId, RequestView, Want};
use plugin_api::kinds::kv_cache::SeqId;
use plugin_api::kinds::logits_processor::{BatchChange, RowId};
use plugin_api::{Config, Error, Kind, LogitsProcessor, Value};

use super::answer::Answer;
use super::engine::Engine;
use super::fault::follow;
use super::group::{Group, Sequence};
use super::precise::Looked;
use super::prefix::Chain;
use super::request::{Admitted, Encoded, Prompt, Request, RequestId};
use crate::error::EngineError;

impl Engine {
    /// Takes a request in; its answer comes out of [`step`](Self::step). All on this thread:
    /// [`ask`](Self::ask), [`Admitted::encode`], [`enter`](Self::enter).
    ///
    /// # Errors
    ///
    /// [`EngineError::PromptTooLong`]; [`EngineError::Request`] for other prompts and parameters that
    /// cannot be served, refusals of hooks and unknown
    /// strategies; [`EngineError::Plugin`] for parameters that a plugin refuses. Nothing is kept.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, EngineError> {
        let admitted = self.ask(request)?.encode(&self.model.tokenizer);
        self.enter(admitted)
    }

    /// Lets every hook see a request, edit its prompt or refuse it, and numbers it. Nothing else of the
    /// engine knows of it before [`enter`](Self::enter).
    ///
    /// # Errors
    ///
    /// [`EngineError::Request`] for refusals.
    pub fn ask(&mut self, mut request: Request) -> Result<Admitted, EngineError> {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let arrived_us = self.clock.now_us();
        match &mut request.prompt {
            Prompt::Text(text) | Prompt::Raw(text) | Prompt::Templated(text) => {
                self.ask_hooks(id, text, &request.params)?;
            }
            Prompt::Tokens(tokens) => {
                let mut text = self.model.tokenizer.decode(tokens, true);
                self.ask_hooks(id, &mut text, &request.params)?;
            }
        }
        Ok(Admitted { id, arrived_us, request })
    }

    /// Takes in a request whose prompt has been cut into tokens.
    ///
    /// # Errors
    ///
    /// As for [`submit`](Self::submit).
    pub fn enter(&mut self, encoded: Encoded) -> Result<RequestId, EngineError> {
        let Encoded { id, arrived_us, tokens, mut params, strategy, priority, timeout_us } =
            encoded;
        let tokens = self.checked(tokens)?;
        let strategy = self.find_strategy(strategy.as_deref())?;
        let ends = self.model.tokenizer.end_ids().iter().map(|&id| Value::from(id));
        params.set("eos_token_ids", Value::List(ends.collect()));
        params.set("context_tokens", self.tokens_per_seq_max() as i64);
        self.tell_costs(&mut params);
        let read = || {
            let seed = params.count_or("seed", id.0, 0..=u64::MAX >> 1)?;
            params.text_or("cache_salt", "")?;
            let top = params.count_or("top_logprobs", 0, 0..=TOP_LOGPROBS_MAX)? as usize;
            let wants_logprobs = params.flag_or("logprobs", false)? || top > 0;
            Ok((seed, wants_logprobs, top, params.flag_or("prompt_logprobs", false)?))
        };
        let (seed, wants_logprobs, top_logprobs, is_scored) =
            read().map_err(EngineError::plugin("request"))?;
        let scores = is_scored.then(|| Vec::with_capacity(tokens.len()));

        let seq = SeqId(self.sequences.next_free() as u32);
        let group = GroupId(self.groups.next_free() as u32);
        let processors = self.open_processors(seq, &params, &tokens)?;
        let (_, slot) = &mut self.strategies[strategy];
        let generation = slot.open();
        let opened = with_options(&params).and_then(|with_options| {
            let view = RequestView { seq, prompt: &tokens, params: &with_options };
            slot.get_mut(generation).open(group, &view)?;
            check_options(&params, &with_options)
        });
        if let Err(error) = opened {
            slot.get_mut(generation).close(group);
            let drained = slot.close(generation);
            self.dispose(drained);
            self.close_processors(seq, 0, &processors);
            return Err(EngineError::plugin("request")(error));
        }
        let parsers = match self.open_parsers(group, &params) {
            Ok(parsers) => parsers,
            Err(error) => {
                let (_, slot) = &mut self.strategies[strategy];
                slot.get_mut(generation).close(group);
                let drained = slot.close(generation);
                self.dispose(drained);
                self.close_processors(seq, 0, &processors);
                return Err(error);
            }
        };
        self.topics.after_logits.refresh();
        let looked = (!self.topics.after_logits.is_empty()).then(Looked::new);
        let plan = self.plans.open();
        let digest =
            self.digest_of(self.plans.get(plan), &processors, (strategy, generation), false);
        let seed_key = self.seed_of(self.plans.get(plan), &params);
        self.shared.running.fetch_add(1, Ordering::Relaxed);
        let num_tokens = tokens.len();
        self.sequences.insert(Sequence {
            group: group.0 as usize,
            tokens: Vec::with_capacity(num_tokens + 64),
            num_evaluated: 0,
            known: None,
            drafts: Vec::new(),
            guesses: 0,
            num_unconfirmed: 0,
            want: Want::Nothing,
            is_atomic: false,
            is_aside: false,
            chain: Chain::for_tokens(num_tokens, self.layout.pool.block_size),
            precise_from: usize::MAX,
            losses: 0,
        });
        self.groups.insert(Group {
            request: id,
            id: group,
            params,
            plan,
            digest,
            priority,
            strategy: (strategy, generation),
            processors,
            parsers,
            seqs: vec![seq],
            outstanding: 0,
            seed,
            wants_logprobs,
            scores,
            top_logprobs,
            prompt_tokens: num_tokens,
            cached_tokens: None,
            seed_key,
            arrived_us,
            deadline_us: timeout_us.map(|us| arrived_us.saturating_add(us)),
            first_token_us: None,
            answer: Answer::default(),
            looked,
            is_precise: false,
        });
        self.tell_load();
        Ok(id)
    }

    /// Ends a request whose caller went away. Unknown requests are no error: it may just have been
    /// answered.
    pub fn cancel(&mut self, request: RequestId) {
        let found = self.groups.iter().find(|(_, group)| group.request == request);
        let Some((index, group)) = found else { return };
        let tokens = group.answer.num_tokens;
        let lent = std::marker::PhantomData;
        let _ = self.topics.on_cancel.emit(&mut OnCancel { request: request.0, tokens, lent });
        self.remove_group(index);
        self.tell_load();
    }

    /// Lets every hook see, edit or refuse a prompt.
    fn ask_hooks(
        &mut self,
        id: RequestId,
        prompt: &mut String,
        params: &Config,
    ) -> Result<(), EngineError> {
        self.topics.before_generate.refresh();
        let lent = std::marker::PhantomData;
        let mut event = BeforeGenerate { request: id.0, prompt, params, lent };
        if self.topics.before_generate.emit(&mut event) == Flow::Continue {
            return Ok(());
        }
        Err(EngineError::Request {
            what: "request",
            expected: "one that every hook lets pass".to_owned(),
            found: "a refusal".to_owned(),
        })
    }

    /// Refuses prompts that leave no room for an answer.
    fn checked(&self, tokens: Vec<u32>) -> Result<Vec<u32>, EngineError> {
        let tokens_max = self.tokens_per_seq_max().saturating_sub(1);
        if tokens.len() > tokens_max {
            return Err(EngineError::PromptTooLong { tokens: tokens.len(), tokens_max });
        }
        let vocab_size = self.rows.vocab_size();
        let strange = tokens.iter().find(|id| **id as usize >= vocab_size);
        let (expected, found) = match strange {
            Some(id) => (format!("token ids below {vocab_size}"), id.to_string()),
            None if tokens.is_empty() => (format!("1 to {tokens_max} tokens"), "0".to_owned()),
            None => return Ok(tokens),
        };
        Err(EngineError::Request { what: "prompt", expected, found })
    }

    /// Tokens of the longest sequence, prompt and answer: what the model takes and the cache holds.
    pub fn tokens_per_seq_max(&self) -> usize {
        let in_pool = self.layout.pool.num_blocks.saturating_mul(self.layout.pool.block_size);
        self.model.context_length.min(in_pool)
    }

    fn find_strategy(&self, name: Option<&str>) -> Result<usize, EngineError> {
        let mut names = self.strategies.iter().map(|(name, _)| name.as_str());
        let found = match name {
            None if self.strategies.is_empty() => None,
            None => Some(0),
            Some(name) => names.position(|other| other == name),
        };
        found.ok_or_else(|| EngineError::Request {
            what: "strategy",
            expected: self
                .strategies
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
            found: name.unwrap_or("none").to_owned(),
        })
    }

    /// Pins a generation of every processor and tells it about the new row.
    fn open_processors(
        &mut self,
        seq: SeqId,
        params: &Config,
        history: &[u32],
    ) -> Result<Vec<u32>, EngineError> {
        let mut opened = Vec::with_capacity(self.processors.len());
        for i in 0..self.processors.len() {
            let (name, slot) = &mut self.processors[i];
            let generation = slot.open();
            let added = BatchChange::Added { row: RowId(seq.0), params, history };
            if let Err(error) = slot.get_mut(generation).batch(&added) {
                let (what, name) = (format!("request: {name}"), name.clone());
                let drained = slot.close(generation);
                self.dispose(drained);
                self.close_processors(seq, 0, &opened);
                // A parameter out of its range is the caller's mistake, not the plugin's.
                if !matches!(error, Error::Config { .. }) {
                    self.tell_fault(<dyn LogitsProcessor>::NAME, &name, 0, &error);
                }
                return Err(EngineError::plugin(what)(error));
            }
            opened.push(generation);
        }
        Ok(opened)
    }

    /// Tells processors that a row is gone; the first ones that were opened.
    fn close_processors(&mut self, seq: SeqId, request: u64, generations: &[u32]) {
        self.forget_row(seq, request, generations);
        self.unpin_processors(generations);
    }

    fn unpin_processors(&mut self, generations: &[u32]) {
        for ((_, slot), &generation) in self.processors.iter_mut().zip(generations) {
            if let Some(drained) = slot.close(generation) {
                self.shared.reaper.dispose(drained);
            }
        }
    }

    /// Forgets a request with everything it holds.
    pub(super) fn remove_group(&mut self, index: usize) -> Option<Group> {
        let group = self.groups.remove(index)?;
        for &seq in &group.seqs {
            self.forget_seq(seq, group.request.0, &group.processors);
        }
        self.unpin_processors(&group.processors);
        self.close_parsers(group.id, group.parsers.as_deref().unwrap_or_default());
        let (strategy, generation) = group.strategy;
        let (_, slot) = &mut self.strategies[strategy];
        slot.get_mut(generation).close(group.id);
        let drained = slot.close(generation);
        self.dispose(drained);
        let drained = self.plans.close(group.plan);
        self.dispose(drained);
        self.shared.running.fetch_sub(1, Ordering::Relaxed);
        Some(group)
    }

    /// Drops what has drained, but not on the step thread.
    pub(super) fn dispose(&self, drained: Option<impl Send + 'static>) {
        if let Some(drained) = drained {
            self.shared.reaper.dispose(drained);
        }
    }

    /// Forgets a sequence with everything it holds.
    pub(super) fn forget_seq(&mut self, seq: SeqId, request: u64, generations: &[u32]) {
        self.cache.get_mut().release(seq, 0);
        if let Some((draft, _)) = &mut self.draft {
            draft.forget(seq);
        }
        self.sequences.remove(seq.0 as usize);
        self.forget_row(seq, request, generations);
    }

    /// Tells processors that a row of a request is gone.
    fn forget_row(&mut self, seq: SeqId, request: u64, generations: &[u32]) {
        let (on_fault, change) =
            (&mut self.topics.on_fault, BatchChange::Removed { row: RowId(seq.0) });
        // A processor that fails to forget a row has nothing left to say to it.
        let _ = follow(&mut self.processors, on_fault, request, generations, &change);
    }
}

/// Most alternatives that a request may ask for, as in the OpenAI API.
const TOP_LOGPROBS_MAX: u64 = 20;

/// Parameters of a request for its strategy, which may have some of its own.
const OPTIONS: &str = "decoding_options";

/// Parameters as the strategy sees them: its own among those of the request.
fn with_options(params: &Config) -> plugin_api::Result<Cow<'_, Config>> {
    let Some(options) = params.table(OPTIONS)? else { return Ok(Cow::Borrowed(params)) };
    let mut seen = params.clone();
    for (key, value) in options.unmarked() {
        if params.has(key) {
            return Err(params.wrong(key, "to stand beside the options or in them", Some(value)));
        }
        seen.set(key, value.clone());
    }
    Ok(Cow::Owned(seen))
}

/// Refuses what a strategy was given and has not read: most often a misspelling.
fn check_options(params: &Config, seen: &Config) -> plugin_api::Result<()> {
    let Some(options) = params.table(OPTIONS)? else { return Ok(()) };
    match seen.unread().find(|key| options.has(key)) {
        Some(key) => Err(seen.wrong(key, "a parameter that the strategy reads", options.get(key))),
        None => Ok(()),
    }
}
