//! What tests and benches of this backend share: memory, packed weights, and a small decoder.

#![allow(dead_code, reason = "each user takes its part")]

pub(crate) mod experts;

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use half::f16;
use plugin_api::kinds::backend::{
    Backend, Bindings, Bucket, Buf, DomainId, Exe, Memory, MemoryMap, RawForm, RawRows, RawValues,
    StatePlace, StreamId, WeightDesc, WeightPlace,
};
use plugin_api::plan::{PlanBuilder, Symbol};
use plugin_api::prelude::*;
use plugin_api::testing::interpreter::OwnedArena;
use plugin_api::testing::random::Random;
use plugin_api::{TensorMut, TensorRef};

/// Bytes on a cache line boundary.
#[derive(Clone)]
pub(crate) struct Lines {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Lines {
    pub(crate) fn new(len: usize) -> Self {
        Self { lines: vec![Line([0; 64]); len.div_ceil(64)], len }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl Memory for Lines {
    fn domain(&self) -> DomainId {
        DomainId::HOST
    }

    fn host_bytes(&self) -> Option<&[u8]> {
        Some(&bytemuck::cast_slice(&self.lines)[..self.len])
    }
}

/// How the weights of a rig are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    F16,
    BF16,
    /// Bits, group, has a minimum, scales exact in `f16`.
    Affine(u32, usize, bool, bool),
}

/// A weight as the model holds it, and the numbers that it stands for.
pub(crate) struct Stored {
    pub(crate) lowering: Lowering,
    pub(crate) floats: Vec<f32>,
    codes: Vec<u8>,
    scales: Vec<f32>,
    mins: Vec<f32>,
}

impl Stored {
    /// Numbers of about `1 / sqrt(cols)`.
    pub(crate) fn random(format: Format, rows: usize, cols: usize, random: &mut Random) -> Self {
        let size = 1.0 / (cols as f32).sqrt();
        let mut floats: Vec<f32> = (0..rows * cols).map(|_| random.signed() * size).collect();
        let (mut codes, mut factors, mut mins) = (Vec::new(), Vec::new(), Vec::new());
        let lowering = match format {
            Format::F32 => Lowering::MiniFloat { exponent: 8, mantissa: 23 },
            Format::F16 => {
                floats.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
                Lowering::MiniFloat { exponent: 5, mantissa: 10 }
            }
            Format::BF16 => {
                floats.iter_mut().for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
                Lowering::MiniFloat { exponent: 8, mantissa: 7 }
            }
            Format::Affine(bits, group, has_min, is_f16_exact) => {
                let levels = (1_u32 << bits) as f32;
                let zero_point = if has_min { 0 } else { 1 << (bits - 1) };
                let round = |x: f32| if is_f16_exact { f16::from_f32(x).to_f32() } else { x };
                for x in floats.chunks_mut(group) {
                    let scale = round(size * (1.5 + random.signed()) / levels);
                    let min = if has_min {
                        round(scale * levels * (random.signed() * 0.1 - 0.5))
                    } else {
                        0.0
                    };
                    factors.push(scale);
                    mins.extend(has_min.then_some(min));
                    for x in x {
                        let code = random.below(1 << bits) as u8;
                        codes.push(code);
                        *x = scale * (f32::from(code) - f32::from(zero_point)) + min;
                    }
                }
                let scales = if is_f16_exact { Scales::F16 } else { Scales::F32 };
                Lowering::Affine { bits, group, zero_point, has_min, scales }
            }
        };
        Self { lowering, floats, codes, scales: factors, mins }
    }

