//! Gradient monitor: the length of each layer's gradient, and whether it is unusual.
//!
//! Source: Roberts, "Control chart tests based on geometric moving averages", Technometrics 1, 1959; lengths
//! are compared by their logarithms, as they span orders of magnitude.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::prelude::*;

/// Sums squares by layer and compares each with its own past.
#[derive(Debug)]
pub struct GradientMonitor {
    z_max: f64,
    smoothing: f64,
    warmup_steps: u64,
    skips: bool,
    path: Option<PathBuf>,
}

/// One layer.
#[derive(Debug, Default)]
struct Layer {
    /// Of the step so far.
    squares: f64,
    /// Of the logarithm of its length.
    mean: f64,
    variance: f64,
    steps: u64,
}

impl Capability for GradientMonitor {
    const NAME: &'static str = "gradient-monitor";

    fn from_config(config: &Config) -> Result<Self> {
        let action = match config.has("action") {
            true => config.one_of("action", &["warn", "skip"])?,
            false => "warn",
        };
        let path = config.has("path").then(|| config.text("path")).transpose()?;
        Ok(Self {
            z_max: config.number_or("z_max", 6.0, 0.1..=1e6)?,
            smoothing: config.number_or("smoothing", 0.98, 0.0..=0.9999)?,
            warmup_steps: config.count_or("warmup_steps", 20, 2..=1 << 32)?,
            skips: action == "skip",
            path: path.map(PathBuf::from),
        })
    }
}

