//! Lora: a product of two narrow matrices beside a frozen one.
//!
//! Sources: Hu et al., "LoRA", arXiv:2106.09685, section 4.1; Kalajdzievski, "A Rank Stabilization Scaling Factor", arXiv:2312.03732.

use plugin_api::prelude::*;

/// Traces `y + s · B (A x)`.
#[derive(Debug)]
pub struct Lora;

impl Capability for Lora {
    const NAME: &'static str = "lora";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Lora {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("lora/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let &[x, y] = x else {
            return Err(Error::shape("lora", "a value and its product", x.len()));
        };
        let (a, b) = (g.weight("lora_A.weight")?, g.weight("lora_B.weight")?);
        let Some(rank) =
            g.spec(a).dims.first().and_then(|dim| dim.fixed()).filter(|&rank| rank > 0)
        else {
            return Err(Error::shape("lora_A.weight", "[r, in]", g.spec(a)));
        };
        let alpha = at.config.number_or("lora_alpha", 8.0, -1e6..=1e6)?;
        let is_stabilized = at.config.flag_or("use_rslora", false)?;
        let rank = rank as f64;
        let scale = alpha / if is_stabilized { rank.sqrt() } else { rank };
        let narrow = g.matmul(x, a)?;
        let wide = g.matmul(narrow, b)?;
        let more = g.scale(wide, scale)?;
        Ok(vec![g.add(y, more)?])
    }
}

impl Adapter for Lora {}

export_plugin!(Lora);

#[cfg(test)]
mod tests {
    use plugin_api::testing::adapter::{suite, trace};
    use plugin_api::testing::interpreter::{Feed, FusedAs, Numbers};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Lora>();
    }

    #[test]
    fn adds_the_scaled_product() {
        #[rustfmt::skip]
        let cases = [
            // alpha, stabilized   scale
            (Config::new().with("lora_alpha", 6.0),                          3.0),
            (Config::new().with("lora_alpha", 6.0).with("use_rslora", true), 6.0 / 2.0_f64.sqrt()),
            (Config::new(),                                                  4.0),
        ];
        for (config, scale) in cases {
            let plan = trace::<Lora>(&config, [3, 1, 2]);
            // A x = [1, 2·5] = [1, 10], B (A x) = 1·1 − 0.5·10 = −4.
            let feed =
                Feed::new().size(Dim::TOKENS, 1).reals("x", &[1.0, 5.0, 7.0]).reals("y", &[100.0]);
            let feed = feed.reals("lora_A.weight", &[1.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
            let feed = feed.reals("lora_B.weight", &[1.0, -0.5]);
            let found = feed.run::<f64>(&plan, FusedAs::Expansion).unwrap().remove(0);
            assert_eq!(Numbers::into_reals(found).unwrap(), [100.0 - 4.0 * scale], "{config:?}");
        }
    }
}
