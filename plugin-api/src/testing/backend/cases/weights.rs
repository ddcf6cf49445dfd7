//! Ops on weights, in every class of arithmetic.

use super::{Case, TABLE_ROWS, rows};
use crate::kinds::quantizer::{Lowering, Scales};
use crate::plan::{Dim, OpSink, OpSinkExt, Spec, ops};
use crate::testing::backend::rig::Weight;
use crate::testing::random::Random;
use crate::testing::tolerance::{ROUNDED_ACTIVATIONS, of_op};

pub(super) fn matmuls() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, lowering) in lowerings() {
        for (n, k) in [(1, 1), (7, 9), (1, 32), (33, 64), (8, 96), (70, 256), (3, 320)] {
            let Some(w) = weight("w", n, k, &lowering) else { continue };
            let mut case = Case::new(format!("matmul of {n} by {k}, {name}"), ops::MATMUL, |b| {
                let x = b.input("x", rows(k as u64))?;
                let w = b.declare_weight("w", matrix(n, k))?;
                b.matmul(x, w)
            });
            case.scale = Some(scale_of(&w));
            if matches!(lowering, Lowering::Affine { .. }) {
                case.tolerance = ROUNDED_ACTIVATIONS;
            }
            case.weights.push(w);
            cases.push(case);
        }
        for width in [1, 7, 32, 64, 256] {
            let Some(table) = weight("w", TABLE_ROWS, width, &lowering) else { continue };
            let mut case = Case::new(format!("embed of width {width}, {name}"), ops::EMBED, |b| {
                let ids = b.input("ids", Spec::u32([Dim::TOKENS]))?;
                let table = b.declare_weight("w", matrix(TABLE_ROWS, width))?;
                b.embed(table, ids)
            });
            if matches!(lowering, Lowering::Affine { .. }) {
                case.tolerance = of_op(ops::ADD); // one multiplication and addition
            }
            case.weights.push(table);
            cases.push(case);
        }
    }
    let mut values = Case::new("matmul of values", ops::MATMUL, |b| {
        let (x, w) = (b.input("x", rows(9))?, b.input("w", matrix(5, 9))?);
        b.matmul(x, w)
    });
    values.scale = Some(9.0);
    cases.push(values);
    let mut heads = Case::new("matmul of three axes", ops::MATMUL, |b| {
        let x = b.input("x", Spec::f32([Dim::TOKENS, 3.into(), 8.into()]))?;
        let w = b.declare_weight("w", matrix(5, 8))?;
        b.matmul(x, w)
    });
    heads.weights.push(float_weight("w", 5, 8));
    heads.scale = Some(4.0);
    cases.push(heads);
    cases
}

/// Products with the experts that tokens chose: all choices of one row, or each of its own.
pub(super) fn experts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, lowering) in lowerings() {
        for (n, k, is_own) in [(16, 32, false), (48, 64, true)] {
            let Some(w) = weight("w", TABLE_ROWS * n, k, &lowering) else { continue };
            let name = format!("matmul_experts of {n} by {k}, {name}");
            let mut case = Case::new(name, ops::MATMUL_EXPERTS, |b| {
                let (choices, k) = (Dim::Fixed(3), Dim::Fixed(k as u64));
                let own = [Dim::TOKENS, choices, k];
                let shared = [Dim::TOKENS, k];
                let x = b.input("x", Spec::f32(if is_own { &own[..] } else { &shared }))?;
                let chosen = b.input("chosen", Spec::u32([Dim::TOKENS, choices]))?;
                let dims = [Dim::Fixed(TABLE_ROWS as u64), Dim::Fixed(n as u64), k];
                let w = b.declare_weight("w", Spec::f32(dims))?;
                b.matmul_experts(x, w, chosen)
            });
            case.scale = Some(scale_of(&w));
            if matches!(lowering, Lowering::Affine { .. }) {
                case.tolerance = ROUNDED_ACTIVATIONS;
            }
            case.weights.push(w);
            cases.push(case);
        }
    }
    cases
}

/// What errors of a product are relative to: inputs are uniform in -2..2, whose mean square is 4 / 3.
fn scale_of(w: &Weight) -> f64 {
    let squares = w.values.iter().map(|x| f64::from(x * x)).sum::<f64>();
    let mean = squares / (w.rows * w.cols) as f64;
    (w.cols as f64 * mean * 4.0 / 3.0).sqrt()
}

