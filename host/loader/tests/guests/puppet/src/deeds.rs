//! What a plugin must not do, each by name.

#![allow(unsafe_code, reason = "most of it is not to be had otherwise")]

use std::hash::{BuildHasher as _, Hasher as _};
use std::hint::black_box;

use plugin_api::{Error, Result};

/// Does what `mode`, as `deed@point`, says for this point.
pub(crate) fn at(mode: &str, point: &str) -> Result<()> {
    match mode.split_once('@') {
        Some((deed, at)) if at == point => doing(deed, point),
        _ => Ok(()),
    }
}

fn doing(deed: &str, point: &str) -> Result<()> {
    match deed {
        "error" => return Err(Error::outside("puppet", format!("refused at {point}"))),
        "panic" => panic!("the puppet panics at {point}"),
        "double-panic" => {
            let _second = PanicsOnDrop;
            panic!("the puppet panics at {point}");
        }
        "panic-payload" => std::panic::panic_any(PanicsOnDrop),
        "hang" => hang(),
        "abort" => std::process::abort(),
        "exit" => exit(7),
        "segfault" => segfault(),
        "overflow" => {
            black_box(overflow(1));
        }
        "oom" => loop {
            // Never touched: it is the address space that ends.
            std::mem::forget(black_box(Vec::<u8>::with_capacity(64 << 20)));
        },
        "leak-memory" => std::mem::forget(black_box(vec![1_u8; 1 << 20])),
        "leak-file" => std::mem::forget(std::fs::File::open("/dev/null")),
        #[cfg(not(any(target_family = "wasm", feature = "threadless")))]
        "leak-thread" => drop(std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        })),
        // More than a pipe or a socket holds.
        "shout" => {
            (0..1 << 14).for_each(|_| println!("{:63}", "the puppet shouts"));
            return Err(Error::outside("puppet", format!("hoarse at {point}")));
        }
        "thread-local" => KEEPS.with(|kept| drop(kept.borrow_mut().0.insert(7))),
        "thread-handle" => drop(black_box(std::thread::current())),
        #[cfg(not(target_family = "wasm"))]
        "thread-key" => thread_key(),
        "print" => println!("the puppet talks at {point}"),
        #[cfg(feature = "forbidden")]
        "signal" => forbidden::signal(),
        #[cfg(feature = "forbidden")]
        "chdir" => drop(std::env::set_current_dir("/")),
        // SAFETY: none; that is why nobody may.
        #[cfg(feature = "forbidden")]
        "env" => unsafe { std::env::set_var("PUPPET", point) },
        #[cfg(feature = "forbidden")]
        "real-exit" => std::process::exit(7),
        #[cfg(feature = "programs")]
        "program" => drop(std::process::Command::new("true").status()),
        other => panic!("the puppet knows no deed `{other}`"),
    }
    Ok(())
}

/// Another number each time.
pub(crate) fn random() -> f32 {
    let hash = std::hash::RandomState::new().build_hasher().finish();
    (hash % 1000) as f32 / 1000.0
}

struct Keeps(Option<u32>);

impl Drop for Keeps {
    fn drop(&mut self) {
        // Code of this library, when the thread ends.
        black_box(self.0);
    }
}

thread_local! {
    static KEEPS: std::cell::RefCell<Keeps> = const { std::cell::RefCell::new(Keeps(None)) };
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("the puppet panics once more");
    }
}

fn hang() -> ! {
    loop {
        #[cfg(not(target_family = "wasm"))]
        std::thread::sleep(std::time::Duration::from_millis(1));
        #[cfg(target_family = "wasm")]
        std::hint::spin_loop();
    }
}

fn overflow(n: u64) -> u64 {
    let page = black_box([n; 512]);
    if black_box(n) == 0 { 0 } else { overflow(n + 1) + page[n as usize % 512] }
}

/// Ends the process without the C library, whose `exit` would show among the imports.
fn exit(status: usize) {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    // SAFETY: `exit_group` does not come back.
    unsafe {
        std::arch::asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn));
    }
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("svc 0", in("x8") 94, in("x0") status, options(noreturn));
    }
    #[cfg(target_family = "wasm")]
    std::process::exit(status as i32);
}

fn segfault() {
    #[cfg(target_family = "wasm")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_family = "wasm"))]
    // SAFETY: none: nothing is ever mapped there.
    unsafe {
        std::ptr::without_provenance_mut::<u8>(black_box(8)).write_volatile(1);
    }
}

/// Asks for a thread key with a destructor of this library, and never gives it back.
#[cfg(not(target_family = "wasm"))]
fn thread_key() {
    unsafe extern "C" {
        fn pthread_key_create(key: *mut u32, destructor: extern "C" fn(usize)) -> i32;
    }
    extern "C" fn destructor(_value: usize) {}
    let mut key = 0;
    // SAFETY: the key is written here.
    assert_eq!(unsafe { pthread_key_create(&raw mut key, destructor) }, 0, "a free key");
}

#[cfg(feature = "forbidden")]
mod forbidden {
    unsafe extern "C" {
        #[link_name = "signal"]
        fn set_signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    }

    extern "C" fn ignore(_number: i32) {}

    /// Takes `SIGUSR1` for itself.
    pub(super) fn signal() {
        // SAFETY: none; that is why nobody may.
        unsafe { set_signal(10, ignore) };
    }
}
