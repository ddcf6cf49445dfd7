//! Traced kinds as components of the world `traced-plugin`. Mixers and rotary embeddings export more
//! than that, in files of their own.

use std::cell::RefCell;

use super::offers::jackfield::plugin::graph::{Graph, Val as WireVal};
use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::sink::Sink;
use super::{Plugin, config, make, place, with};
use crate::kinds::adapter::Adapter;
use crate::kinds::encoder::Encoder;
use crate::kinds::feed_forward::FeedForward;
use crate::kinds::lr_schedule::LrSchedule;
use crate::kinds::moe_router::MoeRouter;
use crate::kinds::norm::Norm;
use crate::kinds::objective::Objective;
use crate::kinds::optimizer::Optimizer;
use crate::kinds::residual::Residual;
use crate::kinds::{Kind, LayerRef, Traced};
use crate::plan::Val;
use crate::tensor::{Shaped, ShapedMut, TensorMut, TensorRef};
use bindings::exports::jackfield::plugin::traced as wit;

super::world!("traced-plugin",
    "jackfield:plugin/graph@0.0.0" => graph,
);

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn Traced>>> = const { RefCell::new(None) };
}

/// A traced kind, with the place where its instance lies.
pub trait TracedKind: Kind {
    /// Puts the instance in its place, once.
    fn keep(instance: Box<Self>) -> Result<(), WireError>;

    /// Calls `act` with the instance.
    fn look<R>(act: impl FnOnce(&dyn Traced) -> R) -> R;
}

macro_rules! plainly_traced {
    ($($kind:ident),*) => {
        $(impl TracedKind for dyn $kind {
            fn keep(instance: Box<Self>) -> Result<(), WireError> {
                place(&INSTANCE, instance)
            }

            fn look<R>(act: impl FnOnce(&dyn Traced) -> R) -> R {
                with(&INSTANCE, |instance| act(instance))
            }
        })*
    };
}
plainly_traced!(
    Norm,
    Residual,
    FeedForward,
    MoeRouter,
    Encoder,
    Objective,
    Optimizer,
    LrSchedule,
    Adapter
);

impl<P: Plugin<Kind: TracedKind>> wit::Guest for P {
    fn create(settings: &Settings) -> Result<(), WireError> {
        P::Kind::keep(make::<P>(settings)?)
    }

    fn semantic_id() -> String {
        P::Kind::look(|instance| instance.semantic_id().0)
    }

    fn trace(
        graph: &Graph,
        x: Vec<WireVal>,
        layer: u32,
        settings: &Settings,
    ) -> Result<Vec<WireVal>, WireError> {
        P::Kind::look(|instance| trace(instance, graph, &x, layer, settings))
    }

    fn call(
        callback: String,
        inputs: Vec<wit::Tensor>,
        outputs: Vec<wit::Form>,
    ) -> Result<Vec<wit::Elements>, WireError> {
        P::Kind::look(|instance| Ok(call(instance, &callback, &inputs, &outputs)?))
    }
}

/// Calls `part` with tensors that arrived; what it writes goes back.
fn call(
    part: &dyn Traced,
    callback: &str,
    inputs: &[wit::Tensor],
    outputs: &[wit::Form],
) -> crate::error::Result<Vec<wit::Elements>> {
    let extents = |dims: &[u64]| dims.iter().map(|&n| n as usize).collect::<Vec<_>>();
    let ins: Vec<_> = inputs.iter().map(|tensor| extents(&tensor.dims)).collect();
    let outs: Vec<_> = outputs.iter().map(|form| extents(&form.dims)).collect();
    let ins = inputs.iter().zip(&ins).map(|(tensor, dims)| Shaped {
        dims,
        values: match &tensor.values {
            wit::Elements::Floats(x) => TensorRef::F32(x),
            wit::Elements::Indices(x) => TensorRef::U32(x),
        },
    });
    let ins: Vec<Shaped<'_>> = ins.collect();
    let mut made: Vec<wit::Elements> = outputs
        .iter()
        .zip(&outs)
        .map(|(form, dims)| match (form.is_index, dims.iter().product()) {
            (true, len) => wit::Elements::Indices(vec![0; len]),
            (false, len) => wit::Elements::Floats(vec![0.0; len]),
        })
        .collect();
    let lent = made.iter_mut().zip(&outs).map(|(elements, dims)| ShapedMut {
        dims,
        values: match elements {
            wit::Elements::Floats(x) => TensorMut::F32(x),
            wit::Elements::Indices(x) => TensorMut::U32(x),
        },
    });
    part.call(callback, &ins, &mut lent.collect::<Vec<_>>())?;
    Ok(made)
}

/// Traces `part` into the host's graph.
fn trace(
    part: &dyn Traced,
    graph: &Graph,
    x: &[WireVal],
    layer: u32,
    settings: &Settings,
) -> Result<Vec<WireVal>, WireError> {
    at_layer(layer, settings, |at| {
        let mut sink = Sink::new(graph, x)?;
        let x: Vec<Val> = x.iter().copied().map(Val).collect();
        Ok(part.trace(&mut sink, &x, at)?.into_iter().map(|val| val.0).collect())
    })
}

/// Calls `act` with the layer whose hyperparameters lie behind `settings`.
pub(super) fn at_layer<R>(
    index: u32,
    settings: &Settings,
    act: impl FnOnce(&LayerRef<'_>) -> Result<R, WireError>,
) -> Result<R, WireError> {
    let copy = config::copied(settings);
    let result = act(&LayerRef { index, config: &copy });
    config::mark_read(&copy, settings);
    result
}
