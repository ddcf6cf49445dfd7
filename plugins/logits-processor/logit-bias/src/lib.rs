//! Logit bias: adds a number to the logits of tokens that the request names.
//!
//! Source: the parameter `logit_bias` of the OpenAI API reference, chat completions.

use plugin_api::prelude::*;

/// Adds -100 to 100 to single logits: -100 practically forbids a token, 100 forces it.
#[derive(Debug)]
pub struct LogitBias {
    /// Biases of a request that names none.
    default: Vec<(u32, f32)>,
    /// Token and bias, ascending by token; empty costs nothing.
    biases: RowMap<Vec<(u32, f32)>>,
}

impl Capability for LogitBias {
    const NAME: &'static str = "logit-bias";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { default: biases(config)?.unwrap_or_default(), biases: RowMap::new() })
    }
}

impl LogitsProcessor for LogitBias {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let default = &self.default;
        self.biases
            .follow(change, |params, _| Ok(biases(params)?.unwrap_or_else(|| default.clone())))
    }

    fn need(&self) -> Need {
        Need::Ids
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        logits.for_each(|row| {
            let Some(biases) = self.biases.get(row.id()) else { return Ok(()) };
            for &(token, bias) in biases {
                let logit = row.logit(token);
                row.set(token, logit + bias);
            }
            Ok(())
        })
    }
}

/// The table `logit_bias` of a request or of the configuration: token id, as text, to bias.
fn biases(config: &Config) -> Result<Option<Vec<(u32, f32)>>> {
    let Some(table) = config.table("logit_bias")? else { return Ok(None) };
    let bias = |key: &str| {
        let token = key.parse().map_err(|_| {
            config.wrong("logit_bias", "token ids as keys", Some(&Value::Text(key.to_owned())))
        })?;
        Ok((token, table.number(key, -100.0..=100.0)? as f32))
    };
    let mut biases = table.keys().map(bias).collect::<Result<Vec<(u32, f32)>>>()?;
    biases.sort_unstable_by_key(|&(token, _)| token);
    Ok(Some(biases))
}

export_plugin!(LogitBias);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::logits_processor;

    type Case = (&'static str, &'static [(&'static str, f64)], [f32; 3]);

    fn params(biases: &[(&str, f64)]) -> Config {
        let mut table = Config::at("logit_bias");
        biases.iter().for_each(|&(token, bias)| table.set(token, bias));
        Config::new().with("logit_bias", table)
    }

    #[test]
    fn passes_the_contract_suite() {
        logits_processor::suite::<LogitBias>(&params(&[("0", 2.5), ("8", -100.0)]));
    }

    #[test]
    fn adds_to_the_named_tokens() {
        const CUT: f32 = f32::NEG_INFINITY;
        #[rustfmt::skip]
        let cases: [Case; 5] = [
            // name                   biases                        out of [1, 2, masked]
            ("adds and subtracts",    &[("0", 100.0), ("1", -0.5)], [101.0, 1.5, CUT]),
            ("masked stays so",       &[("2", 100.0)],              [1.0, 2.0, CUT]),
            ("beyond the vocabulary", &[("7", 5.0)],                [1.0, 2.0, CUT]),
            ("0 changes nothing",     &[("0", 0.0)],                [1.0, 2.0, CUT]),
            ("an empty table",        &[],                          [1.0, 2.0, CUT]),
        ];
        for (name, biases, expected) in cases {
            let found =
                logits_processor::apply::<LogitBias>(&params(biases), &[], &[1.0, 2.0, CUT]);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_table() {
        #[rustfmt::skip]
        let cases = [
            (params(&[("cat", 1.0)]),             "logit_bias: expected token ids as keys, found \"cat\""),
            (params(&[("3", 101.0)]),             "logit_bias.3: expected a number in -100..=100, found 101"),
            (Config::new().with("logit_bias", 1), "logit_bias: expected a table, found 1"),
        ];
        for (params, expected) in cases {
            assert_eq!(biases(&params).unwrap_err().to_string(), expected);
        }
    }
}
