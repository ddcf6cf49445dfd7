//! The op sink of the engine: resolves weights, scopes and slots while plugins describe a model.

use std::collections::BTreeMap;
use std::sync::Arc;

use jackfield_runtime::Label;
use plugin_api::plan::{
    Attrs, OpId, OpSink, OpSinkExt, Plan, PlanBuilder, Spec, StateSpec, Val, ops,
};
use plugin_api::{Config, Encoder, Error, LayerRef, Result, Traced, plan::Dim};

use super::callback::Callback;
use super::hyperparameters::Architecture;

/// The traced plugins of a model, by slot.
pub type TracedParts = BTreeMap<String, Arc<TracedPart>>;

/// A plugin that describes one kind of part.
pub struct TracedPart {
    /// Which load of which plugin.
    pub label: Label,
    /// The plugin.
    pub instance: Box<dyn Traced>,
}

/// Shapes of the weights that a model has, by our names.
pub trait WeightShapes {
    /// Extents of a weight, outermost first.
    fn dims(&self, name: &str) -> Option<&[u64]>;
}

/// Describes one step of a decoder: token ids in, logits of the asked-for tokens out.
///
/// # Errors
///
/// What the plugins return; [`Error::MissingWeight`] and [`Error::ShapeMismatch`] for models that
/// are not what their architecture says.
pub fn trace_decoder(
    architecture: &Architecture,
    parts: &TracedParts,
    weights: &dyn WeightShapes,
) -> Result<Plan> {
    let mut g = Tracer::new(architecture.layer(0)?, parts, weights);
    let ids = g.input("token_ids", Spec::u32([Dim::TOKENS]))?;
    let table = g.weight("embed_tokens.weight")?;
    let mut x = g.embed(table, ids)?;
    let scales = ["none", "sqrt_hidden_size"];
    if architecture.config.one_of("embedding_scale", &scales)? == "sqrt_hidden_size" {
        let width = g.spec(x).width()?;
        x = g.scale(x, (width as f64).sqrt())?;
    }
    for index in 0..architecture.num_layers() {
        g.enter_layer(index, architecture.layer(index)?);
        x = trace_layer(&mut g, architecture, index, x)?;
    }
    g.enter_layer(0, architecture.config.clone());
    let rows = g.input("logit_rows", Spec::u32([Dim::LOGIT_ROWS]))?;
    let last = g.gather(x, rows)?;
    let last = g.slot_one("norm", "norm", &[last])?;
    let head = if g.has_weight("lm_head.weight") { g.weight("lm_head.weight")? } else { table };
    let mut logits = g.matmul(last, head)?;
    let cap = architecture.config.number_or("final_logit_softcapping", 0.0, 0.0..=1e6)?;
    if cap > 0.0 {
        let scaled = g.scale(logits, 1.0 / cap)?;
        let squashed = g.unary(ops::TANH, scaled)?;
        logits = g.scale(squashed, cap)?;
    }
    g.output("logits", logits)?;
    Ok(g.builder.finish())
}

/// Describes one step of an encoder: token ids in, a vector for each sequence out.
///
/// # Errors
///
/// What the plugin returns; [`Error::ShapeMismatch`] for more results than one.
pub fn trace_encoder(
    encoder: &dyn Encoder,
    config: Config,
    weights: &dyn WeightShapes,
) -> Result<Plan> {
    let parts = TracedParts::new();
    let mut g = Tracer::new(config, &parts, weights);
    let ids = g.input("token_ids", Spec::u32([Dim::TOKENS]))?;
    let layer = Arc::clone(&g.layer);
    let at = LayerRef { index: 0, config: &layer };
    match encoder.trace(&mut g, &[ids], &at)?[..] {
        [vectors] => g.output("vectors", vectors)?,
        ref other => return Err(Error::shape("encoder", "one result", other.len())),
    }
    Ok(g.builder.finish())
}

