//! Ops that take elements one by one.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use super::{Backward, Call};
use crate::error::Result;
use crate::plan::{Dim, OpId, OpSink, OpSinkExt, PlanBuilder, Val, ops};

impl Call<'_> {
    /// The rules of binary and unary ops; whether this is one.
    pub(super) fn elementwise(&self, b: &mut Backward) -> Result<bool> {
        let dy = self.grad;
        match (self.op, self.x) {
            (ops::ADD | ops::SUB | ops::MUL | ops::DIV | ops::MAX | ops::MIN, &[l, r]) => {
                self.give(b, 0, |g| left(g, self.op, [l, r], dy))?;
                self.give(b, 1, |g| {
                    let whole = right(g, self.op, [l, r], self.y, dy)?;
                    narrowed(g, whole, l, r)
                })?;
            }
            (ops::SCALE, &[_]) => {
                let by = self.attrs.get_float("by")?;
                self.give(b, 0, |g| g.scale(dy, by))?;
            }
            (ops::OFFSET, &[_]) => self.give(b, 0, |_| Ok(dy))?,
            (ops::NEG, &[_]) => self.give(b, 0, |g| g.unary(ops::NEG, dy))?,
            (op, &[x]) if is_curve(op) => {
                self.give(b, 0, |g| {
                    let slope = slope(g, op, x, self.y)?;
                    g.mul(dy, slope)
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What the left operand gets.
fn left(g: &mut PlanBuilder, op: OpId, [l, r]: [Val; 2], dy: Val) -> Result<Val> {
    match op {
        ops::MUL => g.mul(dy, r),
        ops::DIV => g.one(ops::DIV, &[dy, r], ops::Attrs::new()),
        ops::MAX | ops::MIN => {
            let mask = is_left(g, op, [l, r])?;
            g.mul(dy, mask)
        }
        _ => Ok(dy),
    }
}

/// What the right operand would get if it had the shape of the left one.
fn right(g: &mut PlanBuilder, op: OpId, [l, r]: [Val; 2], y: Val, dy: Val) -> Result<Val> {
    match op {
        ops::SUB => g.unary(ops::NEG, dy),
        ops::MUL => g.mul(dy, l),
        ops::DIV => {
            // l / r² is y / r.
            let product = g.mul(dy, y)?;
            let quotient = g.one(ops::DIV, &[product, r], ops::Attrs::new())?;
            g.unary(ops::NEG, quotient)
        }
        ops::MAX | ops::MIN => {
            let mask = is_left(g, op, [l, r])?;
            let taken = g.mul(dy, mask)?;
            g.sub(dy, taken)
        }
        _ => Ok(dy),
    }
}

/// 1 where the result is the left operand: equals are the right one.
fn is_left(g: &mut PlanBuilder, op: OpId, [l, r]: [Val; 2]) -> Result<Val> {
    let difference = g.sub(l, r)?;
    let ahead = if op == ops::MAX { difference } else { g.unary(ops::NEG, difference)? };
    g.unary(ops::IS_POSITIVE, ahead)
}

/// The sum over all places where an element of `r` stood against one of `l`.
fn narrowed(g: &mut PlanBuilder, whole: Val, l: Val, r: Val) -> Result<Val> {
    let (wide, narrow) = (g.spec(l).dims.clone(), g.spec(r).dims.clone());
    if wide == narrow {
        return Ok(whole);
    }
    let is_column = narrow.len() == wide.len() && narrow.last() == Some(&Dim::Fixed(1));
    if is_column { g.sum(whole) } else { g.unary(ops::REDUCE_ROWS, whole) }
}

fn is_curve(op: OpId) -> bool {
    matches!(
        op,
        ops::EXP
            | ops::LOG
            | ops::SQRT
            | ops::RSQRT
            | ops::TANH
            | ops::SIGMOID
            | ops::SILU
            | ops::GELU
            | ops::GELU_TANH
            | ops::ERF
            | ops::COS
            | ops::SIN
    )
}

/// The derivative of a curve `y` at `x`.
fn slope(g: &mut PlanBuilder, op: OpId, x: Val, y: Val) -> Result<Val> {
    match op {
        ops::LOG => {
            let one = g.full_like(x, 1.0)?;
            g.one(ops::DIV, &[one, x], ops::Attrs::new())
        }
        ops::SQRT => {
            let half = g.full_like(y, 0.5)?;
            g.one(ops::DIV, &[half, y], ops::Attrs::new())
        }
        ops::RSQRT => {
            let square = g.mul(y, y)?;
            let cube = g.mul(square, y)?;
            g.scale(cube, -0.5)
        }
        ops::TANH => {
            let square = g.mul(y, y)?;
            one_minus(g, square)
        }
        ops::SIGMOID => {
            let square = g.mul(y, y)?;
            g.sub(y, square)
        }
        ops::SILU => {
            // s + y (1 − s), s the sigmoid
            let s = g.unary(ops::SIGMOID, x)?;
            let rest = one_minus(g, s)?;
            let bend = g.mul(y, rest)?;
            g.add(s, bend)
        }
        ops::GELU => gelu_slope(g, x),
        ops::GELU_TANH => gelu_tanh_slope(g, x),
        ops::ERF => bell(g, x, 1.0, FRAC_2_SQRT_PI),
        ops::COS => {
            let sin = g.unary(ops::SIN, x)?;
            g.unary(ops::NEG, sin)
        }
        ops::SIN => g.unary(ops::COS, x),
        // e^x is its own slope.
        _ => Ok(y),
    }
}

/// `Φ(x) + x φ(x)`, the distribution and the density of the normal distribution.
fn gelu_slope(g: &mut PlanBuilder, x: Val) -> Result<Val> {
    let z = g.scale(x, FRAC_1_SQRT_2)?;
    let erf = g.unary(ops::ERF, z)?;
    let distribution = g.offset(erf, 1.0)?;
    let distribution = g.scale(distribution, 0.5)?;
    let density = bell(g, x, 0.5, FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * 0.5)?;
    let moved = g.mul(x, density)?;
    g.add(distribution, moved)
}

/// `height · e^(−narrowness x²)`
fn bell(g: &mut PlanBuilder, x: Val, narrowness: f64, height: f64) -> Result<Val> {
    let square = g.mul(x, x)?;
    let exponent = g.scale(square, -narrowness)?;
    let bell = g.unary(ops::EXP, exponent)?;
    g.scale(bell, height)
}

/// `(1 + t) / 2 + x/2 (1 − t²) u'`, `t = tanh(u)` and `u = sqrt(2/π) (x + 0.044715 x³)`.
fn gelu_tanh_slope(g: &mut PlanBuilder, x: Val) -> Result<Val> {
    const CUBIC: f64 = 0.044_715;
    let root = (2.0 / PI).sqrt();
    let square = g.mul(x, x)?;
    let bend = g.scale(square, CUBIC)?;
    let bend = g.offset(bend, 1.0)?;
    let u = g.mul(x, bend)?;
    let u = g.scale(u, root)?;
    let t = g.unary(ops::TANH, u)?;
    let u_slope = g.scale(square, 3.0 * CUBIC * root)?;
    let u_slope = g.offset(u_slope, root)?;
    let t_square = g.mul(t, t)?;
    let t_slope = one_minus(g, t_square)?;
    let t_slope = g.mul(t_slope, u_slope)?;
    let moved = g.mul(x, t_slope)?;
    let sum = g.add(t, moved)?;
    let twice = g.offset(sum, 1.0)?;
    g.scale(twice, 0.5)
}

fn one_minus(g: &mut PlanBuilder, x: Val) -> Result<Val> {
    let negative = g.unary(ops::NEG, x)?;
    g.offset(negative, 1.0)
}
