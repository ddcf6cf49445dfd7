//! Checks the bindings of a run against its plan, so that every backend refuses the same mistakes.

use super::{Bindings, Bucket, MemoryMap};
use crate::error::{Error, Result};
use crate::plan::{Dim, Plan, Port, Symbol};
use crate::tensor::DType;

/// What the bindings of a compiled plan have to be. Made while compiling; checking allocates
/// nothing.
#[derive(Debug, Clone)]
pub struct BindingCheck {
    symbols: Vec<(Symbol, usize)>,
    inputs: Vec<Tensor>,
    /// Bytes of each weight.
    weights: Vec<usize>,
    outputs: Vec<Tensor>,
    state_bytes: usize,
    scratch_bytes: usize,
}

#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    dtype: DType,
    extents: Vec<Extent>,
}

#[derive(Debug, Clone, Copy)]
enum Extent {
    Fixed(usize),
    /// The index of a symbol.
    Symbol(usize),
}

impl BindingCheck {
    /// What runs of `plan` have to bind.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if `memory` is not that of the plan.
    pub fn new(
        plan: &Plan,
        bucket: &Bucket,
        memory: &MemoryMap,
        scratch_bytes: usize,
    ) -> Result<Self> {
        count("weights in the memory map", plan.weights.len(), memory.weights.len())?;
        count("states in the memory map", plan.states.len(), memory.states.len())?;
        for (port, place) in plan.weights.iter().zip(&memory.weights) {
            let elements = place.desc.rows.checked_mul(place.desc.cols);
            if elements.is_none() || elements != fixed_len(&plan.spec(port.val).dims) {
                let found = format!("[{}, {}]", place.desc.rows, place.desc.cols);
                return Err(Error::shape(&port.name, plan.spec(port.val), found));
            }
        }
        let symbols: Vec<_> =
            plan.symbols().into_iter().map(|symbol| (symbol, bucket.max(symbol))).collect();
        let tensors = |ports: &[Port]| -> Result<Vec<Tensor>> {
            ports.iter().map(|port| tensor(plan, port, &symbols)).collect()
        };
        let (inputs, outputs) = (tensors(&plan.inputs)?, tensors(&plan.outputs)?);
        let weights = memory.weights.iter().map(|x| x.layout.size_bytes(x.desc.rows)).collect();
        let state_bytes = state_bytes(plan, memory)?;
        Ok(Self { symbols, inputs, weights, outputs, state_bytes, scratch_bytes })
    }

    /// Checks one run. Nothing has been read or written if it fails.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] that names what does not fit.
    pub fn check(&self, bind: &Bindings<'_>) -> Result<()> {
        count("sizes", self.symbols.len(), bind.sizes.len())?;
        for ((symbol, max), size) in self.symbols.iter().zip(bind.sizes) {
            if size > max {
                return Err(Error::shape(symbol, format!("at most {max}"), size));
            }
        }
        count("inputs", self.inputs.len(), bind.inputs.len())?;
        for (expected, found) in self.inputs.iter().zip(bind.inputs) {
            expected.check(bind.sizes, found.dtype(), found.len())?;
        }
        count("weights", self.weights.len(), bind.weights.len())?;
        for (&bytes, weight) in self.weights.iter().zip(bind.weights) {
            let found = weight.host_bytes().map(<[u8]>::len);
            if found.is_some_and(|found| found < bytes) {
                return Err(Error::shape("weight", format!("{bytes} bytes"), found.unwrap_or(0)));
            }
        }
        count("outputs", self.outputs.len(), bind.outputs.len())?;
        for (expected, found) in self.outputs.iter().zip(&*bind.outputs) {
            expected.check(bind.sizes, found.dtype(), found.len())?;
        }
        at_least("state arena", self.state_bytes, bind.state.len())?;
        at_least("scratch", self.scratch_bytes, bind.scratch.len())
    }

    /// The value of each symbol's bound, in the order of the plan.
    pub fn symbols(&self) -> &[(Symbol, usize)] {
        &self.symbols
    }
}

impl Tensor {
    fn check(&self, sizes: &[usize], dtype: DType, len: usize) -> Result<()> {
        let mut expected = 1_usize;
        for extent in &self.extents {
            let extent = match *extent {
                Extent::Fixed(n) => n,
                Extent::Symbol(i) => sizes[i],
            };
            expected = expected.saturating_mul(extent);
        }
        if len == expected && dtype == self.dtype {
            Ok(())
        } else {
            let found = format!("{len} of {dtype}");
            Err(Error::shape(&self.name, format!("{expected} of {}", self.dtype), found))
        }
    }
}

/// 16-bit floats cross the boundary as `f32`.
fn tensor(plan: &Plan, port: &Port, symbols: &[(Symbol, usize)]) -> Result<Tensor> {
    let spec = plan.spec(port.val);
    let dtype = match spec.dtype {
        DType::F32 | DType::F16 | DType::BF16 => DType::F32,
        DType::F64 => DType::F64,
        DType::U32 => DType::U32,
        DType::U8 => return Err(Error::unsupported(&port.name, "bytes as input or output")),
    };
    let extent = |dim: &Dim| match dim {
        Dim::Fixed(n) => usize::try_from(*n).ok().map(Extent::Fixed),
        Dim::Symbol(x) => symbols.iter().position(|(known, _)| known == x).map(Extent::Symbol),
    };
    let extents: Option<Vec<Extent>> = spec.dims.iter().map(extent).collect();
    let extents = extents.ok_or_else(|| Error::shape(&port.name, "sizes of this machine", spec))?;
    Ok(Tensor { name: port.name.clone(), dtype, extents })
}

fn state_bytes(plan: &Plan, memory: &MemoryMap) -> Result<usize> {
    let mut end = 0;
    for (port, place) in plan.states.iter().zip(&memory.states) {
        count(&port.spec.name, port.spec.parts.len(), place.offsets.len())?;
        let rows = port.spec.per.rows_of_block(memory.block_size);
        for (part, &offset) in port.spec.parts.iter().zip(&place.offsets) {
            let block_bytes = place.storage.block_bytes(part, rows);
            let bytes = block_bytes.checked_mul(place.num_blocks);
            let part_end = bytes.and_then(|bytes| bytes.checked_add(offset));
            let part_end =
                part_end.ok_or_else(|| Error::shape(&port.spec.name, "a size in bytes", "more"))?;
            end = end.max(part_end);
        }
    }
    Ok(end)
}

fn fixed_len(dims: &[Dim]) -> Option<usize> {
    dims.iter().try_fold(1_usize, |n, dim| n.checked_mul(usize::try_from(dim.fixed()?).ok()?))
}

fn count(what: &str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::shape(what, expected, found)) }
}

fn at_least(what: &str, expected: usize, found: usize) -> Result<()> {
    if found >= expected {
        Ok(())
    } else {
        Err(Error::shape(what, format!("{expected} bytes"), found))
    }
}
