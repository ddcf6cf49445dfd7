//! What the inputs of products are like while a model reads a text.

use std::sync::Arc;

use jackfield_runtime::Registry;
use plugin_api::kinds::compressor::Input;
use plugin_api::plan::{Dim, OpSink as _, Plan, Port, ops, rewrite};
use plugin_api::{Backend, TensorMut, TensorRef};

use super::taps::{self, Tap};
use crate::error::EngineError;
use crate::model::Architecture;
use crate::train::compiled::Compiled;
use crate::train::{Parameters, TokenBatch, plans};
use crate::wiring::Wiring;

/// A model that is looked into, with what it reads.
pub(super) struct Calibrator {
    pub(super) taps: Vec<Tap>,
    /// Its outputs are the inputs of each tap, then the moments of each if they are asked for.
    compiled: Compiled,
    windows: Vec<TokenBatch>,
    has_moments: bool,
}

/// Statistics of one input.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statistics {
    tokens: u64,
    mean_abs: Vec<f32>,
    max_abs: Vec<f32>,
    moments: Vec<f32>,
}

impl Calibrator {
    /// Describes and compiles the model for windows of `window` tokens.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the plugin, or why there is no plan for whole sequences.
    pub(super) fn new(
        architecture: &Architecture,
        parameters: &Parameters,
        (tokens, window): (&[u32], usize),
        (wiring, registry): (&Wiring, &Registry),
        has_moments: bool,
    ) -> Result<Self, EngineError> {
        let parts = wiring.traced(registry, architecture)?;
        let plan = plans::logits(architecture, &parts, [parameters, &Parameters::default()])?;
        let taps = taps::find(&plan, parameters);
        let plan = tapped(plan, &taps, has_moments)?;
        let backend: Arc<dyn Backend> = Arc::from(wiring.backend(registry)?.1);
        let compiled = Compiled::new(plan, &sizes(window), &backend)?;
        let windows = tokens.chunks(window + 1).map(|tokens| {
            let mut batch = TokenBatch::default();
            batch.push(tokens);
            batch
        });
        let windows = windows.filter(|batch| batch.num_tokens() > 0).collect();
        Ok(Self { taps, compiled, windows, has_moments })
    }

    /// The statistics of some taps, with these parameters.
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] if the backend fails; [`EngineError::Inconsistent`] for activations that are not finite.
    pub(super) fn statistics(
        &mut self,
        parameters: &Parameters,
        wanted: &[usize],
    ) -> Result<Vec<Statistics>, EngineError> {
        let widths: Vec<usize> = self.taps.iter().map(|tap| width(tap, parameters)).collect();
        let size = |moments: bool, index: usize, tokens: usize| match moments {
            true => widths[index] * widths[index],
            false => widths[index] * tokens,
        };
        let kinds = if self.has_moments { &[false, true][..] } else { &[false] };
        let mut sums: Vec<Sums> = wanted.iter().map(|&index| Sums::new(widths[index])).collect();
        for batch in &self.windows {
            let tokens = batch.num_tokens();
            let room = |&moments: &bool| {
                let size = &size;
                (0..widths.len()).map(move |index| vec![0.0; size(moments, index, tokens)])
            };
            let mut found: Vec<Vec<f32>> = kinds.iter().flat_map(room).collect();
            run(&mut self.compiled, batch, parameters, &mut found)?;
            for (sums, &index) in sums.iter_mut().zip(wanted) {
                let moments = found.get(widths.len() + index).map_or(&[][..], |m| m);
                sums.add(tokens, &found[index], moments);
            }
        }
        let named = sums.into_iter().zip(wanted);
        named.map(|(sums, &index)| sums.means(&self.taps[index])).collect()
    }
}

impl Statistics {
    /// As compressors read them.
    pub(super) fn input(&self) -> Input<'_> {
        let Self { tokens, mean_abs, max_abs, moments } = self;
        Input { tokens: *tokens, mean_abs, max_abs, moments }
    }
}