    /// Packs in pieces of a few row blocks, as a loader does.
    pub(crate) fn pack(
        &self,
        backend: &dyn Backend,
        desc: WeightDesc,
    ) -> Result<(WeightPlace, Buf)> {
        let layout = backend.layout(&desc, &self.lowering)?;
        let mut packed = Lines::new(layout.size_bytes(desc.rows));
        let (rows_step, cols) = (layout.row_block * 3, desc.cols);
        let pieces = packed.bytes_mut().chunks_mut((layout.block_bytes * 3).max(1));
        for (piece, out) in pieces.enumerate() {
            let first = piece * rows_step;
            let rows = rows_step.min(desc.rows - first);
            let at = first * cols..(first + rows) * cols;
            let values = match (layout.wants, &self.lowering) {
                (RawForm::Affine, Lowering::Affine { group, .. }) => {
                    let groups = at.start / group..at.end / group;
                    let mins = if self.mins.is_empty() { 0..0 } else { groups.clone() };
                    RawValues::Affine {
                        codes: &self.codes[at],
                        scales: &self.scales[groups],
                        mins: &self.mins[mins],
                    }
                }
                _ => RawValues::Floats(&self.floats[at]),
            };
            let raw = RawRows { desc: &desc, lowering: &self.lowering, rows, values };
            backend.pack(&raw, &layout, out)?;
        }
        let lowering = self.lowering.clone();
        Ok((WeightPlace { desc, lowering, layout }, Arc::new(packed)))
    }
}

/// A plan compiled for a backend, with its memory.
pub(crate) struct Rig {
    pub(crate) plan: Plan,
    pub(crate) exe: Exe,
    pub(crate) weights: Vec<Buf>,
    pub(crate) state: Lines,
    pub(crate) scratch: Lines,
    /// Weights as numbers, in the order of the plan.
    pub(crate) floats: Vec<Vec<f32>>,
}

/// Sizes of the state arena.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cache {
    pub(crate) num_blocks: usize,
    pub(crate) block_size: usize,
    pub(crate) dtype: DType,
}

impl Cache {
    pub(crate) const NONE: Self = Self { num_blocks: 0, block_size: 16, dtype: DType::F32 };
}

impl Rig {
    /// Compiles `plan` with random weights: vectors near 1, matrices in `format`.
    pub(crate) fn new(
        backend: &dyn Backend,
        plan: Plan,
        format: Format,
        cache: Cache,
        sizes: &[(Dim, usize)],
    ) -> Result<Self> {
        let mut random = Random::new(7);
        let (mut weights, mut places, mut floats) = (Vec::new(), Vec::new(), Vec::new());
        for port in &plan.weights {
            let dims: Vec<usize> = plan.spec(port.val).dims.iter().map(fixed).collect();
            let (rows, cols) = match dims[..] {
                [experts, rows, cols] => (experts * rows, cols),
                [rows, cols] => (rows, cols),
                _ => (1, dims[0]),
            };
            let format = if rows == 1 { Format::F32 } else { format };
            let mut stored = Stored::random(format, rows, cols, &mut random);
            if rows == 1 && format == Format::F32 {
                stored.floats.iter_mut().for_each(|x| *x = *x * 0.1 + 1.0);
            }
            let desc =
                WeightDesc { name: port.name.clone(), format: format!("{format:?}"), rows, cols };
            let (place, buf) = stored.pack(backend, desc)?;
            weights.push(buf);
            places.push(place);
            floats.push(stored.floats);
        }
        let Cache { num_blocks, block_size, dtype } = cache;
        let arena = OwnedArena::new(&plan, num_blocks, block_size, dtype);
        let states: Vec<StatePlace> = arena.places;
        let memory = MemoryMap { weights: places, states, block_size };
        let sizes = sizes.iter().filter_map(|&(dim, n)| match dim {
            Dim::Symbol(symbol) => Some((symbol, n)),
            Dim::Fixed(_) => None,
        });
        let bucket = Bucket { sizes: sizes.collect() };
        let exe = backend.compile(&plan, &bucket, &memory)?;
        let mut scratch = Lines::new(exe.scratch_bytes);
        scratch.bytes_mut().fill(0xA5);
        Ok(Self { plan, exe, weights, state: Lines::new(arena.bytes.len()), scratch, floats })
    }

    /// Runs once and returns the floats of the only output.
    pub(crate) fn run(
        &mut self,
        backend: &dyn Backend,
        sizes: &[(Dim, usize)],
        inputs: &[TensorRef<'_>],
    ) -> Result<Vec<f32>> {
        let sizes = self.sizes(sizes);
        let symbols = self.plan.symbols();
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(n) => *n as usize,
            Dim::Symbol(x) => sizes[symbols.iter().position(|s| s == x).unwrap()],
        };
        let spec = self.plan.spec(self.plan.outputs[0].val);
        let mut out = vec![f32::NAN; spec.dims.iter().map(extent).product()];
        self.run_into(backend, &sizes, inputs, &mut out)?;
        Ok(out)
    }

