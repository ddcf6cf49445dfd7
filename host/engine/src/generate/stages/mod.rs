//! What runs in a step, one after the other: the plan as a whole, or what is left of it between calls of
//! plugins, and those calls.
//!
//! Values that live across a cut lie behind the scratch memory of the backend, in cells that are used again
//! when nobody reads them any more. A plan without calls has one stage, and no cell but that of the logits.

mod compile;
mod run;

use std::sync::Arc;

use plugin_api::kinds::backend::{Buf, Exe, StatePager};
use plugin_api::{Backend, DType, Error, Kind, TensorRef};

use crate::model::trace::TracedPart;

/// Most values that live across a cut at a time, the logits included.
const CELLS_MAX: usize = 64;
/// Most values that a stage reads, and most that it writes.
const VALUES_MAX: usize = 32;
/// The cell of the logits, which lie elsewhere.
const LOGITS: usize = 0;
/// Bytes that the beginnings of cells are apart: cache lines.
const CELL_ALIGN: usize = 64;

/// A compiled plan, stage by stage.
pub(super) struct Stages {
    stages: Vec<Stage>,
    /// Bytes of each cell; the logits have none here.
    cells: Vec<usize>,
    /// Scratch memory of the backend; the cells lie behind it.
    backend_bytes: usize,
}

enum Stage {
    Run(Stretch),
    Call(Call),
}

/// What the backend runs.
struct Stretch {
    exe: Exe,
    weights: Vec<Buf>,
    /// Its sizes, by their place in the whole plan.
    sizes: Vec<usize>,
    /// Its states, by their place in the whole plan.
    states: Vec<usize>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
}

/// What a plugin computes.
struct Call {
    part: Arc<TracedPart>,
    slot: String,
    name: String,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
}

struct Value {
    place: Place,
    dtype: DType,
    dims: Vec<Extent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// An input of the step.
    Input(usize),
    Cell(usize),
}

#[derive(Debug, Clone, Copy)]
enum Extent {
    Fixed(usize),
    /// The place of a symbol in the whole plan.
    Symbol(usize),
}

/// What a step reads and writes, in the order of the whole plan.
pub(super) struct Run<'a, 'p> {
    pub(super) sizes: &'a [usize],
    pub(super) inputs: &'a [TensorRef<'a>],
    pub(super) state: &'a mut [u8],
    pub(super) scratch: &'a mut [u8],
    pub(super) logits: &'a mut [f32],
    pub(super) pager: Option<&'a mut (dyn StatePager + 'p)>,
}

/// What failed in a step, and whose it is.
#[derive(Debug)]
pub(crate) struct StepFault {
    /// The kind of the plugin.
    pub(crate) kind: String,
    pub(crate) plugin: String,
    pub(crate) error: Error,
}

impl Stages {
    /// Scratch memory that a step needs.
    pub(super) fn scratch_bytes(&self) -> usize {
        self.backend_bytes + self.cells.iter().sum::<usize>()
    }

    /// Runs a step on `backend`, the plugin `name`.
    ///
    /// # Errors
    ///
    /// What the backend or the plugin of a call fails with.
    pub(super) fn run(
        &self,
        backend: &dyn Backend,
        name: &str,
        run: Run<'_, '_>,
    ) -> Result<(), StepFault> {
        let Run { sizes, inputs, state, scratch, logits, mut pager } = run;
        let (scratch, mut rest) = scratch.split_at_mut(self.backend_bytes);
        let mut cells = run::no_cells::<CELLS_MAX>();
        for (cell, &bytes) in cells.iter_mut().zip(&self.cells) {
            (*cell, rest) = rest.split_at_mut(bytes);
        }
        cells[LOGITS] = bytemuck::cast_slice_mut(logits);
        for stage in &self.stages {
            let (ran, kind, plugin) = match stage {
                Stage::Run(stretch) => {
                    // `as_deref_mut` would borrow for as long as the pager itself does.
                    let pager = pager.as_mut().map(|pager| &mut **pager as &mut dyn StatePager);
                    let bound = (&mut *state, &mut *scratch, pager);
                    let ran = stretch.run(backend, sizes, inputs, bound, &mut cells);
                    (ran, <dyn Backend>::NAME, name)
                }
                Stage::Call(call) => {
                    let ran = call.run(sizes, inputs, &mut cells);
                    (ran, &*call.slot, &*call.part.label.name)
                }
            };
            ran.map_err(|error| StepFault {
                kind: kind.to_owned(),
                plugin: plugin.to_owned(),
                error,
            })?;
        }
        Ok(())
    }
}
