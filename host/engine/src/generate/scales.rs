//! What fixed scales of codes would have to be, drawn from what a model keeps of a text.

use plugin_api::Error;
use plugin_api::kinds::kv_cache::SeqId;
use plugin_api::plan::Per;

use super::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Evaluates `tokens` as one sequence of its own and returns, for each element of each part of
    /// each state per token, the magnitude that `share` of its numbers do not exceed, over 127.
    ///
    /// An element that is always zero gets the least scale that there is.
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] if the cache has no room or the backend fails.
    pub fn cache_scales(
        &mut self,
        tokens: &[u32],
        share: f64,
    ) -> Result<Vec<Vec<Vec<f32>>>, EngineError> {
        if self.tiers.is_some() {
            let error = Error::unsupported("scales of a cache with tiers", "use `paged`");
            return Err(EngineError::plugin("evaluation")(error));
        }
        let seq = SeqId(self.sequences.end() as u32);
        let limit = self.limits.tokens;
        let result = self.evaluate_as(seq, tokens, tokens.len(), limit, &mut |_, _| {});
        let scales = result.and_then(|()| self.scales_of(seq, tokens.len(), share));
        self.cache.get_mut().release(seq, 0);
        scales
    }

    fn scales_of(
        &mut self,
        seq: SeqId,
        num_tokens: usize,
        share: f64,
    ) -> Result<Vec<Vec<Vec<f32>>>, EngineError> {
        let table = self.cache.get_mut().reserve(seq, 0, &mut self.work.moves);
        let table = table.map_err(EngineError::plugin("evaluation"))?;
        let (block_size, bytes) = (self.layout.pool.block_size, self.state.as_slice());
        let mut scales = Vec::new();
        for (state, place) in self.model.states.iter().zip(&self.layout.places) {
            let mut parts = Vec::new();
            // States per sequence are never codes: they have no scales.
            if state.per == Per::Sequence {
                scales.push(parts);
                continue;
            }
            for (index, (part, offset)) in state.parts.iter().zip(&place.offsets).enumerate() {
                let width = part.num_elements() as usize;
                let size = place.storage.block_bytes(part, block_size);
                let mut columns = vec![Vec::with_capacity(num_tokens); width];
                let mut row = vec![0.0; width];
                for token in 0..num_tokens {
                    let block = offset + table[token / block_size] as usize * size;
                    let (block, inside) = (&bytes[block..][..size], token % block_size);
                    place.storage.read(index, part, block, inside, &mut row);
                    columns.iter_mut().zip(&row).for_each(|(column, x)| column.push(x.abs()));
                }
                parts.push(columns.into_iter().map(|column| scale_of(column, share)).collect());
            }
            scales.push(parts);
        }
        Ok(scales)
    }
}

fn scale_of(mut magnitudes: Vec<f32>, share: f64) -> f32 {
    magnitudes.sort_by(f32::total_cmp);
    let last = magnitudes.len().saturating_sub(1);
    let index = (share.clamp(0.0, 1.0) * last as f64).ceil() as usize;
    let magnitude = magnitudes.get(index).copied().unwrap_or_default();
    (magnitude / 127.0).max(f32::MIN_POSITIVE)
}
