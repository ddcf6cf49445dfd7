//! The parameters of requests that the other side has seen.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::Config;

/// Parameters of the latest requests. Both sides of a subscription keep one and change it alike, so
/// that either knows what the other has.
#[derive(Default)]
pub(crate) struct Params {
    /// Oldest first.
    kept: VecDeque<(u64, Arc<Config>)>,
}

impl Params {
    pub(super) fn get(&self, request: u64) -> Option<Arc<Config>> {
        self.kept.iter().rev().find(|(known, _)| *known == request).map(|(_, p)| Arc::clone(p))
    }

    /// Adds parameters as the latest, and forgets the oldest.
    pub(super) fn keep(&mut self, request: u64, params: Arc<Config>) {
        self.kept.retain(|(known, _)| *known != request);
        if self.kept.len() == PARAMS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((request, params));
    }

    /// Forgets everything: what the other side has is not known.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }
}

/// Requests whose parameters are kept; both sides forget the oldest first.
const PARAMS_MAX: usize = 64;

#[cfg(not(target_family = "wasm"))]
const _: () = assert!(PARAMS_MAX == crate::native::abi::events::PARAMS_MAX);
