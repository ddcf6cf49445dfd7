//! What plugins may take: read at every call, so that an operator changes it while they run.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use plugin_api::Error;

use crate::wasm::WasmOptions;

/// What plugins from files may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Native plugins that may be mapped.
    pub native_mapped: usize,
    /// Most memory of one component, in bytes.
    pub memory_bytes: usize,
    /// How long one call of an untrusted component may take.
    pub call: Duration,
    /// How long making an untrusted component may take.
    pub create: Duration,
    /// How long an untrusted model source may take for a model.
    pub fetch: Duration,
    /// Instances of components at a time, of trusted and of untrusted ones each.
    pub instances: usize,
}

/// Quotas that are in force.
#[derive(Debug)]
pub(crate) struct Live {
    native_mapped: AtomicUsize,
    memory_bytes: AtomicUsize,
    call_us: AtomicU64,
    create_us: AtomicU64,
    fetch_us: AtomicU64,
    instances: AtomicUsize,
    /// Instances that address space was set aside for.
    instances_room: usize,
}

impl Live {
    pub(crate) fn new(native_mapped: usize, options: &WasmOptions) -> Self {
        Self {
            native_mapped: native_mapped.into(),
            memory_bytes: options.memory_bytes_max.into(),
            call_us: micros(options.call_limit).into(),
            create_us: micros(options.create_limit).into(),
            fetch_us: micros(options.fetch_limit).into(),
            instances: options.instances_max.into(),
            instances_room: options.instances_max,
        }
    }

    pub(crate) fn read(&self) -> Quotas {
        Quotas {
            native_mapped: self.native_mapped.load(Ordering::Relaxed),
            memory_bytes: self.memory_bytes(),
            call: self.call(),
            create: self.create(),
            fetch: self.fetch(),
            instances: self.instances(),
        }
    }

    /// Puts other quotas in force, from the next call on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for the first that is out of its range; all stay as they were.
    pub(crate) fn change(&self, to: &Quotas) -> Result<(), Error> {
        let memory = MEMORY_BYTES;
        check("memory_bytes", to.memory_bytes, memory)?;
        // Address space is set aside once.
        check("instances", to.instances, 1..=self.instances_room)?;
        for (key, time) in [("call", to.call), ("create", to.create), ("fetch", to.fetch)] {
            check(&format!("{key} (microseconds)"), micros(time) as usize, 1..=usize::MAX >> 1)?;
        }
        self.native_mapped.store(to.native_mapped, Ordering::Relaxed);
        self.memory_bytes.store(to.memory_bytes, Ordering::Relaxed);
        self.call_us.store(micros(to.call), Ordering::Relaxed);
        self.create_us.store(micros(to.create), Ordering::Relaxed);
        self.fetch_us.store(micros(to.fetch), Ordering::Relaxed);
        self.instances.store(to.instances, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn native_mapped(&self) -> usize {
        self.native_mapped.load(Ordering::Relaxed)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn instances(&self) -> usize {
        self.instances.load(Ordering::Relaxed)
    }

    pub(crate) fn call(&self) -> Duration {
        Duration::from_micros(self.call_us.load(Ordering::Relaxed))
    }

    pub(crate) fn create(&self) -> Duration {
        Duration::from_micros(self.create_us.load(Ordering::Relaxed))
    }

    pub(crate) fn fetch(&self) -> Duration {
        Duration::from_micros(self.fetch_us.load(Ordering::Relaxed))
    }
}

fn check(key: &str, value: usize, range: RangeInclusive<usize>) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("a number in {}..={}", range.start(), range.end());
    Err(Error::Config { key: format!("quotas.{key}"), expected, found: value.to_string() })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What the memory of an instance may be limited to: from one page to all that 32 bits address.
pub(crate) const MEMORY_BYTES: RangeInclusive<usize> = 1 << 16..=1 << 32;
