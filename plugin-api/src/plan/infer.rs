//! The shape that an op gives: where mistakes in a trace are found and named.

use super::ops::{self, Attrs, OpId};
use super::spec::{Dim, Spec};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// Specs of the results of `op`.
///
/// # Errors
///
/// [`Error::ShapeMismatch`] or [`Error::Malformed`] that names the op; [`Error::NotFound`] for an
/// op outside the vocabulary.
pub(super) fn infer(op: OpId, inputs: &[&Spec], attrs: &Attrs) -> Result<Vec<Spec>> {
    let one = |spec| Ok(vec![spec]);
    match op {
        ops::EMBED => {
            let [table, ids] = take(op, inputs)?;
            one(rows_of(op, table, ids)?)
        }
        ops::GATHER => {
            let [x, indices] = take(op, inputs)?;
            one(rows_of(op, x, indices)?)
        }
        ops::MATMUL => one(matmul(op, inputs)?),
        ops::ADD | ops::SUB | ops::MUL | ops::DIV | ops::MAX | ops::MIN => one(binary(op, inputs)?),
        ops::NEG
        | ops::EXP
        | ops::LOG
        | ops::SQRT
        | ops::RSQRT
        | ops::TANH
        | ops::SIGMOID
        | ops::SILU
        | ops::GELU
        | ops::GELU_TANH
        | ops::SOFTMAX
        | ops::COS
        | ops::ERF
        | ops::IS_POSITIVE
        | ops::SIN => {
            let [x] = take(op, inputs)?;
            one(x.clone())
        }
        ops::SCALE | ops::OFFSET => {
            let [x] = take(op, inputs)?;
            attrs.get_float("by")?;
            one(x.clone())
        }
        ops::FULL_LIKE => {
            let [x] = take(op, inputs)?;
            attrs.get_float("value")?;
            one(x.clone())
        }
        ops::MATMUL_EXPERTS => one(matmul_experts(op, inputs)?),
        ops::MATMUL_ROWS => one(matmul_rows(op, inputs)?),
        ops::REDUCE_ROWS => {
            let [x] = take(op, inputs)?;
            match x.width()? {
                0 => Err(Error::shape(op, "rows of one element or more", x)),
                width => one(Spec::new(x.dtype, [width.into()])),
            }
        }
        ops::TAKE_ALONG => {
            let [x, indices] = take(op, inputs)?;
            one(along(op, x, indices)?)
        }
        ops::SCATTER_ALONG => {
            let [base, indices, updates] = take(op, inputs)?;
            let expected = along(op, base, indices)?;
            if expected != *updates {
                return Err(Error::shape(op, expected, updates));
            }
            one(base.clone())
        }
        ops::REDUCE_SUM | ops::REDUCE_MEAN | ops::REDUCE_MAX => {
            let [x] = take(op, inputs)?;
            one(with_width(x, 1)?)
        }
        ops::TOP_K => {
            let [x] = take(op, inputs)?;
            let k = attrs.get_count("k")? as u64;
            if k > x.width()? {
                return Err(Error::shape(op, format!("at most {} of a row", x.width()?), k));
            }
            let values = with_width(x, k)?;
            let indices = Spec::new(DType::U32, values.dims.clone());
            Ok(vec![values, indices])
        }
        ops::SCATTER_ADD => {
            let [base, indices, updates] = take(op, inputs)?;
            if rows_of(op, base, indices)?.dims != updates.dims {
                return Err(Error::shape(op, rows_of(op, base, indices)?, updates));
            }
            one(base.clone())
        }
        ops::CONCAT => one(concat(op, inputs, attrs)?),
        ops::SLICE => one(slice(op, inputs, attrs)?),
        ops::RESHAPE => one(reshape(op, inputs, attrs)?),
        ops::TRANSPOSE => one(transpose(op, inputs, attrs)?),
        ops::CAST => {
            let [x] = take(op, inputs)?;
            let name = attrs.get_text("dtype")?;
            let dtype = DType::ALL.iter().find(|(dtype, _)| dtype.to_string() == name);
            let (dtype, _) = dtype.ok_or_else(|| Error::malformed(op, "a dtype", name))?;
            one(Spec::new(*dtype, x.dims.clone()))
        }
        ops::CONSTANT => {
            let values = attrs.get_floats("values")?;
            one(Spec::f32([Dim::Fixed(values.len() as u64)]))
        }
        ops::ATTEND => one(attend(op, inputs, attrs)?),
        ops::CAUSAL_CONV => one(causal_conv(op, inputs, attrs)?),
        ops::SELECTIVE_SCAN => one(selective_scan(op, inputs, attrs)?),
        ops::ATTEND_WITHIN => one(attend_within(op, inputs, attrs)?),
        ops::ATTEND_WITHIN_GRAD => {
            let [q, k, v, sequence_index, grad] = take(op, inputs)?;
            let result = attend_within(op, &[q, k, v, sequence_index], attrs)?;
            if result != *grad {
                return Err(Error::shape(op, result, grad));
            }
            Ok(vec![q.clone(), k.clone(), v.clone()])
        }
        _ => Err(Error::NotFound {
            kind: "op".to_owned(),
            name: op.to_string(),
            known: ops::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        }),
    }
}

