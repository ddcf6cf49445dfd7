//! Multi-head latent attention: a token keeps one short vector and one rotated key for all heads.
//!
//! Source: DeepSeek-AI, "DeepSeek-V2", arXiv:2405.04434, section 2.1; the order of the products (absorption):
//! appendix C there.

use plugin_api::prelude::*;

/// Traces queries in the space of what is kept, one `attend` over that, and values out of its result.
#[derive(Debug)]
pub struct Mla;

impl Capability for Mla {
    const NAME: &'static str = "mla";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Mla {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("mla/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let sizes = Sizes::of(at.config)?;
        let Sizes { heads, nope, rope, value, rank, scale } = sizes;
        let positions = g.input("positions", Spec::u32([Dim::TOKENS]))?;
        let q = queries(g, x[0], &sizes)?;
        let plain = g.slice(q, 2, 0, nope)?;
        let turned = g.slice(q, 2, nope, rope)?;
        let turned = g.slot_one("rotary-embedding", "", &[turned, positions])?;
        let k = keys(g, x[0], positions, &sizes)?;
        // Each head is an expert that every token chooses.
        let each = all_heads(g, q, heads)?;
        let k_b = g.weight("k_b_proj.weight")?;
        let absorbed = g.matmul_experts(plain, k_b, each)?;
        let q = g.concat(&[absorbed, turned], 2)?;
        let state = g.state(self.state(at)?)?;
        let sequence_index = g.input("sequence_index", Spec::u32([Dim::TOKENS]))?;
        let block_table = g.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS]))?;
        let attrs = Attrs::new().float("scale", scale).float("softcap", 0.0);
        let attrs = attrs.int("value_dim", rank as i64);
        let inputs = [q, k, k, state, positions, sequence_index, block_table];
        let mixed = g.one(ops::ATTEND, &inputs, attrs)?;
        let v_b = g.weight("v_b_proj.weight")?;
        let values = g.matmul_experts(mixed, v_b, each)?;
        let values = g.reshape(values, &[-1, (heads * value) as i64])?;
        Ok(vec![g.linear(values, "o_proj")?])
    }
}

impl Mixer for Mla {
    fn state(&self, at: &LayerRef<'_>) -> Result<StateSpec> {
        let sizes = Sizes::of(at.config)?;
        let dims = vec![1, (sizes.rank + sizes.rope) as u32];
        let parts = vec![Part { name: "key".to_owned(), dims }];
        Ok(StateSpec { name: "kv".to_owned(), per: Per::Token { window: 0 }, parts })
    }
}

/// The hyperparameters of one layer.
struct Sizes {
    heads: u64,
    /// Channels of a query without rotation.
    nope: u64,
    /// Channels of a query with rotation.
    rope: u64,
    /// Channels of a value.
    value: u64,
    /// Channels of what keys and values are made of.
    rank: u64,
    scale: f64,
}

impl Sizes {
    fn of(config: &Config) -> Result<Self> {
        let size = |key: &str| config.count(key, 1..=1 << 16);
        let (nope, rope) = (size("qk_nope_head_dim")?, size("qk_rope_head_dim")?);
        let scale = ((nope + rope) as f64).powf(-0.5) * sharpened(config)?;
        Ok(Self {
            heads: size("num_attention_heads")?,
            nope,
            rope,
            value: size("v_head_dim")?,
            rank: size("kv_lora_rank")?,
            scale: config.number_or("attention_scale", scale, 0.0..=1e6)?,
        })
    }
}

/// What the scaling of a longer context multiplies scores with, besides what it does to cosine and sine.
fn sharpened(config: &Config) -> Result<f64> {
    let Some(table) = config.table("rope_scaling")? else { return Ok(1.0) };
    let all = table.number_or("mscale_all_dim", 0.0, 0.0..=1e3)?;
    let factor = table.number_or("factor", 1.0, 1.0..=1e6)?;
    Ok((0.1 * all * factor.ln() + 1.0).powi(2))
}

/// `[tokens, heads, nope + rope]`, by way of fewer channels in models that do so.
fn queries(g: &mut dyn OpSink, x: Val, sizes: &Sizes) -> Result<Val> {
    let q = if g.has_weight("q_a_proj.weight") {
        let low = g.linear(x, "q_a_proj")?;
        let low = g.slot_one("norm", "q_a_layernorm", &[low])?;
        g.linear(low, "q_b_proj")?
    } else {
        g.linear(x, "q_proj")?
    };
    g.reshape(q, &[-1, sizes.heads as i64, (sizes.nope + sizes.rope) as i64])
}

/// What a token keeps: `[tokens, 1, rank + rope]`, normed and rotated.
fn keys(g: &mut dyn OpSink, x: Val, positions: Val, sizes: &Sizes) -> Result<Val> {
    let both = g.linear(x, "kv_a_proj_with_mqa")?;
    let latent = g.slice(both, 1, 0, sizes.rank)?;
    let latent = g.slot_one("norm", "kv_a_layernorm", &[latent])?;
    let latent = g.reshape(latent, &[-1, 1, sizes.rank as i64])?;
    let turned = g.slice(both, 1, sizes.rank, sizes.rope)?;
    let turned = g.reshape(turned, &[-1, 1, sizes.rope as i64])?;
    let turned = g.slot_one("rotary-embedding", "", &[turned, positions])?;
    g.concat(&[latent, turned], 2)
}

