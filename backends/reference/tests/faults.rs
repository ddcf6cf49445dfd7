//! That the contract suite of backends finds mistakes: the oracle with one fault at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use backend_reference::Reference;
use plugin_api::TensorMut;
use plugin_api::kinds::backend::{
    Backend, Bindings, Bucket, DomainDesc, Exe, Fence, Layout, MemoryMap, NodeView, RawRows,
    StreamId, Support, WeightDesc,
};
use plugin_api::prelude::*;
use plugin_api::testing::backend;

/// What is done to the outputs of a run, given its tokens.
type Fault = fn(&mut Bindings<'_>, usize);

/// The oracle, spoilt after each run.
struct Faulty {
    oracle: Reference,
    fault: Fault,
    /// Whether the fault also strikes runs that are refused.
    always: bool,
}

impl Backend for Faulty {
    fn domains(&self) -> Vec<DomainDesc> {
        self.oracle.domains()
    }

    fn support(&self, node: &NodeView<'_>) -> Support {
        self.oracle.support(node)
    }

    fn layout(&self, weight: &WeightDesc, lowering: &Lowering) -> Result<Layout> {
        self.oracle.layout(weight, lowering)
    }

    fn pack(&self, raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()> {
        self.oracle.pack(raw, layout, out)
    }

    fn compile(&self, plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Exe> {
        self.oracle.compile(plan, bucket, memory)
    }

    fn run(&self, exe: &Exe, stream: StreamId, bind: &mut Bindings<'_>) -> Result<Fence> {
        let result = self.oracle.run(exe, stream, bind);
        if result.is_ok() || self.always {
            (self.fault)(bind, bind.sizes.first().copied().unwrap_or(0));
        }
        result
    }
}

fn first(bind: &mut Bindings<'_>, edit: impl FnOnce(&mut [f32])) {
    if let Some(TensorMut::F32(y)) = bind.outputs.first_mut() {
        edit(y);
    }
}

fn off_by_a_thousandth(bind: &mut Bindings<'_>, _tokens: usize) {
    first(bind, |y| y.iter_mut().take(1).for_each(|y| *y = *y * 1.001 + 1e-3));
}

fn last_row_forgotten(bind: &mut Bindings<'_>, tokens: usize) {
    first(bind, |y| {
        let start = y.len() - y.len() / tokens.max(1);
        y[start..].fill(-7777.0);
    });
}

fn other_bit_in_17_rows(bind: &mut Bindings<'_>, tokens: usize) {
    if tokens == 17 {
        first(bind, |y| y.iter_mut().take(1).for_each(|y| *y = f32::from_bits(y.to_bits() ^ 1)));
    }
}

fn wrong_in_257_rows(bind: &mut Bindings<'_>, tokens: usize) {
    if tokens == 257 {
        first(bind, |y| y.iter_mut().skip(200).take(1).for_each(|y| *y += 1.0));
    }
}

#[test]
fn the_suite_finds_each_fault() {
    let faults: [(&str, Fault, bool); 5] = [
        ("a number off by a thousandth", off_by_a_thousandth, false),
        ("the last row forgotten", last_row_forgotten, false),
        ("a bit that depends on the number of rows", other_bit_in_17_rows, false),
        ("only wrong with 257 rows", wrong_in_257_rows, false),
        ("outputs written by a refused run", |b, _| first(b, |y| y.fill(0.0)), true),
    ];
    for (name, fault, always) in faults {
        let oracle = Reference::from_config(&Config::new()).unwrap();
        let faulty = Faulty { oracle, fault, always };
        let passed = catch_unwind(AssertUnwindSafe(|| backend::suite(&faulty))).is_ok();
        assert!(!passed, "the suite does not find: {name}");
    }
}
