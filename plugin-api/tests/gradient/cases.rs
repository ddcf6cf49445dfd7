//! Plans that together hold every op with a rule.

use plugin_api::kinds::rotary_embedding::{Pairing, Rotation};
use plugin_api::plan::{Attr, Attrs, Dim, OpSink, OpSinkExt, Plan, Spec, fused, ops};

use super::{INDEX_MAX, plan, rows};

/// Plans that together hold every op with a rule.
pub(super) fn cases(width: u64) -> Vec<(String, Plan)> {
    let mut cases = Vec::new();
    let mut case = |name: String, plan: Plan| cases.push((format!("{name} of {width}"), plan));
    for op in [ops::ADD, ops::SUB, ops::MUL, ops::DIV, ops::MAX, ops::MIN] {
        for (layout, spec) in
            [("same", rows(width)), ("column", rows(1)), ("row", Spec::f32([width.into()]))]
        {
            let name = if op == ops::DIV { "positive" } else { "r" };
            let plan = plan(|b| {
                let (l, r) = (b.input("l", rows(width))?, b.input(name, spec)?);
                b.one(op, &[l, r], Attrs::new())
            });
            case(format!("{op} {layout}"), plan);
        }
    }
    for (op, input) in [
        (ops::NEG, "x"),
        (ops::EXP, "x"),
        (ops::TANH, "x"),
        (ops::SIGMOID, "x"),
        (ops::SILU, "x"),
        (ops::GELU, "x"),
        (ops::GELU_TANH, "x"),
        (ops::ERF, "x"),
        (ops::COS, "x"),
        (ops::SIN, "x"),
        (ops::LOG, "positive"),
        (ops::SQRT, "positive"),
        (ops::RSQRT, "positive"),
        (ops::SOFTMAX, "x"),
        (ops::REDUCE_SUM, "x"),
        (ops::REDUCE_MEAN, "x"),
        (ops::REDUCE_MAX, "x"),
        (ops::REDUCE_ROWS, "x"),
    ] {
        let plan = plan(|b| {
            let x = b.input(input, rows(width))?;
            b.unary(op, x)
        });
        case(op.to_string(), plan);
    }
    for op in [ops::SCALE, ops::OFFSET] {
        case(
            op.to_string(),
            plan(|b| {
                let x = b.input("x", rows(width))?;
                b.one(op, &[x], Attrs::new().float("by", -1.75))
            }),
        );
    }
    cases.extend(moves(width));
    cases.extend(products(width));
    cases
}

fn moves(width: u64) -> Vec<(String, Plan)> {
    let mut cases = Vec::new();
    let mut case = |name: &str, plan: Plan| cases.push((format!("{name} of {width}"), plan));
    let heads = || Spec::f32([Dim::TOKENS, 3.into(), (2 * width).into()]);
    let ints = |name: &str, x: &[i64]| Attrs::new().with(name, Attr::Ints(x.to_vec()));
    for (name, op, attrs) in [
        (
            "slice of the middle",
            ops::SLICE,
            Attrs::new().int("axis", 1).int("start", 1).int("len", 1),
        ),
        (
            "slice of the start",
            ops::SLICE,
            Attrs::new().int("axis", 1).int("start", 0).int("len", 2),
        ),
        (
            "slice of the end",
            ops::SLICE,
            Attrs::new().int("axis", 2).int("start", 1).int("len", 2 * width as i64 - 1),
        ),
        ("reshape", ops::RESHAPE, ints("dims", &[-1, 2, 3 * width as i64])),
        ("transpose within", ops::TRANSPOSE, ints("axes", &[0, 2, 1])),
        ("transpose around", ops::TRANSPOSE, ints("axes", &[2, 0, 1])),
        ("cast", ops::CAST, Attrs::new().text("dtype", "f64")),
    ] {
        // Squared, so that what is passed back is no constant.
        case(
            name,
            plan(|b| {
                let x = b.input("x", heads())?;
                let y = b.one(op, &[x], attrs)?;
                b.mul(y, y)
            }),
        );
    }
    case(
        "concat",
        plan(|b| {
            let (x, z) = (b.input("x", rows(width))?, b.input("z", rows(3))?);
            b.concat(&[z, x, z], 1)
        }),
    );
    let table = || Spec::f32([(INDEX_MAX as u64).into(), width.into()]);
    for op in [ops::EMBED, ops::GATHER] {
        case(
            op.as_str(),
            plan(|b| {
                let (x, i) = (b.input("x", table())?, b.input("i", Spec::u32([Dim::TOKENS]))?);
                b.one(op, &[x, i], Attrs::new())
            }),
        );
    }
    case(
        "gather of tokens",
        plan(|b| {
            let x = b.input("x", rows(width))?;
            let i = b.input("rows", Spec::u32([Dim::LOGIT_ROWS]))?;
            b.gather(x, i)
        }),
    );
    case(
        "scatter_add",
        plan(|b| {
            let (x, i) = (b.input("x", table())?, b.input("i", Spec::u32([Dim::TOKENS]))?);
            let updates = b.input("updates", rows(width))?;
            b.one(ops::SCATTER_ADD, &[x, i, updates], Attrs::new())
        }),
    );
    if width >= INDEX_MAX as u64 {
        let picks = || Spec::u32([Dim::TOKENS, 3.into()]);
        case(
            "take_along",
            plan(|b| {
                let (x, i) = (b.input("x", rows(width))?, b.input("i", picks())?);
                b.one(ops::TAKE_ALONG, &[x, i], Attrs::new())
            }),
        );
        case(
            "scatter_along",
            plan(|b| {
                let (x, i) = (b.input("x", rows(width))?, b.input("i", picks())?);
                let updates = b.input("updates", rows(3))?;
                b.one(ops::SCATTER_ALONG, &[x, i, updates], Attrs::new())
            }),
        );
        case(
            "top_k",
            plan(|b| {
                let x = b.input("x", rows(width))?;
                Ok(b.op(ops::TOP_K, &[x], Attrs::new().int("k", 3))?[0])
            }),
        );
    }
    cases
}

