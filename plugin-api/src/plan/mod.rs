//! Plans: what a step computes, described once and run many times.
//!
//! Traced plugins write into an [`OpSink`]; what results is a [`Plan`] over symbolic sizes. A
//! backend compiles it. A plan is the same bytes in every lane, on disk and in golden tests
//! ([`Plan::to_bytes`]), and prints as text ([`std::fmt::Display`]).

mod build;
mod bytes;
pub mod fused;
pub mod gradient;
mod infer;
pub mod ops;
pub mod rewrite;
mod sink;
mod spec;
mod text;

pub use build::PlanBuilder;
pub use gradient::{NoGradient, ParamId, gradient};
pub use ops::{Attr, Attrs, OpId};
pub use sink::{CALL_AXES_MAX, CALL_VALUES_MAX, OpSink, OpSinkExt};
pub use spec::{Dim, Part, Per, Spec, StateSpec, Symbol, Word};

/// One value of a plan: an index into [`Plan::specs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Val(pub u32);

impl Val {
    /// The index into [`Plan::specs`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Ops over named inputs, weights and states, in an order that can be run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Shape and dtype of every value.
    pub specs: Vec<Spec>,
    /// What the step provides, by name.
    pub inputs: Vec<Port>,
    /// What the model provides, by full name. A weight is logically `f32`; its stored format is
    /// the quantizer's affair.
    pub weights: Vec<Port>,
    /// What outlives the step, such as keys and values.
    pub states: Vec<StatePort>,
    /// The ops; inputs of each come from earlier nodes or ports.
    pub nodes: Vec<Node>,
    /// What the step asks for, by name.
    pub outputs: Vec<Port>,
}

/// A value with a name that both sides know.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// `token_ids`, `logits`, `layers.0.mlp.up_proj.weight` …
    pub name: String,
    /// The value behind it.
    pub val: Val,
}

/// A state with the value that stands for it in the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct StatePort {
    /// What has to be kept.
    pub spec: StateSpec,
    /// The value that ops take to read and write it.
    pub val: Val,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What is computed.
    pub kind: NodeKind,
    /// Arguments, in the order the op defines.
    pub inputs: Vec<Val>,
    /// Results.
    pub outputs: Vec<Val>,
}

/// What a node computes.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// An op of the vocabulary ([`ops`]).
    Prim(OpId, Attrs),
    /// An op that may be run whole or as its expansion. The expansion's inputs `0`, `1`, … are
    /// the node's inputs and its outputs are the node's outputs.
    Fused {
        /// The name of the whole.
        op: OpId,
        /// Its attributes.
        attrs: Attrs,
        /// The same computation in smaller ops.
        expansion: Box<Plan>,
    },
    /// A plugin called at run time; the plan is split around it.
    Call {
        /// The callback, as its plugin named it.
        callback: String,
    },
}

impl Plan {
    /// The spec of a value.
    pub fn spec(&self, val: Val) -> &Spec {
        &self.specs[val.index()]
    }

    /// Every symbol that occurs in a shape, in order of first occurrence.
    pub fn symbols(&self) -> Vec<Symbol> {
        let mut symbols = Vec::new();
        for dim in self.specs.iter().flat_map(|spec| &spec.dims) {
            if let Dim::Symbol(symbol) = dim
                && !symbols.contains(symbol)
            {
                symbols.push(*symbol);
            }
        }
        symbols
    }

    /// The index of the input called `name`.
    pub fn input_index(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|port| port.name == name)
    }

    /// The number of nodes, those inside expansions not counted.
    pub fn num_nodes(&self) -> usize {
        self.nodes.len()
    }
}
