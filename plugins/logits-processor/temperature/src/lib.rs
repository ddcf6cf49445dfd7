//! Temperature: divides logits, so that below 1 the likeliest tokens gain and above 1 they lose.
//!
//! Source: Ackley, Hinton and Sejnowski, "A Learning Algorithm for Boltzmann Machines", 1985.

use plugin_api::prelude::*;

/// Scales every row by `1 / temperature`.
#[derive(Debug)]
pub struct Temperature {
    /// Temperature of a request that names none.
    default: f64,
    /// What each row is multiplied by; 1 leaves it alone, [`GREEDY`] keeps the likeliest token.
    scales: RowMap<f32>,
}

impl Capability for Temperature {
    const NAME: &'static str = "temperature";

    fn from_config(config: &Config) -> Result<Self> {
        let default = config.number_or("temperature", 1.0, RANGE)?;
        Ok(Self { default, scales: RowMap::new() })
    }
}

impl LogitsProcessor for Temperature {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let default = self.default;
        self.scales.follow(change, |params, _| {
            let temperature = params.number_or("temperature", default, RANGE)?;
            let is_greedy = temperature == 0.0;
            Ok(if is_greedy { GREEDY } else { (1.0 / temperature.max(LEAST)) as f32 })
        })
    }

    fn need(&self) -> Need {
        Need::Nothing
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        logits.for_each(|row| {
            match self.scales.get(row.id()) {
                Some(&GREEDY) => row.keep_top_k(1),
                Some(&scale) if scale != 1.0 => row.scale(scale),
                _ => {}
            }
            Ok(())
        })
    }

    fn is_argmax_invariant(&self) -> bool {
        true
    }
}

/// Stands for temperature 0, the limit of ever smaller ones: no row is ever scaled by it.
const GREEDY: f32 = 0.0;

const RANGE: std::ops::RangeInclusive<f64> = 0.0..=100.0;

/// Smaller temperatures act like this one, as in vLLM: dividing by less overflows.
const LEAST: f64 = 0.01;

export_plugin!(Temperature);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::logits_processor;

    #[test]
    fn passes_the_contract_suite() {
        logits_processor::suite::<Temperature>(&Config::new().with("temperature", 0.7));
    }

    #[test]
    fn divides_by_the_temperature() {
        const CUT: f32 = f32::NEG_INFINITY;
        #[rustfmt::skip]
        let cases = [
            // name                  temperature  in                out
            ("cools",                0.5,         [1.0, -2.0, CUT], [2.0, -4.0, CUT]),
            ("heats",                2.0,         [1.0, -2.0, CUT], [0.5, -1.0, CUT]),
            ("1 changes nothing",    1.0,         [1.0, -2.0, CUT], [1.0, -2.0, CUT]),
            ("0 keeps the peak",     0.0,         [1.0, -2.0, CUT], [1.0, CUT, CUT]),
            ("almost 0 stays finite", 1e-30,      [1.0, -2.0, CUT], [100.0, -200.0, CUT]),
        ];
        for (name, temperature, logits, expected) in cases {
            let params = Config::new().with("temperature", temperature);
            let found = logits_processor::apply::<Temperature>(&params, &[], &logits);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn refuses_what_is_no_temperature() {
        let params = Config::new().with("temperature", -1.0);
        let change = BatchChange::Added { row: RowId(0), params: &params, history: &[] };
        let mut processor = Temperature::from_config(&Config::new()).unwrap();
        let error = processor.batch(&change).unwrap_err();
        assert_eq!(error.to_string(), "temperature: expected a number in 0..=100, found -1");
    }
}
