//! Ops whose state is kept per sequence, over several steps: scripts of who computes what when, that must
//! not matter.

use std::collections::BTreeMap;

use super::super::interpreter::{Feed, FusedAs, Numbers, OwnedArena};
use super::super::random::Random;
use super::super::tolerance::{TRACED, peak};
use super::rig::{Compiled, StateSize, bucket};
use super::symbol;
use crate::kinds::backend::{Backend, NodeView, Support};
use crate::plan::{
    Attrs, Dim, OpSink, OpSinkExt, Part, Per, Plan, PlanBuilder, Spec, StateSpec, ops,
};
use crate::tensor::DType;

const WIDTH: usize = 5;
const KERNEL: usize = 4;
/// Numbers of a channel's state.
const N: usize = 18;
/// Tokens of each sequence.
const LENGTHS: [usize; 2] = [23, 9];

/// The tokens `start..start + len` of a sequence, in one step with others.
type Script = Vec<Vec<(usize, usize, usize)>>;
/// The outputs of each token, by sequence and position.
type Outputs = BTreeMap<(usize, usize), Vec<f32>>;

pub(super) fn check(backend: &dyn Backend) {
    let plan = plan().unwrap_or_else(|e| panic!("the suite's own plan: {e}"));
    let view = |node| NodeView { plan: &plan, node };
    if plan.nodes.iter().any(|node| matches!(backend.support(&view(node)), Support::No(_)))
        || super::skips(backend, &plan)
    {
        return;
    }
    let all = |sequence: usize| (sequence, 0, LENGTHS[sequence]);
    let whole = run(backend, &plan, &vec![vec![all(0), all(1)]], 4);
    let exact = interpreted(&plan, &vec![vec![all(0), all(1)]], 4);
    for (at, row) in &whole {
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let expected = wide(&exact[at]);
        TRACED.assert(&format!("token {at:?}"), &wide(row), &expected, peak(&expected).max(0.1));
    }
    let alone: Script = vec![vec![all(1)], vec![all(0)]];
    let one_by_one = (0..LENGTHS[0]).map(|t| vec![(0, t, 1)]).chain([vec![all(1)]]).collect();
    let pieces = vec![vec![(1, 0, 3), (0, 0, 7)], vec![(0, 7, 1), (1, 3, 6)], vec![(0, 8, 15)]];
    for (name, script, block_size) in [
        ("one after the other", &alone, 4),
        ("token by token", &one_by_one, 4),
        ("in pieces", &pieces, 4),
        ("in pieces, other blocks", &pieces, 7),
        ("in one block", &pieces, 32),
    ] {
        let again = run(backend, &plan, script, block_size);
        for (at, row) in &whole {
            let is_same = again[at].iter().zip(row).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(is_same, "{name}: other bits for {at:?}");
        }
    }
}

fn plan() -> crate::Result<Plan> {
    let mut b = PlanBuilder::new();
    let rows = |width: usize| Spec::f32([Dim::TOKENS, (width as u64).into()]);
    let fixed =
        |rows: usize, width: usize| Spec::f32([(rows as u64).into(), Dim::Fixed(width as u64)]);
    let (x, dt) = (b.input("x", rows(WIDTH))?, b.input("dt", rows(WIDTH))?);
    let (w, a) = (b.input("w", fixed(WIDTH, KERNEL))?, b.input("a", fixed(WIDTH, N))?);
    let (into, out) = (b.input("b", rows(N))?, b.input("c", rows(N))?);
    let part = |name: &str, rows: usize, width: usize| Part {
        name: name.to_owned(),
        dims: vec![rows as u32, width as u32],
    };
    let parts = vec![part("conv", KERNEL - 1, WIDTH), part("ssm", WIDTH, N)];
    let state = b.state(StateSpec { name: "mixer".to_owned(), per: Per::Sequence, parts })?;
    let positions = b.input("positions", Spec::u32([Dim::TOKENS]))?;
    let sequence_index = b.input("sequence_index", Spec::u32([Dim::TOKENS]))?;
    let block_table = b.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS]))?;
    let places = [state, positions, sequence_index, block_table];
    let attrs = |part| Attrs::new().int("part", part);
    let mixed = b.one(ops::CAUSAL_CONV, &[&[x, w], &places[..]].concat(), attrs(0))?;
    let inputs = [&[mixed, dt, a, into, out], &places[..]].concat();
    let y = b.one(ops::SELECTIVE_SCAN, &inputs, attrs(1))?;
    let both = b.concat(&[mixed, y], 1)?;
    b.output("y", both)?;
    Ok(b.finish())
}

