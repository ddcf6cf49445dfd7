//! Packed weights on the device: copied there once, for every executable that uses them.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use kernels_cuda::{Device, Memory, Number, Queue, Span};
use plugin_api::Error;
use plugin_api::kinds::backend::{self, Buf, DomainId};

use crate::problem::Problem;

/// What has been copied to a device, by the buffer that it was copied from.
pub(crate) struct Uploads {
    device: Arc<Device>,
    domain: DomainId,
    /// By address of the buffer.
    known: Mutex<HashMap<usize, Resident>>,
}

/// A weight on the device, with the buffer that it belongs to.
#[derive(Clone)]
pub(crate) struct Resident {
    /// Keeps the address from being given to another buffer, not the buffer itself.
    buf: Weak<dyn backend::Memory>,
    home: Home,
}

#[derive(Debug, Clone)]
enum Home {
    /// Copied here.
    Copied(Arc<Memory>),
    /// Allocated on the device by the host: an address.
    Lent(u64),
}

impl Uploads {
    pub(crate) fn new(device: &Arc<Device>, domain: DomainId) -> Self {
        Self { device: Arc::clone(device), domain, known: Mutex::default() }
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The weight in `buf`, which is copied if it is not known.
    fn resident(&self, buf: &Buf, queue: &Queue) -> Result<Resident, Problem> {
        let key = Arc::as_ptr(buf).cast::<()>() as usize;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, resident| resident.buf.strong_count() > 0);
        if let Some(resident) = known.get(&key) {
            return Ok(resident.clone());
        }
        let home = match (buf.host_bytes(), buf.device_address()) {
            (_, Some(address)) if buf.domain() == self.domain => Home::Lent(address),
            (Some(bytes), _) => Home::Copied(self.copy(bytes, queue)?),
            _ => {
                let found = format!("{:?}", buf.domain());
                return Err(Error::unsupported("weight", format!("memory in {found}")).into());
            }
        };
        let resident = Resident { buf: Arc::downgrade(buf), home };
        known.insert(key, resident.clone());
        Ok(resident)
    }

    fn copy(&self, bytes: &[u8], queue: &Queue) -> Result<Arc<Memory>, Problem> {
        let memory = Memory::new(&self.device, bytes.len())?;
        queue.scope(|scope| {
            scope.upload(bytes, memory.span(0, bytes.len())).map_err(Problem::from)
        })?;
        Ok(Arc::new(memory))
    }
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Resident {
    /// Its first `len` elements.
    pub(crate) fn span<T: Number>(&self, len: usize) -> Span<'_, T> {
        match &self.home {
            Home::Copied(memory) => memory.span(0, len),
            // SAFETY: a buffer in the device's domain holds the packed weight at its address, for
            // as long as it is bound to the run, which ends after the work that reads it.
            Home::Lent(address) => unsafe { Span::from_address(*address, len) },
        }
    }
}

/// The weights of one executable. They are kept for the buffers of the first run; a run with other
/// buffers looks those up again.
pub(crate) struct Weights {
    uploads: Arc<Uploads>,
    kept: OnceLock<Vec<Resident>>,
}

impl Weights {
    pub(crate) fn new(uploads: Arc<Uploads>) -> Self {
        Self { uploads, kept: OnceLock::new() }
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        self.uploads.device()
    }

    /// Where each weight lies, in the order of the plan.
    pub(crate) fn residents(&self, bufs: &[Buf], queue: &Queue) -> Result<Residents<'_>, Problem> {
        if let Some(kept) = self.kept.get() {
            let mut pairs = kept.iter().zip(bufs);
            if pairs.all(|(kept, buf)| ptr::addr_eq(kept.buf.as_ptr(), Arc::as_ptr(buf))) {
                return Ok(Residents::Kept(kept));
            }
        }
        let found = bufs.iter().map(|buf| self.uploads.resident(buf, queue));
        let found: Vec<Resident> = found.collect::<Result<_, _>>()?;
        // Another run that got here first has kept its own.
        let _ = self.kept.set(found.clone());
        Ok(Residents::Found(found))
    }
}

/// The weights of one run.
pub(crate) enum Residents<'a> {
    Kept(&'a [Resident]),
    Found(Vec<Resident>),
}

impl Deref for Residents<'_> {
    type Target = [Resident];

    fn deref(&self) -> &[Resident] {
        match self {
            Self::Kept(kept) => kept,
            Self::Found(found) => found,
        }
    }
}
