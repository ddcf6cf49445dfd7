//! A mixture of eight gated experts over 32 tokens, two for each: choices sorted by expert, and every
//! expert over every token with a mask.
//!
//! Compare within one run only: machines differ, ratios travel.

#![allow(clippy::unwrap_used, reason = "a bench")]

#[path = "../tests/rig/mod.rs"]
mod rig;

use backend_cpu::Cpu;
use divan::Bencher;
use divan::counter::ItemsCount;
use plugin_api::TensorRef;
use plugin_api::prelude::*;

use self::rig::experts::Mixture;
use self::rig::{Cache, Format, Rig};

fn main() {
    divan::main();
}

const MIXTURE: Mixture = Mixture { hidden: 512, inner: 1024, experts: 8 };
const TOKENS: usize = 32;
const CHOICES: usize = 2;

fn bench(bencher: Bencher<'_, '_>, threads: usize, plan: Plan, inputs: &[TensorRef<'_>]) {
    let backend = Cpu::from_config(&Config::new().with("threads", threads as i64)).unwrap();
    let format = Format::Affine(4, 32, true, false);
    let mut rig = Rig::new(&backend, plan, format, Cache::NONE, &[(Dim::TOKENS, TOKENS)]).unwrap();
    let sizes = rig.sizes(&[(Dim::TOKENS, TOKENS)]);
    let mut out = vec![0.0; TOKENS * MIXTURE.hidden as usize];
    bencher
        .counter(ItemsCount::new(TOKENS))
        .bench_local(|| rig.run_into(&backend, &sizes, inputs, &mut out).unwrap());
}

#[divan::bench(args = [1, 2], sample_count = 50)]
fn dispatch(bencher: Bencher<'_, '_>, threads: usize) {
    let x = vec![0.5; TOKENS * MIXTURE.hidden as usize];
    let (chosen, counts) = MIXTURE.choices(TOKENS, CHOICES);
    let inputs = [TensorRef::F32(&x), TensorRef::F32(&counts), TensorRef::U32(&chosen)];
    bench(bencher, threads, MIXTURE.dispatched(CHOICES as u64).unwrap(), &inputs);
}

#[divan::bench(args = [1, 2], sample_count = 50)]
fn mask_mix(bencher: Bencher<'_, '_>, threads: usize) {
    let x = vec![0.5; TOKENS * MIXTURE.hidden as usize];
    let counts = vec![0.5; TOKENS * MIXTURE.experts as usize];
    let inputs = [TensorRef::F32(&x), TensorRef::F32(&counts)];
    bench(bencher, threads, MIXTURE.masked().unwrap(), &inputs);
}
