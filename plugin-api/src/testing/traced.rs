//! What every traced kind promises, and the scene in which a part is traced without a model.

use std::collections::BTreeMap;

use super::interpreter::{Arithmetic, Feed, FusedAs, Numbers};
use super::random::Random;
use super::tolerance::{TRACED, WHOLE, peak};
use super::{Make, gradient};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kinds::rotary_embedding::Rotation;
use crate::kinds::{Capability, LayerRef, Traced};
use crate::plan::{
    Attrs, Dim, OpId, OpSink, OpSinkExt as _, Plan, PlanBuilder, Spec, StateSpec, Val, fused, ops,
};
use crate::tensor::DType;

/// Numbers of tokens that parts are tried with.
pub const ODD_SIZES: [usize; 7] = [0, 1, 7, 8, 9, 63, 257];

/// Hyperparameters, and the weights that the model would hold here.
#[derive(Debug, Clone)]
pub struct Scene {
    config: Config,
    weights: BTreeMap<String, Spec>,
}

impl Scene {
    /// A scene with these hyperparameters and no weights.
    pub fn new(config: &Config) -> Self {
        Self { config: config.clone(), weights: BTreeMap::new() }
    }

    /// The same with a weight.
    #[must_use]
    pub fn weight(mut self, name: &str, dims: &[u64]) -> Self {
        let dims: Vec<Dim> = dims.iter().map(|&n| Dim::Fixed(n)).collect();
        self.weights.insert(name.to_owned(), Spec::f32(dims));
        self
    }

    /// The same with a hyperparameter that is a count.
    #[must_use]
    pub fn hyperparameter(mut self, name: &str, n: u64) -> Self {
        self.config.set(name, n as i64);
        self
    }

    /// Traces `part` over inputs with these names, into outputs `0`, `1` …. The slots `norm`,
    /// `rotary-embedding` and `moe-router` are filled with a plain RMS norm, a plain rotation, and the
    /// softmax of the two largest.
    ///
    /// # Errors
    ///
    /// Whatever the trace returns.
    pub fn trace(&self, part: &dyn Traced, inputs: &[(&str, Spec)]) -> Result<Plan> {
        let mut sink = TestSink { scene: self, builder: PlanBuilder::new(), scope: String::new() };
        let mut vals = Vec::new();
        for (name, spec) in inputs {
            vals.push(sink.input(name, spec.clone())?);
        }
        let results = part.trace(&mut sink, &vals, &self.layer())?;
        for (i, val) in results.into_iter().enumerate() {
            sink.output(&i.to_string(), val)?;
        }
        Ok(sink.builder.finish())
    }

    /// The layer that a trace sees.
    pub fn layer(&self) -> LayerRef<'_> {
        LayerRef { index: 0, config: &self.config }
    }
}

/// The two largest of each row, and their softmax.
fn top_two(g: &mut dyn OpSink, logits: Val) -> Result<Vec<Val>> {
    let best = g.op(ops::TOP_K, &[logits], Attrs::new().int("k", 2))?;
    Ok(vec![g.unary(ops::SOFTMAX, best[0])?, best[1]])
}

struct TestSink<'a> {
    scene: &'a Scene,
    builder: PlanBuilder,
    /// Empty, or ends in a dot.
    scope: String,
}

