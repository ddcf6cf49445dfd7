//! Mixtures of experts in training: losses that keep routers even and calm, and biases that follow the load.
//!
//! Routers are found in the plan, by what `matmul_experts` is told and by the name of their weight: any router is served.

use std::collections::BTreeMap;

use plugin_api::kinds::moe_router::{self, CORRECTION_BIAS};
use plugin_api::plan::{
    Attrs, Dim, Node, NodeKind, OpSink as _, OpSinkExt as _, Plan, PlanBuilder, Port, Spec, Val,
    ops,
};
use plugin_api::{Config, Result, TensorMut};

use super::parameters::Parameters;

/// What training does about routers, out of the hyperparameters of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Routing {
    /// Of the balance loss of each router.
    balance_coef: f64,
    /// Of the z-loss of each router.
    z_coef: f64,
    /// What a step adds to or takes from the bias of an expert.
    bias_rate: f64,
    /// Nothing where experts take all that comes.
    pub(super) capacity_factor: Option<f64>,
}

impl Routing {
    /// The losses count where `output_router_logits` is set, as in transformers.
    ///
    /// # Errors
    ///
    /// [`plugin_api::Error::Config`] for numbers out of range.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let coef = |key| match config.flag_or("output_router_logits", false)? {
            true => config.number_or(key, 0.0, 0.0..=1e3),
            false => Ok(0.0),
        };
        let factor = config.number_or("expert_capacity_factor", 0.0, 0.0..=1e3)?;
        Ok(Self {
            balance_coef: coef("router_aux_loss_coef")?,
            z_coef: coef("router_z_loss_coef")?,
            bias_rate: config.number_or("router_bias_update_rate", 1e-3, 0.0..=1.0)?,
            capacity_factor: (factor > 0.0).then_some(factor),
        })
    }

    /// Adds the losses of `routers` to that of the objective, and tells the load of each.
    ///
    /// # Errors
    ///
    /// Whatever the builder returns.
    pub(super) fn with_losses(
        &self,
        g: &mut PlanBuilder,
        mut loss: Val,
        routers: &[Routed],
    ) -> Result<(Val, Vec<Val>)> {
        let mut loads = Vec::new();
        for router in routers {
            let Routed { logits, chosen, .. } = *router;
            let shares = shares(g, logits)?;
            let load = moe_router::load(g, logits, chosen)?;
            loads.push(load);
            if self.balance_coef > 0.0 {
                let probabilities = router.probabilities(g)?;
                let balance = moe_router::balance_loss(g, probabilities, load, shares)?;
                let balance = g.scale(balance, self.balance_coef)?;
                loss = g.add(loss, balance)?;
            }
            if self.z_coef > 0.0 {
                let calm = moe_router::z_loss(g, logits, shares)?;
                let calm = g.scale(calm, self.z_coef)?;
                loss = g.add(loss, calm)?;
            }
        }
        Ok((loss, loads))
    }
}

/// The share of each token in those of a step: an input with a row for each of `x`.
fn shares(g: &mut PlanBuilder, x: Val) -> Result<Val> {
    let tokens = g.spec(x).dims.first().copied().unwrap_or(Dim::TOKENS);
    g.input("router_shares", Spec::f32([tokens, Dim::Fixed(1)]))
}

/// A router of a plan.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Routed {
    /// What the names of its weights begin with: `layers.0.mlp.`.
    scope: String,
    /// `[tokens, experts]`.
    logits: Val,
    /// `u32 [tokens, choices]`.
    chosen: Val,
    experts: usize,
    /// Whether experts score by themselves, not as shares of one.
    is_sigmoid: bool,
}

