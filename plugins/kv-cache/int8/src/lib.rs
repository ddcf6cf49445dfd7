//! Pages of 8-bit keys and values, with a scale for each token and head, or fixed ones for each
//! channel.
//!
//! Source: Hooper et al., "KVQuant", arXiv:2401.18079, section 3.1, for scales of channels; a scale
//! for each vector is what LLM.int8, arXiv:2208.07339, section 3.1, does to activations.

use plugin_api::prelude::*;

/// Pages of codes.
pub type Int8 = PagedCache<Codes>;

/// Stores numbers as codes from -127 to 127.
#[derive(Debug)]
pub struct Codes {
    scales: StateScales,
}

impl PageCodec for Codes {
    const NAME: &'static str = "int8";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { scales: StateScales::from_config(config)? })
    }

    fn storage(&self, states: &[StateSpec]) -> Result<Vec<Storage>> {
        let scales = self.scales.of_states(states.len())?.into_iter();
        Ok(scales.map(|scales| Storage::Affine(AffineStorage { scales, patches: None })).collect())
    }

    fn semantic_id(&self) -> SemanticId {
        SemanticId::new(format!("kv int8 {}/1", self.scales.id()))
    }
}

export_plugin!(Int8);

#[cfg(test)]
mod tests;