/// The lowerings that formats of the world have, by name.
fn lowerings() -> Vec<(&'static str, Lowering)> {
    let affine = |bits: u32, group, zero_point, has_min, scales| Lowering::Affine {
        bits,
        group,
        zero_point,
        has_min,
        scales,
    };
    let product = |groups| Scales::Product { groups };
    vec![
        ("f32", Lowering::MiniFloat { exponent: 8, mantissa: 23 }),
        ("f16", Lowering::MiniFloat { exponent: 5, mantissa: 10 }),
        ("bf16", Lowering::MiniFloat { exponent: 8, mantissa: 7 }),
        ("opaque", Lowering::Opaque),
        ("4 bits by 32", affine(4, 32, 8, false, Scales::F16)),
        ("4 bits by 32 with minima", affine(4, 32, 0, true, Scales::F16)),
        ("4 bits by 32, wide scales", affine(4, 32, 0, true, Scales::F32)),
        ("5 bits by 32", affine(5, 32, 16, false, Scales::F16)),
        ("5 bits by 32 with minima", affine(5, 32, 0, true, Scales::F32)),
        ("6 bits by 16", affine(6, 16, 32, false, Scales::F32)),
        ("8 bits by 32", affine(8, 32, 128, false, Scales::F16)),
        ("2 bits by 64 with minima", affine(2, 64, 0, true, Scales::F16)),
        ("4 bits by 32 with minima, 8 scales a factor", affine(4, 32, 0, true, product(8))),
        ("5 bits by 32 with minima, 3 scales a factor", affine(5, 32, 0, true, product(3))),
        ("6 bits by 16, 16 scales a factor", affine(6, 16, 32, false, product(16))),
        ("8 bits by 16, a factor a scale", affine(8, 16, 128, false, product(1))),
    ]
}

/// A weight whose numbers are exact in its lowering; nothing if rows are not whole groups.
fn weight(name: &str, rows: usize, cols: usize, lowering: &Lowering) -> Option<Weight> {
    let mut random = Random::new((rows * 1000 + cols) as u64);
    let (mut codes, mut scales, mut mins) = (Vec::new(), Vec::new(), Vec::new());
    let values = match *lowering {
        Lowering::Affine { bits, group, zero_point, has_min, scales: form } => {
            if !cols.is_multiple_of(group) {
                return None;
            }
            let (size, groups) = (2.0 / (1 << bits) as f32, cols / group);
            scales = exact(form, size, [rows, groups], &mut random);
            mins = exact(form, 0.5, [rows, if has_min { groups } else { 0 }], &mut random);
            codes.extend((0..rows * cols).map(|_| random.below(1 << bits) as u8));
            let value = |i: usize| {
                let centered = f32::from(i16::from(codes[i]) - i16::from(zero_point));
                scales[i / group] * centered + mins.get(i / group).copied().unwrap_or(0.0)
            };
            (0..rows * cols).map(value).collect()
        }
        Lowering::MiniFloat { mantissa, .. } => {
            let round = |x: f32| match mantissa {
                10 => half::f16::from_f32(x).to_f32(),
                7 => half::bf16::from_f32(x).to_f32(),
                _ => x,
            };
            (0..rows * cols).map(|_| round(random.signed())).collect()
        }
        _ => (0..rows * cols).map(|_| random.signed()).collect(),
    };
    let (name, lowering) = (name.to_owned(), lowering.clone());
    Some(Weight { name, rows, cols, lowering, values, codes, scales, mins })
}

/// Scales or minima of at most about `size` that are what a lowering says, `[rows, groups]`. The
/// last run of a row may be short.
fn exact(form: Scales, size: f32, [rows, groups]: [usize; 2], random: &mut Random) -> Vec<f32> {
    let half = |x: f32| half::f16::from_f32(x).to_f32();
    let mut factor = 0.0;
    let mut number = |i: usize| match form {
        Scales::F32 => random.signed() * size,
        Scales::F16 => half(random.signed() * size),
        Scales::Product { groups: run } => {
            if (i % groups).is_multiple_of(run) {
                factor = half(random.signed() * size / 128.0);
            }
            factor * (random.below(256) as f32 - 128.0)
        }
    };
    (0..rows * groups).map(&mut number).collect()
}

/// A vector or matrix of plain floats.
pub(super) fn float_weight(name: &str, rows: usize, cols: usize) -> Weight {
    let plain = Lowering::MiniFloat { exponent: 8, mantissa: 23 };
    weight(name, rows, cols, &plain).expect("floats have no groups")
}

pub(super) fn matrix(rows: usize, cols: usize) -> Spec {
    Spec::f32([Dim::Fixed(rows as u64), Dim::Fixed(cols as u64)])
}