    /// Sizes in the order of the plan's symbols.
    pub(crate) fn sizes(&self, sizes: &[(Dim, usize)]) -> Vec<usize> {
        let value_of = |symbol: &Symbol| {
            let known = sizes.iter().find(|(dim, _)| *dim == Dim::Symbol(*symbol));
            known.map_or(0, |(_, n)| *n)
        };
        self.plan.symbols().iter().map(value_of).collect()
    }

    /// Runs once with the sizes in the order of the plan.
    pub(crate) fn run_into(
        &mut self,
        backend: &dyn Backend,
        sizes: &[usize],
        inputs: &[TensorRef<'_>],
        out: &mut [f32],
    ) -> Result<()> {
        let mut bind = Bindings {
            sizes,
            inputs,
            weights: &self.weights,
            state: self.state.bytes_mut(),
            scratch: self.scratch.bytes_mut(),
            outputs: &mut [TensorMut::F32(out)],
        };
        let fence = backend.run(&self.exe, StreamId(0), &mut bind)?;
        backend.wait(&self.exe, fence, &mut bind)
    }
}

fn fixed(dim: &Dim) -> usize {
    dim.fixed().unwrap() as usize
}

/// The sizes of a decoder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder {
    pub(crate) layers: usize,
    pub(crate) hidden: u64,
    pub(crate) intermediate: u64,
    pub(crate) heads: u64,
    pub(crate) kv_heads: u64,
    pub(crate) head_dim: u64,
    pub(crate) vocab: u64,
    pub(crate) window: u32,
    pub(crate) softcap: f64,
    pub(crate) has_bias: bool,
}

impl Decoder {
    /// Enough of everything to be a decoder.
    pub(crate) const SMALL: Self = Self {
        layers: 2,
        hidden: 64,
        intermediate: 160,
        heads: 6,
        kv_heads: 2,
        head_dim: 32,
        vocab: 150,
        window: 0,
        softcap: 0.0,
        has_bias: true,
    };

    /// SmolLM2-135M.
    pub(crate) const SMOL: Self = Self {
        layers: 30,
        hidden: 576,
        intermediate: 1536,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        vocab: 49_152,
        window: 0,
        softcap: 0.0,
        has_bias: false,
    };

    /// One step: token ids in, logits of the asked-for rows out, tied embeddings.
    pub(crate) fn plan(&self) -> Result<Plan> {
        let mut builder = PlanBuilder::new();
        let g: &mut PlanBuilder = &mut builder;
        let ids = g.input("token_ids", Spec::u32([Dim::TOKENS]))?;
        let fixed = Dim::Fixed;
        let table = [fixed(self.vocab), fixed(self.hidden)];
        let table = g.declare_weight("embed_tokens.weight", Spec::f32(table))?;
        let mut x = g.embed(table, ids)?;
        for layer in 0..self.layers {
            x = self.layer(g, layer, x)?;
        }
        let rows = g.input("logit_rows", Spec::u32([Dim::LOGIT_ROWS]))?;
        let last = g.gather(x, rows)?;
        let w = g.declare_weight("norm.weight", Spec::f32([fixed(self.hidden)]))?;
        let last = fused::rms_norm(g, last, w, 1e-5, 0.0)?;
        let logits = g.matmul(last, table)?;
        g.output("logits", logits)?;
        Ok(builder.finish())
    }

