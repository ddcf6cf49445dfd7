//! Persistent threads that divide one instruction at a time.
//!
//! A job is a number of chunks that whoever comes first claims one by one; the caller works, too,
//! and waits only for threads that hold a chunk. A thread that lost its core to a neighbour before
//! it joined delays nobody. Idle threads spin for some microseconds, the time between two
//! instructions, and then sleep. Nothing is allocated or locked for a job.

use std::cell::UnsafeCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};

use plugin_api::{Error, Result};

/// The threads of a backend. Dropping it ends them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Handles to wake them with.
    threads: Vec<Thread>,
    is_busy: AtomicBool,
}

/// The exclusive use of a pool's threads, or of the caller's alone.
pub(crate) struct Crew<'p> {
    /// `None` where another run has the threads.
    pool: Option<&'p Pool>,
}

/// A chunk's work, called with the chunk's index.
type Job<'j> = dyn Fn(usize) + Sync + 'j;

struct Shared {
    /// The number of the job in the high half, whether it takes threads, and how many have joined.
    gate: AtomicU64,
    /// Chunks that were claimed.
    next: AtomicUsize,
    job: UnsafeCell<Option<(*const Job<'static>, usize)>>,
    has_panicked: AtomicBool,
    is_over: AtomicBool,
    /// One for each worker: whether it sleeps, or is about to.
    asleep: Vec<AtomicBool>,
}

// SAFETY: `job` is written only while the gate is closed and nobody has joined, and read only by
// threads that have joined through the open gate.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is to something `Sync`, used only while its owner waits.
unsafe impl Send for Shared {}

const OPEN: u64 = 1 << 31;
const JOINED: u64 = OPEN - 1;

/// Looks at the gate before a worker lets others run: about 50 µs.
const SPINS_MAX: u32 = 1_000;
/// Looks at the gate, others running in between, before a worker sleeps: about as long as it takes to wake one up where
/// processors are virtual, half a millisecond or more, so that the time between two steps costs no more than that.
const YIELDS_MAX: u32 = 2_000;
/// Looks at the gate before the caller lets others run while it waits.
const WAITS_MAX: u32 = 256;

impl Pool {
    /// Starts `threads - 1` workers: the caller of a job is the first thread.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        let asleep = (1..threads).map(|_| AtomicBool::new(false)).collect();
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            has_panicked: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            asleep,
        });
        let (workers, handles) = (Vec::new(), Vec::new());
        let mut pool = Self { shared, workers, threads: handles, is_busy: AtomicBool::new(false) };
        for index in 0..threads - 1 {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new()
                .name(format!("cpu-{}", index + 1))
                .spawn(move || shared.work(index))
                .map_err(|e| Error::outside(format!("thread {}", index + 1), e))?;
            pool.threads.push(worker.thread().clone());
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Takes the threads for one run; a second run at the same time works without them.
    pub(crate) fn crew(&self) -> Crew<'_> {
        let is_free = !self.is_busy.swap(true, Ordering::Acquire);
        Crew { pool: is_free.then_some(self) }
    }

    fn open(&self, job: &Job<'_>, chunks: usize) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The pointer is used by threads that joined this job,
        // and the caller of `open` waits for them before the job ends.
        let job: *const Job<'static> = unsafe { std::mem::transmute(std::ptr::from_ref(job)) };
        // SAFETY: the gate is closed and nobody has joined: nobody looks at `job`.
        unsafe { *shared.job.get() = Some((job, chunks)) };
        shared.next.store(0, Ordering::Relaxed);
        shared.has_panicked.store(false, Ordering::Relaxed);
        let number = (shared.gate.load(Ordering::Relaxed) >> 32).wrapping_add(1) << 32;
        // Sequentially consistent with `asleep`: either the worker sees the open gate before it
        // sleeps, or it is seen sleeping here.
        shared.gate.store(number | OPEN, Ordering::SeqCst);
        for (asleep, thread) in shared.asleep.iter().zip(&self.threads) {
            if asleep.load(Ordering::SeqCst) && asleep.swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
    }

    /// Waits until nobody works on the job.
    fn close(&self) {
        let gate = &self.shared.gate;
        gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut waits = 0;
        while gate.load(Ordering::Acquire) & JOINED != 0 {
            waits += 1;
            if waits < WAITS_MAX {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &(self.threads.len() + 1)).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.threads.iter().for_each(Thread::unpark);
        for worker in self.workers.drain(..) {
            // Workers catch what their jobs panic with.
            let _ = worker.join();
        }
    }
}

impl Crew<'_> {
    /// Threads that work on a job.
    pub(crate) fn threads(&self) -> usize {
        self.pool.map_or(1, |pool| pool.threads.len() + 1)
    }

    /// Runs `job(0)`, …, `job(chunks - 1)`, each once, and returns when all are done.
    ///
    /// # Errors
    ///
    /// [`Error::Outside`] if a chunk panicked on another thread; a panic of the caller's own chunk
    /// goes on once nobody works on the job.
    pub(crate) fn run(&self, chunks: usize, job: &Job<'_>) -> Result<()> {
        let Some(pool) = self.pool.filter(|pool| chunks > 1 && !pool.threads.is_empty()) else {
            (0..chunks).for_each(job);
            return Ok(());
        };
        pool.open(job, chunks);
        let closing = Closing(pool);
        pool.shared.claim(chunks, job);
        drop(closing);
        if pool.shared.has_panicked.load(Ordering::Relaxed) {
            return Err(Error::outside("cpu backend", "an instruction panicked"));
        }
        Ok(())
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        if let Some(pool) = self.pool {
            pool.is_busy.store(false, Ordering::Release);
        }
    }
}

