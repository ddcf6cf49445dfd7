//! Weights chosen by a compressor, one layer after the other: each sees the activations that the layers before it make as they
//! will be, rounded already.

use std::collections::{BTreeMap, BTreeSet};

use jackfield_runtime::Registry;
use plugin_api::kinds::compressor::{Chosen as New, Compressed, Grid, Matrix, Products};
use plugin_api::kinds::quantizer::Affine;
use plugin_api::{Compressor, Quantizer};

use super::calibrate::{Calibrator, Statistics};
use super::rotate::{Turned, turns_stream};
use super::taps::{Source, Tap};
use super::work::Work;
use super::{Calibrated, Job, encoded};
use crate::error::EngineError;
use crate::model::{InterleavedRows, Tokenizer};
use crate::train::{Parameter, Parameters, plans};
use crate::wiring::Wiring;

/// A model on its way through a compressor.
pub(super) struct Compression<'a> {
    job: &'a Job,
    compressor: Box<dyn Compressor>,
    name: &'a str,
    calibrator: Calibrator,
    /// As they will be for layers that are done, as they were for those that follow.
    parameters: Parameters,
    /// Weights that are no longer those of the file, before any is chosen.
    turned: BTreeSet<String>,
    threads: usize,
}

/// What becomes of a layer.
#[derive(Default)]
struct Layer {
    /// Weights that were chosen, by name.
    new: BTreeMap<String, New>,
    /// Vectors that changed.
    vectors: Vec<String>,
}

impl<'a> Compression<'a> {
    /// Reads the model and the text.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names what there is not: a compressor, a plan for whole sequences, tokens.
    pub(super) fn new(
        job: &'a Job,
        asked: &Calibrated<'a>,
        tokenizer: &Tokenizer,
        (wiring, registry): (&Wiring, &Registry),
        threads: usize,
    ) -> Result<Self, EngineError> {
        let mut compressor = wiring.make::<dyn Compressor>(registry, asked.compressor)?;
        let path = job.files.path();
        let (architecture, mut parameters) = Parameters::of_model(path, wiring, registry)?;
        let mut tokens = tokenizer.encode(asked.text, false);
        let window = asked.window.clamp(1, architecture.context_length());
        tokens.truncate((window + 1).saturating_mul(asked.windows_max));
        if tokens.len() < TOKENS_MIN {
            let expected = format!("at least {TOKENS_MIN} tokens");
            return Err(EngineError::inconsistent("text to calibrate on", expected, tokens.len()));
        }
        let plugins = (wiring, registry);
        let mut turned = BTreeSet::new();
        if turns_stream(&mut *compressor, &architecture)? {
            if let Some(table) = parameters.0.get("embed_tokens.weight").cloned() {
                parameters.0.entry(super::HEAD.to_owned()).or_insert(table);
            }
            let parts = wiring.traced(registry, &architecture)?;
            let plan = plans::logits(&architecture, &parts, [&parameters, &Parameters::default()])?;
            let found = Turned::find(&plan, &parameters);
            let done = found.and_then(|found| found.apply(&mut *compressor, &mut parameters));
            let what = || format!("compressor `{}`", asked.compressor);
            turned = done.map_err(EngineError::plugin(what()))?;
        }
        let needs = compressor.needs_moments();
        let calibrator =
            Calibrator::new(&architecture, &parameters, (&tokens, window), plugins, needs)?;
        let name = asked.compressor;
        Ok(Self { job, compressor, name, calibrator, parameters, turned, threads })
    }

    /// The weights that it chooses.
    pub(super) fn weights(&self) -> BTreeSet<String> {
        self.turned.iter().cloned().chain(self.chosen()).collect()
    }

    /// Those of layers, which it is asked about.
    fn chosen(&self) -> impl Iterator<Item = String> {
        let taps = self.calibrator.taps.iter().filter(|tap| self.grid(tap).is_some());
        taps.flat_map(|tap| tap.weights.iter().cloned())
    }

