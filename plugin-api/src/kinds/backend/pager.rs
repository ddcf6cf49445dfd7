//! Arenas that are only partly in memory.

use crate::error::Result;

/// Brings parts of the state arena into memory; lent to a backend for one run.
pub trait StatePager {
    /// Makes everything that the step touches of a state readable and writable, and notes that it is
    /// written: `state` counts in the order of the plan, `arena` is all of it.
    ///
    /// # Errors
    ///
    /// Whatever kept a part from being brought in; the run ends with it.
    fn enter(&mut self, state: usize, arena: &mut [u8]) -> Result<()>;
}
