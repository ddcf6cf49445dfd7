//! Attention: each token reads what the tokens before it have stored; MHA, GQA and MQA.
//!
//! Source: Vaswani et al., arXiv:1706.03762, section 3.2; Ainslie et al. (GQA), arXiv:2305.13245.

use plugin_api::prelude::*;

/// Traces projections, optional norms of queries and keys, rotation, and one `attend`.
#[derive(Debug)]
pub struct Attention;

impl Capability for Attention {
    const NAME: &'static str = "attention";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Attention {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("attention/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let sizes = HeadSizes::of(at.config)?;
        let softcap = at.config.number_or("attn_logit_softcapping", 0.0, 0.0..=1e6)?;
        let positions = g.input("positions", Spec::u32([Dim::TOKENS]))?;
        let [q, k, v] = sizes.project(g, x[0])?;
        let (q, k) = (normed(g, q, "q_norm")?, normed(g, k, "k_norm")?);
        let q = g.slot_one("rotary-embedding", "", &[q, positions])?;
        let k = g.slot_one("rotary-embedding", "", &[k, positions])?;
        let state = g.state(self.state(at)?)?;
        let sequence_index = g.input("sequence_index", Spec::u32([Dim::TOKENS]))?;
        let block_table = g.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS]))?;
        let attrs = Attrs::new().float("scale", sizes.scale).float("softcap", softcap);
        let mut inputs = vec![q, k, v, state, positions, sequence_index, block_table];
        if g.has_weight(SINKS) {
            inputs.push(g.weight(SINKS)?);
        }
        let mixed = g.one(ops::ATTEND, &inputs, attrs)?;
        let mixed = g.reshape(mixed, &[-1, sizes.num_heads * sizes.head_dim])?;
        Ok(vec![g.linear(mixed, "o_proj")?])
    }
}

impl Mixer for Attention {
    fn state(&self, at: &LayerRef<'_>) -> Result<StateSpec> {
        Ok(HeadSizes::of(at.config)?.state(window(at.config)?))
    }
}

/// How many of the last tokens are read; 0 for all.
fn window(config: &Config) -> Result<u32> {
    Ok(config.count_or("sliding_window", 0, 0..=u64::from(u32::MAX))? as u32)
}

/// Each head normed, in models that do so.
fn normed(g: &mut dyn OpSink, x: Val, scope: &str) -> Result<Val> {
    if g.has_weight(&format!("{scope}.weight")) { g.slot_one("norm", scope, &[x]) } else { Ok(x) }
}

/// The score of each head's sink.
const SINKS: &str = "sinks.weight";

export_plugin!(Attention);

#[cfg(test)]
mod tests {
    use plugin_api::testing::mixer::{self, Heads};

    use super::*;

    const TOKENS: usize = 5;

    #[test]
    fn passes_the_contract_suite() {
        mixer::suite::<Attention>();
    }

    #[test]
    fn a_lone_token_reads_its_own_value() {
        // One head of two channels: y = o · v · x, whatever q and k are.
        let sizes = Heads { hidden: 2, heads: 1, kv_heads: 1, head_dim: 2 };
        let plan = mixer::trace::<Attention>(&Config::new(), sizes, &[]);
        let weights: [(&str, &[f32]); 4] = [
            ("q_proj.weight", &[5.0, 6.0, 7.0, 8.0]),
            ("k_proj.weight", &[9.0, 1.0, 2.0, 3.0]),
            ("v_proj.weight", &[1.0, 2.0, 3.0, 4.0]),
            ("o_proj.weight", &[1.0, 0.0, 1.0, 1.0]),
        ];
        assert_eq!(mixer::run(&plan, &[1.0, 10.0], 1, &weights), [21.0, 64.0]);
    }

