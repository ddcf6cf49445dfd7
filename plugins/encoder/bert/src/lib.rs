//! BERT: a bidirectional transformer whose last hidden rows are pooled to one vector a text.
//!
//! Sources: Devlin et al., arXiv:1810.04805; pooling: Reimers and Gurevych, arXiv:1908.10084.

use plugin_api::plan::OpId;
use plugin_api::prelude::*;

/// Traces the encoder of BERT and the pooling after it.
#[derive(Debug)]
pub struct Bert {
    /// `model`, `mean` or `cls`.
    pooling: &'static str,
}

impl Capability for Bert {
    const NAME: &'static str = "bert";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { pooling: config.one_of("pooling", &["model", "mean", "cls"])? })
    }
}

impl Traced for Bert {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new(format!("bert {}/1", self.pooling))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let &[ids] = x else { return Err(Error::shape("bert", "token ids", x.len())) };
        let (config, pooling) = (at.config, self.pooling(at.config)?);
        let index = g.input("sequence_index", Spec::u32([Dim::TOKENS]))?;
        let model = Model {
            eps: config.number_or("layer_norm_eps", 1e-12, 0.0..=1.0)?,
            num_heads: config.count("num_attention_heads", 1..=1024)?,
            activation: activation(config)?,
            index,
        };
        let mut x = model.embeddings(g, ids)?;
        for i in 0..config.count("num_hidden_layers", 1..=LAYERS_MAX)? {
            x = model.layer(g, &format!("encoder.layer.{i}"), x)?;
        }
        let starts = g.input("sequence_starts", Spec::u32([Dim::SEQS]))?;
        let first = g.gather(x, starts)?;
        let pooled = if pooling == "cls" { first } else { mean(g, x, first, index)? };
        Ok(vec![normalized(g, pooled)?])
    }
}

impl Encoder for Bert {}

export_plugin!(Bert);

impl Bert {
    /// `mean` or `cls`.
    fn pooling(&self, config: &Config) -> Result<&'static str> {
        let is_set = |key| config.flag_or(key, false);
        for key in ["pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens"] {
            if self.pooling == "model" && is_set(key)? {
                return Err(config.wrong(key, "false: the pooling `mean` or `cls`", None));
            }
        }
        let is_first = is_set("pooling_mode_cls_token")? && !is_set("pooling_mode_mean_tokens")?;
        Ok(match self.pooling {
            "model" if is_first => "cls",
            "model" => "mean",
            chosen => chosen,
        })
    }
}

struct Model {
    eps: f64,
    num_heads: u64,
    activation: OpId,
    /// Which sequence each token belongs to.
    index: Val,
}

impl Model {
    /// `[tokens, hidden_size]`. All tokens are of the first type: a text is one segment.
    fn embeddings(&self, g: &mut dyn OpSink, ids: Val) -> Result<Val> {
        let words = g.weight("embeddings.word_embeddings.weight")?;
        let places = g.weight("embeddings.position_embeddings.weight")?;
        let types = g.weight("embeddings.token_type_embeddings.weight")?;
        let positions = g.input("positions", Spec::u32([Dim::TOKENS]))?;
        let width = g.spec(words).width()?;
        let first_type = g.slice(types, 0, 0, 1)?;
        let first_type = g.reshape(first_type, &[width as i64])?;
        let words = g.embed(words, ids)?;
        let typed = g.add(words, first_type)?;
        let places = g.embed(places, positions)?;
        let x = g.add(typed, places)?;
        self.norm(g, "embeddings.LayerNorm", x)
    }

    fn layer(&self, g: &mut dyn OpSink, layer: &str, x: Val) -> Result<Val> {
        let mixed = self.attention(g, &format!("{layer}.attention.self"), x)?;
        let mixed = g.linear(mixed, &format!("{layer}.attention.output.dense"))?;
        let sum = g.add(mixed, x)?;
        let x = self.norm(g, &format!("{layer}.attention.output.LayerNorm"), sum)?;
        let inner = g.linear(x, &format!("{layer}.intermediate.dense"))?;
        let inner = g.unary(self.activation, inner)?;
        let outer = g.linear(inner, &format!("{layer}.output.dense"))?;
        let sum = g.add(outer, x)?;
        self.norm(g, &format!("{layer}.output.LayerNorm"), sum)
    }

