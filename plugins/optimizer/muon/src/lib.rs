//! Muon: matrices step by their momentum with its singular values made equal.
//!
//! As `torch.optim.Muon`, in the arithmetic of the backend instead of BF16. Sources: Jordan et al., "Muon: An
//! optimizer for hidden layers in neural networks", 2024; Liu et al., "Muon is Scalable for LLM Training",
//! arXiv:2502.16982, section 2.2, for the length of a step and the parameters that are left to AdamW.

use plugin_api::kinds::optimizer::{Elements, keep, state};
use plugin_api::prelude::*;

/// Traces `parameter ← parameter · (1 − rate · weight_decay) − rate · factor · orthogonal(momentum)` for matrices
/// and AdamW's step for the rest.
#[derive(Debug)]
pub struct Muon {
    momentum: f64,
    nesterov: bool,
    ns_steps: u64,
    adjust: Adjust,
    weight_decay: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
}

/// How the length of a step depends on the shape of a matrix.
#[derive(Debug, Clone, Copy)]
enum Adjust {
    Original,
    MatchRmsAdamW,
}

impl Capability for Muon {
    const NAME: &'static str = "muon";

    fn from_config(config: &Config) -> Result<Self> {
        let adjust = match config.has("adjust") {
            true => config.one_of("adjust", &["original", "match-rms-adamw"])?,
            false => "match-rms-adamw",
        };
        Ok(Self {
            momentum: config.number_or("momentum", 0.95, 0.0..=0.999_999)?,
            nesterov: config.flag_or("nesterov", true)?,
            ns_steps: config.count_or("ns_steps", 5, 1..=99)?,
            adjust: if adjust == "original" { Adjust::Original } else { Adjust::MatchRmsAdamW },
            weight_decay: config.number_or("weight_decay", 0.1, 0.0..=1e3)?,
            beta1: config.number_or("beta1", 0.9, 0.0..=0.999_999)?,
            beta2: config.number_or("beta2", 0.95, 0.0..=0.999_999)?,
            eps: config.number_or("eps", 1e-8, 1e-30..=1.0)?,
        })
    }
}

impl Traced for Muon {
    fn semantic_id(&self) -> SemanticId {
        let Self { momentum, nesterov, ns_steps, adjust, weight_decay, beta1, beta2, eps } = self;
        SemanticId::new(format!(
            "muon/1 {momentum} {nesterov} {ns_steps} {adjust:?} {weight_decay} {beta1} {beta2} {eps}"
        ))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let name = at.config.text_or("parameter", "")?;
        let is_table = TABLES.iter().any(|table| name.starts_with(table));
        let shape = match x.first().map(|&val| &g.spec(val).dims[..]) {
            Some(&[Dim::Fixed(rows), Dim::Fixed(columns)]) if !is_table => Some((rows, columns)),
            _ => None,
        };
        let step = Elements::of(g, x)?;
        let mut step_by = match shape {
            Some((rows, columns)) => {
                let direction = self.orthogonal(g, &step, rows, columns)?;
                let adjusted = g.scale(step.learning_rate, self.factor(rows, columns))?;
                g.mul(direction, adjusted)?
            }
            None => {
                let direction = self.adam(g, &step)?;
                g.mul(direction, step.learning_rate)?
            }
        };
        if self.weight_decay > 0.0 {
            let share = g.scale(step.learning_rate, self.weight_decay)?;
            let decay = g.mul(step.parameter, share)?;
            step_by = g.add(step_by, decay)?;
        }
        step.less(g, step_by)
    }
}

impl Muon {
    /// The momentum of a matrix with singular values near 1, as a row of elements.
    fn orthogonal(&self, g: &mut dyn OpSink, step: &Elements, m: u64, n: u64) -> Result<Val> {
        let momentum = average(g, step, "momentum", step.gradient, self.momentum)?;
        let ahead = match self.nesterov {
            true => blend(g, step.gradient, momentum, self.momentum)?,
            false => momentum,
        };
        let squares = g.mul(ahead, ahead)?;
        let length = g.sum(squares)?;
        let length = g.unary(ops::SQRT, length)?;
        let least = g.constant(&[LENGTH_MIN])?;
        let least = g.reshape(least, &[1, 1])?;
        let length = g.one(ops::MAX, &[length, least], Attrs::new())?;
        let unit = g.one(ops::DIV, &[ahead, length], Attrs::new())?;
        let mut x = g.reshape(unit, &[m as i64, n as i64])?;
        for _ in 0..self.ns_steps {
            x = iterate(g, x, m > n)?;
        }
        g.reshape(x, &[1, (m * n) as i64])
    }

    fn factor(&self, rows: u64, columns: u64) -> f64 {
        let (rows, columns) = (rows as f64, columns as f64);
        match self.adjust {
            Adjust::Original => (rows / columns).max(1.0).sqrt(),
            Adjust::MatchRmsAdamW => 0.2 * rows.max(columns).sqrt(),
        }
    }

    /// Adam's direction: the average gradient over the root of its average square.
    fn adam(&self, g: &mut dyn OpSink, step: &Elements) -> Result<Val> {
        let squares = g.mul(step.gradient, step.gradient)?;
        let mean = corrected(g, step, "mean", step.gradient, self.beta1)?;
        let variance = corrected(g, step, "variance", squares, self.beta2)?;
        let deviation = g.unary(ops::SQRT, variance)?;
        let floored = g.offset(deviation, self.eps)?;
        g.one(ops::DIV, &[mean, floored], Attrs::new())
    }
}

