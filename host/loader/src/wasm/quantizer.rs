//! Quantizers: blocks and numbers cross in pieces, so that a guest's memory stays small and every
//! call has a deadline that does not depend on the size of a weight.

use std::sync::Arc;

use plugin_api::kinds::SemanticId;
use plugin_api::kinds::quantizer::{
    AffineMut, Calibration, FormatDesc, Lowering, Quantizer, Scales,
};
use plugin_api::{Error, Provided, Result};
use wasmtime::component::InstancePre;

use super::bindings::quantizer::exports::jackfield::plugin::quantizer as wit;
use super::bindings::quantizer::{QuantizerPlugin, QuantizerPluginPre};
use super::capability;
use super::instance::{Instance, Plugin, Shared};
use super::state::State;

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let linked = QuantizerPluginPre::new(linked)?;
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn Quantizer>(plugin, move |config| {
        let (plugin, linked, config) = (Arc::clone(&theirs), linked.clone(), config.clone());
        let shared = Shared::new(move || {
            Instance::create(
                &plugin,
                |store| linked.instantiate(store),
                &config,
                |world, store, config| {
                    world.jackfield_plugin_quantizer().call_create(store, config)
                },
            )
        })?;
        let (format, lowering) = shared.with(describe)?;
        Ok(Box::new(WasmQuantizer { shared, format, lowering }))
    }))
}

/// Asks once for what never changes, and refuses sizes that nothing could be computed with.
fn describe(instance: &mut Instance<QuantizerPlugin>) -> Result<(FormatDesc, Lowering)> {
    let (format, lowering) = instance.call(|world, store| {
        let guest = world.jackfield_plugin_quantizer();
        Ok(Ok((guest.call_format(&mut *store)?, guest.call_lowering(&mut *store)?)))
    })?;
    let format = FormatDesc {
        name: format.name.into(),
        block_len: format.block_len as usize,
        block_bytes: format.block_bytes as usize,
        semantic_id: SemanticId(format.semantic_id),
    };
    if format.block_len == 0 || format.block_bytes == 0 {
        return instance.refuse("format", "blocks that hold something", "empty blocks");
    }
    let lowering = lowering_of(lowering);
    if let Lowering::Affine { group, .. } | Lowering::Table { group, .. } = lowering
        && (group == 0 || !format.block_len.is_multiple_of(group))
    {
        let expected = format!("groups that fill a block of {}", format.block_len);
        return instance.refuse("lowering", &expected, &format!("groups of {group}"));
    }
    if let Lowering::Affine { group, scales: Scales::Product { groups }, .. } = lowering
        && (groups == 0 || !(format.block_len / group).is_multiple_of(groups))
    {
        let expected = format!("runs that fill a block of {} groups", format.block_len / group);
        return instance.refuse("lowering", &expected, &format!("runs of {groups}"));
    }
    Ok((format, lowering))
}

fn lowering_of(lowering: wit::Arithmetic) -> Lowering {
    match lowering {
        wit::Arithmetic::Affine(it) => Lowering::Affine {
            bits: it.bits,
            group: it.group as usize,
            zero_point: it.zero_point,
            has_min: it.has_min,
            scales: match it.scales {
                wit::Scales::Wide => Scales::F32,
                wit::Scales::Half => Scales::F16,
                wit::Scales::Product(groups) => Scales::Product { groups: groups as usize },
            },
        },
        wit::Arithmetic::Lookup(it) => {
            Lowering::Table { bits: it.bits, table: it.entries, group: it.group as usize }
        }
        wit::Arithmetic::MiniFloat(it) => {
            Lowering::MiniFloat { exponent: it.exponent, mantissa: it.mantissa }
        }
        wit::Arithmetic::Opaque => Lowering::Opaque,
    }
}

struct WasmQuantizer {
    shared: Shared<QuantizerPlugin>,
    format: FormatDesc,
    lowering: Lowering,
}

