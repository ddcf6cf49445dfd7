//! What the contract suite does not ask: doubles, expansions, kept weights, NaN, real sizes.

use std::sync::Arc;

use plugin_api::kinds::backend::{
    Backend, Bindings, Bucket, Buf, DomainId, Memory, MemoryMap, StreamId, WeightDesc, WeightPlace,
};
use plugin_api::plan::PlanBuilder;
use plugin_api::prelude::*;
use plugin_api::testing::interpreter::{Feed, FusedAs, Numbers, OwnedArena};
use plugin_api::testing::random::Random;
use plugin_api::testing::tolerance::{of_op, peak};
use plugin_api::{TensorMut, TensorRef};

use super::Candle;

const CANDLE: Candle = Candle { has_independent_rows: true };

#[test]
fn passes_the_contract_suite() {
    plugin_api::testing::backend::suite(&CANDLE);
}

#[test]
fn rows_of_real_sizes_do_not_depend_on_others() {
    for (n, k) in [(1536, 576), (576, 1536), (33, 65)] {
        let (plan, x) = product(n, k);
        let whole = run(CANDLE, &plan, &feed(&x, k));
        for rows in [0..1, 7..8, 16..17, 3..20, 0..17] {
            let part = run(CANDLE, &plan, &feed(&x[rows.start * k..rows.end * k], k));
            assert!(part == whole[rows.start * n..rows.end * n], "{n} by {k}, rows {rows:?}");
        }
    }
}

#[test]
fn a_matmul_at_once_gives_the_same_numbers() {
    let candle = Candle { has_independent_rows: false };
    let (plan, x) = product(70, 300);
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let expected = wide(&run(CANDLE, &plan, &feed(&x, 300)));
    let found = wide(&run(candle, &plan, &feed(&x, 300)));
    of_op(ops::MATMUL).assert("at once", &found, &expected, peak(&expected));
}

#[test]
fn computes_doubles_in_doubles() {
    let mut b = PlanBuilder::new();
    let x = b.input("x", Spec::new(DType::F64, [Dim::TOKENS])).unwrap();
    let y = b.offset(x, 1e-12).unwrap();
    b.output("y", y).unwrap();
    let plan = b.finish();
    let mut y = [0.0_f64; 2];
    let exe = CANDLE.compile(&plan, &bucket(), &MemoryMap::default()).unwrap();
    let bind = &mut Bindings {
        sizes: &[2],
        inputs: &[TensorRef::F64(&[1.0, 2.0])],
        weights: &[],
        state: &mut [],
        scratch: &mut [],
        outputs: &mut [TensorMut::F64(&mut y)],
    };
    let _ = CANDLE.run(&exe, StreamId(0), bind).unwrap();
    assert_eq!(y, [1.0 + 1e-12, 2.0 + 1e-12]);
}

#[test]
fn writes_out_expansions_that_it_does_not_know() {
    let mut inner = PlanBuilder::new();
    let x = inner.input("0", Spec::f32([Dim::TOKENS, 2.into()])).unwrap();
    let doubled = inner.add(x, x).unwrap();
    let turned = inner.unary(ops::NEG, doubled).unwrap();
    inner.output("0", turned).unwrap();
    inner.output("1", x).unwrap();
    let mut b = PlanBuilder::new();
    let x = b.input("x", Spec::f32([Dim::TOKENS, 2.into()])).unwrap();
    let op = ops::OpId::new("minus_twice").unwrap();
    let [y, same] = b.fused(op, &[x], Attrs::new(), inner.finish()).unwrap()[..] else {
        panic!("two results");
    };
    let sum = b.add(y, same).unwrap();
    b.output("y", sum).unwrap();
    let found = run(CANDLE, &b.finish(), &feed(&[1.0, -2.0, 0.5, 4.0], 2));
    assert_eq!(found, [-1.0, 2.0, -0.5, -4.0]);
}

#[test]
fn other_weight_buffers_are_other_weights() {
    let mut b = PlanBuilder::new();
    let x = b.input("x", Spec::f32([Dim::TOKENS, 2.into()])).unwrap();
    let w = b.declare_weight("w", Spec::f32([Dim::Fixed(2)])).unwrap();
    let y = b.mul(x, w).unwrap();
    b.output("y", y).unwrap();
    let (plan, lowering) = (b.finish(), Lowering::Opaque);
    let desc = WeightDesc { name: "w".to_owned(), format: "F32".to_owned(), rows: 1, cols: 2 };
    let layout = CANDLE.layout(&desc, &lowering).unwrap();
    let weights = vec![WeightPlace { desc, lowering, layout }];
    let memory = MemoryMap { weights, ..MemoryMap::default() };
    let exe = CANDLE.compile(&plan, &bucket(), &memory).unwrap();
    let bufs: [Buf; 2] = [Floats::buf(&[2.0, 3.0]), Floats::buf(&[10.0, 20.0])];
    for (buf, expected) in [(0, [2.0, 3.0]), (1, [10.0, 20.0]), (0, [2.0, 3.0])] {
        let mut y = [0.0; 2];
        let bind = &mut Bindings {
            sizes: &[1],
            inputs: &[TensorRef::F32(&[1.0, 1.0])],
            weights: &bufs[buf..=buf],
            state: &mut [],
            scratch: &mut [],
            outputs: &mut [TensorMut::F32(&mut y)],
        };
        let _ = CANDLE.run(&exe, StreamId(0), bind).unwrap();
        assert_eq!(y, expected, "buffer {buf}");
    }
}

