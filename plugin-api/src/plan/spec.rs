//! Shapes over symbols, and what has to be kept between steps.

use std::fmt;

use crate::error::{Error, Result};
use crate::tensor::DType;

/// A short name that is copied instead of shared: at most 23 bytes of ASCII.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word([u8; Self::BYTES_MAX + 1]);

impl Word {
    /// Longest word, in bytes.
    pub const BYTES_MAX: usize = 23;

    /// A word known at compile time.
    ///
    /// # Panics
    ///
    /// If `text` is longer than [`BYTES_MAX`](Self::BYTES_MAX) or not ASCII.
    pub const fn of(text: &str) -> Self {
        let from = text.as_bytes();
        assert!(from.len() <= Self::BYTES_MAX && text.is_ascii(), "a word is at most 23 ASCII");
        let mut bytes = [0; Self::BYTES_MAX + 1];
        let mut i = 0;
        while i < from.len() {
            bytes[i] = from[i];
            i += 1;
        }
        Self(bytes)
    }

    /// A word that arrives at run time.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if `text` is empty, too long or not printable ASCII.
    pub fn new(text: &str) -> Result<Self> {
        let is_fit = (1..=Self::BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic());
        if is_fit {
            Ok(Self::of(text))
        } else {
            Err(Error::malformed("name in a plan", "1 to 23 printable ASCII bytes", text))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(Self::BYTES_MAX);
        std::str::from_utf8(&self.0[..len]).unwrap_or("")
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A size that is known only when a step is run: `tokens`, `seqs`, `blocks`, `logit_rows`.
pub type Symbol = Word;

/// One extent of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dim {
    /// The same in every step.
    Fixed(u64),
    /// Different from step to step.
    Symbol(Symbol),
}

impl Dim {
    /// Tokens in the step, over all sequences.
    pub const TOKENS: Self = Self::Symbol(Word::of("tokens"));
    /// Sequences in the step.
    pub const SEQS: Self = Self::Symbol(Word::of("seqs"));
    /// Columns of the block table.
    pub const BLOCKS: Self = Self::Symbol(Word::of("blocks"));
    /// Tokens whose logits are asked for.
    pub const LOGIT_ROWS: Self = Self::Symbol(Word::of("logit_rows"));

    /// The size, if it is the same in every step.
    pub fn fixed(self) -> Option<u64> {
        match self {
            Self::Fixed(n) => Some(n),
            Self::Symbol(_) => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(n) => write!(f, "{n}"),
            Self::Symbol(symbol) => write!(f, "{symbol}"),
        }
    }
}

impl From<u64> for Dim {
    fn from(n: u64) -> Self {
        Self::Fixed(n)
    }
}

/// Dtype and shape of a value, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Type of each element.
    pub dtype: DType,
    /// Extents, outermost first.
    pub dims: Vec<Dim>,
}

impl Spec {
    /// A shape of elements of `dtype`.
    pub fn new(dtype: DType, dims: impl Into<Vec<Dim>>) -> Self {
        Self { dtype, dims: dims.into() }
    }

    /// `f32` elements.
    pub fn f32(dims: impl Into<Vec<Dim>>) -> Self {
        Self::new(DType::F32, dims)
    }

    /// `u32` elements.
    pub fn u32(dims: impl Into<Vec<Dim>>) -> Self {
        Self::new(DType::U32, dims)
    }

    /// The innermost extent.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if there is none or it is not fixed.
    pub fn width(&self) -> Result<u64> {
        let last = self.dims.last().and_then(|dim| dim.fixed());
        last.ok_or_else(|| Error::shape("value", "a fixed innermost extent", self))
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, dim) in self.dims.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{dim}")?;
        }
        write!(f, "]")
    }
}

/// What a mixer keeps between steps: keys and values, or a recurrent state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSpec {
    /// Unique in the plan: `layers.3.self_attn`.
    pub name: String,
    /// How many copies there are.
    pub per: Per,
    /// The tensors of one copy.
    pub parts: Vec<Part>,
}

/// How often a state is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// Once for each token of each sequence; with a window, older tokens are never read again.
    Token {
        /// Tokens that are read, the current one included; 0 for all of them.
        window: u32,
    },
    /// Once for each sequence. A copy lies in each of its blocks: that of the block of the last token is
    /// the state, those of full blocks before it are the state after their last tokens. They are kept as `f32`.
    Sequence,
}

impl Per {
    /// How often a state is kept in a block of `block_size` tokens.
    pub fn rows_of_block(self, block_size: usize) -> usize {
        match self {
            Self::Token { .. } => block_size,
            Self::Sequence => 1,
        }
    }
}

/// One tensor of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `key`, `value`, `conv`, `ssm` …
    pub name: String,
    /// Shape of one copy, in elements.
    pub dims: Vec<u32>,
}

impl Part {
    /// Elements in one copy; the largest number if there are more.
    pub fn num_elements(&self) -> u64 {
        self.dims.iter().fold(1, |product: u64, &n| product.saturating_mul(u64::from(n)))
    }
}
