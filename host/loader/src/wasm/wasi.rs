//! WASI with everything denied: what the standard libraries of guest languages are linked against.
//!
//! No files, no environment, no arguments, no network, and nothing that waits: a deadline cannot
//! interrupt the host. What a plugin prints becomes log lines. The time of day is 1970 unless the
//! plugin was granted `clock`.

use std::time::Duration;

use plugin_api::Host;
use wasmtime::component::{Linker, Resource};
use wasmtime::{Result, StoreContextMut, bail};
use wasmtime_wasi::p2::bindings::sync::io::streams::StreamError;
use wasmtime_wasi::p2::pipe::SinkOutputStream;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx};

use super::state::State;

/// The context of an instance that may nothing.
pub(super) fn nothing(host: &Host) -> WasiCtx {
    WasiCtx::builder()
        .wall_clock(TimeOfDay(host.clone()))
        .monotonic_clock(SinceStart(host.clone()))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

/// Adds WASI 0.2, and in the place of whatever waits something that does not.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    let mut poll = linker.instance(&format!("wasi:io/poll@{VERSION}"))?;
    poll.func_wrap("[method]pollable.block", |_, (_,): (Resource<DynPollable>,)| waits::<()>())?;
    poll.func_wrap("poll", |_, (_,): (Vec<Resource<DynPollable>>,)| waits::<(Vec<u32>,)>())?;
    for (interface, function) in [("stdout", "get-stdout"), ("stderr", "get-stderr")] {
        let mut io = linker.instance(&format!("wasi:cli/{interface}@{VERSION}"))?;
        io.func_wrap(function, |mut store, ()| {
            let state: &mut State = store.data_mut();
            let stream: DynOutputStream = Box::new(SinkOutputStream);
            Ok((state.table.push(stream)?,))
        })?;
    }
    // There are no streams but these two, the empty input and what files and sockets would have.
    let mut streams = linker.instance(&format!("wasi:io/streams@{VERSION}"))?;
    for write in ["write", "blocking-write-and-flush"] {
        streams.func_wrap(&format!("[method]output-stream.{write}"), print)?;
    }
    for flush in ["flush", "blocking-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{flush}"),
            |_, (_,): (Resource<DynOutputStream>,)| Ok((Ok::<(), StreamError>(()),)),
        )?;
    }
    for read in ["read", "blocking-read"] {
        streams.func_wrap(
            &format!("[method]input-stream.{read}"),
            |_, (_, _): (Resource<DynInputStream>, u64)| {
                Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
            },
        )?;
    }
    linker.allow_shadowing(false);
    Ok(())
}

fn waits<R>() -> Result<R> {
    bail!("wasi: waiting is denied to plugins: the step cannot wait with them")
}

type Written = (std::result::Result<(), StreamError>,);

fn print(
    mut store: StoreContextMut<'_, State>,
    (_, bytes): (Resource<DynOutputStream>, Vec<u8>),
) -> Result<Written> {
    store.data_mut().print(&bytes);
    Ok((Ok(()),))
}

struct TimeOfDay(Host);

impl HostWallClock for TimeOfDay {
    fn resolution(&self) -> Duration {
        Duration::from_micros(1)
    }

    fn now(&self) -> Duration {
        let seconds = self.0.services().unix_seconds().unwrap_or(0.0);
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

struct SinceStart(Host);

impl HostMonotonicClock for SinceStart {
    fn resolution(&self) -> u64 {
        1_000
    }

    fn now(&self) -> u64 {
        self.0.services().monotonic_us().saturating_mul(1_000)
    }
}

/// As linked by `wasmtime-wasi`; the linker takes imports of other patch versions for the same.
const VERSION: &str = "0.2.12";
