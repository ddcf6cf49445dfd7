//! Lengths of the gradients of layers, and which of them are unusual.
//!
//! Source: Roberts, "Control chart tests based on geometric moving averages", Technometrics 1, 1959; lengths are
//! compared by their logarithms, as the plugin `gradient-monitor` does with its defaults.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Every layer of a run.
#[derive(Default)]
pub(super) struct Layers(BTreeMap<String, Layer>);

#[derive(Default)]
struct Layer {
    /// Of the step so far.
    squares: f64,
    /// Of the logarithm of its length.
    mean: f64,
    variance: f64,
    steps: u64,
}

impl Layers {
    /// A step begins.
    pub(super) fn begin(&mut self) {
        self.0.values_mut().for_each(|layer| layer.squares = 0.0);
    }

    /// Adds the gradient of one parameter.
    pub(super) fn add(&mut self, name: &str, norm: f64) {
        let name = layer_of(name);
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), Layer::default());
        }
        if let Some(layer) = self.0.get_mut(name) {
            layer.squares += norm * norm;
        }
    }

    /// All gradients are there: their lengths, and by how many deviations the unusual ones are off.
    pub(super) fn end(&mut self) -> (Map<String, Value>, Map<String, Value>) {
        let (mut norms, mut unusual) = (Map::new(), Map::new());
        for (name, layer) in &mut self.0 {
            let norm = layer.squares.sqrt();
            norms.insert(name.clone(), norm.into());
            if let Some(z) = layer.unusual(norm) {
                unusual.insert(name.clone(), z.into());
            }
        }
        (norms, unusual)
    }
}

impl Layer {
    /// How many deviations off, if that is unusual; then takes the length in, as far off as is usual.
    fn unusual(&mut self, norm: f64) -> Option<f64> {
        if !norm.is_finite() {
            return Some(norm);
        }
        let log = norm.max(f64::MIN_POSITIVE).ln();
        self.steps += 1;
        if self.steps == 1 {
            self.mean = log;
            return None;
        }
        let deviation = self.variance.sqrt().max(DEVIATION_MIN);
        let z = (log - self.mean) / deviation;
        let is_unusual = self.steps > WARMUP_STEPS && z.abs() > Z_MAX;
        let difference = if is_unusual { z.signum() * Z_MAX * deviation } else { log - self.mean };
        // The beginning counts as a plain mean of what there is.
        let share = (1.0 - SMOOTHING).max(1.0 / self.steps as f64);
        self.mean += share * difference;
        self.variance = (1.0 - share) * (self.variance + share * difference * difference);
        is_unusual.then_some(z)
    }
}

/// `layers.0` of `layers.0.mlp.up_proj.weight`, `norm` of `norm.weight`.
fn layer_of(name: &str) -> &str {
    let mut dots = name.match_indices('.').map(|(at, _)| at);
    let first = dots.next().unwrap_or(name.len());
    let second = dots.next().unwrap_or(name.len());
    let is_numbered = name.get(first + 1..second).is_some_and(|n| n.parse::<u32>().is_ok());
    if is_numbered { &name[..second] } else { &name[..first] }
}

const Z_MAX: f64 = 6.0;
const SMOOTHING: f64 = 0.98;
const WARMUP_STEPS: u64 = 20;
/// Of a logarithm: a twentieth of a length.
const DEVIATION_MIN: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_leaps_is_unusual_and_others_are_not() {
        let mut layers = Layers::default();
        for step in 0..60 {
            layers.begin();
            let leap = if step == 50 { 40.0 } else { 1.0 + 0.02 * f64::from(step % 3) };
            layers.add("layers.1.mlp.up_proj.weight", leap);
            layers.add("layers.1.mlp.down_proj.weight", 0.0);
            layers.add("norm.weight", 3.0);
            let (norms, unusual) = layers.end();
            assert_eq!(norms.keys().collect::<Vec<_>>(), ["layers.1", "norm"]);
            assert_eq!(unusual.keys().any(|name| name == "layers.1"), step == 50, "step {step}");
            assert!(!unusual.contains_key("norm"));
        }
        layers.begin();
        layers.add("norm.weight", f64::NAN);
        assert!(layers.end().1["norm"].is_null());
    }
}
