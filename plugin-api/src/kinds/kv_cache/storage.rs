//! How the numbers of a state lie in memory: what a cache says and backends read by class.
//!
//! A block holds `block_size` rows, one for each token, each of all elements of a part, or one row of a
//! state per sequence; behind them lie the patches of the block, where a storage has some. Numbers are of the machine's byte order.

mod codes;

use super::super::SemanticId;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::plan::{Part, Per, StateSpec};
use crate::tensor::DType;
pub use codes::{AffineStorage, CodeLayout, CodeScales, Patches};

/// How the numbers of a state lie in memory.
#[derive(Debug, Clone, PartialEq)]
pub enum Storage {
    /// As they are, of this floating-point type.
    Plain(DType),
    /// As 8-bit codes with scales: `number = code * scale`.
    Affine(AffineStorage),
}

impl Storage {
    /// How `state` is stored in a cache that stores states per token so: those per sequence are kept
    /// as `f32`.
    #[must_use]
    pub fn for_state(self, state: &StateSpec) -> Self {
        match state.per {
            Per::Token { .. } => self,
            Per::Sequence => Self::Plain(DType::F32),
        }
    }

    /// Bytes of one token.
    pub fn row_bytes(&self, part: &Part) -> usize {
        match self {
            Self::Plain(dtype) => elements(part).saturating_mul(dtype.size_bytes()),
            Self::Affine(_) => self.layout(part, 1).row_bytes,
        }
    }

    /// Bytes of a block of `block_size` tokens.
    pub fn block_bytes(&self, part: &Part, block_size: usize) -> usize {
        match self {
            Self::Plain(_) => self.row_bytes(part).saturating_mul(block_size),
            Self::Affine(_) => self.layout(part, block_size).block_bytes,
        }
    }

    /// Where codes, scales and patches lie in a block; numbers that are stored plainly have none.
    pub fn codes(&self, part: &Part, block_size: usize) -> Option<CodeLayout> {
        match self {
            Self::Plain(_) => None,
            Self::Affine(_) => Some(self.layout(part, block_size)),
        }
    }

    fn layout(&self, part: &Part, block_size: usize) -> CodeLayout {
        match self {
            Self::Plain(_) => CodeLayout::default(),
            Self::Affine(affine) => CodeLayout::new(affine, part, block_size),
        }
    }

    /// Stores the elements of part `index` of token `inside` of a block, and takes the patches of
    /// that token and later ones of the block from it: a block is written in order.
    ///
    /// # Panics
    ///
    /// If `block` is not [`block_bytes`](Self::block_bytes) long, or `row` not the part's elements.
    pub fn write(&self, index: usize, part: &Part, block: &mut [u8], inside: usize, row: &[f32]) {
        match self {
            Self::Plain(dtype) => {
                let size = dtype.size_bytes();
                let bytes = &mut block[inside * row.len() * size..][..row.len() * size];
                for (bytes, &x) in bytes.chunks_exact_mut(size).zip(row) {
                    codes::put_float(*dtype, x, bytes);
                }
            }
            Self::Affine(affine) => affine.write(index, part, block, inside, row),
        }
    }

    /// Reads what [`write`](Self::write) stored.
    ///
    /// # Panics
    ///
    /// As [`write`](Self::write) does.
    pub fn read(&self, index: usize, part: &Part, block: &[u8], inside: usize, row: &mut [f32]) {
        match self {
            Self::Plain(dtype) => {
                let size = dtype.size_bytes();
                let bytes = &block[inside * row.len() * size..][..row.len() * size];
                for (bytes, x) in bytes.chunks_exact(size).zip(row) {
                    *x = codes::take_float(*dtype, bytes);
                }
            }
            Self::Affine(affine) => affine.read(index, part, block, inside, row),
        }
    }

    /// Checks that `state` can be stored so, in blocks of `block_size` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for scales that are not those of the state, or no floats;
    /// [`Error::Unsupported`] for anything but `f32` of a state that is kept per sequence.
    pub fn check(&self, state: &StateSpec, block_size: usize) -> Result<()> {
        match self {
            Self::Plain(DType::F32) => Ok(()),
            _ if state.per == Per::Sequence => {
                let missing = "states per sequence are kept as f32";
                Err(Error::unsupported(format!("state `{}` as {self:?}", state.name), missing))
            }
            Self::Plain(dtype) if dtype.is_float() => Ok(()),
            Self::Plain(dtype) => {
                Err(Error::malformed(format!("storage of `{}`", state.name), "floats", dtype))
            }
            Self::Affine(affine) => affine.check(state, block_size),
        }
    }
}

/// Bytes that a block of `block_size` tokens takes in all `states` together, with a copy of each of
/// those per sequence. The largest number if there are more.
///
/// # Errors
///
/// [`Error::Malformed`] for a storage too few or too many; those of [`Storage::check`].
pub fn block_bytes(states: &[StateSpec], storage: &[Storage], block_size: usize) -> Result<u64> {
    if states.len() != storage.len() {
        return Err(Error::malformed("storage of states", states.len(), storage.len()));
    }
    let mut bytes = 0_u64;
    for (state, storage) in states.iter().zip(storage) {
        storage.check(state, block_size)?;
        let rows = state.per.rows_of_block(block_size);
        for part in &state.parts {
            bytes = bytes.saturating_add(storage.block_bytes(part, rows) as u64);
        }
    }
    Ok(bytes)
}

/// What numbers are stored as, if as they are: the key `dtype` of a cache, `f16` if absent.
///
/// # Errors
///
/// [`Error::Config`] for other types than `f16` and `f32`.
pub fn plain_dtype(config: &Config) -> Result<DType> {
    Ok(match config.one_of("dtype", &["f16", "f32"])? {
        "f32" => DType::F32,
        _ => DType::F16,
    })
}

/// What numbers of `dtype` mean in a cache: those of one name may take over from each other.
pub fn plain_id(dtype: DType) -> SemanticId {
    SemanticId::new(format!("kv {dtype}/1"))
}

fn elements(part: &Part) -> usize {
    usize::try_from(part.num_elements()).unwrap_or(usize::MAX)
}
