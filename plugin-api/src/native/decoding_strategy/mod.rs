//! Decoding strategies across the boundary.

mod export;
mod import;

pub(super) use export::export;
pub(super) use import::import;

use crate::kinds::decoding_strategy::{DecodingStrategy, FinishReason, Want};

type Instance = dyn DecodingStrategy;

/// In the order of their codes.
const WANTS: [Want; 3] = [Want::Nothing, Want::Argmax, Want::Sample];

/// In the order of their codes.
const REASONS: [FinishReason; 4] =
    [FinishReason::Stop, FinishReason::Length, FinishReason::Refused, FinishReason::Aborted];

/// The code of one of `all`.
fn code<T: PartialEq>(all: &[T], one: &T) -> u32 {
    all.iter().position(|x| x == one).map_or(u32::MAX, |code| code as u32)
}