    /// Chooses the weights of all layers and keeps them; `each` is told of every weight that is kept, and says whether
    /// to go on.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the weight; layers that are done stay done.
    pub(super) fn run(
        mut self,
        work: &mut Work,
        each: &mut dyn FnMut() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let layers = self.calibrator.taps.iter().map(|tap| tap.layer).max().map_or(0, |n| n + 1);
        for layer in 0..layers {
            let taps: Vec<usize> = (0..self.calibrator.taps.len())
                .filter(|&index| {
                    let tap = &self.calibrator.taps[index];
                    tap.layer == layer && self.grid(tap).is_some()
                })
                .collect();
            let weights = taps.iter().flat_map(|&index| &self.calibrator.taps[index].weights);
            let weights: Vec<String> = weights.cloned().collect();
            if weights.iter().all(|name| work.has(name)) {
                self.take_done(work, &taps)?;
                weights.iter().try_for_each(|_| each())?;
                continue;
            }
            let found = self.calibrator.statistics(&self.parameters, &taps)?;
            let mut made = Layer::default();
            // What makes an input comes before it: its rows are divided before they are chosen.
            for (&index, found) in taps.iter().zip(&found).rev() {
                self.compress(index, found, &mut made)?;
            }
            // A layer is done when its matrices are: what changed beside them is kept first.
            for name in &made.vectors {
                let bytes: Vec<u8> =
                    self.parameters.0[name].values.iter().flat_map(|x| x.to_le_bytes()).collect();
                work.keep(name, "F32", &bytes)?;
            }
            for (name, new) in made.new {
                self.keep(work, &name, &new)?;
                each()?;
            }
        }
        let chosen: BTreeSet<String> = self.chosen().collect();
        self.turned.difference(&chosen).try_for_each(|name| self.keep_turned(work, name, each))
    }

    /// Keeps a weight that was turned and that nobody was asked about, in the format that it has or gets.
    fn keep_turned(
        &self,
        work: &mut Work,
        name: &str,
        each: &mut dyn FnMut() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let Some(weight) = self.job.chosen.get(name) else {
            return Err(EngineError::inconsistent(name, "a weight of the model", "none"));
        };
        if !work.has(name) {
            let (Parameter { dims, values }, cols) = (&self.parameters.0[name], weight.cols);
            let whole = if dims.len() > 1 { &weight.from } else { super::WHOLE[0] };
            let format = weight.to.as_deref().unwrap_or(whole);
            let Some((_, quantizer)) = self.job.quantizers.get(format) else {
                return Err(EngineError::inconsistent(name, "a format with a quantizer", format));
            };
            let rows = self.rows(name);
            let turned = rows.map_or_else(|| values.clone(), |rows| rows.done(values, cols));
            let bytes = encoded(&**quantizer, &turned, cols, self.threads);
            let bytes = bytes.map_err(EngineError::plugin(format!("weight `{name}`")))?;
            work.keep(name, format, &bytes)?;
        }
        if weight.to.is_some() { each() } else { Ok(()) }
    }

    /// The grid of a tap's weights: nothing for weights that stay as they are, and for different formats. The second is whether
    /// there is one.
    fn grid(&self, tap: &Tap) -> Option<Option<Grid>> {
        let mut format = None;
        for name in &tap.weights {
            let to = self.job.chosen.get(name)?.to.as_deref()?;
            if *format.get_or_insert(to) != to || super::WHOLE.contains(&to) {
                return None;
            }
        }
        let (_, quantizer) = self.job.quantizers.get(format?)?;
        Some(Grid::of(&quantizer.lowering()).filter(|grid| packs(&**quantizer, grid)))
    }