#[test]
fn ranks_what_is_no_number_last() {
    let mut b = PlanBuilder::new();
    let x = b.input("x", Spec::f32([Dim::TOKENS, 64.into()])).unwrap();
    let results = b.op(ops::TOP_K, &[x], Attrs::new().int("k", 3)).unwrap();
    b.output("y", results[0]).unwrap();
    let numbers = (0..64).map(|i| if i % 2 == 0 { f32::NAN } else { ((i * 37) % 64) as f32 });
    let numbers: Vec<f32> = numbers.collect();
    assert_eq!(run(CANDLE, &b.finish(), &feed(&numbers, 64)), [63.0, 61.0, 59.0]);
}

#[test]
fn reads_no_block_that_nobody_sees() {
    let plan = windowed();
    let q: Vec<f32> = (0..12).map(|i| i as f32 * 0.25 - 1.0).collect();
    let feed = Feed::new()
        .size(Dim::TOKENS, 3)
        .size(Dim::SEQS, 1)
        .size(Dim::BLOCKS, 4)
        .reals("q", &q)
        .reals("k", &q)
        .reals("v", &q)
        .indices("positions", &[13, 14, 1])
        .indices("sequence_index", &[0, 0, 0])
        .indices("block_table", &[1, u32::MAX, 7, 0]);
    let arena = || OwnedArena::new(&plan, 2, 4, DType::F32);
    let expected = feed.run_with::<f32>(&plan, FusedAs::Expansion, &mut arena()).unwrap();
    let Some(Numbers::Reals(expected)) = expected.into_iter().next() else { panic!("floats") };
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let found = run_over(CANDLE, &plan, &feed, &mut arena());
    of_op(ops::ATTEND).assert("attend", &wide(&found), &wide(&expected), 2.0);
}

/// One head of 4 channels that sees two positions.
fn windowed() -> Plan {
    let mut b = PlanBuilder::new();
    let heads = || Spec::f32([Dim::TOKENS, 1.into(), 4.into()]);
    let tensors = ["q", "k", "v"].map(|name| b.input(name, heads()).unwrap());
    let part = |name: &str| Part { name: name.to_owned(), dims: vec![1, 4] };
    let parts = vec![part("key"), part("value")];
    let per = Per::Token { window: 2 };
    let state = b.state(StateSpec { name: "kv".to_owned(), per, parts }).unwrap();
    let of_token = ["positions", "sequence_index"];
    let of_token = of_token.map(|name| b.input(name, Spec::u32([Dim::TOKENS])).unwrap());
    let table = b.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS])).unwrap();
    let [q, k, v] = tensors;
    let inputs = [q, k, v, state, of_token[0], of_token[1], table];
    let attrs = Attrs::new().float("scale", 0.5).float("softcap", 0.0);
    let y = b.one(ops::ATTEND, &inputs, attrs).unwrap();
    b.output("y", y).unwrap();
    b.finish()
}

/// `x [tokens, k]` times `w [n, k]`, and 40 rows of `x`.
fn product(n: usize, k: usize) -> (Plan, Vec<f32>) {
    let mut random = Random::new(7);
    let mut b = PlanBuilder::new();
    let x = b.input("x", Spec::f32([Dim::TOKENS, (k as u64).into()])).unwrap();
    let w: Vec<f32> = (0..n * k).map(|_| random.signed()).collect();
    let w = b.constant(&w).unwrap();
    let w = b.reshape(w, &[n as i64, k as i64]).unwrap();
    let y = b.matmul(x, w).unwrap();
    b.output("y", y).unwrap();
    (b.finish(), (0..40 * k).map(|_| random.signed()).collect())
}

fn feed(x: &[f32], width: usize) -> Feed {
    Feed::new().size(Dim::TOKENS, x.len() / width).reals("x", x)
}

fn bucket() -> Bucket {
    let sizes = [Dim::TOKENS, Dim::SEQS, Dim::BLOCKS].map(|dim| match dim {
        Dim::Symbol(symbol) => (symbol, 64),
        Dim::Fixed(n) => panic!("{n} is no symbol"),
    });
    Bucket { sizes: sizes.to_vec() }
}

/// The first output of a plan without weights.
fn run(candle: Candle, plan: &Plan, feed: &Feed) -> Vec<f32> {
    run_over(candle, plan, feed, &mut OwnedArena::new(plan, 0, 1, DType::F32))
}

fn run_over(candle: Candle, plan: &Plan, feed: &Feed, arena: &mut OwnedArena) -> Vec<f32> {
    let (states, block_size) = (arena.places.clone(), arena.block_size);
    let memory = MemoryMap { weights: Vec::new(), states, block_size };
    let exe = candle.compile(plan, &bucket(), &memory).unwrap();
    let sizes = feed.sizes_of(plan);
    let extents = plan.spec(plan.outputs[0].val).dims.iter().map(|dim| match dim {
        Dim::Fixed(n) => *n as usize,
        Dim::Symbol(symbol) => feed.size_of(*symbol),
    });
    let mut y = vec![0.0; extents.product()];
    let bind = &mut Bindings {
        sizes: &sizes,
        inputs: &feed.inputs_of(plan).unwrap(),
        weights: &[],
        state: &mut arena.bytes,
        scratch: &mut [],
        outputs: &mut [TensorMut::F32(&mut y)],
    };
    let _ = candle.run(&exe, StreamId(0), bind).unwrap();
    y
}

struct Floats(Vec<u8>);

impl Floats {
    fn buf(x: &[f32]) -> Buf {
        Arc::new(Self(x.iter().flat_map(|x| x.to_ne_bytes()).collect()))
    }
}

impl Memory for Floats {
    fn domain(&self) -> DomainId {
        DomainId::HOST
    }

    fn host_bytes(&self) -> Option<&[u8]> {
        Some(&self.0)
    }
}
