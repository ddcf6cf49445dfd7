//! Compiles all kernels as one program, with NVRTC. No device is needed for that.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::result::{self, NvrtcError};
use cudarc::nvrtc::sys;

use crate::Fault;

/// What to compile for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Machine code of one compute capability: 90 is 9.0.
    Cubin(u32),
    /// Code that the driver translates for a device of at least this capability.
    Ptx(u32),
}

/// The kernels as an image that the driver loads: an ELF file or text that ends with a zero.
///
/// # Errors
///
/// [`Fault::NoCompiler`] where the library is not there, [`Fault::Compile`] with the compiler's
/// words.
pub fn compile(target: Target) -> Result<Vec<u8>, Fault> {
    if !is_compiler_present() {
        return Err(Fault::NoCompiler);
    }
    let program = Program::new(&source())?;
    let architecture = match target {
        Target::Cubin(capability) => format!("--gpu-architecture=sm_{capability}"),
        Target::Ptx(capability) => format!("--gpu-architecture=compute_{capability}"),
    };
    // SAFETY: the program is alive until the end of this function.
    let compiled = unsafe { result::compile_program(program.0, &[architecture]) };
    compiled.map_err(|error| program.fault(error))?;
    match target {
        Target::Cubin(_) => program.cubin(),
        Target::Ptx(_) => program.ptx(),
    }
}

/// Whether the library can be loaded: calling into it panics otherwise.
pub(crate) fn is_compiler_present() -> bool {
    // SAFETY: loading NVIDIA's library runs nothing but its own initialization.
    unsafe { sys::is_culib_present() }
}

/// Every file, under its own name in messages.
fn source() -> CString {
    let mut text = String::new();
    for (name, source) in SOURCES {
        text.push_str(&format!("#line 1 \"{name}\"\n{source}"));
    }
    CString::new(text).unwrap_or_default()
}

struct Program(sys::nvrtcProgram);

impl Program {
    fn new(source: &CStr) -> Result<Self, Fault> {
        result::create_program(source, Some(c"kernels")).map(Self).map_err(fault)
    }

    fn ptx(&self) -> Result<Vec<u8>, Fault> {
        // SAFETY: the program is alive and compiled.
        let text = unsafe { result::get_ptx(self.0) }.map_err(fault)?;
        Ok(text.into_iter().map(c_char::cast_unsigned).collect())
    }

    fn cubin(&self) -> Result<Vec<u8>, Fault> {
        let mut size = 0;
        // SAFETY: the program is alive and compiled, `size` may be written.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut size) }.result().map_err(fault)?;
        let mut image = vec![0; size];
        // SAFETY: `image` has the bytes that the compiler asked for.
        unsafe { sys::nvrtcGetCUBIN(self.0, image.as_mut_ptr().cast()) }.result().map_err(fault)?;
        Ok(image)
    }

    fn fault(&self, error: NvrtcError) -> Fault {
        // SAFETY: the program is alive.
        let log = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        let log: Vec<u8> = log.into_iter().map(c_char::cast_unsigned).collect();
        let log = String::from_utf8_lossy(&log);
        Fault::Compile { log: format!("{error}: {}", log.trim_end_matches(['\0', '\n'])) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `create_program` and not destroyed before. It cannot fail then.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn fault(error: NvrtcError) -> Fault {
    Fault::Compile { log: error.to_string() }
}

/// In an order in which names are known before they are used.
const SOURCES: [(&str, &str); 9] = [
    ("warp.cuh", include_str!("warp.cuh")),
    ("affine.cuh", include_str!("affine.cuh")),
    ("elementwise.cu", include_str!("elementwise.cu")),
    ("embed.cu", include_str!("embed.cu")),
    ("matmul.cu", include_str!("matmul.cu")),
    ("matmul_affine.cu", include_str!("matmul_affine.cu")),
    ("rms_norm.cu", include_str!("rms_norm.cu")),
    ("swiglu.cu", include_str!("swiglu.cu")),
    ("unary.cu", include_str!("unary.cu")),
];