impl Routed {
    /// Finds the routers of all layers, in the order of the plan.
    pub(super) fn find(plan: &Plan) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        for node in &plan.nodes {
            let (NodeKind::Prim(ops::MATMUL_EXPERTS, _), Some(&chosen)) =
                (&node.kind, node.inputs.get(2))
            else {
                continue;
            };
            if found.iter().all(|router| router.chosen != chosen) {
                found.extend(Self::of(plan, chosen));
            }
        }
        found
    }

    /// The last product with a router's weight before `chosen`.
    fn of(plan: &Plan, chosen: Val) -> Option<Self> {
        let port = |val: Val| plan.inputs.iter().chain(&plan.weights).find(|port| port.val == val);
        let mut reads = vec![false; plan.specs.len()];
        *reads.get_mut(chosen.index())? = true;
        for node in plan.nodes.iter().rev() {
            if !node.outputs.iter().any(|val| reads[val.index()]) {
                continue;
            }
            let weight = node.inputs.get(1).and_then(|val| port(*val));
            let scope = weight.and_then(|port| port.name.strip_suffix(WEIGHT));
            if let (NodeKind::Prim(ops::MATMUL, _), Some(scope), Some(&logits)) =
                (&node.kind, scope, node.outputs.first())
            {
                let bias = format!("{scope}{BIAS}");
                let with_bias = plan.nodes.iter().find(|other| {
                    let is_bias = |val: &Val| port(*val).is_some_and(|port| port.name == bias);
                    other.inputs.first() == Some(&logits)
                        && other.inputs.get(1).is_some_and(is_bias)
                });
                let logits = with_bias.and_then(|node| node.outputs.first()).unwrap_or(&logits);
                let is_sigmoid = |node: &Node| {
                    matches!(node.kind, NodeKind::Prim(ops::SIGMOID, _))
                        && node.inputs.first() == Some(logits)
                };
                let is_sigmoid = plan.nodes.iter().any(is_sigmoid);
                let experts = plan.spec(*logits).width().ok()? as usize;
                let (scope, logits) = (scope.to_owned(), *logits);
                return Some(Self { scope, logits, chosen, experts, is_sigmoid });
            }
            node.inputs.iter().for_each(|val| reads[val.index()] = true);
        }
        None
    }

    /// Makes logits and choices of `routers` outputs, behind those that the plan has.
    pub(super) fn tell(plan: &mut Plan, routers: &[Self]) {
        for Self { scope, logits, chosen, .. } in routers {
            for (name, val) in [("logits", *logits), ("chosen", *chosen)] {
                plan.outputs.push(Port { name: format!("{scope}router.{name}"), val });
            }
        }
    }

    /// The same routers where their logits and choices are these values.
    pub(super) fn told(routers: &[Self], vals: &[Val]) -> Vec<Self> {
        let pairs = routers.iter().zip(vals.chunks_exact(2));
        pairs
            .map(|(router, pair)| Self { logits: pair[0], chosen: pair[1], ..router.clone() })
            .collect()
    }

    /// The output that holds its load.
    pub(super) fn load(&self) -> String {
        format!("{}router.load", self.scope)
    }

    /// Shares of one over each row, `[tokens, experts]`.
    fn probabilities(&self, g: &mut PlanBuilder) -> Result<Val> {
        if !self.is_sigmoid {
            return g.unary(ops::SOFTMAX, self.logits);
        }
        let scores = g.unary(ops::SIGMOID, self.logits)?;
        let sum = g.sum(scores)?;
        g.one(ops::DIV, &[scores, sum], Attrs::new())
    }
}

/// How many tokens of the last step chose each expert of each router.
#[derive(Debug, Default)]
pub(super) struct Loads {
    routers: Vec<Load>,
    bias_rate: f32,
}

#[derive(Debug)]
struct Load {
    scope: String,
    /// Over the micro-batches so far, and of one.
    counts: [Vec<f32>; 2],
}

impl Loads {
    pub(super) fn new(routing: &Routing, routers: &[Routed]) -> Self {
        let load = |router: &Routed| {
            let counts = [vec![0.0; router.experts], vec![0.0; router.experts]];
            Load { scope: router.scope.clone(), counts }
        };
        let routers = routers.iter().map(load).collect();
        Self { routers, bias_rate: routing.bias_rate as f32 }
    }

    /// Where a micro-batch puts its counts.
    pub(super) fn outputs(&mut self) -> impl Iterator<Item = TensorMut<'_>> {
        self.routers.iter_mut().map(|load| TensorMut::F32(&mut load.counts[1]))
    }

    /// Adds the counts of a micro-batch to those before, or begins with them.
    pub(super) fn add(&mut self, is_first: bool) {
        for Load { counts: [sum, part], .. } in &mut self.routers {
            if is_first {
                sum.fill(0.0);
            }
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += *part);
        }
    }

    /// By the name of the router's weight.
    pub(super) fn by_name(&self) -> impl Iterator<Item = (String, &[f32])> {
        self.routers.iter().map(|load| (format!("{}{WEIGHT}", load.scope), &load.counts[0][..]))
    }

    /// The biases that load steers, before the optimizer has seen them.
    pub(super) fn biases(&self, parameters: &Parameters) -> BTreeMap<String, Vec<f32>> {
        let names = self.routers.iter().map(|load| format!("{}{CORRECTION_BIAS}", load.scope));
        let values = |name: String| Some((parameters.0.get(&name)?.values.clone(), name));
        names.filter_map(values).map(|(values, name)| (name, values)).collect()
    }

    /// Puts `biases`, moved by load, where the optimizer has been.
    pub(super) fn steer(
        &self,
        parameters: &mut Parameters,
        mut biases: BTreeMap<String, Vec<f32>>,
    ) {
        for Load { scope, counts: [sum, _] } in &self.routers {
            let name = format!("{scope}{CORRECTION_BIAS}");
            if let (Some(mut bias), Some(parameter)) =
                (biases.remove(&name), parameters.0.get_mut(&name))
            {
                moe_router::steer(&mut bias, sum, self.bias_rate);
                parameter.values = bias;
            }
        }
    }
}

/// Whether load steers a parameter, and no gradient.
pub(super) fn is_steered(name: &str) -> bool {
    name.ends_with(CORRECTION_BIAS)
}

const WEIGHT: &str = "router.weight";
const BIAS: &str = "router.bias";
