//! Backends across the boundary.
//!
//! Everything but a run is bytes. A run passes pointers, in lists that are kept with the compiled
//! plan: after the first one it neither locks nor allocates on either side.

mod check;
mod export;
mod import;
mod received;
mod sent;

pub(super) use export::export;
pub(super) use import::import;
pub(super) use received::{tensor_mut, tensor_ref};
pub(super) use sent::{of_mut, of_ref};

type Instance = dyn crate::kinds::backend::Backend;
