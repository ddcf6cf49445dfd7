//! Backends on the plugin's side.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use super::Instance;
use super::received::Received;
use crate::error::{Error, Result};
use crate::kinds::backend::{
    Backend, Bindings, Exe, Fence, NodeView, RawRows, RawValues, StreamId,
};
use crate::native::abi::backend::{BackendV1, BindingsV1, ExeV1, FenceV1, RawRowsV1};
use crate::native::abi::{Code, Out, RSlice, RSliceMut};
use crate::native::cached::Cached;
use crate::native::guard::{self, answer, guard, shared};
use crate::plan::Plan;
use crate::wire::from_bytes;

/// A backend, with the plan that it was asked about last: the next question is about it too.
struct Exported {
    backend: Box<Instance>,
    asked: Mutex<Option<(Vec<u8>, Arc<Plan>)>>,
}

/// A compiled plan, with the lists that its runs fill.
struct Compiled {
    exe: Exe,
    lists: Cached<Received>,
}

static TABLE: BackendV1 = BackendV1 {
    size: size_of::<BackendV1>() as u32,
    describe,
    support,
    layout,
    pack,
    compile,
    run,
    wait,
    close_exe,
    close: guard::close::<Exported>,
};

pub(in crate::native) fn export(backend: Box<Instance>) -> (*mut c_void, *const c_void) {
    let exported = Exported { backend, asked: Mutex::default() };
    (guard::export(Box::new(exported)), (&raw const TABLE).cast())
}

impl Exported {
    fn plan(&self, bytes: &[u8]) -> Result<Arc<Plan>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = asked.as_ref().filter(|(known, _)| known == bytes) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(Plan::from_bytes(bytes)?);
        *asked = Some((bytes.to_vec(), Arc::clone(&plan)));
        Ok(plan)
    }
}

unsafe extern "C" fn describe(this: *mut c_void, out: *const Out) -> Code {
    // SAFETY: the host opened this instance here, and `out` is its own for this call.
    unsafe {
        guard(out, || {
            let backend = &shared::<Exported>(this).backend;
            answer(out, &(backend.domains(), backend.kernels()));
            Ok(())
        })
    }
}

unsafe extern "C" fn support(
    this: *mut c_void,
    plan: RSlice<'_, u8>,
    node: u64,
    out: *const Out,
) -> Code {
    // SAFETY: as in `describe`.
    unsafe {
        guard(out, || {
            let exported = shared::<Exported>(this);
            let plan = &*exported.plan(plan.as_slice())?;
            let found = usize::try_from(node).ok().and_then(|node| plan.nodes.get(node));
            let node = found.ok_or_else(|| Error::malformed("node", plan.num_nodes(), node))?;
            answer(out, &exported.backend.support(&NodeView { plan, node }));
            Ok(())
        })
    }
}

unsafe extern "C" fn layout(
    this: *mut c_void,
    weight: RSlice<'_, u8>,
    lowering: RSlice<'_, u8>,
    out: *const Out,
) -> Code {
    // SAFETY: as in `describe`.
    unsafe {
        guard(out, || {
            let (weight, lowering) = (from_bytes(weight.into())?, from_bytes(lowering.into())?);
            answer(out, &shared::<Exported>(this).backend.layout(&weight, &lowering)?);
            Ok(())
        })
    }
}

unsafe extern "C" fn pack(
    this: *mut c_void,
    raw: *const RawRowsV1<'_>,
    layout: RSlice<'_, u8>,
    packed: RSliceMut<'_, u8>,
    out: *const Out,
) -> Code {
    // SAFETY: as in `describe`; rows and slices are lent for the call.
    unsafe {
        guard(out, || {
            let there = &*raw;
            let desc = &from_bytes(there.desc.into())?;
            let lowering = &from_bytes(there.lowering.into())?;
            let values = if there.is_affine == 0 {
                RawValues::Floats(there.floats.into())
            } else {
                let (codes, scales) = (there.codes.into(), there.scales.into());
                RawValues::Affine { codes, scales, mins: there.mins.into() }
            };
            let raw = RawRows { desc, lowering, rows: there.rows as usize, values };
            let layout = from_bytes(layout.into())?;
            shared::<Exported>(this).backend.pack(&raw, &layout, packed.into_mut_slice())
        })
    }
}

