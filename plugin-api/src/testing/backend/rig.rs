//! Plays the host: packs weights, aligns memory, compiles, runs.

use std::sync::Arc;

use super::super::interpreter::{Feed, Numbers, OwnedArena};
use crate::error::Result;
use crate::kinds::backend::{
    Backend, Bindings, Bucket, Buf, DomainId, Exe, Memory, MemoryMap, RawForm, RawRows, RawValues,
    StreamId, WeightDesc, WeightPlace,
};
use crate::kinds::kv_cache::Storage;
use crate::kinds::quantizer::Lowering;
use crate::plan::{Dim, Plan, Port, Symbol};
use crate::tensor::{DType, TensorMut, TensorRef};

/// What scratch memory and fresh buffers hold before anybody writes them.
const GARBAGE: u8 = 0xA5;

/// A weight in every form that a backend may ask for.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    pub(super) name: String,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) lowering: Lowering,
    /// Decoded, `[rows, cols]`.
    pub(super) values: Vec<f32>,
    /// `[rows, cols]`, empty unless affine.
    pub(super) codes: Vec<u8>,
    pub(super) scales: Vec<f32>,
    pub(super) mins: Vec<f32>,
}

impl Weight {
    pub(super) fn desc(&self) -> WeightDesc {
        WeightDesc {
            name: self.name.clone(),
            format: format!("{:?}", self.lowering),
            rows: self.rows,
            cols: self.cols,
        }
    }

    fn raw(&self, wants: RawForm, start: usize, rows: usize) -> RawValues<'_> {
        let (cols, values) = (self.cols, start * self.cols..(start + rows) * self.cols);
        match (wants, &self.lowering) {
            (RawForm::Floats, _) => RawValues::Floats(&self.values[values]),
            (RawForm::Affine, Lowering::Affine { group, .. }) => {
                let groups = start * cols / group..(start + rows) * cols / group;
                let mins = if self.mins.is_empty() { 0..0 } else { groups.clone() };
                RawValues::Affine {
                    codes: &self.codes[values],
                    scales: &self.scales[groups],
                    mins: &self.mins[mins],
                }
            }
            (RawForm::Affine, other) => panic!("codes are wanted of a weight that is {other:?}"),
        }
    }
}

/// Bytes that start at a multiple of 64.
#[derive(Debug)]
pub(super) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(super) fn new(len: usize) -> Self {
        let bytes = vec![GARBAGE; len + 64];
        let start = bytes.as_ptr().align_offset(64);
        Self { bytes, start, len }
    }

    /// Takes bytes off the end.
    pub(super) fn shorten(&mut self, by: usize) {
        self.len = self.len.saturating_sub(by);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

impl Memory for Aligned {
    fn domain(&self) -> DomainId {
        DomainId::HOST
    }

    fn host_bytes(&self) -> Option<&[u8]> {
        Some(&self.bytes[self.start..][..self.len])
    }
}

/// A state for a plan to run over.
#[derive(Debug, Clone)]
pub(super) struct StateSize {
    pub(super) storage: Storage,
    pub(super) num_blocks: usize,
    pub(super) block_size: usize,
}

impl StateSize {
    pub(super) fn plain(dtype: DType, num_blocks: usize, block_size: usize) -> Self {
        Self { storage: Storage::Plain(dtype), num_blocks, block_size }
    }
}

/// A compiled plan with its packed weights.
pub(super) struct Compiled<'a> {
    backend: &'a dyn Backend,
    plan: &'a Plan,
    pub(super) exe: Exe,
    weights: Vec<Buf>,
    state_bytes: usize,
}

impl<'a> Compiled<'a> {
    pub(super) fn new(
        backend: &'a dyn Backend,
        plan: &'a Plan,
        weights: &[Weight],
        bucket: &Bucket,
        state: Option<StateSize>,
    ) -> Result<Self> {
        let (memory, state_bytes) = memory_of(backend, plan, weights, state)?;
        let mut packed: Vec<Buf> = Vec::new();
        for place in &memory.weights {
            let weight = weights.iter().find(|weight| weight.name == place.desc.name);
            packed.push(pack(backend, weight.expect("found above"), place));
        }
        let exe = backend.compile(plan, bucket, &memory)?;
        Ok(Self { backend, plan, exe, weights: packed, state_bytes })
    }

    /// A zeroed state arena.
    pub(super) fn state(&self) -> Aligned {
        let mut state = Aligned::new(self.state_bytes);
        state.bytes_mut().fill(0);
        state
    }

    pub(super) fn run(&self, feed: &Feed) -> Result<Vec<Numbers<f32>>> {
        let mut parts = self.parts(feed);
        self.call(&self.exe, &mut parts)?;
        Ok(parts.outputs)
    }

    pub(super) fn run_with(&self, feed: &Feed, state: &mut Aligned) -> Result<Vec<Numbers<f32>>> {
        let mut parts = self.parts(feed);
        std::mem::swap(&mut parts.state, state);
        let result = self.call(&self.exe, &mut parts);
        std::mem::swap(&mut parts.state, state);
        result.map(|()| parts.outputs)
    }

    /// Everything that a run borrows.
    pub(super) fn parts(&self, feed: &Feed) -> Parts {
        let inputs = feed.inputs_of(self.plan).expect("the suite's inputs").into_iter();
        let owned = |input| match input {
            TensorRef::U32(x) => Numbers::Indices(x.to_vec()),
            TensorRef::F32(x) => Numbers::Reals(x.to_vec()),
            TensorRef::F64(x) => Numbers::Reals(x.iter().map(|&x| x as f32).collect()),
        };
        Parts {
            sizes: feed.sizes_of(self.plan),
            inputs: inputs.map(owned).collect(),
            weights: self.weights.clone(),
            state: self.state(),
            scratch: Aligned::new(self.exe.scratch_bytes),
            outputs: self.outputs(feed),
        }
    }

