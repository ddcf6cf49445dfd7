//! My plugin: a place that compiles every plan and answers with zeros, to start a backend from.
//!
//! Source: none needed. What it lacks is numbers: `backends/reference` shows them, one op at a time.
//! Until it has them, `jackfield plugin check` finds that it breaks the contract.

use plugin_api::TensorMut;
use plugin_api::kinds::backend::{
    Backend, BindingCheck, Bindings, Bucket, DomainDesc, DomainId, Exe, Fence, Layout, LayoutId,
    MemoryMap, NodeView, RawForm, RawRows, StreamId, Support, WeightDesc,
};
use plugin_api::prelude::*;

/// Computes nothing yet.
#[derive(Debug)]
pub struct MyPlugin;

impl Capability for MyPlugin {
    const NAME: &'static str = "my-plugin";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Backend for MyPlugin {
    fn domains(&self) -> Vec<DomainDesc> {
        vec![DomainDesc { id: DomainId::HOST, name: "host".to_owned(), size_bytes: None }]
    }

    fn support(&self, _node: &NodeView<'_>) -> Support {
        // Answer `Support::No` with a reason, or `Support::Expand`, for what you do not compute.
        Support::Native
    }

    fn layout(&self, _weight: &WeightDesc, _lowering: &Lowering) -> Result<Layout> {
        // Equal ids mean that packed bytes may be adopted by another generation.
        let id = LayoutId("my-plugin/1".to_owned());
        Ok(Layout { id, row_block: 1, block_bytes: 1, wants: RawForm::Floats })
    }

    fn pack(&self, raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()> {
        let expected = layout.size_bytes(raw.rows);
        if out.len() != expected {
            return Err(Error::shape(&raw.desc.name, format!("{expected} bytes"), out.len()));
        }
        out.fill(0);
        Ok(())
    }

    fn compile(&self, plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Exe> {
        for place in &memory.weights {
            if place.layout != self.layout(&place.desc, &place.lowering)? {
                let (name, layout) = (&place.desc.name, &place.layout.id.0);
                return Err(Error::unsupported(format!("{name} as {layout}"), "only my own"));
            }
        }
        Ok(Exe::new(0, BindingCheck::new(plan, bucket, memory, 0)?))
    }

    fn run(&self, exe: &Exe, _stream: StreamId, bind: &mut Bindings<'_>) -> Result<Fence> {
        let check: &BindingCheck = exe.code()?;
        check.check(bind)?;
        for output in bind.outputs.iter_mut() {
            match output {
                TensorMut::F32(out) => out.fill(0.0),
                TensorMut::F64(out) => out.fill(0.0),
                TensorMut::U32(out) => out.fill(0),
            }
        }
        Ok(Fence::Done)
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_wrong_bindings() {
        // The part of the suite that is not about numbers; with numbers: `backend::suite`.
        plugin_api::testing::backend::bindings(&MyPlugin);
    }
}
