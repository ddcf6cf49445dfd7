//! Backends over the boundary.

use std::sync::Arc;

use plugin_api::kinds::backend::{
    Backend, Bindings, Bucket, Buf, DomainId, Exe, Fence, Layout, Memory, MemoryMap, NodeView,
    RawForm, RawRows, RawValues, StreamId, Support, WeightDesc,
};
use plugin_api::plan::PlanBuilder;
use plugin_api::prelude::*;
use plugin_api::{TensorMut, TensorRef};

use crate::rig::{both, check, import, told};

/// A packed weight.
pub(crate) struct Weight(pub(crate) [u8; 4]);

impl Memory for Weight {
    fn domain(&self) -> DomainId {
        DomainId(3)
    }

    fn host_bytes(&self) -> Option<&[u8]> {
        Some(&self.0)
    }

    fn device_address(&self) -> Option<u64> {
        Some(77)
    }
}

fn plan() -> Plan {
    let mut b = PlanBuilder::new();
    let x = b.input("x", Spec::f32([Dim::TOKENS])).unwrap();
    b.input("ids", Spec::u32([Dim::TOKENS])).unwrap();
    let (y, z) = (b.scale(x, 2.0).unwrap(), b.offset(x, 1.0).unwrap());
    let sum = b.add(y, z).unwrap();
    b.output("y", sum).unwrap();
    b.finish()
}

fn weight() -> WeightDesc {
    WeightDesc { name: "w".to_owned(), format: "Q".to_owned(), rows: 6, cols: 2 }
}

fn memory() -> MemoryMap {
    MemoryMap { block_size: 4, ..MemoryMap::default() }
}

pub(crate) fn compiled(backend: &dyn Backend) -> Result<Exe> {
    let bucket = Bucket { sizes: vec![(plugin_api::plan::Symbol::of("tokens"), 8)] };
    backend.compile(&plan(), &bucket, &memory())
}

/// What the run of `exe` on `stream` over `tokens` tokens wrote.
fn run(backend: &dyn Backend, exe: &Exe, stream: u32, tokens: usize) -> Result<(Vec<f32>, Fence)> {
    bound(stream, tokens, |bind| {
        let fence = backend.run(exe, StreamId(stream), bind)?;
        assert_eq!((bind.state[0], bind.scratch[0]), (5, 9));
        Ok(fence)
    })
}

/// What waiting for `fence` wrote.
fn wait(backend: &dyn Backend, exe: &Exe, fence: Fence) -> Result<(Vec<f32>, ())> {
    bound(0, 3, |bind| backend.wait(exe, fence, bind))
}

/// Calls `body` with everything that is bound for `tokens` tokens; also returns its outputs.
fn bound<T>(
    stream: u32,
    tokens: usize,
    body: impl FnOnce(&mut Bindings<'_>) -> Result<T>,
) -> Result<(Vec<f32>, T)> {
    let x: Vec<f32> = (0..tokens).map(|i| i as f32).collect();
    let ids: Vec<u32> = (0..tokens as u32).map(|i| i * 100).collect();
    let weights: [Buf; 1] = [Arc::new(Weight([stream as u8 + 1, 0, 0, 0]))];
    let (mut out, mut state, mut scratch) = (vec![1.0; tokens], vec![4; 1], vec![0; 64]);
    let mut bind = Bindings {
        sizes: &[tokens],
        inputs: &[TensorRef::F32(&x), TensorRef::U32(&ids)],
        weights: &weights,
        state: &mut state,
        scratch: &mut scratch,
        outputs: &mut [TensorMut::F32(&mut out)],
    };
    let answer = body(&mut bind)?;
    Ok((out, answer))
}

#[test]
fn behaves_as_the_original() {
    let [direct, foreign] = both::<dyn Backend>();
    let answers = |backend: &dyn Backend| {
        let plan = plan();
        let support: Vec<Support> = plan
            .nodes
            .iter()
            .map(|node| backend.support(&NodeView { plan: &plan, node }))
            .collect();
        let lowering = Lowering::MiniFloat { exponent: 5, mantissa: 10 };
        let layout = backend.layout(&weight(), &lowering).unwrap();
        let mut packed = [[0; 64]; 2];
        let values = [
            RawValues::Floats(&[1.0, 2.0]),
            RawValues::Affine { codes: &[3], scales: &[4.0], mins: &[] },
        ];
        for (values, packed) in values.into_iter().zip(&mut packed) {
            let (desc, lowering) = (&weight(), &lowering);
            let raw = RawRows { desc, lowering, rows: 3, values };
            backend.pack(&raw, &layout, packed).unwrap();
        }
        let exe = compiled(backend).unwrap();
        let runs: Vec<_> =
            [(0, 3), (5, 8), (0, 0), (6, 1)].map(|(s, n)| run(backend, &exe, s, n).unwrap()).into();
        let waits = [5, 6].map(|mark| wait(backend, &exe, Fence::Pending(mark)));
        (
            (backend.domains(), backend.kernels()),
            support,
            layout,
            packed,
            exe.scratch_bytes,
            runs,
            waits,
        )
    };
    let found = answers(&*foreign);
    assert_eq!(found, answers(&*direct));
    assert_eq!(found.5[1].1, Fence::Pending(5));
    assert_eq!(found.6[0], Ok((vec![2.0; 3], ())), "a device writes its outputs late");
    assert_eq!(found.1[2], Support::No("Some(2) of 3".to_owned()));
}

#[test]
fn several_threads_run_one_plan() {
    let (backend, watch) = import::<dyn Backend>(&Config::new());
    let exe = compiled(&*backend).unwrap();
    let expected = run(&*backend, &exe, 0, 8).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert_eq!(run(&*backend, &exe, 0, 8).unwrap(), expected);
                }
            });
        }
    });
    assert!(watch.faults().is_empty());
}

