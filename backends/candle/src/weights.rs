//! Weights: dense rows of `f32` in the host's memory, copied into tensors at the first run.

use std::ptr;
use std::sync::{Arc, OnceLock, Weak};

use candle_core::{Device, Tensor};
use plugin_api::kinds::backend::{
    Buf, Layout, LayoutId, Memory, MemoryMap, RawForm, RawRows, RawValues, WeightDesc,
};
use plugin_api::plan::Plan;
use plugin_api::{Error, Result};

use crate::fault::Fault;

/// How any weight lies: one row after the other.
pub(crate) fn layout(weight: &WeightDesc) -> Result<Layout> {
    let block_bytes = weight.cols.checked_mul(size_of::<f32>()).filter(|&bytes| bytes > 0);
    let block_bytes = block_bytes
        .ok_or_else(|| Error::shape(&weight.name, "rows of a size in bytes", weight.cols))?;
    let id = LayoutId("dense f32".to_owned());
    Ok(Layout { id, row_block: 1, block_bytes, wants: RawForm::Floats })
}

/// Copies decoded rows.
pub(crate) fn pack(raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()> {
    let RawValues::Floats(values) = raw.values else {
        return Err(Error::shape(&raw.desc.name, "decoded numbers", "codes"));
    };
    let size_bytes = size_of_val(values);
    let is_fit = raw.rows.checked_mul(raw.desc.cols) == Some(values.len())
        && layout.size_bytes(raw.rows) == size_bytes;
    if !is_fit || out.len() != size_bytes {
        let expected = format!("{} rows of {}", raw.rows, raw.desc.cols);
        let found = format!("{} numbers into {} bytes", values.len(), out.len());
        return Err(Error::shape(&raw.desc.name, expected, found));
    }
    for (out, x) in out.chunks_exact_mut(size_of::<f32>()).zip(values) {
        out.copy_from_slice(&x.to_ne_bytes());
    }
    Ok(())
}

/// The weights of a plan as tensors.
///
/// Tensors own their memory, so a weight is there twice. They are kept for the buffers of the
/// first run; a run with other buffers wraps those again.
#[derive(Debug)]
pub(crate) struct Weights {
    /// Name and shape of each, in the order of the plan.
    ports: Vec<(String, Vec<usize>)>,
    kept: OnceLock<Vec<Kept>>,
}

struct Kept {
    /// Keeps the address from being given to another buffer, not the buffer itself.
    buf: Weak<dyn Memory>,
    tensor: Tensor,
}

impl Weights {
    /// Of a plan whose memory map has been compared with it.
    pub(crate) fn new(plan: &Plan, memory: &MemoryMap) -> Result<Self> {
        for place in &memory.weights {
            if place.layout != layout(&place.desc)? {
                let (name, layout) = (&place.desc.name, &place.layout.id.0);
                return Err(Error::unsupported(format!("{name} as {layout}"), "only dense f32"));
            }
        }
        let mut ports = Vec::with_capacity(plan.weights.len());
        for port in &plan.weights {
            let spec = plan.spec(port.val);
            let dims = spec.dims.iter().map(|dim| usize::try_from(dim.fixed()?).ok());
            let dims: Option<Vec<usize>> = dims.collect();
            let dims = dims.ok_or_else(|| Error::shape(&port.name, "fixed extents", spec))?;
            ports.push((port.name.clone(), dims));
        }
        Ok(Self { ports, kept: OnceLock::new() })
    }

    /// A tensor for each buffer, in the order of the plan.
    pub(crate) fn tensors(&self, bufs: &[Buf]) -> Result<Vec<Tensor>> {
        if let Some(kept) = self.kept.get() {
            let pairs = kept.iter().zip(bufs).enumerate();
            let tensor = |(i, (kept, buf)): (usize, (&Kept, &Buf))| {
                if ptr::addr_eq(kept.buf.as_ptr(), Arc::as_ptr(buf)) {
                    Ok(kept.tensor.clone())
                } else {
                    self.wrap(i, buf)
                }
            };
            return pairs.map(tensor).collect();
        }
        let tensors = bufs.iter().enumerate().map(|(i, buf)| self.wrap(i, buf));
        let tensors: Vec<Tensor> = tensors.collect::<Result<_>>()?;
        let keep = |(buf, tensor): (&Buf, &Tensor)| Kept {
            buf: Arc::downgrade(buf),
            tensor: tensor.clone(),
        };
        // Another thread that got here first has kept the same.
        let _ = self.kept.set(bufs.iter().zip(&tensors).map(keep).collect());
        Ok(tensors)
    }

    fn wrap(&self, i: usize, buf: &Buf) -> Result<Tensor> {
        let (name, dims) = &self.ports[i];
        let bytes = buf.host_bytes();
        let bytes = bytes.ok_or_else(|| Error::unsupported(name, "memory of a device"))?;
        let size_bytes = dims.iter().product::<usize>() * size_of::<f32>();
        let dtype = candle_core::DType::F32;
        Tensor::from_raw_buffer(&bytes[..size_bytes], dtype, dims, &Device::Cpu)
            .map_err(|error| Fault::from(error).during(name))
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("tensor", self.tensor.shape()).finish_non_exhaustive()
    }
}