    /// Asks the compressor about one input.
    fn compress(
        &mut self,
        index: usize,
        found: &Statistics,
        made: &mut Layer,
    ) -> Result<(), EngineError> {
        let tap = self.calibrator.taps[index].clone();
        let grid = self.grid(&tap).flatten();
        let matrix = |name: &'_ String| {
            let parameter = &self.parameters.0[name];
            let [rows, cols] =
                [0, 1].map(|axis| parameter.dims.get(axis).map_or(1, |&n| n as usize));
            (name.clone(), rows, cols)
        };
        let shapes: Vec<(String, usize, usize)> = tap.weights.iter().map(matrix).collect();
        let weights = shapes.iter().map(|(name, rows, cols)| {
            let values = &self.parameters.0[name].values;
            Matrix { name, rows: *rows, cols: *cols, values }
        });
        let (input, can_scale) = (found.input(), tap.source.is_some());
        let products = Products { input, weights: weights.collect(), grid, can_scale };
        let answer = products.check().and_then(|()| {
            let answer = self.compressor.compress(&products)?;
            answer.check(&products)?;
            Ok(answer)
        });
        let what = || format!("compressor `{}`, `{}`", self.name, tap.weights.join("`, `"));
        let Compressed { input_scale, weights } = answer.map_err(EngineError::plugin(what()))?;
        if let Some(source) = tap.source.as_ref().filter(|_| !input_scale.is_empty()) {
            self.divide(source, &input_scale, made);
        }
        for ((name, ..), new) in shapes.into_iter().zip(weights) {
            let values = self.values(&name, &new)?;
            if let Some(parameter) = self.parameters.0.get_mut(&name) {
                parameter.values = values;
            }
            made.new.insert(name, new);
        }
        Ok(())
    }

    /// Divides what makes an input.
    fn divide(&mut self, source: &Source, by: &[f32], made: &mut Layer) {
        let (name, width) = match source {
            Source::Norm(name) => (name, 1),
            Source::Rows(name) => {
                let cols = self.parameters.0.get(name).and_then(|p| p.dims.last().copied());
                (name, cols.unwrap_or(1) as usize)
            }
        };
        let Some(parameter) = self.parameters.0.get_mut(name) else { return };
        for (row, by) in parameter.values.chunks_mut(width.max(1)).zip(by) {
            row.iter_mut().for_each(|x| *x /= by);
        }
        if matches!(source, Source::Norm(_)) {
            made.vectors.push(name.clone());
        }
    }

    /// The numbers that a weight has when it is read back.
    fn values(&self, name: &str, new: &New) -> Result<Vec<f32>, EngineError> {
        let bytes = self.blocks(name, new, None)?;
        self.decoded(name, &bytes)
    }

    fn decoded(&self, name: &str, bytes: &[u8]) -> Result<Vec<f32>, EngineError> {
        let (_, quantizer) = self.job.format_of(name)?;
        let mut values = vec![0.0; self.parameters.0[name].values.len()];
        let decoded = quantizer.decode(bytes, &mut values);
        decoded.map_err(EngineError::plugin(format!("weight `{name}`")))?;
        Ok(values)
    }

    /// The blocks of a weight, its rows in the order of Hugging Face, or as `rows` puts them.
    fn blocks(
        &self,
        name: &str,
        new: &New,
        rows: Option<InterleavedRows>,
    ) -> Result<Vec<u8>, EngineError> {
        let (_, quantizer) = self.job.format_of(name)?;
        let cols = self.job.chosen[name].cols;
        let turned = |x: &[f32], width: usize| match rows {
            Some(rows) => rows.done(x, width),
            None => x.to_vec(),
        };
        let made = match new {
            New::Values(values) => encoded(quantizer, &turned(values, cols), cols, self.threads),
            New::Codes { codes, scales, mins } => {
                let groups = scales.len() * cols / codes.len().max(1);
                let codes = rows.map_or_else(|| codes.clone(), |rows| rows.done(codes, cols));
                let (scales, mins) = (turned(scales, groups), turned(mins, groups));
                let parts = Affine { codes: &codes, scales: &scales, mins: &mins };
                let size = quantizer.format().size_bytes(codes.len());
                size.and_then(|size| {
                    let mut bytes = vec![0; size];
                    quantizer.pack(&parts, &mut bytes)?;
                    Ok(bytes)
                })
            }
            _ => Err(plugin_api::Error::unsupported("chosen weight", "a form that is known here")),
        };
        made.map_err(EngineError::plugin(format!("weight `{name}`")))
    }

    /// How rows of a weight lie in what is written, if not as here.
    fn rows(&self, name: &str) -> Option<InterleavedRows> {
        let rows = InterleavedRows::in_gguf(&self.job.architecture).filter(|_| self.job.is_gguf);
        rows.filter(|rows| rows.concerns(name))
    }

    fn keep(&self, work: &mut Work, name: &str, new: &New) -> Result<(), EngineError> {
        let bytes = self.blocks(name, new, self.rows(name))?;
        work.keep(name, self.job.format_of(name)?.0, &bytes)
    }

    /// Puts the weights of a layer that was done before in the place of those that it had.
    fn take_done(&mut self, work: &Work, taps: &[usize]) -> Result<(), EngineError> {
        use crate::model::export::Parts as _;
        for &index in taps {
            let Tap { weights, source, .. } = self.calibrator.taps[index].clone();
            for name in weights {
                let mut values = self.decoded(&name, &work.bytes(&name)?)?;
                if let Some(rows) = self.rows(&name) {
                    values = rows.undone(&values, self.job.chosen[&name].cols);
                }
                self.put(&name, values);
            }
            if let Some(Source::Norm(name)) =
                source.filter(|s| matches!(s, Source::Norm(n) if work.has(n)))
            {
                let bytes = work.bytes(&name)?;
                let (chunks, _) = bytes.as_chunks::<4>();
                self.put(&name, chunks.iter().map(|x| f32::from_le_bytes(*x)).collect());
            }
        }
        Ok(())
    }

    fn put(&mut self, name: &str, values: Vec<f32>) {
        if let Some(parameter) = self.parameters.0.get_mut(name) {
            parameter.values = values;
        }
    }
}

/// Whether a format makes blocks of codes that others chose: asked with a block of nothing.
fn packs(quantizer: &dyn Quantizer, grid: &Grid) -> bool {
    let format = quantizer.format();
    let (codes, groups) = (vec![grid.zero_point; format.block_len], format.block_len / grid.group);
    let (scales, mins) = (vec![0.0; groups], vec![0.0; if grid.has_min { groups } else { 0 }]);
    let parts = Affine { codes: &codes, scales: &scales, mins: &mins };
    quantizer.pack(&parts, &mut vec![0; format.block_bytes]).is_ok()
}

/// Fewer say nothing about activations.
const TOKENS_MIN: usize = 64;