#[test]
fn a_compiled_plan_outlives_its_backend_and_runs_on_no_other() {
    let (backend, watch) = import::<dyn Backend>(&Config::new());
    let exe = compiled(&*backend).unwrap();
    drop(backend);
    let (other, _) = import::<dyn Backend>(&Config::new());
    assert!(matches!(run(&*other, &exe, 0, 1), Err(Error::Malformed { .. })));
    drop(exe);
    assert!(watch.faults().is_empty());
}

#[test]
fn a_node_of_another_plan_is_not_supported() {
    let (backend, _) = import::<dyn Backend>(&Config::new());
    let (plan, other) = (plan(), plan());
    let support = backend.support(&NodeView { plan: &plan, node: &other.nodes[0] });
    assert!(matches!(support, Support::No(_)));
}

#[test]
fn answers_that_nobody_can_work_with_are_errors() {
    for lie in ["layout", "huge layout"] {
        let (backend, watch) = import::<dyn Backend>(&told("lies", lie));
        assert!(backend.layout(&weight(), &Lowering::Opaque).is_err(), "{lie}");
        watch.expect("layout of w: malformed");
    }
    let (backend, watch) = import::<dyn Backend>(&told("lies", "compile"));
    assert!(compiled(&*backend).is_err());
    watch.expect("executable: malformed");
    let (backend, watch) = import::<dyn Backend>(&told("lies", "domains"));
    assert_eq!(backend.domains()[0].id, DomainId::HOST);
    watch.expect("domains: malformed");
}

#[test]
fn panics_and_errors_are_contained() {
    let layout = || Layout {
        id: plugin_api::kinds::backend::LayoutId(String::new()),
        row_block: 1,
        block_bytes: 1,
        wants: RawForm::Floats,
    };
    check::<dyn Backend>(&[
        ("domains", &|_| None),
        ("kernels", &|_| None),
        ("support", &|b| {
            let plan = plan();
            let support = b.support(&NodeView { plan: &plan, node: &plan.nodes[0] });
            assert!(matches!(support, Support::No(_)));
            None
        }),
        ("layout", &|b| b.layout(&weight(), &Lowering::Opaque).err()),
        ("pack", &|b| {
            let (desc, lowering) = (&weight(), &Lowering::Opaque);
            let raw = RawRows { desc, lowering, rows: 0, values: RawValues::Floats(&[]) };
            b.pack(&raw, &layout(), &mut []).err()
        }),
        ("compile", &|b| compiled(b).err()),
        ("wait", &|b| compiled(b).and_then(|exe| wait(b, &exe, Fence::Pending(5))).err()),
    ]);
    for (what, is_fault) in [("panics", true), ("fails", false)] {
        let (backend, watch) = import::<dyn Backend>(&told(what, "run"));
        let exe = compiled(&*backend).unwrap();
        let error = run(&*backend, &exe, 0, 3).unwrap_err();
        assert_eq!(watch.faults().contains(&error), is_fault, "{what}: {error}");
        assert!(run(&*backend, &exe, 0, 3).is_err());
        assert_eq!(watch.faults().len(), usize::from(is_fault));
    }
}
