//! Hooks across the boundary: closures stay where they were made, and are called by number.

mod export;
mod import;

pub(super) use export::export;
pub(super) use import::import;

use crate::events::Phase;
use crate::kinds::hook::Hook;

type Instance = dyn Hook;

/// In the order of their codes.
const PHASES: [Phase; 3] = [Phase::Early, Phase::Normal, Phase::Late];
