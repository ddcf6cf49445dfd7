//! What all traced kinds do: a guest describes its part into a lent sink.

use std::sync::Arc;

use plugin_api::kinds::{LayerRef, SemanticId, Traced};
use plugin_api::plan::{OpSink, Val};
use plugin_api::{Config, DType, Error, Result, Shaped, ShapedMut, TensorMut, TensorRef};
use wasmtime::Store;

use super::bindings::traced::exports::jackfield::plugin::traced::{self as wit, Guest};
use super::graph;
use super::instance::{Instance, Plugin, Shared};
use super::state::State;

/// The exports of a traced kind.
pub(super) trait TracedWorld: Send + Sync + 'static {
    /// The interface `traced`.
    fn traced(&self) -> &Guest;
}

/// A traced part whose description lies in a guest.
pub(super) struct WasmTraced<W> {
    pub(super) shared: Shared<W>,
    semantic_id: SemanticId,
}

impl<W: TracedWorld> WasmTraced<W> {
    pub(super) fn create(
        plugin: &Arc<Plugin>,
        config: &Config,
        instantiate: impl Fn(&mut Store<State>) -> wasmtime::Result<W> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (plugin, config) = (Arc::clone(plugin), config.clone());
        let shared = Shared::new(move || {
            Instance::create(&plugin, &instantiate, &config, |world: &W, store, config| {
                world.traced().call_create(store, config)
            })
        })?;
        let id = shared.with(|instance| {
            instance.call(|world, store| world.traced().call_semantic_id(store).map(Ok))
        })?;
        Ok(Self { shared, semantic_id: SemanticId(id) })
    }
}

impl<W: TracedWorld> Traced for WasmTraced<W> {
    fn semantic_id(&self) -> SemanticId {
        self.semantic_id.clone()
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let given: Vec<u32> = x.iter().map(|val| val.0).collect();
        let (made, known) = self.shared.with(|instance| {
            instance.call_sink(g, x, at.config, |world, store, config| {
                let guest = world.traced();
                let graph = graph::handle();
                let made = guest.call_trace(&mut *store, graph, &given, at.index, config)?;
                Ok(made.map(|made| (made, store.data().known())))
            })
        })?;
        let made: Vec<Val> = made.into_iter().map(Val).collect();
        match made.iter().find(|val| !known.contains(val)) {
            Some(strange) => Err(Error::malformed("trace", "values of this trace", strange.0)),
            None => Ok(made),
        }
    }

    fn call(
        &self,
        callback: &str,
        inputs: &[Shaped<'_>],
        outputs: &mut [ShapedMut<'_>],
    ) -> Result<()> {
        let ins = inputs.iter().map(tensor).collect::<Result<Vec<_>>>()?;
        let outs: Vec<wit::Form> = outputs.iter().map(form).collect();
        self.shared.with(|instance| {
            let made = instance.call(|world, store| {
                world.traced().call_call(&mut *store, callback, &ins, &outs)
            })?;
            let expected = format!("{} tensors of the sizes asked for", outputs.len());
            let is_fit = made.len() == outputs.len()
                && made.iter().zip(&mut *outputs).all(|(made, to)| write(made, &mut to.values));
            if is_fit {
                return Ok(());
            }
            instance.refuse(&format!("callback `{callback}`"), &expected, "others")
        })
    }
}

fn extents(dims: &[usize]) -> Vec<u64> {
    dims.iter().map(|&n| n as u64).collect()
}

fn tensor(input: &Shaped<'_>) -> Result<wit::Tensor> {
    let values = match input.values {
        TensorRef::F32(x) => wit::Elements::Floats(x.to_vec()),
        TensorRef::U32(x) => wit::Elements::Indices(x.to_vec()),
        TensorRef::F64(_) => return Err(Error::unsupported("callback", "values of f64 cross")),
    };
    Ok(wit::Tensor { dims: extents(input.dims), values })
}

fn form(output: &ShapedMut<'_>) -> wit::Form {
    wit::Form { dims: extents(output.dims), is_index: output.values.dtype() == DType::U32 }
}

/// Writes what a guest made to where it belongs, if it is as much and of the same type.
fn write(made: &wit::Elements, to: &mut TensorMut<'_>) -> bool {
    match (made, to) {
        (wit::Elements::Floats(x), TensorMut::F32(to)) if x.len() == to.len() => {
            to.copy_from_slice(x);
            true
        }
        (wit::Elements::Indices(x), TensorMut::U32(to)) if x.len() == to.len() => {
            to.copy_from_slice(x);
            true
        }
        _ => false,
    }
}
