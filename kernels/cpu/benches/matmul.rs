//! Quantized products: bytes of weights per second for one row, operations per second for many.
//!
//! Compare within one run only: machines differ, ratios travel. One product and one sum are two
//! operations (`items`). The weights of one call fit a cache; those of `gemv_cold`, sixteen times
//! as many, do not fit the second level. `limit_dots` and `limit_read` are what shares are of:
//! multiply-adds of bytes in registers, and reading as many bytes as `gemv_cold` does.

use std::fmt;

use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use kernels_cpu::{
    AffineDesc, AffinePanels, AffineRows, BYTE_DOTS_MACS, FloatPanels, Isa, OutputColumns,
    QuantizedRows, Scales, byte_dots, matmul, matmul_affine, matmul_rows, pack_affine,
    quantize_rows, quantized_row_bytes,
};

fn main() {
    divan::main();
}

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    desc: AffineDesc,
    k: usize,
    n: usize,
    isa: Isa,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{} {:?}", self.name, self.k, self.n, self.isa)
    }
}

const FORMATS: [(&str, AffineDesc); 5] = [
    ("4-bit min f16", desc(4, 32, 0, true, Scales::F16)),
    ("4-bit min f32", desc(4, 32, 0, true, Scales::F32)),
    ("4-bit min product", desc(4, 32, 0, true, Scales::Product { groups: 8 })),
    ("6-bit group 16 product", desc(6, 16, 32, false, Scales::Product { groups: 16 })),
    ("8-bit", desc(8, 32, 128, false, Scales::F16)),
];

const fn desc(bits: u8, group: usize, zero_point: u8, has_min: bool, scales: Scales) -> AffineDesc {
    AffineDesc { bits, group, zero_point, has_min, scales }
}

fn cases() -> impl Iterator<Item = Case> {
    let shapes = [(576, 1536), (896, 4864)];
    FORMATS.into_iter().flat_map(move |(name, desc)| {
        shapes.into_iter().flat_map(move |(k, n)| {
            let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
            isas.map(move |isa| Case { name, desc, k, n, isa })
        })
    })
}

/// Bytes whose first one is 64-byte aligned.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + 63];
        let start = bytes.as_ptr().align_offset(64);
        Self { bytes, start, len }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }

    fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

fn floats(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 37 % 251) as f32 / 128.0 - 1.0).collect()
}

fn run(bencher: Bencher<'_, '_>, case: Case, rows: usize, copies: usize) {
    let Case { desc, k, n, isa, .. } = case;
    let n = n * copies;
    let limit = u16::from(u8::MAX >> (8 - desc.bits)) + 1;
    let codes: Vec<u8> = (0..n * k).map(|i| (i as u16 % limit) as u8).collect();
    let scales = vec![0.125; n * k / desc.group];
    let mins = if desc.has_min { scales.clone() } else { Vec::new() };
    let mut panels = Aligned::new(desc.packed_bytes(n, k));
    let canonical = AffineRows { codes: &codes, scales: &scales, mins: &mins };
    pack_affine(desc, canonical, n, k, panels.get_mut()).expect("codes and scales that fit");
    let mut acts = Aligned::new(rows * quantized_row_bytes(k));
    quantize_rows(isa, &floats(rows * k), k, acts.get_mut());
    let w = AffinePanels::new(desc, n, k, panels.get());
    let x = QuantizedRows::new(acts.get(), k);
    let mut out = vec![0.0; rows * n];
    bencher
        .counter(BytesCount::new(panels.len))
        .counter(ItemsCount::new(2 * rows * n * k))
        .bench_local(|| matmul_affine(isa, w, black_box(x), &mut OutputColumns::new(&mut out, n)));
}

#[divan::bench(args = Isa::ALL.into_iter().filter(|isa| isa.is_available()))]
fn limit_dots(bencher: Bencher<'_, '_>, isa: Isa) {
    const ROUNDS: usize = 10_000;
    bencher
        .counter(ItemsCount::new(2 * ROUNDS * BYTE_DOTS_MACS))
        .bench_local(|| byte_dots(isa, black_box(ROUNDS)));
}

#[divan::bench(sample_count = 20)]
fn limit_read(bencher: Bencher<'_, '_>) {
    let words = vec![1_u64; 16 * 896 * 4864 / 2 / size_of::<u64>()];
    let sum = |words: &[u64]| {
        let mut lanes = [0_u64; 32];
        for chunk in words.as_chunks::<32>().0 {
            lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane = lane.wrapping_add(*x));
        }
        lanes.iter().fold(0, |total, x| total ^ x)
    };
    bencher.counter(BytesCount::of_slice(&words)).bench_local(|| sum(black_box(&words)));
}

#[divan::bench(args = cases())]
fn gemv(bencher: Bencher<'_, '_>, case: Case) {
    run(bencher, case, 1, 1);
}

#[divan::bench(args = cases().filter(|case| case.k == 896 && case.isa != Isa::Scalar), sample_count = 20)]
fn gemv_cold(bencher: Bencher<'_, '_>, case: Case) {
    run(bencher, case, 1, 16);
}

#[divan::bench(args = cases(), sample_count = 20)]
fn gemm_32_rows(bencher: Bencher<'_, '_>, case: Case) {
    run(bencher, case, 32, 1);
}

#[divan::bench(args = [Isa::Avx2, Isa::Avx512], consts = [1, 32], sample_count = 20)]
fn float<const ROWS: usize>(bencher: Bencher<'_, '_>, isa: &Isa) {
    if !isa.is_available() {
        return;
    }
    let (k, n) = (896, 4864);
    let (panels, x) = (floats(n * k), floats(ROWS * k));
    let w = FloatPanels::new(&panels, n, k);
    let mut out = vec![0.0; ROWS * n];
    bencher
        .counter(BytesCount::of_slice(&panels))
        .counter(ItemsCount::new(2 * ROWS * n * k))
        .bench_local(|| matmul(*isa, w, black_box(&x), &mut OutputColumns::new(&mut out, n)));
}

/// What training computes: `forward` with a weight, `rows` for its gradient; 1,024 tokens.
#[divan::bench(args = TRAINED, sample_count = 20)]
fn forward(bencher: Bencher<'_, '_>, [n, k]: [usize; 2]) {
    let (panels, x, mut out) = (floats(n * k), floats(TOKENS * k), vec![0.0; TOKENS * n]);
    let w = FloatPanels::new(&panels, n, k);
    bencher.counter(ItemsCount::new(2 * TOKENS * n * k)).bench_local(|| {
        matmul(Isa::detect(), w, black_box(&x), &mut OutputColumns::new(&mut out, n));
    });
}

#[divan::bench(args = TRAINED, sample_count = 20)]
fn rows(bencher: Bencher<'_, '_>, [n, k]: [usize; 2]) {
    let (a, b, mut out) = (floats(TOKENS * n), floats(TOKENS * k), vec![0.0; n * k]);
    let (a, b) = (FloatPanels::new(&a, n, TOKENS), FloatPanels::new(&b, k, TOKENS));
    bencher.counter(ItemsCount::new(2 * TOKENS * n * k)).bench_local(|| {
        matmul_rows(Isa::detect(), black_box(b), a, &mut OutputColumns::new(&mut out, k));
    });
}

const TOKENS: usize = 1024;
/// Multiples of sixteen: panels are as large as what they pack.
const TRAINED: [[usize; 2]; 3] = [[256, 256], [688, 256], [1024, 384]];