    fn attention(&self, g: &mut dyn OpSink, scope: &str, x: Val) -> Result<Val> {
        let (width, heads) = (g.spec(x).width()?, self.num_heads);
        if !width.is_multiple_of(heads) || width == 0 {
            return Err(Error::shape("bert", format!("rows of {heads} equal heads"), width));
        }
        let head_dim = width / heads;
        let mut qkv = [x; 3];
        for (val, name) in qkv.iter_mut().zip(["query", "key", "value"]) {
            let rows = g.linear(x, &format!("{scope}.{name}"))?;
            *val = g.reshape(rows, &[-1, heads as i64, head_dim as i64])?;
        }
        let [q, k, v] = qkv;
        let attrs = Attrs::new().float("scale", (head_dim as f64).powf(-0.5));
        let mixed = g.one(ops::ATTEND_WITHIN, &[q, k, v, self.index], attrs)?;
        g.reshape(mixed, &[-1, width as i64])
    }

    fn norm(&self, g: &mut dyn OpSink, scope: &str, x: Val) -> Result<Val> {
        let weight = g.weight(&format!("{scope}.weight"))?;
        let bias = g.weight(&format!("{scope}.bias"))?;
        fused::layer_norm(g, x, weight, bias, self.eps)
    }
}

fn activation(config: &Config) -> Result<OpId> {
    let names = ["gelu", "gelu_new", "gelu_pytorch_tanh", "silu"];
    config.one_of("position_embedding_type", &["absolute"])?;
    Ok(match config.one_of("hidden_act", &names)? {
        "gelu" => ops::GELU,
        "silu" => ops::SILU,
        _ => ops::GELU_TANH,
    })
}

/// The mean of each sequence's rows of `x`; `first` is the first row of each.
fn mean(g: &mut dyn OpSink, x: Val, first: Val, index: Val) -> Result<Val> {
    let zeros = g.scale(first, 0.0)?;
    let sums = g.one(ops::SCATTER_ADD, &[zeros, index, x], Attrs::new())?;
    let lens = g.input("sequence_lens", Spec::u32([Dim::SEQS]))?;
    let lens = g.cast(lens, DType::F32)?;
    let lens = g.reshape(lens, &[-1, 1])?;
    g.one(ops::DIV, &[sums, lens], Attrs::new())
}

/// Rows of length one; a row of zeros stays one.
fn normalized(g: &mut dyn OpSink, x: Val) -> Result<Val> {
    let squares = g.mul(x, x)?;
    let sums = g.unary(ops::REDUCE_SUM, squares)?;
    let lengths = g.unary(ops::SQRT, sums)?;
    let least = g.constant(&[1e-12])?;
    let lengths = g.one(ops::MAX, &[lengths, least], Attrs::new())?;
    g.one(ops::DIV, &[x, lengths], Attrs::new())
}

const LAYERS_MAX: u64 = 256;

#[cfg(test)]
mod tests {
    use plugin_api::testing::encoder;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        encoder::suite::<Bert>();
    }

    #[test]
    fn pools_as_it_is_told_and_else_as_the_model_says() {
        let flag = |key: &str| encoder::config().with(key, true);
        let (cls, mean) = (flag("pooling_mode_cls_token"), flag("pooling_mode_mean_tokens"));
        #[rustfmt::skip]
        let cases = [
            // table    model                pooled by
            ("model",  encoder::config(),    Some("mean")),
            ("model",  mean.clone(),         Some("mean")),
            ("model",  cls.clone(),          Some("cls")),
            ("mean",   cls.clone(),          Some("mean")),
            ("cls",    mean,                 Some("cls")),
            ("model",  flag("pooling_mode_max_tokens"), None),
        ];
        for (table, model, expected) in cases {
            let bert = Bert::from_config(&Config::new().with("pooling", table)).unwrap();
            assert_eq!(bert.pooling(&model).ok(), expected, "{table}");
        }
        // One token is its own mean, two are not.
        let vectors = |table: &str, lens: &[usize]| {
            let bert = Bert::from_config(&Config::new().with("pooling", table)).unwrap();
            encoder::run(&encoder::trace(&bert, &cls), lens)
        };
        assert_eq!(vectors("mean", &[1]), vectors("cls", &[1]));
        assert_ne!(vectors("mean", &[2]), vectors("cls", &[2]));
    }

    #[test]
    fn refuses_what_it_does_not_compute() {
        for (key, value) in [("hidden_act", "swish"), ("position_embedding_type", "relative_key")] {
            let error =
                encoder::try_trace(&Bert { pooling: "mean" }, &encoder::config().with(key, value));
            assert!(matches!(error, Err(Error::Config { .. })), "{key}: {error:?}");
        }
        let five = encoder::config().with("num_attention_heads", 5);
        let error = encoder::try_trace(&Bert { pooling: "mean" }, &five);
        assert!(matches!(error, Err(Error::ShapeMismatch { .. })), "{error:?}");
    }
}
