//! Everything that a run reads, by name: for tests.

use std::collections::BTreeMap;

use super::{Args, Arithmetic, FusedAs, Numbers, OwnedArena, run};
use crate::error::{Error, Result};
use crate::plan::{Dim, Plan, Port, Symbol};
use crate::tensor::{DType, TensorRef};

/// Sizes, inputs and weights by name.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    sizes: BTreeMap<Symbol, usize>,
    reals: BTreeMap<String, Vec<f32>>,
    doubles: BTreeMap<String, Vec<f64>>,
    indices: BTreeMap<String, Vec<u32>>,
}

impl Feed {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The size of a symbol; nothing happens for a fixed extent.
    #[must_use]
    pub fn size(mut self, dim: Dim, size: usize) -> Self {
        if let Dim::Symbol(symbol) = dim {
            self.sizes.insert(symbol, size);
        }
        self
    }

    /// A float input or a weight.
    #[must_use]
    pub fn reals(mut self, name: &str, values: &[f32]) -> Self {
        self.reals.insert(name.to_owned(), values.to_vec());
        self
    }

    /// A float input of double precision, in the place of one by [`reals`](Self::reals).
    #[must_use]
    pub fn doubles(mut self, name: &str, values: &[f64]) -> Self {
        self.doubles.insert(name.to_owned(), values.to_vec());
        self
    }

    /// What a float input or weight was given.
    pub fn values_of(&self, name: &str) -> Option<Vec<f64>> {
        let reals = || self.reals.get(name).map(|x| x.iter().map(|&x| f64::from(x)).collect());
        self.doubles.get(name).cloned().or_else(reals)
    }

    /// What an input of indices was given.
    pub fn indices_of(&self, name: &str) -> Option<&[u32]> {
        self.indices.get(name).map(Vec::as_slice)
    }

    /// An input of indices.
    #[must_use]
    pub fn indices(mut self, name: &str, values: &[u32]) -> Self {
        self.indices.insert(name.to_owned(), values.to_vec());
        self
    }

    /// The same with every input of `tokens` rows cut to `count` of them from `start` on.
    #[must_use]
    pub fn rows(&self, plan: &Plan, start: usize, count: usize) -> Self {
        let Dim::Symbol(tokens) = Dim::TOKENS else { return self.clone() };
        let tokens = self.size_of(tokens);
        let mut feed = self.clone().size(Dim::TOKENS, count);
        for port in &plan.inputs {
            if plan.spec(port.val).dims.first() == Some(&Dim::TOKENS) {
                if let Some(x) = feed.reals.get_mut(&port.name) {
                    cut(x, tokens, start, count);
                }
                if let Some(x) = feed.indices.get_mut(&port.name) {
                    cut(x, tokens, start, count);
                }
            }
        }
        feed
    }

    /// What [`size`](Self::size) was given, or 1.
    pub fn size_of(&self, symbol: Symbol) -> usize {
        self.sizes.get(&symbol).copied().unwrap_or(1)
    }

    /// The sizes in the order of the plan's symbols.
    pub fn sizes_of(&self, plan: &Plan) -> Vec<usize> {
        plan.symbols().into_iter().map(|symbol| self.size_of(symbol)).collect()
    }

    /// The inputs in the order of the plan.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for an input that was not given.
    pub fn inputs_of(&self, plan: &Plan) -> Result<Vec<TensorRef<'_>>> {
        let tensor = |Port { name, .. }: &Port| {
            let doubles = self.doubles.get(name).map(|x| TensorRef::F64(x));
            let reals = || self.reals.get(name).map(|x| TensorRef::F32(x));
            let indices = || self.indices.get(name).map(|x| TensorRef::U32(x));
            doubles.or_else(reals).or_else(indices).ok_or_else(|| missing("input", name))
        };
        plan.inputs.iter().map(tensor).collect()
    }

    /// The weights in the order of the plan.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for a weight that was not given.
    pub fn weights_of(&self, plan: &Plan) -> Result<Vec<&[f32]>> {
        let weight = |port: &Port| {
            let weight = self.reals.get(&port.name).map(Vec::as_slice);
            weight.ok_or_else(|| missing("weight", &port.name))
        };
        plan.weights.iter().map(weight).collect()
    }

    /// Runs a plan that keeps nothing, and returns its outputs in order.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub fn run<T: Arithmetic>(&self, plan: &Plan, fused: FusedAs) -> Result<Vec<Numbers<T>>> {
        self.run_with(plan, fused, &mut OwnedArena::new(plan, 0, 16, DType::F32))
    }

    /// Runs a plan over a state, and returns its outputs in order.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub fn run_with<T: Arithmetic>(
        &self,
        plan: &Plan,
        fused: FusedAs,
        state: &mut OwnedArena,
    ) -> Result<Vec<Numbers<T>>> {
        let (sizes, inputs) = (self.sizes_of(plan), self.inputs_of(plan)?);
        let weights = self.weights_of(plan)?;
        let args = Args { sizes: &sizes, inputs: &inputs, weights: &weights, fused };
        run(plan, args, &mut state.arena())
    }
}

fn cut<E>(x: &mut Vec<E>, tokens: usize, start: usize, count: usize) {
    let width = x.len() / tokens.max(1);
    x.truncate((start + count) * width);
    x.drain(..start * width);
}

fn missing(kind: &str, name: &str) -> Error {
    Error::NotFound { kind: kind.to_owned(), name: name.to_owned(), known: String::new() }
}
