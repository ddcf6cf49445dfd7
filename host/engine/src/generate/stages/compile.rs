//! From a plan to its stages.

use std::collections::BTreeMap;

use plugin_api::kinds::backend::{Bucket, Buf, Exe, MemoryMap};
use plugin_api::plan::rewrite::{self, Cut, Named, cut_at_calls};
use plugin_api::plan::{Dim, NodeKind, Plan, Port, Symbol};
use plugin_api::{DType, Error};

use super::{
    CELL_ALIGN, CELLS_MAX, Call, Extent, LOGITS, Place, Stage, Stages, Stretch, VALUES_MAX, Value,
};
use crate::error::EngineError;
use crate::model::callback::Callback;
use crate::model::trace::TracedParts;

impl Stages {
    /// Compiles `plan`, whose output are the logits, with `compile`, which gets each stretch with its memory.
    /// `memory` and `weights` are those of the whole plan, and `parts` describe it.
    ///
    /// # Errors
    ///
    /// What `compile` returns; [`Error::Unsupported`] for more values across a call than there is room for.
    pub(in crate::generate) fn new(
        plan: &Plan,
        bucket: &Bucket,
        (memory, weights): (&MemoryMap, &[Buf]),
        parts: &TracedParts,
        compile: impl Fn(&Plan, &MemoryMap) -> Result<Exe, EngineError>,
    ) -> Result<Self, EngineError> {
        let cut = cut(plan).map_err(EngineError::plugin("calls of the plan"))?;
        let symbols = plan.symbols();
        let mut places = Places::new(plan, &cut, bucket, &symbols);
        let mut stages = Vec::new();
        for (at, stage) in cut.stages.iter().enumerate() {
            stages.push(match stage {
                rewrite::Stage::Run(own) => {
                    let (inputs, outputs) = (named(own, &own.inputs), named(own, &own.outputs));
                    let (inputs, outputs) = places.take(at, &inputs, &outputs)?;
                    let (own_memory, weights) = memory_of(own, plan, memory, weights);
                    let exe = compile(own, &own_memory)?;
                    let sizes = places_in(&symbols, &own.symbols());
                    let names = |plan: &Plan| -> Vec<String> {
                        plan.states.iter().map(|port| port.spec.name.clone()).collect()
                    };
                    let states = places_in(&names(plan), &names(own));
                    Stage::Run(Stretch { exe, weights, sizes, states, inputs, outputs })
                }
                rewrite::Stage::Call { callback, inputs, outputs } => {
                    let called = Callback::of(callback).map_err(EngineError::plugin("plan"))?;
                    let part = parts.get(called.slot).ok_or_else(|| {
                        let known = parts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                        EngineError::inconsistent("callback of the plan", known, called)
                    })?;
                    let (part, slot, name) = (part.clone(), called.slot.into(), called.name.into());
                    let (inputs, outputs) = places.take(at, inputs, outputs)?;
                    Stage::Call(Call { part, slot, name, inputs, outputs })
                }
            });
        }
        let scratch_bytes = stages.iter().map(|stage| match stage {
            Stage::Run(stretch) => stretch.exe.scratch_bytes,
            Stage::Call(_) => 0,
        });
        let backend_bytes = scratch_bytes.max().unwrap_or(0).next_multiple_of(CELL_ALIGN);
        Ok(Self { stages, cells: places.cells, backend_bytes })
    }
}

/// The plan as it runs. Without calls that is the plan itself.
fn cut(plan: &Plan) -> plugin_api::Result<Cut> {
    if plan.nodes.iter().any(|node| matches!(node.kind, NodeKind::Call { .. })) {
        return cut_at_calls(plan);
    }
    let stages = vec![rewrite::Stage::Run(plan.clone())];
    Ok(Cut { stages, outputs: named(plan, &plan.outputs) })
}

fn named(plan: &Plan, ports: &[Port]) -> Vec<Named> {
    let named = |port: &Port| Named { name: port.name.clone(), spec: plan.spec(port.val).clone() };
    ports.iter().map(named).collect()
}

/// Where each of `own` is in `whole`.
fn places_in<T: PartialEq>(whole: &[T], own: &[T]) -> Vec<usize> {
    own.iter().filter_map(|x| whole.iter().position(|y| y == x)).collect()
}

/// What lies in memory for a part of the plan.
fn memory_of(
    own: &Plan,
    plan: &Plan,
    memory: &MemoryMap,
    weights: &[Buf],
) -> (MemoryMap, Vec<Buf>) {
    let names = |ports: &[Port]| ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    let held = places_in(&names(&plan.weights), &names(&own.weights));
    let states: Vec<_> = own
        .states
        .iter()
        .filter_map(|port| plan.states.iter().position(|whole| whole.spec == port.spec))
        .collect();
    let own = MemoryMap {
        weights: held.iter().map(|&i| memory.weights[i].clone()).collect(),
        states: states.iter().map(|&i| memory.states[i].clone()).collect(),
        block_size: memory.block_size,
    };
    (own, held.iter().map(|&i| weights[i].clone()).collect())
}

