//! SmoothQuant: what is large in activations moves into the weights that read them.
//!
//! Source: Xiao et al., "SmoothQuant", arXiv:2211.10438, equation 4; limits as in the authors' code.

use plugin_api::prelude::*;

/// Scales channels by the largest activation and the largest weight.
#[derive(Debug)]
pub struct SmoothQuant {
    /// How much of the activations moves.
    alpha: f32,
}

impl Capability for SmoothQuant {
    const NAME: &'static str = "smoothquant";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { alpha: config.number_or("alpha", 0.5, 0.0..=1.0)? as f32 })
    }
}

impl Compressor for SmoothQuant {
    fn needs_moments(&self) -> bool {
        false
    }

    fn compress(&mut self, products: &Products<'_>) -> Result<Compressed> {
        products.check()?;
        // Activations of these come from no norm: they are left as they are.
        let is_left = ["o_proj.weight", "down_proj.weight"];
        let is_smoothed = products.can_scale
            && products.weights.iter().all(|w| !is_left.iter().any(|end| w.name.ends_with(end)));
        let input_scale = if is_smoothed { self.scale(products) } else { Vec::new() };
        let weight = |weight: &Matrix<'_>| {
            let by = |i: usize| input_scale.get(i % weight.cols).copied().unwrap_or(1.0);
            let values = weight.values.iter().enumerate();
            Chosen::Values(values.map(|(i, x)| x * by(i)).collect())
        };
        let weights = products.weights.iter().map(weight).collect();
        Ok(Compressed { input_scale, weights })
    }
}

impl SmoothQuant {
    fn scale(&self, products: &Products<'_>) -> Vec<f32> {
        let mut largest = vec![LEAST; products.input.max_abs.len()];
        for row in products.weights.iter().flat_map(|w| w.values.chunks_exact(w.cols)) {
            largest.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(x.abs()));
        }
        let pairs = products.input.max_abs.iter().zip(largest);
        let scale = pairs.map(|(x, w)| x.max(LEAST).powf(self.alpha) / w.powf(1.0 - self.alpha));
        scale.map(|s| s.max(LEAST)).collect()
    }
}

/// Smallest activation, weight and scale.
const LEAST: f32 = 1e-5;

export_plugin!(SmoothQuant);

#[cfg(test)]
mod tests {
    use plugin_api::testing::compressor::{self, Case};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        compressor::suite::<SmoothQuant>(&Config::new());
    }

    #[test]
    fn scales_follow_the_largest_of_both_over_all_products() {
        let (values, other) = ([1.0, -2.0, 0.5, 4.0], [-9.0, 0.0]);
        let input = Input { tokens: 1, mean_abs: &[1.0; 2], max_abs: &[4.0, 16.0], moments: &[] };
        let matrix = |name, rows, values| Matrix { name, rows, cols: 2, values };
        let weights = vec![matrix("q_proj.weight", 2, &values[..]), matrix("k", 1, &other[..])];
        let products = Products { input, weights, grid: None, can_scale: true };
        let mut plugin = SmoothQuant::from_config(&Config::new()).unwrap();
        let found = plugin.compress(&products).unwrap();
        // √4 / √9, and √16 / √4.
        let [a, b] = found.input_scale[..] else { panic!("two scales") };
        assert!((a - 2.0 / 3.0).abs() < 1e-6 && (b - 2.0).abs() < 1e-6, "{a} {b}");
        assert_eq!(found.weights[0], Chosen::Values(vec![a, -4.0, 0.5 * a, 8.0]));
        let products = Products { can_scale: false, ..products };
        let found = plugin.compress(&products).unwrap();
        assert_eq!(found.weights[0], Chosen::Values(values.to_vec()));
    }

    #[test]
    fn channels_stand_out_less() {
        for seed in 0..4 {
            let mut case = Case::new(seed, 24, 64, 8);
            case.can_scale = true;
            let mut plugin = SmoothQuant::from_config(&Config::new()).unwrap();
            let products = case.products();
            let scale = plugin.compress(&products).unwrap().input_scale;
            // The largest over the mean: what a scale for a whole row of activations loses.
            let peak = |x: &[f32]| {
                let mean = x.iter().sum::<f32>() / x.len() as f32;
                x.iter().copied().fold(0.0, f32::max) / mean
            };
            let before = products.input.max_abs;
            let after: Vec<f32> = before.iter().zip(&scale).map(|(x, s)| x / s).collect();
            assert!(peak(&after) < 0.7 * peak(before), "{seed}: {} {}", peak(&after), peak(before));
        }
    }
}
