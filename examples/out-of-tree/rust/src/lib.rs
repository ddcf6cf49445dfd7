//! Forbid: never answers with the tokens that the request, or the plugin's table, names.
//!
//! Source: none needed; a logit of minus infinity is a probability of zero.

use plugin_api::prelude::*;

/// Masks tokens by id.
#[derive(Debug)]
pub struct Forbid {
    /// Tokens that no request gets, unless it names its own.
    default: Vec<u32>,
    /// Tokens that each row does not get.
    never: RowMap<Vec<u32>>,
}

impl Capability for Forbid {
    const NAME: &'static str = "forbid";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { default: tokens(config)?, never: RowMap::new() })
    }
}

impl LogitsProcessor for Forbid {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let default = &self.default;
        self.never.follow(change, |params, _| {
            if params.has("never") { tokens(params) } else { Ok(default.clone()) }
        })
    }

    fn need(&self) -> Need {
        Need::Nothing // Only writes.
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        let vocab_size = logits.vocab_size();
        logits.for_each(|row| {
            let never = self.never.get(row.id()).into_iter().flatten();
            for &token in never.filter(|&&token| (token as usize) < vocab_size) {
                row.set(token, f32::NEG_INFINITY);
            }
            Ok(())
        })
    }
}

/// The key `never`: a token id, or a list of them.
fn tokens(config: &Config) -> Result<Vec<u32>> {
    let values = match config.get("never") {
        None => &[],
        Some(Value::List(values)) => &values[..],
        Some(value) => std::slice::from_ref(value),
    };
    let id = |value: &Value| match value {
        Value::Int(id) => u32::try_from(*id).ok(),
        _ => None,
    };
    let ids = values
        .iter()
        .map(|value| id(value).ok_or_else(|| config.wrong("never", "token ids", Some(value))));
    ids.collect()
}

export_plugin!(Forbid);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::logits_processor;

    fn params(ids: &[i64]) -> Config {
        Config::new().with("never", ids.iter().map(|&id| Value::Int(id)).collect::<Vec<_>>())
    }

    #[test]
    fn passes_the_contract_suite() {
        logits_processor::suite::<Forbid>(&params(&[0, 8]));
    }

    #[test]
    fn masks_what_is_named() {
        const CUT: f32 = f32::NEG_INFINITY;
        #[rustfmt::skip]
        let cases: [(&[i64], [f32; 3]); 3] = [
            // never     logits
            (&[],        [1.0, 2.0, 3.0]),
            (&[1],       [1.0, CUT, 3.0]),
            (&[0, 2, 9], [CUT, 2.0, CUT]),
        ];
        for (never, expected) in cases {
            let found = logits_processor::apply::<Forbid>(&params(never), &[], &[1.0, 2.0, 3.0]);
            assert_eq!(found, expected, "{never:?}");
        }
    }
}
