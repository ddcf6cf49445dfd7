//! What products with experts consist of.

use super::SlotId;

/// A stable sort of choices by expert. Outputs: where each expert's end, where each choice stands, and
/// of what stands where, which choice and which token it is.
#[derive(Debug)]
pub(crate) struct SortChoices {
    /// `[tokens, choices]`
    pub(crate) chosen: SlotId,
    pub(crate) choices: usize,
}

/// Products of rows with the weights of their experts.
#[derive(Debug)]
pub(crate) struct Experts {
    /// `[tokens * choices, k]` floats, sorted.
    pub(crate) x: SlotId,
    /// The same quantized, if the weight wants it so.
    pub(crate) quantized: Option<SlotId>,
    pub(crate) terms: usize,
    /// Where the rows of each expert end.
    pub(crate) ends: SlotId,
    pub(crate) weight: usize,
    pub(crate) experts: usize,
    /// Rows of an expert's weight: whole panels.
    pub(crate) n: usize,
}
