//! Continuous batching: streams first, then prompts in chunks, short ones beside the oldest.
//!
//! Source: Agrawal et al., "Sarathi-Serve" (chunked prefill), arXiv:2403.02310, section 4.

use plugin_api::prelude::*;

/// Lets no stream wait for a prompt, no short prompt for a long one, and nobody for ever.
#[derive(Debug, Default)]
pub struct Continuous {
    /// Prompts as (tokens, place in the queue), kept from step to step.
    prompts: Vec<(usize, usize)>,
}

impl Capability for Continuous {
    const NAME: &'static str = "continuous";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self::default())
    }
}

impl Scheduler for Continuous {
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        let mut step = Step { queue, tokens: limits.tokens, seqs: limits.seqs, out };
        // An atomic evaluation that can never run is nobody's turn.
        let fits = |entry: &&Waiting| !entry.is_atomic || entry.pending <= limits.tokens;
        let prompts = || queue.iter().enumerate().filter(|(_, entry)| !is_stream(entry));
        let oldest = prompts().find(|(_, entry)| fits(entry)).map(|(index, _)| index);

        let streams = queue.iter().filter(|entry| is_stream(entry));
        let streaming: usize = streams.map(|entry| entry.pending).sum();
        let beside = limits.tokens.saturating_sub(streaming);
        let first = oldest.filter(|&index| queue[index].is_atomic && queue[index].pending > beside);
        if let Some(index) = first {
            step.take(index, queue[index].pending);
        }
        for (index, entry) in queue.iter().enumerate().filter(|(_, entry)| is_stream(entry)) {
            step.take(index, entry.pending);
        }
        let Some(oldest) = oldest.filter(|_| first.is_none()) else {
            return Ok(());
        };
        self.prompts.clear();
        self.prompts.extend(prompts().map(|(index, entry)| (entry.pending, index)));
        self.prompts.retain(|&(_, index)| index != oldest);
        self.prompts.sort_unstable();
        // What the others leave is the oldest's too: it is picked once, so that is counted first.
        let half = if queue[oldest].is_atomic { 0 } else { step.tokens / 2 };
        let others = others_take(&self.prompts, queue, half, step.seqs.saturating_sub(1));
        step.take(oldest, step.tokens - others);
        for &(tokens, index) in &self.prompts {
            step.take(index, tokens);
        }
        Ok(())
    }
}

/// Whether an entry is a sequence that decodes, and not the rest of a prompt.
fn is_stream(entry: &Waiting) -> bool {
    entry.is_running && (entry.pending == 1 || entry.is_atomic)
}

/// How many of `tokens` the prompts beside the oldest use, in their order.
fn others_take(prompts: &[(usize, usize)], queue: &[Waiting], tokens: usize, seqs: usize) -> usize {
    let (mut left, mut seqs_left) = (tokens, seqs);
    for &(pending, index) in prompts {
        let is_split = pending > left;
        if seqs_left == 0 || left == 0 {
            break;
        }
        if !(is_split && queue[index].is_atomic) {
            left -= pending.min(left);
            seqs_left -= 1;
        }
    }
    tokens - left
}

/// A step that is being filled.
struct Step<'a> {
    queue: &'a [Waiting],
    /// Tokens that are left of it.
    tokens: usize,
    /// Sequences likewise.
    seqs: usize,
    out: &'a mut Vec<Picked>,
}

impl Step<'_> {
    /// Picks up to `tokens` of an entry, as far as there is room.
    fn take(&mut self, index: usize, tokens: usize) {
        let entry = &self.queue[index];
        let tokens = tokens.min(entry.pending).min(self.tokens);
        let is_split = tokens < entry.pending;
        if tokens == 0 || self.seqs == 0 || entry.is_atomic && is_split {
            return;
        }
        self.out.push(Picked { index, tokens });
        self.tokens -= tokens;
        self.seqs -= 1;
    }
}

export_plugin!(Continuous);

#[cfg(test)]
mod tests;