fn take<'a, const N: usize>(op: OpId, inputs: &[&'a Spec]) -> Result<[&'a Spec; N]> {
    <[&Spec; N]>::try_from(inputs)
        .map_err(|_| Error::shape(op, format!("{N} inputs"), format!("{}", inputs.len())))
}

fn rows_of(op: OpId, x: &Spec, indices: &Spec) -> Result<Spec> {
    let ([_, width], [count], DType::U32) = (&x.dims[..], &indices.dims[..], indices.dtype) else {
        return Err(Error::shape(op, "[rows, width] and u32[n]", format!("{x} and {indices}")));
    };
    Ok(Spec::new(x.dtype, [*count, *width]))
}

fn matmul(op: OpId, inputs: &[&Spec]) -> Result<Spec> {
    let [x, w] = take(op, inputs)?;
    match &w.dims[..] {
        [n, k] if x.dims.last() == Some(k) => {
            let mut dims = x.dims.clone();
            dims.pop();
            dims.push(*n);
            Ok(Spec::new(x.dtype, dims))
        }
        _ => Err(Error::shape(op, "x [.., k] and w [n, k]", format!("{x} and {w}"))),
    }
}

fn matmul_experts(op: OpId, inputs: &[&Spec]) -> Result<Spec> {
    let [x, w, chosen] = take(op, inputs)?;
    if let ([tokens, choices], DType::U32) = (&chosen.dims[..], chosen.dtype)
        && let [Dim::Fixed(1..), n, k] = &w.dims[..]
        && (x.dims[..] == [*tokens, *k] || x.dims[..] == [*tokens, *choices, *k])
        && x.dtype == w.dtype
    {
        return Ok(Spec::new(x.dtype, [*tokens, *choices, *n]));
    }
    let expected = "x [t, k] or [t, c, k], w [experts, n, k] and u32[t, c]";
    Err(Error::shape(op, expected, format!("{x}, {w} and {chosen}")))
}

fn matmul_rows(op: OpId, inputs: &[&Spec]) -> Result<Spec> {
    let [a, b] = take(op, inputs)?;
    match (a.dims.split_last(), b.dims.split_last()) {
        (Some((n, rows)), Some((k, others))) if rows == others && a.dtype == b.dtype => {
            Ok(Spec::new(a.dtype, [*n, *k]))
        }
        _ => Err(Error::shape(op, "a [.., n] and b [.., k]", format!("{a} and {b}"))),
    }
}

/// What `indices` pick of each row of `x`.
fn along(op: OpId, x: &Spec, indices: &Spec) -> Result<Spec> {
    let rows = |spec: &Spec| spec.dims.split_last().map(|(_, rows)| rows.to_vec());
    if rows(x).is_none() || rows(x) != rows(indices) || indices.dtype != DType::U32 {
        let expected = "x [.., width] and u32[.., k]";
        return Err(Error::shape(op, expected, format!("{x} and {indices}")));
    }
    Ok(Spec::new(x.dtype, indices.dims.clone()))
}

fn binary(op: OpId, inputs: &[&Spec]) -> Result<Spec> {
    let [a, b] = take(op, inputs)?;
    let is_row = b.dims.len() == 1 && b.dims.last() == a.dims.last();
    let is_per_row = b.dims.len() == a.dims.len()
        && b.dims.last() == Some(&Dim::Fixed(1))
        && b.dims[..b.dims.len() - 1] == a.dims[..a.dims.len() - 1];
    if a.dtype == b.dtype && (a.dims == b.dims || is_row || is_per_row) {
        Ok(a.clone())
    } else {
        Err(Error::shape(op, format!("{a} and the same, one row or one column"), b))
    }
}

