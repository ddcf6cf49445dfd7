//! GPTQ: columns are rounded one after the other, and what each rounding loses is made up for in those that follow.
//!
//! Source: Frantar et al., "GPTQ", arXiv:2210.17323; order and damping as in the authors' code.

mod cholesky;

use plugin_api::prelude::*;

use cholesky::inverse_factor;

/// Rounds by the second moments of the inputs.
#[derive(Debug)]
pub struct Gptq {
    /// What is added to the diagonal, of its mean.
    damping: f64,
    /// Whether columns that matter most are rounded first.
    has_order: bool,
    /// Whether scales are those of the weights as they came, not as earlier columns changed them.
    has_static_groups: bool,
}

impl Capability for Gptq {
    const NAME: &'static str = "gptq";

    fn from_config(config: &Config) -> Result<Self> {
        let has_order = config.flag_or("act_order", true)?;
        let has_static_groups = config.flag_or("static_groups", true)?;
        if has_order && !has_static_groups {
            let expected = "true with act_order: columns of a group are not rounded together";
            return Err(config.wrong("static_groups", expected, config.get("static_groups")));
        }
        let damping = config.number_or("damping", 0.01, 1e-6..=1.0)?;
        Ok(Self { damping, has_order, has_static_groups })
    }
}

impl Compressor for Gptq {
    fn needs_moments(&self) -> bool {
        true
    }

    fn compress(&mut self, products: &Products<'_>) -> Result<Compressed> {
        products.check()?;
        let grid = products.needs_grid()?;
        let (cols, moments) = (products.input.mean_abs.len(), products.input.moments);
        if moments.is_empty() {
            return Err(Error::shape("moments", format!("{cols} by {cols}"), "none"));
        }
        let order = self.order(moments, cols);
        let factor = self.factor(moments, &order)?;
        let rounding = Rounding { gptq: self, grid, order: &order, factor: &factor };
        let dead: Vec<usize> = (0..cols).filter(|col| moments[col * cols + col] <= 0.0).collect();
        let round = |weight: &Matrix<'_>| {
            let groups = weight.values.len() / grid.group;
            let mut codes = vec![0; weight.values.len()];
            let mut scales = vec![(0.0, 0.0); groups];
            let rows = weight.values.chunks_exact(cols);
            let places = codes.chunks_exact_mut(cols).zip(scales.chunks_mut(cols / grid.group));
            for (row, (codes, scales)) in rows.zip(places) {
                let mut row = row.to_vec();
                dead.iter().for_each(|&col| row[col] = 0.0);
                rounding.row(&row, codes, scales);
            }
            let mins = scales.iter().filter(|_| grid.has_min).map(|(_, min)| *min).collect();
            let scales = scales.iter().map(|(scale, _)| *scale).collect();
            Chosen::Codes { codes, scales, mins }
        };
        let weights = products.weights.iter().map(round).collect();
        Ok(Compressed { input_scale: Vec::new(), weights })
    }
}

impl Gptq {
    /// Columns in the order that they are rounded in.
    fn order(&self, moments: &[f32], cols: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..cols).collect();
        if self.has_order {
            let of = |col: &usize| moments[col * cols + col];
            order.sort_by(|a, b| of(b).total_cmp(&of(a)));
        }
        order
    }

    /// The upper Cholesky factor of the inverse of the moments, damped, in this order: row-major. More damping is tried until
    /// there is one.
    fn factor(&self, moments: &[f32], order: &[usize]) -> Result<Vec<f64>> {
        let cols = order.len();
        let at = |i: usize, j: usize| f64::from(moments[order[i] * cols + order[j]]);
        // A channel that was always 0 says nothing: any number on its diagonal will do.
        let diagonal = |i: usize| if at(i, i) > 0.0 { at(i, i) } else { 1.0 };
        let mean = (0..cols).map(diagonal).sum::<f64>() / cols as f64;
        let mut damping = self.damping * mean;
        for _ in 0..TRIES {
            let mut damped: Vec<f64> = (0..cols * cols).map(|n| at(n / cols, n % cols)).collect();
            for i in 0..cols {
                damped[i * cols + i] = diagonal(i) + damping;
            }
            if let Some(factor) = inverse_factor(damped, cols) {
                return Ok(factor);
            }
            damping *= 10.0;
        }
        Err(Error::malformed("moments", "those of activations, finite", "others"))
    }
}

