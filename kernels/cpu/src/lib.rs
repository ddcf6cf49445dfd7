//! Every op of the plan vocabulary on `f32` slices, fast on x86-64.
//!
//! Numbers only: slices in, slices out, no threads, no allocation. Names and meanings are those of
//! `kernels/reference`. Every op takes an [`Isa`]; callers split work over threads by rows, or by
//! columns of a product's output ([`OutputColumns`]). **The bits of a row depend only on its own
//! inputs**: not on other rows, their number, the split, or the instruction set.

#![allow(unsafe_code, reason = "vector instructions, and disjoint columns of one output")]

mod affine_panels;
mod along;
mod argmax;
mod attend;
mod attend_within;
mod attend_within_grad;
mod byte_dots;
mod cast;
mod causal_conv;
mod code_layout;
mod concat;
mod element;
mod elementwise;
mod embed;
mod float_dots;
mod float_panels;
mod gather;
mod geglu;
mod isa;
mod keep_above;
mod kv_codes;
mod lanes;
mod layer_norm;
mod log_sum_exp;
mod math;
mod matmul;
mod matmul_affine;
mod matmul_rows;
#[cfg(target_arch = "x86_64")]
mod matmul_tiles;
mod output_columns;
mod quantize_rows;
mod reduce;
mod reduce_rows;
mod rms_norm;
mod rope;
mod scale_layout;
mod scale_reader;
mod scatter_add;
mod selective_scan;
mod slice;
mod softmax;
mod store_kv;
mod swiglu;
#[cfg(test)]
mod testing;
mod top_k;
mod transpose;
mod unary;

pub use affine_panels::{
    AffineDesc, AffinePanels, AffineRows, PackError, pack_affine, unpack_affine_row,
};
pub use along::{scatter_along, take_along};
pub use argmax::{argmax, max};
pub use attend::{AttendShape, AttendSpec, SPLIT_POSITIONS, SequenceBlocks, attend, attend_codes};
pub use attend_within::{Reach, attend_within};
pub use attend_within_grad::{GradOf, GradSpec, attend_within_key_grad, attend_within_query_grad};
pub use byte_dots::{BYTE_DOTS_MACS, byte_dots};
pub use cast::{cast, narrow, widen};
pub use causal_conv::causal_conv;
pub use concat::concat;
pub use elementwise::{BinaryOp, Rhs, elementwise};
pub use embed::embed;
pub use float_dots::{FLOAT_DOTS_MACS, float_dots};
pub use float_panels::{FloatPanels, pack_columns, pack_float, unpack_float_row};
pub use gather::gather;
pub use geglu::geglu;
pub use isa::Isa;
pub use keep_above::keep_above;
pub use kv_codes::{KvCodeLayout, KvCodes, store_kv_codes};
pub use lanes::Element;
pub use layer_norm::layer_norm;
pub use log_sum_exp::log_sum_exp;
pub use matmul::matmul;
pub use matmul_affine::matmul_affine;
pub use matmul_rows::matmul_rows;
pub use output_columns::{OutputColumns, PANEL_ROWS};
pub use quantize_rows::{
    ACT_BLOCK, QuantizedRows, quantize_rows, quantize_rows_twice, quantized_row_bytes,
};
pub use reduce::{reduce_max, reduce_mean, reduce_sum};
pub use reduce_rows::reduce_rows;
pub use rms_norm::rms_norm;
pub use rope::{Pairing, RopeShape, rope, rope_table};
pub use scale_layout::{RUN_MAX, Scales};
pub use scatter_add::scatter_add;
pub use selective_scan::selective_scan;
pub use slice::slice;
pub use softmax::softmax;
pub use store_kv::{BlockTable, KvState, TokenRefs, store_kv, store_rows};
pub use swiglu::swiglu;
pub use top_k::top_k;
pub use transpose::transpose;
pub use unary::{UnaryOp, offset, scale, unary};
