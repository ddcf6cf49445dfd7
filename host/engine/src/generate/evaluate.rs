//! Evaluates given tokens, without choosing any: for perplexity, scoring and benches.

use plugin_api::kinds::kv_cache::SeqId;

use super::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Evaluates `tokens` as one sequence of its own and calls `each` with the position and logits
    /// of every token from `from` on.
    ///
    /// Steps hold at most `chunk` tokens. Running requests keep their place and wait.
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] if the cache has no room or the backend fails.
    pub fn evaluate(
        &mut self,
        tokens: &[u32],
        from: usize,
        chunk: usize,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        let seq = SeqId(self.sequences.end() as u32);
        let result = self.evaluate_as(seq, tokens, from, chunk.max(1), each);
        self.cache.get_mut().release(seq, 0);
        result
    }

    pub(super) fn evaluate_as(
        &mut self,
        seq: SeqId,
        tokens: &[u32],
        from: usize,
        chunk: usize,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        let mut start = 0;
        self.plans.set_turn(self.plans.active().generation);
        while start < tokens.len() {
            let mut end = (start + chunk.min(self.limits.tokens)).min(tokens.len());
            // Tokens without logits first, then as many with logits as there are rows.
            end = if start < from { end.min(from) } else { end.min(start + self.logit_rows_max) };
            self.work.batch.clear();
            let cache = self.cache.get_mut();
            let table = cache
                .reserve(seq, end - start, &mut self.work.moves)
                .map_err(EngineError::plugin("evaluation"))?;
            let batch = &mut self.work.batch;
            batch.push(seq, &tokens[start..end], start, table);
            if start >= from {
                batch.logit_rows.extend(0..(end - start) as u32);
            }
            batch.update_sizes(&self.plans.active().inputs);
            self.copy_blocks();
            if let Err(error) = self.run() {
                self.tiers_failed();
                return Err(error);
            }
            self.cache.get_mut().commit(seq, end - start, &mut self.work.moves);
            self.copy_blocks();
            if start >= from {
                (start..end).for_each(|position| each(position, self.rows.row(position - start)));
            }
            start = end;
        }
        Ok(())
    }
}
