//! Runs trials for programs that embed the loader and cannot call [`trial::main`] themselves.
//!
//! [`trial::main`]: jackfield_loader::trial::main

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    jackfield_loader::trial::main(&args)
}
