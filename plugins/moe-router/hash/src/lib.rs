//! A hash of the token chooses its experts.
//!
//! Source: Roller et al., "Hash Layers For Large Sparse Models", arXiv:2106.04426, section 3.1.

use plugin_api::prelude::*;

/// Traces logits of the router, a callback that chooses by token, and the softmax of what was chosen.
#[derive(Debug)]
pub struct Hash {
    seed: u32,
}

impl Capability for Hash {
    const NAME: &'static str = "hash";

    fn from_config(config: &Config) -> Result<Self> {
        let seed = config.count_or("seed", 0, 0..=u64::from(u32::MAX))?;
        Ok(Self { seed: seed as u32 })
    }
}

/// What the callback of a layer is called, with the index of the layer behind it.
const CHOOSE: &str = "choose-";

impl Traced for Hash {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new(format!("hash/1 {}", self.seed))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let logits = g.linear(x[0], "router")?;
        let experts = g.spec(logits).width()?;
        let choices = at.config.count_or("num_experts_per_tok", 2.min(experts), 1..=experts)?;
        let ids = g.input("token_ids", Spec::u32([Dim::TOKENS]))?;
        let spec = Spec::u32([Dim::TOKENS, choices.into()]);
        let chosen = g.call(&format!("{CHOOSE}{}", at.index), &[ids, logits], &[spec])?[0];
        let logits = g.one(ops::TAKE_ALONG, &[logits, chosen], Attrs::new())?;
        Ok(vec![g.unary(ops::SOFTMAX, logits)?, chosen])
    }

    fn call(
        &self,
        callback: &str,
        inputs: &[Shaped<'_>],
        outputs: &mut [ShapedMut<'_>],
    ) -> Result<()> {
        let layer = callback.strip_prefix(CHOOSE).and_then(|index| index.parse().ok());
        let (Some(layer), [ids, logits], [chosen]) = (layer, inputs, outputs) else {
            return Err(Error::unsupported(format!("callback `{callback}`"), "no such choice"));
        };
        let (&[_, experts], &[_, choices]) = (logits.dims, chosen.dims) else {
            return Err(Error::shape("callback", "rows of logits and choices", "others"));
        };
        let rows = chosen.values.u32s_mut()?.chunks_exact_mut(choices);
        for (&token, chosen) in ids.values.u32s()?.iter().zip(rows) {
            self.choose(layer, token, experts as u32, chosen);
        }
        Ok(())
    }
}

impl MoeRouter for Hash {}

impl Hash {
    /// Chooses experts for a token, each once.
    fn choose(&self, layer: u32, token: u32, experts: u32, chosen: &mut [u32]) {
        let start = mixed(mixed(self.seed ^ layer) ^ token);
        for at in 0..chosen.len() {
            let left = experts - at as u32;
            let mut expert = mixed(start.wrapping_add(at as u32)) % left;
            // Counted among those that are left: on from the smallest of those that are taken.
            let (taken, rest) = chosen.split_at_mut(at);
            let mut from = 0;
            while let Some(next) =
                taken.iter().copied().filter(|&other| other >= from && other <= expert).min()
            {
                (expert, from) = (expert + 1, next + 1);
            }
            rest[0] = expert;
        }
    }
}

/// The finalizer of MurmurHash3: every bit depends on every other.
fn mixed(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

export_plugin!(Hash);

#[cfg(test)]
mod tests {
    use plugin_api::testing::moe_router;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        moe_router::suite::<Hash>();
    }

    /// The vectors of MurmurHash3's finalizer for 1, 2 and 2³² − 1.
    #[test]
    fn the_hash_is_that_of_murmur() {
        let of = [1, 2, u32::MAX].map(mixed);
        assert_eq!(of, [0x514E_28B7, 0x30F4_C306, 0x81F1_6F39]);
    }

    #[test]
    fn every_set_of_experts_is_as_likely() {
        let (hash, mut counts) = (Hash { seed: 3 }, [[0_u32; 6]; 6]);
        for token in 0..60_000 {
            let mut chosen = [0; 2];
            hash.choose(1, token, 6, &mut chosen);
            counts[chosen[0] as usize][chosen[1] as usize] += 1;
        }
        for (first, row) in counts.iter().enumerate() {
            for (second, &count) in row.iter().enumerate() {
                // 2000 each; six deviations either way.
                let is_fit = if first == second { count == 0 } else { count.abs_diff(2_000) < 264 };
                assert!(is_fit, "{first}, {second}: {count}");
            }
        }
    }

    #[test]
    fn a_layer_and_a_seed_choose_otherwise() {
        let all = |seed, layer| {
            let of = |token| {
                let mut chosen = [0; 2];
                Hash { seed }.choose(layer, token, 8, &mut chosen);
                chosen
            };
            (0..32).map(of).collect::<Vec<_>>()
        };
        assert!(all(0, 0) != all(0, 1) && all(0, 0) != all(1, 0) && all(0, 0) == all(0, 0));
    }
}
