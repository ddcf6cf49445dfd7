//! That every kernel compiles, for machine code and for the driver's translator. Needs NVRTC, but
//! no device.

use kernels_cuda::{Fault, Target, compile};

const KERNELS: [&str; 8] = [
    "elementwise",
    "unary",
    "embed",
    "embed_affine",
    "matmul",
    "matmul_affine",
    "rms_norm",
    "swiglu",
];

/// The image; nothing, with the reason printed, where there is no compiler.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn compiled(target: Target) -> Option<Vec<u8>> {
    match compile(target) {
        Err(fault @ Fault::NoCompiler) => {
            eprintln!("skipped: {fault}");
            assert!(std::env::var_os("REQUIRE_GPU").is_none(), "REQUIRE_GPU is set: {fault}");
            None
        }
        image => Some(image.unwrap_or_else(|fault| panic!("{fault}"))),
    }
}

#[test]
fn every_kernel_compiles_to_ptx() {
    let Some(image) = compiled(Target::Ptx(80)) else { return };
    let text = String::from_utf8(image).expect("PTX is text");
    for kernel in KERNELS {
        assert!(text.contains(&format!(".entry {kernel}(")), "{kernel} is not in the image");
    }
    assert!(text.ends_with('\0'), "the driver reads up to a zero");
}

#[test]
fn every_kernel_compiles_to_machine_code() {
    let Some(image) = compiled(Target::Cubin(90)) else { return };
    assert_eq!(image[..4], *b"\x7fELF");
    for kernel in KERNELS {
        let section = format!(".text.{kernel}\0");
        let mut names = image.windows(section.len());
        assert!(names.any(|bytes| bytes == section.as_bytes()), "{kernel} is not in the image");
    }
}

#[test]
fn an_unknown_target_is_said_in_the_words_of_the_compiler() {
    if compiled(Target::Ptx(80)).is_none() {
        return;
    }
    let error = compile(Target::Cubin(7)).expect_err("there is no such capability");
    assert!(error.to_string().contains("gpu-architecture"), "{error}");
}
