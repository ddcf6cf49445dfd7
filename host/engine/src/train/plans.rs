//! The plans of training, out of what plugins describe.

use plugin_api::kinds::objective::Rows;
use plugin_api::kinds::optimizer::STATE;
use plugin_api::plan::{Dim, OpSink, Plan, PlanBuilder, Spec, Val, gradient, rewrite};
use plugin_api::{Config, Error, LayerRef, LrSchedule, Objective, Optimizer, Result, Traced};

use super::parameters::Parameters;
use super::routing::{Loads, Routed, Routing, is_steered};
use crate::error::EngineError;
use crate::model::Architecture;
use crate::model::trace::{TracedParts, WeightShapes, trace_decoder};

/// The logits of whole sequences; the parameters are inputs.
pub(crate) fn logits(
    architecture: &Architecture,
    parts: &TracedParts,
    parameters: [&Parameters; 2],
) -> Result<Plan, EngineError> {
    let plan = whole(architecture, parts, parameters)?;
    rewrite::with_all_experts(&plan, None).map_err(EngineError::plugin("plan of training"))
}

/// A model that learns: its logits, then what its routers tell.
pub(super) struct Learner {
    plan: Plan,
    routers: Vec<Routed>,
    routing: Routing,
}

impl Learner {
    pub(super) fn new(
        architecture: &Architecture,
        parts: &TracedParts,
        parameters: [&Parameters; 2],
    ) -> Result<Self, EngineError> {
        let mut plan = whole(architecture, parts, parameters)?;
        let routing = Routing::of(&architecture.config);
        let routing = routing.map_err(EngineError::plugin("hyperparameters"))?;
        let routers = Routed::find(&plan);
        Routed::tell(&mut plan, &routers);
        let plan = rewrite::with_all_experts(&plan, routing.capacity_factor);
        let plan = plan.map_err(EngineError::plugin("plan of training"))?;
        Ok(Self { plan, routers, routing })
    }

    /// What counts the load of its routers.
    pub(super) fn loads(&self) -> Loads {
        Loads::new(&self.routing, &self.routers)
    }

    /// The loss of the objective and of the routers, their load, and the gradient by each parameter that has one, in the order
    /// of their names.
    pub(super) fn backward(
        &self,
        objective: &dyn Objective,
        parameters: &Parameters,
    ) -> Result<Plan, EngineError> {
        let loss = rewrite::continued(&self.plan, |g, outputs| {
            let (logits, told) = outputs.split_at(1);
            let loss = objective_loss(g, objective, logits)?;
            let routers = Routed::told(&self.routers, told);
            let (loss, loads) = self.routing.with_losses(g, loss, &routers)?;
            g.output("loss", loss)?;
            let mut loads = routers.iter().zip(loads);
            loads.try_for_each(|(router, load)| g.output(&router.load(), load))
        });
        let loss = loss.map_err(EngineError::plugin("objective"))?;
        let names = parameters.0.keys().map(String::as_str).filter(|name| !is_steered(name));
        let names: Vec<&str> = names.collect();
        gradient(&loss, loss.outputs[0].val, &names).map_err(|error| {
            let source = Error::unsupported("gradient", error.to_string());
            EngineError::Plugin { what: "plan of training".to_owned(), source }
        })
    }
}

/// The logits of whole sequences, as serving computes them.
fn whole(
    architecture: &Architecture,
    parts: &TracedParts,
    [parameters, frozen]: [&Parameters; 2],
) -> Result<Plan, EngineError> {
    let decoder = trace_decoder(architecture, parts, &Both(parameters, frozen));
    let decoder = decoder.map_err(EngineError::plugin("plan of the model"))?;
    if let Some(name) = unread(&decoder, parameters) {
        let what = format!("parameter `{name}`");
        return Err(EngineError::inconsistent(what, "one that the model reads", "none reads it"));
    }
    let names: Vec<&str> = decoder.weights.iter().map(|port| port.name.as_str()).collect();
    let whole = rewrite::without_states(&decoder)
        .and_then(|plan| rewrite::weights_as_inputs(&plan, &names));
    whole.map_err(EngineError::plugin("plan of training"))
}

