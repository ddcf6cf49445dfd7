//! One plan for each op, shape and lowering.

use super::super::interpreter::Feed;
use super::super::random::Random;
use super::super::tolerance::{ROUNDED_ACTIVATIONS, TRACED, Tolerance, of_op};
use super::rig::Weight;
use super::{rig, symbol};
use crate::error::Result;
use crate::kinds::backend::Bucket;
use crate::kinds::quantizer::Lowering;
use crate::kinds::rotary_embedding::{Pairing, Rotation};
use crate::plan::{
    Attr, Attrs, Dim, OpId, OpSink, OpSinkExt, Plan, PlanBuilder, Port, Spec, Val, fused, ops,
};
use crate::tensor::DType;

/// Rows of tables that are looked up.
const TABLE_ROWS: usize = 13;

/// A plan with one output or more, and how to feed it.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) plan: Plan,
    pub(super) weights: Vec<Weight>,
    pub(super) tolerance: Tolerance,
    /// What the tolerance is relative to, where it is not the greatest result.
    pub(super) scale: Option<f64>,
    /// Whether each row of the first output follows from the same row of the inputs.
    pub(super) has_free_rows: bool,
}

impl Case {
    fn new(
        name: impl Into<String>,
        op: OpId,
        build: impl FnOnce(&mut PlanBuilder) -> Result<Val>,
    ) -> Self {
        let name = name.into();
        let mut b = PlanBuilder::new();
        let result = build(&mut b).and_then(|val| b.output("y", val));
        result.unwrap_or_else(|e| panic!("{name}: {e}"));
        Self {
            name,
            plan: b.finish(),
            weights: Vec::new(),
            tolerance: of_op(op),
            scale: None,
            has_free_rows: true,
        }
    }

    fn with_bound_rows(mut self) -> Self {
        self.has_free_rows = false;
        self
    }

    pub(super) fn bucket(&self, tokens: usize) -> Bucket {
        rig::bucket(&[(symbol(Dim::TOKENS), tokens), (symbol(Dim::LOGIT_ROWS), tokens)])
    }

    /// Random inputs for a number of tokens. Inputs called `positive…` are, those called
    /// `steps…` have many ties, indices are in range.
    pub(super) fn feed(&self, tokens: usize) -> Feed {
        let mut random = Random::new(tokens as u64);
        let logit_rows = if tokens == 0 { 0 } else { tokens / 2 + 1 };
        let mut feed = Feed::new().size(Dim::TOKENS, tokens).size(Dim::LOGIT_ROWS, logit_rows);
        for Port { name, val } in &self.plan.inputs {
            let spec = self.plan.spec(*val);
            let size = |dim: &Dim| match dim {
                Dim::Fixed(n) => *n as usize,
                Dim::Symbol(symbol) => feed.size_of(*symbol),
            };
            let len = spec.dims.iter().map(size).product();
            feed = if spec.dtype == DType::U32 {
                let below = if name == "rows" { tokens } else { TABLE_ROWS };
                let indices: Vec<u32> = (0..len).map(|_| random.below(below) as u32).collect();
                feed.indices(name, &indices)
            } else {
                let number = |x: f32| match name.as_str() {
                    "positive" => x.abs() + 0.01,
                    "steps" => (x * 4.0).round() / 4.0,
                    _ => 2.0 * x,
                };
                let values: Vec<f32> = (0..len).map(|_| number(random.signed())).collect();
                feed.reals(name, &values)
            };
        }
        feed
    }

    /// The feed with the decoded weights, for the interpreter.
    pub(super) fn with_weights(&self, feed: &Feed) -> Feed {
        let weights = self.weights.iter();
        weights.fold(feed.clone(), |feed, weight| feed.reals(&weight.name, &weight.values))
    }
}

pub(super) fn all() -> Vec<Case> {
    let mut cases = elementwise();
    cases.extend(by_row());
    cases.extend(moves());
    cases.extend(matmuls());
    cases.extend(fused_ops());
    cases.extend(deep());
    cases
}

/// `[tokens, width]`
fn rows(width: u64) -> Spec {
    Spec::f32([Dim::TOKENS, width.into()])
}

