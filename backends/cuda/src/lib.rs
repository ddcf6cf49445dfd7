//! Runs plans on an NVIDIA device, op by op, with the kernels of `kernels/cuda`.
//!
//! It builds and loads anywhere; where driver, compiler or device are missing, opening it says so.
//! Inputs and outputs are memory of the host and copied in every run; weights are copied once.

#![allow(unsafe_code, reason = "weights at addresses that the host names, in weights.rs")]

mod compile;
mod layout;
mod op;
mod problem;
mod run;
mod size;
mod step;
mod support;
#[cfg(test)]
mod tests;
mod weights;

use std::sync::Arc;

use kernels_cuda::{Device, Queue};
use plugin_api::kinds::backend::{
    Backend, Bindings, Bucket, DomainDesc, DomainId, Exe, Fence, Layout, MemoryMap, NodeView,
    RawRows, StreamId, Support, WeightDesc,
};
use plugin_api::prelude::*;

use crate::problem::Problem;
use crate::run::Program;
use crate::weights::Uploads;

/// Runs plans on one device.
#[derive(Debug)]
pub struct Cuda {
    domain: DomainDesc,
    /// By [`StreamId`].
    queues: Vec<Queue>,
    uploads: Arc<Uploads>,
}

impl Capability for Cuda {
    const NAME: &'static str = "cuda";

    fn from_config(config: &Config) -> Result<Self> {
        let ordinal = config.count_or("device", 0, 0..=DEVICES_MAX)? as u32;
        let streams = config.count_or("streams", 1, 1..=STREAMS_MAX)?;
        Self::open(ordinal, streams).map_err(Error::from)
    }
}

impl Cuda {
    fn open(ordinal: u32, streams: u64) -> Result<Self, Problem> {
        let device = Device::open(ordinal as usize)?;
        let queues = (0..streams).map(|_| Queue::new(&device)).collect::<Result<_, _>>()?;
        let domain = DomainDesc {
            id: DomainId(DomainId::HOST.0 + 1 + ordinal),
            name: format!("cuda:{ordinal}"),
            size_bytes: Some(device.size_bytes()),
        };
        let uploads = Arc::new(Uploads::new(&device, domain.id));
        Ok(Self { domain, queues, uploads })
    }

    fn queue(&self, stream: u64) -> Option<&Queue> {
        self.queues.get(usize::try_from(stream).ok()?)
    }
}

impl Backend for Cuda {
    fn domains(&self) -> Vec<DomainDesc> {
        // What a run is given lies on the host, so that is what to allocate.
        let host = DomainDesc { id: DomainId::HOST, name: "host".to_owned(), size_bytes: None };
        vec![host, self.domain.clone()]
    }

    fn support(&self, node: &NodeView<'_>) -> Support {
        support::support(node)
    }

    fn layout(&self, weight: &WeightDesc, lowering: &Lowering) -> Result<Layout> {
        layout::layout(weight, lowering)
    }

    fn pack(&self, raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()> {
        layout::pack(raw, layout, out)
    }

    fn compile(&self, plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Exe> {
        let code = compile::compile(plan, bucket, memory)?;
        Ok(Exe::new(0, Program::new(code, self.queues.len(), Arc::clone(&self.uploads))))
    }

    fn run(&self, exe: &Exe, stream: StreamId, bind: &mut Bindings<'_>) -> Result<Fence> {
        let program: &Program = exe.code()?;
        let mark = u64::from(stream.0);
        let queue = self.queue(mark).ok_or_else(|| {
            let found = self.queues.len();
            Error::unsupported(format!("stream {mark}"), format!("`streams` is {found}"))
        })?;
        program.run(queue, stream.0 as usize, bind)?;
        Ok(Fence::Pending(mark))
    }

    fn wait(&self, _exe: &Exe, fence: Fence, _bind: &mut Bindings<'_>) -> Result<()> {
        let Fence::Pending(mark) = fence else { return Ok(()) };
        let queue = self.queue(mark);
        let queue = queue.ok_or_else(|| Error::malformed("fence", "one of a run here", mark))?;
        queue.wait().map_err(|fault| Problem::from(fault).into())
    }
}

export_plugin!(Cuda);

/// Highest number of a device.
const DEVICES_MAX: u64 = 63;

/// Most streams.
const STREAMS_MAX: u64 = 16;
