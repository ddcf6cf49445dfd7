//! The two engines: one whose calls have a deadline, for plugins that nobody vouches for, and one
//! without, for those that the operator trusts.
//!
//! Deadlines cost a check on every back edge of a loop, which makes tight loops several times
//! slower; trusted plugins are spared that and may hang.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use plugin_api::{Error, Result};
use wasmtime::component::Linker;
use wasmtime::{Config, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::error::WasmError;
use super::state::{State, TABLE_ELEMENTS_MAX};
use super::{WasmOptions, graph, model_source, rows, services, settings, wasi};
use crate::quotas::{Live, MEMORY_BYTES};

/// An engine with everything that its instances share.
pub(super) struct Lane {
    pub(super) engine: Engine,
    pub(super) linker: Linker<State>,
    seats: Arc<Seats>,
    ticker: Option<Ticker>,
}

impl Lane {
    pub(super) fn new(
        options: &WasmOptions,
        quotas: &Arc<Live>,
        is_trusted: bool,
    ) -> Result<Self, WasmError> {
        let failed = |error: wasmtime::Error| WasmError::Engine { message: format!("{error:#}") };
        let engine = Engine::new(&config(options, is_trusted)).map_err(failed)?;
        let linker = linker(&engine).map_err(failed)?;
        let seats = Seats { taken: AtomicUsize::new(0), quotas: Arc::clone(quotas) };
        let ticker = (!is_trusted).then(|| Ticker::new(engine.weak()));
        Ok(Self { engine, linker, seats: Arc::new(seats), ticker })
    }

    /// Room for one more instance.
    pub(super) fn seat(&self) -> Result<Seat> {
        let seats = Arc::clone(&self.seats);
        let taken = seats.taken.fetch_add(1, Ordering::Relaxed);
        let ticks = self.ticker.as_ref().map(Ticker::hold);
        // Counts down when dropped, the refusal included.
        let seat = Seat { seats, _ticks: ticks };
        if taken < seat.seats.quotas.instances() {
            return Ok(seat);
        }
        let what = "WASM instances (`instances_max`)".into();
        Err(Error::NoSpace { what, needed: 1, free: 0 })
    }
}

fn config(options: &WasmOptions, is_trusted: bool) -> Config {
    let instances = u32::try_from(options.instances_max).unwrap_or(u32::MAX).max(1);
    let mut pool = PoolingAllocationConfig::new();
    // Components of interpreted languages consist of a dozen core modules and share one memory.
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(CORE_INSTANCES))
        .max_core_instance_size(8 << 20)
        .max_component_instance_size(8 << 20)
        .table_elements(TABLE_ELEMENTS_MAX)
        // Quotas say how much of it an instance may have.
        .max_memory_size(*MEMORY_BYTES.end())
        .max_unused_warm_slots(0)
        // Calls run on the stack of the caller.
        .total_stacks(1);
    let mut config = Config::new();
    config
        .epoch_interruption(!is_trusted)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        // Instances run on the caller's stack and finish within the call.
        .concurrency_support(false)
        .wasm_backtrace_max_frames(None)
        .native_unwind_info(false)
        .generate_address_map(false);
    config
}

/// Everything that is offered to any kind. What a kind may import is checked before.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    settings::add_to_linker(&mut linker)?;
    services::add_to_linker(&mut linker)?;
    rows::add_to_linker(&mut linker)?;
    graph::add_to_linker(&mut linker)?;
    model_source::add_to_linker(&mut linker)?;
    Ok(linker)
}

struct Seats {
    taken: AtomicUsize,
    quotas: Arc<Live>,
}

/// An instance's place among those that may be.
pub(super) struct Seat {
    seats: Arc<Seats>,
    _ticks: Option<Ticks>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Advances the epoch of an engine every millisecond, while somebody holds it.
struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Holders>,
    changed: Condvar,
}

#[derive(Default)]
struct Holders {
    count: usize,
    is_closed: bool,
}

/// Keeps a [`Ticker`] ticking.
struct Ticks(Arc<Shared>);

impl Ticker {
    fn new(engine: EngineWeak) -> Self {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let tick = move || {
            while theirs.wait_until_held() {
                std::thread::sleep(TICK);
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        };
        let thread = std::thread::Builder::new().name("wasm-ticker".to_owned()).spawn(tick);
        // Without the thread there would be no deadlines: `hold` is then never enough, and calls
        // have a deadline in epochs that never come. Machines without threads run nothing else.
        Self { shared, thread: thread.ok() }
    }

    fn hold(&self) -> Ticks {
        self.shared.change(|holders| holders.count += 1);
        Ticks(Arc::clone(&self.shared))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.change(|holders| holders.is_closed = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.0.change(|holders| holders.count -= 1);
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Holders)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// Waits until there is somebody to tick for; false once the ticker is closed.
    fn wait_until_held(&self) -> bool {
        let mut holders = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while holders.count == 0 && !holders.is_closed {
            holders = self.changed.wait(holders).unwrap_or_else(PoisonError::into_inner);
        }
        !holders.is_closed
    }
}

/// What one epoch lasts.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Core instances and tables of one component, on average.
const CORE_INSTANCES: u32 = 8;
