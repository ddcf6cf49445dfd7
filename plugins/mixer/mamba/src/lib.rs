//! Selective state space: each token lets the state of its sequence decay, takes itself in, and reads it.
//!
//! Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv:2312.00752,
//! section 3.4.

use plugin_api::prelude::*;

/// Traces a gated branch through a convolution and a recurrence.
#[derive(Debug)]
pub struct Mamba;

impl Capability for Mamba {
    const NAME: &'static str = "mamba";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Traced for Mamba {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new("mamba/1")
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let Sizes { inner, n, kernel } = Sizes::of(at.config)?;
        let places = [
            g.state(self.state(at)?)?,
            g.input("positions", Spec::u32([Dim::TOKENS]))?,
            g.input("sequence_index", Spec::u32([Dim::TOKENS]))?,
            g.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS]))?,
        ];
        let both = g.linear(x[0], "in_proj")?;
        let x = g.slice(both, 1, 0, inner)?;
        let gate = g.slice(both, 1, inner, inner)?;
        let x = convolved(g, x, &places, [inner, kernel])?;
        let all = g.linear(x, "x_proj")?;
        let Some(rank) = g.spec(all).width()?.checked_sub(2 * n).filter(|rank| *rank > 0) else {
            let expected = format!("more than twice {n} rows, the size of the state");
            return Err(Error::shape("x_proj", expected, g.spec(all)));
        };
        let dt = g.slice(all, 1, 0, rank)?;
        let dt = g.linear(dt, "dt_proj")?;
        let (b, c) = (g.slice(all, 1, rank, n)?, g.slice(all, 1, rank + n, n)?);
        let (a, d) = (decay(g)?, g.weight("D")?);
        let y = scanned(g, [x, dt, a, b, c], d, gate, &places)?;
        Ok(vec![g.linear(y, "out_proj")?])
    }
}

impl Mixer for Mamba {
    fn state(&self, at: &LayerRef<'_>) -> Result<StateSpec> {
        let Sizes { inner, n, kernel } = Sizes::of(at.config)?;
        let part = |name: &str, rows: u64, width: u64| Part {
            name: name.to_owned(),
            dims: vec![rows as u32, width as u32],
        };
        let parts = vec![part("conv", kernel - 1, inner), part("ssm", inner, n)];
        Ok(StateSpec { name: "recurrence".to_owned(), per: Per::Sequence, parts })
    }
}

/// The hyperparameters of one layer.
struct Sizes {
    /// Channels.
    inner: u64,
    /// Numbers of a channel's state.
    n: u64,
    /// Inputs that the convolution sums.
    kernel: u64,
}

impl Sizes {
    fn of(config: &Config) -> Result<Self> {
        Ok(Self {
            inner: config.count("intermediate_size", 1..=1 << 20)?,
            n: config.count_or("state_size", 16, 1..=1 << 12)?,
            kernel: config.count_or("conv_kernel", 4, 2..=1 << 8)?,
        })
    }
}

/// `silu(conv(x) + bias)`.
fn convolved(g: &mut dyn OpSink, x: Val, places: &[Val], [inner, kernel]: [u64; 2]) -> Result<Val> {
    let w = g.weight("conv1d.weight")?;
    let w = g.reshape(w, &[inner as i64, kernel as i64])?;
    let inputs = [&[x, w], places].concat();
    let mut x = g.one(ops::CAUSAL_CONV, &inputs, Attrs::new().int("part", 0))?;
    if g.has_weight("conv1d.bias") {
        let bias = g.weight("conv1d.bias")?;
        x = g.add(x, bias)?;
    }
    g.unary(ops::SILU, x)
}

/// What is read of the states, with the inputs themselves, gated.
fn scanned(g: &mut dyn OpSink, of: [Val; 5], d: Val, gate: Val, places: &[Val]) -> Result<Val> {
    let inputs = [&of, places].concat();
    let y = g.one(ops::SELECTIVE_SCAN, &inputs, Attrs::new().int("part", 1))?;
    let skipped = g.mul(of[0], d)?;
    let y = g.add(y, skipped)?;
    fused::swiglu(g, gate, y)
}

