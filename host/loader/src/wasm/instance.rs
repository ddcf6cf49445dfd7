//! One instance of a component: calls with a deadline, and what becomes of it when one fails.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use plugin_api::kinds::logits_processor::RowAccess;
use plugin_api::native::Owner;
use plugin_api::plan::{OpSink, Val};
use plugin_api::{Config, Error, Host, Result};
use wasmtime::component::Resource;
use wasmtime::{Store, StoreContextMut, Trap, UpdateDeadline};

use super::bindings::offers::jackfield::plugin::types;
use super::convert::error_of;
use super::engine::{Lane, TICK};
use super::lend::Lending;
use super::settings::Table;
use super::state::{Name, State};
use crate::owner::Generation;
use crate::quotas::Live;

/// What a call of a guest gives: an error outside is a trap, one inside is the guest's answer.
pub(super) type Outcome<R> = wasmtime::Result<std::result::Result<R, types::Error>>;

/// What all instances of one loaded component share.
pub(super) struct Plugin {
    pub(super) name: Name,
    pub(super) host: Host,
    pub(super) generation: Arc<Generation>,
    pub(super) lane: Arc<Lane>,
    pub(super) quotas: Arc<Live>,
    pub(super) is_trusted: bool,
}

/// How long a call may take, and the epochs that it lasts.
#[derive(Debug, Clone, Copy)]
struct Limit {
    time: Duration,
    ticks: u64,
}

impl Limit {
    fn new(time: Duration) -> Self {
        // Milliseconds, as ticks are; one more, since the epoch that runs has begun already, and one for
        // what is left of a millisecond.
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2);
        let ticks = ms + u64::from(!time.subsec_nanos().is_multiple_of(NANOS_PER_TICK)) + 1;
        Self { time, ticks }
    }
}

const NANOS_PER_TICK: u32 = TICK.subsec_nanos();

/// An instance with the exports `W`. After a trap it is never called again: its memory may be
/// half changed. It answers with the error of that trap until its owner makes another.
pub(super) struct Instance<W> {
    world: W,
    store: Store<State>,
    plugin: Arc<Plugin>,
    fault: Option<Error>,
    /// Counts this instance, and is told what stops it.
    owner: Arc<dyn Owner>,
}

impl<W> Instance<W> {
    /// Instantiates, and lets the guest read its configuration.
    pub(super) fn create(
        plugin: &Arc<Plugin>,
        instantiate: impl FnOnce(&mut Store<State>) -> wasmtime::Result<W>,
        config: &Config,
        create: impl FnOnce(&W, &mut Store<State>, Resource<Table>) -> Outcome<()>,
    ) -> Result<Self> {
        let seat = plugin.lane.seat()?;
        let state = State::new(&plugin.host, &plugin.quotas, seat);
        let mut store = Store::new(&plugin.lane.engine, state);
        store.limiter(|state| &mut state.limits);
        let limit = Limit::new(plugin.quotas.create());
        if !plugin.is_trusted {
            store.epoch_deadline_callback(at_deadline);
        }
        start_clock(&mut store, plugin, limit);
        let world = match instantiate(&mut store) {
            Ok(world) => world,
            Err(error) => return Err(fault_of(plugin, &mut store, &error, limit)),
        };
        let (plugin, owner) = (Arc::clone(plugin), plugin.generation.owner(None));
        let mut instance = Self { world, store, plugin, fault: None, owner };
        instance.limited_with(limit, config, create)?;
        Ok(instance)
    }

    /// Calls the guest.
    pub(super) fn call<R>(
        &mut self,
        call: impl FnOnce(&W, &mut Store<State>) -> Outcome<R>,
    ) -> Result<R> {
        self.limited(Limit::new(self.plugin.quotas.call()), call)
    }

    /// Calls the guest for something that people wait for.
    pub(super) fn call_slow<R>(
        &mut self,
        call: impl FnOnce(&W, &mut Store<State>) -> Outcome<R>,
    ) -> Result<R> {
        self.limited(Limit::new(self.plugin.quotas.fetch()), call)
    }

    /// Calls the guest with a table that it may look at meanwhile.
    pub(super) fn call_with<R>(
        &mut self,
        config: &Config,
        call: impl FnOnce(&W, &mut Store<State>, Resource<Table>) -> Outcome<R>,
    ) -> Result<R> {
        self.limited_with(Limit::new(self.plugin.quotas.call()), config, call)
    }

    /// Calls the guest with rows that it may edit meanwhile.
    pub(super) fn call_rows<R>(
        &mut self,
        rows: &mut dyn RowAccess,
        call: impl FnOnce(&W, &mut Store<State>) -> Outcome<R>,
    ) -> Result<R> {
        self.call(|world, store| call(world, &mut Lending::rows(store, rows)))
    }

    /// Calls the guest with a table and a sink into which it may trace meanwhile.
    pub(super) fn call_sink<R>(
        &mut self,
        sink: &mut dyn OpSink,
        given: &[Val],
        config: &Config,
        call: impl FnOnce(&W, &mut Store<State>, Resource<Table>) -> Outcome<R>,
    ) -> Result<R> {
        self.call_with(config, |world, store, table| {
            call(world, &mut Lending::sink(store, sink, given), table)
        })
    }