fn with_width(x: &Spec, width: u64) -> Result<Spec> {
    x.width()?;
    let mut spec = x.clone();
    if let Some(last) = spec.dims.last_mut() {
        *last = Dim::Fixed(width);
    }
    Ok(spec)
}

fn axis_of(op: OpId, x: &Spec, attrs: &Attrs) -> Result<(usize, u64)> {
    let axis = attrs.get_count("axis")?;
    match x.dims.get(axis) {
        Some(Dim::Fixed(n)) => Ok((axis, *n)),
        _ => Err(Error::shape(op, format!("a fixed axis {axis}"), x)),
    }
}

fn concat(op: OpId, inputs: &[&Spec], attrs: &Attrs) -> Result<Spec> {
    let first = inputs.first().ok_or_else(|| Error::shape(op, "inputs", "none"))?;
    let mut joined = (*first).clone();
    let mut total = 0_u64;
    for x in inputs {
        let (axis, n) = axis_of(op, x, attrs)?;
        total = total.checked_add(n).ok_or_else(|| Error::shape(op, "a size", x))?;
        joined.dims[axis] = x.dims[axis];
        if joined.dims != x.dims || joined.dtype != x.dtype {
            return Err(Error::shape(op, first, x));
        }
    }
    joined.dims[attrs.get_count("axis")?] = Dim::Fixed(total);
    Ok(joined)
}

fn slice(op: OpId, inputs: &[&Spec], attrs: &Attrs) -> Result<Spec> {
    let [x] = take(op, inputs)?;
    let (axis, n) = axis_of(op, x, attrs)?;
    let (start, len) = (attrs.get_count("start")? as u64, attrs.get_count("len")? as u64);
    if start.checked_add(len).is_none_or(|end| end > n) {
        return Err(Error::shape(op, format!("a part of {n}"), format!("{start} + {len}")));
    }
    let mut spec = x.clone();
    spec.dims[axis] = Dim::Fixed(len);
    Ok(spec)
}

fn reshape(op: OpId, inputs: &[&Spec], attrs: &Attrs) -> Result<Spec> {
    let [x] = take(op, inputs)?;
    let wanted = attrs.get_ints("dims")?;
    let mut dims = Vec::with_capacity(wanted.len());
    for (i, &n) in wanted.iter().enumerate() {
        dims.push(match (i, n) {
            (0, -1) => *x.dims.first().ok_or_else(|| Error::shape(op, "an axis to keep", x))?,
            (_, 1..) => Dim::Fixed(n.unsigned_abs()),
            _ => return Err(Error::shape(op, "positive extents, -1 first only", n)),
        });
    }
    // Symbols may not be merged or split, so the fixed extents must agree on their own.
    let fixed = |dims: &[Dim]| {
        let mut sizes = dims.iter().filter_map(|dim| dim.fixed());
        sizes.try_fold(1_u64, u64::checked_mul)
    };
    let symbols =
        |dims: &[Dim]| dims.iter().copied().filter(|dim| dim.fixed().is_none()).collect::<Vec<_>>();
    let spec = Spec::new(x.dtype, dims);
    if fixed(&spec.dims) != fixed(&x.dims) || symbols(&spec.dims) != symbols(&x.dims) {
        return Err(Error::shape(op, format!("the elements of {x}"), &spec));
    }
    Ok(spec)
}

fn transpose(op: OpId, inputs: &[&Spec], attrs: &Attrs) -> Result<Spec> {
    let [x] = take(op, inputs)?;
    let axes = attrs.get_ints("axes")?;
    let mut sorted: Vec<i64> = axes.to_vec();
    sorted.sort_unstable();
    if !sorted.into_iter().eq((0..).take(x.dims.len())) {
        return Err(Error::shape(op, format!("a permutation for {x}"), format!("{axes:?}")));
    }
    let dims: Vec<Dim> = axes.iter().map(|&axis| x.dims[axis.unsigned_abs() as usize]).collect();
    Ok(Spec::new(x.dtype, dims))
}

