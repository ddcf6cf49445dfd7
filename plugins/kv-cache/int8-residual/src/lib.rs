//! Pages of 8-bit keys and values; what codes leave of the worst vectors is kept in 4 more bits.
//!
//! Fixed scales clip what is larger than anything that they were made from, and scales of vectors
//! are coarse where one channel is much larger than the others: a patch repairs both.

use plugin_api::prelude::*;

/// Pages of codes with patches.
pub type Int8Residual = PagedCache<PatchedCodes>;

/// Stores numbers as codes from -127 to 127, and patches.
#[derive(Debug)]
pub struct PatchedCodes {
    scales: StateScales,
    patches: Patches,
}

impl PageCodec for PatchedCodes {
    const NAME: &'static str = "int8-residual";

    fn from_config(config: &Config) -> Result<Self> {
        let patches = Patches {
            per_block: config.count_or("patches_per_block", 2, 1..=4096)? as usize,
            error_min: config.unit_interval_or("error_min", 0.01)?,
        };
        Ok(Self { scales: StateScales::from_config(config)?, patches })
    }

    fn storage(&self, states: &[StateSpec]) -> Result<Vec<Storage>> {
        let scales = self.scales.of_states(states.len())?.into_iter();
        let patches = Some(self.patches);
        Ok(scales.map(|scales| Storage::Affine(AffineStorage { scales, patches })).collect())
    }

    fn semantic_id(&self) -> SemanticId {
        let (Patches { per_block, error_min }, scales) = (self.patches, self.scales.id());
        SemanticId::new(format!("kv int8 {scales} patches {per_block} above {error_min}/1"))
    }
}

export_plugin!(Int8Residual);

#[cfg(test)]
mod tests;
