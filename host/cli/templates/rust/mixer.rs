//! My plugin: attention; each token reads what the tokens before it have stored.
//!
//! Source: Vaswani et al., arXiv:1706.03762, section 3.2; Ainslie et al. (GQA), arXiv:2305.13245.

use plugin_api::prelude::*;

/// Traces projections, optional norms of queries and keys, rotation, and one `attend`.
#[derive(Debug)]
pub struct MyPlugin;

impl Capability for MyPlugin {
    const NAME: &'static str = "my-plugin";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for MyPlugin {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("my-plugin/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let sizes = Sizes::of(at.config)?;
        let positions = g.input("positions", Spec::u32([Dim::TOKENS]))?;
        let q = heads(g, x[0], "q_proj", sizes.heads, sizes.head_dim)?;
        let k = heads(g, x[0], "k_proj", sizes.kv_heads, sizes.head_dim)?;
        let v = heads(g, x[0], "v_proj", sizes.kv_heads, sizes.head_dim)?;
        let (q, k) = (normed(g, q, "q_norm")?, normed(g, k, "k_norm")?);
        let q = g.slot_one("rotary-embedding", "", &[q, positions])?;
        let k = g.slot_one("rotary-embedding", "", &[k, positions])?;
        let state = g.state(self.state(at)?)?;
        let sequence_index = g.input("sequence_index", Spec::u32([Dim::TOKENS]))?;
        let block_table = g.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS]))?;
        let attrs = Attrs::new().float("scale", sizes.scale).float("softcap", sizes.softcap);
        let inputs = [q, k, v, state, positions, sequence_index, block_table];
        let mixed = g.one(ops::ATTEND, &inputs, attrs)?;
        let mixed = g.reshape(mixed, &[-1, sizes.heads * sizes.head_dim])?;
        Ok(vec![g.linear(mixed, "o_proj")?])
    }
}

impl Mixer for MyPlugin {
    fn state(&self, at: &LayerRef<'_>) -> Result<StateSpec> {
        let sizes = Sizes::of(at.config)?;
        let dims = vec![sizes.kv_heads as u32, sizes.head_dim as u32];
        let part = |name: &str| Part { name: name.to_owned(), dims: dims.clone() };
        Ok(StateSpec {
            name: "kv".to_owned(),
            per: Per::Token { window: sizes.window },
            parts: vec![part("key"), part("value")],
        })
    }
}

/// The hyperparameters of one layer.
struct Sizes {
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
    scale: f64,
    softcap: f64,
    window: u32,
}

impl Sizes {
    fn of(config: &Config) -> Result<Self> {
        let heads = config.count("num_attention_heads", 1..=1 << 16)?;
        let kv_heads = config.count_or("num_key_value_heads", heads, 1..=heads)?;
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of the {heads} attention heads");
            let found = config.get("num_key_value_heads");
            return Err(config.wrong("num_key_value_heads", &expected, found));
        }
        let head_dim = config.count("head_dim", 1..=1 << 16)?;
        let scale = (head_dim as f64).powf(-0.5);
        Ok(Self {
            heads: heads as i64,
            kv_heads: kv_heads as i64,
            head_dim: head_dim as i64,
            scale: config.number_or("attention_scale", scale, 0.0..=1e6)?,
            softcap: config.number_or("attn_logit_softcapping", 0.0, 0.0..=1e6)?,
            window: config.count_or("sliding_window", 0, 0..=u64::from(u32::MAX))? as u32,
        })
    }
}

/// A projection of `x [tokens, hidden_size]` to `[tokens, count, head_dim]`.
fn heads(g: &mut dyn OpSink, x: Val, name: &str, count: i64, head_dim: i64) -> Result<Val> {
    let projected = g.linear(x, name)?;
    g.reshape(projected, &[-1, count, head_dim])
}

/// Each head normed, in models that do so.
fn normed(g: &mut dyn OpSink, x: Val, scope: &str) -> Result<Val> {
    if g.has_weight(&format!("{scope}.weight")) { g.slot_one("norm", scope, &[x]) } else { Ok(x) }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        plugin_api::testing::mixer::suite::<MyPlugin>();
    }
}
