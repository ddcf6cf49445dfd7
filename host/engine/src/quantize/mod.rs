//! Models in fewer bits: which weight gets which format, and how they come into a file.
//!
//! Each weight that is done is kept beside the result until that is whole: what was interrupted goes on where it stood.

mod calibrate;
mod compress;
mod formats;
mod rotate;
mod sensitive;
mod sensitivity;
mod spread;
mod taps;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jackfield_runtime::Registry;
use plugin_api::{Compressor, Quantizer};

use crate::error::EngineError;
use crate::model::export::{Exported, Exporter};
use crate::model::files::{Metadata, ModelFiles};
use crate::model::weights::{Quantizers, WeightTable};
use crate::model::{Architecture, InterleavedRows, Tokenizer};
use crate::wiring::Wiring;
use formats::Chosen;
use work::Work;

pub use sensitive::SensitiveLayers;
pub use sensitivity::Sensitivity;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe<'a> {
    /// The format of matrices.
    pub format: &'a str,
    /// Formats of others, by patterns of our names, in which `*` is any text; the first that fits counts.
    pub others: &'a [(String, String)],
    /// A folder with the tokenizer, for models that lie without theirs.
    pub tokenizer: Option<&'a Path>,
    /// What chooses the weights of layers with what activations tell; without it they are rounded.
    pub calibrated: Option<Calibrated<'a>>,
    /// Threads that encode.
    pub threads: usize,
}

/// A compressor, and the text that it learns activations on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calibrated<'a> {
    /// The name of the plugin.
    pub compressor: &'a str,
    /// The text.
    pub text: &'a str,
    /// Tokens that are read at a time.
    pub window: usize,
    /// How often that many are read.
    pub windows_max: usize,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantized {
    /// What was written.
    pub exported: Exported,
    /// Weights that were done before, when this was interrupted.
    pub reused: usize,
}

/// What the weights of a model take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighed {
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// Numbers in them.
    pub elements: u64,
    /// Bytes of the file, or of all files in the folder.
    pub size_bytes: u64,
    /// Numbers by format.
    pub formats: BTreeMap<String, u64>,
}

impl Weighed {
    /// Reads what the model at `path` says of its weights.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names what cannot be read.
    pub fn of(path: &Path) -> Result<Self, EngineError> {
        let files = ModelFiles::open(path)?;
        let table = WeightTable::of(&files, &Architecture::of(&files)?)?;
        let (weight_bytes, elements, formats) = (0, 0, BTreeMap::new());
        let size_bytes = work::size_bytes(path);
        let mut weighed = Self { weight_bytes, elements, size_bytes, formats };
        for name in table.names() {
            let desc = table.desc(&files, name)?;
            let elements = (desc.rows * desc.cols) as u64;
            *weighed.formats.entry(desc.format).or_default() += elements;
            weighed.elements += elements;
            for theirs in table.names_in_file(name) {
                weighed.weight_bytes += files.tensor(theirs)?.bytes.len() as u64;
            }
        }
        Ok(weighed)
    }

    /// Bits of all weights, over their number.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * self.weight_bytes as f64 / (self.elements as f64).max(1.0)
    }

    /// Formats with less than 16 bits: what was lost in them stays lost.
    pub fn quantized(&self) -> impl Iterator<Item = &str> {
        self.formats.keys().map(String::as_str).filter(|format| !WHOLE.contains(format))
    }
}

