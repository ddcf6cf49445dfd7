//! Backends on the host's side.

use std::ffi::c_void;
use std::sync::Arc;

use super::Instance;
use super::check::{SCRATCH_BYTES_MAX, check_layout};
use super::sent::Sent;
use crate::error::{Error, Result};
use crate::kinds::backend::{
    Backend, Bindings, Bucket, DomainDesc, DomainId, Exe, Fence, Layout, MemoryMap, NodeView,
    RawRows, RawValues, StreamId, Support, WeightDesc,
};
use crate::kinds::quantizer::Lowering;
use crate::native::Owner;
use crate::native::abi::backend::{BackendV1, BindingsV1, ExeV1, FenceV1, RawRowsV1};
use crate::native::abi::{Code, Opened, Out};
use crate::native::cached::Cached;
use crate::native::call::Remote;
use crate::plan::Plan;
use crate::wire::to_bytes;

/// A backend in another library.
struct Adapter {
    shared: Arc<Shared>,
    domains: Vec<DomainDesc>,
    kernels: String,
}

/// What the backend and its compiled plans call; the instance lives as long as any of them.
struct Shared {
    remote: Remote,
    table: &'static BackendV1,
}

/// A compiled plan in another library.
struct RemoteExe {
    shared: Arc<Shared>,
    exe: *mut c_void,
    lists: Cached<Sent>,
}

// SAFETY: what is behind the pointer is `Send` and `Sync` where it was made, as `Exe::new` asks.
unsafe impl Send for RemoteExe {}
// SAFETY: as above.
unsafe impl Sync for RemoteExe {}

/// # Safety
///
/// `opened` came from `export` of a library that matches and stays mapped.
pub(in crate::native) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<BackendV1>() };
    let remote = Remote::new(opened.this, owner);
    // SAFETY: the table belongs to the instance.
    let described = remote.ask(|this, out| unsafe { (table.describe)(this, out) });
    let described =
        described.and_then(|(domains, kernels): (Vec<_>, String)| match domains.len() {
            0 => remote.judged(Err(Error::malformed("domains", "at least one", 0))),
            _ => Ok((domains, kernels)),
        });
    // A backend that failed runs nothing, and memory for it lies somewhere all the same.
    let somewhere = DomainDesc { id: DomainId::HOST, name: "host".to_owned(), size_bytes: None };
    let (domains, kernels) = described.unwrap_or_else(|_| (vec![somewhere], String::new()));
    Box::new(Adapter { shared: Arc::new(Shared { remote, table }), domains, kernels })
}

// In every method: the table belongs to the instance, and all pointers live until the call ends.
impl Backend for Adapter {
    fn domains(&self) -> Vec<DomainDesc> {
        self.domains.clone()
    }

    fn kernels(&self) -> String {
        self.kernels.clone()
    }

    fn support(&self, node: &NodeView<'_>) -> Support {
        let Shared { remote, table } = &*self.shared;
        let Some(index) = node.plan.nodes.iter().position(|x| std::ptr::eq(x, node.node)) else {
            return Support::No("a node of another plan".to_owned());
        };
        let plan = node.plan.to_bytes();
        // SAFETY: see above.
        let support = remote
            .ask(|this, out| unsafe { (table.support)(this, plan[..].into(), index as u64, out) });
        support.unwrap_or_else(|error| Support::No(error.to_string()))
    }

    fn layout(&self, weight: &WeightDesc, lowering: &Lowering) -> Result<Layout> {
        let Shared { remote, table } = &*self.shared;
        let (weight_there, lowering_there) = (to_bytes(weight), to_bytes(lowering));
        let layout = remote.ask(|this, out| {
            let (weight, lowering) = (weight_there[..].into(), lowering_there[..].into());
            // SAFETY: see above.
            unsafe { (table.layout)(this, weight, lowering, out) }
        })?;
        remote.judged(check_layout(&layout, weight, lowering))?;
        Ok(layout)
    }

