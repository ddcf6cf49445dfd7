//! Which weights a model would rather keep: what predictions lose when one weight alone is quantized, and what its products are
//! like.

use std::sync::Arc;

use jackfield_runtime::Registry;
use plugin_api::plan::{Dim, OpSink as _, Plan, Port, rewrite};
use plugin_api::{Backend, TensorMut, TensorRef};

use super::spread::{Spread, energy_ratio};
use super::{Calibrated, Job, Recipe, encoded, taps};
use crate::error::EngineError;
use crate::generate::divergence::Divergence;
use crate::model::Tokenizer;
use crate::train::compiled::Compiled;
use crate::train::{Parameters, TokenBatch, plans};
use crate::wiring::Wiring;

/// How much a weight minds to have fewer bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    /// Our name.
    pub name: String,
    /// Numbers.
    pub elements: u64,
    /// Bytes in the format that was tried.
    pub size_bytes: u64,
    /// Mean Kullback-Leibler divergence of the predictions if this weight alone is quantized, in nats.
    pub divergence: f64,
    /// Divergence of the histograms of its results, quantized from whole; nothing for a weight that is looked up.
    pub kl: Option<f64>,
    /// Range of the results over the range of their middle half: about 8 for a bell curve.
    pub dispersion: f64,
    /// Part of the squares of the weight that its first singular value has.
    pub energy: f64,
    /// Third moment of the results, over the third power of their deviation.
    pub skewness: f64,
}

/// Tries the weights of the model behind `job` one by one, in the formats that it chooses. `progress` is told weights done and
/// to do, and answers whether to go on.
pub(super) fn scan(
    job: &Job,
    asked: &Calibrated<'_>,
    tokenizer: &Tokenizer,
    (wiring, registry): (&Wiring, &Registry),
    recipe: &Recipe<'_>,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Vec<Sensitivity>, EngineError> {
    let path = job.files.path();
    let (architecture, mut parameters) = Parameters::of_model(path, wiring, registry)?;
    let mut tokens = tokenizer.encode(asked.text, false);
    let window = asked.window.clamp(1, architecture.context_length());
    tokens.truncate((window + 1).saturating_mul(asked.windows_max));
    let parts = wiring.traced(registry, &architecture)?;
    let plan = plans::logits(&architecture, &parts, [&parameters, &Parameters::default()])?;
    let (plan, products) = with_products(plan, &parameters)?;
    let backend: Arc<dyn Backend> = Arc::from(wiring.backend(registry)?.1);
    let compiled = Compiled::new(plan, &sizes(window), &backend)?;
    let mut probe = Probe { compiled, windows: windows(&tokens, window) };
    let whole = probe.run(&parameters)?;
    let names: Vec<&String> =
        job.chosen.iter().filter(|(_, weight)| weight.to.is_some()).map(|(name, _)| name).collect();
    let mut found = Vec::new();
    for (done, name) in names.iter().enumerate() {
        if !progress(done as u64, names.len() as u64) {
            let (what, expected) = ("scan", "to go on".to_owned());
            let found = format!("an order to stop after {done} of {} weights", names.len());
            return Err(EngineError::Request { what, expected, found });
        }
        let (_, quantizer) = job.format_of(name)?;
        let cols = job.chosen[*name].cols;
        let Some(parameter) = parameters.0.get_mut(*name) else { continue };
        let mut values = vec![0.0; parameter.values.len()];
        let rounded = encoded(quantizer, &parameter.values, cols, recipe.threads);
        let rounded = rounded.and_then(|bytes| {
            quantizer.decode(&bytes, &mut values)?;
            Ok(bytes.len() as u64)
        });
        let size_bytes = rounded.map_err(EngineError::plugin(format!("weight `{name}`")))?;
        let energy = energy_ratio(&parameter.values, cols);
        std::mem::swap(&mut parameter.values, &mut values);
        let tried = probe.run(&parameters)?;
        if let Some(parameter) = parameters.0.get_mut(*name) {
            parameter.values = values;
        }
        let product = products.iter().position(|product| product == *name);
        let spread = match product {
            Some(at) => Spread::of(&whole.products[at]),
            None => Spread::of(&parameters.0[*name].values),
        };
        found.push(Sensitivity {
            name: (*name).clone(),
            elements: parameters.0[*name].values.len() as u64,
            size_bytes,
            divergence: whole.divergence(&tried, &probe.windows),
            kl: product.map(|at| spread.divergence(&whole.products[at], &tried.products[at])),
            dispersion: spread.dispersion,
            energy,
            skewness: spread.skewness,
        });
    }
    Ok(found)
}

