//! What lies beside a guest in its store: everything that its calls of the host work on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::Host;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Result};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::engine::Seat;
use super::lend::Lent;
use super::wasi;
use crate::quotas::Live;

/// The data of one store.
pub(super) struct State {
    /// The services of the plugin, with its grants.
    pub(super) host: Host,
    /// What is lent for the call that runs.
    pub(super) lent: Lent,
    /// Why the guest says that it traps.
    pub(super) fault: Option<String>,
    /// Time that the host has worked for the guest since its deadline was last set.
    pub(super) worked: Duration,
    /// Handles that the guest holds.
    pub(super) table: ResourceTable,
    pub(super) limits: Limits,
    wasi: WasiCtx,
    /// What was printed of a line that has not ended.
    line: Vec<u8>,
    /// Counted as long as the store lives.
    _seat: Seat,
}

impl State {
    pub(super) fn new(host: &Host, quotas: &Arc<Live>, seat: Seat) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        Self {
            host: host.clone(),
            lent: Lent::Nothing,
            fault: None,
            worked: Duration::ZERO,
            table,
            limits: Limits { quotas: Arc::clone(quotas), asked: None },
            wasi: wasi::nothing(host),
            line: Vec::new(),
            _seat: seat,
        }
    }

    /// Does something for the guest that may take long: its deadline moves by as much.
    pub(super) fn working<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        let start = Instant::now();
        let done = work(self);
        self.worked += start.elapsed();
        done
    }

    /// Makes log lines of what the guest prints.
    pub(super) fn print(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
            }
            if byte == b'\n' || self.line.len() == LINE_BYTES_MAX {
                self.host.info(format_args!("{}", String::from_utf8_lossy(&self.line)));
                self.line.clear();
            }
        }
    }

    /// Adds to why the guest says that it traps.
    pub(super) fn say_fault(&mut self, message: &str) {
        let message: String = message.chars().take(FAULT_CHARS_MAX).collect();
        self.fault = Some(message);
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// How much memory an instance may have, and whether it asked for more.
pub(super) struct Limits {
    quotas: Arc<Live>,
    /// The first size over the limit that was asked for, and the limit then, in bytes.
    asked: Option<(usize, usize)>,
}

impl Limits {
    /// What was asked for over the limit, and the limit, in bytes.
    pub(super) fn exceeded(&self) -> Option<(usize, usize)> {
        self.asked
    }
}

impl ResourceLimiter for Limits {
    /// A refusal is what `memory.grow` answers: guests may cope, most trap.
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let memory_bytes_max = self.quotas.memory_bytes();
        if desired <= memory_bytes_max {
            return Ok(true);
        }
        self.asked.get_or_insert((desired, memory_bytes_max));
        Ok(false)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

/// Handles of configuration, files and streams at a time, per instance.
const HANDLES_MAX: usize = 1 << 16;

/// Functions in a table: an interpreter of a language has some ten thousand.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Longer lines are logged in pieces.
const LINE_BYTES_MAX: usize = 4096;

/// What a guest may add to an error.
const FAULT_CHARS_MAX: usize = 4096;

/// The name of a plugin, for errors.
pub(super) type Name = Arc<str>;
