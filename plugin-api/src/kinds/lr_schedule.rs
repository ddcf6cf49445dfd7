//! Schedules of the learning rate.

use super::{Traced, kind};

/// Traces `[step f32 [1, 1]]`, steps of the run before this one, skipped ones
/// counted, into the factor `[1, 1]` that the
/// learning rate of the run is multiplied by, from 0 to 1.
///
/// The layer's hyperparameters hold `num_steps`, those of the whole run. A step is exact up to
/// 2²⁴. Factors are finite beyond the end of the run, too: runs are extended.
pub trait LrSchedule: Traced {}

kind!(LrSchedule, "lr-schedule", TrainingStep, traced: true);
