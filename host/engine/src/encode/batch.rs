//! The inputs of one step of an encoder: sequences one after the other.

use plugin_api::TensorRef;
use plugin_api::plan::{Dim, Plan, Symbol};

use crate::error::EngineError;

/// Buffers for the inputs that a plan may ask for, by their names.
#[derive(Debug, Default)]
pub(super) struct EncoderBatch {
    token_ids: Vec<u32>,
    positions: Vec<u32>,
    sequence_index: Vec<u32>,
    sequence_starts: Vec<u32>,
    sequence_lens: Vec<u32>,
}

impl EncoderBatch {
    pub(super) fn clear(&mut self) {
        for buffer in [
            &mut self.token_ids,
            &mut self.positions,
            &mut self.sequence_index,
            &mut self.sequence_starts,
            &mut self.sequence_lens,
        ] {
            buffer.clear();
        }
    }

    pub(super) fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    pub(super) fn num_seqs(&self) -> usize {
        self.sequence_lens.len()
    }

    pub(super) fn push(&mut self, ids: &[u32]) {
        let (row, len) = (self.sequence_lens.len() as u32, ids.len() as u32);
        self.sequence_starts.push(self.token_ids.len() as u32);
        self.sequence_lens.push(len);
        self.token_ids.extend_from_slice(ids);
        self.positions.extend(0..len);
        self.sequence_index.extend(ids.iter().map(|_| row));
    }

    /// The inputs in the order of the plan.
    pub(super) fn inputs(&self, plan: &Plan) -> Result<Vec<TensorRef<'_>>, EngineError> {
        let input = |name: &str| match name {
            "token_ids" => Ok(&self.token_ids),
            "positions" => Ok(&self.positions),
            "sequence_index" => Ok(&self.sequence_index),
            "sequence_starts" => Ok(&self.sequence_starts),
            "sequence_lens" => Ok(&self.sequence_lens),
            other => {
                let known = "token_ids, positions, sequence_index, sequence_starts, sequence_lens";
                Err(EngineError::inconsistent("input of the encoder", known, other))
            }
        };
        plan.inputs.iter().map(|port| Ok(TensorRef::U32(input(&port.name)?))).collect()
    }

    /// The sizes in the order of the plan's symbols.
    pub(super) fn sizes(&self, plan: &Plan) -> Result<Vec<usize>, EngineError> {
        let size = |symbol: Symbol| match Dim::Symbol(symbol) {
            Dim::TOKENS => Ok(self.num_tokens()),
            Dim::SEQS => Ok(self.num_seqs()),
            other => Err(EngineError::inconsistent("size in the encoder", "tokens, seqs", other)),
        };
        plan.symbols().into_iter().map(size).collect()
    }
}
