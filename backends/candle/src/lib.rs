//! Runs plans with candle, op by op: a second real backend, and an oracle for the others.
//!
//! Every result is a tensor that candle allocates; nothing here is tuned. Source: candle-core
//! 0.11.1, <https://github.com/huggingface/candle>.

mod attend;
mod compile;
mod fault;
mod op;
mod run;
mod state;
mod support;
#[cfg(test)]
mod tests;
mod weights;

use plugin_api::kinds::backend::{
    Backend, Bindings, Bucket, DomainDesc, DomainId, Exe, Fence, Layout, MemoryMap, NodeView,
    RawRows, StreamId, Support, WeightDesc,
};
use plugin_api::prelude::*;

/// Runs plans with candle.
#[derive(Debug, Clone, Copy)]
pub struct Candle {
    /// Whether the bits of a row are the same whatever is computed with it.
    has_independent_rows: bool,
}

impl Capability for Candle {
    const NAME: &'static str = "candle";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { has_independent_rows: config.flag_or("independent_rows", true)? })
    }
}

impl Backend for Candle {
    fn domains(&self) -> Vec<DomainDesc> {
        vec![DomainDesc { id: DomainId::HOST, name: "host".to_owned(), size_bytes: None }]
    }

    fn support(&self, node: &NodeView<'_>) -> Support {
        support::support(node)
    }

    fn layout(&self, weight: &WeightDesc, _lowering: &Lowering) -> Result<Layout> {
        weights::layout(weight)
    }

    fn pack(&self, raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()> {
        weights::pack(raw, layout, out)
    }

    fn compile(&self, plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Exe> {
        Ok(Exe::new(0, compile::compile(plan, bucket, memory, self.has_independent_rows)?))
    }

    fn run(&self, exe: &Exe, _stream: StreamId, bind: &mut Bindings<'_>) -> Result<Fence> {
        run::run(exe.code()?, bind)?;
        Ok(Fence::Done)
    }
}

export_plugin!(Candle);