    /// Why the instance is not called any more.
    pub(super) fn fault(&self) -> Option<&Error> {
        self.fault.as_ref()
    }

    /// An answer that no guest should give: the instance is not called any more.
    pub(super) fn refuse<R>(&mut self, what: &str, expected: &str, found: &str) -> Result<R> {
        let message = format!("{what}: expected {expected}, found {found}");
        Err(self.stop(Error::outside(format!("plugin `{}`", self.plugin.name), message)))
    }

    /// Passes on what was found of an answer: what no guest should give is a fault.
    pub(super) fn judged<R>(&mut self, found: Result<R>) -> Result<R> {
        found.map_err(|error| self.stop(error))
    }

    /// Tells the owner of an error that nobody but the guest is to blame for, unless it is the one in
    /// `told`. What stopped the instance was told then.
    #[cold]
    pub(super) fn blame(&self, error: &Error, told: &mut Option<Error>) {
        if self.fault.is_none() && told.as_ref() != Some(error) {
            self.owner.fault(error);
            *told = Some(error.clone());
        }
    }

    fn limited_with<R>(
        &mut self,
        limit: Limit,
        config: &Config,
        call: impl FnOnce(&W, &mut Store<State>, Resource<Table>) -> Outcome<R>,
    ) -> Result<R> {
        self.limited(limit, |world, store| {
            let own = store.data_mut().table.push(Table(config.clone()))?;
            let outcome = call(world, store, Resource::new_borrow(own.rep()));
            store.data_mut().table.delete(own)?;
            outcome
        })
    }

    fn limited<R>(
        &mut self,
        limit: Limit,
        call: impl FnOnce(&W, &mut Store<State>) -> Outcome<R>,
    ) -> Result<R> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        self.plugin.generation.count_call();
        start_clock(&mut self.store, &self.plugin, limit);
        match call(&self.world, &mut self.store) {
            Ok(answer) => answer.map_err(error_of),
            Err(error) => {
                let fault = fault_of(&self.plugin, &mut self.store, &error, limit);
                Err(self.stop(fault))
            }
        }
    }

    fn stop(&mut self, fault: Error) -> Error {
        self.plugin.host.warn(format_args!("stopped: {fault}"));
        self.fault = Some(fault.clone());
        self.owner.fault(&fault);
        fault
    }
}

fn start_clock(store: &mut Store<State>, plugin: &Plugin, limit: Limit) {
    if !plugin.is_trusted {
        store.data_mut().worked = Duration::ZERO;
        store.set_epoch_deadline(limit.ticks);
    }
}

/// The deadline is one of the guest: what the host did for it meanwhile does not count.
fn at_deadline(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let worked = std::mem::take(&mut store.data_mut().worked);
    let ticks = u64::try_from(worked.as_nanos() / TICK.as_nanos()).unwrap_or(0);
    Ok(if ticks == 0 { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(ticks) })
}

/// What a trap means: the limit that was hit, the words that the guest left, or the trap itself.
fn fault_of(
    plugin: &Plugin,
    store: &mut Store<State>,
    error: &wasmtime::Error,
    limit: Limit,
) -> Error {
    let said = store.data_mut().fault.take();
    let trap = error.downcast_ref::<Trap>();
    let message = match (trap, store.data().limits.exceeded(), said) {
        (Some(Trap::Interrupt), _, _) => {
            format!("stopped at its deadline of {} ms", limit.time.as_millis())
        }
        (Some(Trap::StackOverflow), _, _) => "its stack overflowed".to_owned(),
        (_, Some((asked, max)), said) => {
            let said = said.map_or_else(String::new, |said| format!(": {said}"));
            format!("asked for {asked} bytes of memory, `memory_bytes_max` is {max}{said}")
        }
        (Some(_), None, Some(said)) => said,
        _ => error.root_cause().to_string(),
    };
    Error::outside(format!("plugin `{}`", plugin.name), message)
}

/// Instances of one plugin for a kind that many threads share. Calls that meet, or that call each
/// other through a slot, get an instance each.
pub(super) struct Shared<W> {
    make: Box<dyn Fn() -> Result<Instance<W>> + Send + Sync>,
    idle: Mutex<Vec<Instance<W>>>,
    fault: OnceLock<Error>,
}

impl<W> Shared<W> {
    /// Starts with one instance, so that what cannot be made is known at once.
    pub(super) fn new(
        make: impl Fn() -> Result<Instance<W>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let idle = Mutex::new(vec![make()?]);
        Ok(Self { make: Box::new(make), idle, fault: OnceLock::new() })
    }

    /// Calls `act` with an instance that nobody else uses.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Instance<W>) -> Result<R>) -> Result<R> {
        if let Some(fault) = self.fault.get() {
            return Err(fault.clone());
        }
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle().pop();
        let mut instance = match found {
            Some(instance) => instance,
            None => (self.make)()?,
        };
        let result = act(&mut instance);
        match instance.fault() {
            Some(fault) => {
                // Whichever call met a trap first is the one to tell of.
                let _ = self.fault.set(fault.clone());
            }
            None => idle().push(instance),
        }
        result
    }
}
