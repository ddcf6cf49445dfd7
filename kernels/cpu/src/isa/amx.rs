//! Whether this process may use AMX: the processor has it, and the system allows its state.

use std::sync::LazyLock;

/// Asks the processor and the system once.
pub(super) fn is_available() -> bool {
    static FOUND: LazyLock<bool> = LazyLock::new(|| is_in_processor() && is_allowed());
    *FOUND
}

/// AMX-TILE and AMX-INT8: Intel, "Intel 64 and IA-32 Architectures Software Developer's Manual",
/// volume 2, CPUID leaf 7.
fn is_in_processor() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx >> 24 & 0b11 == 0b11
}

/// Linux keeps the state of tiles for processes that asked for it: `arch_prctl(ARCH_REQ_XCOMP_PERM,
/// XFEATURE_XTILEDATA)`, documented in its `arch/x86/xstate.rst`. Threads of the process may use it
/// from then on. An old system, or one that does not manage the state, answers with an error.
#[cfg(target_os = "linux")]
fn is_allowed() -> bool {
    const ARCH_PRCTL: usize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let answer: isize;
    // SAFETY: a system call that reads and writes no memory of this process; the registers that
    // the system changes are named.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

#[cfg(not(target_os = "linux"))]
fn is_allowed() -> bool {
    false
}
