//! Top-k: keeps the k likeliest tokens.
//!
//! Source: Fan, Lewis and Dauphin, "Hierarchical Neural Story Generation", arXiv:1805.04833.

use plugin_api::prelude::*;

/// Cuts everything below the k-th place; ties go to the lowest ids.
#[derive(Debug)]
pub struct TopK {
    /// `k` of a request that names none; 0 keeps everything.
    default: usize,
    k: RowMap<usize>,
}

impl Capability for TopK {
    const NAME: &'static str = "top-k";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { default: top_k(config, 0)?, k: RowMap::new() })
    }
}

impl LogitsProcessor for TopK {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        let default = self.default;
        self.k.follow(change, |params, _| top_k(params, default))
    }

    fn need(&self) -> Need {
        Need::Top
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        let vocab_size = logits.vocab_size();
        logits.for_each(|row| {
            match self.k.get(row.id()) {
                Some(&k) if (1..vocab_size).contains(&k) => row.keep_top_k(k),
                _ => {}
            }
            Ok(())
        })
    }

    fn is_argmax_invariant(&self) -> bool {
        true
    }
}

/// `top_k` as in vLLM: 0 and -1 keep everything.
fn top_k(config: &Config, default: usize) -> Result<usize> {
    if config.get("top_k") == Some(&Value::Int(-1)) {
        return Ok(0);
    }
    Ok(config.count_or("top_k", default as u64, 0..=u64::from(u32::MAX))? as usize)
}

export_plugin!(TopK);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::logits_processor;

    #[test]
    fn passes_the_contract_suite() {
        logits_processor::suite::<TopK>(&Config::new().with("top_k", 5));
    }

    #[test]
    fn keeps_the_k_likeliest() {
        const CUT: f32 = f32::NEG_INFINITY;
        #[rustfmt::skip]
        let cases = [
            // name                    k    in                    out
            ("keeps two",              2,   [1.0, 3.0, 2.0, 0.0], [CUT, 3.0, 2.0, CUT]),
            ("keeps the peak",         1,   [1.0, 3.0, 2.0, 0.0], [CUT, 3.0, CUT, CUT]),
            ("ties go to lower ids",   2,   [2.0, 2.0, 2.0, 3.0], [2.0, CUT, CUT, 3.0]),
            ("0 keeps everything",     0,   [1.0, 3.0, 2.0, 0.0], [1.0, 3.0, 2.0, 0.0]),
            ("-1 keeps everything",    -1,  [1.0, 3.0, 2.0, 0.0], [1.0, 3.0, 2.0, 0.0]),
            ("more than there are",    999, [1.0, 3.0, 2.0, 0.0], [1.0, 3.0, 2.0, 0.0]),
            ("masked ones stay so",    3,   [CUT, 3.0, CUT, 0.0], [CUT, 3.0, CUT, 0.0]),
        ];
        for (name, k, logits, expected) in cases {
            let params = Config::new().with("top_k", k);
            let found = logits_processor::apply::<TopK>(&params, &[], &logits);
            assert_eq!(found, expected, "{name}");
        }
    }
}