fn products(width: u64) -> Vec<(String, Plan)> {
    let mut cases = Vec::new();
    let mut case = |name: &str, plan: Plan| cases.push((format!("{name} of {width}"), plan));
    case(
        "matmul",
        plan(|b| {
            let x = b.input("x", rows(width))?;
            let w = b.declare_weight("w", Spec::f32([5.into(), width.into()]))?;
            b.matmul(x, w)
        }),
    );
    case(
        "matmul of heads",
        plan(|b| {
            let x = b.input("x", Spec::f32([Dim::TOKENS, 3.into(), width.into()]))?;
            let w = b.declare_weight("w", Spec::f32([2.into(), width.into()]))?;
            b.matmul(x, w)
        }),
    );
    case(
        "matmul_rows",
        plan(|b| {
            let (x, z) = (b.input("x", rows(width))?, b.input("z", rows(4))?);
            b.one(ops::MATMUL_ROWS, &[x, z], Attrs::new())
        }),
    );
    let even = 2 * width;
    for (name, pairing, factor) in
        [("rope in halves", Pairing::HalfSplit, 1.0), ("rope in pairs", Pairing::Interleaved, 1.5)]
    {
        let inv_freq = (1..=width.min(4)).map(|i| 1.0 / i as f32).collect();
        let rotation = Rotation { inv_freq, pairing, attention_factor: factor };
        case(
            name,
            plan(|b| {
                let x = b.input("x", Spec::f32([Dim::TOKENS, 3.into(), even.into()]))?;
                let positions = b.input("i", Spec::u32([Dim::TOKENS]))?;
                fused::rope(b, x, positions, &rotation)
            }),
        );
    }
    case(
        "rms_norm",
        plan(|b| {
            let x = b.input("x", rows(width))?;
            let w = b.declare_weight("w", Spec::f32([width.into()]))?;
            fused::rms_norm(b, x, w, 1e-3, 1.0)
        }),
    );
    case(
        "rms_norm of heads",
        plan(|b| {
            let x = b.input("x", Spec::f32([Dim::TOKENS, 3.into(), width.into()]))?;
            let w = b.declare_weight("w", Spec::f32([width.into()]))?;
            fused::rms_norm(b, x, w, 1e-3, 0.0)
        }),
    );
    case(
        "layer_norm",
        plan(|b| {
            let x = b.input("x", rows(width))?;
            let w = b.declare_weight("w", Spec::f32([width.into()]))?;
            let bias = b.declare_weight("bias", Spec::f32([width.into()]))?;
            fused::layer_norm(b, x, w, bias, 0.1)
        }),
    );
    case(
        "swiglu",
        plan(|b| {
            let (gate, up) = (b.input("x", rows(width))?, b.input("z", rows(width))?);
            fused::swiglu(b, gate, up)
        }),
    );
    case(
        "geglu",
        plan(|b| {
            let (gate, up) = (b.input("x", rows(width))?, b.input("z", rows(width))?);
            fused::geglu(b, gate, up)
        }),
    );
    if width >= INDEX_MAX as u64 {
        case(
            "cross_entropy",
            plan(|b| {
                let x = b.input("x", rows(width))?;
                let targets = b.input("i", Spec::u32([Dim::TOKENS]))?;
                fused::cross_entropy(b, x, targets)
            }),
        );
    }
    for (causal, heads, kv_heads) in [(0, 4, 2), (1, 3, 3), (1, 4, 1)] {
        case(
            &format!("attend_within {causal}, {heads} heads on {kv_heads}"),
            plan(|b| {
                let tensor = |heads: u64| Spec::f32([Dim::TOKENS, heads.into(), width.into()]);
                let (q, k) = (b.input("q", tensor(heads))?, b.input("k", tensor(kv_heads))?);
                let v = b.input("v", tensor(kv_heads))?;
                let i = b.input("i", Spec::u32([Dim::TOKENS]))?;
                let attrs = Attrs::new().float("scale", 0.6).int("causal", causal);
                b.one(ops::ATTEND_WITHIN, &[q, k, v, i], attrs)
            }),
        );
    }
    cases
}
