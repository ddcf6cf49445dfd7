//! `attend` over several steps: scripts of who computes what when, that must not matter.

use std::collections::BTreeMap;

use super::super::interpreter::{Feed, FusedAs, Numbers, OwnedArena};
use super::super::random::Random;
use super::super::tolerance::{of_op, peak};
use super::rig::{Aligned, Compiled, StateSize, bucket};
use super::symbol;
use crate::error::Error;
use crate::kinds::backend::{Backend, NodeView, Support};
use crate::kinds::kv_cache::{AffineStorage, CodeScales, Patches, Storage};
use crate::plan::{
    Attrs, Dim, OpSink, OpSinkExt, Part, Per, Plan, PlanBuilder, Spec, StateSpec, ops,
};
use crate::tensor::DType;

/// Sizes of one attention.
#[derive(Debug, Clone, Copy)]
struct Shape {
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    window: u32,
    softcap: f64,
    /// 0 for none.
    chunk: i64,
    /// 0 for values of their own.
    value_dim: i64,
    has_sinks: bool,
}

impl Shape {
    const PLAIN: Self = Self {
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        window: 0,
        softcap: 0.0,
        chunk: 0,
        value_dim: 0,
        has_sinks: false,
    };
}

/// Consecutive tokens of a sequence that are computed in one step.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    sequence: usize,
    start: usize,
    len: usize,
}

/// Steps in order, each with its chunks.
type Script = Vec<Vec<Chunk>>;
/// The output of each token, by sequence and position.
type Outputs = BTreeMap<(usize, usize), Vec<f32>>;

const SEQUENCES: usize = 3;
/// Tokens of each sequence; the first goes beyond one split of the softmax.
const LENGTHS: [usize; SEQUENCES] = [300, 20, 9];

pub(super) fn check(backend: &dyn Backend) {
    let shape = Shape::PLAIN;
    let mut computed = 0;
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
        computed += usize::from(check_shape(backend, shape, &Storage::Plain(dtype)));
    }
    if computed == 0 {
        return;
    }
    let plain = [DType::F32, DType::F16].map(Storage::Plain).into_iter();
    let plain = plain.clone().find(|plain| compiles(backend, shape, plain));
    let plain = plain.unwrap_or(Storage::Plain(DType::F32));
    let takes_codes = codes(shape).iter().any(|codes| check_shape(backend, shape, codes));
    for shape in [
        Shape { heads: 2, kv_heads: 2, ..shape },
        Shape { heads: 3, kv_heads: 1, head_dim: 7, ..shape },
        Shape { heads: 9, kv_heads: 3, head_dim: 64, ..shape },
        Shape { window: 5, ..shape },
        Shape { window: 260, ..shape },
        Shape { softcap: 0.5, ..shape },
    ] {
        assert!(check_shape(backend, shape, &plain), "attend of {shape:?} is refused");
        for codes in codes(shape).iter().filter(|_| takes_codes) {
            assert!(
                check_shape(backend, shape, codes),
                "attend of {shape:?} over codes is refused"
            );
        }
    }
    // What a backend may go without.
    for shape in [
        Shape { chunk: 7, ..shape },
        Shape { chunk: 270, window: 265, ..shape },
        Shape { has_sinks: true, ..shape },
        Shape { has_sinks: true, window: 5, heads: 9, kv_heads: 3, ..shape },
        Shape { value_dim: 11, ..shape },
        Shape { heads: 5, kv_heads: 1, head_dim: 72, value_dim: 64, has_sinks: true, ..shape },
    ] {
        let is_computed = check_shape(backend, shape, &plain);
        // Between them they have every kind of scales, and patches.
        for codes in codes(shape)[1..3].iter().filter(|_| is_computed && takes_codes) {
            assert!(
                check_shape(backend, shape, codes),
                "attend of {shape:?} over codes is refused"
            );
        }
    }
}

/// The numbers of `shape` as codes, in every way there is. Every vector of a block may have a patch.
fn codes(shape: Shape) -> [Storage; 4] {
    let channels = 0..shape.kv_heads * shape.head_dim;
    // The suite's numbers reach 2, so some are clipped.
    let scales = |part: u64| channels.clone().map(move |c| 0.01 + ((c + part) % 7) as f32 * 0.002);
    let parts: &[u64] = if shape.value_dim > 0 { &[0] } else { &[0, 3] };
    let scales = parts.iter().map(|part| scales(*part).collect());
    let scales = CodeScales::PerChannel(scales.collect());
    let patches = |error_min| Patches { per_block: 16 * shape.kv_heads as usize, error_min };
    [
        (CodeScales::PerVector, None),
        (scales.clone(), None),
        (CodeScales::PerVector, Some(patches(0.005))),
        (scales, Some(patches(0.02))),
    ]
    .map(|(scales, patches)| Storage::Affine(AffineStorage { scales, patches }))
}