    #[test]
    fn agrees_with_the_formula() {
        #[rustfmt::skip]
        let cases = [
            // name           heads kv  scale  softcap window
            ("multi-head",    2,    2,  0.5,   0.0,    0),
            ("grouped-query", 4,    2,  0.5,   0.0,    0),
            ("multi-query",   3,    1,  0.5,   0.0,    0),
            ("scale",         2,    1,  0.1,   0.0,    0),
            ("softcap",       2,    1,  2.0,   0.7,    0),
            ("window",        2,    1,  0.5,   0.0,    2),
        ];
        for (name, heads, kv_heads, scale, softcap, window) in cases {
            let config = Config::new()
                .with("attention_scale", scale)
                .with("attn_logit_softcapping", softcap)
                .with("sliding_window", window);
            let sizes = Heads { hidden: 3, heads, kv_heads, head_dim: 2 };
            let (q, kv) = (heads as usize * 2, kv_heads as usize * 2);
            let numbers = |seed: usize, len: usize| -> Vec<f32> {
                (0..len).map(|i| ((i * 7 + seed * 5) % 11) as f32 / 5.0 - 1.0).collect()
            };
            let x = numbers(1, TOKENS * 3);
            let w = [numbers(2, q * 3), numbers(3, kv * 3), numbers(4, kv * 3), numbers(5, 3 * q)];
            let names = ["q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"];
            let weights: Vec<(&str, &[f32])> =
                names.into_iter().zip(w.iter().map(Vec::as_slice)).collect();
            let plan = mixer::trace::<Attention>(&config, sizes, &[]);
            let found = mixer::run(&plan, &x, TOKENS, &weights);
            let expected = formula(&config, sizes, &x, &w);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-9, "{name}: {found}, not {expected}");
            }
        }
    }

    /// Softmax attention with rotation by one radian a token (`head_dim` is 2), in `f64`.
    fn formula(config: &Config, sizes: Heads, x: &[f32], w: &[Vec<f32>; 4]) -> Vec<f64> {
        let number = |key: &str, default: f64| config.number_or(key, default, 0.0..=1e6).unwrap();
        let scale = number("attention_scale", 0.5f64.sqrt());
        let softcap = number("attn_logit_softcapping", 0.0);
        let window = window(config).unwrap();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let project = |w: &[f32], t: usize, row: usize| {
            dot(&wide(&w[row * 3..][..3]), &wide(&x[t * 3..][..3]))
        };
        let head = |w: &[f32], t: usize, h: usize, turns: f64| {
            let (a, b) = (project(w, t, 2 * h), project(w, t, 2 * h + 1));
            let (sin, cos) = turns.sin_cos();
            [a * cos - b * sin, b * cos + a * sin]
        };
        let mut y = Vec::new();
        for t in 0..TOKENS {
            let mut mixed = Vec::new();
            for h in 0..sizes.heads as usize {
                let g = h * sizes.kv_heads as usize / sizes.heads as usize;
                let q = head(&w[0], t, h, t as f64);
                let first = if window == 0 { 0 } else { (t + 1).saturating_sub(2) };
                let (mut sum, mut out) = (0.0, [0.0; 2]);
                for s in first..=t {
                    let mut score = dot(&q, &head(&w[1], s, g, s as f64)) * scale;
                    if softcap > 0.0 {
                        score = softcap * (score / softcap).tanh();
                    }
                    let v = head(&w[2], s, g, 0.0);
                    sum += score.exp();
                    out = [out[0] + score.exp() * v[0], out[1] + score.exp() * v[1]];
                }
                mixed.extend([out[0] / sum, out[1] / sum]);
            }
            y.extend(w[3].chunks_exact(mixed.len()).map(|row| dot(&wide(row), &mixed)));
        }
        y
    }

    #[test]
    fn refuses_heads_that_do_not_divide() {
        let config = Config::new()
            .with("num_attention_heads", 6)
            .with("num_key_value_heads", 4)
            .with("head_dim", 8);
        let error = Attention.state(&LayerRef { index: 0, config: &config }).unwrap_err();
        let expected = "num_key_value_heads: expected a divisor of the 6 attention heads, found 4";
        assert_eq!(error.to_string(), expected);
    }
}
