//! Which instructions a kernel may use, found at run time.
//!
//! A kernel is one body, generic over [`Lanes`]; [`dispatch`] compiles it once per instruction set
//! and picks the copy. Lanes do the same IEEE operations in the same order everywhere, so an
//! instruction set changes speed and no bit.

#[cfg(target_arch = "x86_64")]
use crate::lanes::{Avx2, Avx512};
use crate::lanes::{Lanes, Portable};

#[cfg(target_arch = "x86_64")]
mod amx;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every target has; no explicit vectors.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ and VNNI.
    Avx512,
    /// The same, and AMX with INT8 for quantized products of many rows.
    Amx,
}

impl Isa {
    /// Every instruction set, slowest first.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2-fma",
            Self::Avx512 => "avx512-vnni",
            Self::Amx => "amx-int8",
        }
    }

    /// The fastest one that this machine has.
    pub fn detect() -> Self {
        Self::detect_up_to(Self::Amx)
    }

    /// The fastest one that this machine has, not beyond `most`.
    pub fn detect_up_to(most: Self) -> Self {
        let mut sets = Self::ALL.into_iter().rev().filter(|isa| *isa <= most);
        sets.find(|isa| isa.is_available()).unwrap_or(Self::Scalar)
    }

    /// Whether this machine has it. Asks the processor once, later calls read a cached word.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        let has_avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        match self {
            Self::Scalar => true,
            Self::Avx2 => has_avx2,
            Self::Avx512 => {
                has_avx2
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Self::Amx => Self::Avx512.is_available() && amx::is_available(),
        }
    }

    /// Whether this machine has it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Self::Scalar
    }
}

/// A kernel with its arguments. `run` and all that it calls must be `#[inline(always)]`, because
/// only code inlined into [`dispatch`]'s copies is compiled for their instructions.
pub(crate) trait Kernel {
    /// What the kernel returns.
    type Out;
    /// Runs it on one kind of lanes.
    fn run<L: Lanes>(self) -> Self::Out;
}

/// Runs `kernel` with the instructions of `isa`.
///
/// # Panics
///
/// If this machine does not have them.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    assert!(isa.is_available(), "dispatch: this machine does not have {isa:?}");
    match isa {
        Isa::Scalar => kernel.run::<Portable>(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the features that `run_avx2` is compiled for are available.
        Isa::Avx2 => unsafe { run_avx2(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the features that `run_avx512` is compiled for are available.
        Isa::Avx512 | Isa::Amx => unsafe { run_avx512(kernel) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => unreachable!("only the scalar set is available here"),
    }
}

/// Runs a kernel that is for AMX only.
///
/// # Panics
///
/// If this machine does not have it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn dispatch_amx<K: Kernel>(kernel: K) -> K::Out {
    assert!(Isa::Amx.is_available(), "dispatch_amx: this machine does not have AMX");
    // SAFETY: AMX is available only where AVX-512 is.
    unsafe { run_avx512(kernel) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Out {
    kernel.run::<Avx2>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Out {
    kernel.run::<Avx512>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detects_something_that_is_available() {
        assert!(Isa::Scalar.is_available());
        assert!(Isa::detect().is_available());
    }
}
