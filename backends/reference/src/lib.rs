//! The oracle: runs a plan one op at a time with the plainest kernels.
//!
//! Source: the plan vocabulary, `plugin_api::plan::ops`; nothing here is fast.

use plugin_api::TensorMut;
use plugin_api::kinds::backend::{
    Backend, BindingCheck, Bindings, Bucket, DomainDesc, DomainId, Exe, Fence, Layout, LayoutId,
    MemoryMap, NodeView, RawForm, RawRows, RawValues, StreamId, Support, WeightDesc,
};
use plugin_api::plan::NodeKind;
use plugin_api::prelude::*;
use plugin_api::testing::interpreter::{self, Args, Arithmetic, FusedAs, Numbers, StateArena};

/// Runs plans by interpreting them.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// What ops compute in: `F32` or `F64`.
    dtype: DType,
}

impl Capability for Reference {
    const NAME: &'static str = "reference";

    fn from_config(config: &Config) -> Result<Self> {
        let dtype = match config.one_of("dtype", &["f32", "f64"])? {
            "f64" => DType::F64,
            _ => DType::F32,
        };
        Ok(Self { dtype })
    }
}

impl Backend for Reference {
    fn domains(&self) -> Vec<DomainDesc> {
        vec![DomainDesc { id: DomainId::HOST, name: "host".to_owned(), size_bytes: None }]
    }

    fn support(&self, node: &NodeView<'_>) -> Support {
        match &node.node.kind {
            NodeKind::Prim(op, _) if ops::ALL.contains(op) => Support::Native,
            NodeKind::Prim(op, _) => Support::No(format!("op `{op}` is not in the vocabulary")),
            NodeKind::Fused { .. } => Support::Expand,
            NodeKind::Call { .. } => Support::No("calls of plugins are not interpreted".to_owned()),
        }
    }

    fn layout(&self, weight: &WeightDesc, _lowering: &Lowering) -> Result<Layout> {
        let block_bytes = weight.cols.checked_mul(size_of::<f32>()).filter(|&bytes| bytes > 0);
        let block_bytes = block_bytes
            .ok_or_else(|| Error::shape(&weight.name, "rows of a size in bytes", weight.cols))?;
        let id = LayoutId("dense f32".to_owned());
        Ok(Layout { id, row_block: 1, block_bytes, wants: RawForm::Floats })
    }

    fn pack(&self, raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()> {
        let RawValues::Floats(values) = raw.values else {
            return Err(Error::shape(&raw.desc.name, "decoded numbers", "codes"));
        };
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let is_fit = raw.rows.checked_mul(raw.desc.cols) == Some(values.len())
            && layout.size_bytes(raw.rows) == bytes.len();
        if !is_fit || out.len() != bytes.len() {
            let expected = format!("{} rows of {}", raw.rows, raw.desc.cols);
            let found = format!("{} numbers into {} bytes", values.len(), out.len());
            return Err(Error::shape(&raw.desc.name, expected, found));
        }
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn compile(&self, plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Exe> {
        for node in &plan.nodes {
            if let Support::No(missing) = self.support(&NodeView { plan, node }) {
                return Err(Error::unsupported(format!("node {:?}", node.kind), missing));
            }
        }
        for place in &memory.weights {
            if place.layout != self.layout(&place.desc, &place.lowering)? {
                let (name, layout) = (&place.desc.name, &place.layout.id.0);
                return Err(Error::unsupported(format!("{name} as {layout}"), "only dense f32"));
            }
        }
        let check = BindingCheck::new(plan, bucket, memory, 0)?;
        Ok(Exe::new(0, Code { plan: plan.clone(), memory: memory.clone(), check }))
    }

    fn run(&self, exe: &Exe, _stream: StreamId, bind: &mut Bindings<'_>) -> Result<Fence> {
        let code: &Code = exe.code()?;
        code.check.check(bind)?;
        match self.dtype {
            DType::F64 => code.run::<f64>(bind)?,
            _ => code.run::<f32>(bind)?,
        }
        Ok(Fence::Done)
    }
}

/// A "compiled" plan.
struct Code {
    plan: Plan,
    memory: MemoryMap,
    check: BindingCheck,
}

impl Code {
    fn run<T: Arithmetic>(&self, bind: &mut Bindings<'_>) -> Result<()> {
        let mut weights: Vec<&[f32]> = Vec::with_capacity(bind.weights.len());
        for (buf, place) in bind.weights.iter().zip(&self.memory.weights) {
            let bytes = buf.host_bytes();
            let bytes = bytes.ok_or_else(|| Error::unsupported("weight", "memory of a device"))?;
            let bytes = &bytes[..place.layout.size_bytes(place.desc.rows)];
            let floats = bytemuck::try_cast_slice(bytes);
            weights.push(floats.map_err(|e| Error::shape("weight", "aligned memory", e))?);
        }
        let (sizes, inputs) = (bind.sizes, bind.inputs);
        let args = Args { sizes, inputs, weights: &weights, fused: FusedAs::Expansion };
        let block_size = self.memory.block_size;
        let mut arena = StateArena { bytes: bind.state, places: &self.memory.states, block_size };
        let results = interpreter::run::<T>(&self.plan, args, &mut arena)?;
        for (output, result) in bind.outputs.iter_mut().zip(results) {
            write(output, &result);
        }
        Ok(())
    }
}

/// Both have passed the check: equal in kind and length.
fn write<T: Arithmetic>(output: &mut TensorMut<'_>, result: &Numbers<T>) {
    match (output, result) {
        (TensorMut::F32(out), Numbers::Reals(x)) => {
            out.iter_mut().zip(x).for_each(|(out, x)| *out = x.to_f64() as f32);
        }
        (TensorMut::F64(out), Numbers::Reals(x)) => {
            out.iter_mut().zip(x).for_each(|(out, x)| *out = x.to_f64());
        }
        (TensorMut::U32(out), Numbers::Indices(x)) => out.copy_from_slice(x),
        _ => {}
    }
}

export_plugin!(Reference);

#[cfg(test)]
mod tests {
    use plugin_api::testing::backend;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        backend::suite(&Reference::from_config(&Config::new()).unwrap());
    }

    #[test]
    fn passes_it_in_double_precision() {
        backend::suite(&Reference::from_config(&Config::new().with("dtype", "f64")).unwrap());
    }

    #[test]
    fn takes_two_dtypes_only() {
        let error = Reference::from_config(&Config::new().with("dtype", "f16")).unwrap_err();
        assert_eq!(error.to_string(), "dtype: expected one of f32, f64, found \"f16\"");
    }
}
