//! What a traced plugin is given: a place to describe its part of the step.

use super::ops::{self, Attr, Attrs, OpId};
use super::spec::{Spec, StateSpec};
use super::{Plan, Val};
use crate::error::{Error, Result};
use crate::kinds::adapter::MARK;
use crate::tensor::DType;

/// Most values that a [`call`](OpSink::call) reads, and most that it writes.
pub const CALL_VALUES_MAX: usize = 8;

/// Most axes of a value that a [`call`](OpSink::call) reads or writes.
pub const CALL_AXES_MAX: usize = 4;

/// Receives the ops of a trace. Called while a plan is built, never while a step runs.
///
/// Names of weights, states and slots are relative to the place in the model that is being traced.
/// Reading bytes of a value is not possible here: a plan describes, it does not compute.
pub trait OpSink {
    /// The step input called `name`: the same value however often it is asked for.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if it was asked for before with another spec.
    fn input(&mut self, name: &str, spec: Spec) -> Result<Val>;

    /// The weight called `name`.
    ///
    /// # Errors
    ///
    /// [`Error::MissingWeight`] if the model has none; see [`has_weight`](Self::has_weight).
    fn weight(&mut self, name: &str) -> Result<Val>;

    /// Whether the model has a weight called `name`.
    fn has_weight(&self, name: &str) -> bool;

    /// Something to keep between steps.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if a state of this name exists.
    fn state(&mut self, spec: StateSpec) -> Result<Val>;

    /// Adds an op of the vocabulary.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the inputs do not fit, [`Error::NotFound`] if there is no such op.
    fn op(&mut self, op: OpId, inputs: &[Val], attrs: Attrs) -> Result<Vec<Val>>;

    /// Adds an op that a backend may run whole, with the expansion for those that do not.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the expansion takes other inputs.
    fn fused(
        &mut self,
        op: OpId,
        inputs: &[Val],
        attrs: Attrs,
        expansion: Plan,
    ) -> Result<Vec<Val>>;

    /// Traces the plugin that the blueprint wires into `slot`, as part of this trace. `scope` is
    /// where that plugin finds its weights, relative to here.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if nothing is wired there, and whatever that plugin's trace returns.
    fn slot(&mut self, slot: &str, scope: &str, inputs: &[Val]) -> Result<Vec<Val>>;

    /// Adds a call of the plugin that traces, at run time: it gets `callback` and the inputs in
    /// [`Traced::call`](crate::kinds::Traced::call), and writes the outputs, at most
    /// [`CALL_VALUES_MAX`] each of `f32` and `u32` with at most [`CALL_AXES_MAX`] axes. Every call splits
    /// the plan and costs time in each step: for what truly cannot be described.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where nothing is called: for plans that are trained, in encoders, and for
    /// values that cannot cross.
    fn call(&mut self, callback: &str, inputs: &[Val], outputs: &[Spec]) -> Result<Vec<Val>>;

    /// Makes `val` an output of the plan under `name`.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if an output of this name exists.
    fn output(&mut self, name: &str, val: Val) -> Result<()>;

    /// Shape and dtype of a value.
    fn spec(&self, val: Val) -> &Spec;
}

/// One method per op, so that traces read like formulas.
pub trait OpSinkExt: OpSink {
    /// `x` times `w` transposed.
    fn matmul(&mut self, x: Val, w: Val) -> Result<Val> {
        self.one(ops::MATMUL, &[x, w], Attrs::new())
    }