impl WasmQuantizer {
    /// Blocks that cross at a time.
    fn piece(&self) -> usize {
        (PIECE_ELEMENTS / self.format.block_len).max(1)
    }
}

impl Quantizer for WasmQuantizer {
    fn format(&self) -> FormatDesc {
        self.format.clone()
    }

    fn lowering(&self) -> Lowering {
        self.lowering.clone()
    }

    fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        self.format.check(blocks.len(), out.len())?;
        let (bytes, elements) =
            (self.piece() * self.format.block_bytes, self.piece() * self.format.block_len);
        self.shared.with(|instance| {
            for (blocks, out) in blocks.chunks(bytes).zip(out.chunks_mut(elements)) {
                let numbers = instance.call(|world, store| {
                    world.jackfield_plugin_quantizer().call_decode(store, blocks)
                })?;
                copy(instance, "decode", &numbers, out)?;
            }
            Ok(())
        })
    }

    fn encode(
        &self,
        rows: &[f32],
        calibration: Option<&Calibration<'_>>,
        out: &mut [u8],
    ) -> Result<()> {
        self.format.check(out.len(), rows.len())?;
        let (bytes, elements) =
            (self.piece() * self.format.block_bytes, self.piece() * self.format.block_len);
        if let Some(calibration) = calibration {
            calibration.importance(0, self.format.block_len)?;
        }
        self.shared.with(|instance| {
            let pieces = rows.chunks(elements).zip(out.chunks_mut(bytes));
            for (i, (numbers, out)) in pieces.enumerate() {
                let importance = calibration.map(|it| importance(it, i * elements, numbers.len()));
                let blocks = instance.call(|world, store| {
                    let guest = world.jackfield_plugin_quantizer();
                    guest.call_encode(store, numbers, importance.as_deref())
                })?;
                copy(instance, "encode", &blocks, out)?;
            }
            Ok(())
        })
    }

    fn unpack(&self, blocks: &[u8], out: &mut AffineMut<'_>) -> Result<()> {
        out.check(&self.format, &self.lowering, blocks.len())?;
        let Lowering::Affine { group, .. } = self.lowering else {
            return Err(Error::unsupported(&self.format.name, "its lowering is not affine"));
        };
        let (bytes, elements) =
            (self.piece() * self.format.block_bytes, self.piece() * self.format.block_len);
        let (mut code, mut min) = (0, 0);
        self.shared.with(|instance| {
            for blocks in blocks.chunks(bytes) {
                let unpacked = instance.call(|world, store| {
                    world.jackfield_plugin_quantizer().call_unpack(store, blocks)
                })?;
                let len = elements.min(out.codes.len() - code);
                let groups = code / group..(code + len) / group;
                let mins = if out.mins.is_empty() { 0 } else { groups.len() };
                copy(instance, "unpack", &unpacked.codes, &mut out.codes[code..][..len])?;
                copy(instance, "unpack", &unpacked.scales, &mut out.scales[groups])?;
                copy(instance, "unpack", &unpacked.mins, &mut out.mins[min..][..mins])?;
                (code, min) = (code + len, min + mins);
            }
            Ok(())
        })
    }
}

/// The importance of `len` numbers from number `start` on, of rows one after the other.
fn importance(calibration: &Calibration<'_>, start: usize, len: usize) -> Vec<f32> {
    let cols = calibration.mean_square.len();
    calibration.mean_square.iter().copied().cycle().skip(start % cols).take(len).collect()
}

fn copy<T: Copy>(
    instance: &mut Instance<QuantizerPlugin>,
    what: &str,
    from: &[T],
    to: &mut [T],
) -> Result<()> {
    if from.len() != to.len() {
        let expected = format!("{} values", to.len());
        return instance.refuse(what, &expected, &format!("{} values", from.len()));
    }
    to.copy_from_slice(from);
    Ok(())
}

/// Elements that cross at a time: 1 MiB of `f32`.
const PIECE_ELEMENTS: usize = 1 << 18;
