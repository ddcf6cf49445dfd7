//! Ops on elements and rows of elements.

use kernels_cpu::{BinaryOp, Rhs, UnaryOp};
use plugin_api::plan::{OpId, ops};
use plugin_api::{DType, Error, Result};

use super::builder::{Builder, Value};
use super::lower::Call;
use crate::check::Check;
use crate::code::{BLOCK_ELEMENTS, CastTo, Element, Op, Place, ReduceKind, SlotId, Units};
use crate::execute::element_cost;
use crate::size::Size;

impl Builder<'_> {
    pub(super) fn unary(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let op = unary_of(call.op)?;
        let x = self.floats(call, 0)?;
        let out = self.scratch_for(call.result(0)?)?;
        let ns = BLOCK_ELEMENTS * element_cost(op) / 1024;
        self.emit_blocks(Op::Unary { op, x }, ns, &[x], out);
        Ok(out)
    }

    pub(super) fn shifted(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let (x, by) = (self.floats(call, 0)?, call.float("by")?);
        let out = self.scratch_for(call.result(0)?)?;
        let op = if call.op == ops::SCALE { Op::Scale { x, by } } else { Op::Offset { x, by } };
        self.emit_blocks(op, 100, &[x], out);
        Ok(out)
    }

    pub(super) fn binary(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let op = match call.op {
            ops::ADD => BinaryOp::Add,
            ops::SUB => BinaryOp::Sub,
            ops::MUL => BinaryOp::Mul,
            ops::DIV => BinaryOp::Div,
            ops::MAX => BinaryOp::Max,
            _ => BinaryOp::Min,
        };
        let (a_dims, b_dims) = (&call.spec(0)?.dims, &call.spec(1)?.dims);
        let rhs = if a_dims == b_dims {
            Rhs::Same
        } else if b_dims.len() == 1 && b_dims.last() == a_dims.last() {
            Rhs::Row
        } else {
            Rhs::Column
        };
        let [rows, width] = self.symbols.rows_width(call.spec(0)?)?;
        let (a, b) = (self.floats(call, 0)?, self.floats(call, 1)?);
        let out = self.scratch_for(call.result(0)?)?;
        let op = Op::Binary { op, a, b, rhs, width };
        if rhs == Rhs::Same {
            self.emit_blocks(op, 150, &[a, b], out);
        } else {
            let ns = self.row_ns(&width, 6);
            self.emit(op, Units::Count(rows), ns, &[a, b], &[(out, width)]);
        }
        Ok(out)
    }

    pub(super) fn reduce(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let kind = match call.op {
            ops::REDUCE_SUM => ReduceKind::Sum,
            ops::REDUCE_MEAN => ReduceKind::Mean,
            _ => ReduceKind::Max,
        };
        let [rows, width] = self.symbols.rows_width(call.spec(0)?)?;
        let x = self.floats(call, 0)?;
        let out = self.scratch_for(call.result(0)?)?;
        let (op, ns) = (Op::Reduce { kind, x, width }, self.row_ns(&width, 8));
        self.emit(op, Units::Count(rows), ns, &[x], &[(out, Size::fixed(1))]);
        Ok(out)
    }

    pub(super) fn softmax(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let [rows, width] = self.symbols.rows_width(call.spec(0)?)?;
        let x = self.floats(call, 0)?;
        let out = self.scratch_for(call.result(0)?)?;
        let (op, ns) = (Op::Softmax { x, width }, self.row_ns(&width, 1));
        self.emit(op, Units::Count(rows), ns, &[x], &[(out, width)]);
        Ok(out)
    }

    pub(super) fn top_k(&mut self, call: &Call<'_>) -> Result<[SlotId; 2]> {
        let [rows, width] = self.symbols.rows_width(call.spec(0)?)?;
        let (x, k) = (self.floats(call, 0)?, call.attrs.get_count("k")?);
        let values = self.scratch_for(call.result(0)?)?;
        let indices = self.scratch_for(call.result(1)?)?;
        let (op, ns) = (Op::TopK { x, width, k }, self.row_ns(&width, 4));
        let outputs = [(values, Size::fixed(k)), (indices, Size::fixed(k))];
        self.emit(op, Units::Count(rows), ns, &[x], &outputs);
        Ok([values, indices])
    }

    pub(super) fn gather(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let (x, indices) = (self.dense(call.arg(0)?)?, self.dense(call.arg(1)?)?);
        let [rows, width] = self.symbols.rows_width(call.spec(0)?)?;
        self.check(Check::Below { indices, end: rows });
        let out = self.scratch_for(call.result(0)?)?;
        let (units, ns) = (Units::Count(self.slots[indices].len), self.row_ns(&width, 8));
        self.emit(Op::Gather { x, indices, width }, units, ns, &[x, indices], &[(out, width)]);
        Ok(out)
    }

    pub(super) fn scatter_add(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let (base, updates) = (self.floats(call, 0)?, self.floats(call, 2)?);
        let indices = self.dense(call.arg(1)?)?;
        let [rows, width] = self.symbols.rows_width(call.spec(0)?)?;
        self.check(Check::Below { indices, end: rows });
        let out = self.scratch_for(call.result(0)?)?;
        let op = Op::ScatterAdd { base, indices, updates, width };
        self.emit_whole(op, &[base, indices, updates], &[out]);
        self.in_place_of(base);
        Ok(out)
    }

    pub(super) fn concat(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let axis = call.attrs.get_count("axis")?;
        let (mut parts, mut reads) = (Vec::new(), Vec::new());
        for (arg, spec) in call.args.iter().zip(&call.specs) {
            let slot = self.dense(*arg)?;
            parts.push((slot, self.symbols.size(spec.dims.get(axis..).unwrap_or_default())?));
            reads.push(slot);
        }
        let spec = call.result(0)?;
        let (outer, inner) = spec.dims.split_at(axis.min(spec.dims.len()));
        let (outer, inner) = (self.symbols.size(outer)?, self.symbols.size(inner)?);
        let out = self.scratch_for(spec)?;
        let ns = self.row_ns(&inner, 8);
        self.emit(Op::Concat { parts }, Units::Count(outer), ns, &reads, &[(out, inner)]);
        Ok(out)
    }

    pub(super) fn slice(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let (axis, start) = (call.attrs.get_count("axis")?, call.attrs.get_count("start")?);
        let dims = &call.spec(0)?.dims;
        if axis >= dims.len() {
            return Err(Error::shape(call.op, format!("an axis {axis}"), call.spec(0)?));
        }
        let outer = self.symbols.size(&dims[..axis])?;
        let (stride, inner) =
            (self.symbols.size(&dims[axis..])?, self.symbols.size(&dims[axis + 1..])?);
        let x = self.dense(call.arg(0)?)?;
        let spec = call.result(0)?;
        let per_unit = self.symbols.size(&spec.dims[axis..])?;
        let out = self.scratch_for(spec)?;
        let (op, ns) =
            (Op::Slice { x, stride, start: inner.times(start) }, self.row_ns(&per_unit, 8));
        self.emit(op, Units::Count(outer), ns, &[x], &[(out, per_unit)]);
        Ok(out)
    }

    pub(super) fn transpose(&mut self, call: &Call<'_>) -> Result<Value> {
        let (dims, axes) = (&call.spec(0)?.dims, call.attrs.get_ints("axes")?);
        let missing = 4_usize.checked_sub(dims.len());
        let missing = missing.ok_or_else(|| Error::unsupported(call.op, "more than four axes"))?;
        let (mut shape, mut order) = ([Size::fixed(1); 4], [0, 1, 2, 3]);
        for (i, (dim, &axis)) in dims.iter().zip(axes).enumerate() {
            shape[missing + i] = self.symbols.size(&[*dim])?;
            order[missing + i] = missing + axis.unsigned_abs() as usize;
        }
        let x = self.dense(call.arg(0)?)?;
        if axes == [1, 0] {
            return Ok(Value::Turned { slot: x, rows: shape[2], cols: shape[3] });
        }
        let out = self.scratch_for(call.result(0)?)?;
        self.emit_whole(Op::Transpose { x, shape, order }, &[x], &[out]);
        Ok(Value::Slot(out))
    }

    pub(super) fn cast(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let x = self.dense(call.arg(0)?)?;
        let spec = call.result(0)?;
        let to = match (self.slots[x].element, spec.dtype) {
            (Element::F32, DType::F32) | (Element::U32, DType::U32) => return Ok(x),
            (Element::F32, DType::F16) => CastTo::F16,
            (Element::F32, DType::BF16) => CastTo::BF16,
            (Element::F32, DType::U32) => CastTo::Index,
            (Element::U32, DType::F32) => CastTo::Real,
            (Element::U32, DType::F16) => CastTo::RealF16,
            (Element::U32, DType::BF16) => CastTo::RealBF16,
            (_, dtype) => return Err(Error::unsupported(call.op, format!("a cast to {dtype}"))),
        };
        let out = self.scratch_for(spec)?;
        self.emit_blocks(Op::Cast { x, to }, 500, &[x], out);
        Ok(out)
    }

    pub(super) fn constant(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let values = call.attrs.get_floats("values")?;
        let at = self.constants.len();
        self.constants.extend_from_slice(values);
        Ok(self.slot(Place::Constant(at), Element::F32, Size::fixed(values.len())))
    }

    /// The dense elements of argument `i`, which have to be floats.
    pub(super) fn floats(&mut self, call: &Call<'_>, i: usize) -> Result<SlotId> {
        let slot = self.dense(call.arg(i)?)?;
        if self.slots[slot].element == Element::F32 {
            Ok(slot)
        } else {
            Err(Error::unsupported(call.op, "floats as arguments"))
        }
    }

    /// Rough time of a row at `per_ns` elements in a nanosecond.
    pub(super) fn row_ns(&self, width: &Size, per_ns: usize) -> usize {
        self.symbols.max(width).unwrap_or(usize::MAX).div_ceil(per_ns)
    }
}

fn unary_of(op: OpId) -> Result<UnaryOp> {
    Ok(match op {
        ops::NEG => UnaryOp::Neg,
        ops::EXP => UnaryOp::Exp,
        ops::LOG => UnaryOp::Log,
        ops::SQRT => UnaryOp::Sqrt,
        ops::RSQRT => UnaryOp::Rsqrt,
        ops::IS_POSITIVE => UnaryOp::IsPositive,
        ops::TANH => UnaryOp::Tanh,
        ops::SIGMOID => UnaryOp::Sigmoid,
        ops::SILU => UnaryOp::Silu,
        ops::GELU => UnaryOp::Gelu,
        ops::GELU_TANH => UnaryOp::GeluTanh,
        ops::COS => UnaryOp::Cos,
        ops::SIN => UnaryOp::Sin,
        _ => return Err(Error::unsupported(format!("op `{op}`"), "a kernel")),
    })
}
