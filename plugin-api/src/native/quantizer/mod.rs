//! Quantizers across the boundary.

mod export;
mod import;

pub(super) use export::export;
pub(super) use import::import;

type Instance = dyn crate::kinds::quantizer::Quantizer;
