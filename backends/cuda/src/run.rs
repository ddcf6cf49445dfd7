//! Runs a compiled plan: copies in, kernels, copies out.

use std::sync::{Arc, Mutex, PoisonError};

use kernels_cuda::{Fault, Memory, Queue, Scope, Span};
use plugin_api::kinds::backend::Bindings;
use plugin_api::{Error, Result, TensorMut, TensorRef};

use crate::compile::Code;
use crate::problem::Problem;
use crate::step::Place;
use crate::weights::{Resident, Uploads, Weights};

/// A compiled plan with what it keeps on the device.
pub(crate) struct Program {
    code: Code,
    weights: Weights,
    /// One for each stream, allocated by its first run. The lock is free unless two threads run
    /// on one stream, which is one order of work.
    arenas: Vec<Mutex<Option<Memory>>>,
}

impl Program {
    pub(crate) fn new(code: Code, num_streams: usize, uploads: Arc<Uploads>) -> Self {
        let arenas = (0..num_streams).map(|_| Mutex::default()).collect();
        Self { code, weights: Weights::new(uploads), arenas }
    }

    /// Runs it on the queue of a stream and waits for its outputs.
    pub(crate) fn run(&self, queue: &Queue, stream: usize, bind: &mut Bindings<'_>) -> Result<()> {
        self.code.check.check(bind)?;
        self.check_indices(bind)?;
        Ok(self.work(queue, stream, bind)?)
    }

    /// Before anything is computed or written.
    fn check_indices(&self, bind: &Bindings<'_>) -> Result<()> {
        for (input, below) in &self.code.indices {
            let below = below.of(bind.sizes);
            let indices = bind.inputs[*input].u32s()?;
            if let Some(index) = indices.iter().find(|&&index| index as usize >= below) {
                return Err(Error::shape("index", format!("below {below}"), index));
            }
        }
        Ok(())
    }

    fn work(&self, queue: &Queue, stream: usize, bind: &mut Bindings<'_>) -> Result<(), Problem> {
        let weights = self.weights.residents(bind.weights, queue)?;
        let mut arena = self.arenas[stream].lock().unwrap_or_else(PoisonError::into_inner);
        let arena = match &mut *arena {
            Some(arena) => arena,
            none => none.insert(Memory::new(self.weights.device(), self.code.arena_bytes)?),
        };
        let (sizes, inputs) = (bind.sizes, bind.inputs);
        let frame = Frame { code: &self.code, sizes, arena, weights: &weights };
        queue.scope(|scope| {
            for (slot, input) in inputs.iter().enumerate() {
                frame.upload(scope, slot, input)?;
            }
            for step in &self.code.steps {
                step.queue(queue, &frame)?;
            }
            for (output, place) in bind.outputs.iter_mut().zip(&self.code.outputs) {
                frame.download(scope, *place, output)?;
            }
            Ok(())
        })
    }
}

/// Where everything lies in one run.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    code: &'a Code,
    pub(crate) sizes: &'a [usize],
    arena: &'a Memory,
    weights: &'a [Resident],
}

impl<'a> Frame<'a> {
    /// The numbers of a value.
    pub(crate) fn floats(&self, place: Place) -> Span<'a, f32> {
        match place {
            Place::Slot(slot) => self.slot(slot),
            Place::Weight(i) => {
                let weight = &self.code.weights[i];
                self.weights[i].span(weight.rows * weight.cols)
            }
        }
    }

    /// The indices of an input.
    pub(crate) fn indices(&self, slot: usize) -> Span<'a, u32> {
        self.slot(slot)
    }

    /// The packed bytes of a weight.
    pub(crate) fn bytes(&self, weight: usize) -> Span<'a, u8> {
        self.weights[weight].span(self.code.weights[weight].size_bytes)
    }

    fn slot<T: kernels_cuda::Number>(&self, slot: usize) -> Span<'a, T> {
        let slot = &self.code.slots[slot];
        self.arena.span(slot.offset, slot.len.of(self.sizes))
    }

    fn upload<'env>(
        &self,
        scope: &Scope<'_, 'env>,
        slot: usize,
        input: &TensorRef<'env>,
    ) -> Result<(), Fault> {
        match *input {
            TensorRef::F32(x) => scope.upload(x, self.slot(slot)),
            TensorRef::U32(x) => scope.upload(x, self.slot(slot)),
            TensorRef::F64(x) => scope.upload(x, self.slot(slot)),
        }
    }

    fn download<'env>(
        &self,
        scope: &Scope<'_, 'env>,
        place: Place,
        output: &'env mut TensorMut<'_>,
    ) -> Result<(), Fault> {
        match (output, place) {
            (TensorMut::F32(x), _) => scope.download(self.floats(place), x),
            (TensorMut::U32(x), Place::Slot(slot)) => scope.download(self.slot(slot), x),
            (TensorMut::F64(x), Place::Slot(slot)) => scope.download(self.slot(slot), x),
            // Weights are `f32`, which the check of the bindings has seen to.
            (TensorMut::U32(_) | TensorMut::F64(_), Place::Weight(_)) => Ok(()),
        }
    }
}
