//! Rotary position embedding of LongRoPE: each frequency has a divisor of its own, found by search.
//!
//! Source: Ding et al., "LongRoPE", arXiv:2402.13753; the formula as in `modeling_rope_utils.py` of
//! transformers 5.23.0, `_compute_longrope_parameters`.

use plugin_api::prelude::*;

/// Traces a rotation with the divisors for long or for short contexts.
///
/// The set is chosen by the context that the engine may fill, not by each sequence's length: keys
/// in the cache cannot be turned again when a sequence grows past the original context.
#[derive(Debug)]
pub struct LongRope;

impl Capability for LongRope {
    const NAME: &'static str = "longrope";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for LongRope {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("rope longrope/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        Ok(vec![fused::rope(g, x[0], x[1], &self.rotation(at.config)?)?])
    }
}

impl RotaryEmbedding for LongRope {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        let mut rotation = Rotation::standard(config)?;
        let Some(scaling) = Rotation::scaling(config)? else { return Ok(rotation) };
        let lengths = Lengths::of(config, scaling)?;
        let key = if lengths.context > lengths.original { "long_factor" } else { "short_factor" };
        let divisors = divisors(scaling, key, rotation.inv_freq.len())?;
        for (inv_freq, divisor) in rotation.inv_freq.iter_mut().zip(divisors) {
            *inv_freq = (f64::from(*inv_freq) / divisor) as f32;
        }
        rotation.attention_factor = attention_factor(scaling, &lengths)? as f32;
        Ok(rotation)
    }
}

/// Tokens of three contexts.
struct Lengths {
    /// Before the model was made longer.
    original: u64,
    /// That the model says it can hold.
    trained: u64,
    /// That the engine may fill.
    context: u64,
}

impl Lengths {
    fn of(config: &Config, scaling: &Config) -> Result<Self> {
        const KEY: &str = "original_max_position_embeddings";
        // Phi-3 says it beside the table, not in it.
        let original = if scaling.has(KEY) { scaling } else { config };
        let original = original.count(KEY, 2..=1 << 32)?;
        let trained = config.count_or("max_position_embeddings", original, 1..=1 << 32)?;
        let context = config.count_or("context_length", trained, 1..=1 << 32)?;
        Ok(Self { original, trained, context })
    }
}

/// One divisor for each of `pairs` frequencies; a lone number stands for all.
fn divisors(scaling: &Config, key: &str, pairs: usize) -> Result<Vec<f64>> {
    let found = match scaling.get(key) {
        Some(Value::List(list)) => list.iter().map(positive).collect::<Option<Vec<_>>>(),
        Some(lone) => positive(lone).map(|divisor| vec![divisor; pairs]),
        None => None,
    };
    let found = found.filter(|divisors| divisors.len() == pairs);
    found.ok_or_else(|| scaling.wrong(key, &format!("{pairs} positive numbers"), scaling.get(key)))
}

fn positive(value: &Value) -> Option<f64> {
    match value {
        Value::Float(x) if *x > 0.0 && x.is_finite() => Some(*x),
        Value::Int(x) if *x > 0 => Some(*x as f64),
        _ => None,
    }
}

/// The factor on cosine and sine: scores grow by its square.
fn attention_factor(scaling: &Config, lengths: &Lengths) -> Result<f64> {
    if scaling.has("attention_factor") {
        return scaling.number("attention_factor", 1e-6..=1e6);
    }
    let longer = lengths.trained as f64 / lengths.original as f64;
    let factor = scaling.number_or("factor", longer, 1e-6..=1e6)?.max(1.0);
    Ok((1.0 + factor.ln() / (lengths.original as f64).ln()).sqrt())
}

export_plugin!(LongRope);

#[cfg(test)]
mod tests {
    use plugin_api::testing::rotary_embedding;

    use super::*;

    /// Two pairs; long contexts turn them 3 and 5 times slower, short ones 1 and 2 times.
    fn scaled(context: i64) -> Config {
        let list = |a: f64, b: f64| Value::List(vec![Value::Float(a), Value::Float(b)]);
        let table = Config::new()
            .with("short_factor", list(1.0, 2.0))
            .with("long_factor", list(3.0, 5.0))
            .with("original_max_position_embeddings", 4096);
        Config::new()
            .with("rope_scaling", table)
            .with("head_dim", 4)
            .with("rope_theta", 10_000.0)
            .with("max_position_embeddings", 131_072)
            .with("context_length", context)
    }

    #[test]
    fn the_context_decides_which_divisors() {
        #[rustfmt::skip]
        let cases = [
            // context  radians per token
            (4096,      [1.0, 0.005]),
            (4097,      [1.0 / 3.0, 0.002]),
            (131_072,   [1.0 / 3.0, 0.002]),
        ];
        for (context, expected) in cases {
            let rotation = LongRope.rotation(&scaled(context)).unwrap();
            for (found, expected) in rotation.inv_freq.iter().zip(expected) {
                assert!((found - expected).abs() <= 2e-7 * expected, "{context}: {found}");
            }
            // Phi-3: the root of 1 + ln 32 / ln 4096.
            assert!((rotation.attention_factor - 1.190_238).abs() < 1e-6, "{context}");
        }
    }

    #[test]
    fn passes_the_contract_suite() {
        let table = Config::new()
            .with("short_factor", 1.0)
            .with("long_factor", 2.0)
            .with("original_max_position_embeddings", 64)
            .with("factor", 8.0);
        rotary_embedding::suite::<LongRope>(&Config::new().with("rope_scaling", table));
    }

    #[test]
    fn says_how_many_divisors_there_must_be() {
        let config = scaled(131_072).with("head_dim", 8);
        let error = LongRope.rotation(&config).unwrap_err().to_string();
        assert!(error.contains("long_factor: expected 4 positive numbers"), "{error}");
    }
}
