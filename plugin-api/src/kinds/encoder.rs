//! Encoders: turn whole texts into vectors, without generating anything.

use super::{Traced, kind};

/// Traces `[token_ids u32 [tokens]]` into one value `[seqs, width]`: a vector of length one for each
/// sequence of the step.
///
/// The host makes tokens out of text and batches what waits. A step holds the tokens of its
/// sequences one after the other; the sink has these inputs, by name:
///
/// | input             | shape           | what                                             |
/// |-------------------|-----------------|--------------------------------------------------|
/// | `positions`       | `u32 [tokens]`  | of the token in its sequence, from 0             |
/// | `sequence_index`  | `u32 [tokens]`  | row of the result that the token belongs to      |
/// | `sequence_starts` | `u32 [seqs]`    | where the first token of each sequence stands    |
/// | `sequence_lens`   | `u32 [seqs]`    | tokens of each sequence, at least 1              |
///
/// Positions stay below `max_position_embeddings`. Weights have the names of the model's file,
/// without the name of its architecture before them (`bert.`). The bits of a vector depend on the
/// tokens of its own sequence only. There is no state: nothing outlives a step.
pub trait Encoder: Traced {}

kind!(Encoder, "encoder", Request, traced: true);