fn elementwise() -> Vec<Case> {
    let mut cases = Vec::new();
    for width in [1, 9, 64] {
        for op in [
            ops::NEG,
            ops::EXP,
            ops::TANH,
            ops::SIGMOID,
            ops::SILU,
            ops::GELU_TANH,
            ops::COS,
            ops::SIN,
        ] {
            cases.push(Case::new(format!("{op} of width {width}"), op, |b| {
                let x = b.input("x", rows(width))?;
                b.unary(op, x)
            }));
        }
        for op in [ops::LOG, ops::SQRT, ops::RSQRT] {
            cases.push(Case::new(format!("{op} of width {width}"), op, |b| {
                let x = b.input("positive", rows(width))?;
                b.unary(op, x)
            }));
        }
        for op in [ops::SCALE, ops::OFFSET] {
            cases.push(Case::new(format!("{op} of width {width}"), op, |b| {
                let x = b.input("x", rows(width))?;
                b.one(op, &[x], Attrs::new().float("by", -1.75))
            }));
        }
        for op in [ops::ADD, ops::SUB, ops::MUL, ops::DIV, ops::MAX, ops::MIN] {
            let rhs = if op == ops::DIV { "positive" } else { "rhs" };
            for (layout, spec) in [
                ("same", rows(width)),
                ("column", rows(1)),
                ("row", Spec::f32([Dim::Fixed(width)])),
            ] {
                let case = Case::new(format!("{op} {layout} of width {width}"), op, |b| {
                    let (x, y) = (b.input("x", rows(width))?, b.input(rhs, spec)?);
                    b.one(op, &[x, y], Attrs::new())
                });
                cases.push(case);
            }
        }
    }
    cases
}

fn by_row() -> Vec<Case> {
    let mut cases = Vec::new();
    for width in [1, 7, 64, 300] {
        for op in [ops::REDUCE_SUM, ops::REDUCE_MEAN, ops::REDUCE_MAX, ops::SOFTMAX] {
            let mut case = Case::new(format!("{op} of width {width}"), op, |b| {
                let x = b.input("x", rows(width))?;
                b.unary(op, x)
            });
            if op == ops::REDUCE_SUM {
                case.scale = Some((width as f64).max(8.0));
            }
            if op == ops::REDUCE_MEAN {
                case.scale = Some(1.0);
            }
            cases.push(case);
        }
        for k in [1, 5, 64].into_iter().filter(|&k| k <= width) {
            let mut case = Case::new(format!("top {k} of {width}"), ops::TOP_K, |b| {
                let x = b.input("steps", rows(width))?;
                let results = b.op(ops::TOP_K, &[x], Attrs::new().int("k", k as i64))?;
                b.output("indices", results[1])?;
                Ok(results[0])
            });
            case.tolerance = Tolerance::EXACT;
            cases.push(case);
        }
    }
    cases
}

fn moves() -> Vec<Case> {
    let heads = || Spec::f32([Dim::TOKENS, 3.into(), 8.into()]);
    let int = |name: &str, x: i64| Attrs::new().int(name, x);
    let part = |axis: i64| int("axis", axis).int("start", 1).int("len", 2);
    let axes = |axes: &[i64]| Attrs::new().with("axes", Attr::Ints(axes.to_vec()));
    let dims = |dims: &[i64]| Attrs::new().with("dims", Attr::Ints(dims.to_vec()));
    let mut cases = Vec::new();
    for (name, op, attrs) in [
        ("slice of axis 1", ops::SLICE, part(1)),
        ("slice of axis 2", ops::SLICE, part(2)),
        ("reshape to rows", ops::RESHAPE, dims(&[-1, 24])),
        ("reshape to four axes", ops::RESHAPE, dims(&[-1, 3, 4, 2])),
        ("transpose within a token", ops::TRANSPOSE, axes(&[0, 2, 1])),
        ("cast to f16", ops::CAST, Attrs::new().text("dtype", "f16")),
        ("cast to bf16", ops::CAST, Attrs::new().text("dtype", "bf16")),
        ("cast to f32", ops::CAST, Attrs::new().text("dtype", "f32")),
    ] {
        cases.push(Case::new(name, op, |b| {
            let x = b.input("x", heads())?;
            b.one(op, &[x], attrs)
        }));
    }
    let across = Case::new("transpose across tokens", ops::TRANSPOSE, |b| {
        let x = b.input("x", heads())?;
        b.one(ops::TRANSPOSE, &[x], axes(&[1, 0, 2]))
    });
    cases.push(across.with_bound_rows());
    cases.push(Case::new("concat of axis 1", ops::CONCAT, |b| {
        let (x, y) = (b.input("x", heads())?, b.input("y", heads())?);
        let z = b.input("z", Spec::f32([Dim::TOKENS, 1.into(), 8.into()]))?;
        b.concat(&[x, z, y, x], 1)
    }));
    cases.push(Case::new("concat of the last axis", ops::CONCAT, |b| {
        let (x, y) = (b.input("x", rows(3))?, b.input("y", rows(8))?);
        b.concat(&[x, y], 1)
    }));
    cases.push(Case::new("cast of indices", ops::CAST, |b| {
        let x = b.input("ids", Spec::u32([Dim::TOKENS]))?;
        b.cast(x, DType::F32)
    }));
    let constant = Case::new("constant", ops::CONSTANT, |b| b.constant(&[1.0, -2.5, 0.0, 1e9]));
    cases.push(constant.with_bound_rows());
    let indices = Spec::u32([Dim::LOGIT_ROWS]);
    for width in [1, 9, 64] {
        let gather = Case::new(format!("gather of width {width}"), ops::GATHER, |b| {
            let (x, i) = (b.input("x", rows(width))?, b.input("rows", indices.clone())?);
            b.gather(x, i)
        });
        cases.push(gather.with_bound_rows());
        let scatter = Case::new(format!("scatter_add of width {width}"), ops::SCATTER_ADD, |b| {
            let (x, i) = (b.input("x", rows(width))?, b.input("rows", indices.clone())?);
            let updates = b.input("updates", Spec::f32([Dim::LOGIT_ROWS, width.into()]))?;
            b.one(ops::SCATTER_ADD, &[x, i, updates], Attrs::new())
        });
        cases.push(scatter.with_bound_rows());
    }
    cases
}

