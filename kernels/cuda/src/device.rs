//! One device: its context, and the kernels compiled for it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaFunction, sys};
use cudarc::nvrtc::Ptx;

use crate::compile::is_compiler_present;
use crate::{Fault, Target, compile};

/// An open device with its kernels.
pub struct Device {
    pub(crate) context: Arc<CudaContext>,
    functions: [CudaFunction; NAMES.len()],
    name: String,
    size_bytes: u64,
}

impl Device {
    /// The device of this number, as the driver counts. The first call compiles the kernels; a
    /// device then stays open until the process ends, since other threads, and other users of the
    /// driver in the process, may hold on to its context.
    ///
    /// # Errors
    ///
    /// [`Fault`] that says what is missing.
    pub fn open(ordinal: usize) -> Result<Arc<Self>, Fault> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, device)) = open.iter().find(|(known, _)| *known == ordinal) {
            return Ok(Arc::clone(device));
        }
        let device = Arc::new(Self::new(ordinal)?);
        open.push((ordinal, Arc::clone(&device)));
        Ok(device)
    }

    fn new(ordinal: usize) -> Result<Self, Fault> {
        // SAFETY: loading NVIDIA's library runs nothing but its own initialization.
        if !unsafe { sys::is_culib_present() } {
            return Err(Fault::NoDriver);
        }
        if !is_compiler_present() {
            return Err(Fault::NoCompiler);
        }
        let found = count()?;
        if ordinal >= found {
            return Err(Fault::NoDevice { ordinal, found });
        }
        let opening = "opening the device";
        let context = CudaContext::new(ordinal).map_err(Fault::driver(opening))?;
        let name = context.name().map_err(Fault::driver(opening))?;
        let size_bytes = context.total_mem().map_err(Fault::driver(opening))? as u64;
        let functions = load(&context)?;
        Ok(Self { context, functions, name, size_bytes })
    }

    /// What the driver calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of its memory.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn function(&self, kernel: Kernel) -> sys::CUfunction {
        self.functions[kernel as usize].cu_function()
    }

    /// Makes the device the one that driver calls of this thread mean.
    pub(crate) fn bind(&self) -> Result<(), Fault> {
        self.context.bind_to_thread().map_err(Fault::driver("choosing the device"))
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How many devices the driver knows: none is not a mistake.
fn count() -> Result<usize, Fault> {
    match CudaContext::device_count() {
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => Ok(0),
        // The library that toolkits link against, without a driver behind it.
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_STUB_LIBRARY => Err(Fault::NoDriver),
        Err(error) => Err(Fault::driver("starting the driver")(error)),
    }
}

fn load(context: &Arc<CudaContext>) -> Result<[CudaFunction; NAMES.len()], Fault> {
    let loading = "loading kernels";
    let (major, minor) = context.compute_capability().map_err(Fault::driver(loading))?;
    let capability = u32::try_from(major * 10 + minor).unwrap_or(0);
    // Machine code needs no agreement between compiler and driver. A compiler older than the
    // device knows only what the driver can translate.
    let image = match compile(Target::Cubin(capability)) {
        Err(Fault::Compile { .. }) => compile(Target::Ptx(PTX_CAPABILITY))?,
        image => image?,
    };
    let module = context.load_module(Ptx::from_binary(image)).map_err(Fault::driver(loading))?;
    let mut functions = Vec::with_capacity(NAMES.len());
    for name in NAMES {
        functions.push(module.load_function(name).map_err(Fault::driver(loading))?);
    }
    let missing = |_| Fault::Compile { log: "not every kernel is there".to_owned() };
    functions.try_into().map_err(missing)
}

/// A kernel: the index of its name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kernel {
    Elementwise,
    Unary,
    Embed,
    EmbedAffine,
    Matmul,
    MatmulAffine,
    RmsNorm,
    Swiglu,
}

const NAMES: [&str; 8] = [
    "elementwise",
    "unary",
    "embed",
    "embed_affine",
    "matmul",
    "matmul_affine",
    "rms_norm",
    "swiglu",
];

/// What every supported device runs.
const PTX_CAPABILITY: u32 = 80;

/// Devices by number.
static OPEN: Mutex<Vec<(usize, Arc<Device>)>> = Mutex::new(Vec::new());