/// Hands out cells.
struct Places<'a> {
    bucket: &'a Bucket,
    symbols: &'a [Symbol],
    /// The stage that reads each value last.
    last_reads: BTreeMap<&'a str, usize>,
    held: BTreeMap<String, Place>,
    /// Bytes of each cell.
    cells: Vec<usize>,
    free: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(plan: &'a Plan, cut: &'a Cut, bucket: &'a Bucket, symbols: &'a [Symbol]) -> Self {
        let mut last_reads = BTreeMap::new();
        for (at, stage) in cut.stages.iter().enumerate() {
            let names: Vec<&str> = match stage {
                rewrite::Stage::Run(own) => own.inputs.iter().map(|port| &*port.name).collect(),
                rewrite::Stage::Call { inputs, .. } => inputs.iter().map(|x| &*x.name).collect(),
            };
            last_reads.extend(names.into_iter().map(|name| (name, at)));
        }
        let inputs = plan.inputs.iter().enumerate();
        let mut held: BTreeMap<_, _> =
            inputs.map(|(i, port)| (port.name.clone(), Place::Input(i))).collect();
        held.extend(cut.outputs.iter().map(|named| (named.name.clone(), Place::Cell(LOGITS))));
        Self { bucket, symbols, last_reads, held, cells: vec![0], free: Vec::new() }
    }

    /// Where the values of stage `at` lie. What it reads last is free for the stages after it.
    fn take(
        &mut self,
        at: usize,
        inputs: &[Named],
        outputs: &[Named],
    ) -> Result<(Vec<Value>, Vec<Value>), EngineError> {
        for named in outputs {
            if !self.held.contains_key(&named.name) {
                let cell = self.cell(named)?;
                self.held.insert(named.name.clone(), Place::Cell(cell));
            }
        }
        let values = |all: &[Named]| -> Result<Vec<Value>, EngineError> {
            all.iter().map(|named| self.value(named)).collect()
        };
        let taken = (values(inputs)?, values(outputs)?);
        let most = inputs.len().max(outputs.len());
        if most > VALUES_MAX || self.cells.len() > CELLS_MAX {
            return Err(unsupported(format!(
                "{most} values at a call and {} at a time: most are {VALUES_MAX} and {CELLS_MAX}",
                self.cells.len()
            )));
        }
        for named in inputs.iter().chain(outputs) {
            let is_over = self.last_reads.get(&*named.name).is_none_or(|&last| last <= at);
            match self.held.get(&named.name) {
                Some(&Place::Cell(cell)) if is_over && cell != LOGITS => {
                    self.held.remove(&named.name);
                    self.free.push(cell);
                }
                _ => {}
            }
        }
        Ok(taken)
    }

    /// A cell that is free, or a new one.
    fn cell(&mut self, named: &Named) -> Result<usize, EngineError> {
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(n) => usize::try_from(*n).ok(),
            Dim::Symbol(symbol) => Some(self.bucket.max(*symbol)),
        };
        let elements =
            named.spec.dims.iter().try_fold(1_usize, |n, dim| n.checked_mul(extent(dim)?));
        let bytes = elements.and_then(|n| n.checked_mul(size_of::<f32>()));
        let bytes = bytes.and_then(|n| n.checked_next_multiple_of(CELL_ALIGN));
        let bytes = bytes.ok_or_else(|| unsupported(format!("a value of {}", named.spec)))?;
        if let Some(place) = self.free.iter().position(|&cell| self.cells[cell] == bytes) {
            return Ok(self.free.swap_remove(place));
        }
        self.cells.push(bytes);
        Ok(self.cells.len() - 1)
    }

    fn value(&self, named: &Named) -> Result<Value, EngineError> {
        let Named { name, spec } = named;
        // Backends give and take 16-bit floats as 32 bits.
        let dtype = match spec.dtype {
            DType::F32 | DType::F16 | DType::BF16 => DType::F32,
            DType::U32 => DType::U32,
            _ => return Err(unsupported(format!("a value of {spec}"))),
        };
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(n) => usize::try_from(*n).ok().map(Extent::Fixed),
            Dim::Symbol(symbol) => {
                self.symbols.iter().position(|known| known == symbol).map(Extent::Symbol)
            }
        };
        let dims: Option<Vec<Extent>> = spec.dims.iter().map(extent).collect();
        match (self.held.get(name), dims) {
            (Some(&place), Some(dims)) => Ok(Value { place, dtype, dims }),
            _ => Err(EngineError::inconsistent("value across a call", "one that was made", name)),
        }
    }
}

fn unsupported(missing: String) -> EngineError {
    EngineError::plugin("plan")(Error::unsupported("values across a call", missing))
}
