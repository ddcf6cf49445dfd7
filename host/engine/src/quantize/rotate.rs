//! Channels turned before weights are chosen: what writes them and what reads them change together, so that the model says
//! the same.
//!
//! Which weights those are is found in the plan. Gains of norms move into what reads them first: a norm without
//! gains is the same in turned channels.

use std::collections::BTreeSet;

use plugin_api::kinds::compressor::Channels;
use plugin_api::plan::{Node, NodeKind, Plan, Val, ops};
use plugin_api::{Compressor, Error};

use crate::error::EngineError;
use crate::model::Architecture;
use crate::train::Parameters;

/// What writes and reads the stream of a model, and the values of its attention.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Turned {
    /// Tables that the stream begins with, `[_, hidden_size]`.
    tables: Vec<String>,
    /// Norms, with the weights that read what they give: `[_, hidden_size]`.
    norms: Vec<(String, Vec<String>)>,
    /// Weights whose products are added to the stream, `[hidden_size, _]`.
    writers: Vec<String>,
    /// What is added with them, `[hidden_size]`.
    biases: Vec<String>,
    /// Of each attention: what makes its values `[heads · head_dim, _]`, what is added to them, what reads them, and
    /// `head_dim`.
    values: Vec<(String, Option<String>, String, usize)>,
}

impl Turned {
    /// Finds them in a plan whose weights are inputs.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] that names what else touches the stream.
    pub(super) fn find(plan: &Plan, parameters: &Parameters) -> plugin_api::Result<Self> {
        let mut search =
            Search { plan, parameters, stream: BTreeSet::new(), found: Self::default() };
        for node in &plan.nodes {
            search.visit(node)?;
        }
        for val in plan.outputs.iter().map(|port| port.val) {
            if search.stream.contains(&val) {
                return Err(search.odd("the stream as a result"));
            }
        }
        search.values();
        Ok(search.found)
    }

    /// Turns all channels that `by` turns. Names of the weights that changed come back.
    ///
    /// # Errors
    ///
    /// What `by` says, and [`Error::ShapeMismatch`] for weights that do not fit each other.
    pub(super) fn apply(
        &self,
        by: &mut dyn Compressor,
        parameters: &mut Parameters,
    ) -> plugin_api::Result<BTreeSet<String>> {
        let mut changed = BTreeSet::new();
        if self.turn_stream(by, parameters)? {
            for (norm, readers) in &self.norms {
                changed.insert(norm.clone());
                changed.extend(readers.iter().cloned());
            }
            let written = self.tables.iter().chain(&self.writers).chain(&self.biases);
            changed.extend(written.cloned());
        }
        for (writer, bias, reader, width) in &self.values {
            let mut turned = Weights { by: &mut *by, parameters, channels: Channels::Value };
            if !turned.rows(reader, *width)? {
                break;
            }
            turned.cols(writer, *width)?;
            if let Some(bias) = bias {
                turned.rows(bias, *width)?;
            }
            changed.extend([writer, reader].into_iter().chain(bias).cloned());
        }
        Ok(changed)
    }

    fn turn_stream(
        &self,
        by: &mut dyn Compressor,
        parameters: &mut Parameters,
    ) -> plugin_api::Result<bool> {
        let table = self.tables.first().and_then(|name| parameters.0.get(name));
        let width = table.and_then(|table| table.dims.last()).map_or(0, |&n| n as usize);
        if !by.rotate(Channels::Stream, width, &mut [])? {
            return Ok(false);
        }
        for (norm, readers) in &self.norms {
            let gains = match parameters.0.get_mut(norm) {
                Some(norm) => std::mem::replace(&mut norm.values, vec![1.0; width]),
                None => continue,
            };
            for name in readers {
                let Some(reader) = parameters.0.get_mut(name) else { continue };
                for row in reader.values.chunks_exact_mut(width.max(1)) {
                    row.iter_mut().zip(&gains).for_each(|(x, gain)| *x *= gain);
                }
            }
        }
        let mut turned = Weights { by, parameters, channels: Channels::Stream };
        let readers = self.norms.iter().flat_map(|(_, readers)| readers);
        for name in self.tables.iter().chain(readers).chain(&self.biases) {
            turned.rows(name, width)?;
        }
        for name in &self.writers {
            turned.cols(name, width)?;
        }
        Ok(true)
    }
}