/// Writes the model at `from` to `to`, where nothing is, in the formats that `recipe` says: a GGUF file if `to` ends in
/// `.gguf`, else a folder. `progress` is told weights done and to do, and answers whether to go on; what was done is
/// kept for the next call if not, and if something fails.
///
/// # Errors
///
/// [`EngineError`] that names the file, weight or format; nothing is then at `to`.
pub fn quantize(
    from: &Path,
    to: &Path,
    recipe: &Recipe<'_>,
    wiring: &Wiring,
    registry: &Registry,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Quantized, EngineError> {
    let job = Job::open(from, to, recipe, wiring, registry)?;
    let mut work = Work::open(to, &job.description(recipe, wiring))?;
    let reused = work.num_done();
    job.encode(&mut work, recipe, (wiring, registry), progress)?;
    let exported = job.write(to, &work, recipe.tokenizer, progress)?;
    work.remove()?;
    Ok(Quantized { exported, reused })
}

/// Tries what quantizing each weight alone, as `recipe` says, does to the model at `from`, on the text of its
/// calibration. `progress` is told weights done and to do, and answers whether to go on.
///
/// # Errors
///
/// [`EngineError`] that names the file, weight or plugin; a recipe without a text is one.
pub fn scan(
    from: &Path,
    recipe: &Recipe<'_>,
    wiring: &Wiring,
    registry: &Registry,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Vec<Sensitivity>, EngineError> {
    let Some(asked) = &recipe.calibrated else {
        return Err(EngineError::inconsistent("scan", "a text to scan on", "none"));
    };
    let job = Job::of(from, false, recipe, (wiring, registry), |_| Ok(false))?;
    let tokenizer = job.tokenizer(recipe)?;
    sensitivity::scan(&job, asked, &tokenizer, (wiring, registry), recipe, progress)
}

/// A model that is open, and what becomes of each weight.
struct Job {
    files: ModelFiles,
    architecture: Architecture,
    table: WeightTable,
    quantizers: Quantizers,
    chosen: BTreeMap<String, Chosen>,
    is_gguf: bool,
}

impl Job {
    fn open(
        from: &Path,
        to: &Path,
        recipe: &Recipe<'_>,
        wiring: &Wiring,
        registry: &Registry,
    ) -> Result<Self, EngineError> {
        if std::fs::symlink_metadata(to).is_ok() {
            let (what, found) = (to.display().to_string(), "a file or folder");
            return Err(EngineError::inconsistent(what, "a path at which nothing is", found));
        }
        let is_gguf = to.extension().is_some_and(|ending| ending == "gguf");
        let is_turned = |architecture: &Architecture| {
            let Some(asked) = &recipe.calibrated else { return Ok(false) };
            let mut by = wiring.make::<dyn Compressor>(registry, asked.compressor)?;
            rotate::turns_stream(&mut *by, architecture)
        };
        let job = Self::of(from, is_gguf, recipe, (wiring, registry), is_turned)?;
        if matches!(job.files.metadata(), Metadata::Gguf(_)) && !is_gguf {
            let what = to.display().to_string();
            let expected = "a name that ends in .gguf, since the model is a GGUF file";
            return Err(EngineError::inconsistent(what, expected, "another"));
        }
        if let Some(folder) = recipe.tokenizer.filter(|f| !f.join("tokenizer.json").is_file()) {
            let what = folder.display().to_string();
            return Err(EngineError::inconsistent(what, "a folder with `tokenizer.json`", "none"));
        }
        Ok(job)
    }

    fn of(
        from: &Path,
        is_gguf: bool,
        recipe: &Recipe<'_>,
        (wiring, registry): (&Wiring, &Registry),
        is_turned: impl FnOnce(&Architecture) -> Result<bool, EngineError>,
    ) -> Result<Self, EngineError> {
        let files = ModelFiles::open(from)?;
        let architecture = Architecture::of(&files)?;
        let mut table = WeightTable::of(&files, &architecture)?;
        if is_turned(&architecture)? {
            // A turned table of tokens makes the stream, and what reads it turned has gains in it.
            table.list_again("embed_tokens.weight", HEAD);
        }
        let quantizers = wiring.quantizers(registry)?;
        let chosen = formats::choose(&files, &table, &quantizers, recipe, is_gguf)?;
        Ok(Self { files, architecture, table, quantizers, chosen, is_gguf })
    }

    /// What tells this work from another: the model, and the format of every weight.
    fn description(&self, recipe: &Recipe<'_>, wiring: &Wiring) -> String {
        let chosen = self.chosen.iter().map(|(name, weight)| {
            let Chosen { from, to, rows, cols } = weight;
            format!("{name} {from} {to:?} {rows} {cols}\n")
        });
        let files = work::described(self.files.path());
        let by = recipe.calibrated.map(|by| {
            let Calibrated { compressor, text, window, windows_max } = by;
            let text = work::hash(text.as_bytes());
            format!("{compressor} {:?} {text} {window} {windows_max}", wiring.table(compressor))
        });
        format!("{files}{}{}\n{by:?}\n{}", self.is_gguf, recipe.format, chosen.collect::<String>())
    }

    /// Encodes what is not done yet.
    fn encode(
        &self,
        work: &mut Work,
        recipe: &Recipe<'_>,
        (wiring, registry): (&Wiring, &Registry),
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<(), EngineError> {
        let wanted = || self.chosen.iter().filter(|(_, weight)| weight.to.is_some());
        let (mut done, total) = (0, wanted().count() as u64);
        let mut each = || {
            if progress(done, total) {
                done += 1;
                return Ok(());
            }
            let (what, expected) = ("quantization", "to go on".to_owned());
            let found = format!("an order to stop after {done} of {total} weights");
            Err(EngineError::Request { what, expected, found })
        };
        let mut by_compressor = BTreeSet::new();
        if let Some(asked) = &recipe.calibrated {
            let tokenizer = self.tokenizer(recipe)?;
            let plugins = (wiring, registry);
            let compression =
                compress::Compression::new(self, asked, &tokenizer, plugins, recipe.threads)?;
            by_compressor = compression.weights();
            compression.run(work, &mut each)?;
        }
        for (name, weight) in wanted().filter(|(name, _)| !by_compressor.contains(*name)) {
            each()?;
            if !work.has(name) {
                let values = self.table.values(&self.files, name, &self.quantizers)?;
                self.keep(work, name, weight, values, recipe.threads)?;
            }
        }
        Ok(())
    }

    fn tokenizer(&self, recipe: &Recipe<'_>) -> Result<Tokenizer, EngineError> {
        Ok(match recipe.tokenizer {
            Some(folder) => Tokenizer::from_folder(folder)?,
            None => self.files.tokenizer()?,
        })
    }

    /// The format that a weight gets, with its quantizer.
    fn format_of(&self, name: &str) -> Result<(&str, &dyn Quantizer), EngineError> {
        let format = self.chosen.get(name).and_then(|weight| weight.to.as_deref());
        let found = format.and_then(|format| Some((format, &*self.quantizers.get(format)?.1)));
        found.ok_or_else(|| EngineError::inconsistent(name, "a weight that gets a format", "none"))
    }

    /// Encodes the numbers of a weight, as they lie in the file that was read, and keeps the blocks.
    fn keep(
        &self,
        work: &mut Work,
        name: &str,
        weight: &Chosen,
        mut values: Vec<f32>,
        threads: usize,
    ) -> Result<(), EngineError> {
        let (format, quantizer) = self.format_of(name)?;
        let rows = InterleavedRows::in_gguf(&self.architecture).filter(|_| self.is_turned());
        if let Some(rows) = rows.filter(|rows| rows.concerns(name)) {
            values = rows.done(&values, weight.cols);
        }
        let bytes = encoded(quantizer, &values, weight.cols, threads)
            .map_err(EngineError::plugin(format!("weight `{name}`")))?;
        work.keep(name, format, &bytes)
    }

    /// Whether rows of queries and keys get another order than they have.
    fn is_turned(&self) -> bool {
        self.is_gguf && matches!(self.files.metadata(), Metadata::Hf(_))
    }

    /// Writes the file or folder.
    fn write(
        self,
        to: &Path,
        work: &Work,
        tokenizer: Option<&Path>,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Exported, EngineError> {
        let (is_gguf, is_turned) = (self.is_gguf, self.is_turned());
        let Self { files, architecture, table, quantizers, .. } = self;
        let (files, format, replaced, parts) = (&files, None, BTreeMap::new(), Some(work as _));
        let exporter =
            Exporter { files, architecture, table, quantizers, format, tokenizer, replaced, parts };
        let mut told = |done, total| {
            progress(done, total);
        };
        match (is_gguf, is_turned) {
            (true, false) => exporter.to_same_gguf(to, &mut told),
            (true, true) => exporter.to_gguf(to, &mut told),
            (false, _) => exporter.to_folder(to, &mut told),
        }
    }
}

/// Rows in blocks, some threads at a time.
fn encoded(
    quantizer: &dyn Quantizer,
    values: &[f32],
    cols: usize,
    threads: usize,
) -> plugin_api::Result<Vec<u8>> {
    let mut bytes = vec![0; quantizer.format().size_bytes(values.len())?];
    let row_bytes = quantizer.format().size_bytes(cols)?;
    let rows = (values.len() / cols.max(1)).div_ceil(threads.max(1)).max(1);
    let parts =
        values.chunks((rows * cols).max(1)).zip(bytes.chunks_mut((rows * row_bytes).max(1)));
    let done: Vec<plugin_api::Result<()>> = std::thread::scope(|scope| {
        let parts =
            parts.map(|(values, bytes)| scope.spawn(move || quantizer.encode(values, None, bytes)));
        let parts: Vec<_> = parts.collect();
        let ended = parts.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.map(|ended| ended.unwrap_or_else(|cause| std::panic::resume_unwind(cause))).collect()
    });
    done.into_iter().collect::<plugin_api::Result<()>>()?;
    Ok(bytes)
}

/// What reads the stream at the end; some models have none of its own.
const HEAD: &str = "lm_head.weight";

/// Formats that lose nothing that matters here.
const WHOLE: [&str; 3] = ["F32", "F16", "BF16"];