    /// Runs and waits.
    pub(super) fn call(&self, exe: &Exe, parts: &mut Parts) -> Result<()> {
        let inputs: Vec<TensorRef<'_>> = parts.inputs.iter().map(tensor_ref).collect();
        let mut outputs: Vec<TensorMut<'_>> = parts.outputs.iter_mut().map(tensor_mut).collect();
        let mut bind = Bindings {
            sizes: &parts.sizes,
            inputs: &inputs,
            weights: &parts.weights,
            state: parts.state.bytes_mut(),
            scratch: parts.scratch.bytes_mut(),
            outputs: &mut outputs,
        };
        let fence = self.backend.run(exe, StreamId(0), &mut bind)?;
        self.backend.wait(exe, fence, &mut bind)
    }

    /// Room for the outputs, filled with what no op gives.
    fn outputs(&self, feed: &Feed) -> Vec<Numbers<f32>> {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(n) => *n as usize,
            Dim::Symbol(symbol) => feed.size_of(*symbol),
        };
        let room = |port: &Port| {
            let spec = self.plan.spec(port.val);
            let len = spec.dims.iter().map(size).product();
            match spec.dtype {
                DType::U32 => Numbers::Indices(vec![UNTOUCHED_INDEX; len]),
                _ => Numbers::Reals(vec![UNTOUCHED; len]),
            }
        };
        self.plan.outputs.iter().map(room).collect()
    }
}

/// Everything that a run borrows, owned.
pub(super) struct Parts {
    pub(super) sizes: Vec<usize>,
    pub(super) inputs: Vec<Numbers<f32>>,
    pub(super) weights: Vec<Buf>,
    pub(super) state: Aligned,
    pub(super) scratch: Aligned,
    pub(super) outputs: Vec<Numbers<f32>>,
}

/// What outputs hold before a run.
pub(super) const UNTOUCHED: f32 = -7777.0;
/// As [`UNTOUCHED`].
pub(super) const UNTOUCHED_INDEX: u32 = 7_777_777;

fn tensor_ref(numbers: &Numbers<f32>) -> TensorRef<'_> {
    match numbers {
        Numbers::Reals(x) => TensorRef::F32(x),
        Numbers::Indices(x) => TensorRef::U32(x),
    }
}

fn tensor_mut(numbers: &mut Numbers<f32>) -> TensorMut<'_> {
    match numbers {
        Numbers::Reals(x) => TensorMut::F32(x),
        Numbers::Indices(x) => TensorMut::U32(x),
    }
}

/// The memory map of a plan, and the bytes of its state.
pub(super) fn memory_of(
    backend: &dyn Backend,
    plan: &Plan,
    weights: &[Weight],
    state: Option<StateSize>,
) -> Result<(MemoryMap, usize)> {
    let mut places = Vec::new();
    for port in &plan.weights {
        let weight = weights.iter().find(|weight| weight.name == port.name);
        let weight = weight.unwrap_or_else(|| panic!("the suite has no weight `{}`", port.name));
        let (desc, lowering) = (weight.desc(), weight.lowering.clone());
        let layout = backend.layout(&desc, &lowering)?;
        assert_eq!(backend.layout(&desc, &lowering)?, layout, "a layout depends on nothing else");
        assert!(layout.row_block > 0, "{layout:?}: rows in a block");
        places.push(WeightPlace { desc, lowering, layout });
    }
    let size = state.unwrap_or_else(|| StateSize::plain(DType::F32, 0, 16));
    let arena = OwnedArena::stored(plan, size.num_blocks, size.block_size, &size.storage);
    let memory = MemoryMap { weights: places, states: arena.places, block_size: size.block_size };
    Ok((memory, arena.bytes.len()))
}

/// Packs at once and in pieces, which have to agree.
fn pack(backend: &dyn Backend, weight: &Weight, place: &WeightPlace) -> Buf {
    let WeightPlace { desc, lowering, layout } = place;
    let mut whole = Aligned::new(layout.size_bytes(weight.rows));
    let raw = |start: usize, rows: usize| RawRows {
        desc,
        lowering,
        rows,
        values: weight.raw(layout.wants, start, rows),
    };
    let packed = backend.pack(&raw(0, weight.rows), layout, whole.bytes_mut());
    packed.unwrap_or_else(|e| panic!("packing {desc:?}: {e}"));
    let mut pieces = Aligned::new(layout.size_bytes(weight.rows));
    let step = layout.row_block * 2;
    for start in (0..weight.rows).step_by(step) {
        let rows = step.min(weight.rows - start);
        let at = start / layout.row_block * layout.block_bytes;
        let out = &mut pieces.bytes_mut()[at..][..layout.size_bytes(rows)];
        backend.pack(&raw(start, rows), layout, out).unwrap_or_else(|e| panic!("packing: {e}"));
    }
    assert!(whole.bytes_mut() == pieces.bytes_mut(), "packing in pieces differs: {desc:?}");
    let mut short = vec![0; layout.size_bytes(weight.rows).saturating_sub(1)];
    if !short.is_empty() {
        let refused = backend.pack(&raw(0, weight.rows), layout, &mut short);
        assert!(refused.is_err(), "packs {desc:?} into one byte too few");
    }
    Arc::new(whole)
}

/// A bucket with these sizes.
pub(super) fn bucket(sizes: &[(Symbol, usize)]) -> Bucket {
    Bucket { sizes: sizes.to_vec() }
}
