//! Fused ops, and plans of several ops.

use super::weights::{float_weight, matrix};
use super::{Case, TABLE_ROWS, rows};
use crate::kinds::rotary_embedding::{Pairing, Rotation};
use crate::plan::{Dim, OpSink, OpSinkExt, Spec, fused, ops};
use crate::testing::tolerance::{TRACED, of_op};

pub(super) fn fused_ops() -> Vec<Case> {
    let mut cases = Vec::new();
    for width in [1, 7, 64, 300] {
        for offset in [0.0, 1.0] {
            let name = format!("rms_norm of width {width}, offset {offset}");
            let mut case = Case::new(name, ops::RMS_NORM, |b| {
                let x = b.input("x", rows(width))?;
                let w = b.declare_weight("w", Spec::f32([Dim::Fixed(width)]))?;
                fused::rms_norm(b, x, w, 1e-5, offset)
            });
            case.weights.push(float_weight("w", 1, width as usize));
            cases.push(case);
        }
        let mut case = Case::new(format!("layer_norm of width {width}"), ops::LAYER_NORM, |b| {
            let x = b.input("x", rows(width))?;
            let w = b.declare_weight("w", Spec::f32([Dim::Fixed(width)]))?;
            let bias = b.declare_weight("b", Spec::f32([Dim::Fixed(width)]))?;
            fused::layer_norm(b, x, w, bias, 1e-5)
        });
        case.weights.push(float_weight("w", 1, width as usize));
        case.weights.push(float_weight("b", 1, width as usize));
        cases.push(case);
        for op in [ops::SWIGLU, ops::GEGLU] {
            cases.push(Case::new(format!("{op} of width {width}"), op, |b| {
                let (gate, up) = (b.input("gate", rows(width))?, b.input("up", rows(width))?);
                if op == ops::SWIGLU {
                    fused::swiglu(b, gate, up)
                } else {
                    fused::geglu(b, gate, up)
                }
            }));
        }
    }
    for width in [TABLE_ROWS as u64, 64, 300] {
        let name = format!("cross_entropy of {width}");
        cases.push(Case::new(name, ops::CROSS_ENTROPY, |b| {
            let x = b.input("x", rows(width))?;
            let targets = b.input("ids", Spec::u32([Dim::TOKENS]))?;
            fused::cross_entropy(b, x, targets)
        }));
    }
    let mut heads_norm = Case::new("rms_norm of heads", ops::RMS_NORM, |b| {
        let x = b.input("x", Spec::f32([Dim::TOKENS, 3.into(), 8.into()]))?;
        let w = b.declare_weight("w", Spec::f32([Dim::Fixed(8)]))?;
        fused::rms_norm(b, x, w, 1e-5, 0.0)
    });
    heads_norm.weights.push(float_weight("w", 1, 8));
    cases.push(heads_norm);
    for pairing in [Pairing::HalfSplit, Pairing::Interleaved] {
        for (heads, head_dim, pairs) in [(1, 2, 1), (3, 8, 4), (2, 20, 5), (4, 64, 32)] {
            let name = format!("rope {} of {pairs} pairs in {head_dim}", pairing.name());
            cases.push(Case::new(name, ops::ROPE, |b| {
                let x = b.input("x", Spec::f32([Dim::TOKENS, heads.into(), head_dim.into()]))?;
                let positions = b.input("positions", Spec::u32([Dim::TOKENS]))?;
                let inv_freq = (0..pairs).map(|i| 0.7_f32.powi(i)).collect();
                let rotation = Rotation { inv_freq, pairing, attention_factor: 1.25 };
                fused::rope(b, x, positions, &rotation)
            }));
        }
    }
    cases
}

/// Plans of several ops: values that live long, that are read twice, that pass through.
pub(super) fn deep() -> Vec<Case> {
    let mut layer = Case::new("a feed-forward layer", ops::ADD, |b| {
        let x = b.input("x", rows(32))?;
        let norm = b.declare_weight("norm", Spec::f32([Dim::Fixed(32)]))?;
        let gate = b.declare_weight("gate", matrix(64, 32))?;
        let up = b.declare_weight("up", matrix(64, 32))?;
        let down = b.declare_weight("down", matrix(32, 64))?;
        let normed = fused::rms_norm(b, x, norm, 1e-5, 0.0)?;
        let (gate, up) = (b.matmul(normed, gate)?, b.matmul(normed, up)?);
        let gated = fused::swiglu(b, gate, up)?;
        let result = b.matmul(gated, down)?;
        let stream = b.add(x, result)?;
        b.output("normed", normed)?;
        let twice = b.add(stream, stream)?;
        b.sub(twice, x)
    });
    layer.tolerance = TRACED;
    layer.weights.push(float_weight("norm", 1, 32));
    for (name, n, k) in [("gate", 64, 32), ("up", 64, 32), ("down", 32, 64)] {
        layer.weights.push(float_weight(name, n, k));
    }
    let passing = Case::new("an input that is an output, twice", ops::RESHAPE, |b| {
        let x = b.input("x", rows(9))?;
        b.output("again", x)?;
        Ok(x)
    });
    let mut chain = Case::new("a chain of forty ops", ops::TANH, |b| {
        let first = b.input("x", rows(7))?;
        let mut x = first;
        for i in 0..20 {
            let moved = b.offset(x, f64::from(i) * 0.01)?;
            let sum = b.add(moved, first)?;
            x = b.unary(ops::TANH, sum)?;
        }
        Ok(x)
    });
    chain.tolerance = TRACED;
    let mut unused = Case::new("ops that nobody reads", ops::NEG, |b| {
        let x = b.input("x", rows(7))?;
        let _ = b.unary(ops::EXP, x)?;
        let _ = b.input("ids", Spec::u32([Dim::TOKENS]))?;
        b.unary(ops::NEG, x)
    });
    unused.tolerance = of_op(ops::NEG);
    vec![layer, passing, chain, unused]
}
