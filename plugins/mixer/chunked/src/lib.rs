//! Attention within chunks: a token reads those of its own chunk, or all tokens in layers without positions, where
//! queries grow with the position instead.
//!
//! Source: Meta, `modeling_llama4.py` of transformers 5.23.0, `Llama4TextAttention`; the growth: Nakanishi,
//! "Scalable-Softmax Is Superior for Attention", arXiv:2501.19399.

use plugin_api::prelude::*;

/// Traces projections, rotation, norms or growth of the queries, and one `attend`.
#[derive(Debug)]
pub struct Chunked;

impl Capability for Chunked {
    const NAME: &'static str = "chunked";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Chunked {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("chunked/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let (sizes, chunk) = (HeadSizes::of(at.config)?, chunk(at.config)?);
        let positions = g.input("positions", Spec::u32([Dim::TOKENS]))?;
        let [mut q, mut k, v] = sizes.project(g, x[0])?;
        q = g.slot_one("rotary-embedding", "", &[q, positions])?;
        k = g.slot_one("rotary-embedding", "", &[k, positions])?;
        if at.config.flag_or("no_rope", false)? {
            q = grown(g, q, positions, &sizes, at.config)?;
        } else if at.config.flag_or("use_qk_norm", true)? {
            let eps = at.config.number_or("rms_norm_eps", 1e-6, 0.0..=1.0)?;
            (q, k) = (normed(g, q, eps)?, normed(g, k, eps)?);
        }
        let state = g.state(self.state(at)?)?;
        let sequence_index = g.input("sequence_index", Spec::u32([Dim::TOKENS]))?;
        let block_table = g.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS]))?;
        let mut attrs = Attrs::new().float("scale", sizes.scale).float("softcap", 0.0);
        if chunk > 0 {
            attrs = attrs.int("chunk", i64::from(chunk));
        }
        let inputs = [q, k, v, state, positions, sequence_index, block_table];
        let mixed = g.one(ops::ATTEND, &inputs, attrs)?;
        let mixed = g.reshape(mixed, &[-1, sizes.num_heads * sizes.head_dim])?;
        Ok(vec![g.linear(mixed, "o_proj")?])
    }
}

impl Mixer for Chunked {
    /// No token reads further back than a chunk is long.
    fn state(&self, at: &LayerRef<'_>) -> Result<StateSpec> {
        Ok(HeadSizes::of(at.config)?.state(chunk(at.config)?))
    }
}

/// Positions of a chunk; 0 for all.
fn chunk(config: &Config) -> Result<u32> {
    Ok(config.count_or("attention_chunk_size", 0, 0..=u64::from(u32::MAX))? as u32)
}

/// Each head divided by the root of its mean square.
fn normed(g: &mut dyn OpSink, x: Val, eps: f64) -> Result<Val> {
    let squares = g.mul(x, x)?;
    let mean = g.mean(squares)?;
    let mean = g.offset(mean, eps)?;
    let inverse = g.unary(ops::RSQRT, mean)?;
    g.mul(x, inverse)
}

/// `q [tokens, heads, head_dim]` times `1 + attn_scale · ln(1 + ⌊(position + 1) / floor_scale⌋)`.
fn grown(
    g: &mut dyn OpSink,
    q: Val,
    positions: Val,
    sizes: &HeadSizes,
    config: &Config,
) -> Result<Val> {
    // Checkpoints say true, or the number of layers between two of these.
    let is_on = match config.get("attn_temperature_tuning") {
        Some(Value::Int(n)) => *n != 0,
        _ => config.flag_or("attn_temperature_tuning", true)?,
    };
    if !is_on {
        return Ok(q);
    }
    let floor_scale = config.number_or("floor_scale", 8192.0, 1.0..=1e9)?;
    let by = config.number_or("attn_scale", 0.1, 0.0..=1e3)?;
    let reals = g.cast(positions, DType::F32)?;
    let reals = g.reshape(reals, &[-1, 1])?;
    let counts = g.offset(reals, 1.0)?;
    // A quotient of whole numbers is rounded once: it is not below the whole number that it is.
    let floor_scale = g.constant(&[floor_scale as f32])?;
    let quotient = g.one(ops::DIV, &[counts, floor_scale], Attrs::new())?;
    let floor = g.cast(quotient, DType::U32)?;
    let floor = g.cast(floor, DType::F32)?;
    let floor = g.offset(floor, 1.0)?;
    let log = g.unary(ops::LOG, floor)?;
    let log = g.scale(log, by)?;
    let factor = g.offset(log, 1.0)?;
    let flat = g.reshape(q, &[-1, sizes.num_heads * sizes.head_dim])?;
    let flat = g.mul(flat, factor)?;
    g.reshape(flat, &[-1, sizes.num_heads, sizes.head_dim])
}

export_plugin!(Chunked);

