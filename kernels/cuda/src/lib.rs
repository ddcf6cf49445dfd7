//! Some ops of the plan vocabulary on numbers that lie on an NVIDIA device.
//!
//! Names and meanings are those of `kernels/reference`. Each op is a `.cu` file with the function
//! that queues it; NVRTC compiles them once for each device, when it is first opened. Driver and
//! compiler are looked up at run time: without them [`Device::open`] says what is missing.
//! **The bits of a row depend only on its own inputs**: not on other rows or their number.
//!
//! What a [`Queue`] is given runs in order, some time later. Device memory holds nothing but
//! numbers and is freed after all work on the device, so that a race between queues gives wrong
//! numbers and nothing worse; memory of the host is borrowed until it is done with
//! ([`Queue::scope`]).

#![allow(unsafe_code, reason = "the driver, the compiler, and launches on raw addresses")]

mod affine;
mod compile;
mod device;
mod elementwise;
mod embed;
mod fault;
mod matmul;
mod matmul_affine;
mod memory;
mod queue;
mod rms_norm;
mod swiglu;
mod unary;

pub use affine::{AffineRows, AffineShape, pack_affine};
pub use compile::{Target, compile};
pub use device::Device;
pub use elementwise::{BinaryOp, Rhs, elementwise};
pub use embed::{embed, embed_affine};
pub use fault::Fault;
pub use matmul::matmul;
pub use matmul_affine::matmul_affine;
pub use memory::{Memory, Number, Span};
pub use queue::{Queue, Scope};
pub use rms_norm::rms_norm;
pub use swiglu::swiglu;
pub use unary::{UnaryOp, unary};