/// Whether a compressor turns the stream of a model.
///
/// # Errors
///
/// What it says.
pub(super) fn turns_stream(
    by: &mut dyn Compressor,
    architecture: &Architecture,
) -> Result<bool, EngineError> {
    let width = architecture.config.count("hidden_size", 1..=1 << 20);
    let turned = width.and_then(|width| by.rotate(Channels::Stream, width as usize, &mut []));
    turned.map_err(EngineError::plugin("compressor"))
}

/// Weights and what turns them.
struct Weights<'a> {
    by: &'a mut dyn Compressor,
    parameters: &'a mut Parameters,
    channels: Channels,
}

impl Weights<'_> {
    /// Turns each `width` elements of the rows of a weight; whether that is done at all.
    fn rows(&mut self, name: &str, width: usize) -> plugin_api::Result<bool> {
        let Some(weight) = self.parameters.0.get_mut(name) else { return Ok(false) };
        if width == 0 || !weight.dims.last().is_some_and(|&n| (n as usize).is_multiple_of(width)) {
            return Err(Error::shape(
                name,
                format!("rows of {width}"),
                format!("{:?}", weight.dims),
            ));
        }
        self.by.rotate(self.channels, width, &mut weight.values)
    }

    /// Turns each `width` elements of its columns.
    fn cols(&mut self, name: &str, width: usize) -> plugin_api::Result<bool> {
        let Some(weight) = self.parameters.0.get_mut(name) else { return Ok(false) };
        let [rows, cols] = [0, 1].map(|axis| weight.dims.get(axis).map_or(1, |&n| n as usize));
        if width == 0 || !rows.is_multiple_of(width) || weight.dims.len() != 2 {
            return Err(Error::shape(
                name,
                format!("columns of {width}"),
                format!("{:?}", weight.dims),
            ));
        }
        let mut turned = transposed(&weight.values, [rows, cols]);
        let is_done = self.by.rotate(self.channels, width, &mut turned)?;
        weight.values = transposed(&turned, [cols, rows]);
        Ok(is_done)
    }
}

fn transposed(x: &[f32], [rows, cols]: [usize; 2]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for (i, row) in x.chunks_exact(cols.max(1)).enumerate() {
        for (j, x) in row.iter().enumerate() {
            out[j * rows + i] = *x;
        }
    }
    out
}

/// A walk through a plan, along the stream.
struct Search<'a> {
    plan: &'a Plan,
    parameters: &'a Parameters,
    /// Values whose rows are the stream.
    stream: BTreeSet<Val>,
    found: Turned,
}