fn compiles(backend: &dyn Backend, shape: Shape, storage: &Storage) -> bool {
    let (plan, layout) = (plan_of(shape), Layout { block_size: 16, is_backwards: false });
    Compiled::new(backend, &plan, &[], &limits(), Some(layout.state(storage))).is_ok()
}

/// Whether the backend computes it at all.
fn check_shape(backend: &dyn Backend, shape: Shape, storage: &Storage) -> bool {
    let plan = plan_of(shape);
    let together = |sizes: &[usize]| chunked(&[0, 1, 2], sizes);
    let reference = together(&[LENGTHS[0]]);
    let layout = Layout { block_size: 16, is_backwards: false };
    let found = match run(backend, &plan, shape, storage, layout, &reference) {
        Ok(found) => found,
        Err(error) => {
            let view = NodeView { plan: &plan, node: &plan.nodes[0] };
            let is_refused = matches!(backend.support(&view), Support::No(_));
            let is_plain = *storage == Storage::Plain(DType::F32) && !is_refused;
            assert!(matches!(error, Error::Unsupported { .. }) && !is_plain, "{shape:?}: {error}");
            return false;
        }
    };
    if super::skips(backend, &plan) {
        return true;
    }
    compare(shape, storage, &found, &interpreted(&plan, shape, storage, layout, &reference));
    let other = Layout { block_size: 5, is_backwards: true };
    for (name, layout, script) in [
        ("one sequence after the other", layout, alone()),
        ("in chunks of 7", layout, together(&[7])),
        ("in other blocks", other, together(&[LENGTHS[0]])),
        ("token by token after 250", other, together(&[250, 1])),
    ] {
        let again = run(backend, &plan, shape, storage, layout, &script);
        let again = again.unwrap_or_else(|e| panic!("{shape:?}, {name}: {e}"));
        for (at, row) in &found {
            let is_same = again[at].iter().zip(row).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(is_same, "{shape:?} {storage:?}: {name}, other bits for {at:?}");
        }
    }
    true
}

fn compare(shape: Shape, storage: &Storage, found: &Outputs, expected: &Outputs) {
    assert_eq!(found.len(), LENGTHS.iter().sum::<usize>(), "every token has an output");
    for (at, found) in found {
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let expected = wide(&expected[at]);
        let what = format!("attend of {shape:?} over {storage:?}, token {at:?}");
        of_op(ops::ATTEND).assert(&what, &wide(found), &expected, peak(&expected).max(0.1));
    }
}

pub(super) fn attend_plan() -> Plan {
    plan_of(Shape { heads: 2, kv_heads: 1, head_dim: 4, ..Shape::PLAIN })
}

fn plan_of(shape: Shape) -> Plan {
    let build = || -> crate::Result<Plan> {
        let mut b = PlanBuilder::new();
        let tensor = |heads: u64| Spec::f32([Dim::TOKENS, heads.into(), shape.head_dim.into()]);
        let q = b.input("q", tensor(shape.heads))?;
        let k = b.input("k", tensor(shape.kv_heads))?;
        let v = if shape.value_dim > 0 { k } else { b.input("v", tensor(shape.kv_heads))? };
        let dims = vec![shape.kv_heads as u32, shape.head_dim as u32];
        let parts = if shape.value_dim > 0 { &["key"][..] } else { &["key", "value"] };
        let part = |name: &&str| Part { name: (*name).to_owned(), dims: dims.clone() };
        let state = b.state(StateSpec {
            name: "kv".to_owned(),
            per: Per::Token { window: shape.window },
            parts: parts.iter().map(part).collect(),
        })?;
        let positions = b.input("positions", Spec::u32([Dim::TOKENS]))?;
        let sequence_index = b.input("sequence_index", Spec::u32([Dim::TOKENS]))?;
        let block_table = b.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS]))?;
        let mut attrs = Attrs::new()
            .float("scale", (shape.head_dim as f64).powf(-0.5))
            .float("softcap", shape.softcap);
        for (name, n) in [("chunk", shape.chunk), ("value_dim", shape.value_dim)] {
            attrs = if n > 0 { attrs.int(name, n) } else { attrs };
        }
        let mut inputs = vec![q, k, v, state, positions, sequence_index, block_table];
        if shape.has_sinks {
            inputs.push(b.input("sinks", Spec::f32([shape.heads.into()]))?);
        }
        let y = b.one(ops::ATTEND, &inputs, attrs)?;
        b.output("y", y)?;
        Ok(b.finish())
    };
    build().unwrap_or_else(|e| panic!("the suite's own plan: {e}"))
}

/// How sequences lie in blocks.
#[derive(Debug, Clone, Copy)]
struct Layout {
    block_size: usize,
    is_backwards: bool,
}

impl Layout {
    fn blocks(self) -> usize {
        LENGTHS[0].div_ceil(self.block_size)
    }