/// Sums over tokens.
struct Sums {
    tokens: u64,
    abs: Vec<f64>,
    max_abs: Vec<f32>,
    moments: Vec<f64>,
}

impl Sums {
    fn new(width: usize) -> Self {
        Self { tokens: 0, abs: vec![0.0; width], max_abs: vec![0.0; width], moments: Vec::new() }
    }

    fn add(&mut self, tokens: usize, rows: &[f32], moments: &[f32]) {
        self.tokens += tokens as u64;
        for row in rows.chunks_exact(self.abs.len().max(1)) {
            for ((sum, most), x) in self.abs.iter_mut().zip(&mut self.max_abs).zip(row) {
                *sum += f64::from(x.abs());
                *most = most.max(x.abs());
            }
        }
        self.moments.resize(moments.len(), 0.0);
        self.moments.iter_mut().zip(moments).for_each(|(sum, x)| *sum += f64::from(*x));
    }

    fn means(self, tap: &Tap) -> Result<Statistics, EngineError> {
        let Self { tokens, abs, max_abs, moments } = self;
        let mean = |sums: Vec<f64>| -> Vec<f32> {
            sums.into_iter().map(|sum| (sum / tokens.max(1) as f64) as f32).collect()
        };
        let found = Statistics { tokens, mean_abs: mean(abs), max_abs, moments: mean(moments) };
        if found.mean_abs.iter().chain(&found.moments).all(|x| x.is_finite()) {
            return Ok(found);
        }
        let what = format!("inputs of `{}`", tap.weights.join("`, `"));
        Err(EngineError::inconsistent(what, "finite activations", "others"))
    }
}

/// The plan with the inputs of taps, and their moments, as its outputs.
fn tapped(mut plan: Plan, taps: &[Tap], has_moments: bool) -> Result<Plan, EngineError> {
    plan.outputs = taps
        .iter()
        .enumerate()
        .map(|(index, tap)| Port { name: format!("input.{index}"), val: tap.input })
        .collect();
    let whole = rewrite::continued(&plan, |g, inputs| {
        for (index, input) in inputs.iter().enumerate() {
            g.output(&format!("input.{index}"), *input)?;
        }
        for (index, input) in inputs.iter().enumerate().filter(|_| has_moments) {
            let made = g.op(ops::MATMUL_ROWS, &[*input, *input], plugin_api::plan::Attrs::new())?;
            g.output(&format!("moments.{index}"), made[0])?;
        }
        Ok(())
    });
    whole.map_err(EngineError::plugin("plan of calibration"))
}

fn run(
    compiled: &mut Compiled,
    batch: &TokenBatch,
    parameters: &Parameters,
    found: &mut [Vec<f32>],
) -> Result<(), EngineError> {
    let tokens = batch.num_tokens();
    let last = [tokens.saturating_sub(1) as u32];
    let input = |name: &str| {
        Some(match name {
            "token_ids" => TensorRef::U32(&batch.tokens),
            "positions" => TensorRef::U32(&batch.positions),
            "sequence_index" => TensorRef::U32(&batch.sequence_index),
            "logit_rows" => TensorRef::U32(&last),
            _ => TensorRef::F32(&parameters.0.get(name)?.values),
        })
    };
    let mut outputs: Vec<TensorMut<'_>> = found.iter_mut().map(|x| TensorMut::F32(x)).collect();
    compiled.run(&sizes(tokens), input, &mut outputs)
}

fn sizes(tokens: usize) -> [(Dim, usize); 3] {
    [(Dim::TOKENS, tokens), (Dim::LOGIT_ROWS, 1), (Dim::SEQS, 1)]
}

/// Channels of a tap's input.
fn width(tap: &Tap, parameters: &Parameters) -> usize {
    let first = tap.weights.first().and_then(|name| parameters.0.get(name));
    first.and_then(|parameter| parameter.dims.last()).map_or(0, |&cols| cols as usize)
}
