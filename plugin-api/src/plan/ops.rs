//! The vocabulary of ops, and the attributes they take.
//!
//! A dense tensor of shape `[.., width]` is a number of rows of `width` elements.
//!
//! | op | inputs | attributes | result |
//! |---|---|---|---|
//! | `embed` | table `[vocab, width]`, ids `u32 [tokens]` | | `[tokens, width]` |
//! | `matmul` | x `[.., k]`, w `[n, k]` | | x times w transposed, `[.., n]` |
//! | `matmul_experts` | x `[tokens, k]` or `[tokens, choices, k]`, w `[experts, n, k]`, chosen `u32 [tokens, choices]` | | x of each choice times its expert's w transposed, `[tokens, choices, n]` |
//! | `matmul_rows` | a `[.., n]`, b `[.., k]`, the same rows | | sum over the rows of their outer products, `[n, k]` |
//! | `add` `sub` `mul` `div` `max` `min` | a, b: same shape, or b one row `[width]`, or b one value per row `[.., 1]` | | as a |
//! | `neg` `exp` `log` `sqrt` `rsqrt` `cos` `sin` `tanh` `sigmoid` `silu` `gelu` `gelu_tanh` `erf` | x | | as x |
//! | `is_positive` | x | | as x: 1 where x > 0, otherwise 0 |
//! | `full_like` | x | `value` | as x, each element `value` |
//! | `scale`, `offset` | x | `by` | as x |
//! | `reduce_sum` `reduce_mean` `reduce_max` | x `[.., width]` | | `[.., 1]` |
//! | `reduce_rows` | x `[.., width]` | | sum over the rows, `[width]` |
//! | `softmax` | x | | as x, over each row |
//! | `top_k` | x | `k` | values and indices `[.., k]`, ties by lowest index |
//! | `gather` | x `[rows, width]`, indices `u32 [m]` | | `[m, width]` |
//! | `scatter_add` | base `[rows, width]`, indices `u32 [m]`, updates `[m, width]` | | as base |
//! | `take_along` | x `[.., width]`, indices `u32 [.., k]` | | elements of each row, `[.., k]` |
//! | `scatter_along` | base `[.., width]`, indices `u32 [.., k]`, updates `[.., k]` | | as base |
//! | `concat` | parts | `axis` | joined along `axis` |
//! | `slice` | x | `axis`, `start`, `len` | part of `axis` |
//! | `reshape` | x | `dims`: extents, -1 keeps the outermost | same elements |
//! | `transpose` | x | `axes` | permuted |
//! | `cast` | x | `dtype` | as x |
//! | `constant` | | `values` | the numbers themselves, `[n]` |
//! | `attend` | q `[tokens, heads, head_dim]`, k and v `[tokens, kv_heads, head_dim]`, state, positions, sequence_index `u32 [tokens]`, block_table `u32 [seqs, blocks]`, then sinks `[heads]` where there are any | `scale`, `softcap` (0 = none), `chunk` and `value_dim` (0 or absent = none) | `[tokens, heads, head_dim]`, or `value_dim` for it |
//! | `causal_conv` | x `[tokens, width]`, w `[width, kernel]`, state, positions, sequence_index, block_table | `part` of the state: `[kernel - 1, width]` | `[tokens, width]` |
//! | `selective_scan` | x and dt `[tokens, width]`, a `[width, n]`, b and c `[tokens, n]`, state, positions, sequence_index, block_table | `part` of the state: `[width, n]` | `[tokens, width]` |
//! | `attend_within` | q `[tokens, heads, head_dim]`, k and v `[tokens, kv_heads, head_dim]`, sequence_index `u32 [tokens]` | `scale`, `causal` (1; absent or 0: no) | `[tokens, heads, head_dim]` |
//! | `attend_within_grad` | q, k, v, sequence_index as before, gradient of the result | `scale`, `causal` | gradients of q, k and v |
//!
//! Fused, each with an expansion in the above: `rms_norm` (`eps`, `weight_offset`), `layer_norm`
//! (`eps`), `rope` (`inv_freq`, `pairing`, `attention_factor`), `swiglu`, `geglu`, `cross_entropy`.
//!
//! `attend` first stores k and v of every token at `block_table[seq][position / block_size]`, then
//! lets each token read its own sequence up to its own position, as far back as the window of the
//! state says. Its softmax runs in fixed splits of 256 positions, merged in order by
//! log-sum-exp, so that no bit depends on block size or batch mates.
//!
//! With `chunk`, a token reads no further back than the last multiple of `chunk` up to its own position. With
//! `value_dim`, values are the first `value_dim` channels of the keys: the state has the part of the keys only, and `v` is `k` again. A
//! sink is one more score of its head, of a place whose value is zero.
//!
//! `causal_conv` sums each channel's last `kernel` inputs, the token's own last, with zeros before the first token.
//! `selective_scan` computes `h = e^(d · a) · h + d · x · b` and `y = c · h` for each channel, with `d = ln(1 + e^dt)`. Both go on
//! from the state after the token before: it lies in the copy of the block of that token, and what comes of it in that of
//! the token's own block, rounded as it is stored. At position 0 the state is nothing. Tokens of a sequence stand in the order of their
//! positions, without gaps.
//!
//! `attend_within` lets each token read all tokens of its sequence, later ones too, and keeps nothing:
//! a sequence is a run of tokens with equal `sequence_index`. With `causal` it reads itself and earlier
//! ones only, which is `attend` of whole sequences: what training computes. `gelu` is the exact form, with the
//! error function.