impl OpSink for TestSink<'_> {
    fn input(&mut self, name: &str, spec: Spec) -> Result<Val> {
        self.builder.input(name, spec)
    }

    /// Weights that nobody asks for do not become ports.
    fn weight(&mut self, name: &str) -> Result<Val> {
        let name = format!("{}{name}", self.scope);
        match self.scene.weights.get(&name) {
            Some(spec) => self.builder.declare_weight(&name, spec.clone()),
            None => Err(Error::MissingWeight { name }),
        }
    }

    fn has_weight(&self, name: &str) -> bool {
        self.scene.weights.contains_key(&format!("{}{name}", self.scope))
    }

    fn state(&mut self, mut spec: StateSpec) -> Result<Val> {
        spec.name.insert_str(0, &self.scope);
        self.builder.state(spec)
    }

    fn op(&mut self, op: OpId, inputs: &[Val], attrs: Attrs) -> Result<Vec<Val>> {
        self.builder.op(op, inputs, attrs)
    }

    fn fused(&mut self, op: OpId, x: &[Val], attrs: Attrs, expansion: Plan) -> Result<Vec<Val>> {
        self.builder.fused(op, x, attrs, expansion)
    }

    fn slot(&mut self, slot: &str, scope: &str, inputs: &[Val]) -> Result<Vec<Val>> {
        let outer = self.scope.clone();
        if !scope.is_empty() {
            self.scope = format!("{outer}{scope}.");
        }
        let result = match (slot, inputs) {
            ("norm", &[x]) => {
                self.weight("weight").and_then(|w| fused::rms_norm(self, x, w, 1e-6, 0.0))
            }
            ("rotary-embedding", &[x, positions]) => {
                // As wide as what is turned: a mixer may turn a part of a head.
                let width = self.spec(x).width()?;
                let config = self.scene.config.clone().with("head_dim", width as i64);
                let rotation = Rotation::standard(&config)?;
                fused::rope(self, x, positions, &rotation)
            }
            ("moe-router", &[x]) => {
                let chosen = self.linear(x, "router").and_then(|logits| top_two(self, logits));
                self.scope = outer;
                return chosen;
            }
            _ => Err(Error::NotFound {
                kind: "slot".to_owned(),
                name: slot.to_owned(),
                known: "moe-router, norm, rotary-embedding".to_owned(),
            }),
        };
        self.scope = outer;
        Ok(vec![result?])
    }

    fn call(&mut self, callback: &str, inputs: &[Val], outputs: &[Spec]) -> Result<Vec<Val>> {
        self.builder.call(callback, inputs, outputs)
    }

    fn output(&mut self, name: &str, val: Val) -> Result<()> {
        self.builder.output(name, val)
    }

    fn spec(&self, val: Val) -> &Spec {
        self.builder.spec(val)
    }
}

