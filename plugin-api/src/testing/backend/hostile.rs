//! Bindings that are not those of the plan: typed errors, and nothing written.

use std::sync::Arc;

use super::super::interpreter::{Feed, Numbers};
use super::attention::attend_plan;
use super::rig::{Aligned, Compiled, Parts, StateSize, UNTOUCHED, UNTOUCHED_INDEX, Weight, bucket};
use super::{rig, symbol};
use crate::error::Error;
use crate::kinds::backend::{Backend, Bucket, Exe, LayoutId, WeightDesc};
use crate::kinds::quantizer::Lowering;
use crate::plan::{Dim, OpSink, OpSinkExt, Plan, PlanBuilder, Spec};
use crate::tensor::DType;

const TOKENS: usize = 3;
const WIDTH: usize = 4;
const ROWS: usize = 5;

/// Embeds, adds and multiplies: `ids [tokens]`, `x [tokens, WIDTH]` to `y [tokens, ROWS]`.
fn plan() -> Plan {
    let build = || -> crate::Result<Plan> {
        let mut b = PlanBuilder::new();
        let ids = b.input("ids", Spec::u32([Dim::TOKENS]))?;
        let x = b.input("x", Spec::f32([Dim::TOKENS, (WIDTH as u64).into()]))?;
        let shape = [Dim::Fixed(ROWS as u64), Dim::Fixed(WIDTH as u64)];
        let w = b.declare_weight("w", Spec::f32(shape))?;
        let embedded = b.embed(w, ids)?;
        let sum = b.add(embedded, x)?;
        let y = b.matmul(sum, w)?;
        b.output("y", y)?;
        Ok(b.finish())
    };
    build().unwrap_or_else(|e| panic!("the suite's own plan: {e}"))
}

fn weights() -> [Weight; 1] {
    [Weight {
        name: "w".to_owned(),
        rows: ROWS,
        cols: WIDTH,
        lowering: Lowering::MiniFloat { exponent: 8, mantissa: 23 },
        values: vec![0.5; ROWS * WIDTH],
        codes: Vec::new(),
        scales: Vec::new(),
        mins: Vec::new(),
    }]
}

fn limits() -> Bucket {
    bucket(&[(symbol(Dim::TOKENS), TOKENS)])
}

fn feed(ids: &[u32]) -> Feed {
    let x = vec![1.0; ids.len() * WIDTH];
    Feed::new().size(Dim::TOKENS, ids.len()).indices("ids", ids).reals("x", &x)
}

/// A mistake of the host.
type Spoil = fn(&mut Parts);

#[rustfmt::skip]
const MISTAKES: &[(&str, Spoil)] = &[
    ("no sizes",          |p| p.sizes.clear()),
    ("too many sizes",    |p| p.sizes.push(1)),
    ("a size too small",  |p| p.sizes[0] -= 1),
    ("a size too large",  |p| p.sizes[0] += 1),
    ("a huge size",       |p| p.sizes[0] = usize::MAX),
    ("no inputs",         |p| p.inputs.clear()),
    ("an input too many", |p| p.inputs.push(Numbers::Reals(vec![0.0; TOKENS]))),
    ("an input short",    |p| p.inputs[1] = Numbers::Reals(vec![0.0; TOKENS * WIDTH - 1])),
    ("an input long",     |p| p.inputs[0] = Numbers::Indices(vec![0; TOKENS + 1])),
    ("an empty input",    |p| p.inputs[0] = Numbers::Indices(Vec::new())),
    ("inputs swapped",    |p| p.inputs.swap(0, 1)),
    ("floats as indices", |p| p.inputs[0] = Numbers::Reals(vec![0.0; TOKENS])),
    ("indices as floats", |p| p.inputs[1] = Numbers::Indices(vec![0; TOKENS * WIDTH])),
    ("no weights",        |p| p.weights.clear()),
    ("a weight short",    |p| p.weights[0] = Arc::new(Aligned::new(3))),
    ("an output short",   |p| p.outputs[0] = Numbers::Reals(vec![UNTOUCHED; TOKENS * ROWS - 1])),
    ("an output long",    |p| p.outputs[0] = Numbers::Reals(vec![UNTOUCHED; TOKENS * ROWS + 1])),
    ("an output of u32",  |p| p.outputs[0] = Numbers::Indices(vec![UNTOUCHED_INDEX; TOKENS * ROWS])),
    ("an output twice",   |p| p.outputs.push(Numbers::Reals(vec![UNTOUCHED; TOKENS * ROWS]))),
    ("no outputs",        |p| p.outputs.clear()),
];

pub(super) fn check_bindings(backend: &dyn Backend) {
    let (plan, weights) = (plan(), weights());
    let compiled = Compiled::new(backend, &plan, &weights, &limits(), None);
    let compiled = compiled.unwrap_or_else(|e| panic!("embed, add and matmul: {e}"));
    for tokens in [0, 1, TOKENS] {
        let run = compiled.run(&feed(&vec![1; tokens]));
        assert!(run.is_ok(), "{tokens} of {TOKENS} tokens: {run:?}");
    }
    let good = feed(&[0, 1, 4]);
    for (name, spoil) in MISTAKES {
        // A weight of null may be as short as it likes.
        let needs = compiled.parts(&good).weights[0].host_bytes().map_or(0, <[u8]>::len);
        if *name != "a weight short" || needs > 3 {
            expect_refusal(&compiled, &good, name, *spoil);
        }
    }
    if compiled.exe.scratch_bytes > 0 {
        expect_refusal(&compiled, &good, "scratch short", |parts| parts.scratch.shorten(1));
    }
    let many = feed(&[0; TOKENS + 1]);
    expect_refusal(&compiled, &many, "more tokens than the bucket", |_| ());
    check_foreign_exe(&compiled, &good);
    check_state(backend);
}