/// What the model says, and the results of each product.
struct Said {
    /// `[tokens, vocab]` of all windows.
    logits: Vec<f32>,
    vocab: usize,
    products: Vec<Vec<f32>>,
}

impl Said {
    fn divergence(&self, other: &Self, windows: &[TokenBatch]) -> f64 {
        let mut all = Divergence::default();
        let targets = windows.iter().flat_map(|batch| &batch.targets);
        let rows = self.logits.chunks_exact(self.vocab).zip(other.logits.chunks_exact(self.vocab));
        for (target, (reference, found)) in targets.zip(rows) {
            all.add(*target, reference, found);
        }
        all.kl_mean()
    }
}

/// A model that is run again and again on the same text.
struct Probe {
    compiled: Compiled,
    windows: Vec<TokenBatch>,
}

impl Probe {
    fn run(&mut self, parameters: &Parameters) -> Result<Said, EngineError> {
        let plan = &self.compiled.plan;
        let width = |port: &Port| {
            let width = plan.spec(port.val).width();
            width.map(|n| n as usize).map_err(EngineError::plugin("plan of a scan"))
        };
        let widths: Vec<usize> = plan.outputs.iter().map(width).collect::<Result<_, _>>()?;
        let mut all: Vec<Vec<f32>> = widths.iter().map(|_| Vec::new()).collect();
        for batch in &self.windows {
            let tokens = batch.num_tokens();
            let mut found: Vec<Vec<f32>> = widths.iter().map(|n| vec![0.0; n * tokens]).collect();
            let rows: Vec<u32> = (0..tokens as u32).collect();
            let input = |name: &str| {
                Some(match name {
                    "token_ids" => TensorRef::U32(&batch.tokens),
                    "positions" => TensorRef::U32(&batch.positions),
                    "sequence_index" => TensorRef::U32(&batch.sequence_index),
                    "logit_rows" => TensorRef::U32(&rows),
                    _ => TensorRef::F32(&parameters.0.get(name)?.values),
                })
            };
            let mut outputs: Vec<TensorMut<'_>> =
                found.iter_mut().map(|x| TensorMut::F32(x)).collect();
            self.compiled.run(&sizes(tokens), input, &mut outputs)?;
            all.iter_mut().zip(found).for_each(|(all, found)| all.extend(found));
        }
        let vocab = widths.first().copied().unwrap_or(1).max(1);
        let mut all = all.into_iter();
        Ok(Said { logits: all.next().unwrap_or_default(), vocab, products: all.collect() })
    }
}

/// The plan with the results of all products with matrices after its logits, and the names of those matrices.
fn with_products(
    mut plan: Plan,
    parameters: &Parameters,
) -> Result<(Plan, Vec<String>), EngineError> {
    let products = taps::products(&plan, parameters);
    for (name, val) in &products {
        plan.outputs.push(Port { name: format!("product.{name}"), val: *val });
    }
    let names: Vec<String> = plan.outputs.iter().map(|port| port.name.clone()).collect();
    let whole = rewrite::continued(&plan, |g, outputs| {
        names.iter().zip(outputs).try_for_each(|(name, val)| g.output(name, *val))
    });
    let whole = whole.map_err(EngineError::plugin("plan of a scan"))?;
    Ok((whole, products.into_iter().map(|(name, _)| name).collect()))
}

fn windows(tokens: &[u32], window: usize) -> Vec<TokenBatch> {
    let windows = tokens.chunks(window + 1).map(|tokens| {
        let mut batch = TokenBatch::default();
        batch.push(tokens);
        batch
    });
    windows.filter(|batch| batch.num_tokens() > 0).collect()
}

fn sizes(tokens: usize) -> [(Dim, usize); 3] {
    [(Dim::TOKENS, tokens), (Dim::LOGIT_ROWS, tokens), (Dim::SEQS, 1)]
}
