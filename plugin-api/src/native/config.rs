//! Configuration across the boundary: bytes there, marks of the keys that were read back.

use crate::config::Config;
use crate::wire::{put_marks, take_marks};

/// Which keys have been read here.
pub(super) fn marks(config: &Config) -> Vec<u8> {
    let mut marks = Vec::new();
    put_marks(config, &mut marks);
    marks
}

/// Marks what the other side has read.
pub(super) fn take(config: &Config, marks: &[u8]) {
    take_marks(config, marks);
}
