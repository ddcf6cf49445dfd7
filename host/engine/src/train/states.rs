//! What optimizers and hooks keep, as safetensors: `owner/name` for each list of numbers.

use std::collections::BTreeMap;

use plugin_api::events::{HookState, Numbers};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::EngineError;

/// What an optimizer keeps, by the names of parameter and state.
pub type States = BTreeMap<String, BTreeMap<String, Vec<f32>>>;

pub(super) fn to_safetensors(states: &States) -> Result<Vec<u8>, EngineError> {
    let lists = states.iter().flat_map(|(parameter, states)| {
        let lists = states.iter();
        lists.map(move |(state, values)| (parameter, state.as_str(), View::F32(values)))
    });
    write(lists)
}

pub(super) fn hooks_to_safetensors(
    hooks: &BTreeMap<String, HookState>,
) -> Result<Vec<u8>, EngineError> {
    let lists = hooks.iter().flat_map(|(plugin, state)| {
        state.iter().map(move |(name, numbers)| {
            let view = match numbers {
                Numbers::F32(numbers) => View::F32(numbers),
                Numbers::F64(numbers) => View::F64(numbers),
            };
            (plugin, name, view)
        })
    });
    write(lists)
}

pub(super) fn from_safetensors(bytes: &[u8]) -> Result<States, EngineError> {
    let mut states = States::new();
    for (parameter, state, numbers) in read(bytes)? {
        let Numbers::F32(values) = numbers else { return Err(wrong(state)) };
        states.entry(parameter).or_default().insert(state, values);
    }
    Ok(states)
}

pub(super) fn hooks_from_safetensors(
    bytes: &[u8],
) -> Result<BTreeMap<String, HookState>, EngineError> {
    let mut hooks = BTreeMap::<String, Vec<(String, Numbers)>>::new();
    for (plugin, name, numbers) in read(bytes)? {
        hooks.entry(plugin).or_default().push((name, numbers));
    }
    Ok(hooks.into_iter().map(|(plugin, lists)| (plugin, lists.into_iter().collect())).collect())
}

/// A list on its way to the file.
enum View<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

fn write<'a>(
    lists: impl Iterator<Item = (&'a String, &'a str, View<'a>)>,
) -> Result<Vec<u8>, EngineError> {
    let views = lists.map(|(owner, name, view)| {
        let (dtype, len, bytes) = match view {
            View::F32(numbers) => (Dtype::F32, numbers.len(), bytemuck::cast_slice(numbers)),
            View::F64(numbers) => (Dtype::F64, numbers.len(), bytemuck::cast_slice(numbers)),
        };
        let view = TensorView::new(dtype, vec![len], bytes);
        view.map(|view| (format!("{owner}/{name}"), view))
    });
    let views: Result<Vec<_>, _> = views.collect();
    let bytes = views.and_then(|views| safetensors::serialize(views, None));
    bytes.map_err(|error| EngineError::inconsistent("states", "what safetensors holds", error))
}

/// Owner, name and numbers of each list.
fn read(bytes: &[u8]) -> Result<Vec<(String, String, Numbers)>, EngineError> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| wrong(error.to_string()))?;
    let lists = file.tensors().into_iter().map(|(name, view)| {
        let numbers = match view.dtype() {
            Dtype::F32 => {
                let (chunks, _) = view.data().as_chunks::<4>();
                Numbers::F32(chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
            }
            Dtype::F64 => {
                let (chunks, _) = view.data().as_chunks::<8>();
                Numbers::F64(chunks.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
            }
            _ => return Err(wrong(name)),
        };
        let Some((owner, list)) = name.split_once('/') else { return Err(wrong(name)) };
        Ok((owner.to_owned(), list.to_owned(), numbers))
    });
    lists.collect()
}

fn wrong(found: String) -> EngineError {
    EngineError::inconsistent("states", "tensors of F32 or F64 named `owner/name`", found)
}