/// The natural logarithms of the probabilities of the targets, `[rows, 1]`.
pub(super) fn logprobs(logits: &Plan) -> Result<Plan, EngineError> {
    let whole = rewrite::continued(logits, |g, outputs| {
        let rows = Rows::of(g, outputs)?;
        let logprobs = rows.logprobs(g)?;
        g.output("logprobs", logprobs)
    });
    whole.map_err(EngineError::plugin("plan of training"))
}

/// The loss.
pub(super) fn loss(logits: &Plan, objective: &dyn Objective) -> Result<Plan, EngineError> {
    with_loss(logits, objective).map_err(EngineError::plugin("objective"))
}

/// The weights of either.
struct Both<'a>(&'a Parameters, &'a Parameters);

impl WeightShapes for Both<'_> {
    fn dims(&self, name: &str) -> Option<&[u64]> {
        self.0.dims(name).or_else(|| self.1.dims(name))
    }
}

fn unread<'a>(plan: &Plan, parameters: &'a Parameters) -> Option<&'a String> {
    parameters.0.keys().find(|name| !plan.weights.iter().any(|port| port.name == **name))
}

fn with_loss(plan: &Plan, objective: &dyn Objective) -> Result<Plan> {
    rewrite::continued(plan, |g, outputs| {
        let loss = objective_loss(g, objective, outputs)?;
        g.output("loss", loss)
    })
}

fn objective_loss(g: &mut PlanBuilder, objective: &dyn Objective, logits: &[Val]) -> Result<Val> {
    let config = Config::at("training");
    let results = objective.trace(g, logits, &LayerRef { index: 0, config: &config })?;
    match results[..] {
        [loss] => Ok(loss),
        _ => Err(Error::shape("objective", "one loss", results.len())),
    }
}

/// One step of the parameter called `name`.
pub(super) fn update(optimizer: &dyn Optimizer, name: &str, dims: &[u64]) -> Result<Plan> {
    let dims: Vec<Dim> = dims.iter().map(|&n| Dim::Fixed(n)).collect();
    let config = Config::at("training").with("parameter", name);
    let plan = alone(optimizer, &["parameter", "gradient"], &Spec::f32(dims), &config)?;
    for port in plan.inputs.iter().filter(|port| port.name.starts_with(STATE)) {
        let written = plan.outputs.iter().find(|output| output.name == port.name);
        let is_kept = written.is_some_and(|output| plan.spec(output.val) == plan.spec(port.val));
        if !is_kept || plan.spec(port.val).dims.iter().any(|dim| dim.fixed().is_none()) {
            let expected = "a fixed shape, and an output of the same";
            return Err(Error::shape(&port.name, expected, plan.spec(port.val)));
        }
    }
    Ok(plan)
}

/// The factor of the learning rate at a step of a run of `num_steps`.
pub(super) fn schedule(schedule: &dyn LrSchedule, num_steps: u64) -> Result<Plan> {
    let config = Config::at("training").with("num_steps", num_steps as i64);
    alone(schedule, &["step"], &Spec::f32([Dim::Fixed(1), Dim::Fixed(1)]), &config)
}

/// The plan of a part over inputs of one spec; its one result, which has that spec, comes first.
fn alone(part: &dyn Traced, inputs: &[&str], spec: &Spec, config: &Config) -> Result<Plan> {
    // Outputs that the trace makes come after the result.
    let mut g = PlanBuilder::new();
    let mut vals = Vec::new();
    for name in inputs {
        vals.push(g.input(name, spec.clone())?);
    }
    let results = part.trace(&mut g, &vals, &LayerRef { index: 0, config })?;
    let [result] = results[..] else {
        return Err(Error::shape(part.semantic_id(), "one result", results.len()));
    };
    if g.spec(result) != spec {
        return Err(Error::shape(part.semantic_id(), spec, g.spec(result)));
    }
    g.output(RESULT, result)?;
    let mut plan = g.finish();
    plan.outputs.rotate_right(1);
    Ok(plan)
}

/// The output that holds the result.
const RESULT: &str = "result";
