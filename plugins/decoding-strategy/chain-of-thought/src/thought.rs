//! One request: its reasoning, then its answer.

use std::sync::Arc;

use plugin_api::prelude::*;

use crate::Settings;
use crate::texts::Texts;

/// One request.
#[derive(Debug)]
pub(crate) struct Thought {
    seq: SeqId,
    texts: Arc<Texts>,
    eos: Vec<u32>,
    want: Want,
    /// What to evaluate next.
    next: Vec<u32>,
    /// Reasoning that is still to come; nothing once the answer has begun.
    reasoning_left: Option<u64>,
    tokens_left: u64,
    /// What is to be told before the next token of reasoning, where reasoning is shown.
    unsaid: Vec<u32>,
    is_shown: bool,
}

impl Thought {
    pub(crate) fn open(
        request: &RequestView<'_>,
        settings: Settings,
        texts: Arc<Texts>,
    ) -> Result<Self> {
        let want = if settings.temperature == 0.0 { Want::Argmax } else { Want::Sample };
        // What the request says of ends and limits is read, and checked, in one place.
        let answer = SingleAnswer::open(request, want, settings.max_tokens)?;
        let (eos, tokens_left) = (answer.eos().to_vec(), answer.tokens_left());
        let reasoning = reasoning_max(request, settings, &texts, tokens_left)?;
        let mut next = request.prompt.to_vec();
        let trigger = texts.trigger(request.prompt);
        let is_shown = settings.show_reasoning && reasoning > 0;
        let mut unsaid = Vec::new();
        if is_shown {
            unsaid = [&texts.begin[..], trigger].concat();
        }
        next.extend(if reasoning > 0 { trigger } else { &texts.answer_trigger[..] });
        let (seq, reasoning_left) = (request.seq, Some(reasoning).filter(|tokens| *tokens > 0));
        Ok(Self { seq, texts, eos, want, next, reasoning_left, tokens_left, unsaid, is_shown })
    }

    pub(crate) fn plan(&self, out: &mut Evals) {
        match self.reasoning_left {
            Some(_) => out.push_aside(self.seq, &self.next, self.want),
            None => out.push(self.seq, &self.next, self.want),
        }
    }

    pub(crate) fn observe(&mut self, results: &[Outcome], out: &mut Actions) {
        let seq = self.seq;
        for outcome in results.iter().filter(|outcome| outcome.seq == seq) {
            let Some(token) = outcome.token else { continue };
            match self.reasoning_left {
                Some(left) => self.reason(token, outcome.logprob, left, out),
                None => self.answer(token, outcome.logprob, out),
            }
        }
    }

    /// A token of the reasoning: the answer follows its end, or its limit.
    fn reason(&mut self, token: u32, logprob: f32, left: u64, out: &mut Actions) {
        for token in self.unsaid.drain(..) {
            out.say(token, 0.0);
        }
        self.next.clear();
        let is_end = self.eos.contains(&token);
        if !is_end {
            self.next.push(token);
            if self.is_shown {
                out.say(token, logprob);
            }
        }
        self.reasoning_left = Some(left - 1).filter(|left| *left > 0 && !is_end);
        if self.reasoning_left.is_none() {
            let Texts { answer_trigger, line, end, .. } = &*self.texts;
            self.next.extend(if answer_trigger.is_empty() { line } else { answer_trigger });
            if self.is_shown {
                end.iter().for_each(|token| out.say(*token, 0.0));
            }
        }
    }

    fn answer(&mut self, token: u32, logprob: f32, out: &mut Actions) {
        if self.eos.contains(&token) {
            return out.finish(FinishReason::Stop);
        }
        out.emit(self.seq, token, logprob);
        self.next.clear();
        self.next.push(token);
        self.tokens_left = self.tokens_left.saturating_sub(1);
        if self.tokens_left == 0 {
            out.finish(FinishReason::Length);
        }
    }
}

/// Most tokens of reasoning: what the context has room for beside prompt and answer, of which the answer gets half if
/// both want more.
fn reasoning_max(
    request: &RequestView<'_>,
    settings: Settings,
    texts: &Texts,
    answer: u64,
) -> Result<u64> {
    let context = request.params.count_or("context_tokens", u64::MAX, 1..=u64::MAX)?;
    let wanted = settings.max_reasoning_tokens;
    let words = match wanted {
        0 => texts.answer_trigger.len(),
        _ => texts.trigger(request.prompt).len() + texts.answer_trigger.len().max(texts.line.len()),
    };
    let taken = (request.prompt.len() + words) as u64;
    // One token to answer with, and one to reason with.
    let least = taken + 1 + wanted.min(1);
    if least > context {
        let most = context.saturating_sub(least - request.prompt.len() as u64);
        let expected = format!("a prompt of at most {most} tokens");
        return Err(Error::malformed("chain-of-thought", expected, request.prompt.len()));
    }
    let room = context - taken;
    Ok(wanted.min(room - answer.min(room / 2).max(1)))
}
