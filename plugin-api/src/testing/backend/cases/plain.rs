//! Ops on values alone.

use super::{Case, TABLE_ROWS, rows};
use crate::plan::{Attr, Attrs, Dim, OpSink, OpSinkExt, PlanBuilder, Spec, ops};
use crate::tensor::DType;
use crate::testing::tolerance::Tolerance;

pub(super) fn elementwise() -> Vec<Case> {
    let mut cases = Vec::new();
    for width in [1, 9, 64] {
        for op in [
            ops::NEG,
            ops::EXP,
            ops::TANH,
            ops::SIGMOID,
            ops::SILU,
            ops::GELU,
            ops::GELU_TANH,
            ops::ERF,
            ops::IS_POSITIVE,
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
        let filled = Case::new(format!("full_like of width {width}"), ops::FULL_LIKE, |b| {
            let x = b.input("x", rows(width))?;
            b.full_like(x, -1.75)
        });
        cases.push(filled);
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

pub(super) fn by_row() -> Vec<Case> {
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

/// Sums over rows, and elements picked from each: what gradients are made of.
pub(super) fn of_training() -> Vec<Case> {
    let mut cases = Vec::new();
    for width in [1, 9, 64] {
        let mut sum = Case::new(format!("reduce_rows of width {width}"), ops::REDUCE_ROWS, |b| {
            let x = b.input("x", rows(width))?;
            b.unary(ops::REDUCE_ROWS, x)
        });
        sum.scale = Some(64.0);
        cases.push(sum.with_bound_rows());
        let product = |b: &mut PlanBuilder, a: Spec, x: Spec| {
            let (a, x) = (b.input("x", a)?, b.input("y", x)?);
            b.one(ops::MATMUL_ROWS, &[a, x], Attrs::new())
        };
        for (name, lead) in [("rows", &[][..]), ("heads", &[Dim::Fixed(3)])] {
            let spec = |width: u64| {
                let dims: Vec<Dim> = [&[Dim::TOKENS], lead, &[Dim::Fixed(width)]].concat();
                Spec::f32(dims)
            };
            let name = format!("matmul_rows of {name} of width {width}");
            let mut case = Case::new(name, ops::MATMUL_ROWS, |b| product(b, spec(width), spec(5)));
            case.scale = Some(64.0);
            cases.push(case.with_bound_rows());
        }
    }
    for width in [TABLE_ROWS as u64, 64] {
        let picks = || Spec::u32([Dim::TOKENS, 3.into()]);
        cases.push(Case::new(format!("take_along of width {width}"), ops::TAKE_ALONG, |b| {
            let (x, i) = (b.input("x", rows(width))?, b.input("ids", picks())?);
            b.one(ops::TAKE_ALONG, &[x, i], Attrs::new())
        }));
        cases.push(Case::new(format!("scatter_along of width {width}"), ops::SCATTER_ALONG, |b| {
            let (x, i) = (b.input("x", rows(width))?, b.input("ids", picks())?);
            let updates = b.input("updates", rows(3))?;
            b.one(ops::SCATTER_ALONG, &[x, i, updates], Attrs::new())
        }));
    }
    cases
}

pub(super) fn moves() -> Vec<Case> {
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