fn feed_of(step: &[(usize, usize, usize)], block_size: usize) -> Feed {
    let blocks = LENGTHS[0].div_ceil(block_size);
    let mut of_token: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
    let (mut positions, mut sequence_index) = (Vec::new(), Vec::new());
    for &(sequence, start, len) in step {
        for position in start..start + len {
            let mut random = Random::new((sequence * 1000 + position) as u64);
            for (name, width) in [("x", WIDTH), ("dt", WIDTH), ("b", N), ("c", N)] {
                of_token.entry(name).or_default().extend((0..width).map(|_| random.signed()));
            }
            positions.push(position as u32);
            sequence_index.push(sequence as u32);
        }
    }
    let mut random = Random::new(7);
    let w: Vec<f32> = (0..WIDTH * KERNEL).map(|_| random.signed()).collect();
    let a: Vec<f32> = (0..WIDTH * N).map(|_| -3.0 * random.signed().abs()).collect();
    // Blocks of the sequences take turns, backwards.
    let own = |sequence: u32| (0..blocks as u32).rev().map(move |i| 2 * i + sequence);
    let table: Vec<u32> = own(0).chain(own(1)).collect();
    let feed = Feed::new()
        .size(Dim::TOKENS, positions.len())
        .size(Dim::SEQS, LENGTHS.len())
        .size(Dim::BLOCKS, blocks)
        .reals("w", &w)
        .reals("a", &a)
        .indices("positions", &positions)
        .indices("sequence_index", &sequence_index)
        .indices("block_table", &table);
    of_token.iter().fold(feed, |feed, (name, values)| feed.reals(name, values))
}

fn collect(step: &[(usize, usize, usize)], y: &[f32], into: &mut Outputs) {
    let mut rows = y.chunks_exact(2 * WIDTH);
    for &(sequence, start, len) in step {
        for position in start..start + len {
            let row = rows.next().expect("a row for each token");
            into.insert((sequence, position), row.to_vec());
        }
    }
}

fn num_blocks(block_size: usize) -> usize {
    LENGTHS.len() * LENGTHS[0].div_ceil(block_size)
}

fn run(backend: &dyn Backend, plan: &Plan, script: &Script, block_size: usize) -> Outputs {
    let limits = bucket(&[
        (symbol(Dim::TOKENS), LENGTHS.iter().sum()),
        (symbol(Dim::SEQS), LENGTHS.len()),
        (symbol(Dim::BLOCKS), LENGTHS[0]),
    ]);
    let size = StateSize::plain(DType::F32, num_blocks(block_size), block_size);
    let compiled = Compiled::new(backend, plan, &[], &limits, Some(size));
    let compiled = compiled.unwrap_or_else(|e| panic!("a plan of ops that are supported: {e}"));
    let mut state = compiled.state();
    // What was there before is of no meaning.
    state.bytes_mut().fill(0x3F);
    let mut outputs = Outputs::new();
    for step in script {
        let found = compiled.run_with(&feed_of(step, block_size), &mut state);
        let found = found.unwrap_or_else(|e| panic!("a fair step: {e}")).into_iter().next();
        let y = found.map(Numbers::into_reals).and_then(Result::ok);
        collect(step, &y.expect("one output of floats"), &mut outputs);
    }
    outputs
}

fn interpreted(plan: &Plan, script: &Script, block_size: usize) -> Outputs {
    let mut arena = OwnedArena::new(plan, num_blocks(block_size), block_size, DType::F32);
    let mut outputs = Outputs::new();
    for step in script {
        let feed = feed_of(step, block_size);
        let results = feed.run_with::<f64>(plan, FusedAs::Expansion, &mut arena);
        let results = results.unwrap_or_else(|e| panic!("interpreted: {e}")).into_iter().next();
        let y = results.map(Numbers::into_reals).and_then(Result::ok);
        let y = y.expect("one output of floats");
        collect(step, &y.iter().map(|&x| x as f32).collect::<Vec<_>>(), &mut outputs);
    }
    outputs
}
