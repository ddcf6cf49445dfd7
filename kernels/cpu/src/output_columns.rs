//! A product's output, divided by columns.
//!
//! Threads that share the weights' panels write disjoint columns of one row-major `[rows, n]`
//! array, which no split of a slice can express. This view can: whoever holds one has the only
//! access to its columns.

use std::{marker::PhantomData, ops::Range};

/// Output columns of one weight panel; splits fall on its multiples.
pub const PANEL_ROWS: usize = crate::lanes::LANES;

/// Exclusive access to some columns of a row-major `[rows, n]` array.
#[derive(Debug)]
pub struct OutputColumns<'a> {
    start: *mut f32,
    rows: usize,
    n: usize,
    columns: Range<usize>,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view is exclusive access to plain floats, as `&mut [f32]` is, which is `Send`.
unsafe impl Send for OutputColumns<'_> {}

// SAFETY: `&OutputColumns` gives access to sizes only, but for `view`, whose caller answers for it.
unsafe impl Sync for OutputColumns<'_> {}

impl<'a> OutputColumns<'a> {
    /// All columns of `out`, `[out.len() / n, n]`.
    ///
    /// # Panics
    ///
    /// If `n` is 0 or `out` is not whole rows.
    pub fn new(out: &'a mut [f32], n: usize) -> Self {
        assert!(n > 0 && out.len().is_multiple_of(n), "OutputColumns: out is not [rows, n]");
        let rows = out.len() / n;
        Self { start: out.as_mut_ptr(), rows, n, columns: 0..n, lifetime: PhantomData }
    }

    /// `columns` of the `[rows, n]` array at `start`, for callers whose workers share a pointer.
    ///
    /// # Safety
    ///
    /// For all of `'a`, `start` points to `rows * n` floats, and nobody else uses their `columns`.
    ///
    /// # Panics
    ///
    /// If `columns` are not within the array.
    pub unsafe fn from_raw(start: *mut f32, rows: usize, n: usize, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= n, "OutputColumns: outside of n");
        Self { start, rows, n, columns, lifetime: PhantomData }
    }

    /// Rows of the array.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns that this view has access to.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// Columns of the array.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The columns before `column`, and those from it on.
    ///
    /// # Panics
    ///
    /// If `column` is not within the view.
    pub fn split_at(self, column: usize) -> (Self, Self) {
        let Range { start, end } = self.columns;
        assert!(start <= column && column <= end, "OutputColumns: the split is outside the view");
        (Self { columns: start..column, ..self }, Self { columns: column..end, ..self })
    }

    /// A view of `columns`, for workers that each know their share.
    ///
    /// # Safety
    ///
    /// While the result lives, nobody else uses these columns: not through another view, not
    /// through `self`.
    ///
    /// # Panics
    ///
    /// If `columns` are not within the view.
    pub unsafe fn view(&self, columns: Range<usize>) -> Self {
        let is_within = self.columns.start <= columns.start && columns.end <= self.columns.end;
        assert!(columns.start <= columns.end && is_within, "OutputColumns: outside the view");
        Self { columns, ..*self }
    }

    /// Fails unless the array is `[rows, n]` and the view is whole panels.
    pub(crate) fn assert_fits(&self, op: &str, rows: usize, n: usize) {
        assert!(self.rows == rows && self.n == n, "{op}: out is not [rows, n]");
        let Range { start, end } = self.columns;
        let is_whole = start.is_multiple_of(PANEL_ROWS);
        let is_whole = is_whole && (end.is_multiple_of(PANEL_ROWS) || end == n);
        assert!(is_whole, "{op}: columns {start}..{end} are not whole panels");
    }

    /// Some of the view's columns of one row.
    ///
    /// # Panics
    ///
    /// If `row` or `columns` are not within the view.
    pub fn row_mut(&mut self, row: usize, columns: Range<usize>) -> &mut [f32] {
        let is_within = self.columns.start <= columns.start && columns.end <= self.columns.end;
        assert!(columns.start <= columns.end && is_within, "OutputColumns: outside the view");
        assert!(row < self.rows, "OutputColumns: row {row} of {}", self.rows);
        // SAFETY: `start` points to `rows * n` floats that live and are exclusively borrowed for
        // `'a`; `row < rows` and `columns.end <= n`, so the range is inside them. Views of other
        // columns reach none of these floats, and `&mut self` keeps this view's users one.
        unsafe {
            let start = self.start.add(row * self.n + columns.start);
            std::slice::from_raw_parts_mut(start, columns.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_write_their_own_columns() {
        let mut out = [0.0; 6];
        let (mut left, mut right) = OutputColumns::new(&mut out, 3).split_at(1);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..2).for_each(|row| left.row_mut(row, 0..1).fill(1.0)));
            scope.spawn(|| (0..2).for_each(|row| right.row_mut(row, 1..3).fill(2.0)));
        });
        assert_eq!(out, [1.0, 2.0, 2.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    #[should_panic(expected = "outside the view")]
    fn refuses_foreign_columns() {
        let mut out = [0.0; 6];
        let (mut left, _right) = OutputColumns::new(&mut out, 3).split_at(1);
        left.row_mut(0, 0..2);
    }
}
