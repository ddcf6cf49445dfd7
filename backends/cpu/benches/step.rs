//! One step of a decoder of the shape of SmolLM2-135M with random 4-bit weights, in tokens per
//! second (`items`): one new token after some context, and 64 tokens of a prompt.
//!
//! Compare within one run only: machines differ, ratios travel.

#![allow(clippy::unwrap_used, reason = "a bench")]

#[path = "../tests/rig/mod.rs"]
mod rig;

use backend_cpu::Cpu;
use divan::Bencher;
use divan::counter::ItemsCount;
use plugin_api::prelude::*;

use self::rig::{Cache, Decoder, Format, Rig, Step};

fn main() {
    divan::main();
}

const BLOCK_SIZE: usize = 16;
const NUM_BLOCKS: usize = 256;
const MAXIMA: [(Dim, usize); 4] =
    [(Dim::TOKENS, 512), (Dim::SEQS, 1), (Dim::BLOCKS, NUM_BLOCKS), (Dim::LOGIT_ROWS, 1)];

fn bench(bencher: Bencher<'_, '_>, threads: usize, tokens: usize, position: usize) {
    let backend = Cpu::from_config(&Config::new().with("threads", threads as i64)).unwrap();
    let cache = Cache { num_blocks: NUM_BLOCKS, block_size: BLOCK_SIZE, dtype: DType::F16 };
    let format = Format::Affine(4, 32, true, false);
    let plan = Decoder::SMOL.plan().unwrap();
    let mut rig = Rig::new(&backend, plan, format, cache, &MAXIMA).unwrap();
    let blocks: Vec<u32> = (0..NUM_BLOCKS as u32).rev().collect();
    let mut step = Step::default();
    let ids: Vec<u32> = (0..tokens as u32).map(|i| i * 77).collect();
    step.push(&ids, position, &blocks);
    step.logit_rows = vec![tokens as u32 - 1];
    let inputs = step.inputs(&rig.plan);
    let sizes = rig.sizes(&step.sizes());
    let mut out = vec![0.0; Decoder::SMOL.vocab as usize];
    bencher
        .counter(ItemsCount::new(tokens))
        .bench_local(|| rig.run_into(&backend, &sizes, &inputs, &mut out).unwrap());
}

#[divan::bench(args = [1, 2], sample_count = 30)]
fn decode_after_100(bencher: Bencher<'_, '_>, threads: usize) {
    bench(bencher, threads, 1, 100);
}

#[divan::bench(args = [1, 2], sample_count = 20)]
fn decode_after_2000(bencher: Bencher<'_, '_>, threads: usize) {
    bench(bencher, threads, 1, 2000);
}

#[divan::bench(args = [1, 2], sample_count = 10)]
fn prefill_64(bencher: Bencher<'_, '_>, threads: usize) {
    bench(bencher, threads, 64, 0);
}

#[divan::bench(args = [1, 2], sample_count = 5)]
fn prefill_512(bencher: Bencher<'_, '_>, threads: usize) {
    bench(bencher, threads, 512, 0);
}
