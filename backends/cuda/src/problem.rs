//! What goes wrong with a device, or with what a run was given.

use kernels_cuda::Fault;
use plugin_api::Error;

/// An error of the device, or one that is already the boundary's.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Something is missing, full or broken.
    Device(Fault),
    /// Said in the words of the boundary.
    Named(Error),
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Device(fault)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Named(error)
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Named(error) => error,
            Problem::Device(Fault::NoSpace { needed, free }) => {
                Self::NoSpace { what: "device memory".into(), needed, free }
            }
            Problem::Device(
                missing @ (Fault::NoDriver | Fault::NoCompiler | Fault::NoDevice { .. }),
            ) => Self::unsupported(BACKEND, missing),
            Problem::Device(fault) => Self::outside(BACKEND, fault),
        }
    }
}

/// Who says so.
const BACKEND: &str = "backend `cuda`";