    /// `x` times the weight `{name}.weight` transposed, plus `{name}.bias` where the model has one,
    /// and what the adapter adds where it stands.
    fn linear(&mut self, x: Val, name: &str) -> Result<Val> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let weight = self.weight(&weight)?;
        let mut y = self.matmul(x, weight)?;
        if self.has_weight(&bias) {
            let bias = self.weight(&bias)?;
            y = self.add(y, bias)?;
        }
        if self.has_weight(&format!("{name}.{MARK}")) {
            y = self.slot_one("adapter", name, &[x, y])?;
        }
        Ok(y)
    }

    /// `x` of each choice times the transpose of its expert's part of `w` `[experts, n, k]`.
    fn matmul_experts(&mut self, x: Val, w: Val, chosen: Val) -> Result<Val> {
        self.one(ops::MATMUL_EXPERTS, &[x, w, chosen], Attrs::new())
    }

    /// Rows of `table` at `ids`.
    fn embed(&mut self, table: Val, ids: Val) -> Result<Val> {
        self.one(ops::EMBED, &[table, ids], Attrs::new())
    }

    /// Rows of `x` at `indices`.
    fn gather(&mut self, x: Val, indices: Val) -> Result<Val> {
        self.one(ops::GATHER, &[x, indices], Attrs::new())
    }

    /// `a + b`.
    fn add(&mut self, a: Val, b: Val) -> Result<Val> {
        self.one(ops::ADD, &[a, b], Attrs::new())
    }

    /// `a - b`.
    fn sub(&mut self, a: Val, b: Val) -> Result<Val> {
        self.one(ops::SUB, &[a, b], Attrs::new())
    }

    /// `a * b`.
    fn mul(&mut self, a: Val, b: Val) -> Result<Val> {
        self.one(ops::MUL, &[a, b], Attrs::new())
    }

    /// One of the ops that take a value and give one of the same shape.
    fn unary(&mut self, op: OpId, x: Val) -> Result<Val> {
        self.one(op, &[x], Attrs::new())
    }

    /// `x * by`.
    fn scale(&mut self, x: Val, by: f64) -> Result<Val> {
        self.one(ops::SCALE, &[x], Attrs::new().float("by", by))
    }

    /// `x + by`.
    fn offset(&mut self, x: Val, by: f64) -> Result<Val> {
        self.one(ops::OFFSET, &[x], Attrs::new().float("by", by))
    }

    /// `value` in the shape of `x`.
    fn full_like(&mut self, x: Val, value: f64) -> Result<Val> {
        self.one(ops::FULL_LIKE, &[x], Attrs::new().float("value", value))
    }

    /// The sum of each row.
    fn sum(&mut self, x: Val) -> Result<Val> {
        self.unary(ops::REDUCE_SUM, x)
    }

    /// The mean of each row.
    fn mean(&mut self, x: Val) -> Result<Val> {
        self.unary(ops::REDUCE_MEAN, x)
    }

    /// Numbers that are part of the plan.
    fn constant(&mut self, values: &[f32]) -> Result<Val> {
        let attrs = Attrs::new().with("values", Attr::Floats(values.to_vec()));
        self.one(ops::CONSTANT, &[], attrs)
    }

    /// The same elements in another shape; `-1` first keeps the outermost extent.
    fn reshape(&mut self, x: Val, dims: &[i64]) -> Result<Val> {
        let attrs = Attrs::new().with("dims", Attr::Ints(dims.to_vec()));
        self.one(ops::RESHAPE, &[x], attrs)
    }

    /// `len` elements of `axis` from `start`.
    fn slice(&mut self, x: Val, axis: usize, start: u64, len: u64) -> Result<Val> {
        let attrs =
            Attrs::new().int("axis", axis as i64).int("start", start as i64).int("len", len as i64);
        self.one(ops::SLICE, &[x], attrs)
    }

    /// `parts` joined along `axis`.
    fn concat(&mut self, parts: &[Val], axis: usize) -> Result<Val> {
        self.one(ops::CONCAT, parts, Attrs::new().int("axis", axis as i64))
    }

    /// The same numbers as another dtype.
    fn cast(&mut self, x: Val, dtype: DType) -> Result<Val> {
        self.one(ops::CAST, &[x], Attrs::new().text("dtype", &dtype.to_string()))
    }

    /// The single result of an op.
    fn one(&mut self, op: OpId, inputs: &[Val], attrs: Attrs) -> Result<Val> {
        let results = self.op(op, inputs, attrs)?;
        match results[..] {
            [result] => Ok(result),
            _ => Err(Error::shape(op, "one result", results.len())),
        }
    }

    /// The single result of the plugin in `slot`.
    fn slot_one(&mut self, slot: &str, scope: &str, inputs: &[Val]) -> Result<Val> {
        let results = self.slot(slot, scope, inputs)?;
        match results[..] {
            [result] => Ok(result),
            _ => Err(Error::shape(format!("slot `{slot}`"), "one result", results.len())),
        }
    }
}

impl<S: OpSink + ?Sized> OpSinkExt for S {}