    fn layer(&self, g: &mut PlanBuilder, layer: usize, x: Val) -> Result<Val> {
        let name = |part: &str| format!("layers.{layer}.{part}.weight");
        let norm = |g: &mut PlanBuilder, x: Val, part: &str| {
            let w = g.declare_weight(&name(part), Spec::f32([Dim::Fixed(self.hidden)]))?;
            fused::rms_norm(g, x, w, 1e-5, 0.0)
        };
        let linear = |g: &mut PlanBuilder, x: Val, part: &str, n: u64, has_bias: bool| {
            let k = g.spec(x).width()?;
            let spec = Spec::f32([Dim::Fixed(n), Dim::Fixed(k)]);
            let w = g.declare_weight(&name(part), spec)?;
            let y = g.matmul(x, w)?;
            if !has_bias {
                return Ok(y);
            }
            let b = g.declare_weight(&name(&format!("{part}.bias")), Spec::f32([Dim::Fixed(n)]))?;
            g.add(y, b)
        };
        let (heads, kv_heads, d) = (self.heads as i64, self.kv_heads as i64, self.head_dim as i64);
        let h = norm(g, x, "input_norm")?;
        let q = linear(g, h, "q_proj", self.heads * self.head_dim, self.has_bias)?;
        let k = linear(g, h, "k_proj", self.kv_heads * self.head_dim, self.has_bias)?;
        let v = linear(g, h, "v_proj", self.kv_heads * self.head_dim, self.has_bias)?;
        let q = g.reshape(q, &[-1, heads, d])?;
        let k = g.reshape(k, &[-1, kv_heads, d])?;
        let v = g.reshape(v, &[-1, kv_heads, d])?;
        let positions = g.input("positions", Spec::u32([Dim::TOKENS]))?;
        let inv_freq = (0..d / 2).map(|i| 1e4_f32.powf(-2.0 * i as f32 / d as f32)).collect();
        let rotation = Rotation { inv_freq, pairing: Pairing::HalfSplit, attention_factor: 1.0 };
        let q = fused::rope(g, q, positions, &rotation)?;
        let k = fused::rope(g, k, positions, &rotation)?;
        let dims = vec![self.kv_heads as u32, self.head_dim as u32];
        let part = |name: &str| Part { name: name.to_owned(), dims: dims.clone() };
        let state = g.state(StateSpec {
            name: format!("layers.{layer}.kv"),
            per: Per::Token { window: self.window },
            parts: vec![part("key"), part("value")],
        })?;
        let sequence_index = g.input("sequence_index", Spec::u32([Dim::TOKENS]))?;
        let block_table = g.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS]))?;
        let scale = (self.head_dim as f64).powf(-0.5);
        let attrs = Attrs::new().float("scale", scale).float("softcap", self.softcap);
        let inputs = [q, k, v, state, positions, sequence_index, block_table];
        let mixed = g.one(ops::ATTEND, &inputs, attrs)?;
        let mixed = g.reshape(mixed, &[-1, heads * d])?;
        let mixed = linear(g, mixed, "o_proj", self.hidden, false)?;
        let x = g.add(x, mixed)?;
        let h = norm(g, x, "post_norm")?;
        let gate = linear(g, h, "gate_proj", self.intermediate, false)?;
        let up = linear(g, h, "up_proj", self.intermediate, false)?;
        let h = fused::swiglu(g, gate, up)?;
        let down = linear(g, h, "down_proj", self.hidden, false)?;
        g.add(x, down)
    }
}

/// The tensors of one step of a decoder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Step {
    pub(crate) token_ids: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) sequence_index: Vec<u32>,
    pub(crate) block_table: Vec<u32>,
    pub(crate) logit_rows: Vec<u32>,
    pub(crate) seqs: usize,
}

impl Step {
    /// Appends tokens of a sequence from `position` on, with its blocks; all their logits.
    pub(crate) fn push(&mut self, tokens: &[u32], position: usize, blocks: &[u32]) {
        self.token_ids.extend(tokens);
        self.positions.extend((position as u32..).take(tokens.len()));
        self.sequence_index.extend(tokens.iter().map(|_| self.seqs as u32));
        self.block_table.extend(blocks);
        self.seqs += 1;
        self.logit_rows = (0..self.token_ids.len() as u32).collect();
    }

    pub(crate) fn sizes(&self) -> [(Dim, usize); 4] {
        let blocks = self.block_table.len().checked_div(self.seqs).unwrap_or(1);
        [
            (Dim::TOKENS, self.token_ids.len()),
            (Dim::SEQS, self.seqs),
            (Dim::BLOCKS, blocks),
            (Dim::LOGIT_ROWS, self.logit_rows.len()),
        ]
    }

    /// In the order of the plan.
    pub(crate) fn inputs(&self, plan: &Plan) -> Vec<TensorRef<'_>> {
        let tensor = |name: &str| match name {
            "token_ids" => &self.token_ids,
            "positions" => &self.positions,
            "sequence_index" => &self.sequence_index,
            "block_table" => &self.block_table,
            _ => &self.logit_rows,
        };
        plan.inputs.iter().map(|port| TensorRef::U32(tensor(&port.name))).collect()
    }
}
