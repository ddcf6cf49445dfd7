//! An adapter merged into the weights that it stands beside, in the formats that they have.
//!
//! Sums are of decoded weights, in `f64`, and encoded again by the quantizer of each weight. Where a format has fewer
//! numbers than there are sums, that loses something: how much is measured, weight by weight.

use std::collections::BTreeMap;
use std::path::Path;

use jackfield_runtime::Registry;

use super::{Exported, Exporter};
use crate::error::EngineError;
use crate::model::adapter::AdapterFiles;
use crate::model::files::{Metadata, ModelFiles};
use crate::model::trace::WeightShapes as _;
use crate::model::weights::WeightTable;
use crate::model::{Architecture, InterleavedRows};
use crate::train::{Parameter, Parameters};
use crate::wiring::Wiring;

/// What merging did.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// What was written.
    pub exported: Exported,
    /// Each weight that changed, by our name.
    pub weights: BTreeMap<String, MergedWeight>,
}

/// One weight that an adapter was merged into.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedWeight {
    /// Its format.
    pub format: String,
    /// Root of the mean square of what the adapter adds.
    pub change_rms: f64,
    /// Root of the mean square of what was written less the exact sum.
    pub error_rms: f64,
    /// Largest distance of what was written from the exact sum.
    pub error_max: f64,
    /// Bits of the weight that are others than before.
    pub bits_changed: u64,
    /// Bits of the weight.
    pub bits: u64,
}

impl Merged {
    /// Whether some weight has not the exact sums, rounded to `f32`.
    pub fn is_lossy(&self) -> bool {
        self.weights.values().any(|weight| weight.error_max > 0.0)
    }
}

/// Writes the model at `model` with the adapter in `adapter` merged into its weights to `to`, where nothing is: a
/// GGUF file if it is one, else a folder. `progress` is told tensors done and to do.
///
/// # Errors
///
/// [`EngineError`] that names the file, weight or format: one that its quantizer only reads is one. Nothing is
/// then at `to`.
pub fn merge(
    model: &Path,
    adapter: &Path,
    to: &Path,
    wiring: &Wiring,
    registry: &Registry,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Merged, EngineError> {
    let files = ModelFiles::open(model)?;
    let architecture = Architecture::of(&files)?;
    let table = WeightTable::of(&files, &architecture)?;
    let quantizers = wiring.quantizers(registry)?;
    let rows = InterleavedRows::of(&files, &architecture);
    let lora = AdapterFiles::open(adapter, &architecture, rows)?.read(&quantizers)?;
    let is_gguf = matches!(files.metadata(), Metadata::Gguf(_));
    let (format, tokenizer, replaced, parts) = (None, None, BTreeMap::new(), None);
    let files = &files;
    let mut exporter =
        Exporter { files, architecture, table, quantizers, format, tokenizer, replaced, parts };
    let mut weights = BTreeMap::new();
    for (name, alone) in lora.by_weight() {
        if alone.parameters.0.len() != 2 {
            let what = format!("adapter beside `{name}`");
            return Err(EngineError::inconsistent(what, "a lora_A and a lora_B", "one of them"));
        }
        let mut merged = Parameters::default();
        if let Some(dims) = exporter.table.dims(&name) {
            let dims = dims.to_vec();
            let values = exporter.table.values(files, &name, &exporter.quantizers)?;
            merged.0.insert(name.clone(), Parameter { dims, values });
        }
        let before = merged.clone();
        alone.merge(&mut merged)?;
        let (before, exact) = (&before.0[&name].values, &merged.0[&name].values);
        let found = exporter.replace(&name, before, exact)?;
        weights.insert(name, found);
    }
    let exported = match is_gguf {
        true => exporter.to_same_gguf(to, progress)?,
        false => exporter.to_folder(to, progress)?,
    };
    Ok(Merged { exported, weights })
}

impl Exporter<'_> {
    /// Encodes what takes the place of a weight and measures what that loses.
    fn replace(
        &mut self,
        name: &str,
        before: &[f32],
        exact: &[f32],
    ) -> Result<MergedWeight, EngineError> {
        let [theirs] = self.table.names_in_file(name) else {
            return self.refuse(name, "a weight that is one tensor", "several");
        };
        let theirs = theirs.clone();
        let stored = self.files.tensor(&theirs)?;
        let format = stored.format.to_owned();
        let bytes = self.encode(name, exact, &format)?;
        let mut written = vec![0.0; exact.len()];
        if let Some((_, quantizer)) = self.quantizers.get(&format) {
            let decoded = quantizer.decode(&bytes, &mut written);
            decoded.map_err(EngineError::plugin(format!("weight `{name}`")))?;
        }
        let distances = |a: &[f32], b: &[f32]| {
            let pairs = a.iter().zip(b);
            let (sum, most) = pairs.fold((0.0, 0.0_f64), |(sum, most), (a, b)| {
                let distance = (f64::from(*a) - f64::from(*b)).abs();
                (sum + distance * distance, most.max(distance))
            });
            ((sum / a.len().max(1) as f64).sqrt(), most)
        };
        let (error_rms, error_max) = distances(&written, exact);
        let changed = bytes.iter().zip(stored.bytes).map(|(a, b)| u64::from((a ^ b).count_ones()));
        let found = MergedWeight {
            change_rms: distances(before, exact).0,
            error_rms,
            error_max,
            bits_changed: changed.sum(),
            bits: 8 * bytes.len() as u64,
            format,
        };
        self.replaced.insert(theirs, bytes);
        Ok(found)
    }
}