impl Hook for GradientMonitor {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        let layers: Arc<Mutex<BTreeMap<String, Layer>>> = Arc::default();
        let [summed, begun, kept, restored] = [(); 4].map(|()| Arc::clone(&layers));
        on.train_before_step(move |_, _| {
            let mut layers = begun.lock().unwrap_or_else(PoisonError::into_inner);
            layers.values_mut().for_each(|layer| layer.squares = 0.0);
            Flow::Continue
        });
        on.train_gradient(move |event, _| {
            let mut layers = summed.lock().unwrap_or_else(PoisonError::into_inner);
            let (name, square) = (layer_of(event.name), event.norm * event.norm);
            match layers.get_mut(name) {
                Some(layer) => layer.squares += square,
                None => {
                    let layer = Layer { squares: square, ..Layer::default() };
                    layers.insert(name.to_owned(), layer);
                }
            }
            Flow::Continue
        });
        let mut line = String::new();
        on.train_after_backward(move |event, host| {
            let mut layers = layers.lock().unwrap_or_else(PoisonError::into_inner);
            line.clear();
            let _ = write!(line, r#"{{"step":{},"norms":{{"#, event.step);
            let mut unusual = String::new();
            for (name, layer) in &mut *layers {
                let norm = layer.squares.sqrt();
                put(&mut line, name, norm);
                if let Some(z) = self.unusual(layer, norm) {
                    put(&mut unusual, name, z);
                    let step = event.step;
                    host.warn(format_args!(
                        "step {step}, {name}: gradient norm {norm:.3e}, z {z:.1}"
                    ));
                }
            }
            let _ = writeln!(line, r#"}},"unusual":{{{unusual}}}}}"#);
            if let Some(path) = &self.path
                && let Err(error) = host.services().append(path, line.as_bytes())
            {
                host.warn(format_args!("gradient norms are lost: {error}"));
            }
            if self.skips && !unusual.is_empty() { Flow::SkipStep } else { Flow::Continue }
        });
        on.train_before_checkpoint(move |event, _| {
            for (name, layer) in &*kept.lock().unwrap_or_else(PoisonError::into_inner) {
                event.state.set(name, &[layer.mean, layer.variance, layer.steps as f64]);
            }
            Flow::Continue
        });
        on.train_after_restore(move |event, _| {
            let layer = |name: &str| {
                let [mean, variance, steps] = event.state.get(name)?;
                let layer = Layer { squares: 0.0, mean, variance, steps: steps as u64 };
                Some((name.to_owned(), layer))
            };
            let layers = event.state.iter().filter_map(|(name, _)| layer(name)).collect();
            *restored.lock().unwrap_or_else(PoisonError::into_inner) = layers;
            Flow::Continue
        });
        Ok(())
    }
}

impl GradientMonitor {
    /// How many deviations off, if that is unusual; then takes the length in, as far off as is usual.
    fn unusual(&self, layer: &mut Layer, norm: f64) -> Option<f64> {
        if !norm.is_finite() {
            return Some(norm);
        }
        let log = norm.max(f64::MIN_POSITIVE).ln();
        layer.steps += 1;
        if layer.steps == 1 {
            layer.mean = log;
            return None;
        }
        let deviation = layer.variance.sqrt().max(DEVIATION_MIN);
        let z = (log - layer.mean) / deviation;
        let is_unusual = layer.steps > self.warmup_steps && z.abs() > self.z_max;
        let difference =
            if is_unusual { z.signum() * self.z_max * deviation } else { log - layer.mean };
        // The beginning counts as a plain mean of what there is.
        let share = (1.0 - self.smoothing).max(1.0 / layer.steps as f64);
        layer.mean += share * difference;
        layer.variance = (1.0 - share) * (layer.variance + share * difference * difference);
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

/// One more entry of an object of JSON. Names of parameters need no escapes but for these two.
fn put(line: &mut String, name: &str, value: f64) {
    let comma = if line.is_empty() || line.ends_with('{') { "" } else { "," };
    let name = name.replace(['"', '\\'], "_");
    // Writing to a `String` does not fail.
    let _ = match value.is_finite() {
        true => write!(line, r#"{comma}"{name}":{value}"#),
        false => write!(line, r#"{comma}"{name}":null"#),
    };
}

/// Of a logarithm: a twentieth of a length.
const DEVIATION_MIN: f64 = 0.05;

export_plugin!(GradientMonitor);

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use plugin_api::events::{TrainAfterBackward, TrainBeforeStep, TrainGradient};
    use plugin_api::testing::hook::{emit, subscribe, suite};
    use plugin_api::testing::machine::Machine;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<GradientMonitor>(&Config::new());
    }

    fn step(on: &mut Subscriptions, machine: &Machine, step: u64, norms: [f64; 3]) -> Flow {
        let lent = PhantomData;
        let mut event = TrainBeforeStep { step, tokens: 1, lent };
        let _ = emit::<TrainBeforeStep<'static>>(on, &mut event, machine);
        let names = ["layers.0.mlp.up_proj.weight", "layers.0.mlp.down_proj.weight", "norm.weight"];
        for (index, (name, norm)) in names.into_iter().zip(norms).enumerate() {
            let mut event = TrainGradient { step, index, name, norm, scale: 1.0, lent };
            let _ = emit::<TrainGradient<'static>>(on, &mut event, machine);
        }
        let mut event =
            TrainAfterBackward { step, loss: 1.0, grad_norm: 1.0, grad_scale: 1.0, lent };
        emit::<TrainAfterBackward<'static>>(on, &mut event, machine)
    }

    #[test]
    fn names_the_layer_whose_gradient_jumps() {
        let config = Config::new().with("path", "norms.jsonl").with("action", "skip");
        let mut on = subscribe::<GradientMonitor>(&config.with("warmup_steps", 10));
        let machine = Machine::new();
        // Up and down by a tenth, and a little each step: usual.
        for n in 0..30_u64 {
            let wave = if n.is_multiple_of(2) { 1.1 } else { 1.0 };
            let norms = [3.0 * wave, 4.0 * wave, 0.01 * n as f64 + 0.5];
            assert_eq!(step(&mut on, &machine, n, norms), Flow::Continue, "step {n}");
        }
        assert!(machine.log().is_empty(), "{:?}", machine.log());
        assert_eq!(step(&mut on, &machine, 30, [30.0, 40.0, 0.8]), Flow::SkipStep);
        assert_eq!(step(&mut on, &machine, 31, [3.0, 4.0, 0.8]), Flow::Continue);
        assert_eq!(step(&mut on, &machine, 32, [3.0, f64::NAN, 0.8]), Flow::SkipStep);
        let said = machine.log();
        assert_eq!(said.len(), 2, "{said:?}");
        let text = String::from_utf8(machine.file("norms.jsonl").unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 33);
        assert!(lines[0].starts_with(r#"{"step":0,"norms":{"layers.0":5.5"#), "{}", lines[0]);
        assert!(lines[0].ends_with(r#""norm":0.5},"unusual":{}}"#), "{}", lines[0]);
        assert!(lines[30].contains(r#""norms":{"layers.0":50,"norm":0.8},"unusual":{"layers.0":"#));
        assert!(lines[32].contains(r#""unusual":{"layers.0":null}"#), "{}", lines[32]);
    }

    #[test]
    fn a_layer_is_what_stands_before_its_parts() {
        #[rustfmt::skip]
        let cases = [
            ("layers.0.mlp.up_proj.weight", "layers.0"),
            ("layers.10",                   "layers.10"),
            ("embed_tokens.weight",         "embed_tokens"),
            ("lm_head",                     "lm_head"),
            ("",                            ""),
        ];
        for (name, expected) in cases {
            assert_eq!(layer_of(name), expected);
        }
    }
}