fn trace_layer(
    g: &mut Tracer<'_>,
    architecture: &Architecture,
    index: u32,
    mut x: Val,
) -> Result<Val> {
    let layer = format!("layers.{index}");
    for sub in &architecture.blueprint.sublayers {
        let mut branch = x;
        if let Some(norm) = &sub.pre_norm {
            branch = g.slot_one("norm", &format!("{layer}.{norm}"), &[branch])?;
        }
        branch = g.slot_one(&sub.slot, &format!("{layer}.{}", sub.scope), &[branch])?;
        if let Some(norm) = &sub.post_norm {
            branch = g.slot_one("norm", &format!("{layer}.{norm}"), &[branch])?;
        }
        x = g.slot_one("residual", &layer, &[x, branch])?;
    }
    Ok(x)
}

/// A [`PlanBuilder`] that knows the model around it.
struct Tracer<'a> {
    builder: PlanBuilder,
    parts: &'a TracedParts,
    weights: &'a dyn WeightShapes,
    /// Prefix of weight and state names, with a dot at its end unless empty.
    scope: String,
    /// Whose part is being described.
    slot: Option<&'a str>,
    index: u32,
    layer: Arc<Config>,
}

impl<'a> Tracer<'a> {
    fn new(layer: Config, parts: &'a TracedParts, weights: &'a dyn WeightShapes) -> Self {
        let (builder, scope) = (PlanBuilder::new(), String::new());
        Self { builder, parts, weights, scope, slot: None, index: 0, layer: Arc::new(layer) }
    }

    fn enter_layer(&mut self, index: u32, config: Config) {
        (self.index, self.layer) = (index, Arc::new(config));
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.scope)
    }
}

impl OpSink for Tracer<'_> {
    fn input(&mut self, name: &str, spec: Spec) -> Result<Val> {
        self.builder.input(name, spec)
    }

    fn weight(&mut self, name: &str) -> Result<Val> {
        let name = self.full_name(name);
        let Some(dims) = self.weights.dims(&name) else {
            return Err(Error::MissingWeight { name });
        };
        let dims: Vec<Dim> = dims.iter().map(|&n| Dim::Fixed(n)).collect();
        self.builder.declare_weight(&name, Spec::f32(dims))
    }

    fn has_weight(&self, name: &str) -> bool {
        self.weights.dims(&self.full_name(name)).is_some()
    }

    fn state(&mut self, spec: StateSpec) -> Result<Val> {
        let name = self.full_name(&spec.name);
        self.builder.state(StateSpec { name, ..spec })
    }

    fn op(&mut self, op: OpId, inputs: &[Val], attrs: Attrs) -> Result<Vec<Val>> {
        self.builder.op(op, inputs, attrs)
    }

    fn fused(&mut self, op: OpId, inputs: &[Val], attrs: Attrs, whole: Plan) -> Result<Vec<Val>> {
        self.builder.fused(op, inputs, attrs, whole)
    }

    fn slot(&mut self, slot: &str, scope: &str, inputs: &[Val]) -> Result<Vec<Val>> {
        let parts = self.parts;
        let Some((slot, part)) = parts.get_key_value(slot) else {
            let known = parts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let (kind, name) = ("slot".to_owned(), slot.to_owned());
            return Err(Error::NotFound { kind, name, known });
        };
        let outer = self.scope.len();
        if !scope.is_empty() {
            self.scope.push_str(scope);
            self.scope.push('.');
        }
        let layer = Arc::clone(&self.layer);
        let at = LayerRef { index: self.index, config: &layer };
        let around = self.slot.replace(slot);
        let results = part.instance.trace(self, inputs, &at);
        self.slot = around;
        self.scope.truncate(outer);
        results
    }

    fn call(&mut self, callback: &str, inputs: &[Val], outputs: &[Spec]) -> Result<Vec<Val>> {
        let Some((slot, part)) = self.slot.and_then(|slot| self.parts.get_key_value(slot)) else {
            let missing = "only parts of a decoder are called";
            return Err(Error::unsupported(format!("callback `{callback}`"), missing));
        };
        let callback = Callback::text(slot, callback, &part.instance.semantic_id())?;
        self.builder.call(&callback, inputs, outputs)
    }

    fn output(&mut self, name: &str, val: Val) -> Result<()> {
        self.builder.output(name, val)
    }

    fn spec(&self, val: Val) -> &Spec {
        self.builder.spec(val)
    }
}
