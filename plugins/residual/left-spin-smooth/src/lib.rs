//! Left-spin smooth: damps updates of the stream that are large beside it, and leaves others as they are.
//!
//! The gate of "left-spin" residuals, with a dead zone: nothing changes below the threshold, where the original
//! damps a little everywhere. Each token is judged by itself.

use plugin_api::prelude::*;

/// Traces `stream + g · branch` with `g = 1 / √(1 + φ²)`, `φ = α ln((1 + eˣ) / 2)`, `x = max(0, |branch| / |stream| − τ)`.
#[derive(Debug)]
pub struct LeftSpinSmooth {
    alpha: f64,
    /// `τ`.
    threshold: f64,
}

impl Capability for LeftSpinSmooth {
    const NAME: &'static str = "left-spin-smooth";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            alpha: config.number_or("alpha", 0.5, 0.0..=1e3)?,
            threshold: config.number_or("threshold", 1.0, 0.0..=1e6)?,
        })
    }
}

impl Traced for LeftSpinSmooth {
    fn semantic_id(&self) -> SemanticId {
        let Self { alpha, threshold } = self;
        SemanticId::new(format!("left-spin-smooth/1 {alpha} {threshold}"))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], _at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let &[stream, branch] = x else {
            return Err(Error::shape("left-spin-smooth", "stream and branch", x.len()));
        };
        let (around, update) = (length(g, stream)?, length(g, branch)?);
        let share = g.one(ops::DIV, &[update, around], Attrs::new())?;
        let above = g.offset(share, -self.threshold)?;
        let zeros = g.full_like(above, 0.0)?;
        let excess = g.one(ops::MAX, &[above, zeros], Attrs::new())?;
        let angle = self.angle(g, excess)?;
        let square = g.mul(angle, angle)?;
        let square = g.offset(square, 1.0)?;
        let gate = g.unary(ops::RSQRT, square)?;
        let damped = g.mul(branch, gate)?;
        Ok(vec![g.add(stream, damped)?])
    }
}

impl LeftSpinSmooth {
    /// `α ln((1 + eˣ) / 2)` of `x` from 0 on, as `α (x + ln(1 + e⁻ˣ) − ln 2)`: 0 at 0, without overflow.
    fn angle(&self, g: &mut dyn OpSink, x: Val) -> Result<Val> {
        let negative = g.unary(ops::NEG, x)?;
        let small = g.unary(ops::EXP, negative)?;
        let above = g.offset(small, 1.0)?;
        let rest = g.unary(ops::LOG, above)?;
        let rest = g.offset(rest, -std::f64::consts::LN_2)?;
        let sum = g.add(x, rest)?;
        g.scale(sum, self.alpha)
    }
}

/// The Euclidean length of each row, `[tokens, 1]`; at least 1e-6, where a root has a derivative.
fn length(g: &mut dyn OpSink, x: Val) -> Result<Val> {
    let squares = g.mul(x, x)?;
    let sum = g.sum(squares)?;
    let sum = g.offset(sum, 1e-12)?;
    g.unary(ops::SQRT, sum)
}

impl Residual for LeftSpinSmooth {}

export_plugin!(LeftSpinSmooth);

#[cfg(test)]
mod tests {
    use plugin_api::testing::residual;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        residual::suite::<LeftSpinSmooth>();
    }

    #[test]
    fn damps_what_is_longer_than_the_stream() {
        let gate = |excess: f64| {
            let angle = 0.5 * (0.5 * (1.0 + excess.exp())).ln();
            1.0 / (1.0 + angle * angle).sqrt()
        };
        #[rustfmt::skip]
        let cases = [
            // stream, branch, expected
            (2.0,  1.0,   3.0),
            (2.0, -2.0,   0.0),
            (2.0,  0.0,   2.0),
            (2.0,  6.0,   2.0 + 6.0 * gate(2.0)),
            (-1.0, 11.0, -1.0 + 11.0 * gate(10.0)),
        ];
        let plan = residual::trace::<LeftSpinSmooth>(1);
        for (stream, branch, expected) in cases {
            let found = residual::run(&plan, &[stream], &[branch])[0];
            assert!((found - expected).abs() < 1e-4, "{stream} {branch}: {found}, not {expected}");
        }
        // An update out of nothing is damped to what is finite.
        let found = residual::run(&plan, &[0.0], &[1.0])[0];
        assert!(found.is_finite() && found < 1e-3, "{found}");
    }
}