impl Search<'_> {
    fn visit(&mut self, node: &Node) -> plugin_api::Result<()> {
        let is_stream = |val: &&Val| self.stream.contains(val);
        let op = match &node.kind {
            NodeKind::Prim(op, _) | NodeKind::Fused { op, .. } => op.to_string(),
            NodeKind::Call { callback } => format!("call `{callback}`"),
        };
        let (inputs, num_stream) = (&node.inputs[..], node.inputs.iter().filter(is_stream).count());
        match (&*op, inputs) {
            ("embed", &[table, _]) => {
                let table =
                    self.weight(table).ok_or_else(|| self.odd("a table that is no weight"))?;
                self.found.tables.push(table);
                self.stream.extend(&node.outputs);
            }
            _ if num_stream == 0 => {}
            ("scale" | "reshape", _) => self.stream.extend(&node.outputs),
            ("gather", &[x, _]) if self.stream.contains(&x) => self.stream.extend(&node.outputs),
            ("add", &[x, y]) => {
                let added = if self.stream.contains(&x) { y } else { x };
                if !self.stream.contains(&added) {
                    self.writer(added)?;
                }
                self.stream.extend(&node.outputs);
            }
            ("rms_norm", &[x, weight]) if self.stream.contains(&x) => self.norm(node, weight)?,
            _ => return Err(self.odd(&format!("`{op}`"))),
        }
        Ok(())
    }

    /// A norm of the stream, and the products that read it.
    fn norm(&mut self, node: &Node, weight: Val) -> plugin_api::Result<()> {
        let NodeKind::Fused { attrs, .. } = &node.kind else { return Ok(()) };
        let name = self.weight(weight).ok_or_else(|| self.odd("a norm without a weight"))?;
        if attrs.get_float("weight_offset")? != 0.0 || self.num_readers(weight) != 1 {
            return Err(self.odd(&format!("a norm with an offset, or used twice, `{name}`")));
        }
        let Some(&normed) = node.outputs.first() else { return Ok(()) };
        let mut readers = Vec::new();
        for reader in self.plan.nodes.iter().filter(|reader| reader.inputs.contains(&normed)) {
            let (NodeKind::Prim(ops::MATMUL, _), &[x, w]) = (&reader.kind, &reader.inputs[..])
            else {
                return Err(self.odd(&format!("something else than products after `{name}`")));
            };
            let weight = self.weight(w).filter(|_| x == normed && self.num_readers(w) == 1);
            let weight = weight.ok_or_else(|| {
                self.odd(&format!("a product after `{name}` whose weight is no matrix of its own"))
            })?;
            readers.push(weight);
        }
        self.found.norms.push((name, readers));
        Ok(())
    }

    /// What is added to the stream: the product with a weight, and a bias.
    fn writer(&mut self, added: Val) -> plugin_api::Result<()> {
        let (product, bias) = self.without_bias(added);
        let weight = self.product(product).filter(|_| self.num_readers(added) == 1);
        let Some((_, weight)) = weight else {
            return Err(self.odd("something else than a product that is added to it"));
        };
        self.found.writers.push(weight);
        self.found.biases.extend(bias);
        Ok(())
    }

    /// Values that nothing sees between the product that makes them and the one after attention.
    fn values(&mut self) {
        for node in &self.plan.nodes {
            let (NodeKind::Prim(ops::ATTEND_WITHIN, _), &[_, _, v, _]) =
                (&node.kind, &node.inputs[..])
            else {
                continue;
            };
            if let Some(found) = self.value(node, v) {
                self.found.values.push(found);
            }
        }
    }

    fn value(&self, attend: &Node, v: Val) -> Option<(String, Option<String>, String, usize)> {
        let width = self.plan.spec(v).width().ok()? as usize;
        let rows = self.alone(ops::RESHAPE, v)?;
        let (product, bias) = self.without_bias(rows);
        let (_, writer) = self.product(product).filter(|_| self.num_readers(product) == 1)?;
        let mixed = *attend.outputs.first()?;
        let flat = self.plan.nodes.iter().find(|node| {
            matches!(node.kind, NodeKind::Prim(ops::RESHAPE, _)) && node.inputs.contains(&mixed)
        })?;
        let flat = *flat.outputs.first()?;
        let reader = self.plan.nodes.iter().find(|node| node.inputs.contains(&flat))?;
        let (_, reader) = self.product(*reader.outputs.first()?)?;
        let is_alone = [mixed, flat].into_iter().all(|val| self.num_readers(val) == 1);
        is_alone.then_some((writer, bias, reader, width))
    }

    /// The input of the node that makes a value, if that is such a one and nobody else reads what it makes.
    fn alone(&self, op: ops::OpId, val: Val) -> Option<Val> {
        let node = self.maker(val).filter(|_| self.num_readers(val) == 1)?;
        let is_such = matches!(node.kind, NodeKind::Prim(found, _) if found == op);
        node.inputs.first().filter(|_| is_such).copied()
    }

    /// A value before a bias was added, and the bias.
    fn without_bias(&self, val: Val) -> (Val, Option<String>) {
        let found = self.maker(val).and_then(|node| {
            let (NodeKind::Prim(ops::ADD, _), &[x, bias]) = (&node.kind, &node.inputs[..]) else {
                return None;
            };
            Some((x, Some(self.weight(bias)?)))
        });
        found.unwrap_or((val, None))
    }

    /// Input and weight of a product, if the weight is used for nothing else.
    fn product(&self, val: Val) -> Option<(Val, String)> {
        let node = self.maker(val)?;
        let (NodeKind::Prim(ops::MATMUL, _), &[x, w]) = (&node.kind, &node.inputs[..]) else {
            return None;
        };
        Some((x, self.weight(w).filter(|_| self.num_readers(w) == 1)?))
    }

    fn weight(&self, val: Val) -> Option<String> {
        let port = self.plan.inputs.iter().find(|port| port.val == val)?;
        self.parameters.0.contains_key(&port.name).then(|| port.name.clone())
    }

    fn maker(&self, val: Val) -> Option<&Node> {
        self.plan.nodes.iter().find(|node| node.outputs.contains(&val))
    }

    fn num_readers(&self, val: Val) -> usize {
        let inputs = self.plan.nodes.iter().flat_map(|node| &node.inputs);
        inputs.filter(|other| **other == val).count()
    }

    fn odd(&self, found: &str) -> Error {
        let missing = format!("a model whose stream meets norms and products only, not {found}");
        Error::unsupported("turned channels", missing)
    }
}
