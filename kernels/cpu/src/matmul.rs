//! Matrix product of `f32` activations with float weights.
//!
//! One output is `acc = fma(w[j, i], x[r, i], acc)` for `i` in order, whatever tile computes it.

use std::ops::Range;

use crate::{
    float_panels::FloatPanels,
    isa::{Isa, Kernel, dispatch},
    lanes::{Element, Lanes},
    output_columns::{OutputColumns, PANEL_ROWS},
};

/// Writes `out[r, j] = sum over i of x[r, i] * w[j, i]` for the columns `j` of `out`.
///
/// | argument | shape       | dtype                                         |
/// |----------|-------------|-----------------------------------------------|
/// | `w`      | `[n, k]`    | `f32`, `f16`, `bf16`; see [`crate::pack_float`]|
/// | `x`      | `[rows, k]` | `f32`                                         |
/// | `out`    | `[rows, n]` | `f32`; the view's columns are written         |
///
/// Callers divide the work over threads by columns. An output's bits depend on its row of `x` and
/// its row of `w` only, and are the same on every instruction set.
///
/// # Panics
///
/// If the shapes do not fit, or the view begins or ends inside a panel of [`PANEL_ROWS`] columns
/// (the last one may be short).
pub fn matmul<W: Element>(isa: Isa, w: FloatPanels<'_, W>, x: &[f32], out: &mut OutputColumns<'_>) {
    assert_eq!(x.len(), out.rows() * w.k, "matmul: x is not [rows, k]");
    out.assert_fits("matmul", out.rows(), w.n);
    dispatch(isa, Product::<W, false> { w, x, out });
}

/// Elements of a sum that are added before another tile begins: two panels of them and what eight rows bring lie
/// in the first-level cache for all rows.
const CHUNK: usize = 256;

/// A product whose arguments have been checked. `x` is `[rows, k]`, or panels of its rows if it is `TURNED`.
pub(crate) struct Product<'a, 'b, W, const TURNED: bool> {
    pub(crate) w: FloatPanels<'a, W>,
    pub(crate) x: &'a [f32],
    pub(crate) out: &'a mut OutputColumns<'b>,
}

impl<W: Element, const TURNED: bool> Kernel for Product<'_, '_, W, TURNED> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        let columns = self.out.columns();
        let end = columns.end.div_ceil(PANEL_ROWS);
        let mut panel = columns.start / PANEL_ROWS;
        // One row needs many panels at a time to hide the latency of its sums; many rows do not.
        while panel < end {
            panel += if end - panel >= 4 && self.out.rows() == 1 {
                self.panels::<L, 4>(panel)
            } else if end - panel >= 2 {
                self.panels::<L, 2>(panel)
            } else {
                self.panels::<L, 1>(panel)
            };
        }
    }
}

impl<W: Element, const TURNED: bool> Product<'_, '_, W, TURNED> {
    /// Computes all rows of `P` panels' columns; returns `P`.
    #[inline(always)]
    fn panels<L: Lanes, const P: usize>(&mut self, panel: usize) -> usize {
        let k = self.w.k;
        let chunk = if self.out.rows() >= 8 { CHUNK } else { k.max(1) };
        let mut start = 0;
        loop {
            let end = k.min(start + chunk);
            self.rows::<L, P>(panel, start..end);
            start = end;
            if start == k {
                return P;
            }
        }
    }

    /// Adds some elements of the sums of all rows.
    #[inline(always)]
    fn rows<L: Lanes, const P: usize>(&mut self, panel: usize, part: Range<usize>) {
        let mut row = 0;
        while row < self.out.rows() {
            let left = self.out.rows() - row;
            row += if left >= 8 && L::TILE_ROWS >= 8 && P <= 2 {
                self.tile::<L, P, 8>(panel, row, part.clone())
            } else if left >= 2 && P <= 2 {
                self.tile::<L, P, 2>(panel, row, part.clone())
            } else {
                self.tile::<L, P, 1>(panel, row, part.clone())
            };
        }
    }