/// `u32 [tokens, heads]`: 0, 1, … for each token of `q`.
fn all_heads(g: &mut dyn OpSink, q: Val, heads: u64) -> Result<Val> {
    let one = g.slice(q, 2, 0, 1)?;
    let one = g.reshape(one, &[-1, heads as i64])?;
    let none = g.full_like(one, 0.0)?;
    let numbers: Vec<f32> = (0..heads).map(|head| head as f32).collect();
    let numbers = g.constant(&numbers)?;
    let numbers = g.add(none, numbers)?;
    g.cast(numbers, DType::U32)
}

export_plugin!(Mla);

#[cfg(test)]
mod tests {
    use plugin_api::testing::mixer::{self, Heads};

    use super::*;

    const TOKENS: usize = 4;
    const HIDDEN: usize = 3;

    #[test]
    fn passes_the_contract_suite() {
        mixer::suite::<Mla>();
    }

    #[test]
    fn keeps_576_elements_a_token_in_the_sizes_of_deepseek_v3() {
        let config = Config::new()
            .with("num_attention_heads", 128)
            .with("qk_nope_head_dim", 128)
            .with("qk_rope_head_dim", 64)
            .with("v_head_dim", 128)
            .with("kv_lora_rank", 512);
        let state = Mla.state(&LayerRef { index: 0, config: &config }).unwrap();
        assert_eq!(state.parts.iter().map(Part::num_elements).sum::<u64>(), 576);
        let table = Config::new().with("factor", 40.0).with("mscale_all_dim", 1.0);
        let scaled = Sizes::of(&config.with("rope_scaling", table)).unwrap().scale;
        assert!((scaled - 0.135_234).abs() < 1e-6, "{scaled}");
    }

    fn numbers(seed: usize, len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7 + seed * 5) % 11) as f32 / 5.0 - 1.0).collect()
    }

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| f64::from(x)).collect()
    }

    /// `w [rows, x]` times `x`.
    fn product(w: &[f64], x: &[f64]) -> Vec<f64> {
        let dot = |row: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum();
        w.chunks_exact(x.len()).map(dot).collect()
    }

    /// Keys and values of each head are computed, as the paper defines them, in `f64`.
    #[test]
    fn agrees_with_keys_and_values_that_are_computed() {
        // In the scene half the channels of a head turn, by one radian a token; six channels are kept.
        let sizes = Heads { hidden: HIDDEN as u64, heads: 2, kv_heads: 2, head_dim: 4 };
        let (heads, nope, rope, value, rank) = (2, 2, 2, 4, 6);
        let w = [
            ("q_proj.weight", numbers(1, heads * (nope + rope) * HIDDEN)),
            ("kv_a_proj_with_mqa.weight", numbers(2, (rank + rope) * HIDDEN)),
            ("kv_a_layernorm.weight", numbers(3, rank)),
            ("k_b_proj.weight", numbers(4, heads * rank * nope)),
            ("v_b_proj.weight", numbers(5, heads * value * rank)),
            ("o_proj.weight", numbers(6, HIDDEN * heads * value)),
        ];
        let x = numbers(7, TOKENS * HIDDEN);
        let plan = mixer::trace::<Mla>(&Config::new(), sizes, &[]);
        let given: Vec<(&str, &[f32])> = w.iter().map(|(name, x)| (*name, &x[..])).collect();
        let found = mixer::run(&plan, &x, TOKENS, &given);

        let [q_w, a_w, norm, k_w, v_w, o_w] = w.map(|(_, x)| wide(&x));
        let turn = |x: &[f64], t: usize| {
            let (sin, cos) = (t as f64).sin_cos();
            vec![x[0] * cos - x[1] * sin, x[1] * cos + x[0] * sin]
        };
        let x = wide(&x);
        let latents: Vec<(Vec<f64>, Vec<f64>)> = (0..TOKENS)
            .map(|t| {
                let both = product(&a_w, &x[t * HIDDEN..][..HIDDEN]);
                let mean = both[..rank].iter().map(|x| x * x).sum::<f64>() / rank as f64;
                let inverse = (mean + 1e-6).powf(-0.5);
                let normed = both.iter().zip(&norm).map(|(x, w)| x * inverse * w).collect();
                (normed, turn(&both[rank..], t))
            })
            .collect();
        for t in 0..TOKENS {
            let q = product(&q_w, &x[t * HIDDEN..][..HIDDEN]);
            let mut mixed = Vec::new();
            for h in 0..heads {
                let q = &q[h * (nope + rope)..][..nope + rope];
                let q_turned = turn(&q[nope..], t);
                let (mut sum, mut out) = (0.0, vec![0.0; value]);
                for (latent, k_turned) in &latents[..=t] {
                    // k = W_UK c, whose transpose is what is stored.
                    let k = |i: usize| {
                        let of_rank = |r: usize| k_w[(h * rank + r) * nope + i] * latent[r];
                        (0..rank).map(of_rank).sum::<f64>()
                    };
                    let plain: f64 = (0..nope).map(|i| q[i] * k(i)).sum();
                    let turned: f64 = q_turned.iter().zip(k_turned).map(|(a, b)| a * b).sum();
                    let weight = ((plain + turned) * ((nope + rope) as f64).powf(-0.5)).exp();
                    let v = product(&v_w[h * value * rank..][..value * rank], latent);
                    sum += weight;
                    out.iter_mut().zip(&v).for_each(|(out, v)| *out += weight * v);
                }
                mixed.extend(out.iter().map(|x| x / sum));
            }
            for (i, expected) in product(&o_w, &mixed).into_iter().enumerate() {
                let found = found[t * HIDDEN + i];
                assert!((found - expected).abs() < 1e-9, "{t}: {found}, not {expected}");
            }
        }
    }
}
