//! Rotary position embedding with a larger base: slow pairs turn slower, fast ones hardly change.
//!
//! Source: bloc97, "NTK-Aware Scaled RoPE", 2023; the dynamic form as in `modeling_rope_utils.py`
//! of transformers 5.23.0, `_compute_dynamic_ntk_parameters`.

use plugin_api::prelude::*;

/// Traces the plain rotation with the base `theta · stretch^(d / (d − 2))`.
///
/// The dynamic form raises the base as a sequence grows, which turns keys that the cache holds
/// already. Here it is raised once, to what a sequence of the engine's whole context needs.
#[derive(Debug)]
pub struct Ntk;

impl Capability for Ntk {
    const NAME: &'static str = "ntk";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Ntk {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("rope ntk/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        Ok(vec![fused::rope(g, x[0], x[1], &self.rotation(at.config)?)?])
    }
}

impl RotaryEmbedding for Ntk {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        let mut rotation = Rotation::standard(config)?;
        let Some(scaling) = Rotation::scaling(config)? else { return Ok(rotation) };
        let stretch = stretch(config, scaling)?;
        // Pair i of n: theta^(−2i/d) · stretch^(−2i/(d−2)), and d is 2n. The first pair stays; the
        // last turns `stretch` times slower.
        let last = (rotation.inv_freq.len() - 1).max(1) as f64;
        for (i, inv_freq) in rotation.inv_freq.iter_mut().enumerate() {
            *inv_freq = (f64::from(*inv_freq) * stretch.powf(-(i as f64) / last)) as f32;
        }
        Ok(rotation)
    }
}

/// How much longer than trained for a context may be; 1 changes nothing.
fn stretch(config: &Config, scaling: &Config) -> Result<f64> {
    let factor = scaling.number("factor", 1.0..=1e6)?;
    let is_dynamic = ["rope_type", "type"].iter().any(|key| scaling.text(key) == Ok("dynamic"));
    if !is_dynamic {
        return Ok(factor);
    }
    let trained = config.count("max_position_embeddings", 1..=1 << 32)?;
    let context = config.count_or("context_length", trained, 1..=1 << 32)?.max(trained);
    Ok(factor * context as f64 / trained as f64 - (factor - 1.0))
}

export_plugin!(Ntk);

#[cfg(test)]
mod tests {
    use plugin_api::testing::rotary_embedding;

    use super::*;

    fn scaled(kind: &str, factor: f64) -> Config {
        let table = Config::new().with("rope_type", kind).with("factor", factor);
        Config::new()
            .with("rope_scaling", table)
            .with("head_dim", 64)
            .with("rope_theta", 10_000.0)
            .with("max_position_embeddings", 4096)
    }

    #[test]
    fn passes_the_contract_suite() {
        rotary_embedding::suite::<Ntk>(
            &Config::new().with("rope_scaling", {
                Config::new().with("rope_type", "ntk").with("factor", 4.0)
            }),
        );
    }

    #[test]
    fn is_the_plain_rotation_of_a_larger_base() {
        #[rustfmt::skip]
        let cases = [
            // type      factor  context  stretch
            ("ntk",      4.0,    4096,    4.0),
            ("dynamic",  4.0,    4096,    1.0),
            ("dynamic",  4.0,    2048,    1.0),
            ("dynamic",  2.0,    16_384,  7.0),
        ];
        for (kind, factor, context, stretch) in cases {
            let config = scaled(kind, factor).with("context_length", context);
            let found = Ntk.rotation(&config).unwrap().inv_freq;
            let base = 10_000.0 * f64::powf(stretch, 64.0 / 62.0);
            for (i, found) in found.iter().enumerate() {
                let expected = base.powf(-(2.0 * i as f64) / 64.0);
                let distance = (f64::from(*found) - expected).abs();
                assert!(distance <= 4e-7 * expected, "{kind} {context}, pair {i}: {found}");
            }
        }
    }
}