    fn pack(&self, raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()> {
        let Shared { remote, table } = &*self.shared;
        let (desc, lowering) = (to_bytes(raw.desc), to_bytes(raw.lowering));
        let layout = to_bytes(layout);
        let (is_affine, codes, scales, mins, floats) = match raw.values {
            RawValues::Affine { codes, scales, mins } => (1, codes, scales, mins, &[][..]),
            RawValues::Floats(floats) => (0, &[][..], &[][..], &[][..], floats),
        };
        let there = RawRowsV1 {
            desc: desc[..].into(),
            lowering: lowering[..].into(),
            rows: raw.rows as u64,
            is_affine,
            codes: codes.into(),
            scales: scales.into(),
            mins: mins.into(),
            floats: floats.into(),
        };
        // SAFETY: see above.
        remote.call(&mut Vec::new(), |this, to| unsafe {
            (table.pack)(this, &raw const there, layout[..].into(), out.into(), to)
        })
    }

    fn compile(&self, plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Exe> {
        let Shared { remote, table } = &*self.shared;
        let (plan, bucket, memory) = (plan.to_bytes(), to_bytes(bucket), to_bytes(memory));
        let mut made = ExeV1 { exe: std::ptr::null_mut(), scratch_bytes: 0 };
        let exe = &raw mut made;
        remote.call(&mut Vec::new(), |this, out| {
            let (plan, bucket, memory) = (plan[..].into(), bucket[..].into(), memory[..].into());
            // SAFETY: see above.
            unsafe { (table.compile)(this, plan, bucket, memory, exe, out) }
        })?;
        let ExeV1 { exe, scratch_bytes } = made;
        let exe = RemoteExe { shared: Arc::clone(&self.shared), exe, lists: Cached::new() };
        if exe.exe.is_null() || scratch_bytes > SCRATCH_BYTES_MAX {
            let expected = format!("one with at most {SCRATCH_BYTES_MAX} bytes of scratch");
            return remote.judged(Err(Error::malformed("executable", expected, scratch_bytes)));
        }
        Ok(Exe::new(scratch_bytes as usize, exe))
    }

    fn run(&self, exe: &Exe, stream: StreamId, bind: &mut Bindings<'_>) -> Result<Fence> {
        let mut fence = FenceV1 { mark: 0, is_pending: 0 };
        let to = &raw mut fence;
        // SAFETY: see above; the other side uses what is lent here until the call ends, weights
        // until the fence has passed.
        self.bound(exe, bind, |table, this, exe, there, out| unsafe {
            (table.run)(this, exe, stream.0, there, to, out)
        })?;
        Ok(if fence.is_pending == 0 { Fence::Done } else { Fence::Pending(fence.mark) })
    }

    fn wait(&self, exe: &Exe, fence: Fence, bind: &mut Bindings<'_>) -> Result<()> {
        let (mark, is_pending) = match fence {
            Fence::Done => (0, 0),
            Fence::Pending(mark) => (mark, 1),
        };
        let fence = FenceV1 { mark, is_pending };
        // SAFETY: see above.
        self.bound(exe, bind, |table, this, exe, there, out| unsafe {
            (table.wait)(this, exe, fence, there, out)
        })
    }
}

impl Adapter {
    /// Calls the other side with what was compiled there and what is bound.
    fn bound(
        &self,
        exe: &Exe,
        bind: &mut Bindings<'_>,
        call: impl FnOnce(
            &BackendV1,
            *mut c_void,
            *mut c_void,
            *const BindingsV1<'_>,
            *const Out,
        ) -> Code,
    ) -> Result<()> {
        let Shared { remote, table } = &*self.shared;
        let exe = exe.code::<RemoteExe>()?;
        if !Arc::ptr_eq(&exe.shared, &self.shared) {
            return Err(Error::malformed("executable", "one of this backend", "another's"));
        }
        let mut lists = exe.lists.take();
        let there = lists.fill(bind);
        let answer = remote
            .call(&mut Vec::new(), |this, out| call(table, this, exe.exe, &raw const there, out));
        lists.clear();
        exe.lists.put(lists);
        answer
    }
}

impl Drop for RemoteExe {
    fn drop(&mut self) {
        let Shared { remote, table } = &*self.shared;
        if !self.exe.is_null() {
            // SAFETY: it is closed once, here.
            remote.tell(|_this, out| unsafe { (table.close_exe)(self.exe, out) });
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here, after all of its compiled plans.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}