unsafe extern "C" fn compile(
    this: *mut c_void,
    plan: RSlice<'_, u8>,
    bucket: RSlice<'_, u8>,
    memory: RSlice<'_, u8>,
    exe: *mut ExeV1,
    out: *const Out,
) -> Code {
    // SAFETY: as in `describe`; `exe` is the host's, for this call.
    unsafe {
        guard(out, || {
            let plan = Plan::from_bytes(plan.as_slice())?;
            let (bucket, memory) = (from_bytes(bucket.into())?, from_bytes(memory.into())?);
            let made = shared::<Exported>(this).backend.compile(&plan, &bucket, &memory)?;
            let scratch_bytes = made.scratch_bytes as u64;
            let compiled = Box::new(Compiled { exe: made, lists: Cached::new() });
            *exe = ExeV1 { exe: Box::into_raw(compiled).cast(), scratch_bytes };
            Ok(())
        })
    }
}

unsafe extern "C" fn run(
    this: *mut c_void,
    exe: *mut c_void,
    stream: u32,
    bind: *const BindingsV1<'_>,
    fence: *mut FenceV1,
    out: *const Out,
) -> Code {
    let body = || {
        // SAFETY: as for this function.
        let ran = unsafe {
            bound(this, exe, bind, |backend, exe, bind| backend.run(exe, StreamId(stream), bind))
        };
        let (mark, is_pending) = match ran? {
            Fence::Done => (0, 0),
            Fence::Pending(mark) => (mark, 1),
        };
        // SAFETY: `fence` is the host's, for this call.
        unsafe { *fence = FenceV1 { mark, is_pending } };
        Ok(())
    };
    // SAFETY: as in `describe`.
    unsafe { guard(out, body) }
}

unsafe extern "C" fn wait(
    this: *mut c_void,
    exe: *mut c_void,
    fence: FenceV1,
    bind: *const BindingsV1<'_>,
    out: *const Out,
) -> Code {
    let fence = if fence.is_pending == 0 { Fence::Done } else { Fence::Pending(fence.mark) };
    // SAFETY: as in `describe`, and as for `bound`.
    unsafe {
        guard(out, || bound(this, exe, bind, |backend, exe, bind| backend.wait(exe, fence, bind)))
    }
}

/// Calls `body` with the instance, what was compiled and what is bound.
///
/// # Safety
///
/// As in `describe`; `exe` came from `compile` and has not been closed. Several threads may run it
/// at the same time, and so is it shared. The host lends the bindings for the call.
unsafe fn bound<T>(
    this: *mut c_void,
    exe: *mut c_void,
    bind: *const BindingsV1<'_>,
    body: impl FnOnce(&dyn Backend, &Exe, &mut Bindings<'_>) -> Result<T>,
) -> Result<T> {
    // SAFETY: as for this function.
    let (exported, compiled) = unsafe { (shared::<Exported>(this), &*exe.cast::<Compiled>()) };
    let mut lists = compiled.lists.take();
    // SAFETY: the host lends the bindings for the call; the lists are cleared before it ends, or
    // dropped by a panic, which touches nothing that was lent.
    let bound = unsafe { lists.fill(&*bind) };
    let answer = bound.and_then(|mut bind| body(&*exported.backend, &compiled.exe, &mut bind));
    lists.clear();
    compiled.lists.put(lists);
    answer
}

unsafe extern "C" fn close_exe(exe: *mut c_void, out: *const Out) -> Code {
    // SAFETY: `exe` came from `compile`; the host closes it once and uses it no more.
    unsafe {
        guard(out, || {
            drop(Box::from_raw(exe.cast::<Compiled>()));
            Ok(())
        })
    }
}
