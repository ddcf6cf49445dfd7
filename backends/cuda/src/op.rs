//! Ops of the vocabulary that have a kernel.

use kernels_cuda::{BinaryOp, UnaryOp};
use plugin_api::Result;
use plugin_api::plan::{Attrs, NodeKind, OpId, ops};

/// What a node computes, with its attributes read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Op {
    /// Two values.
    Binary(BinaryOp),
    /// One value.
    Unary(UnaryOp),
    /// `embed` and `gather`: a table and indices.
    Embed,
    /// A value and a value or weight.
    Matmul,
    /// The same elements in another shape.
    Reshape,
    /// A value and a weight of one row.
    RmsNorm {
        /// Added to the mean square.
        eps: f32,
        /// Added to the weight.
        weight_offset: f32,
    },
    /// Two values.
    Swiglu,
}

impl Op {
    /// The op of a node; nothing if it has no kernel.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`](plugin_api::Error::Malformed) for attributes that are not its own.
    pub(crate) fn of(kind: &NodeKind) -> Result<Option<Self>> {
        match kind {
            NodeKind::Prim(op, attrs) => prim(*op, attrs),
            NodeKind::Fused { op: ops::SWIGLU, .. } => Ok(Some(Self::Swiglu)),
            NodeKind::Fused { op: ops::RMS_NORM, attrs, .. } => {
                let eps = attrs.get_float("eps")? as f32;
                let weight_offset = attrs.get_float("weight_offset")? as f32;
                Ok(Some(Self::RmsNorm { eps, weight_offset }))
            }
            NodeKind::Fused { .. } | NodeKind::Call { .. } => Ok(None),
        }
    }

    /// How many inputs it takes; each op gives one result.
    pub(crate) fn num_inputs(self) -> usize {
        match self {
            Self::Unary(_) | Self::Reshape => 1,
            _ => 2,
        }
    }

    /// The input that holds indices.
    pub(crate) fn indices(self) -> Option<usize> {
        matches!(self, Self::Embed).then_some(1)
    }
}

fn prim(op: OpId, attrs: &Attrs) -> Result<Option<Op>> {
    Ok(Some(match op {
        ops::ADD => Op::Binary(BinaryOp::Add),
        ops::SUB => Op::Binary(BinaryOp::Sub),
        ops::MUL => Op::Binary(BinaryOp::Mul),
        ops::DIV => Op::Binary(BinaryOp::Div),
        ops::MAX => Op::Binary(BinaryOp::Max),
        ops::MIN => Op::Binary(BinaryOp::Min),
        ops::NEG => Op::Unary(UnaryOp::Neg),
        ops::EXP => Op::Unary(UnaryOp::Exp),
        ops::LOG => Op::Unary(UnaryOp::Log),
        ops::SQRT => Op::Unary(UnaryOp::Sqrt),
        ops::RSQRT => Op::Unary(UnaryOp::Rsqrt),
        ops::TANH => Op::Unary(UnaryOp::Tanh),
        ops::SIGMOID => Op::Unary(UnaryOp::Sigmoid),
        ops::SILU => Op::Unary(UnaryOp::Silu),
        ops::GELU_TANH => Op::Unary(UnaryOp::GeluTanh),
        ops::COS => Op::Unary(UnaryOp::Cos),
        ops::SIN => Op::Unary(UnaryOp::Sin),
        ops::SCALE => Op::Unary(UnaryOp::Scale(attrs.get_float("by")? as f32)),
        ops::OFFSET => Op::Unary(UnaryOp::Offset(attrs.get_float("by")? as f32)),
        ops::EMBED | ops::GATHER => Op::Embed,
        ops::MATMUL => Op::Matmul,
        ops::RESHAPE => Op::Reshape,
        _ => return Ok(None),
    }))
}
