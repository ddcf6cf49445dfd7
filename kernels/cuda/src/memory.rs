//! Memory of a device, and views of it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use crate::{Device, Fault};

/// Bytes on a device, freed on drop after all work on the device is done.
pub struct Memory {
    device: Arc<Device>,
    /// A multiple of 256.
    address: u64,
    size_bytes: usize,
}

impl Memory {
    /// Bytes of any content; at least one, so that there is an address.
    ///
    /// # Errors
    ///
    /// [`Fault::NoSpace`], or whatever the driver says.
    pub fn new(device: &Arc<Device>, size_bytes: usize) -> Result<Self, Fault> {
        device.bind()?;
        // SAFETY: the context is bound; what the bytes hold does not matter to numbers.
        let address = unsafe { result::malloc_sync(size_bytes.max(1)) };
        let address = address.map_err(|error| {
            if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                let free = result::mem_get_info().map_or(0, |(free, _)| free as u64);
                Fault::NoSpace { needed: size_bytes as u64, free }
            } else {
                Fault::driver("allocating on the device")(error)
            }
        })?;
        Ok(Self { device: Arc::clone(device), address, size_bytes })
    }

    /// Where it starts on its device.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// `len` elements from `offset_bytes` on.
    ///
    /// # Panics
    ///
    /// If they do not lie inside, or `offset_bytes` is no multiple of the element's size.
    pub fn span<T: Number>(&self, offset_bytes: usize, len: usize) -> Span<'_, T> {
        let end = len.checked_mul(size_of::<T>()).and_then(|len| len.checked_add(offset_bytes));
        assert!(end.is_some_and(|end| end <= self.size_bytes), "span: outside of its memory");
        assert!(offset_bytes.is_multiple_of(size_of::<T>()), "span: not aligned");
        Span { address: self.address + offset_bytes as u64, len, memory: PhantomData }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A device that has failed has nothing left to free.
        if self.device.context.synchronize().is_ok() {
            // SAFETY: allocated by `new`, freed here only, and nothing is queued any more.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

/// Some elements in memory of a device; kernels may write to every one.
pub struct Span<'a, T> {
    pub(crate) address: u64,
    pub(crate) len: usize,
    memory: PhantomData<&'a [T]>,
}

impl<T: Number> Span<'_, T> {
    /// Elements at an address that somebody else allocated.
    ///
    /// # Safety
    ///
    /// `len` elements lie there, aligned to 16 bytes, on the device of the queue that they are used
    /// with, until the work that uses them is done.
    pub unsafe fn from_address(address: u64, len: usize) -> Self {
        Self { address, len, memory: PhantomData }
    }

    /// Number of elements.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

impl<T> Clone for Span<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Span<'_, T> {}

impl<T> fmt::Debug for Span<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A type whose every bit pattern is a number.
pub trait Number: Copy + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl sealed::Sealed for $number {}
        impl Number for $number {})*
    };
}
numbers!(u8, u32, f32, f64);
