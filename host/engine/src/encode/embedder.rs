//! The thread that encodes: a bounded queue of jobs, and steps over what waits of all of them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use jackfield_runtime::{Bus, Clock};

use super::EncoderSwapper;
use super::model::{EncoderCore, EncoderModel, EncoderPlan, Runner};
use crate::error::EngineError;
use crate::model::{PlanDigest, Tokenizer};

/// Where the vectors of a job go.
pub trait Reply: Send {
    /// Whether nobody waits for it any more: what is left of the job is then not computed.
    /// [encoder thread]
    fn is_unwanted(&self) -> bool;

    /// Takes the vectors, one after the other, or why there are none. [encoder thread]
    fn answer(self: Box<Self>, vectors: Result<Vec<f32>, EngineError>);
}

/// The way to an encoder that runs on a thread of its own. Dropping it ends the thread after the
/// jobs that it has.
pub struct Embedder {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// What the thread, those who submit and those who swap know together.
pub(super) struct Shared {
    pub(super) core: Arc<EncoderCore>,
    /// What encodes the jobs that come; a job keeps what it came to.
    pub(super) active: RwLock<Arc<EncoderPlan>>,
}

/// Sequences to encode.
struct Job {
    by: Arc<EncoderPlan>,
    sequences: Vec<Vec<u32>>,
    /// How many of them are encoded, or in the step under way.
    taken: usize,
    vectors: Vec<f32>,
    reply: Box<dyn Reply>,
}

impl Embedder {
    /// Starts the thread. At most `jobs_max` jobs wait for it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] if the system has no thread.
    pub fn start(model: EncoderModel, jobs_max: usize) -> Result<Self, EngineError> {
        let EncoderModel { core, active, mut runner } = model;
        let shared = Arc::new(Shared { core: Arc::clone(&core), active: RwLock::new(active) });
        let (jobs, waiting) = sync_channel(jobs_max);
        let thread = std::thread::Builder::new().name("encoder".to_owned());
        let thread = thread.spawn(move || run(&core, &mut runner, &waiting));
        let thread = thread.map_err(|e| plugin_api::Error::outside("thread of the encoder", e));
        let thread = thread.map_err(EngineError::plugin("encoder"))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), shared })
    }

    /// Text to tokens.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.core.tokenizer
    }

    /// Numbers in a vector.
    pub fn width(&self) -> usize {
        self.shared.core.width
    }

    /// Tokens of the longest sequence.
    pub fn tokens_max(&self) -> usize {
        self.shared.core.tokens_max
    }

    /// Ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.shared.core.vocab_size
    }

    /// Replaces the plugin that describes the model; hooks of `bus` are asked and told.
    pub fn swapper(&self, bus: &Bus, clock: Arc<dyn Clock>) -> EncoderSwapper {
        EncoderSwapper::new(&self.shared, bus, clock)
    }

    /// Hands over sequences to encode, and returns at once with the digest of the plan and plugins
    /// that will make the vectors.
    ///
    /// # Errors
    ///
    /// `reply`, which was not called, if as many jobs wait as may.
    pub fn submit(
        &self,
        sequences: Vec<Vec<u32>>,
        reply: Box<dyn Reply>,
    ) -> Result<PlanDigest, Box<dyn Reply>> {
        let by = self.shared.active();
        let digest = by.digest;
        let job = Job { by, sequences, taken: 0, vectors: Vec::new(), reply };
        let Some(jobs) = &self.jobs else { return Err(job.reply) };
        match jobs.try_send(job) {
            Ok(()) => Ok(digest),
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Err(job.reply),
        }
    }
}

impl Shared {
    /// What encodes the jobs that come.
    pub(super) fn active(&self) -> Arc<EncoderPlan> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Embedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedder").field("active", &self.shared.active().label).finish()
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported there.
            let _ = thread.join();
        }
    }
}

/// Encodes until nobody can ask for more.
fn run(core: &EncoderCore, runner: &mut Runner, waiting: &Receiver<Job>) {
    let mut open: VecDeque<Job> = VecDeque::new();
    loop {
        if open.is_empty() {
            match waiting.recv() {
                Ok(job) => open.push_back(job),
                Err(_) => return,
            }
        }
        while open.len() < OPEN_MAX {
            match waiting.try_recv() {
                Ok(job) => open.push_back(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        open.retain(|job| !job.reply.is_unwanted());
        step(core, runner, &mut open);
    }
}

/// Encodes one step's worth: of each job in turn one sequence, so that a job of thousands delays
/// one of a single text by a step. Jobs of one plan share a step with the first.
fn step(core: &EncoderCore, runner: &mut Runner, open: &mut VecDeque<Job>) {
    let Some(by) = open.front().map(|job| Arc::clone(&job.by)) else { return };
    let (mut chosen, mut num_tokens) = (Vec::new(), 0);
    'full: loop {
        let before = chosen.len();
        for (index, job) in open.iter_mut().enumerate() {
            let Some(ids) = job.sequences.get(job.taken) else { continue };
            if !Arc::ptr_eq(&job.by, &by) {
                continue;
            }
            if !core.has_room(chosen.len(), num_tokens, ids.len()) {
                break 'full;
            }
            num_tokens += ids.len();
            chosen.push((index, job.taken));
            job.taken += 1;
        }
        if chosen.len() == before {
            break;
        }
    }
    let sequences = chosen.iter().map(|&(job, taken)| &open[job].sequences[taken][..]);
    match runner.encode(core, &by, sequences) {
        Ok(vectors) => {
            let rows = vectors.chunks_exact(core.width);
            for ((job, _), row) in chosen.into_iter().zip(rows) {
                open[job].vectors.extend_from_slice(row);
            }
        }
        Err(error) => {
            // Whose fault it was is not known: all that were in the step are told.
            let message = error.to_string();
            let mut failed: Vec<usize> = chosen.into_iter().map(|(job, _)| job).collect();
            failed.sort_unstable();
            failed.dedup();
            for index in failed.into_iter().rev() {
                if let Some(job) = open.remove(index) {
                    let error = plugin_api::Error::outside("step", &message);
                    job.reply.answer(Err(EngineError::plugin("encoder")(error)));
                }
            }
        }
    }
    let mut index = 0;
    while index < open.len() {
        let is_done = open[index].taken == open[index].sequences.len();
        match if is_done { open.remove(index) } else { None } {
            Some(job) => job.reply.answer(Ok(job.vectors)),
            None => index += 1,
        }
    }
    // The next step begins with another job.
    if !open.is_empty() {
        open.rotate_left(1);
    }
}

/// Jobs that steps take from at a time.
const OPEN_MAX: usize = 32;