#[cfg(test)]
mod tests {
    use plugin_api::plan::PlanBuilder;
    use plugin_api::testing::golden;
    use plugin_api::testing::interpreter::{Feed, FusedAs};
    use plugin_api::testing::mixer::{self, Heads};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));
    const SIZES: Heads = Heads { hidden: 2, heads: 1, kv_heads: 1, head_dim: 2 };

    #[test]
    fn passes_the_contract_suite() {
        mixer::suite::<Chunked>();
    }

    /// One head of two channels, whose queries and keys are zero: every token that is seen counts alike.
    fn means(config: &Config, x: &[f32]) -> Vec<f64> {
        let config = config.clone().with("use_qk_norm", false);
        let plan = mixer::trace::<Chunked>(&config, SIZES, &[]);
        let weights: [(&str, &[f32]); 4] = [
            ("q_proj.weight", &[0.0; 4]),
            ("k_proj.weight", &[0.0; 4]),
            ("v_proj.weight", &[1.0, 0.0, 0.0, 1.0]),
            ("o_proj.weight", &[1.0, 0.0, 0.0, 1.0]),
        ];
        mixer::run(&plan, x, x.len() / 2, &weights)
    }

    #[test]
    fn a_token_reads_its_chunk_up_to_itself() {
        let x: Vec<f32> = (0..7).flat_map(|t| [t as f32, 1.0]).collect();
        let found = means(&Config::new().with("attention_chunk_size", 3), &x);
        let expected = [0.0, 0.5, 1.0, 3.0, 3.5, 4.0, 6.0];
        for (found, expected) in found.iter().step_by(2).zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        }
        let all = means(&Config::new(), &x);
        assert!((all[12] - 3.0).abs() < 1e-9, "{all:?}");
    }

    /// A query of `[a, 0]` times keys of `[0, 0]` and `[1, 0]`: what the second one counts tells what `a` has become.
    #[test]
    fn queries_grow_where_there_are_no_positions() {
        #[rustfmt::skip]
        let cases = [
            // tokens  factor of the last query, with a floor scale of 3 and a factor of 0.5
            (2_usize,  1.0),
            (3,        1.0 + 0.5 * 2.0_f64.ln()),
            (6,        1.0 + 0.5 * 3.0_f64.ln()),
            (8,        1.0 + 0.5 * 3.0_f64.ln()),
            (9,        1.0 + 0.5 * 4.0_f64.ln()),
        ];
        for (tokens, factor) in cases {
            let config = Config::new()
                .with("no_rope", true)
                .with("floor_scale", 3.0)
                .with("attn_scale", 0.5)
                .with("attention_scale", 1.0);
            // The scene turns queries and keys, which changes nothing between those of one token.
            let plan = mixer::trace::<Chunked>(&config, SIZES, &[]);
            let mut x = vec![0.0; tokens * 2];
            x[tokens * 2 - 2] = 1.0;
            let weights: [(&str, &[f32]); 4] = [
                ("q_proj.weight", &[1.0, 0.0, 0.0, 0.0]),
                ("k_proj.weight", &[1.0, 0.0, 0.0, 0.0]),
                ("v_proj.weight", &[1.0, 0.0, 0.0, 0.0]),
                ("o_proj.weight", &[1.0, 0.0, 0.0, 1.0]),
            ];
            let found = mixer::run(&plan, &x, tokens, &weights)[tokens * 2 - 2];
            let own = factor.exp();
            let expected = own / (own + tokens as f64 - 1.0);
            assert!((found - expected).abs() < 1e-6, "{tokens}: {found}, not {expected}");
        }
    }

    #[test]
    fn queries_grow_as_its_formula_says() {
        let numbers = |field: &str| golden::numbers(GOLDEN, "llama4_temp", field);
        let positions: Vec<u32> = numbers("pos").into_iter().map(|x| x as u32).collect();
        let mut g = PlanBuilder::new();
        let x = g.input("x", Spec::f32([Dim::TOKENS, 1.into(), 1.into()])).unwrap();
        let at = g.input("positions", Spec::u32([Dim::TOKENS])).unwrap();
        let sizes =
            HeadSizes::of(&Config::new().with("num_attention_heads", 1).with("head_dim", 1));
        let grown = grown(&mut g, x, at, &sizes.unwrap(), &Config::new()).unwrap();
        g.output("grown", grown).unwrap();
        let feed = Feed::new().size(Dim::TOKENS, positions.len()).indices("positions", &positions);
        let feed = feed.reals("x", &vec![1.0; positions.len()]);
        let found = feed.run::<f64>(&g.finish(), FusedAs::Expansion).unwrap().remove(0);
        let found = found.into_reals().unwrap();
        for (found, expected) in found.iter().zip(numbers("scale")) {
            assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        }
    }

    #[test]
    fn keeps_one_chunk() {
        let config = Config::new()
            .with("num_attention_heads", 4)
            .with("head_dim", 8)
            .with("attention_chunk_size", 8192);
        let state = Chunked.state(&LayerRef { index: 0, config: &config }).unwrap();
        assert_eq!(state.per, Per::Token { window: 8192 });
    }
}