/// Closes the gate also when the caller's own chunk panics.
struct Closing<'p>(&'p Pool);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shared {
    fn claim(&self, chunks: usize, job: &Job<'_>) {
        loop {
            let chunk = self.next.fetch_add(1, Ordering::Relaxed);
            if chunk >= chunks {
                return;
            }
            job(chunk);
        }
    }

    /// The life of worker `index`.
    fn work(&self, index: usize) {
        let mut seen = 0;
        while let Some(number) = self.join(index, seen) {
            seen = number;
            // SAFETY: this thread has joined: `job` was written before the gate opened, and its
            // owner waits for this thread to leave.
            let job = unsafe { (*self.job.get()).map(|(job, chunks)| (&*job, chunks)) };
            if let Some((job, chunks)) = job
                && catch_unwind(AssertUnwindSafe(|| self.claim(chunks, job))).is_err()
            {
                self.has_panicked.store(true, Ordering::Relaxed);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a job other than number `seen`, joins it and returns its number; `None` at the
    /// end.
    fn join(&self, index: usize, seen: u64) -> Option<u64> {
        let mut spins = 0;
        loop {
            let gate = self.gate.load(Ordering::Acquire);
            if gate & OPEN != 0 && gate >> 32 != seen {
                let joined = gate + 1;
                let order = (Ordering::AcqRel, Ordering::Relaxed);
                if self.gate.compare_exchange_weak(gate, joined, order.0, order.1).is_ok() {
                    return Some(gate >> 32);
                }
                continue;
            }
            if self.is_over.load(Ordering::Relaxed) {
                return None;
            }
            spins += 1;
            if spins < SPINS_MAX {
                std::hint::spin_loop();
            } else if spins < SPINS_MAX + YIELDS_MAX {
                std::thread::yield_now();
            } else {
                spins = 0;
                self.sleep(index, seen);
            }
        }
    }

    /// Sleeps unless there is something to do.
    fn sleep(&self, index: usize, seen: u64) {
        self.asleep[index].store(true, Ordering::SeqCst);
        let gate = self.gate.load(Ordering::SeqCst);
        let has_job = gate & OPEN != 0 && gate >> 32 != seen;
        if !has_job && !self.is_over.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.asleep[index].store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