fn attend(op: OpId, inputs: &[&Spec], attrs: &Attrs) -> Result<Spec> {
    let (inputs, sinks) = match inputs {
        [first @ .., sinks] if first.len() == 7 => (first, Some(*sinks)),
        all => (all, None),
    };
    let [q, k, v, _state, positions, sequence_index, block_table] = take(op, inputs)?;
    attrs.get_float("scale")?;
    attrs.get_float("softcap")?;
    attrs.get_count_or_zero("chunk")?;
    if !(heads_fit(q, k, v) && is_index(positions, q) && is_index(sequence_index, q))
        || block_table.dims.len() != 2
    {
        let expected = "q [t, h, d], k and v [t, g, d] with g dividing h, u32[t] twice, u32[s, b]";
        let found = format!("{q}, {k}, {v}, {positions}, {sequence_index}, {block_table}");
        return Err(Error::shape(op, expected, found));
    }
    if let Some(sinks) = sinks.filter(|sinks| **sinks != Spec::new(q.dtype, [q.dims[1]])) {
        return Err(Error::shape(op, format!("a sink for each head of {q}"), sinks));
    }
    let mut result = q.clone();
    match (attrs.get_count_or_zero("value_dim")? as u64, q.width()?) {
        (0, _) => {}
        (width, head_dim) if width <= head_dim => result.dims[2] = width.into(),
        (width, head_dim) => {
            return Err(Error::shape(op, format!("values of at most {head_dim}"), width));
        }
    }
    Ok(result)
}

fn causal_conv(op: OpId, inputs: &[&Spec], attrs: &Attrs) -> Result<Spec> {
    let [x, w, _state, positions, sequence_index, block_table] = take(op, inputs)?;
    attrs.get_count("part")?;
    if let ([_, width], [rows, Dim::Fixed(1..)]) = (&x.dims[..], &w.dims[..])
        && width == rows
        && is_index(positions, x)
        && is_index(sequence_index, x)
        && block_table.dims.len() == 2
    {
        return Ok((*x).clone());
    }
    let expected = "x [t, c], w [c, n], u32[t] twice, u32[s, b]";
    let found = format!("{x}, {w}, {positions}, {sequence_index}, {block_table}");
    Err(Error::shape(op, expected, found))
}

fn selective_scan(op: OpId, inputs: &[&Spec], attrs: &Attrs) -> Result<Spec> {
    let [x, dt, a, b, c, _state, positions, sequence_index, block_table] = take(op, inputs)?;
    attrs.get_count("part")?;
    if let ([tokens, width], [rows, n]) = (&x.dims[..], &a.dims[..])
        && (x.dims == dt.dims && width == rows && b.dims == c.dims && b.dims == [*tokens, *n])
        && is_index(positions, x)
        && is_index(sequence_index, x)
        && block_table.dims.len() == 2
    {
        return Ok((*x).clone());
    }
    let expected = "x and dt [t, c], a [c, n], b and c [t, n], u32[t] twice, u32[s, b]";
    let found = format!("{x}, {dt}, {a}, {b}, {c}, {positions}, {sequence_index}, {block_table}");
    Err(Error::shape(op, expected, found))
}

fn attend_within(op: OpId, inputs: &[&Spec], attrs: &Attrs) -> Result<Spec> {
    let [q, k, v, sequence_index] = take(op, inputs)?;
    attrs.get_float("scale")?;
    ops::is_causal(attrs)?;
    if !(heads_fit(q, k, v) && is_index(sequence_index, q)) {
        let expected = "q [t, h, d], k and v [t, g, d] with g dividing h, u32[t]";
        return Err(Error::shape(op, expected, format!("{q}, {k}, {v}, {sequence_index}")));
    }
    Ok(q.clone())
}

/// Whether these are queries, keys and values of the same tokens.
fn heads_fit(q: &Spec, k: &Spec, v: &Spec) -> bool {
    let ([tq, hq, dq], [tk, hk, dk]) = (&q.dims[..], &k.dims[..]) else { return false };
    let heads_fit = match (hq.fixed(), hk.fixed()) {
        (Some(h), Some(g)) => g > 0 && h.is_multiple_of(g),
        _ => false,
    };
    tq == tk && dq == dk && heads_fit && k.dims == v.dims
}

/// Whether `spec` is an index for each row of `x`.
fn is_index(spec: &Spec, x: &Spec) -> bool {
    spec.dtype == DType::U32 && spec.dims[..] == x.dims[..1]
}
