//! Which weight gets which format.

use std::collections::BTreeMap;

use plugin_api::Quantizer;

use super::{Recipe, WHOLE};
use crate::error::EngineError;
use crate::model::files::ModelFiles;
use crate::model::gguf::GgufWriter;
use crate::model::precise::is_matched;
use crate::model::trace::WeightShapes as _;
use crate::model::weights::{Quantizers, WeightTable};

/// What becomes of a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The format that it has.
    pub(super) from: String,
    /// The format that it gets; nothing for one that stays as it is.
    pub(super) to: Option<String>,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// Chooses for all weights of a model. Vectors stay as they are (whole, in GGUF), and so do the matrices of
/// routers, which are small and decide much.
///
/// # Errors
///
/// [`EngineError::Inconsistent`] for formats that no quantizer writes or the layout does not have, and for patterns that
/// no matrix fits.
pub(super) fn choose(
    files: &ModelFiles,
    table: &WeightTable,
    quantizers: &Quantizers,
    recipe: &Recipe<'_>,
    is_gguf: bool,
) -> Result<BTreeMap<String, Chosen>, EngineError> {
    let formats = Formats { quantizers, is_gguf };
    let is_matrix = |name: &str| table.dims(name).is_some_and(|dims| dims.len() > 1);
    for (pattern, format) in recipe.others {
        formats.check(format)?;
        if !table.names().any(|name| is_matrix(name) && is_matched(pattern, name)) {
            let expected = "a pattern that the name of some matrix fits";
            return Err(EngineError::inconsistent(format!("`{pattern}`"), expected, "none"));
        }
    }
    formats.check(recipe.format)?;
    let mut chosen = BTreeMap::new();
    for name in table.names() {
        let desc = table.desc(files, name)?;
        let (rows, cols) = (desc.rows, desc.cols);
        let other = recipe.others.iter().find(|(pattern, _)| is_matched(pattern, name));
        let wanted = other.map_or(recipe.format, |(_, format)| format);
        let is_kept = !is_matrix(name) || (other.is_none() && name.ends_with("router.weight"));
        let to = match is_kept {
            true => None,
            false => Some(formats.fitting(wanted, cols)?).filter(|to| *to != desc.format),
        };
        let to = to.or_else(|| {
            // The exporter would make it whole.
            (is_gguf && !is_kept).then(|| desc.format.clone())
        });
        chosen.insert(name.to_owned(), Chosen { from: desc.format, to, rows, cols });
    }
    Ok(chosen)
}

/// Formats that can be written.
struct Formats<'a> {
    quantizers: &'a Quantizers,
    is_gguf: bool,
}

impl Formats<'_> {
    /// Refuses a format that the layout has not.
    fn check(&self, name: &str) -> Result<(), EngineError> {
        if self.quantizers.contains_key(name) && self.is_in_layout(name) {
            return Ok(());
        }
        let known = self.quantizers.keys().map(String::as_str);
        let known = known.filter(|name| self.is_in_layout(name)).collect::<Vec<_>>().join(", ");
        let layout = if self.is_gguf { "a GGUF file" } else { "a folder" };
        let expected = format!("one that is written to {layout} ({known})");
        Err(EngineError::inconsistent("format", expected, format!("`{name}`")))
    }

    fn is_in_layout(&self, name: &str) -> bool {
        !self.is_gguf || GgufWriter::knows(name)
    }

    /// The format that is wanted, if rows of `cols` numbers are whole blocks of it; else the one with the fewest
    /// bits more, as llama.cpp does.
    fn fitting(&self, wanted: &str, cols: usize) -> Result<String, EngineError> {
        let bits = |quantizer: &dyn Quantizer| {
            let format = quantizer.format();
            format.block_bytes as f64 / format.block_len as f64
        };
        let Some((_, first)) = self.quantizers.get(wanted) else {
            self.check(wanted)?;
            return Ok(wanted.to_owned());
        };
        if cols.is_multiple_of(first.format().block_len) {
            return Ok(wanted.to_owned());
        }
        let fits = self.quantizers.iter().filter(|(name, (_, quantizer))| {
            self.is_in_layout(name)
                && cols.is_multiple_of(quantizer.format().block_len)
                && bits(&**quantizer) >= bits(&**first)
        });
        let least = fits.min_by(|(_, (_, a)), (_, (_, b))| bits(&**a).total_cmp(&bits(&**b)));
        Ok(least.map_or_else(|| WHOLE[0].to_owned(), |(name, _)| name.clone()))
    }
}