    /// Adds some elements of the sums of `R` rows of `P` panels' columns; returns `R`.
    #[inline(always)]
    fn tile<L: Lanes, const P: usize, const R: usize>(
        &mut self,
        panel: usize,
        row: usize,
        part: Range<usize>,
    ) -> usize {
        let k = self.w.k;
        let w: [_; P] = std::array::from_fn(|p| &self.w.panel(panel + p)[part.clone()]);
        let x: [_; R] = std::array::from_fn(|r| match TURNED {
            true => &[],
            false => &self.x[(row + r) * k..][part.clone()],
        });
        // Tiles begin at multiples of their rows: their panel holds all of them.
        let turned: &[[f32; PANEL_ROWS]] = match TURNED {
            true => &self.x[row / PANEL_ROWS * PANEL_ROWS * k..].as_chunks().0[part.clone()],
            false => &[],
        };
        let lane = row % PANEL_ROWS;
        let mut sums = self.sums::<L, P, R>(panel, row, part.start == 0);
        for i in 0..part.len() {
            let mut column = [L::splat(0.0); P];
            for p in 0..P {
                column[p] = W::load(&w[p][i]);
            }
            let factors: [f32; R] = match TURNED {
                true => std::array::from_fn(|r| turned[i][lane..][..R][r]),
                false => std::array::from_fn(|r| x[r][i]),
            };
            for r in 0..R {
                let x = L::splat(factors[r]);
                for p in 0..P {
                    sums[r][p] = column[p].fma(x, sums[r][p]);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                let out = self.out_mut(panel + p, row + r);
                match out.first_chunk_mut() {
                    Some(out) => sum.store(out),
                    None => sum.store_part(out),
                }
            }
        }
        R
    }

    /// The sums so far of a tile.
    #[inline(always)]
    fn sums<L: Lanes, const P: usize, const R: usize>(
        &mut self,
        panel: usize,
        row: usize,
        is_first: bool,
    ) -> [[L; P]; R] {
        let mut sums = [[L::splat(0.0); P]; R];
        if is_first {
            return sums;
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            for (p, sum) in sums.iter_mut().enumerate() {
                let out = self.out_mut(panel + p, row + r);
                *sum = match out.first_chunk() {
                    Some(out) => L::load(out),
                    None => L::load_part(out, 0.0),
                };
            }
        }
        sums
    }

    /// The columns of a panel in one row of the result.
    #[inline(always)]
    fn out_mut(&mut self, panel: usize, row: usize) -> &mut [f32] {
        let first = panel * PANEL_ROWS;
        self.out.row_mut(row, first..(first + PANEL_ROWS).min(self.w.n))
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::{
        pack_float,
        testing::{bits, doubles, floats, isas},
    };

    fn run<W: Element>(
        isa: Isa,
        panels: &[W],
        x: &[f32],
        n: usize,
        k: usize,
        split: usize,
    ) -> Vec<f32> {
        let mut out = vec![f32::NAN; x.len() / k * n];
        let w = FloatPanels::new(panels, n, k);
        let (mut left, mut right) = OutputColumns::new(&mut out, n).split_at(split);
        matmul(isa, w, x, &mut left);
        matmul(isa, w, x, &mut right);
        out
    }

    fn check<W: Element>() {
        for (rows, n, k) in [
            (1, 1, 1),
            (1, 150, 7),
            (2, 16, 8),
            (3, 17, 9),
            (17, 63, 63),
            (9, 40, 257),
            (8, 33, 600),
        ] {
            let x = floats(rows * k, 1);
            let w: Vec<W> = floats(n * k, 2).into_iter().map(W::from_f32).collect();
            let exact: Vec<f64> = w.iter().map(|w| f64::from(w.to_f32())).collect();
            let mut expected = vec![0.0_f64; rows * n];
            kernels_reference::matmul(&doubles(&x), &exact, [rows, n, k], &mut expected);
            let mut panels = vec![W::ZERO; n.next_multiple_of(PANEL_ROWS) * k];
            pack_float(&w, n, k, &mut panels);
            let first = run(Isa::Scalar, &panels, &x, n, k, 0);
            for (found, expected) in first.iter().zip(expected) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= 4e-6 * k as f64, "{rows} {n} {k}: {found}, not {expected}");
            }
            for isa in isas() {
                let found = run(isa, &panels, &x, n, k, n / 2 / PANEL_ROWS * PANEL_ROWS);
                assert_eq!(bits(&found), bits(&first), "{isa:?} {rows} {n} {k}");
                for row in 0..rows {
                    let alone = run(isa, &panels, &x[row * k..][..k], n, k, 0);
                    assert_eq!(bits(&alone), bits(&first[row * n..][..n]), "{isa:?} row {row}");
                }
            }
        }
    }

    #[test]
    fn is_the_product_with_equal_bits_for_every_isa_split_and_row_count() {
        check::<f32>();
        check::<f16>();
        check::<bf16>();
    }

    #[test]
    #[should_panic(expected = "not whole panels")]
    fn refuses_a_split_inside_a_panel() {
        let panels = vec![0.0_f32; 32];
        run(Isa::Scalar, &panels, &[1.0], 20, 1, 3);
    }
}