/// How rows are rounded.
struct Rounding<'a> {
    gptq: &'a Gptq,
    grid: Grid,
    order: &'a [usize],
    factor: &'a [f64],
}

impl Rounding<'_> {
    /// Rounds one row; `codes` and `scales` are in the order of the columns.
    fn row(&self, row: &[f32], codes: &mut [u8], scales: &mut [(f32, f32)]) {
        let (grid, cols) = (self.grid, row.len());
        if self.gptq.has_static_groups {
            for (part, scale) in row.chunks_exact(grid.group).zip(&mut *scales) {
                *scale = grid.fit(part.iter().copied(), 1.0);
            }
        }
        // In the order of rounding.
        let mut left: Vec<f64> = self.order.iter().map(|&col| f64::from(row[col])).collect();
        for (i, &col) in self.order.iter().enumerate() {
            let group = col / grid.group;
            if !self.gptq.has_static_groups && col % grid.group == 0 {
                let part = left[i..][..grid.group].iter();
                scales[group] = grid.fit(part.map(|&x| x as f32), 1.0);
            }
            let (scale, min) = scales[group];
            codes[col] = grid.code(left[i] as f32, scale, min);
            let back = f64::from(grid.value(codes[col], scale, min));
            let line = &self.factor[i * cols..][..cols];
            let error = (left[i] - back) / line[i];
            let rest = left[i + 1..].iter_mut().zip(&line[i + 1..]);
            rest.for_each(|(x, by)| *x -= error * by);
        }
    }
}

/// How often damping grows tenfold.
const TRIES: usize = 8;

export_plugin!(Gptq);

#[cfg(test)]
mod tests {
    use plugin_api::testing::compressor::{self, Case};

    use super::*;

    fn made(order: bool, groups: bool) -> Gptq {
        let config = Config::new().with("act_order", order).with("static_groups", groups);
        Gptq::from_config(&config).unwrap()
    }

    #[test]
    fn passes_the_contract_suite() {
        compressor::suite::<Gptq>(&Config::new());
    }

    #[test]
    fn loses_less_than_rounding_in_every_order() {
        for (order, groups) in [(true, true), (false, true), (false, false)] {
            for bits in [3, 4, 8] {
                for seed in 0..4 {
                    let case = Case::new(seed, 24, 64, bits);
                    let found = made(order, groups).compress(&case.products()).unwrap();
                    let (found, plain) = (case.loss(&found), case.loss_of_rounding());
                    assert!(found < 0.9 * plain, "{order} {groups} {bits}: {found} {plain}");
                }
            }
        }
    }

    #[test]
    fn channels_without_moments_take_no_part() {
        let mut case = Case::new(1, 8, 64, 4);
        case.silence(5);
        let found = made(true, true).compress(&case.products()).unwrap();
        assert!(case.loss(&found).is_finite());
        let [Chosen::Codes { codes, .. }] = &found.weights[..] else { panic!("codes") };
        assert!(codes.iter().skip(5).step_by(64).all(|code| *code == 8), "{codes:?}");
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let config = Config::new().with("act_order", true).with("static_groups", false);
        let error = Gptq::from_config(&config).unwrap_err().to_string();
        assert!(error.contains("static_groups"), "{error}");
    }

    #[test]
    fn what_one_column_loses_the_next_makes_up_for() {
        let grid = Grid { bits: 2, group: 4, zero_point: 2, has_min: false, is_half: false };
        let (stats, values) = ([1.0; 4], [-2.0, 0.4, 0.4, 0.0]);
        // The two in the middle are always nearly equal.
        #[rustfmt::skip]
        let moments = [
            1.0, 0.0,   0.0,   0.0,
            0.0, 1.0,   0.999, 0.0,
            0.0, 0.999, 1.0,   0.0,
            0.0, 0.0,   0.0,   1.0,
        ];
        let input = Input { tokens: 9, mean_abs: &stats, max_abs: &stats, moments: &moments };
        let weights = vec![Matrix { name: "w", rows: 1, cols: 4, values: &values }];
        let products = Products { input, weights, grid: Some(grid), can_scale: false };
        let found = made(false, true).compress(&products).unwrap();
        let [Chosen::Codes { codes, scales, .. }] = &found.weights[..] else { panic!("codes") };
        assert_eq!((&codes[..], &scales[..]), (&[0, 2, 3, 2][..], &[1.0][..]));
    }
}