/// The name is kebab-case.
pub(super) fn check_name<T: Capability>() {
    let is_kebab = |name: &str| {
        name.split('-').all(|word| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
    };
    assert!(is_kebab(T::NAME), "{}: a name is in kebab-case", T::NAME);
}

/// An empty table is a configuration, and instances come and go; the last one stays.
pub(super) fn check_instances<K: ?Sized>(make: Make<'_, K>) -> Box<K> {
    let made = || match make(&Config::new()) {
        Ok(instance) => instance,
        Err(error) => panic!("an empty table is a configuration: {error}"),
    };
    for _ in 0..100 {
        drop(made());
    }
    made()
}

/// An instance from an empty table.
pub(super) fn made<T: Capability>() -> T {
    match T::from_config(&Config::new()) {
        Ok(instance) => instance,
        Err(error) => panic!("{}: an empty table is a configuration: {error}", T::NAME),
    }
}

/// As [`check_plan`]; the value has the shape of the first input.
pub(super) fn check_trace(scene: &Scene, part: &dyn Traced, inputs: &[(&str, Spec)]) -> Plan {
    let (plan, id) = (check_plan(scene, part, inputs), part.semantic_id());
    let first = inputs.first().map(|(_, spec)| spec);
    assert_eq!(Some(plan.spec(plan.outputs[0].val)), first, "{id}: the shape of its first input");
    plan
}

/// Traces twice into one value: equal plans as bytes, which read back as the same plan.
pub(super) fn check_plan(scene: &Scene, part: &dyn Traced, inputs: &[(&str, Spec)]) -> Plan {
    let id = part.semantic_id();
    assert!(!id.0.is_empty(), "a semantic id says something");
    let traced = || match scene.trace(part, inputs) {
        Ok(plan) => plan,
        Err(error) => panic!("{id}: the trace failed: {error}"),
    };
    let (plan, again) = (traced(), traced());
    let bytes = plan.to_bytes();
    assert!(bytes == again.to_bytes(), "{id}: two traces differ:\n{plan}\n{again}");
    assert_eq!(Plan::from_bytes(&bytes).as_ref(), Ok(&plan), "{id}: bytes read back differ");
    assert_eq!(plan.outputs.len(), 1, "{id}: traces one value");
    plan
}

/// Runs a stateless plan at every odd size: results have the right length, are finite, do not
/// depend on the other rows, and are the same whole, expanded and in `f64`, within tolerance. The
/// gradient by every input and weight is that of central differences.
pub(super) fn check_rows(plan: &Plan) {
    let mut random = Random::new(7);
    for tokens in ODD_SIZES {
        let feed = random_feed(plan, tokens, &mut random);
        let expanded = first_output::<f32>(plan, &feed, FusedAs::Expansion);
        let whole = first_output::<f32>(plan, &feed, FusedAs::Whole);
        let exact = first_output::<f64>(plan, &feed, FusedAs::Expansion);
        assert_eq!(expanded.len(), len_of(plan, &feed), "{tokens} tokens: length");
        assert!(exact.iter().all(|x| x.is_finite()), "{tokens} tokens: finite results");
        let what = |how: &str| format!("{tokens} tokens, {how}\n{plan}");
        WHOLE.assert(&what("whole and expanded"), &whole, &expanded, peak(&expanded));
        TRACED.assert(&what("f32 and f64"), &expanded, &exact, peak(&exact));
        if tokens > 1 {
            let alone = feed.rows(plan, 0, 1);
            let alone = first_output::<f32>(plan, &alone, FusedAs::Expansion);
            assert_eq!(alone[..], expanded[..alone.len()], "a row does not depend on its mates");
        }
    }
    gradient::check(plan, &random_feed(plan, 3, &mut random));
}

/// Random numbers for every weight and input; `positions` count up.
pub(super) fn random_feed(plan: &Plan, tokens: usize, random: &mut Random) -> Feed {
    let mut feed = Feed::new().size(Dim::TOKENS, tokens);
    for port in plan.inputs.iter().chain(&plan.weights) {
        let spec = plan.spec(port.val);
        let size = |dim: &Dim| match dim {
            Dim::Fixed(n) => *n as usize,
            Dim::Symbol(symbol) => feed.size_of(*symbol),
        };
        let len = spec.dims.iter().map(size).product();
        feed = if spec.dtype == DType::U32 {
            let indices: Vec<u32> = (0..len as u32).map(|i| i * 3).collect();
            feed.indices(&port.name, &indices)
        } else {
            let values: Vec<f32> = (0..len).map(|_| random.signed()).collect();
            feed.reals(&port.name, &values)
        };
    }
    feed
}

/// The first output of a stateless plan.
pub(super) fn first_output<T: Arithmetic>(plan: &Plan, feed: &Feed, fused: FusedAs) -> Vec<f64> {
    match feed.run::<T>(plan, fused) {
        Ok(outputs) => first_reals(outputs),
        Err(error) => panic!("the plan does not run: {error}\n{plan}"),
    }
}

/// The first of some results, in `f64`.
pub(super) fn first_reals<T: Arithmetic>(outputs: Vec<Numbers<T>>) -> Vec<f64> {
    let first = outputs.into_iter().next().map(Numbers::into_reals);
    let reals = first.and_then(Result::ok).expect("the plan has an output of floats");
    reals.into_iter().map(kernels_reference::Stored::to_f64).collect()
}

fn len_of(plan: &Plan, feed: &Feed) -> usize {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(n) => *n as usize,
        Dim::Symbol(symbol) => feed.size_of(*symbol),
    };
    plan.spec(plan.outputs[0].val).dims.iter().map(size).product()
}

/// Runs a plan with one output on the rows of input `x` and these weights, in `f64`.
///
/// # Panics
///
/// If the plan does not run with them.
pub fn run(plan: &Plan, x: &[f32], weights: &[(&str, &[f32])]) -> Vec<f64> {
    let input = plan.inputs.first().expect("the plan has an input");
    let row: usize = plan.spec(input.val).dims[1..]
        .iter()
        .map(|dim| dim.fixed().map_or(1, |n| n as usize))
        .product();
    let mut feed = Feed::new().size(Dim::TOKENS, x.len() / row).reals(&input.name, x);
    for (name, values) in weights {
        feed = feed.reals(name, values);
    }
    first_output::<f64>(plan, &feed, FusedAs::Expansion)
}
