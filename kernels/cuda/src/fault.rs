//! What can go wrong between the host and a device.

use std::{error, fmt};

use cudarc::driver::result::DriverError;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The driver's library is not there.
    NoDriver,
    /// The compiler's library is not there.
    NoCompiler,
    /// The driver knows fewer devices.
    NoDevice {
        /// The one that was asked for.
        ordinal: usize,
        /// How many there are.
        found: usize,
    },
    /// The device's memory is full.
    NoSpace {
        /// Bytes asked for.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A kernel did not compile.
    Compile {
        /// What the compiler says.
        log: String,
    },
    /// The driver refused, or work that was queued before went wrong.
    Driver {
        /// What was being done.
        doing: &'static str,
        /// What the driver says.
        error: String,
    },
}

impl Fault {
    /// Names what was being done.
    pub(crate) fn driver(doing: &'static str) -> impl FnOnce(DriverError) -> Self {
        // The driver's text names the code and explains it.
        move |error| Self::Driver { doing, error: error.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => f.write_str(
                "libcuda not found: it comes with NVIDIA's driver; a container has to be started \
                 with its GPUs; a folder of its own belongs on LD_LIBRARY_PATH",
            ),
            Self::NoCompiler => f.write_str(
                "libnvrtc not found: it comes with the CUDA toolkit 12, or with `pip install \
                 nvidia-cuda-nvrtc-cu12`, whose folder nvidia/cuda_nvrtc/lib belongs on \
                 LD_LIBRARY_PATH",
            ),
            Self::NoDevice { ordinal, found } => {
                write!(f, "no CUDA device {ordinal}: expected one, found {found} devices")
            }
            Self::NoSpace { needed, free } => {
                write!(f, "device memory: needs {needed} bytes, has {free}")
            }
            Self::Compile { log } => write!(f, "compiling kernels: {log}"),
            Self::Driver { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl error::Error for Fault {}
