//! Paged cache: blocks of a few tokens, shared between forked sequences, copied before a write.
//!
//! Source: Kwon et al., "Efficient Memory Management … with PagedAttention", arXiv:2309.06180.

use plugin_api::prelude::*;

/// Pages of numbers as they are.
pub type Paged = PagedCache<Plain>;

/// Stores numbers as they are, of one type.
#[derive(Debug)]
pub struct Plain {
    dtype: DType,
}

impl PageCodec for Plain {
    const NAME: &'static str = "paged";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { dtype: plain_dtype(config)? })
    }

    fn storage(&self, states: &[StateSpec]) -> Result<Vec<Storage>> {
        Ok(vec![Storage::Plain(self.dtype); states.len()])
    }

    fn semantic_id(&self) -> SemanticId {
        plain_id(self.dtype)
    }
}

export_plugin!(Paged);

#[cfg(test)]
mod tests;
