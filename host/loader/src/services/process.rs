//! Programs: run to their end, watched, with bounded output, ended with their host.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use plugin_api::host::{Command, Ended};
use plugin_api::{Error, Result};

use super::outside;

pub(super) fn run(
    command: &Command,
    folder: Option<&Path>,
    is_stopping: &AtomicBool,
    tick: &mut dyn FnMut(),
) -> Result<Ended> {
    let mut program = Program::new(&command.program);
    program
        .args(&command.args)
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(folder) = folder {
        program.current_dir(folder);
    }
    let child = program.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::NotFound {
            kind: "program".to_owned(),
            name: command.program.clone(),
            known: String::new(),
        },
        _ => failed(command, &error),
    })?;
    let mut running = Running(child);
    let output = running.0.stdout.take().map(read_tail);
    let errors = running.0.stderr.take().map(read_tail);
    for poll in 1_u32.. {
        if let Some(status) = running.0.try_wait().map_err(|error| failed(command, &error))? {
            let (output, errors) = (text(output), text(errors));
            return Ok(Ended { status: status.code(), output, errors });
        }
        if is_stopping.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(POLL);
        if poll.is_multiple_of(POLLS_PER_TICK) {
            tick();
        }
    }
    Err(Error::outside(format_args!("`{}`", command.program), "ended because the host stops"))
}

/// Ends the program when it is dropped, also by a panic in `tick`.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if the program has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads to the end on a thread of its own, so that a full pipe never blocks the program, and
/// keeps the last [`OUTPUT_BYTES_MAX`] bytes.
fn read_tail(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut tail = Vec::new();
        let mut piece = [0; 8 * 1024];
        while let Ok(len @ 1..) = from.read(&mut piece) {
            tail.extend_from_slice(&piece[..len]);
            let excess = tail.len().saturating_sub(OUTPUT_BYTES_MAX);
            tail.drain(..excess);
        }
        tail
    })
}

/// What was read. A grandchild may hold the pipe open: it is waited for only shortly.
fn text(reader: Option<JoinHandle<Vec<u8>>>) -> String {
    let Some(reader) = reader else { return String::new() };
    for _ in 0..50 {
        if reader.is_finished() {
            return String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned();
        }
        thread::sleep(POLL);
    }
    String::new()
}

fn failed(command: &Command, error: &std::io::Error) -> Error {
    outside(format_args!("cannot run `{}`", command.program), error)
}

const POLL: Duration = Duration::from_millis(20);
/// One tick every 100 ms.
const POLLS_PER_TICK: u32 = 5;
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
