//! Ops of training on rows of elements.

use plugin_api::{Error, Result};

use super::builder::Builder;
use super::lower::Call;
use crate::check::Check;
use crate::code::{Element, Op, ROW_COLUMNS, SlotId, Units};
use crate::size::Size;

impl Builder<'_> {
    /// The sum over all rows, divided by columns.
    pub(super) fn reduce_rows(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let [rows, width] = self.symbols.rows_width(call.spec(0)?)?;
        let x = self.floats(call, 0)?;
        let Some(columns) = width.as_fixed() else {
            return Err(Error::shape(call.op, "rows of a fixed width", call.spec(0)?));
        };
        let out = self.scratch_for(call.result(0)?)?;
        let units = Units::Count(Size::fixed(columns.div_ceil(ROW_COLUMNS)));
        let ns = self.row_ns(&rows.times(ROW_COLUMNS), 8);
        let outputs = [(out, Size::fixed(ROW_COLUMNS))];
        self.emit(Op::ReduceRows { x, width }, units, ns, &[x], &outputs);
        Ok(out)
    }

    pub(super) fn full_like(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let value = call.float("value")?;
        let out = self.scratch_for(call.result(0)?)?;
        if self.slots[out].element != Element::F32 {
            return Err(Error::unsupported(call.op, "floats as arguments"));
        }
        self.emit_blocks(Op::Fill { value }, 60, &[], out);
        Ok(out)
    }

    pub(super) fn take_along(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let (x, (indices, rows, widths)) = (self.floats(call, 0)?, self.along(call)?);
        let out = self.scratch_for(call.result(0)?)?;
        let op = Op::TakeAlong { x, indices, widths };
        self.emit(op, Units::Count(rows), 8, &[x, indices], &[(out, widths[1])]);
        Ok(out)
    }

    pub(super) fn scatter_along(&mut self, call: &Call<'_>) -> Result<SlotId> {
        let (base, updates) = (self.floats(call, 0)?, self.floats(call, 2)?);
        let (indices, rows, widths) = self.along(call)?;
        let out = self.scratch_for(call.result(0)?)?;
        let op = Op::ScatterAlong { base, indices, updates, widths };
        let (reads, ns) = ([base, indices, updates], self.row_ns(&widths[0], 8));
        self.emit(op, Units::Count(rows), ns, &reads, &[(out, widths[0])]);
        self.in_place_of(base);
        Ok(out)
    }

    /// Indices into each row, the rows, and how many elements they and those of the indices have.
    fn along(&mut self, call: &Call<'_>) -> Result<(SlotId, Size, [Size; 2])> {
        let indices = self.dense(call.arg(1)?)?;
        let [rows, width] = self.symbols.rows_width(call.spec(0)?)?;
        let [_, picked] = self.symbols.rows_width(call.spec(1)?)?;
        self.check(Check::Below { indices, end: width });
        Ok((indices, rows, [width, picked]))
    }
}