/// How fast each number of the state decays, which is negative.
fn decay(g: &mut dyn OpSink) -> Result<Val> {
    if !g.has_weight("A_log") {
        return g.weight("A");
    }
    let log = g.weight("A_log")?;
    let a = g.unary(ops::EXP, log)?;
    g.unary(ops::NEG, a)
}

export_plugin!(Mamba);

#[cfg(test)]
mod tests {
    use plugin_api::plan::PlanBuilder;
    use plugin_api::testing::golden;
    use plugin_api::testing::mixer::{self, Heads};

    use super::*;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/vectors.json"));

    #[test]
    fn passes_the_contract_suite() {
        mixer::suite::<Mamba>();
    }

    fn numbers(seed: usize, len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7 + seed * 5) % 11) as f32 / 6.0 - 0.8).collect()
    }

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| f64::from(x)).collect()
    }

    /// `w [rows, x]` times `x`.
    fn product(w: &[f64], x: &[f64]) -> Vec<f64> {
        let dot = |row: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum();
        w.chunks_exact(x.len()).map(dot).collect()
    }

    fn silu(x: f64) -> f64 {
        x / (1.0 + (-x).exp())
    }

    #[test]
    fn agrees_with_the_recurrence() {
        // In the scene: twice as many channels as the model is wide, states of 4, a rank of 3, 4 inputs.
        const HIDDEN: usize = 3;
        const TOKENS: usize = 7;
        let (inner, n, rank, kernel) = (2 * HIDDEN, 4, 3, 4);
        let w = [
            ("in_proj.weight", numbers(1, 2 * inner * HIDDEN)),
            ("conv1d.weight", numbers(2, inner * kernel)),
            ("conv1d.bias", numbers(3, inner)),
            ("x_proj.weight", numbers(4, (rank + 2 * n) * inner)),
            ("dt_proj.weight", numbers(5, inner * rank)),
            ("dt_proj.bias", numbers(6, inner)),
            ("A_log", numbers(7, inner * n)),
            ("D", numbers(8, inner)),
            ("out_proj.weight", numbers(9, HIDDEN * inner)),
        ];
        let x = numbers(10, TOKENS * HIDDEN);
        let sizes = Heads { hidden: HIDDEN as u64, heads: 1, kv_heads: 1, head_dim: 2 };
        let plan = mixer::trace::<Mamba>(&Config::new(), sizes, &[]);
        let given: Vec<(&str, &[f32])> = w.iter().map(|(name, x)| (*name, &x[..])).collect();
        let found = mixer::run(&plan, &x, TOKENS, &given);

        let [in_w, conv_w, conv_b, x_w, dt_w, dt_b, a_log, d, out_w] = w.map(|(_, x)| wide(&x));
        let x = wide(&x);
        let (mut before, mut h) = (Vec::<Vec<f64>>::new(), vec![0.0; inner * n]);
        for t in 0..TOKENS {
            let both = product(&in_w, &x[t * HIDDEN..][..HIDDEN]);
            before.push(both[..inner].to_vec());
            let u: Vec<f64> = (0..inner)
                .map(|c| {
                    let past =
                        |j: usize| (t + j + 1).checked_sub(kernel).map_or(0.0, |t| before[t][c]);
                    let sum: f64 = (0..kernel).map(|j| conv_w[c * kernel + j] * past(j)).sum();
                    silu(sum + conv_b[c])
                })
                .collect();
            let all = product(&x_w, &u);
            let dt = product(&dt_w, &all[..rank]);
            let (b, read) = (&all[rank..rank + n], &all[rank + n..]);
            let y: Vec<f64> = (0..inner)
                .map(|c| {
                    let step = (dt[c] + dt_b[c]).exp().ln_1p();
                    let mut sum = d[c] * u[c];
                    for j in 0..n {
                        let k = c * n + j;
                        h[k] = h[k] * (-step * a_log[k].exp()).exp() + step * u[c] * b[j];
                        sum += h[k] * read[j];
                    }
                    sum * silu(both[inner + c])
                })
                .collect();
            for (i, expected) in product(&out_w, &y).into_iter().enumerate() {
                let found = found[t * HIDDEN + i];
                assert!((found - expected).abs() < 1e-9, "{t}: {found}, not {expected}");
            }
        }
    }

    /// Three channels with states of four numbers, over six tokens.
    #[test]
    fn scans_as_its_formula_says() {
        const TOKENS: usize = 6;
        let (channels, n) = (3, 4);
        let numbers = |field: &str| golden::numbers(GOLDEN, "mamba1_scan", field);
        // Theirs lie channel by channel, ours token by token.
        let by_token = |field: &str| -> Vec<f32> {
            let theirs = numbers(field);
            let rows = theirs.len() / TOKENS;
            (0..TOKENS * rows).map(|i| theirs[i % rows * TOKENS + i / rows] as f32).collect()
        };
        let narrow = |field: &str| numbers(field).into_iter().map(|x| x as f32).collect::<Vec<_>>();
        let mut dt = by_token("dt");
        let bias = narrow("dt_bias");
        dt.iter_mut().enumerate().for_each(|(i, dt)| *dt += bias[i % channels]);

        let mut g = PlanBuilder::new();
        let rows = |width: usize| Spec::f32([Dim::TOKENS, (width as u64).into()]);
        let part = |name: &str, width: usize| Part {
            name: name.to_owned(),
            dims: vec![channels as u32, width as u32],
        };
        let parts = vec![part("conv", 1), part("ssm", n)];
        let state = StateSpec { name: "recurrence".to_owned(), per: Per::Sequence, parts };
        let places = [
            g.state(state).unwrap(),
            g.input("positions", Spec::u32([Dim::TOKENS])).unwrap(),
            g.input("sequence_index", Spec::u32([Dim::TOKENS])).unwrap(),
            g.input("block_table", Spec::u32([Dim::SEQS, Dim::BLOCKS])).unwrap(),
        ];
        let [x, dt_in, gate] = ["x", "dt", "z"].map(|name| g.input(name, rows(channels)).unwrap());
        let [b, c] = ["B", "C"].map(|name| g.input(name, rows(n)).unwrap());
        let [channels_dim, n_dim] = [channels, n].map(|n| Dim::Fixed(n as u64));
        let a = g.input("A", Spec::f32([channels_dim, n_dim])).unwrap();
        let d = g.input("D", Spec::f32([channels_dim])).unwrap();
        let y = scanned(&mut g, [x, dt_in, a, b, c], d, gate, &places).unwrap();
        g.output("y", y).unwrap();

        let given = ["z", "B", "C"].map(|name| (name, by_token(name)));
        let (decay, skip) = (narrow("A"), narrow("D"));
        let mut fed: Vec<(&str, &[f32])> = given.iter().map(|(name, x)| (*name, &x[..])).collect();
        fed.extend([("dt", &dt[..]), ("A", &decay[..]), ("D", &skip[..])]);
        let found = mixer::run(&g.finish(), &by_token("u"), TOKENS, &fed);
        let expected = numbers("y");
        for (i, found) in found.into_iter().enumerate() {
            let expected = expected[i % channels * TOKENS + i / channels];
            // The given numbers were rounded to F32.
            assert!((found - expected).abs() < 1e-6, "{i}: {found}, not {expected}");
        }
    }

    #[test]
    fn a_state_does_not_grow() {
        let config = Config::new().with("intermediate_size", 5120);
        let state = Mamba.state(&LayerRef { index: 0, config: &config }).unwrap();
        assert_eq!(state.per, Per::Sequence);
        assert_eq!(state.parts.iter().map(Part::num_elements).sum::<u64>(), 5120 * (3 + 16));
    }
}
