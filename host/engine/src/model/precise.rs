//! The same model in more bits beside the one that is loaded: weights that a mask names are read from it, and an answer may
//! go on with all of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin_api::Backend;
use plugin_api::plan::Plan;
use sha2::{Digest as _, Sha256};

use super::files::ModelFiles;
use super::hyperparameters::Architecture;
use super::loaded::{Packed, pack};
use super::trace::{TracedParts, trace_decoder};
use super::weights::{Quantizers, WeightTable};
use crate::error::EngineError;

/// The same model in more bits, and what is used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreciseOptions {
    /// A file, or a folder in the layout of Hugging Face.
    pub path: PathBuf,
    /// Names of weights that are read from it, for every request; `*` is any text.
    pub mask: Vec<String>,
    /// Whether all of its weights lie in memory, so that answers may go on with them.
    pub fallback: bool,
}

/// The open files of the model in more bits.
#[derive(Debug)]
pub struct PreciseFiles {
    files: ModelFiles,
    table: WeightTable,
    /// Names of what the plan reads.
    weights: Vec<String>,
}

/// Weights that stand in for those of the model.
#[derive(Clone, Default)]
pub struct StandIns {
    /// Where they come from, if there is another model.
    pub files: Option<Arc<PreciseFiles>>,
    /// Those that the mask names.
    pub masked: Arc<Packed>,
    /// All of them, if answers may go on with them.
    pub all: Option<Arc<Packed>>,
}

/// Which weights stand in for those of the model, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask(BTreeSet<String>);

impl PreciseFiles {
    /// Opens the model at `path`, of which `parts` have to make the plan that they make of the other.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for another model, and what its files say against their formats.
    pub fn open(
        path: &Path,
        model: &Architecture,
        parts: &TracedParts,
        plan: &Plan,
    ) -> Result<Self, EngineError> {
        let files = ModelFiles::open(path)?;
        let mut architecture = Architecture::of(&files)?;
        architecture.config.set("context_length", model.context_length() as i64);
        let table = WeightTable::of(&files, &architecture)?;
        let what = format!("precise model {}", path.display());
        let own = trace_decoder(&architecture, parts, &table)
            .map_err(EngineError::plugin(what.clone()))?;
        if own.to_bytes() != plan.to_bytes() {
            let expected = "the model that is loaded, in the same layout of files and in more bits";
            return Err(EngineError::inconsistent(what, expected, "a model of another plan"));
        }
        let weights = plan.weights.iter().map(|port| port.name.clone()).collect();
        Ok(Self { files, table, weights })
    }

    /// The weights that fit one of `patterns`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] with the first pattern that fits none.
    pub fn mask(&self, patterns: &[String]) -> Result<Mask, EngineError> {
        let mut names = BTreeSet::new();
        for pattern in patterns {
            let mut fitting =
                self.weights.iter().filter(|name| is_matched(pattern, name)).peekable();
            if fitting.peek().is_none() {
                let expected = "a pattern that the name of some weight fits";
                return Err(EngineError::inconsistent(
                    format!("mask `{pattern}`"),
                    expected,
                    "none",
                ));
            }
            names.extend(fitting.cloned());
        }
        Ok(Mask(names))
    }

    fn pack(
        &self,
        names: &[&str],
        quantizers: &Quantizers,
        backend: &dyn Backend,
        threads: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Packed, EngineError> {
        pack(names, &self.table, &self.files, quantizers, backend, threads, progress)
    }
}

impl StandIns {
    /// Opens what `options` name, beside a model whose `parts` made `plan`.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the file, pattern or weight.
    pub fn load(
        options: &PreciseOptions,
        model: &Architecture,
        (parts, plan): (&TracedParts, &Plan),
        quantizers: &Quantizers,
        (backend, threads): (&dyn Backend, usize),
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Mask, Self), EngineError> {
        let files = PreciseFiles::open(&options.path, model, parts, plan)?;
        let mask = files.mask(&options.mask)?;
        let all = match options.fallback {
            true => {
                let names: Vec<&str> = files.weights.iter().map(String::as_str).collect();
                Some(Arc::new(files.pack(&names, quantizers, backend, threads, progress)?))
            }
            false => None,
        };
        let none = Self { files: Some(Arc::new(files)), masked: Arc::default(), all };
        let stand_ins = none.masked(&mask, quantizers, backend, threads)?;
        Ok((mask, stand_ins))
    }

    /// The same with another mask. What lies packed is shared.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the weight.
    pub fn masked(
        &self,
        mask: &Mask,
        quantizers: &Quantizers,
        backend: &dyn Backend,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let mut masked = Packed::new();
        let mut missing = Vec::new();
        for name in &mask.0 {
            let lying = self.all.as_ref().unwrap_or(&self.masked).get(name);
            match lying {
                Some((place, buf)) => {
                    masked.insert(name.clone(), (place.clone(), Arc::clone(buf)));
                }
                None => missing.push(name.as_str()),
            }
        }
        if let Some(files) = self.files.as_ref().filter(|_| !missing.is_empty()) {
            masked.extend(files.pack(&missing, quantizers, backend, threads, &mut |_, _| ())?);
        }
        Ok(Self { masked: Arc::new(masked), ..self.clone() })
    }

    /// The files in more bits.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] if there are none.
    pub fn files(&self) -> Result<&PreciseFiles, EngineError> {
        self.files.as_deref().ok_or_else(|| {
            EngineError::inconsistent("precise model", "one beside the model", "none")
        })
    }
}

impl Mask {
    /// What the mask is called: `none`, or how many weights it names and the beginning of a digest of their names.
    pub fn label(&self) -> String {
        if self.0.is_empty() {
            return "none".to_owned();
        }
        let mut hash = Sha256::new();
        for name in self.names() {
            hash.update(name);
            hash.update([0]);
        }
        let mut label = format!("{}-", self.0.len());
        for byte in &hash.finalize()[..4] {
            let _ = write!(label, "{byte:02x}");
        }
        label
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Whether `pattern`, in which `*` is any text, is the whole of `name`.
pub(crate) fn is_matched(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(head) else { return false };
    (0..=name.len()).any(|at| name.is_char_boundary(at) && is_matched(rest, &name[at..]))
}

/// The slot that masks fill.
pub const SLOT: (&str, &str) = ("precise", "mask");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_any_text() {
        #[rustfmt::skip]
        let cases = [
            ("lm_head.weight",     "lm_head.weight",                      true),
            ("*.down_proj.weight", "layers.3.mlp.down_proj.weight",       true),
            ("layers.1.*",         "layers.11.mlp.down_proj.weight",      false),
            ("layers.1*down*",     "layers.11.mlp.down_proj.weight",      true),
            ("*",                  "",                                    true),
            ("*x",                 "layers",                              false),
            ("",                   "layers",                              false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(is_matched(pattern, name), expected, "{pattern} {name}");
        }
    }
}
