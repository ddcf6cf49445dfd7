//! Caches of keys and values across the boundary.
//!
//! Block numbers index memory: whatever a plugin answers is checked against the pool that it laid
//! out before anybody sees it.

mod export;
mod import;
mod pool;
mod prefix;

pub(super) use export::export;
pub(super) use import::import;

type Instance = dyn crate::kinds::kv_cache::KvCache;