/// Rows of no columns: what has no bytes cannot be packed block by block.
pub(super) fn check_empty_rows(backend: &dyn Backend) {
    let [Weight { name, rows, lowering, .. }] = weights();
    let desc = WeightDesc { name, format: "f32".to_owned(), rows, cols: 0 };
    let block_bytes = backend.layout(&desc, &lowering).map(|layout| layout.block_bytes);
    assert!(block_bytes != Ok(0), "a layout of rows without columns has blocks of 0 bytes");
}

/// Runs with spoilt bindings and expects a typed error with every output untouched.
fn expect_refusal(compiled: &Compiled<'_>, feed: &Feed, name: &str, spoil: Spoil) {
    let mut parts = compiled.parts(feed);
    spoil(&mut parts);
    let found = compiled.call(&compiled.exe, &mut parts);
    assert!(matches!(found, Err(Error::ShapeMismatch { .. })), "{name}: {found:?}");
    let is_untouched = parts.outputs.iter().all(|numbers| match numbers {
        Numbers::Reals(x) => x.iter().all(|&x| x == UNTOUCHED),
        Numbers::Indices(x) => x.iter().all(|&x| x == UNTOUCHED_INDEX),
    });
    assert!(is_untouched, "{name}: wrote before it refused");
}

fn check_foreign_exe(compiled: &Compiled<'_>, feed: &Feed) {
    struct Foreign;
    let found = compiled.call(&Exe::new(0, Foreign), &mut compiled.parts(feed));
    assert!(matches!(found, Err(Error::Malformed { .. })), "a foreign executable: {found:?}");
}

/// A state arena that is too short, where the backend takes attention.
fn check_state(backend: &dyn Backend) {
    let plan = attend_plan();
    let Some(compiled) = attending(backend, &plan) else { return };
    let feed = attend_feed(&[0, 1], &[0, 0], &[1]);
    expect_refusal(&compiled, &feed, "state short", |parts| {
        parts.state.shorten(parts.state.len() / 2);
    });
}

fn attending<'a>(backend: &'a dyn Backend, plan: &'a Plan) -> Option<Compiled<'a>> {
    let limits =
        bucket(&[(symbol(Dim::TOKENS), 2), (symbol(Dim::SEQS), 1), (symbol(Dim::BLOCKS), 1)]);
    let state = StateSize::plain(DType::F32, 2, 4);
    Compiled::new(backend, plan, &[], &limits, Some(state)).ok()
}

fn attend_feed(positions: &[u32], sequence_index: &[u32], block_table: &[u32]) -> Feed {
    Feed::new()
        .size(Dim::TOKENS, 2)
        .size(Dim::SEQS, 1)
        .size(Dim::BLOCKS, 1)
        .reals("q", &[1.0; 16])
        .reals("k", &[1.0; 8])
        .reals("v", &[1.0; 8])
        .indices("positions", positions)
        .indices("sequence_index", sequence_index)
        .indices("block_table", block_table)
}

/// Indices beyond what they index.
pub(super) fn check_indices(backend: &dyn Backend) {
    let (embedding, weights) = (plan(), weights());
    if super::skips(backend, &embedding) {
        return; // it reads no indices
    }
    let compiled = Compiled::new(backend, &embedding, &weights, &limits(), None);
    let compiled = compiled.unwrap_or_else(|e| panic!("embed, add and matmul: {e}"));
    for ids in [[0, ROWS as u32, 0], [0, 0, u32::MAX]] {
        expect_refusal(&compiled, &feed(&ids), "a token id too high", |_| ());
    }
    let plan = attend_plan();
    let Some(compiled) = attending(backend, &plan) else { return };
    let good = compiled.run(&attend_feed(&[2, 3], &[0, 0], &[1]));
    assert!(good.is_ok(), "the last positions of the last block: {good:?}");
    #[rustfmt::skip]
    let cases = [
        ("a position outside of the table", [0, 4],        [0, 0],        [1]),
        ("a position far outside",          [0, u32::MAX], [0, 0],        [1]),
        ("a sequence outside of the table", [0, 1],        [0, 1],        [1]),
        ("a sequence far outside",          [0, 1],        [u32::MAX, 0], [1]),
        ("a block outside of the pool",     [0, 1],        [0, 0],        [2]),
        ("a block far outside",             [0, 1],        [0, 0],        [u32::MAX]),
    ];
    for (name, positions, sequence_index, table) in cases {
        let feed = attend_feed(&positions, &sequence_index, &table);
        expect_refusal(&compiled, &feed, name, |_| ());
    }
}

/// Memory maps that are not those of the plan.
pub(super) fn check_compiling(backend: &dyn Backend) {
    let (plan, weights) = (plan(), weights());
    let (good, _) = rig::memory_of(backend, &plan, &weights, None)
        .unwrap_or_else(|e| panic!("the layout of a small weight: {e}"));
    assert!(backend.compile(&plan, &limits(), &good).is_ok(), "the memory map of the plan");
    let mut none = good.clone();
    none.weights.clear();
    let mut other_rows = good.clone();
    other_rows.weights[0].desc.rows += 1;
    let mut other_layout = good;
    other_layout.weights[0].layout.id = LayoutId("of nobody".to_owned());
    for (name, memory) in
        [("no weights", none), ("other rows", other_rows), ("a foreign layout", other_layout)]
    {
        let found = backend.compile(&plan, &limits(), &memory);
        assert!(found.is_err(), "compiles with {name} in the memory map");
    }
}
