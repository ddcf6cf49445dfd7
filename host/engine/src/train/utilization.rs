//! How much of the machine a step uses: the operations that the model needs, over those of a product.
//!
//! Source: Chowdhery et al., "PaLM", arXiv:2204.02311, appendix B (model FLOPs utilization), with the context that
//! each token has instead of the length of a sequence, and without what frozen weights do not need.

use std::sync::Arc;

use jackfield_runtime::Clock;
use plugin_api::plan::{Dim, OpSink, OpSinkExt, Plan, PlanBuilder, Spec};
use plugin_api::{Backend, TensorMut, TensorRef};

use super::compiled::Compiled;
use super::loader::TokenBatch;
use super::parameters::Parameters;
use crate::error::EngineError;
use crate::model::Architecture;

/// Floating-point operations of a step of training, an addition and a multiplication being two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ModelFlops {
    per_token: f64,
    /// For each token that a token looks at, itself among them.
    per_context: f64,
}

impl ModelFlops {
    /// Forward each matrix takes two operations an element and token, backward as many for what goes in, and as many
    /// for the matrix itself if it is trained. Attention takes four for each channel of a query and each token that it
    /// looks at, and twice that backward.
    pub(super) fn of(
        architecture: &Architecture,
        parameters: &Parameters,
        frozen: &Parameters,
    ) -> Self {
        let config = &architecture.config;
        let count = |key: &str| config.count_or(key, 0, 0..=1 << 24).unwrap_or(0) as f64;
        let is_tied = [parameters, frozen].iter().all(|p| !p.0.contains_key("lm_head.weight"));
        let elements = |parameters: &Parameters| -> f64 {
            let elements = parameters.0.iter().map(|(name, parameter)| {
                let all = parameter.values.len() as f64;
                match parameter.dims[..] {
                    // Reading rows is no product; a head of the same weight is one.
                    _ if name == "embed_tokens.weight" && !is_tied => 0.0,
                    [_, _] => all,
                    [experts, _, _] => {
                        all * (count("num_experts_per_tok") / experts.max(1) as f64).min(1.0)
                    }
                    _ => 0.0,
                }
            });
            elements.sum()
        };
        let (trained, kept) = (elements(parameters), elements(frozen));
        let width = count("num_attention_heads") * count("head_dim");
        Self {
            per_token: 6.0 * trained + 4.0 * kept,
            per_context: 3.0 * 4.0 * width * f64::from(architecture.num_layers()),
        }
    }

    /// Of a step over these micro-batches.
    pub(super) fn over(&self, batches: &[TokenBatch]) -> f64 {
        let context = |batch: &TokenBatch| -> f64 {
            batch.positions.iter().map(|position| f64::from(*position) + 1.0).sum()
        };
        let tokens = |batch: &TokenBatch| batch.num_tokens() as f64;
        let of = |batch| self.per_token * tokens(batch) + self.per_context * context(batch);
        batches.iter().map(of).sum()
    }
}

/// The most operations a second that the backend was seen to do in products of square matrices, which grow until
/// one takes long enough.
pub(crate) fn peak_flops(
    backend: &Arc<dyn Backend>,
    clock: &dyn Clock,
) -> Result<f64, EngineError> {
    let mut peak = 0.0_f64;
    for size in SIZES {
        let plan = product(size).map_err(EngineError::plugin("product to measure"))?;
        let mut plan = Compiled::new(plan, &[], backend)?;
        let x: Vec<f32> = (0..size * size).map(|i| (i % 13) as f32 - 6.0).collect();
        let mut out = vec![0.0; size * size];
        let flops = 2.0 * (size as f64).powi(3);
        let mut took_us = 0;
        for _ in 0..ROUNDS {
            let begin = clock.now_us();
            let input = |_: &str| Some(TensorRef::F32(&x));
            plan.run(&[], input, &mut [TensorMut::F32(&mut out)])?;
            took_us = (clock.now_us() - begin).max(1);
            peak = peak.max(flops * 1e6 / took_us as f64);
        }
        if took_us > LONG_US {
            break;
        }
    }
    Ok(peak)
}

fn product(size: usize) -> plugin_api::Result<Plan> {
    let mut g = PlanBuilder::new();
    let square = || Spec::f32([Dim::Fixed(size as u64), Dim::Fixed(size as u64)]);
    let (x, w) = (g.input("x", square())?, g.input("w", square())?);
    let y = g.matmul(x, w)?;
    g.output("y", y)?;
    Ok(g.finish())
}

const SIZES: [usize; 5] = [64, 128, 256, 512, 1024];
/// Runs of each; the first one warms up.
const ROUNDS: usize = 4;
/// What takes longer says enough.
const LONG_US: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::parameters::Parameter;

    fn matrix(dims: &[u64]) -> Parameter {
        let len = dims.iter().product::<u64>() as usize;
        Parameter { dims: dims.to_vec(), values: vec![0.0; len] }
    }

    #[test]
    fn operations_are_those_of_the_products_and_of_attention() {
        let json = serde_json::json!({
            "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
            "head_dim": 4, "vocab_size": 16, "intermediate_size": 8,
        });
        let architecture = Architecture::from_json(&json).unwrap();
        let named = |names: &[(&str, &[u64])]| {
            let named = names.iter().map(|(name, dims)| ((*name).to_owned(), matrix(dims)));
            Parameters(named.collect())
        };
        let tied = named(&[("embed_tokens.weight", &[16, 8]), ("norm.weight", &[8])]);
        let mut batch = TokenBatch::default();
        batch.push(&[1, 2, 3, 4]);
        batch.push(&[1, 2]);
        let flops = |parameters: &Parameters, frozen: &Parameters| {
            ModelFlops::of(&architecture, parameters, frozen).over(std::slice::from_ref(&batch))
        };
        let none = Parameters::default();
        // Four tokens; contexts of 1, 2, 3 and 1 over two layers of width 8.
        let attention = 12.0 * 8.0 * 2.0 * 7.0;
        assert_eq!(flops(&tied, &none), 4.0 * 6.0 * 128.0 + attention);
        assert_eq!(flops(&none, &tied), 4.0 * 4.0 * 128.0 + attention);
        let untied = named(&[("embed_tokens.weight", &[16, 8]), ("lm_head.weight", &[16, 4])]);
        assert_eq!(flops(&untied, &none), 4.0 * 6.0 * 64.0 + attention);
    }
}
