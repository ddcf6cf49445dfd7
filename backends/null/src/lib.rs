//! Computes nothing and counts everything: what the host costs without a model.
//!
//! Source: none needed; logits name the token after the position, so that a sequence counts up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::kinds::backend::{
    Backend, BindingCheck, Bindings, Bucket, DomainDesc, DomainId, Exe, Fence, Layout, LayoutId,
    MemoryMap, NodeView, RawForm, RawRows, StreamId, Support, WeightDesc,
};
use plugin_api::prelude::*;
use plugin_api::{TensorMut, TensorRef};

/// Accepts every plan and writes zeros and predictable logits.
#[derive(Debug, Default)]
pub struct Null {
    counters: Arc<Counters>,
}

/// How often a [`Null`] did what.
#[derive(Debug, Default)]
pub struct Counters {
    /// Plans compiled.
    pub plans: AtomicU64,
    /// Runs.
    pub runs: AtomicU64,
    /// Tokens over all runs.
    pub tokens: AtomicU64,
    /// Bytes of packed weights.
    pub packed_bytes: AtomicU64,
}

impl Null {
    /// A backend that adds to `counters`, which the caller keeps a handle on.
    pub fn counting(counters: Arc<Counters>) -> Self {
        Self { counters }
    }

    /// What it counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Capability for Null {
    const NAME: &'static str = "null";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self::default())
    }
}

impl Backend for Null {
    fn domains(&self) -> Vec<DomainDesc> {
        vec![DomainDesc { id: DomainId::HOST, name: "host".to_owned(), size_bytes: None }]
    }

    fn support(&self, _node: &NodeView<'_>) -> Support {
        Support::Skip
    }

    fn layout(&self, _weight: &WeightDesc, _lowering: &Lowering) -> Result<Layout> {
        let id = LayoutId("null".to_owned());
        Ok(Layout { id, row_block: 1, block_bytes: 1, wants: RawForm::Floats })
    }