use super::spec::Word;
use crate::error::{Error, Result};

/// The name of an op.
pub type OpId = Word;

macro_rules! ops {
    ($($constant:ident = $name:literal),* $(,)?) => {
        $(#[doc = concat!("`", $name, "`")] pub const $constant: OpId = Word::of($name);)*
        /// Every op of the vocabulary, fused ones included.
        pub const ALL: &[OpId] = &[$($constant),*];
    };
}

ops! {
    EMBED = "embed", MATMUL = "matmul",
    ADD = "add", SUB = "sub", MUL = "mul", DIV = "div", MAX = "max", MIN = "min",
    NEG = "neg", EXP = "exp", LOG = "log", SQRT = "sqrt", RSQRT = "rsqrt", TANH = "tanh",
    SIGMOID = "sigmoid", SILU = "silu", GELU = "gelu", GELU_TANH = "gelu_tanh",
    SCALE = "scale", OFFSET = "offset",
    REDUCE_SUM = "reduce_sum", REDUCE_MEAN = "reduce_mean", REDUCE_MAX = "reduce_max",
    SOFTMAX = "softmax", TOP_K = "top_k", GATHER = "gather", SCATTER_ADD = "scatter_add",
    CONCAT = "concat", SLICE = "slice", RESHAPE = "reshape", TRANSPOSE = "transpose",
    CAST = "cast", ATTEND = "attend", ATTEND_WITHIN = "attend_within", CONSTANT = "constant", COS = "cos", SIN = "sin",
    CAUSAL_CONV = "causal_conv", SELECTIVE_SCAN = "selective_scan",
    MATMUL_EXPERTS = "matmul_experts", MATMUL_ROWS = "matmul_rows", REDUCE_ROWS = "reduce_rows", FULL_LIKE = "full_like",
    ERF = "erf", IS_POSITIVE = "is_positive", TAKE_ALONG = "take_along",
    SCATTER_ALONG = "scatter_along", ATTEND_WITHIN_GRAD = "attend_within_grad",
    RMS_NORM = "rms_norm", LAYER_NORM = "layer_norm", ROPE = "rope",
    SWIGLU = "swiglu", GEGLU = "geglu", CROSS_ENTROPY = "cross_entropy",
}

/// What only training needs: a backend that serves does well without.
pub const OF_TRAINING: &[OpId] = &[
    MATMUL_ROWS,
    REDUCE_ROWS,
    FULL_LIKE,
    ERF,
    IS_POSITIVE,
    TAKE_ALONG,
    SCATTER_ALONG,
    ATTEND_WITHIN_GRAD,
    CROSS_ENTROPY,
];

/// Whether an `attend_within` of these attributes looks back only.
///
/// # Errors
///
/// [`Error::Malformed`] if `causal` is neither 0 nor 1.
pub fn is_causal(attrs: &Attrs) -> Result<bool> {
    match attrs.get("causal") {
        None | Some(Attr::Int(0)) => Ok(false),
        Some(Attr::Int(1)) => Ok(true),
        other => Err(wrong("causal", "0 or 1", other)),
    }
}

/// One attribute of an op.
#[derive(Debug, Clone, PartialEq)]
pub enum Attr {
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// Whole numbers in order.
    Ints(Vec<i64>),
    /// Numbers in order.
    Floats(Vec<f32>),
}

/// The attributes of an op, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attrs(pub(super) Vec<(String, Attr)>);

impl Attrs {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same attributes and one more.
    #[must_use]
    pub fn with(mut self, name: &str, attr: Attr) -> Self {
        self.0.push((name.to_owned(), attr));
        self
    }

    /// A whole-number attribute added.
    #[must_use]
    pub fn int(self, name: &str, x: i64) -> Self {
        self.with(name, Attr::Int(x))
    }

    /// A number attribute added.
    #[must_use]
    pub fn float(self, name: &str, x: f64) -> Self {
        self.with(name, Attr::Float(x))
    }

    /// A text attribute added.
    #[must_use]
    pub fn text(self, name: &str, x: &str) -> Self {
        self.with(name, Attr::Text(x.to_owned()))
    }

    /// The attribute called `name`.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0.iter().find_map(|(key, attr)| (key == name).then_some(attr))
    }

    /// Names and attributes in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attr)> {
        self.0.iter().map(|(name, attr)| (name.as_str(), attr))
    }

    /// A number.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if it is missing or something else; likewise the other getters.
    pub fn get_float(&self, name: &str) -> Result<f64> {
        match self.get(name) {
            Some(Attr::Float(x)) => Ok(*x),
            other => Err(wrong(name, "a number", other)),
        }
    }

    /// A whole number that is not negative.
    pub fn get_count(&self, name: &str) -> Result<usize> {
        match self.get(name) {
            Some(Attr::Int(x)) if *x >= 0 => Ok(x.unsigned_abs() as usize),
            other => Err(wrong(name, "a whole number from 0", other)),
        }
    }

    /// A whole number that is not negative, 0 where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if it is something else.
    pub fn get_count_or_zero(&self, name: &str) -> Result<usize> {
        if self.get(name).is_some() { self.get_count(name) } else { Ok(0) }
    }

    /// Text.
    pub fn get_text(&self, name: &str) -> Result<&str> {
        match self.get(name) {
            Some(Attr::Text(x)) => Ok(x),
            other => Err(wrong(name, "text", other)),
        }
    }

    /// Whole numbers in order.
    pub fn get_ints(&self, name: &str) -> Result<&[i64]> {
        match self.get(name) {
            Some(Attr::Ints(x)) => Ok(x),
            other => Err(wrong(name, "whole numbers", other)),
        }
    }

    /// Numbers in order.
    pub fn get_floats(&self, name: &str) -> Result<&[f32]> {
        match self.get(name) {
            Some(Attr::Floats(x)) => Ok(x),
            other => Err(wrong(name, "numbers", other)),
        }
    }
}

fn wrong(name: &str, expected: &str, found: Option<&Attr>) -> Error {
    let found = found.map_or_else(|| "nothing".to_owned(), |attr| format!("{attr:?}"));
    Error::malformed(format!("attribute `{name}`"), expected, found)
}