/// One iteration: `a X + (b A + c A²) X` with `A = X Xᵀ`, for a tall matrix `a X + X (b A + c A²)` with `A = Xᵀ X`,
/// so that `A` has the smaller extent. `A` and its polynomial are symmetric: no product needs a
/// transpose.
fn iterate(g: &mut dyn OpSink, x: Val, is_tall: bool) -> Result<Val> {
    let (a, b, c) = COEFFICIENTS;
    let gram =
        if is_tall { g.one(ops::MATMUL_ROWS, &[x, x], Attrs::new())? } else { g.matmul(x, x)? };
    let square = g.matmul(gram, gram)?;
    let (first, second) = (g.scale(gram, b)?, g.scale(square, c)?);
    let polynomial = g.add(first, second)?;
    let product = match is_tall {
        true => g.matmul(x, polynomial)?,
        false => g.one(ops::MATMUL_ROWS, &[polynomial, x], Attrs::new())?,
    };
    let scaled = g.scale(x, a)?;
    g.add(scaled, product)
}

/// `share · b + (1 − share) · a`.
fn blend(g: &mut dyn OpSink, a: Val, b: Val, share: f64) -> Result<Val> {
    let (a, b) = (g.scale(a, 1.0 - share)?, g.scale(b, share)?);
    g.add(b, a)
}

/// The average of `x` over the steps so far, recent ones counting most; it begins at 0.
fn average(g: &mut dyn OpSink, step: &Elements, name: &str, x: Val, beta: f64) -> Result<Val> {
    let before = step.state(g, name)?;
    let sum = blend(g, x, before, beta)?;
    keep(g, name, sum)?;
    Ok(sum)
}

/// The same without the pull of the beginning: over the weight that the steps so far have together.
fn corrected(g: &mut dyn OpSink, step: &Elements, name: &str, x: Val, beta: f64) -> Result<Val> {
    let sum = average(g, step, name, x, beta)?;
    let name = format!("{name}_weight");
    let spec = g.spec(step.learning_rate).clone();
    let before = state(g, &name, spec)?;
    let slowed = g.scale(before, beta)?;
    let weight = g.offset(slowed, 1.0 - beta)?;
    keep(g, &name, weight)?;
    g.one(ops::DIV, &[sum, weight], Attrs::new())
}

/// Of the quintic polynomial: its slope at 0 is as great as it can be.
const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
/// A shorter momentum is not made longer than by this.
const LENGTH_MIN: f32 = 1e-7;
/// What the names of matrices begin with whose rows are those of tokens.
const TABLES: [&str; 2] = ["embed_tokens", "lm_head"];

impl Optimizer for Muon {}

export_plugin!(Muon);

#[cfg(test)]
mod tests {
    use plugin_api::testing::optimizer::{Run, suite, trace, trace_of};

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Muon>();
    }

    fn steps(config: &Config, dims: &[u64], start: &[f64], gradients: &[[f64; 6]]) -> Vec<f64> {
        let plan = trace(&Muon::from_config(config).unwrap(), dims);
        let mut run = Run::new(&plan, start);
        for gradient in gradients {
            run.step::<f64>(&plan, &gradient[..start.len()], 0.1);
        }
        run.parameter
    }

    const START: [f64; 6] = [1.0, -0.5, 0.25, 2.0, -1.5, 0.75];
    const GRADIENTS: [[f64; 6]; 3] = [
        [0.5, -1.0, 0.0, 2.0, 0.25, -0.5],
        [-0.25, 0.75, 1.0, 1.0, -1.5, 0.5],
        [1.5, 0.5, -2.0, 0.0, 1.0, 0.25],
    ];

    #[test]
    fn steps_matrices_as_pytorch_does() {
        let original = Config::new().with("adjust", "original");
        let plain = original.clone().with("nesterov", false).with("weight_decay", 0.0);
        #[rustfmt::skip]
        let cases = [
            // table          rows, columns
            (original,        [2, 3],       MUON_WIDE),
            (plain,           [3, 2],       MUON_TALL),
            (Config::new(),   [3, 2],       MUON_MATCHED),
        ];
        for (config, dims, expected) in cases {
            let found = steps(&config, &dims, &START, &GRADIENTS);
            let is_near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(is_near, "{config:?}: {found:?}");
        }
    }

    #[test]
    fn steps_tables_and_vectors_as_adamw_does() {
        let muon = Muon::from_config(&Config::new()).unwrap();
        for (name, dims) in [("lm_head.weight", &[2, 2][..]), ("norm.weight", &[4])] {
            let plan = trace_of(&muon, name, dims);
            let mut run = Run::new(&plan, &START[..4]);
            for gradient in GRADIENTS {
                run.step::<f64>(&plan, &gradient[..4], 0.1);
            }
            let is_near = run.parameter.iter().zip(ADAMW).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(is_near, "{name}: {run:?}");
        }
    }

    // Made by tests/golden/make/optimizers.py with torch/optim/_muon.py of PyTorch 2.9.1 and AdamW of 1.13.1, in F64.
    const MUON_WIDE: [f64; 6] = [
        0.9186257709420727,
        -0.40968069504897275,
        0.20339635994453586,
        1.749057671274199,
        -1.4659088316072542,
        0.6680812842378239,
    ];
    const MUON_TALL: [f64; 6] = [
        0.8085789039372961,
        -0.48210544096135666,
        0.2292699984943806,
        1.7311189499267143,
        -1.4075193325578166,
        0.7227455929157294,
    ];
    const MUON_MATCHED: [f64; 6] = [
        0.9288788372740895,
        -0.500509316117308,
        0.23177483035677018,
        1.8628947230842878,
        -1.4477645246017317,
        0.7161170244628681,
    ];
    const ADAMW: [f64; 4] =
        [0.7799601204396412, -0.39577941731478317, 0.2006266848294255, 1.6760515479912772];
}
