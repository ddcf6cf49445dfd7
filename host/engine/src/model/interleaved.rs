//! Rows of queries and keys as converters to GGUF order them for some families, and as they were.
//!
//! Source: `permute` of `convert_hf_to_gguf.py` in llama.cpp: within a head of `d` rows, row `p · d/2 + j` of
//! Hugging Face becomes row `2 j + p`, so that the two channels that are rotated together lie side by side.

use plugin_api::Config;

use super::files::{Metadata, ModelFiles};
use super::hyperparameters::Architecture;

/// How the rows of a model's queries and keys lie in its file, where that is not as in files of Hugging Face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterleavedRows {
    head_dim: usize,
}

impl InterleavedRows {
    /// Those of a model, if its file has them.
    pub fn of(files: &ModelFiles, architecture: &Architecture) -> Option<Self> {
        let is_gguf = matches!(files.metadata(), Metadata::Gguf(_));
        is_gguf.then(|| Self::in_gguf(architecture)).flatten()
    }

    /// Those that a GGUF file of a model has.
    pub fn in_gguf(Architecture { blueprint, config }: &Architecture) -> Option<Self> {
        let is_said = |table: &toml::Table| {
            table.get(PAIRING).and_then(toml::Value::as_str) == Some(INTERLEAVED)
        };
        let hf = &blueprint.hf.hyperparameters;
        let is_changed = is_said(&blueprint.gguf.hyperparameters) && !is_said(hf);
        let head_dim = config.count("head_dim", 2..=4096).ok()?;
        is_changed.then_some(Self { head_dim: head_dim as usize })
    }

    /// Whether the weight of this name has them: it makes queries or keys.
    pub fn concerns(self, name: &str) -> bool {
        ["q_proj", "k_proj"].iter().any(|part| {
            ["weight", "bias", "lora_B.weight"]
                .iter()
                .any(|end| name.strip_suffix(end).is_some_and(|n| n.ends_with(&format!("{part}."))))
        })
    }

    /// Rows in the order of Hugging Face, from those of the file: `elements [rows, width]`.
    pub fn undone<T: Copy>(self, elements: &[T], width: usize) -> Vec<T> {
        self.moved(elements, width, |half, row| 2 * (row % half) + row / half)
    }

    /// Rows in the order of the file, from those of Hugging Face.
    pub fn done<T: Copy>(self, elements: &[T], width: usize) -> Vec<T> {
        self.moved(elements, width, |half, row| row % 2 * half + row / 2)
    }

    /// `source` says which row of a head comes to a row, given half of how many there are.
    fn moved<T: Copy>(
        self,
        elements: &[T],
        width: usize,
        source: impl Fn(usize, usize) -> usize,
    ) -> Vec<T> {
        let mut moved = elements.to_vec();
        let size = (self.head_dim * width).max(1);
        for (to, from) in moved.chunks_exact_mut(size).zip(elements.chunks_exact(size)) {
            for (row, to) in to.chunks_exact_mut(width).enumerate() {
                to.copy_from_slice(&from[source(self.head_dim / 2, row) * width..][..width]);
            }
        }
        moved
    }

    /// Says in the hyperparameters that rows lie as in files of Hugging Face.
    pub fn say_undone(config: &mut Config) {
        config.set(PAIRING, "half-split");
    }
}

const PAIRING: &str = "rope_pairing";
const INTERLEAVED: &str = "interleaved";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_where_the_converter_puts_them_and_back() {
        let rows = InterleavedRows { head_dim: 6 };
        // Two heads of six rows of one element.
        let theirs: Vec<u32> = (0..12).collect();
        let ours = rows.done(&theirs, 1);
        assert_eq!(ours, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(rows.undone(&ours, 1), theirs);
        let wide: Vec<u32> = (0..48).collect();
        assert_eq!(rows.undone(&rows.done(&wide, 4), 4), wide);
    }
}