    fn state(self, storage: &Storage) -> StateSize {
        let num_blocks = SEQUENCES * self.blocks();
        StateSize { storage: storage.clone(), num_blocks, block_size: self.block_size }
    }

    /// `[SEQUENCES, blocks]`
    fn table(self) -> Vec<u32> {
        let all = 0..(SEQUENCES * self.blocks()) as u32;
        if self.is_backwards { all.rev().collect() } else { all.collect() }
    }
}

/// All sequences side by side, in chunks of these lengths, the last of them again and again.
fn chunked(sequences: &[usize], sizes: &[usize]) -> Script {
    let (mut script, mut done) = (Script::new(), [0; SEQUENCES]);
    loop {
        let size = sizes[script.len().min(sizes.len() - 1)];
        let mut step = Vec::new();
        for &sequence in sequences {
            let start = done[sequence];
            let len = size.min(LENGTHS[sequence] - start);
            if len > 0 {
                step.push(Chunk { sequence, start, len });
                done[sequence] += len;
            }
        }
        if step.is_empty() {
            return script;
        }
        script.push(step);
    }
}

fn alone() -> Script {
    (0..SEQUENCES).flat_map(|sequence| chunked(&[sequence], &[LENGTHS[0]])).collect()
}

fn feed_of(shape: Shape, layout: Layout, step: &[Chunk]) -> Feed {
    let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
    let (mut positions, mut sequence_index) = (Vec::new(), Vec::new());
    for chunk in step {
        for position in chunk.start..chunk.start + chunk.len {
            let mut random = Random::new((chunk.sequence * 1000 + position) as u64);
            let mut numbers = |heads: u64, out: &mut Vec<f32>| {
                out.extend((0..heads * shape.head_dim).map(|_| random.signed() * 2.0));
            };
            numbers(shape.heads, &mut q);
            numbers(shape.kv_heads, &mut k);
            numbers(shape.kv_heads, &mut v);
            positions.push(position as u32);
            sequence_index.push(chunk.sequence as u32);
        }
    }
    let sinks: Vec<f32> = (0..shape.heads).map(|head| head as f32 - 1.5).collect();
    let feed = Feed::new().reals("sinks", &sinks);
    feed.size(Dim::TOKENS, positions.len())
        .size(Dim::SEQS, SEQUENCES)
        .size(Dim::BLOCKS, layout.blocks())
        .reals("q", &q)
        .reals("k", &k)
        .reals("v", &v)
        .indices("positions", &positions)
        .indices("sequence_index", &sequence_index)
        .indices("block_table", &layout.table())
}

fn collect(step: &[Chunk], outputs: Vec<Numbers<f32>>, into: &mut Outputs) {
    let y = outputs.into_iter().next().map(Numbers::into_reals);
    let y = y.and_then(Result::ok).expect("one output of floats");
    let tokens: usize = step.iter().map(|chunk| chunk.len).sum();
    let mut rows = y.chunks_exact(y.len() / tokens.max(1));
    for chunk in step {
        for position in chunk.start..chunk.start + chunk.len {
            let row = rows.next().expect("a row for each token");
            into.insert((chunk.sequence, position), row.to_vec());
        }
    }
}

fn limits() -> crate::kinds::backend::Bucket {
    bucket(&[
        (symbol(Dim::TOKENS), LENGTHS.iter().sum()),
        (symbol(Dim::SEQS), SEQUENCES),
        (symbol(Dim::BLOCKS), LENGTHS[0]),
    ])
}

fn run(
    backend: &dyn Backend,
    plan: &Plan,
    shape: Shape,
    storage: &Storage,
    layout: Layout,
    script: &Script,
) -> crate::Result<Outputs> {
    let compiled = Compiled::new(backend, plan, &[], &limits(), Some(layout.state(storage)))?;
    let mut state: Aligned = compiled.state();
    let mut outputs = Outputs::new();
    for step in script {
        let feed = feed_of(shape, layout, step);
        collect(step, compiled.run_with(&feed, &mut state)?, &mut outputs);
    }
    Ok(outputs)
}

fn interpreted(
    plan: &Plan,
    shape: Shape,
    storage: &Storage,
    layout: Layout,
    script: &Script,
) -> Outputs {
    let size = layout.state(storage);
    let mut arena = OwnedArena::stored(plan, size.num_blocks, size.block_size, storage);
    let mut outputs = Outputs::new();
    for step in script {
        let feed = feed_of(shape, layout, step);
        let results = feed.run_with::<f64>(plan, FusedAs::Expansion, &mut arena);
        let results = results.unwrap_or_else(|e| panic!("interpreted: {e}"));
        let narrow = |numbers: Numbers<f64>| match numbers {
            Numbers::Reals(x) => Numbers::Reals(x.into_iter().map(|x| x as f32).collect()),
            Numbers::Indices(x) => Numbers::Indices(x),
        };
        collect(step, results.into_iter().map(narrow).collect(), &mut outputs);
    }
    outputs
}