    fn pack(&self, raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()> {
        let expected = layout.size_bytes(raw.rows);
        if out.len() != expected {
            return Err(Error::shape(&raw.desc.name, format!("{expected} bytes"), out.len()));
        }
        out.fill(0);
        self.counters.packed_bytes.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn compile(&self, plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Exe> {
        for place in &memory.weights {
            if place.layout != self.layout(&place.desc, &place.lowering)? {
                let (name, layout) = (&place.desc.name, &place.layout.id.0);
                return Err(Error::unsupported(format!("{name} as {layout}"), "only null"));
            }
        }
        let check = BindingCheck::new(plan, bucket, memory, 0)?;
        let Dim::Symbol(tokens) = Dim::TOKENS else {
            return Err(Error::malformed("plan", "a symbol for tokens", "a number"));
        };
        let output = |port: &plugin_api::plan::Port| {
            let of_input = plan.inputs.iter().position(|input| input.val == port.val);
            let of_logits = logits_width(plan.spec(port.val)).map(Output::Logits);
            of_input.map(Output::Input).or(of_logits).unwrap_or(Output::Zeros)
        };
        let outputs = plan.outputs.iter().map(output).collect();
        let rows =
            |port: &plugin_api::plan::Port| *plan.spec(port.val) == Spec::u32([Dim::LOGIT_ROWS]);
        self.counters.plans.fetch_add(1, Ordering::Relaxed);
        let code = Code {
            tokens: plan.symbols().iter().position(|symbol| *symbol == tokens),
            positions: plan.input_index("positions"),
            rows: plan.inputs.iter().position(rows),
            outputs,
            check,
        };
        Ok(Exe::new(0, code))
    }

    fn run(&self, exe: &Exe, _stream: StreamId, bind: &mut Bindings<'_>) -> Result<Fence> {
        let code: &Code = exe.code()?;
        code.check.check(bind)?;
        let tokens = code.tokens.map_or(0, |i| bind.sizes[i]);
        self.counters.runs.fetch_add(1, Ordering::Relaxed);
        self.counters.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        let inputs = bind.inputs;
        for (output, what) in bind.outputs.iter_mut().zip(&code.outputs) {
            match (output, what) {
                (output, Output::Input(i)) => copy(&inputs[*i], output),
                (TensorMut::F32(out), Output::Logits(width)) => {
                    out.fill(0.0);
                    for (row, out) in out.chunks_exact_mut(*width).enumerate() {
                        out[(code.position(inputs, row) + 1) % width] = 1.0;
                    }
                }
                (TensorMut::F32(out), Output::Zeros) => out.fill(0.0),
                (TensorMut::F64(out), _) => out.fill(0.0),
                (TensorMut::U32(out), _) => out.fill(0),
            }
        }
        Ok(Fence::Done)
    }
}

/// What a run has to know of its plan.
struct Code {
    /// Index of the symbol `tokens`.
    tokens: Option<usize>,
    /// Index of the input `positions`.
    positions: Option<usize>,
    /// Index of the input that chooses the rows of the logits.
    rows: Option<usize>,
    outputs: Vec<Output>,
    check: BindingCheck,
}

/// What an output is given.
enum Output {
    /// The input with this index, which it is.
    Input(usize),
    /// A 1 in each row, of this width.
    Logits(usize),
    /// Nothing.
    Zeros,
}

/// Both have the dtype and length of the plan's value.
fn copy(input: &TensorRef<'_>, output: &mut TensorMut<'_>) {
    match (input, output) {
        (TensorRef::F32(x), TensorMut::F32(y)) => y.copy_from_slice(x),
        (TensorRef::F64(x), TensorMut::F64(y)) => y.copy_from_slice(x),
        (TensorRef::U32(x), TensorMut::U32(y)) => y.copy_from_slice(x),
        _ => {}
    }
}

impl Code {
    /// The position of the token behind row `row` of the logits; the row itself if unknown.
    fn position(&self, inputs: &[TensorRef<'_>], row: usize) -> usize {
        let at = |input: Option<usize>, i: usize| {
            let indices = inputs[input?].u32s().ok()?;
            indices.get(i).map(|&x| x as usize)
        };
        let token = at(self.rows, row).unwrap_or(row);
        at(self.positions, token).unwrap_or(row)
    }
}

fn logits_width(spec: &Spec) -> Option<usize> {
    match spec.dims[..] {
        [Dim::LOGIT_ROWS, Dim::Fixed(width @ 1..)] => usize::try_from(width).ok(),
        _ => None,
    }
}

export_plugin!(Null);

#[cfg(test)]
mod tests {
    use plugin_api::plan::PlanBuilder;
    use plugin_api::testing::backend;

    use super::*;

    const VOCAB: usize = 5;

    #[test]
    fn passes_the_contract_suite() {
        backend::suite(&Null::default());
    }

    /// `positions [tokens]`, `rows [logit_rows]` to `logits [logit_rows, VOCAB]`.
    fn plan() -> Plan {
        let mut b = PlanBuilder::new();
        let positions = b.input("positions", Spec::u32([Dim::TOKENS])).unwrap();
        let rows = b.input("rows", Spec::u32([Dim::LOGIT_ROWS])).unwrap();
        let x = b.cast(positions, DType::F32).unwrap();
        let x = b.reshape(x, &[-1, 1]).unwrap();
        let x = b.concat(&[x; VOCAB], 1).unwrap();
        let logits = b.gather(x, rows).unwrap();
        b.output("logits", logits).unwrap();
        b.finish()
    }

    #[test]
    fn counts_up_from_the_position_of_each_row() {
        let counters = Arc::new(Counters::default());
        let null = Null::counting(Arc::clone(&counters));
        let (Dim::Symbol(tokens), Dim::Symbol(rows)) = (Dim::TOKENS, Dim::LOGIT_ROWS) else {
            panic!("both are symbols");
        };
        let bucket = Bucket { sizes: vec![(tokens, 4), (rows, 4)] };
        let exe = null.compile(&plan(), &bucket, &MemoryMap::default()).unwrap();
        let mut logits = [7.0; 2 * VOCAB];
        let fence = null.run(
            &exe,
            StreamId(0),
            &mut Bindings {
                sizes: &[3, 2],
                inputs: &[TensorRef::U32(&[10, 11, 3]), TensorRef::U32(&[1, 2])],
                weights: &[],
                state: &mut [],
                scratch: &mut [],
                outputs: &mut [TensorMut::F32(&mut logits)],
            },
        );
        assert_eq!(fence, Ok(Fence::Done));
        // Position 11 names token 12 % 5 = 2, position 3 names token 4.
        assert_eq!(logits, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((count(&counters.plans), count(&counters.runs)), (1, 1));
        assert_eq!((count(&counters.tokens), count(&counters.packed_bytes)), (3, 0));
    }
}
