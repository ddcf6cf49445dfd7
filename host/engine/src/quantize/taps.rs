//! Which products of a model read the same input, and whether what makes that input can be divided by numbers.

use plugin_api::plan::{Node, NodeKind, OpId, Plan, Val, ops};

use crate::train::Parameters;

/// Products of a layer that read one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tap {
    pub(super) layer: usize,
    pub(super) input: Val,
    /// Names of the weights, in the order of the plan.
    pub(super) weights: Vec<String>,
    /// What makes the input, where dividing it costs nothing.
    pub(super) source: Option<Source>,
}

/// What makes an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The weight of a norm, one number a channel.
    Norm(String),
    /// A weight with a row for each channel.
    Rows(String),
}

/// Finds the products of all layers in a plan whose weights are inputs, in the order that they are computed in.
pub(super) fn find(plan: &Plan, parameters: &Parameters) -> Vec<Tap> {
    let view = View { plan, parameters };
    let mut taps: Vec<Tap> = Vec::new();
    for node in &plan.nodes {
        let Some((input, weight)) = view.product(node) else { continue };
        let layer = weight.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
        let Some(layer) = layer.and_then(|(layer, _)| layer.parse().ok()) else { continue };
        match taps.iter_mut().find(|tap| tap.input == input) {
            Some(tap) => tap.weights.push(weight.to_owned()),
            None => {
                taps.push(Tap { layer, input, weights: vec![weight.to_owned()], source: None });
            }
        }
    }
    for tap in &mut taps {
        tap.source = view.source(tap);
    }
    taps
}

/// The results of all products with matrices, each under the name of its matrix.
pub(super) fn products(plan: &Plan, parameters: &Parameters) -> Vec<(String, Val)> {
    let view = View { plan, parameters };
    let products = plan.nodes.iter().filter_map(|node| {
        let (_, weight) = view.product(node)?;
        Some((weight.to_owned(), *node.outputs.first()?))
    });
    products.collect()
}

struct View<'a> {
    plan: &'a Plan,
    parameters: &'a Parameters,
}

impl<'a> View<'a> {
    /// Input and weight of a product with a matrix.
    fn product(&self, node: &Node) -> Option<(Val, &'a str)> {
        let (NodeKind::Prim(ops::MATMUL, _), &[input, weight]) = (&node.kind, &node.inputs[..])
        else {
            return None;
        };
        Some((input, self.weight(weight)?))
    }

    /// The name of the parameter that a value is.
    fn weight(&self, val: Val) -> Option<&'a str> {
        let port = self.plan.inputs.iter().find(|port| port.val == val)?;
        self.parameters.0.contains_key(&port.name).then_some(port.name.as_str())
    }

    fn maker(&self, val: Val) -> Option<&'a Node> {
        self.plan.nodes.iter().find(|node| node.outputs.contains(&val))
    }

    /// How many arguments a value is.
    fn readers(&self, val: Val) -> usize {
        let inputs = self.plan.nodes.iter().flat_map(|node| &node.inputs);
        let outputs = self.plan.outputs.iter().map(|port| &port.val);
        inputs.chain(outputs).filter(|other| **other == val).count()
    }

    /// A weight whose product is nothing but this value, which one node reads.
    fn rows(&self, val: Val) -> Option<&'a str> {
        let node = self.maker(val).filter(|_| self.readers(val) == 1)?;
        match node.kind {
            NodeKind::Prim(ops::RESHAPE, _) => self.rows(*node.inputs.first()?),
            _ => Some(self.product(node)?.1),
        }
    }

    fn source(&self, tap: &Tap) -> Option<Source> {
        if self.readers(tap.input) != tap.weights.len() {
            return None;
        }
        let channels = *self.parameters.0.get(tap.weights.first()?)?.dims.last()?;
        let node = self.maker(tap.input)?;
        if let NodeKind::Fused { op: ops::RMS_NORM, attrs, .. } = &node.kind {
            let weight = *node.inputs.get(1)?;
            let is_plain = attrs.get_float("weight_offset").is_ok_and(|offset| offset == 0.0);
            let is_plain = is_plain && self.readers(weight) == 1;
            return self.weight(weight).filter(|_| is_plain).map(|n| Source::Norm(n.to_owned()));
        }
        let made_of = match &node.kind {
            // The second is multiplied with the curved first.
            NodeKind::Fused { op, .. } if GATED.contains(op) => *node.inputs.get(1)?,
            NodeKind::Prim(ops::RESHAPE, _) => {
                let attend = self.maker(*node.inputs.first()?)?;
                let NodeKind::Prim(ops::ATTEND_WITHIN, _) = attend.kind else { return None };
                *attend.inputs.get(2)?
            }
            _ => return None,
        };
        let name = self.rows(made_of)?;
        // Heads that share a value would need one number for all of them.
        let has_all = self.parameters.0.get(name)?.dims.first() == Some(&channels);
        has_all.then(|| Source::Rows(name.to_owned()))
    }
}

const GATED: [OpId; 2] = [ops::SWIGLU, ops::GEGLU];
