//! A plan that is run with tensors of the host, by the names of its ports.

use std::sync::Arc;

use plugin_api::kinds::backend::{Backend, Bindings, Bucket, Exe, Fence, MemoryMap, StreamId};
use plugin_api::plan::{Dim, Plan, Port};
use plugin_api::{TensorMut, TensorRef};

use crate::error::EngineError;
use crate::model::memory::AlignedBytes;

/// A plan without weights and states, compiled, with the memory of its runs.
pub(crate) struct Compiled {
    pub(crate) plan: Plan,
    /// Compiled by `backend`, and dropped before it.
    exe: Exe,
    backend: Arc<dyn Backend>,
    scratch: AlignedBytes,
}

impl Compiled {
    /// Compiles `plan` for sizes up to these.
    pub(crate) fn new(
        plan: Plan,
        sizes: &[(Dim, usize)],
        backend: &Arc<dyn Backend>,
    ) -> Result<Self, EngineError> {
        let sizes = sizes.iter().filter_map(|(dim, n)| match dim {
            Dim::Symbol(symbol) => Some((*symbol, *n)),
            Dim::Fixed(_) => None,
        });
        let memory = MemoryMap { block_size: 1, ..MemoryMap::default() };
        let bucket = Bucket { sizes: sizes.collect() };
        let exe = backend.compile(&plan, &bucket, &memory);
        let exe = exe.map_err(EngineError::plugin("backend, a plan of training"))?;
        let scratch = AlignedBytes::huge(exe.scratch_bytes);
        Ok(Self { plan, exe, backend: Arc::clone(backend), scratch })
    }

    /// Runs it: `input` has the tensor of each name, `outputs` are those of the plan in order.
    pub(crate) fn run<'a>(
        &mut self,
        sizes: &[(Dim, usize)],
        input: impl Fn(&str) -> Option<TensorRef<'a>>,
        outputs: &mut [TensorMut<'_>],
    ) -> Result<(), EngineError> {
        let size_of = |symbol| {
            let found = sizes.iter().find(|(dim, _)| *dim == Dim::Symbol(symbol));
            found.map_or(1, |(_, n)| *n)
        };
        let sizes: Vec<usize> = self.plan.symbols().into_iter().map(size_of).collect();
        let tensor = |port: &Port| {
            let Port { name, val } = port;
            let what = || format!("column `{name}` of the batch");
            let Some(tensor) = input(name) else {
                return Err(EngineError::inconsistent(what(), "one: the plan reads it", "none"));
            };
            let extents = self.plan.spec(*val).dims.iter().map(|dim| match dim {
                Dim::Fixed(n) => *n as usize,
                Dim::Symbol(symbol) => size_of(*symbol),
            });
            let len: usize = extents.product();
            if tensor.len() != len || tensor.dtype() != self.plan.spec(*val).dtype {
                let expected = format!("{len} of {}", self.plan.spec(*val).dtype);
                let found = format!("{} of {}", tensor.len(), tensor.dtype());
                return Err(EngineError::inconsistent(what(), expected, found));
            }
            Ok(tensor)
        };
        let inputs: Vec<TensorRef<'_>> =
            self.plan.inputs.iter().map(tensor).collect::<Result<_, _>>()?;
        let mut outputs: Vec<TensorMut<'_>> = outputs
            .iter_mut()
            .map(|output| match output {
                TensorMut::F32(x) => TensorMut::F32(x),
                TensorMut::U32(x) => TensorMut::U32(x),
                TensorMut::F64(x) => TensorMut::F64(x),
            })
            .collect();
        let mut bind = Bindings {
            sizes: &sizes,
            inputs: &inputs,
            weights: &[],
            state: &mut [],
            scratch: self.scratch.as_mut_slice(),
            outputs: &mut outputs,
        };
        let ran = self.backend.run(&self.exe, StreamId(0), &mut bind);
        let ran = ran.and_then(|fence| match fence {
            Fence::Done => Ok(()),
            pending => self.backend.wait(&self.exe, pending, &mut bind),
        });
        ran.map_err(EngineError::plugin("backend, a step of training"))
    }
}
