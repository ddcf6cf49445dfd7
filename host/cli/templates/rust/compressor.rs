//! My plugin: clips each group of weights where that loses less than its largest number is worth.
//!
//! Source: Lin et al., "AWQ", arXiv:2306.00978, the search for limits, with channels weighed by themselves.

use plugin_api::prelude::*;

/// Tries limits for every group.
#[derive(Debug)]
pub struct MyPlugin {
    /// Limits that are tried, down to half of what a group holds.
    steps: u32,
}

impl Capability for MyPlugin {
    const NAME: &'static str = "my-plugin";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { steps: config.count_or("steps", 10, 1..=100)? as u32 })
    }
}

impl Compressor for MyPlugin {
    fn needs_moments(&self) -> bool {
        false
    }

    fn compress(&mut self, products: &Products<'_>) -> Result<Compressed> {
        products.check()?;
        let grid = products.needs_grid()?;
        let choose = |weight: &Matrix<'_>| self.codes(weight, &products.input, grid);
        let weights = products.weights.iter().map(choose).collect();
        Ok(Compressed { input_scale: Vec::new(), weights })
    }
}

impl MyPlugin {
    fn codes(&self, weight: &Matrix<'_>, input: &Input<'_>, grid: Grid) -> Chosen {
        let (mut codes, mut scales, mut mins) = (Vec::new(), Vec::new(), Vec::new());
        for (group, x) in weight.values.chunks_exact(grid.group).enumerate() {
            let start = group * grid.group % weight.cols;
            let matters = &input.mean_abs[start..][..grid.group];
            let loss = |(scale, min): (f32, f32)| {
                let pairs = x.iter().zip(matters);
                let losses = pairs.map(|(&x, m)| {
                    let error = x - grid.value(grid.code(x, scale, min), scale, min);
                    f64::from(error * m).powi(2)
                });
                losses.sum::<f64>()
            };
            let mut best = grid.fit(x.iter().copied(), 1.0);
            for step in 1..self.steps {
                let shrink = 1.0 - step as f32 / (2 * self.steps) as f32;
                let fit = grid.fit(x.iter().copied(), shrink);
                if loss(fit) < loss(best) {
                    best = fit;
                }
            }
            let (scale, min) = best;
            codes.extend(x.iter().map(|&x| grid.code(x, scale, min)));
            scales.push(scale);
            if grid.has_min {
                mins.push(min);
            }
        }
        Chosen::Codes { codes, scales, mins }
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use plugin_api::testing::compressor::{self, Case};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        compressor::suite::<MyPlugin>(&Config::new());
    }

    #[test]
    fn one_step_is_rounding() {
        let case = Case::new(3, 8, 64, 4);
        let mut plugin = MyPlugin::from_config(&Config::new().with("steps", 1)).unwrap();
        let found = plugin.compress(&case.products()).unwrap();
        assert!((case.loss(&found) - case.loss_of_rounding()).abs() < 1e-9);
    }
}
