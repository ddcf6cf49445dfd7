//! Every op of the plan vocabulary as the plainest loop: the oracle.
//!
//! Numbers only: slices in, slices out, sums in index order, no allocation. Each op is generic over
//! [`Real`], so that `f64` gives the truth and `f32` shows what single precision costs. Tensors
//! are dense and row-major; "rows" is the product of the leading axes, "width" the last axis.
//! This is not where speed lives: `kernels/cpu` has the same names, faster.

mod along;
mod argmax;
mod attend;
mod attend_within;
mod attend_within_grad;
pub mod blocks;
mod cast;
mod causal_conv;
mod concat;
mod elementwise;
mod embed;
mod gather;
mod geglu;
mod keep_above;
mod layer_norm;
mod log_sum_exp;
mod matmul;
mod matmul_affine;
mod matmul_experts;
mod matmul_rows;
mod quantize_rows;
mod real;
mod reduce;
mod rms_norm;
mod rope;
mod scatter_add;
mod selective_scan;
mod slice;
mod softmax;
mod swiglu;
mod top_k;
mod transpose;
mod unary;

pub use along::{scatter_along, take_along};
pub use argmax::argmax;
pub use attend::{
    AttendShape, AttendSpec, BlockTable, KvState, SPLIT_POSITIONS, TokenRefs, attend, store_kv,
};
pub use attend_within::{Reach, attend_within};
pub use attend_within_grad::attend_within_grad;
pub use cast::cast;
pub use causal_conv::causal_conv;
pub use concat::concat;
pub use elementwise::{BinaryOp, Rhs, elementwise};
pub use embed::embed;
pub use gather::gather;
pub use geglu::geglu;
pub use keep_above::keep_above;
pub use layer_norm::layer_norm;
pub use log_sum_exp::log_sum_exp;
pub use matmul::matmul;
pub use matmul_affine::{AffineRef, matmul_affine};
pub use matmul_experts::matmul_experts;
pub use matmul_rows::matmul_rows;
pub use quantize_rows::{ACT_BLOCK, quantize_rows};
pub use real::{Real, Stored};
pub use reduce::{reduce_max, reduce_mean, reduce_rows, reduce_sum};
pub use rms_norm::rms_norm;
pub use rope::{Pairing, RopeShape, rope};
pub use scatter_add::scatter_add;
pub use selective_scan::selective_scan;
pub use slice::slice;
pub use softmax::softmax;
pub use swiglu::swiglu;
pub use top_k::top_k;
pub use transpose::transpose;
pub use unary::{UnaryOp, offset, scale, unary};