/// The lowerings that formats of the world have, by name.
fn lowerings() -> Vec<(&'static str, Lowering)> {
    let affine = |bits: u32, group, zero_point, has_min, is_f16_exact| Lowering::Affine {
        bits,
        group,
        zero_point,
        has_min,
        is_f16_exact,
    };
    vec![
        ("f32", Lowering::MiniFloat { exponent: 8, mantissa: 23 }),
        ("f16", Lowering::MiniFloat { exponent: 5, mantissa: 10 }),
        ("bf16", Lowering::MiniFloat { exponent: 8, mantissa: 7 }),
        ("opaque", Lowering::Opaque),
        ("4 bits by 32", affine(4, 32, 8, false, true)),
        ("4 bits by 32 with minima", affine(4, 32, 0, true, true)),
        ("4 bits by 32, wide scales", affine(4, 32, 0, true, false)),
        ("5 bits by 32", affine(5, 32, 16, false, true)),
        ("5 bits by 32 with minima", affine(5, 32, 0, true, false)),
        ("6 bits by 16", affine(6, 16, 32, false, false)),
        ("8 bits by 32", affine(8, 32, 128, false, true)),
        ("2 bits by 64 with minima", affine(2, 64, 0, true, true)),
    ]
}

/// A weight whose numbers are exact in its lowering; nothing if rows are not whole groups.
fn weight(name: &str, rows: usize, cols: usize, lowering: &Lowering) -> Option<Weight> {
    let mut random = Random::new((rows * 1000 + cols) as u64);
    let (mut codes, mut scales, mut mins) = (Vec::new(), Vec::new(), Vec::new());
    let values = match *lowering {
        Lowering::Affine { bits, group, zero_point, has_min, is_f16_exact } => {
            if !cols.is_multiple_of(group) {
                return None;
            }
            let mut number = |size: f32| {
                let x = random.signed() * size;
                if is_f16_exact { half::f16::from_f32(x).to_f32() } else { x }
            };
            scales.extend((0..rows * cols / group).map(|_| number(2.0) / (1 << bits) as f32));
            if is_f16_exact {
                scales.iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32());
            }
            mins.extend((0..if has_min { scales.len() } else { 0 }).map(|_| number(0.5)));
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

/// A vector or matrix of plain floats.
fn float_weight(name: &str, rows: usize, cols: usize) -> Weight {
    let plain = Lowering::MiniFloat { exponent: 8, mantissa: 23 };
    weight(name, rows, cols, &plain).expect("floats have no groups")
}

fn matrix(rows: usize, cols: usize) -> Spec {
    Spec::f32([Dim::Fixed(rows as u64), Dim::Fixed(cols as u64)])
}

fn matmuls() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, lowering) in lowerings() {
        for (n, k) in [(1, 1), (7, 9), (1, 32), (33, 64), (8, 96), (70, 256), (3, 320)] {
            let Some(w) = weight("w", n, k, &lowering) else { continue };
            let mut case = Case::new(format!("matmul of {n} by {k}, {name}"), ops::MATMUL, |b| {
                let x = b.input("x", rows(k as u64))?;
                let w = b.declare_weight("w", matrix(n, k))?;
                b.matmul(x, w)
            });
            let rms = w.values.iter().map(|x| f64::from(x * x)).sum::<f64>() / (n * k) as f64;
            // Inputs are uniform in -2..2, whose mean square is 4 / 3.
            case.scale = Some((k as f64 * rms * 4.0 / 3.0).sqrt());
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

fn fused_ops() -> Vec<Case> {
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
fn deep() -> Vec<Case> {
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
