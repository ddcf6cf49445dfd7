//! One ordered queue of work on a device: a CUDA stream.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::{CudaStream, result};

use crate::device::Kernel;
use crate::{Device, Fault, Number, Span};

/// Work in order. Queues of one device do not wait for each other.
pub struct Queue {
    device: Arc<Device>,
    stream: Arc<CudaStream>,
}

impl Queue {
    /// An empty queue.
    ///
    /// # Errors
    ///
    /// [`Fault::Driver`].
    pub fn new(device: &Arc<Device>) -> Result<Self, Fault> {
        let stream = device.context.new_stream().map_err(Fault::driver("making a stream"))?;
        Ok(Self { device: Arc::clone(device), stream })
    }

    /// The device that works on it.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Waits until everything queued so far is done.
    ///
    /// # Errors
    ///
    /// [`Fault::Driver`] if some of it went wrong.
    pub fn wait(&self) -> Result<(), Fault> {
        self.stream.synchronize().map_err(Fault::driver("working on the device"))
    }

    /// Runs `work`, which may queue copies from and to memory of the host, and waits for them also
    /// if it fails.
    ///
    /// # Errors
    ///
    /// Those of `work`, then [`Fault::Driver`] if what was queued went wrong.
    pub fn scope<'env, E: From<Fault>>(
        &self,
        work: impl FnOnce(&Scope<'_, 'env>) -> Result<(), E>,
    ) -> Result<(), E> {
        let scope = Scope { queue: self, host: PhantomData };
        let result = work(&scope);
        // Dropping it waits as well, for the case that `work` panics.
        let waited = self.wait();
        drop(scope);
        result.and(waited.map_err(E::from))
    }

    /// Queues a kernel over `units` units of `threads` threads each.
    ///
    /// # Safety
    ///
    /// `args` point to the arguments of the kernel in its `.cu` file, in number, order and size,
    /// and the spans among them hold what it reads and writes.
    pub(crate) unsafe fn launch(
        &self,
        kernel: Kernel,
        [units, threads]: [usize; 2],
        args: &mut [*mut c_void],
    ) -> Result<(), Fault> {
        let blocks = units.div_ceil(BLOCK_THREADS as usize / threads).min(BLOCKS_MAX);
        if blocks == 0 {
            return Ok(());
        }
        self.device.bind()?;
        let function = self.device.function(kernel);
        // SAFETY: function and stream belong to the bound context; the rest is promised above.
        let launched = unsafe {
            result::launch_kernel(
                function,
                (blocks as u32, 1, 1),
                (BLOCK_THREADS, 1, 1),
                0,
                self.stream.cu_stream(),
                args,
            )
        };
        launched.map_err(Fault::driver("launching a kernel"))
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("device", &self.device).finish_non_exhaustive()
    }
}

/// Copies between host and device that are done before [`Queue::scope`] returns. `'env` is the
/// life of the host's memory; it cannot be shortened, as in [`std::thread::scope`].
#[derive(Debug)]
pub struct Scope<'q, 'env> {
    queue: &'q Queue,
    host: PhantomData<&'env mut &'env ()>,
}

impl<'env> Scope<'_, 'env> {
    /// Queues a copy to the device.
    ///
    /// # Errors
    ///
    /// [`Fault::Driver`].
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn upload<T: Number>(&self, from: &'env [T], to: Span<'_, T>) -> Result<(), Fault> {
        assert_eq!(from.len(), to.len, "upload: lengths differ");
        if from.is_empty() {
            return Ok(());
        }
        self.queue.device.bind()?;
        let stream = self.queue.stream.cu_stream();
        // SAFETY: as many elements on both sides, and `from` is borrowed until the scope has waited.
        let copied = unsafe { result::memcpy_htod_async(to.address, from, stream) };
        copied.map_err(Fault::driver("copying to the device"))
    }

    /// Queues a copy from the device.
    ///
    /// # Errors
    ///
    /// [`Fault::Driver`].
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn download<T: Number>(&self, from: Span<'_, T>, to: &'env mut [T]) -> Result<(), Fault> {
        assert_eq!(from.len, to.len(), "download: lengths differ");
        if to.is_empty() {
            return Ok(());
        }
        self.queue.device.bind()?;
        let stream = self.queue.stream.cu_stream();
        // SAFETY: as many elements on both sides, any bits are a number, and `to` is borrowed until
        // the scope has waited.
        let copied = unsafe { result::memcpy_dtoh_async(to, from.address, stream) };
        copied.map_err(Fault::driver("copying from the device"))
    }
}

impl Drop for Scope<'_, '_> {
    fn drop(&mut self) {
        // A stream that cannot be waited for has failed and copies no more.
        let _ = self.queue.wait();
    }
}

/// Where an argument lies, as a launch takes it.
macro_rules! args {
    ($($arg:expr),* $(,)?) => {
        &mut [$(std::ptr::from_ref(&$arg).cast_mut().cast::<std::ffi::c_void>()),*]
    };
}
pub(crate) use args;

/// Threads of a warp, as kernels take it.
pub(crate) const WARP: usize = 32;

/// Threads of a block: whole warps.
const BLOCK_THREADS: u32 = 256;

/// Blocks of a launch; kernels go on to further elements by themselves.
const BLOCKS_MAX: usize = 1 << 20;
